use proptest::prelude::*;

use super::*;
use crate::weights::gguf_file::{ARRAY, GgufFile, STRING, U32, entry, on_disk, string, tensor};
use crate::weights::{GgufWeights, Weights};

fn check(bytes: &[u8]) -> Result<(), String> {
    check_gguf(on_disk(bytes).path()).map_err(|error| match error {
        LoadError::Malformed { cause, .. } => cause,
        other => panic!("{other}"),
    })
}

fn refusal(change: impl FnOnce(&mut GgufFile)) -> String {
    let mut file = GgufFile::tiny_llama();
    change(&mut file);
    check(&file.bytes()).unwrap_err()
}

fn with_entry(key: &str, kind: u32, value: &[u8]) -> String {
    refusal(|file| file.entries.push(entry(key, kind, value)))
}

fn with_tensor(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> String {
    refusal(|file| file.tensors.push(tensor(name, dimensions, kind, offset)))
}

#[test]
fn a_damaged_header_is_refused_with_what_is_wrong() {
    let bytes = GgufFile::tiny_llama().bytes();
    assert_eq!(check(&bytes), Ok(()));
    let many = [&b"GGUF\x03\0\0\0"[..], &u64::MAX.to_le_bytes(), &[0; 8]].concat();
    let array = |kind: u32, len: u64| [&kind.to_le_bytes()[..], &len.to_le_bytes()].concat();
    let nested = [array(ARRAY, 1), array(ARRAY, 1), array(ARRAY, 1), array(ARRAY, 1)].concat();
    let refusals = [
        check(b"").unwrap_err(),
        check(b"PK\x03\x04 and so on").unwrap_err(),
        check(b"something else").unwrap_err(),
        check(&bytes[..21]).unwrap_err(),
        check(&bytes[..100]).unwrap_err(),
        check(&bytes[..bytes.len() - 1]).unwrap_err(),
        check(&many).unwrap_err(),
        refusal(|file| file.version = 1),
        refusal(|file| file.version = 3_u32.swap_bytes()),
        with_entry("general.alignment", U32, &0_u32.to_le_bytes()),
        with_entry("general.alignment", U32, &3_u32.to_le_bytes()),
        with_entry("general.alignment", STRING, &string("32")),
        with_entry("general.architecture", STRING, &string("llama")),
        with_entry("", U32, &[0; 4]),
        with_entry("a", 99, &[]),
        with_entry("a", STRING, &u64::MAX.to_le_bytes()),
        with_entry("a", ARRAY, &array(U32, u64::MAX)),
        with_entry("a", ARRAY, &nested),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn an_impossible_tensor_is_refused_by_name() {
    let refusals = [
        with_tensor("a", &[1, 1, 1, 1, 1], 0, 0),
        with_tensor("a", &[1 << 62, 1], 0, 0),
        with_tensor("a", &[1 << 32, 1 << 32], 0, 0),
        with_tensor("a", &[0, 4], 0, 0),
        with_tensor("a", &[40, 1], 8, 0),
        with_tensor("a", &[32, 1], 17, 0),
        with_tensor("a", &[32, 1], 77, 0),
        with_tensor("a", &[8, 1], 0, 4),
        with_tensor("a", &[8, 1], 0, 1 << 60),
        with_tensor("a", &[8, 1], 0, 0),
        with_tensor("token_embd.weight", &[8, 1], 0, 0),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn a_large_array_is_refused_before_it_is_read_into_memory() {
    let len = 1_u64 << 23;
    let value = [&0_u32.to_le_bytes()[..], &len.to_le_bytes(), &vec![0; 1 << 23]].concat();
    let refused = with_entry("a", ARRAY, &value);
    assert_eq!(refused, "metadata `a` has 8388608 elements; at most 4194304");
}

/// Reads everything that a file has.
fn read_all(bytes: &[u8]) {
    let file = on_disk(bytes);
    if let Ok(weights) = GgufWeights::open(file.path())
        && let Ok(config) = weights.config()
        // A flipped bit may ask for a model of any size; only those that could be in the file are
        // read.
        && config.num_hidden_layers == 1
    {
        for name in config.tensors().keys() {
            let _ = weights.stored(name).map(|_| weights.tensor(name));
        }
    }
}

proptest! {
    /// Whatever passes the check, Candle reads without a panic.
    #[test]
    fn no_flipped_byte_leads_to_a_panic(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = GgufFile::tiny_llama().bytes();
        // Data are only numbers: what is in front of them is of interest.
        let header = bytes.len() - GgufFile::tiny_llama().data.len();
        for (at, value) in flips {
            bytes[at.index(header)] = value;
        }
        read_all(&bytes);
    }

    #[test]
    fn no_file_cut_short_leads_to_a_panic(at in any::<proptest::sample::Index>()) {
        let bytes = GgufFile::tiny_llama().bytes();
        let cut = &bytes[..at.index(bytes.len())];
        read_all(cut);
        prop_assert!(check(cut).is_err());
    }
}
