//! Models that are on disk already: directories in the hub's layout, and GGUF files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::HubError;
use super::files::{ConfigSource, LoadFormat, ModelFiles, TokenizerSource, WeightFiles};

/// The names that a model repository gives its files.
pub(super) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const CHAT_TEMPLATE: &str = "chat_template.jinja";
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(crate) const GENERATION_CONFIG: &str = "generation_config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Largest JSON file that is read whole. The index of a model of 400 billion parameters has 0.1
/// MiB.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// Extensions of pickled weights, which run code when they are loaded.
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// Reads a directory in the hub's layout.
pub(super) fn directory(path: &Path, load_format: LoadFormat) -> Result<ModelFiles, HubError> {
    let config = path.join(CONFIG);
    if !config.is_file() {
        return Err(HubError::NoConfig { directory: path.to_owned(), hint: what_else(path) });
    }
    let (weights, format) = match load_format {
        LoadFormat::Auto => (WeightFiles::Safetensors(safetensors(path)?), "safetensors"),
        LoadFormat::Dummy => (WeightFiles::Dummy, "dummy"),
    };
    let tokenizer = path.join(TOKENIZER);
    Ok(ModelFiles {
        id: name_of(path),
        source: path.display().to_string(),
        format: format.to_owned(),
        config: ConfigSource::HfConfig(config),
        weights,
        tokenizer: if tokenizer.is_file() {
            TokenizerSource::Json(tokenizer)
        } else {
            TokenizerSource::None
        },
        chat_template: chat_template(path)?,
        sha256: None,
    })
}

/// Takes a GGUF file, after a look at its first bytes.
pub(super) fn gguf(path: &Path, load_format: LoadFormat) -> Result<ModelFiles, HubError> {
    check_magic(path)?;
    let (weights, format) = match load_format {
        LoadFormat::Auto => (WeightFiles::Gguf(path.to_owned()), "GGUF"),
        LoadFormat::Dummy => (WeightFiles::Dummy, "dummy"),
    };
    Ok(ModelFiles {
        id: name_of(path),
        source: path.display().to_string(),
        format: format.to_owned(),
        config: ConfigSource::Gguf(path.to_owned()),
        weights,
        tokenizer: TokenizerSource::Gguf(path.to_owned()),
        chat_template: None,
        sha256: None,
    })
}

/// The shards that an index names, sorted, each once. Their files need not exist yet.
pub(super) fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let Index { weight_map } = read_json(index, "index of shards")?;
    let shards: BTreeSet<String> = weight_map.into_values().collect();
    if shards.is_empty() {
        let reason = "its weight_map is empty".to_owned();
        return Err(HubError::BadFile { path: index.to_owned(), kind: "index of shards", reason });
    }
    match shards.iter().find(|shard| !stays_inside(shard)) {
        Some(shard) => {
            Err(HubError::ShardOutside { index: index.to_owned(), shard: shard.clone() })
        }
        None => Ok(shards.into_iter().collect()),
    }
}

/// Whether a file's name can be joined to a directory without leaving it.
fn stays_inside(name: &str) -> bool {
    let is_plain = |component| matches!(component, Component::Normal(_));
    !name.is_empty()
        && !name.contains(['\\', ':', '\0'])
        && Path::new(name).components().all(is_plain)
}

/// The weights of a directory: one file, or the shards of its index.
fn safetensors(directory: &Path) -> Result<Vec<PathBuf>, HubError> {
    let single = directory.join(WEIGHTS);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = directory.join(INDEX);
    if !index.is_file() {
        return Err(HubError::NoWeights {
            directory: directory.to_owned(),
            hint: what_else(directory),
        });
    }
    let existing = |shard: String| {
        let path = directory.join(&shard);
        if path.is_file() {
            Ok(path)
        } else {
            Err(HubError::ShardMissing { index: index.clone(), shard })
        }
    };
    shards(&index)?.into_iter().map(existing).collect()
}

/// What a directory has that the user may mean, as the end of an error's sentence.
fn what_else(directory: &Path) -> String {
    let Ok(entries) = fs::read_dir(directory) else { return String::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    let with_extension = |wanted: &[&str]| {
        let has = |name: &&String| {
            Path::new(name)
                .extension()
                .is_some_and(|extension| wanted.iter().any(|wanted| extension == *wanted))
        };
        names.iter().find(has)
    };
    if let Some(name) = with_extension(&["gguf"]) {
        return format!("; it has the GGUF file {name}: give --model that file's path");
    }
    if let Some(name) = with_extension(&PICKLES) {
        return format!(
            "; it has the PyTorch pickle {name}, which can run code when loaded and is refused: \
             convert it to safetensors"
        );
    }
    if names.is_empty() { "; it is empty".to_owned() } else { String::new() }
}

fn check_magic(path: &Path) -> Result<(), HubError> {
    let mut magic = [0; 4];
    let refuse =
        |found: &str| Err(HubError::NotGguf { path: path.to_owned(), found: found.to_owned() });
    match File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return refuse("it has less than four bytes");
        }
        Err(error) => return Err(HubError::io("read", path)(error)),
    }
    match &magic {
        b"GGUF" => Ok(()),
        b"FUGG" => refuse("it is big-endian GGUF; convert it to the usual byte order"),
        b"PK\x03\x04" | [0x80, ..] => refuse(
            "it is a PyTorch pickle, which can run code when loaded and is refused; convert it to \
             safetensors",
        ),
        _ if path.extension().is_some_and(|extension| extension == "safetensors") => {
            refuse("for safetensors, give --model the directory, which must have config.json too")
        }
        other => refuse(&format!("it begins with {}, not with GGUF", other.escape_ascii())),
    }
}

/// The chat template beside the weights: a file of its own, or an entry of the tokenizer's
/// configuration.
fn chat_template(directory: &Path) -> Result<Option<String>, HubError> {
    let own = directory.join(CHAT_TEMPLATE);
    if own.is_file() {
        return fs::read_to_string(&own).map(Some).map_err(HubError::io("read", &own));
    }
    let config = directory.join(TOKENIZER_CONFIG);
    if !config.is_file() {
        return Ok(None);
    }
    let config: serde_json::Value = read_json(&config, "tokenizer configuration")?;
    Ok(match &config["chat_template"] {
        serde_json::Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            default.and_then(|entry| entry["template"].as_str()).map(str::to_owned)
        }
        template => template.as_str().map(str::to_owned),
    })
}

/// Reads a JSON file of bounded size; `kind` says in the error what it should be.
pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    kind: &'static str,
) -> Result<T, HubError> {
    let bad = |reason: String| HubError::BadFile { path: path.to_owned(), kind, reason };
    let bytes = fs::metadata(path).map_err(HubError::io("read", path))?.len();
    if bytes > MAX_JSON_BYTES {
        return Err(bad(format!("it has {bytes} bytes, more than {MAX_JSON_BYTES}")));
    }
    let text = fs::read(path).map_err(HubError::io("read", path))?;
    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
}

/// The last part of a path, as the name of the model in it.
fn name_of(path: &Path) -> String {
    let canonical = path.canonicalize();
    let name = canonical.as_deref().unwrap_or(path).file_stem();
    name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG_TEXT: &str = r#"{"architectures": ["LlamaForCausalLM"]}"#;

    /// What a directory with these files is taken for, or the error, without the place of it.
    fn take(files: &[(&str, &str)]) -> Result<ModelFiles, String> {
        let parent = tempfile::tempdir().unwrap();
        let model = parent.path().join("my-model");
        fs::create_dir(&model).unwrap();
        for (name, content) in files {
            fs::write(model.join(name), content).unwrap();
        }
        directory(&model, LoadFormat::Auto)
            .map_err(|error| error.to_string().replace(&parent.path().display().to_string(), "TMP"))
    }

    #[test]
    fn a_directory_that_is_no_model_says_why() {
        let config = (CONFIG, CONFIG_TEXT);
        let index = |shard: &str| format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
        let rows: [(&[(&str, &str)], &str); 9] = [
            (
                &[],
                "TMP/my-model has no config.json, which describes the model's shape; it is empty",
            ),
            (&[("m.gguf", "GGUF")], "it has the GGUF file m.gguf: give --model that file's path"),
            (&[config], "TMP/my-model has no weights that Metron reads"),
            (&[config, ("pytorch_model.bin", "")], "it has the PyTorch pickle pytorch_model.bin"),
            (
                &[config, ("model.safetensors.index.json", "{")],
                "is not a valid index of shards: EOF while parsing",
            ),
            (
                &[config, ("model.safetensors.index.json", r#"{"weight_map": {}}"#)],
                "its weight_map is empty",
            ),
            (
                &[config, ("model.safetensors.index.json", &index("x.safetensors"))],
                "names the shard x.safetensors, which is not in",
            ),
            (
                &[config, ("model.safetensors.index.json", &index("../x"))],
                "names the shard `../x`, which lies outside",
            ),
            (
                &[config, ("model.safetensors", ""), ("tokenizer_config.json", "[")],
                "is not a valid tokenizer configuration",
            ),
        ];
        for (files, expected) in rows {
            let error = take(files).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_gguf_says_what_it_is() {
        let rows: [(&str, &[u8], &str); 6] = [
            ("m.gguf", b"", "it has less than four bytes"),
            ("m.bin", b"PK\x03\x04....", "it is a PyTorch pickle"),
            ("m.pt", b"\x80\x02}q", "it is a PyTorch pickle"),
            ("m.gguf", b"FUGG....", "it is big-endian GGUF"),
            ("m.safetensors", b"\x08\x00\x00\x00{}", "give --model the directory"),
            ("m.gguf", b"hello", "it begins with hell, not with GGUF"),
        ];
        let directory = tempfile::tempdir().unwrap();
        for (name, content, expected) in rows {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            let error = gguf(&path, LoadFormat::Auto).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_directory_is_taken_where_it_lies() {
        let model = [(CONFIG, CONFIG_TEXT), (WEIGHTS, "x"), (TOKENIZER, "{}")];
        let files = take(&model).unwrap();
        assert_eq!((files.id.as_str(), files.format.as_str()), ("my-model", "safetensors"));
        assert!(
            matches!(&files.weights, WeightFiles::Safetensors(paths) if paths[0].ends_with(WEIGHTS))
        );
        assert!(
            matches!(&files.tokenizer, TokenizerSource::Json(path) if path.ends_with(TOKENIZER))
        );
    }

    #[test]
    fn a_gguf_file_is_weights_shape_and_tokenizer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("small.gguf");
        fs::write(&path, "GGUF....").unwrap();
        let files = gguf(&path, LoadFormat::Auto).unwrap();
        assert_eq!((files.id.as_str(), files.format.as_str()), ("small", "GGUF"));
        assert_eq!(files.weights, WeightFiles::Gguf(path.clone()));
        assert_eq!(files.config, ConfigSource::Gguf(path.clone()));
        assert_eq!(files.tokenizer, TokenizerSource::Gguf(path));
        let dummy = gguf(&directory.path().join("small.gguf"), LoadFormat::Dummy).unwrap();
        assert_eq!(dummy.weights, WeightFiles::Dummy);
    }

    #[test]
    fn a_chat_template_is_found_in_each_of_its_places() {
        let model = [(CONFIG, CONFIG_TEXT), (WEIGHTS, "x")];
        let template =
            |more: &[(&str, &str)]| take(&[&model, more].concat()).unwrap().chat_template;
        assert_eq!(template(&[]), None);
        let single = (TOKENIZER_CONFIG, r#"{"chat_template": "one"}"#);
        assert_eq!(template(&[single]).as_deref(), Some("one"));
        let named = r#"{"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "two"}]}"#;
        assert_eq!(template(&[(TOKENIZER_CONFIG, named)]).as_deref(), Some("two"));
        assert_eq!(template(&[single, (CHAT_TEMPLATE, "three")]).as_deref(), Some("three"));
    }
}
