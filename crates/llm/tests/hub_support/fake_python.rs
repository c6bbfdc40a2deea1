//! Stands in for `python3 -m pip download`: a shell script that fails, or that copies a wheel made
//! here.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// An interpreter whose pip finds no package.
pub(crate) fn broken_python(directory: &Path) -> PathBuf {
    let complaint = "ERROR: No matching distribution found for acme-tiny==1.0";
    script(
        directory,
        &format!("echo 'WARNING: retrying' >&2\necho '{complaint}' >&2\necho >&2\nexit 1\n"),
    )
}

/// An interpreter whose pip delivers a wheel with one file in it.
pub(crate) fn python_with_wheel(directory: &Path, file: &str, content: &[u8]) -> PathBuf {
    let wheel = directory.join("acme_tiny-1.0-py3-none-any.whl");
    let mut writer = ZipWriter::new(File::create(&wheel).expect("a wheel"));
    writer.start_file(file, SimpleFileOptions::default()).expect("a member");
    writer.write_all(content).expect("its content");
    writer.finish().expect("a whole wheel");
    let copy = format!("while [ \"$1\" != -d ]; do shift; done\ncp '{}' \"$2\"\n", wheel.display());
    script(directory, &copy)
}

fn script(directory: &Path, body: &str) -> PathBuf {
    let path = directory.join("python3");
    fs::write(&path, format!("#!/bin/sh\n{body}")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the right to run it");
    path
}
