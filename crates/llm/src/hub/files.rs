//! What a model's name resolves to: the files to load, and where they came from.

use std::path::PathBuf;

/// Which weights to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadFormat {
    /// The model's real weights, from whichever source has them.
    #[default]
    Auto,
    /// Seeded random weights of the model's shape (as in vLLM): nothing is downloaded, timings are
    /// real, text isn't.
    Dummy,
}

/// The files of one model, all of them on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFiles {
    /// The card's id, the hub's `org/name`, or the file's or directory's name.
    pub id: String,
    /// Where the files came from, as part of a sentence: `hub org/name@rev`, `Python package
    /// name==version`, a path.
    pub source: String,
    /// Format of the weights as users know it: `safetensors`, `GGUF`, `GGUF Q4_1`, `dummy`.
    pub format: String,
    /// Where the architecture and shape are described.
    pub config: ConfigSource,
    /// The weights.
    pub weights: WeightFiles,
    /// The tokenizer.
    pub tokenizer: TokenizerSource,
    /// The chat template's text (Jinja), from the card or beside the weights.
    pub chat_template: Option<String>,
    /// SHA-256 of the weights in lower-case hexadecimal, where one file holds them and it was
    /// checked when stored.
    pub sha256: Option<String>,
}

impl ModelFiles {
    /// One sentence for the user: what runs, and which source it came from.
    pub fn sentence(&self) -> String {
        match self.weights {
            WeightFiles::Dummy => format!(
                "{} runs with random weights of its shape ({}): timings are real, the text is not.",
                self.id, self.source
            ),
            WeightFiles::Safetensors(_) | WeightFiles::Gguf(_) => {
                format!("{} runs from {} ({}).", self.id, self.source, self.format)
            }
        }
    }
}

/// Where a model's architecture and shape are described.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigSource {
    /// A `config.json` in the form of Hugging Face transformers.
    HfConfig(PathBuf),
    /// The metadata of a GGUF file.
    Gguf(PathBuf),
    /// The `[config]` table of a model card: the same fields as `config.json` has.
    Card(toml::Table),
}

/// A model's weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightFiles {
    /// One file, or all shards in the order of their names.
    Safetensors(Vec<PathBuf>),
    /// One GGUF file.
    Gguf(PathBuf),
    /// None: the loader fills the shape with seeded random numbers.
    Dummy,
}

/// Where a model's tokenizer is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerSource {
    /// A `tokenizer.json` in the form of Hugging Face tokenizers.
    Json(PathBuf),
    /// The `tokenizer.ggml.*` metadata of a GGUF file.
    Gguf(PathBuf),
    /// The source has none: prompts can only be token ids.
    None,
}
