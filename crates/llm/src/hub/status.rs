//! Which cards' files are on this machine.

use std::path::PathBuf;

use super::cards::{Artifact, ArtifactSource, Card, cards};
use super::environment::HubEnvironment;
use super::package;
use super::remote::Remote;

/// A card, and the copies of its weights on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct CardStatus {
    /// The card.
    pub card: &'static Card,
    /// Complete copies, in the order of the card's artifacts; the first is the one that runs.
    pub on_disk: Vec<StoredCopy>,
}

/// A complete copy of one artifact.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCopy {
    /// Which of the card's artifacts it is.
    pub artifact: &'static Artifact,
    /// The weights' file, or the directory with all files of the model.
    pub path: PathBuf,
}

/// All cards, with what is on disk. Sends nothing.
pub fn list(environment: &HubEnvironment) -> Vec<CardStatus> {
    let status = |card: &'static Card| {
        let copies = card.artifacts.iter().filter_map(|artifact| {
            let path = match &artifact.source {
                ArtifactSource::Hub(hub) => {
                    Remote::new(&hub.repository, &hub.revision, environment).ok()?.cached()
                }
                ArtifactSource::PythonPackage(package) => {
                    package::stored(package, artifact, &card.id, environment)
                }
            };
            path.map(|path| StoredCopy { artifact, path })
        });
        CardStatus { card, on_disk: copies.collect() }
    };
    cards().iter().map(status).collect()
}
