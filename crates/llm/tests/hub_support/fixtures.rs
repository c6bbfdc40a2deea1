//! A tiny model, and where it can be had.

use std::fs;
use std::path::Path;

use metron_llm::hub::{Card, ModelFiles, ModelName, WeightFiles, sha256_file};

use super::{FakeHub, Manner, Served};

pub(crate) const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"]}"#;
pub(crate) const TOKENIZER_CONFIG: &str = r#"{"chat_template": "{{ messages }}"}"#;

/// A small file: the hub names its content by a Git hash.
pub(crate) fn small(content: &str) -> Served {
    Served {
        content: content.into(),
        etag: format!("{:040x}", content.len()),
        manner: Manner::Well,
    }
}

/// A large file: the hub names its content by its SHA-256.
pub(crate) fn large(content: &[u8], manner: Manner) -> Served {
    Served { content: content.into(), etag: sha256_of(content), manner }
}

pub(crate) fn weights() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

pub(crate) fn sha256_of(content: &[u8]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("content");
    fs::write(&path, content).expect("a file");
    sha256_file(&path).expect("the hash of a file")
}

/// A complete repository whose weights are served in the given manner.
pub(crate) fn repository(manner: Manner) -> FakeHub {
    FakeHub::serving([
        ("config.json", small(CONFIG)),
        ("tokenizer.json", small("{}")),
        ("tokenizer_config.json", small(TOKENIZER_CONFIG)),
        ("model.safetensors", large(&weights(), manner)),
    ])
}

/// The fake repository by its hub id.
pub(crate) fn tiny() -> ModelName {
    ModelName::Hub("acme/tiny".to_owned())
}

/// A card with the fake repository first and a fake package after it.
pub(crate) fn card(package_content: &[u8]) -> ModelName {
    let text = format!(
        r#"
        id = "tiny"
        name = "Tiny"
        licence = "MIT"
        parameters = 1
        tokenizer = "none"
        [config]
        architectures = ["LlamaForCausalLM"]
        [[artifacts]]
        format = "safetensors"
        dtype = "f32"
        bytes = 800000
        [artifacts.source.hub]
        repository = "acme/tiny"
        revision = "main"
        [[artifacts]]
        format = "GGUF"
        dtype = "Q8_0"
        bytes = {}
        sha256 = "{}"
        [artifacts.source.python_package]
        name = "acme-tiny"
        version = "1.0"
        file = "acme_tiny/tiny.gguf"
        "#,
        package_content.len(),
        sha256_of(package_content)
    );
    let card: Card = toml::from_str(&text).expect("a card");
    ModelName::Card(Box::leak(Box::new(card)))
}

/// The weights, if they are one file.
pub(crate) fn single_file(files: &ModelFiles) -> &Path {
    match &files.weights {
        WeightFiles::Safetensors(paths) if paths.len() == 1 => &paths[0],
        WeightFiles::Gguf(path) => path,
        other => panic!("not one file: {other:?}"),
    }
}
