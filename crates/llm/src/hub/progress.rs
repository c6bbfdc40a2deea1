//! How a download tells the caller where it is.

/// Hears about downloads. Nothing in this crate prints; the command line draws bars from this.
pub trait Progress {
    /// A sentence about what happens now or why: "the hub can't be reached, so ...".
    fn note(&mut self, sentence: &str);
    /// The transfer of a file begins, or begins again; `bytes` is its size where the source tells.
    fn file_started(&mut self, file: &str, bytes: Option<u64>);
    /// So many bytes of that file have arrived in all.
    fn file_advanced(&mut self, bytes: u64);
    /// The file is here and has been checked.
    fn file_finished(&mut self);
}

/// Hears and says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn note(&mut self, _sentence: &str) {}
    fn file_started(&mut self, _file: &str, _bytes: Option<u64>) {}
    fn file_advanced(&mut self, _bytes: u64) {}
    fn file_finished(&mut self) {}
}
