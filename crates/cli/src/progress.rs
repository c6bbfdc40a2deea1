use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use metron_engine::{ObserverError, StepObserver, TextPiece};
use metron_lab::{Replicates, Watch};
use metron_trace::{RequestEnd, RequestId, StepRecord, Timestamp, Token};

use crate::print;

/// Set by Ctrl-C; every run asks for it at each step boundary.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// From now on Ctrl-C sets the signal; a second one ends the program at once.
    pub(crate) fn on_ctrl_c() -> Self {
        let signal = Self::default();
        let flag = Arc::clone(&signal.0);
        // Without a handler Ctrl-C ends the program: the traces written so far stay readable.
        let _ = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
        signal
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shows where an experiment stands, on a terminal; silent elsewhere and with `--quiet`.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    stop: StopSignal,
    output_tokens: u64,
    drawn_at: Timestamp,
    /// When the last step ended, by the run's own clock.
    ended_at: Timestamp,
    runs_begun: u32,
    num_runs: Option<u32>,
    quiet: bool,
    policy: String,
    /// Policies whose first rejection was noted.
    rejecting: BTreeSet<String>,
    /// How long the runs of a search are together, as far as that can be said.
    length: Option<Duration>,
    /// How long those before this one were.
    spent: Duration,
    /// The rate of this run, in a search.
    rate: Option<f64>,
}

/// The bar is drawn at most so often, by the run's own clock.
const DRAW_EVERY: Duration = Duration::from_millis(200);

impl Progress {
    pub(crate) fn new(stop: StopSignal, quiet: bool) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target).with_style(
            ProgressStyle::with_template(
                "{prefix:<34} {wide_bar} {pos}/{len} {msg:>14} {eta:>4} left",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self {
            bar,
            stop,
            output_tokens: 0,
            drawn_at: Timestamp::ZERO,
            ended_at: Timestamp::ZERO,
            runs_begun: 0,
            num_runs: None,
            quiet,
            policy: String::new(),
            rejecting: BTreeSet::new(),
            length: None,
            spent: Duration::ZERO,
            rate: None,
        }
    }

    /// How many runs there will be, where that is known.
    pub(crate) fn expect_runs(&mut self, replicates: Replicates, policies: usize) {
        if let Replicates::Exactly(count) = replicates {
            self.num_runs = Some(count.saturating_mul(policies as u32));
        }
    }

    /// About how many runs a search will take, and how long they are together.
    pub(crate) fn expect_search(&mut self, runs: u32, length: Duration) {
        (self.num_runs, self.length) = (Some(runs), Some(length));
    }

    /// `[12/58, 5 min left] `, as far as it is known.
    fn place(&self) -> String {
        let run = self.runs_begun;
        let about = if self.length.is_some() { "about " } else { "" };
        let of = self.num_runs.filter(|all| run <= *all);
        let of = of.map_or_else(String::new, |all| format!("/{about}{all}"));
        let left = self.length.and_then(|length| length.checked_sub(self.spent));
        let left = left.map_or_else(String::new, |left| format!(", {} left", roughly(left)));
        format!("[{run}{of}{left}]")
    }

    /// Prints something above the bar.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Shows that something without a known length is going on.
    pub(crate) fn phase(&mut self, what: &str) {
        self.bar.set_prefix(what.to_owned());
        self.bar.tick();
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl StepObserver for Progress {
    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        _text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.output_tokens += tokens.len() as u64;
        self.ended_at = step.ended_at;
        if step.ended_at.since(self.drawn_at) >= DRAW_EVERY {
            self.drawn_at = step.ended_at;
            let rate = self.output_tokens as f64 / step.ended_at.as_secs_f64();
            self.bar.set_message(format!("{rate:.0} tokens/s"));
        }
        Ok(())
    }

    fn rejected(&mut self, id: RequestId, reason: &str) -> Result<(), ObserverError> {
        if !self.quiet && self.rejecting.insert(self.policy.clone()) {
            let policy = &self.policy;
            let note = format!("{policy} rejected {id} (later ones are only counted): {reason}");
            self.suspend(|| print::note(&note));
        }
        Ok(())
    }

    fn ended(&mut self, _end: &RequestEnd) -> Result<(), ObserverError> {
        self.bar.inc(1);
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.stop.is_set()
    }
}

impl Watch for Progress {
    fn run_begins(&mut self, policy: &str, replicate: u32, num_requests: usize) {
        self.runs_begun += 1;
        policy.clone_into(&mut self.policy);
        self.spent += self.ended_at.since(Timestamp::ZERO);
        self.ended_at = Timestamp::ZERO;
        self.output_tokens = 0;
        self.drawn_at = Timestamp::ZERO;
        self.bar.reset();
        self.bar.set_length(num_requests as u64);
        let rate = self.rate.map_or_else(String::new, |rate| format!(" at {rate:.3}/s"));
        let place = self.place();
        self.bar.set_prefix(format!("{place} {policy}{rate}, replicate {}", replicate + 1));
    }

    fn rate_is_tried(&mut self, rate: f64) {
        self.rate = Some(rate);
    }
}

/// A time in its greatest unit: `40 s`, `6 min`, `1.5 h`.
pub(crate) fn roughly(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 100.0 => format!("{seconds:.0} s"),
        seconds if seconds < 6000.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}
