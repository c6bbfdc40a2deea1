use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::tokenizer::tests::{byte_fallback_json, byte_level_json, load};

/// One whose tokens stand for bytes, and one whose words begin with `▁`.
static TOKENIZERS: LazyLock<[Arc<Tokenizer>; 2]> = LazyLock::new(|| {
    [byte_level_json(), byte_fallback_json()].map(|json| Arc::new(load(&json).unwrap()))
});

/// The text of each push, and of the end.
fn pieces(tokenizer: &Arc<Tokenizer>, ids: &[u32]) -> (Vec<Option<String>>, Option<String>) {
    let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer));
    let pushed = ids.iter().map(|id| detokenizer.push(*id).unwrap()).collect();
    (pushed, detokenizer.finish().unwrap())
}

fn joined((pushed, finished): (Vec<Option<String>>, Option<String>)) -> String {
    pushed.into_iter().chain([finished]).flatten().collect()
}

#[test]
fn a_character_of_several_tokens_comes_with_its_last() {
    let [byte_level, _] = &*TOKENIZERS;
    let some = |text: &str| Some(text.to_owned());
    let ids: Vec<u32> = "🙂a".bytes().map(u32::from).collect();
    assert_eq!(pieces(byte_level, &ids), (vec![None, None, None, some("🙂"), some("a")], None));
}

#[test]
fn a_character_that_is_never_completed_is_replaced_at_the_end() {
    let [byte_level, _] = &*TOKENIZERS;
    assert_eq!(pieces(byte_level, &[0xE4, 0xB8]), (vec![None, None], Some("\u{FFFD}".to_owned())));
}

#[test]
fn a_wrong_byte_is_replaced_as_soon_as_it_is_known_to_be_wrong() {
    let [byte_level, _] = &*TOKENIZERS;
    let (pushed, finished) = pieces(byte_level, &[0xE4, 0x61, 0xFF]);
    let texts: Vec<_> = pushed.iter().map(Option::as_deref).collect();
    assert_eq!((texts, finished), (vec![None, Some("\u{FFFD}a"), Some("\u{FFFD}")], None));
}

#[test]
fn words_keep_the_space_between_them_and_lose_that_before_the_first() {
    let [_, byte_fallback] = &*TOKENIZERS;
    let ids = byte_fallback.encode("a a ab 世a").unwrap();
    let (pushed, _) = pieces(byte_fallback, &ids);
    let texts: Vec<_> = pushed.iter().flatten().map(String::as_str).collect();
    assert_eq!(texts, ["a", " a", " ab", " ", "世a"]);
}

#[test]
fn special_tokens_do_not_part_a_character() {
    let [byte_level, _] = &*TOKENIZERS;
    assert_eq!(joined(pieces(byte_level, &[0xC3, 262, 0xA9])), "é");
}

proptest! {
    #[test]
    fn the_pieces_of_any_ids_make_the_text_of_all(ids in prop::collection::vec(0_u32..270, 0..40)) {
        for tokenizer in &*TOKENIZERS {
            prop_assert_eq!(joined(pieces(tokenizer, &ids)), tokenizer.decode(&ids).unwrap());
        }
    }

    #[test]
    fn the_pieces_of_any_text_make_that_text(text in "(\\PC|[世界한국語éß]|🙂|👩‍👩‍👧|[ \\n\\t]){0,30}") {
        for tokenizer in &*TOKENIZERS {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(joined(pieces(tokenizer, &ids)), tokenizer.decode(&ids).unwrap());
        }
    }

    #[test]
    fn no_piece_has_half_a_character(text in "[世界é🙂a ]{1,20}") {
        for tokenizer in &*TOKENIZERS {
            let (pushed, finished) = pieces(tokenizer, &tokenizer.encode(&text).unwrap());
            let mut texts = pushed.iter().chain([&finished]).flatten();
            let is_whole = texts.all(|text| !text.contains(char::REPLACEMENT_CHARACTER));
            prop_assert!(is_whole);
        }
    }
}
