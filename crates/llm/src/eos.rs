//! The tokens that end a sequence.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::hub::{ConfigSource, GENERATION_CONFIG, ModelFiles, read_json};
use crate::weights::{GgufWeights, LoadError};

/// Ids of the tokens that end a sequence of this model, in ascending order: those of
/// `generation_config.json`, which instruction-tuned models extend by the end of a turn, else those
/// of `config.json`, of the card, or of the GGUF metadata.
pub fn eos_ids(files: &ModelFiles) -> Result<Vec<u32>, LoadError> {
    let ids = match &files.config {
        ConfigSource::HfConfig(path) => {
            let generation = path.with_file_name(GENERATION_CONFIG);
            let preferred = if generation.is_file() {
                ids_in(&read_json::<Value>(&generation, "generation configuration")?[FIELD])
            } else {
                BTreeSet::new()
            };
            if preferred.is_empty() {
                ids_in(&read_json::<Value>(path, "model configuration")?[FIELD])
            } else {
                preferred
            }
        }
        ConfigSource::Card(table) => {
            let said = table.get(FIELD).and_then(|value| serde_json::to_value(value).ok());
            said.as_ref().map(ids_in).unwrap_or_default()
        }
        ConfigSource::Gguf(path) => GgufWeights::open(path)?.eos_ids(),
    };
    Ok(ids.into_iter().collect())
}

/// The field's name in each of the JSON files, and in a card.
const FIELD: &str = "eos_token_id";

/// One id or a list of them.
fn ids_in(value: &Value) -> BTreeSet<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::tests::tiny_files;
    use crate::weights::gguf_file::{GgufFile, U32, entry, on_disk};

    fn of(config: ConfigSource) -> Vec<u32> {
        eos_ids(&ModelFiles { config, ..tiny_files("tiny_llama") }).unwrap()
    }

    #[test]
    fn the_ids_that_end_a_sequence_come_from_the_generation_config_before_the_config() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.json");
        fs::write(&config, r#"{"eos_token_id": 5}"#).unwrap();
        assert_eq!(of(ConfigSource::HfConfig(config.clone())), [5]);
        let generation = directory.path().join(GENERATION_CONFIG);
        fs::write(&generation, r#"{"eos_token_id": [9, 7]}"#).unwrap();
        assert_eq!(of(ConfigSource::HfConfig(config.clone())), [7, 9]);
        fs::write(&generation, r#"{"do_sample": true}"#).unwrap();
        assert_eq!(of(ConfigSource::HfConfig(config)), [5]);
        assert_eq!(
            of(ConfigSource::Card(toml::from_str("eos_token_id = [3, 2]").unwrap())),
            [2, 3]
        );
    }

    #[test]
    fn a_gguf_file_ends_a_sequence_with_its_text_or_its_turn() {
        let mut file = GgufFile::tiny_llama();
        for (key, id) in [("eos_token_id", 9_u32), ("eot_token_id", 4)] {
            let entry = entry(&format!("tokenizer.ggml.{key}"), U32, &id.to_le_bytes());
            file.entries.push(entry);
        }
        let file = on_disk(&file.bytes());
        assert_eq!(of(ConfigSource::Gguf(file.path().to_owned())), [4, 9]);
    }
}
