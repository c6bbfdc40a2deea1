//! The program as a process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the tests' own files are.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(name)
}

/// A tiny model with random weights.
pub(crate) fn tiny_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/llm/tests/data/tiny_llama")
}

/// The program, with a cache of its own in `dir`, and no hub.
pub(crate) fn metron(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metron"));
    command
        .current_dir(dir)
        .env("METRON_CACHE", dir.join("cache"))
        .env("HF_HOME", dir.join("hub"))
        .env("HF_HUB_OFFLINE", "1")
        .env("RUST_BACKTRACE", "0");
    command
}

/// What came of it: exit code, standard output, standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// An experiment in virtual time.
pub(crate) fn simulated(dir: &Path, command: &str) -> Command {
    let mut metron = metron(dir);
    metron.arg(command).arg("--simulate").arg(data("cost.toml")).arg("--quiet");
    metron
}
