//! A hub, an interpreter and an environment for tests: all on this machine, nothing global.

mod fake_hub;
mod fake_python;
mod fixtures;

use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use fake_hub::{FakeHub, Manner, Served};
pub(crate) use fake_python::{broken_python, python_with_wheel};
pub(crate) use fixtures::{
    CONFIG, card, large, repository, sha256_of, single_file, small, tiny, weights,
};
use metron_llm::hub::{
    HubEnvironment, HubError, LoadFormat, ModelFiles, ModelName, Patience, Progress,
    ResolveOptions, resolve,
};
use tempfile::TempDir;

/// What a test resolves in: caches of its own that vanish with it.
pub(crate) struct Bench {
    directory: TempDir,
    pub(crate) environment: HubEnvironment,
}

impl Bench {
    /// A machine that reaches the hub at `endpoint` and has no usable Python.
    pub(crate) fn new(endpoint: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let environment = HubEnvironment {
            endpoint: Some(endpoint.to_owned()),
            token: Some("test-token".to_owned()),
            hub_cache: directory.path().join("hub"),
            offline: false,
            metron_cache: directory.path().join("metron"),
            python: directory.path().join("no-such-python"),
            patience: Patience {
                first_answer: Duration::from_secs(5),
                next_bytes: Duration::from_secs(5),
            },
        };
        Self { directory, environment }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn resolve(&self, model: &ModelName) -> Result<ModelFiles, HubError> {
        self.resolve_as(model, LoadFormat::Auto, &mut Notes::default())
    }

    pub(crate) fn resolve_as(
        &self,
        model: &ModelName,
        load_format: LoadFormat,
        progress: &mut Notes,
    ) -> Result<ModelFiles, HubError> {
        resolve(
            model,
            &ResolveOptions { load_format, environment: self.environment.clone() },
            progress,
        )
    }

    /// All files of the two caches, without hf-hub's locks and markers.
    pub(crate) fn cached_files(&self) -> Vec<String> {
        let mut files = Vec::new();
        list(self.directory.path(), &mut files);
        files.retain(|file| {
            !file.contains(".locks") && !file.contains(".no_exist") && !file.contains("refs")
        });
        files.sort();
        files
    }
}

fn list(directory: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
    {
        if entry.is_dir() { list(&entry, files) } else { files.push(entry.display().to_string()) }
    }
}

/// Writes down what a download tells.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) sentences: Vec<String>,
    pub(crate) started: Vec<(String, Option<u64>)>,
    pub(crate) finished: usize,
    pub(crate) most_bytes: u64,
}

impl Progress for Notes {
    fn note(&mut self, sentence: &str) {
        self.sentences.push(sentence.to_owned());
    }

    fn file_started(&mut self, file: &str, bytes: Option<u64>) {
        self.started.push((file.to_owned(), bytes));
    }

    fn file_advanced(&mut self, bytes: u64) {
        self.most_bytes = self.most_bytes.max(bytes);
    }

    fn file_finished(&mut self) {
        self.finished += 1;
    }
}

/// An error's text without what differs from run to run.
pub(crate) fn text_of(error: &HubError, bench: &Bench) -> String {
    let text = error.to_string().replace(&bench.path().display().to_string(), "TMP");
    match &bench.environment.endpoint {
        Some(endpoint) => text.replace(endpoint, "http://HOST"),
        None => text,
    }
}

/// A result, and how long it took.
#[expect(clippy::disallowed_methods, reason = "how long a download waits is what is tested")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed())
}
