//! The bytes that a token of byte-level BPE stands for.
//!
//! GPT-2 writes each byte as a printable character, so that tokens are text:
//! <https://github.com/openai/gpt-2/blob/master/src/encoder.py>, `bytes_to_unicode`.

/// The token's bytes. A token with a character that stands for no byte (an added one) is its own
/// UTF-8.
pub(super) fn of_token(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte that a character stands for.
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        // Bytes that are printable in Latin-1 stand for themselves,
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        // and the 68 others follow in ascending order from U+0100.
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn each_byte_has_one_character_of_the_alphabet() {
        let alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        let bytes: BTreeSet<u8> =
            alphabet.iter().filter_map(|character| byte_of(*character)).collect();
        assert_eq!((alphabet.len(), bytes.len()), (256, 256));
    }

    #[test]
    fn a_token_gives_back_its_bytes() {
        assert_eq!(of_token("Ġthe"), b" the");
        assert_eq!(of_token("ä¸ĸ"), "世".as_bytes());
        assert_eq!(of_token("\n\n"), b"\n\n");
    }
}
