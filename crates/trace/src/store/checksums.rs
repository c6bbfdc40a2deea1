//! What was written into each table of a run that came to its end, so that a file that was changed
//! since is found out, and not scored.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreError;

/// The file that has them.
const CHECKSUMS: &str = "checksums.json";

/// A checksum of each table, by its file's name.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksums(pub(super) BTreeMap<String, Checksum>);

/// What a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksum {
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}

impl Checksums {
    /// Writes them under a temporary name first: they are there whole, or not at all.
    pub(super) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let (partial, path) = (dir.join(format!("{CHECKSUMS}.partial")), dir.join(CHECKSUMS));
        let write = || {
            fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
            fs::rename(&partial, &path)
        };
        write().map_err(|error| StoreError::io(&path, &error))
    }

    /// Those of a trace; none if its run was killed.
    pub(super) fn read(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(CHECKSUMS);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(StoreError::io(&path, &error)),
        };
        serde_json::from_slice(&text).map_err(|error| StoreError::Malformed {
            path,
            cause: format!("not the checksums of a trace: {error}"),
        })
    }

    /// Refuses a table whose bytes are not those that were written. One that is shorter is left to
    /// be read as far as it goes.
    pub(super) fn check(&self, dir: &Path, table: &str) -> Result<(), StoreError> {
        let Some(written) = self.0.get(table) else { return Ok(()) };
        let path = dir.join(table);
        let found = checksum_of(&path).map_err(|error| StoreError::io(&path, &error))?;
        if found == *written || found.bytes < written.bytes {
            return Ok(());
        }
        Err(StoreError::Malformed {
            path,
            cause: format!(
                "its bytes are not those that were written: it was damaged or changed since; copy \
                 it again, or remove {CHECKSUMS} beside it to read what is there"
            ),
        })
    }
}

fn checksum_of(path: &Path) -> io::Result<Checksum> {
    let mut file = File::open(path)?;
    let (mut hasher, mut bytes) = (crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Checksum { bytes, crc32: hasher.finalize() }),
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

/// A file, with the checksum of what goes into it.
pub(super) struct SummedFile {
    file: Box<dyn Write + Send>,
    hasher: crc32fast::Hasher,
    bytes: u64,
}

impl SummedFile {
    pub(super) fn new(file: Box<dyn Write + Send>) -> Self {
        Self { file, hasher: crc32fast::Hasher::new(), bytes: 0 }
    }

    pub(super) fn checksum(self) -> Checksum {
        Checksum { bytes: self.bytes, crc32: self.hasher.finalize() }
    }
}

impl Write for SummedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
