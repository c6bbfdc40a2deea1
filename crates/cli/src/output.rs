use std::io::Write;
use std::path::{Path, PathBuf};

use crate::exit::{Failure, Kind};

/// Where results go that nobody named a directory for.
const DEFAULT_PARENT: &str = "metron-out";

/// The directory that a command's results go to. If nothing was written it goes again.
pub(crate) struct OutputDir(pub(crate) PathBuf);

impl OutputDir {
    /// Creates it: the one asked for, which has to be new or empty, or one named by the date.
    pub(crate) fn create(asked: Option<&Path>, command: &str) -> Result<Self, Failure> {
        let path = asked.map_or_else(|| named_by_date(command), Path::to_owned);
        std::fs::create_dir_all(&path).map_err(|error| io_failure(&path, &error))?;
        let mut entries = path.read_dir().map_err(|error| io_failure(&path, &error))?;
        if entries.next().is_some() {
            let error = anyhow::anyhow!(
                "{} is not empty; results are never overwritten, name another directory",
                path.display()
            );
            return Err(Failure { kind: Kind::Environment, error });
        }
        Ok(Self(path))
    }

    /// Writes a whole file, or nothing.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        write_atomically(&path, text.as_bytes())?;
        Ok(path)
    }
}

fn named_by_date(command: &str) -> PathBuf {
    let date = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S");
    PathBuf::from(DEFAULT_PARENT).join(format!("{command}-{date}"))
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        // Both refuse a directory that is not empty, which is what is wanted.
        if std::fs::remove_dir(&self.0).is_ok() && self.0.starts_with(DEFAULT_PARENT) {
            let _ = std::fs::remove_dir(DEFAULT_PARENT);
        }
    }
}

/// Writes a file under a temporary name beside it, and renames it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let write = || {
        std::fs::create_dir_all(parent)?;
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error: std::io::Error| io_failure(path, &error))
}

pub(crate) fn io_failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure { kind: Kind::Environment, error: anyhow::anyhow!("{}: {error}", path.display()) }
}
