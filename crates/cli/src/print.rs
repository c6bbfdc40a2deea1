//! The only place that prints.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

/// Why a part of the results did not reach standard output.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// A result, to standard output.
pub(crate) fn result(text: &str) {
    piece(text);
    if !text.ends_with('\n') {
        piece("\n");
    }
}

/// A piece of a result that goes on. What is lost is told at the end: the files of a run are still
/// to be written.
pub(crate) fn piece(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        lose(error);
    }
}

/// Keeps the first reason. A reader that has gone away (`| head`) is no error of ours.
pub(crate) fn lose(error: io::Error) {
    if error.kind() != ErrorKind::BrokenPipe {
        let _ = LOST.set(error);
    }
}

/// Why standard output is not whole; `None` if it is.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// Something worth knowing, to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether to colour: on a terminal, unless `NO_COLOR` is set to anything.
pub(crate) fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
