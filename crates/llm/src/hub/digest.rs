//! SHA-256 of files.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::error::HubError;

/// The SHA-256 of a file, in lower-case hexadecimal.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // writing to a String can't fail
        hex
    }))
}

/// Checks a file against the hash it should have; `what` names it in the error.
pub(super) fn check_sha256(path: &Path, expected: &str, what: &str) -> Result<(), HubError> {
    let actual = sha256_file(path).map_err(HubError::io("read", path))?;
    if actual == expected {
        return Ok(());
    }
    Err(HubError::WrongHash { what: what.to_owned(), expected: expected.to_owned(), actual })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_standard_s_example() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_file(&path).unwrap(), expected);
        assert!(check_sha256(&path, expected, "abc").is_ok());
        assert!(check_sha256(&path, &expected.replace('b', "c"), "abc").is_err());
    }
}
