//! What `--model` takes.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use super::cards::{self, Card};
use super::error::HubError;

/// A model as the user names it.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelName {
    /// A card's id.
    Card(&'static Card),
    /// A repository of the hub, `org/name`.
    Hub(String),
    /// A directory with `config.json`, weights in safetensors and `tokenizer.json`.
    Directory(PathBuf),
    /// A single file.
    File(PathBuf),
}

impl FromStr for ModelName {
    type Err = HubError;

    /// A card's id comes first, then what exists on disk, then the hub: the way transformers looks,
    /// with cards before.
    fn from_str(text: &str) -> Result<Self, HubError> {
        if let Some(card) = cards::card(text) {
            return Ok(Self::Card(card));
        }
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        if path.exists() {
            return Ok(Self::File(path.to_owned()));
        }
        if looks_like_a_path(path) {
            return Err(HubError::NoSuchPath { path: path.to_owned() });
        }
        if is_hub_id(text) {
            return Ok(Self::Hub(text.to_owned()));
        }
        Err(HubError::UnknownModel {
            name: text.to_owned(),
            nearest: cards::nearest(text),
            cards: cards::cards().iter().map(|card| card.id.clone()).collect(),
        })
    }
}

fn looks_like_a_path(path: &Path) -> bool {
    let begins_as_path = matches!(
        path.components().next(),
        Some(Component::RootDir | Component::CurDir | Component::ParentDir)
    );
    let is_a_file =
        path.extension().is_some_and(|extension| extension == "gguf" || extension == "safetensors");
    begins_as_path || path.starts_with("~") || is_a_file || path.components().count() > 2
}

/// Whether the text has the form `org/name`, in the characters that the hub allows.
fn is_hub_id(text: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "._-".contains(character))
    };
    text.split_once('/').is_some_and(|(organisation, name)| is_part(organisation) && is_part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        ModelName::from_str(text).unwrap_err().to_string()
    }

    #[test]
    fn a_card_s_id_is_a_card() {
        assert!(matches!("yi-34b".parse(), Ok(ModelName::Card(card)) if card.id == "yi-34b"));
    }

    #[test]
    fn an_organisation_and_a_name_are_a_hub_id() {
        assert_eq!(
            ModelName::from_str("Qwen/Qwen2.5-0.5B").unwrap(),
            ModelName::Hub("Qwen/Qwen2.5-0.5B".into())
        );
    }

    #[test]
    fn what_exists_on_disk_is_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("model.gguf");
        std::fs::write(&file, "GGUF").unwrap();
        let parse = |path: &Path| ModelName::from_str(path.to_str().unwrap()).unwrap();
        assert_eq!(parse(directory.path()), ModelName::Directory(directory.path().to_owned()));
        assert_eq!(parse(&file), ModelName::File(file));
    }

    #[test]
    fn a_path_to_nothing_is_not_taken_for_a_hub_id() {
        for path in ["./smol", "/models/smol", "../smol", "~/smol", "models/smol.gguf", "a/b/c"] {
            assert!(
                error_of(path).starts_with("there is no file or directory"),
                "{path}: {}",
                error_of(path)
            );
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_card() {
        insta::assert_snapshot!(error_of("smolm2-135m-instruct"), @"unknown model `smolm2-135m-instruct` (did you mean smollm2-135m-instruct?); a model is a card's id (smollm2-135m-instruct, qwen2.5-7b-instruct, llama-3.1-8b-instruct, mistral-7b-instruct-v0.2, yi-34b), a hub id (org/name), a directory with config.json, or a GGUF file");
        for text in ["", " ", "org/", "a b/c", "org/na me", "org/..", "\0"] {
            assert!(ModelName::from_str(text).is_err(), "{text:?}");
        }
    }
}
