//! GGUF files made in tests.

use std::io::Write;

use tempfile::NamedTempFile;

/// A file in the making: metadata entries and tensors, each encoded.
#[derive(Clone)]
pub(crate) struct GgufFile {
    pub(crate) version: u32,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) tensors: Vec<Vec<u8>>,
    pub(crate) data: Vec<u8>,
}

pub(crate) const U16: u32 = 2;
pub(crate) const U32: u32 = 4;
pub(crate) const F32: u32 = 6;
pub(crate) const STRING: u32 = 8;
pub(crate) const ARRAY: u32 = 9;

pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

pub(crate) fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key), &kind.to_le_bytes()[..], value].concat()
}

/// A tensor of the table, with its dimensions as llama.cpp has them: the innermost first.
pub(crate) fn tensor(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((dimensions.len() as u32).to_le_bytes());
    bytes.extend(dimensions.iter().flat_map(|dimension| dimension.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

impl GgufFile {
    /// A llama of one layer, in f32, 8 wide.
    pub(crate) fn tiny_llama() -> Self {
        let number = |key: &str, n: u32| entry(&format!("llama.{key}"), U32, &n.to_le_bytes());
        let entries = vec![
            entry("general.architecture", STRING, &string("llama")),
            number("embedding_length", 8),
            number("feed_forward_length", 8),
            number("block_count", 1),
            number("attention.head_count", 2),
            number("attention.head_count_kv", 1),
            number("context_length", 32),
            entry("llama.attention.layer_norm_rms_epsilon", F32, &1e-5_f32.to_le_bytes()),
        ];
        let mut file = Self { version: 3, entries, tensors: Vec::new(), data: Vec::new() };
        let matrix = [
            ("token_embd", 12),
            ("blk.0.attn_q", 8),
            ("blk.0.attn_k", 4),
            ("blk.0.attn_v", 4),
            ("blk.0.attn_output", 8),
            ("blk.0.ffn_gate", 8),
            ("blk.0.ffn_up", 8),
            ("blk.0.ffn_down", 8),
        ];
        for (name, rows) in matrix {
            file.add(name, &[8, rows]);
        }
        for name in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
            file.add(name, &[8]);
        }
        file
    }

    /// Adds a tensor of consecutive numbers.
    pub(crate) fn add(&mut self, name: &str, dimensions: &[u64]) {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        let offset = self.data.len() as u64;
        self.tensors.push(tensor(&format!("{name}.weight"), dimensions, 0, offset));
        let len = dimensions.iter().product::<u64>();
        self.data.extend((0..len).flat_map(|i| (i as f32).to_le_bytes()));
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        bytes.extend(self.entries.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}

pub(crate) fn on_disk(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}
