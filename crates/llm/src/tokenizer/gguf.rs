//! A tokenizer from the `tokenizer.ggml.*` metadata of a GGUF file.
//!
//! Candle's own reader of these gives wrong ids for SmolLM2 (it adds a prefix space and does not
//! split digits).

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::check::check_merge;
use super::{TokenizerError, guarded};
use crate::weights::{LoadError, read_gguf};

/// As in the `tokenizer.json` of Qwen2: digits one by one.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// As in the `tokenizer.json` of Llama 3: digits by up to three.
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Kinds of token, from llama.cpp's `llama_token_type`.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;

/// The tokenizer.
pub(super) fn read(path: &Path) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let malformed = |cause: String| TokenizerError::Malformed { path: path.to_owned(), cause };
    let (content, _) = read_gguf(path).map_err(|error| match error {
        LoadError::Malformed { cause, .. } => malformed(cause),
        other => malformed(other.to_string()),
    })?;
    let metadata = Metadata { values: &content.metadata, path };
    metadata.check_kind()?;
    metadata.tokenizer()
}

/// The steps before BPE, by the name that llama.cpp gives them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PreTokenizer {
    SmolLm,
    Qwen2,
    Llama3,
}

impl PreTokenizer {
    fn named(name: &str) -> Option<Self> {
        match name {
            "smollm" => Some(Self::SmolLm),
            "qwen2" => Some(Self::Qwen2),
            "llama-bpe" => Some(Self::Llama3),
            _ => None,
        }
    }

    fn steps(self) -> tokenizers::Result<Sequence> {
        let split = |regex: &str| {
            Split::new(
                SplitPattern::Regex(regex.to_owned()),
                SplitDelimiterBehavior::Isolated,
                false,
            )
        };
        let bytes = |use_regex| ByteLevel::new(false, true, use_regex).into();
        Ok(Sequence::new(match self {
            Self::SmolLm => vec![Digits::new(true).into(), bytes(true)],
            Self::Qwen2 => vec![split(QWEN2)?.into(), bytes(false)],
            Self::Llama3 => vec![split(LLAMA3)?.into(), bytes(false)],
        }))
    }
}

struct Metadata<'a> {
    values: &'a HashMap<String, Value>,
    path: &'a Path,
}

impl Metadata<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(&format!("tokenizer.ggml.{key}"))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.to_string().ok().map(String::as_str)
    }

    fn id(&self, key: &str) -> Option<u32> {
        self.get(key).and_then(whole_number).and_then(|id| u32::try_from(id).ok())
    }

    fn texts(&self, key: &str) -> Result<Vec<&str>, TokenizerError> {
        let values = self.get(key).and_then(|value| value.to_vec().ok());
        let texts = values.and_then(|values| {
            values.iter().map(|value| Some(value.to_string().ok()?.as_str())).collect()
        });
        texts.ok_or_else(|| self.malformed(format!("tokenizer.ggml.{key} is not a list of texts")))
    }

    fn malformed(&self, cause: String) -> TokenizerError {
        TokenizerError::Malformed { path: self.path.to_owned(), cause }
    }

    fn check_kind(&self) -> Result<(), TokenizerError> {
        const ALLOWED: &str = "supported in GGUF is byte-level BPE (gpt2); take the \
            model as safetensors with tokenizer.json";
        match self.text("model") {
            Some("gpt2") => Ok(()),
            model => Err(self.unsupported(
                format!("tokenizer.ggml.model = {}", model.unwrap_or("(none)")),
                ALLOWED,
            )),
        }
    }

    fn pre_tokenizer(&self) -> Result<PreTokenizer, TokenizerError> {
        const ALLOWED: &str = "supported in GGUF are smollm, qwen2 and llama-bpe; \
            take the model as safetensors with tokenizer.json";
        let name = self.text("pre").unwrap_or("(none)");
        PreTokenizer::named(name)
            .ok_or_else(|| self.unsupported(format!("tokenizer.ggml.pre = {name}"), ALLOWED))
    }

    fn unsupported(&self, found: String, allowed: &'static str) -> TokenizerError {
        TokenizerError::Unsupported { path: self.path.to_owned(), found, allowed }
    }

    fn tokenizer(&self) -> Result<tokenizers::Tokenizer, TokenizerError> {
        let pre_tokenizer = self.pre_tokenizer()?;
        let tokens = self.texts("tokens")?;
        let kinds = self.kinds(tokens.len())?;
        let bpe = self.bpe(&tokens, &kinds, pre_tokenizer)?;
        let build = || {
            let mut tokenizer = tokenizers::Tokenizer::new(bpe);
            tokenizer.with_pre_tokenizer(Some(pre_tokenizer.steps()?));
            tokenizer.with_decoder(Some(ByteLevel::default()));
            if pre_tokenizer == PreTokenizer::Qwen2 {
                tokenizer.with_normalizer(Some(NFC))?;
            }
            if let Some(bos) =
                self.bos(pre_tokenizer).and_then(|id| Some((*tokens.get(id as usize)?, id)))
            {
                tokenizer.with_post_processor(Some(begin_with(bos)?));
            }
            let added = |kind, is_special| {
                let of_kind = tokens.iter().zip(&kinds).filter(move |(_, other)| **other == kind);
                of_kind
                    .map(move |(token, _)| AddedToken::from(*token, is_special).normalized(false))
            };
            tokenizer.add_special_tokens(added(CONTROL, true))?;
            tokenizer.add_tokens(added(USER_DEFINED, false))?;
            Ok(tokenizer)
        };
        guarded("be built", build).map_err(|error| self.malformed(error.to_string()))
    }

    /// The kind of each token; all are normal if the file does not say.
    fn kinds(&self, num_tokens: usize) -> Result<Vec<i64>, TokenizerError> {
        let Some(values) = self.get("token_type").and_then(|value| value.to_vec().ok()) else {
            return Ok(vec![1; num_tokens]);
        };
        let kinds: Vec<i64> = values.iter().filter_map(whole_number).collect();
        if kinds.len() == num_tokens {
            return Ok(kinds);
        }
        Err(self.malformed(format!("it has {num_tokens} tokens and {} token types", kinds.len())))
    }

    fn bpe(
        &self,
        tokens: &[&str],
        kinds: &[i64],
        pre_tokenizer: PreTokenizer,
    ) -> Result<BPE, TokenizerError> {
        let mut seen = BTreeSet::new();
        if let Some(token) = tokens.iter().find(|token| !seen.insert(**token)) {
            return Err(self.malformed(format!("the token `{token}` is there twice")));
        }
        let used = (0_u32..).zip(tokens).zip(kinds).filter(|(_, kind)| **kind != UNUSED);
        let vocabulary: Vocab = used.map(|((id, token), _)| ((*token).to_owned(), id)).collect();
        let mut merges = Vec::new();
        for merge in self.texts("merges")? {
            let pair = merge.split_once(' ');
            let (first, second) =
                pair.ok_or_else(|| self.malformed(format!("merge `{merge}` is not a pair")))?;
            check_merge(first, second, "", |token| vocabulary.contains_key(token))
                .map_err(|cause| self.malformed(cause))?;
            merges.push((first.to_owned(), second.to_owned()));
        }
        let builder = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .ignore_merges(pre_tokenizer == PreTokenizer::Llama3);
        guarded("be built", || builder.build()).map_err(|error| self.malformed(error.to_string()))
    }

    /// The token put before a text. llama.cpp adds one for Llama 3 unless the file says otherwise.
    fn bos(&self, pre_tokenizer: PreTokenizer) -> Option<u32> {
        let said = self.get("add_bos_token").and_then(|value| value.to_bool().ok());
        let adds_bos = said.unwrap_or(pre_tokenizer == PreTokenizer::Llama3);
        self.id("bos_token_id").filter(|_| adds_bos)
    }
}

/// A template that puts one token before a text.
fn begin_with((token, id): (&str, u32)) -> tokenizers::Result<TemplateProcessing> {
    let template = TemplateProcessing::builder()
        .try_single(vec![token.to_owned(), "$A".to_owned()])?
        .special_tokens(vec![(token.to_owned(), id)])
        .build()?;
    Ok(template)
}

fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::I32(number) => Some(i64::from(*number)),
        Value::I64(number) => Some(*number),
        other => other.to_u64().ok().and_then(|number| i64::try_from(number).ok()),
    }
}
