//! A small tokio runtime that can be left while one of its threads still hangs.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime on the calling thread.
///
/// A plain [`Runtime`] waits, when dropped, for a look-up of a host's name or of a lock that takes
/// long, so that giving up on the hub after some seconds would take as long as the look-up. This
/// one does not wait.
pub(super) struct BackgroundRuntime(Option<Runtime>);

impl BackgroundRuntime {
    pub(super) fn new() -> io::Result<Self> {
        Builder::new_current_thread().enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.as_ref().expect("only drop takes the runtime").block_on(future)
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
