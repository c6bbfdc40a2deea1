//! The program as a process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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
    said(command.output().expect("the program starts"))
}

/// The same of a command whose standard output goes into a file.
#[cfg(target_os = "linux")]
pub(crate) fn run_into(command: &mut Command, file: std::fs::File) -> (i32, String, String) {
    let child = command.stdout(file).stderr(Stdio::piped()).spawn().expect("the program starts");
    said(child.wait_with_output().expect("it ends"))
}

fn said(output: Output) -> (i32, String, String) {
    let Output { status, stdout, stderr } = output;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// An experiment in virtual time.
pub(crate) fn simulated(dir: &Path, command: &str) -> Command {
    let mut metron = metron(dir);
    metron.arg(command).arg("--simulate").arg(data("cost.toml")).arg("--quiet");
    metron
}

/// The same of a command that Ctrl-C ends once it `is_under_way`.
#[cfg(unix)]
pub(crate) fn interrupted(
    command: &mut Command,
    is_under_way: impl Fn() -> bool,
) -> (i32, String, String) {
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut patience = 3000;
    while !is_under_way() && patience > 0 {
        std::thread::sleep(Duration::from_millis(20));
        patience -= 1;
    }
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signalled.expect("kill is there").success());
    said(child.wait_with_output().expect("it ends"))
}
