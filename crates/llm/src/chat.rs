//! A model's chat template: what turns a user's message into the prompt that an instruction-tuned
//! model was trained on.

use std::path::Path;

use minijinja::filters::tojson;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value;

use crate::hub::{ConfigSource, ModelFiles, TOKENIZER_CONFIG, read_json};
use crate::weights::{GgufWeights, LoadError};

/// Steps of its program that a template may take, so that it ends.
const MOST_STEPS: u64 = 1 << 20;

/// Why a chat template gives no prompt.
#[derive(Debug, thiserror::Error)]
#[error(
    "the model's chat template gives no prompt: {cause}; the plain text can be continued without it"
)]
pub struct ChatError {
    cause: Error,
}

/// A template (Jinja, in the dialect of Hugging Face transformers), and what it may write around
/// messages.
#[derive(Debug)]
pub struct ChatTemplate {
    text: String,
    /// Empty where there is none, as the next.
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// The template of a model: its card's, the one beside its weights, or the one in its GGUF
    /// file; `None` for a model that has none.
    pub fn open(files: &ModelFiles) -> Result<Option<Self>, LoadError> {
        let (text, [bos_token, eos_token]) = match &files.config {
            ConfigSource::Gguf(path) => {
                let weights = GgufWeights::open(path)?;
                let in_file = weights.text("tokenizer.chat_template").map(str::to_owned);
                let tokens = ["bos", "eos"]
                    .map(|kind| weights.token(&format!("tokenizer.ggml.{kind}_token_id")));
                (files.chat_template.clone().or(in_file), tokens)
            }
            ConfigSource::HfConfig(path) => (files.chat_template.clone(), special_tokens(path)?),
            ConfigSource::Card(_) => (files.chat_template.clone(), [None, None]),
        };
        let (bos_token, eos_token) = (bos_token.unwrap_or_default(), eos_token.unwrap_or_default());
        Ok(text.map(|text| Self { text, bos_token, eos_token }))
    }

    /// The prompt of a conversation that begins with a user's message, up to where the model's
    /// answer begins.
    pub fn prompt(&self, message: &str) -> Result<String, ChatError> {
        let variables = context! {
            messages => [context! { role => "user", content => message }],
            add_generation_prompt => true,
            bos_token => &self.bos_token,
            eos_token => &self.eos_token,
        };
        let prompt = environment().and_then(|e| e.render_str(&self.text, variables));
        prompt.map_err(|cause| ChatError { cause })
    }
}

/// What transformers gives a template.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_function("raise_exception", |cause: String| -> Result<(), Error> {
        Err(Error::new(ErrorKind::InvalidOperation, cause))
    });
    environment.add_filter("tojson", to_json);
    Ok(environment)
}

/// JSON as transformers' templates write it. The engine's own filter is made for HTML, and escapes
/// four characters that need no escape in JSON.
fn to_json(value: &minijinja::Value, options: Kwargs) -> Result<String, Error> {
    // An indent of any width could fill the memory.
    let _: Option<u8> = options.get("indent")?;
    let json = tojson(value, None, options)?;
    Ok(without_html_escapes(&json.to_string()))
}

fn without_html_escapes(json: &str) -> String {
    const ESCAPES: [(&str, &str); 4] =
        [(r"\u003c", "<"), (r"\u003e", ">"), (r"\u0026", "&"), (r"\u0027", "'")];
    let mut plain = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        // A backslash of the text's own is two of them.
        let pair = escape.split_at_checked(2).map_or(escape, |(pair, _)| pair);
        let of_html = ESCAPES.into_iter().find(|(escaped, _)| escape.starts_with(escaped));
        let (escaped, shown) = of_html.unwrap_or((pair, pair));
        plain.push_str(before);
        plain.push_str(shown);
        rest = &escape[escaped.len()..];
    }
    plain + rest
}

/// What the tokenizer's configuration beside `config.json` calls the tokens that begin and end a
/// text.
fn special_tokens(config: &Path) -> Result<[Option<String>; 2], LoadError> {
    let path = config.with_file_name(TOKENIZER_CONFIG);
    if !path.is_file() {
        return Ok([None, None]);
    }
    let json: Value = read_json(&path, "tokenizer configuration")?;
    // A text, or an object that has it.
    let text =
        |token: &Value| token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned);
    Ok(["bos_token", "eos_token"].map(|name| text(&json[name])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::card;
    use crate::weights::gguf_file::{ARRAY, GgufFile, STRING, U32, entry, on_disk, string};

    fn template(text: &str) -> ChatTemplate {
        let [text, bos_token, eos_token] = [text, "<s>", "</s>"].map(str::to_owned);
        ChatTemplate { text, bos_token, eos_token }
    }

    #[test]
    fn a_message_stands_where_the_template_puts_it() {
        let card = card("smollm2-135m-instruct").expect("it is a card");
        let text = card.chat_template.as_deref().expect("it has a template");
        insta::assert_snapshot!(template(text).prompt("Name a {{ colour }}.").unwrap());
    }

    #[test]
    fn templates_may_use_what_python_has() {
        let text = "{{ bos_token }}{% if strftime_now is defined %}now{% endif %}\n\
                    {%- for m in messages %}\n  {% if m.get('role') == 'user' %}\n\
                    [INST] {{ m['content'].strip() | tojson }} [/INST]{% endif %}{% endfor %}";
        assert_eq!(template(text).prompt(" \"hi\" ").unwrap(), "<s>[INST] \"\\\"hi\\\"\" [/INST]");
    }

    /// Transformers' `tojson` is `json.dumps(..., ensure_ascii=False)`.
    #[test]
    fn json_in_a_prompt_is_as_python_writes_it() {
        let json = |text: &str| template("{{ messages | tojson }}").prompt(text).unwrap();
        let of = |content: &str| format!(r#"[{{"role": "user", "content": "{content}"}}]"#);
        assert_eq!(json("<b> & 'é'"), of("<b> & 'é'"));
        assert_eq!(json("\"\n\u{1}<"), of(r#"\"\n\u0001<"#));
        assert_eq!(json(r"\u003c"), of(r"\\u003c"), "a backslash of the message's own");
        let indented = template("{{ messages[0] | tojson(indent=2) }}").prompt("<b>").unwrap();
        assert_eq!(indented, "{\n  \"role\": \"user\",\n  \"content\": \"<b>\"\n}");
        let endless = template("{{ messages | tojson(indent=99999999999) }}").prompt("hi");
        assert!(endless.is_err());
    }

    #[test]
    fn a_template_that_refuses_is_broken_or_never_ends_is_an_error() {
        let endless =
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        for (text, expected) in [
            ("{{ raise_exception('only tools') }}", "only tools"),
            ("{% for %}", "syntax error"),
            (endless, "fuel"),
        ] {
            let error = template(text).prompt("hi").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_model_without_a_template_has_none() {
        let files = crate::model::tests::tiny_files("tiny_llama");
        assert!(ChatTemplate::open(&files).unwrap().is_none());
    }

    #[test]
    fn a_gguf_file_brings_its_template_and_its_tokens() {
        let mut file = GgufFile::tiny_llama();
        let template = string("{{ bos_token }}{{ messages[0].content }}");
        let tokens =
            [&STRING.to_le_bytes()[..], &2_u64.to_le_bytes(), &string("a"), &string("<b>")]
                .concat();
        file.entries.push(entry("tokenizer.chat_template", STRING, &template));
        file.entries.push(entry("tokenizer.ggml.tokens", ARRAY, &tokens));
        file.entries.push(entry("tokenizer.ggml.bos_token_id", U32, &1_u32.to_le_bytes()));
        let file = on_disk(&file.bytes());
        let config = ConfigSource::Gguf(file.path().to_owned());
        let files = ModelFiles { config, ..crate::model::tests::tiny_files("tiny_llama") };
        let template = ChatTemplate::open(&files).unwrap().expect("it has one");
        assert_eq!(template.prompt("hi").unwrap(), "<b>hi");
    }
}
