use std::fs::{self, File};
use std::path::PathBuf;

use candle_core::quantized::gguf_file::{self, Value as Gguf};
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// The character that GPT-2 writes for each byte, in the order of the bytes.
fn alphabet() -> Vec<String> {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = '\u{100}'..;
    let mut character =
        |byte: u8| if printable(&byte) { char::from(byte) } else { others.next().unwrap() };
    (0..=255).map(|byte| character(byte).to_string()).collect()
}

/// 256 bytes, a few words, and two special tokens at the end.
const WORDS: [(&str, &str); 6] =
    [("t", "h"), ("th", "e"), ("Ġ", "the"), ("1", "2"), ("Ġ", "1"), ("ä", "¸")];

fn vocabulary() -> Vec<String> {
    let words = WORDS.iter().map(|(first, second)| format!("{first}{second}"));
    alphabet().into_iter().chain(words).chain(["<s>".to_owned(), "</s>".to_owned()]).collect()
}

fn vocabulary_json(tokens: &[String]) -> Value {
    tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn special(id: usize, token: &str) -> Value {
    json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true})
}

/// A `tokenizer.json` of byte-level BPE.
pub(crate) fn byte_level_json() -> Value {
    let merges: Vec<String> =
        WORDS.iter().map(|(first, second)| format!("{first} {second}")).collect();
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let [bos, first, second] = [
        json!({"SpecialToken": {"id": "<s>", "type_id": 0}}),
        json!({"Sequence": {"id": "A", "type_id": 0}}),
        json!({"Sequence": {"id": "B", "type_id": 0}}),
    ];
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(262, "<s>"), special(263, "</s>")],
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [bos, first, second],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [262], "tokens": ["<s>"]}},
        },
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocabulary_json(&vocabulary()), "merges": merges},
    })
}

/// A `tokenizer.json` as converted from a model of `SentencePiece`: words begin with `▁`, characters
/// without a token become bytes.
pub(crate) fn byte_fallback_json() -> Value {
    let begin = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>"));
    let words = ["▁", "a", "b", "▁a", "▁ab", "é"].map(str::to_owned);
    let tokens: Vec<String> = begin.into_iter().chain(bytes).chain(words).collect();
    json!({
        "version": "1.0",
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>",
            "vocab": vocabulary_json(&tokens), "merges": ["▁ a", "▁a b"],
        },
    })
}

/// Loads a `tokenizer.json`, written to a file for as long as this takes.
pub(crate) fn load(json: &Value) -> Result<Tokenizer, TokenizerError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    Tokenizer::from_json(&path)
}

/// A GGUF file with the same vocabulary, for the given steps before BPE.
fn gguf_file(pre_tokenizer: &str, more: &[(&str, Gguf)]) -> (TempDir, PathBuf) {
    let texts = |texts: Vec<String>| Gguf::Array(texts.into_iter().map(Gguf::String).collect());
    let kinds = (0..264).map(|id| Gguf::I32(if id < 262 { 1 } else { 3 })).collect();
    let mut metadata = vec![
        ("general.architecture", Gguf::String("qwen2".to_owned())),
        ("tokenizer.ggml.model", Gguf::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre", Gguf::String(pre_tokenizer.to_owned())),
        ("tokenizer.ggml.tokens", texts(vocabulary())),
        ("tokenizer.ggml.token_type", Gguf::Array(kinds)),
        (
            "tokenizer.ggml.merges",
            texts(WORDS.iter().map(|(first, second)| format!("{first} {second}")).collect()),
        ),
        ("tokenizer.ggml.bos_token_id", Gguf::U32(262)),
        ("tokenizer.ggml.eos_token_id", Gguf::U32(263)),
    ];
    metadata.retain(|(key, _)| !more.iter().any(|(other, _)| other == key));
    metadata.extend(more.iter().cloned());
    let entries: Vec<(&str, &Gguf)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tiny.gguf");
    gguf_file::write(&mut File::create(&path).unwrap(), &entries, &[]).unwrap();
    (directory, path)
}

fn from_gguf(pre_tokenizer: &str, more: &[(&str, Gguf)]) -> Result<Tokenizer, TokenizerError> {
    let (_directory, path) = gguf_file(pre_tokenizer, more);
    Tokenizer::from_gguf(&path)
}

/// The texts of a text's tokens.
fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text).unwrap().iter().map(|id| tokenizer.decode(&[*id]).unwrap()).collect()
}

#[test]
fn a_text_comes_back_from_its_ids() {
    let texts = ["", "the 12 the", " the\n\n", "naïve 世界 🙂👩‍👩‍👧 Ω≈ç\0", "<s>"];
    for tokenizer in [load(&byte_level_json()).unwrap(), load(&byte_fallback_json()).unwrap()] {
        for text in texts {
            let ids = tokenizer.encode(text).unwrap();
            let expected = if text == "<s>" { "" } else { text };
            assert_eq!(tokenizer.decode(&ids).unwrap(), expected, "{ids:?}");
        }
    }
}

#[test]
fn the_token_that_begins_a_text_is_added_and_has_no_text() {
    let tokenizer = load(&byte_level_json()).unwrap();
    assert_eq!(tokenizer.encode("the").unwrap(), [262, 257]);
    assert_eq!(tokenizer.encode_chat("<s>the").unwrap(), [262, 257]);
    assert_eq!(tokenizer.decode(&[262, 257, 263]).unwrap(), "the");
}

#[test]
fn an_id_that_is_not_in_the_vocabulary_has_no_text() {
    let tokenizer = load(&byte_level_json()).unwrap();
    assert_eq!(tokenizer.decode(&[257, 264, u32::MAX, 257]).unwrap(), "thethe");
}

#[test]
fn ordinary_tokens_have_a_valid_plain_text_of_their_own() {
    let tokenizer = load(&byte_level_json()).unwrap();
    let ids = tokenizer.ordinary_token_ids();
    let printable_ascii = 0x20..=0x7E;
    let expected = [9, 10, 13].into_iter().chain(printable_ascii).chain(256..=260);
    assert!(ids.iter().copied().eq(expected), "{ids:?}");

    let tokenizer = load(&byte_fallback_json()).unwrap();
    let texts: Vec<String> =
        tokenizer.ordinary_token_ids().iter().map(|id| tokenizer.decode(&[*id]).unwrap()).collect();
    assert_eq!(texts, ["a", "b", "a", "ab", "é"]);
}

#[test]
fn a_prompt_is_never_cut_or_filled_up() {
    let mut json = byte_level_json();
    json["truncation"] = json!({
        "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5
    });
    json["padding"] = json!({
        "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!",
    });
    assert_eq!(load(&json).unwrap().encode("the the the").unwrap(), [262, 257, 258, 258]);
}

#[test]
fn a_file_that_would_panic_later_is_refused() {
    let strip = json!({"type": "Strip", "content": " ", "start": 0, "stop": 1});
    let rows: [(&str, Value, &str); 9] = [
        ("/model/merges/0", json!("q uite-a-long-token-that-nobody-has"), "needs the token"),
        ("/model/merges/0", json!("q x"), "needs the token `qx`"),
        ("/model/merges/0", json!(7), "merge 7 is not a pair"),
        ("/model/vocab/the", json!(1), "is not a number of its own"),
        ("/post_processor/special_tokens", json!({}), "uses the special token `<s>`"),
        ("/post_processor/single/1/Sequence/id", json!("B"), "uses the sequence `B`"),
        ("/decoder", json!({"type": "Sequence", "decoders": [strip]}), "decoder: Strip"),
        (
            "/pre_tokenizer",
            json!({"type": "FixedLength", "length": 0}),
            "pre_tokenizer: FixedLength",
        ),
        (
            "/normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            "normalizer: Precompiled",
        ),
    ];
    for (place, value, expected) in rows {
        let mut json = byte_level_json();
        *json.pointer_mut(place).unwrap() = value;
        let error = load(&json).unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains(expected), "{place}: {error}");
    }
}

#[test]
fn a_file_that_is_no_tokenizer_is_refused() {
    for (json, expected) in [
        (json!([]), "not a JSON object"),
        (json!({}), "is damaged"),
        (json!({"version": "1.0", "model": {"type": "BPE"}}), "is damaged"),
        (json!({"version": "9", "model": byte_level_json()["model"]}), "Unknown tokenizer version"),
    ] {
        let error = load(&json).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    assert!(matches!(Tokenizer::from_json(&path), Err(TokenizerError::File(HubError::Io { .. }))));
    fs::write(&path, r#"{"version": "1.0", "#).unwrap();
    assert!(
        Tokenizer::from_json(&path)
            .unwrap_err()
            .to_string()
            .contains("is not a valid tokenizer: EOF")
    );
}

#[test]
fn a_panic_becomes_an_error() {
    let error =
        guarded("encode this text", || -> tokenizers::Result<()> { panic!("index out of bounds") });
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "the tokenizer can't encode this text: index out of bounds; its file may be damaged"
    );
}

#[test]
fn smollm_splits_digits_one_by_one_and_adds_no_prefix_space() {
    let tokenizer = from_gguf("smollm", &[]).unwrap();
    assert_eq!(pieces(&tokenizer, "the 12 the"), ["the", " ", "1", "2", " the"]);
}

#[test]
fn qwen2_splits_digits_after_normalising() {
    let tokenizer = from_gguf("qwen2", &[]).unwrap();
    assert_eq!(pieces(&tokenizer, "the 12 the"), ["the", " ", "1", "2", " the"]);
    assert_eq!(tokenizer.encode("e\u{301}").unwrap(), tokenizer.encode("é").unwrap());
}

#[test]
fn llama_takes_digits_together_and_begins_with_bos() {
    let tokenizer = from_gguf("llama-bpe", &[]).unwrap();
    assert_eq!(pieces(&tokenizer, "the 12 the"), ["", "the", " ", "12", " the"]);
    assert_eq!(tokenizer.encode("the").unwrap(), [262, 257]);
    let without =
        from_gguf("llama-bpe", &[("tokenizer.ggml.add_bos_token", Gguf::Bool(false))]).unwrap();
    assert_eq!(without.encode("the").unwrap(), [257]);
}

#[test]
fn special_tokens_of_gguf_are_read_in_text_and_left_out_of_it() {
    let tokenizer = from_gguf("smollm", &[]).unwrap();
    assert_eq!(tokenizer.encode("the</s>the").unwrap(), [257, 263, 257]);
    assert_eq!(tokenizer.decode(&[257, 263, 257]).unwrap(), "thethe");
    assert!(!tokenizer.ordinary_token_ids().contains(&263));
}

#[test]
fn gguf_of_another_kind_says_what_is_supported() {
    let error = from_gguf("deepseek-coder", &[]).unwrap_err().to_string();
    assert!(error.contains(
        "tokenizer.ggml.pre = deepseek-coder; supported in GGUF are smollm, qwen2 and llama-bpe"
    ));
    let llama = [("tokenizer.ggml.model", Gguf::String("llama".to_owned()))];
    let error = from_gguf("smollm", &llama).unwrap_err().to_string();
    assert!(
        error.contains("tokenizer.ggml.model = llama; supported in GGUF is byte-level BPE"),
        "{error}"
    );
}

#[test]
fn damaged_gguf_metadata_is_refused() {
    let text = |text: &str| Gguf::String(text.to_owned());
    let rows = [
        ("tokenizer.ggml.merges", Gguf::Array(vec![text("q zz")]), "needs the token `zz`"),
        ("tokenizer.ggml.merges", Gguf::Array(vec![text("the")]), "is not a pair"),
        ("tokenizer.ggml.tokens", Gguf::U32(3), "tokenizer.ggml.tokens is not a list of texts"),
        (
            "tokenizer.ggml.tokens",
            Gguf::Array(vec![text("a"); 264]),
            "the token `a` is there twice",
        ),
        (
            "tokenizer.ggml.token_type",
            Gguf::Array(vec![Gguf::I32(1)]),
            "264 tokens and 1 token types",
        ),
    ];
    for (key, value, expected) in rows {
        let error = from_gguf("smollm", &[(key, value)]).unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains(expected), "{error}");
    }
}
