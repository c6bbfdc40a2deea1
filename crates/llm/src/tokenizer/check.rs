//! Checks a `tokenizer.json` for what tokenizers 0.23 panics on.
//!
//! Open there as huggingface/tokenizers#2094: a merge longer than any token, a truncation stride of
//! at least `max_length`, a template with a special token that it does not define, `Strip` at the
//! end of a token, `FixedLength` 0, a damaged `Precompiled` map. Truncation is dropped by the
//! caller; the others are refused here.

use std::collections::BTreeSet;

use serde_json::Value;

/// Fails with what is wrong and where.
pub(super) fn check_json(json: &Value) -> Result<(), String> {
    if !json.is_object() {
        return Err("it is not a JSON object".to_owned());
    }
    check_model(&json["model"])?;
    for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        check_part(&json[part]).map_err(|cause| format!("{part}: {cause}"))?;
    }
    Ok(())
}

/// Checks that merging two tokens gives one that exists, and that the ids are distinct.
pub(super) fn check_merge(
    first: &str,
    second: &str,
    prefix: &str,
    has_token: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let rest = second
        .strip_prefix(prefix)
        .ok_or_else(|| format!("merge `{first} {second}` lacks `{prefix}`"))?;
    let merged = format!("{first}{rest}");
    match [first, second, &merged].into_iter().find(|token| !has_token(token)) {
        Some(missing) => Err(format!(
            "merge `{first} {second}` needs the token `{missing}`, which is not in the vocabulary"
        )),
        None => Ok(()),
    }
}

fn check_model(model: &Value) -> Result<(), String> {
    let Some(vocabulary) = model["vocab"].as_object() else {
        return Ok(()); // of another kind than BPE: tokenizers' own reader says what is wrong
    };
    let mut ids = BTreeSet::new();
    for (token, id) in vocabulary {
        if !id.as_u64().is_some_and(|id| ids.insert(id)) {
            return Err(format!("the id {id} of token `{token}` is not a number of its own"));
        }
    }
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    for merge in model["merges"].as_array().into_iter().flatten() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            pair => pair[0].as_str().zip(pair[1].as_str()),
        };
        let (first, second) =
            pair.ok_or_else(|| format!("merge {merge} is not a pair of tokens"))?;
        check_merge(first, second, prefix, |token| vocabulary.contains_key(token))?;
    }
    Ok(())
}

/// Checks one step of the pipeline; a `Sequence` has more of them inside.
fn check_part(part: &Value) -> Result<(), String> {
    for inside in ["normalizers", "pretokenizers", "processors", "decoders"] {
        part[inside].as_array().into_iter().flatten().try_for_each(check_part)?;
    }
    match part["type"].as_str() {
        Some("TemplateProcessing") => check_template(part),
        Some("Strip") if part["stop"].as_u64().is_some_and(|stop| stop > 0) => {
            Err("Strip with a `stop` above 0 fails on short tokens".to_owned())
        }
        Some("FixedLength") if part["length"] == 0 => {
            Err("FixedLength has the length 0".to_owned())
        }
        Some("Precompiled") => {
            Err("Precompiled maps are not supported, since a damaged one can't be told".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_template(template: &Value) -> Result<(), String> {
    for (form, sequences) in [("single", ["A"].as_slice()), ("pair", &["A", "B"])] {
        for piece in template[form].as_array().into_iter().flatten() {
            if let Some(token) = piece["SpecialToken"]["id"].as_str()
                && template["special_tokens"].get(token).is_none()
            {
                return Err(format!(
                    "the template `{form}` uses the special token `{token}`, which it does not \
                     define"
                ));
            }
            if let Some(sequence) = piece["Sequence"]["id"].as_str()
                && !sequences.contains(&sequence)
            {
                return Err(format!(
                    "the template `{form}` uses the sequence `{sequence}`, which it does not have"
                ));
            }
        }
    }
    Ok(())
}
