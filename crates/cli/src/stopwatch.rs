use std::time::{Duration, Instant};

/// The real time since it was started, for `doctor`, which looks at the clock itself and at what a
/// loop in virtual time really takes.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "what is measured here is the loop and the clock"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn read(&self) -> Duration {
        self.0.elapsed()
    }

    /// The shortest step that the clock was seen to make in some thousand readings.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let readings: Vec<Duration> = (0..4096).map(|_| self.read()).collect();
        let steps = readings.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        steps.filter(|step| !step.is_zero()).min()
    }
}
