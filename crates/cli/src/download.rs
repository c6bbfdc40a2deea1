use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use metron_llm::hub::Progress;

/// Shows downloads on a terminal, and says where else than there what happens.
pub(crate) struct DownloadBar {
    bar: ProgressBar,
    quiet: bool,
}

impl DownloadBar {
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(
            ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar, quiet }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for DownloadBar {
    fn note(&mut self, sentence: &str) {
        if !self.quiet {
            self.bar.suspend(|| crate::print::note(sentence));
        }
    }

    fn file_started(&mut self, file: &str, bytes: Option<u64>) {
        if !self.quiet {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.reset();
        self.bar.set_message(file.to_owned());
        if let Some(bytes) = bytes {
            self.bar.set_length(bytes);
        }
    }

    fn file_advanced(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    fn file_finished(&mut self) {
        self.bar.finish_and_clear();
    }
}
