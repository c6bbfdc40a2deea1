use std::fs::{File, create_dir, create_dir_all};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::exit::{Failure, Kind};

/// Where results go that nobody named a directory for.
const DEFAULT_PARENT: &str = "metron-out";

/// The directory that a command's results go to. If it was made for them and nothing was written it
/// goes again.
pub(crate) struct OutputDir {
    pub(crate) path: PathBuf,
    is_new: bool,
}

impl OutputDir {
    /// One that has results already.
    pub(crate) fn existing(path: PathBuf) -> Self {
        Self { path, is_new: false }
    }

    /// Creates it: the one asked for, which has to be new or empty, or one named by the date.
    pub(crate) fn create(asked: Option<&Path>, command: &str) -> Result<Self, Failure> {
        let Some(path) = asked.map(Path::to_owned) else {
            return named_by_date(command).map(|path| Self { path, is_new: true });
        };
        let is_new = !path.exists();
        create_dir_all(&path).map_err(|error| io_failure(&path, &error))?;
        let mut entries = path.read_dir().map_err(|error| io_failure(&path, &error))?;
        if entries.next().is_some() {
            let error = anyhow::anyhow!(
                "{} is not empty; results are never overwritten, name another directory",
                path.display()
            );
            return Err(Failure { kind: Kind::Environment, error });
        }
        Ok(Self { path, is_new })
    }

    /// Writes a whole file, or nothing.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        write_atomically(&path, text.as_bytes())?;
        Ok(path)
    }
}

/// Creates a directory with the date in its name; runs that began in the same second are numbered.
fn named_by_date(command: &str) -> Result<PathBuf, Failure> {
    let date = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S");
    let parent = Path::new(DEFAULT_PARENT);
    create_dir_all(parent).map_err(|error| io_failure(parent, &error))?;
    let mut path = parent.join(format!("{command}-{date}"));
    for nth in 2.. {
        match create_dir(&path) {
            Ok(()) => break,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                path.set_file_name(format!("{command}-{date}-{nth}"));
            }
            Err(error) => return Err(io_failure(&path, &error)),
        }
    }
    Ok(path)
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        // Both refuse a directory that is not empty, which is what is wanted.
        let is_gone = self.is_new && std::fs::remove_dir(&self.path).is_ok();
        if is_gone && self.path.starts_with(DEFAULT_PARENT) {
            let _ = std::fs::remove_dir(DEFAULT_PARENT);
        }
    }
}

/// Writes a file under a temporary name beside it, and renames it. What is there and is no file (a
/// pipe, a terminal) is written into, and a link keeps pointing where it does.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_special = target.metadata().is_ok_and(|metadata| !metadata.is_file());
    let written = if is_special {
        File::options().write(true).open(&target).and_then(|mut file| file.write_all(bytes))
    } else {
        replace(&target, bytes)
    };
    written.map_err(|error| io_failure(path, &error))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    create_dir_all(parent)?;
    let mut file = temporary().tempfile_in(parent)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Temporary files that others may read as far as the umask lets them: they become results.
fn temporary() -> tempfile::Builder<'static, 'static> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

/// What the system says of a path, and what to do about it.
pub(crate) fn io_failure(path: &Path, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        ErrorKind::NotFound => "; check the path",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "; a file stands where a directory is needed, name another"
        }
        ErrorKind::IsADirectory => "; a directory stands where a file is needed, name another",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; name a place that may be written and read"
        }
        ErrorKind::StorageFull => "; free some space, or name a place that has it",
        _ => "",
    };
    let error = anyhow::anyhow!("{}: {error}{remedy}", path.display());
    Failure { kind: Kind::Environment, error }
}
