use crate::due::DueToken;
use crate::fluidity::{CountingRule, Deadlined, FluidityRule, nanoseconds};

/// The time over which a late token's delays count: from when the slack was last zero (or full,
/// where it is bounded) until the token was ready. Nanoseconds after the request's arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LateWindow {
    /// The token's place in the output.
    pub(crate) token: usize,
    /// The last token before it that left no slack (or all of it); `None`: since the arrival.
    pub(crate) after: Option<usize>,
    /// When that was ready; zero for the arrival.
    pub(crate) from: u64,
    /// When the token was due.
    pub(crate) due: u64,
    /// When it was ready.
    pub(crate) ready: u64,
}

impl LateWindow {
    /// How late the token was.
    pub(crate) fn late_ns(&self) -> u64 {
        self.ready - self.due
    }

    /// What its deadlines allow from the start of the window.
    pub(crate) fn allowed_ns(&self) -> u64 {
        self.due.saturating_sub(self.from)
    }

    /// Deadlines that it missed. The papers' and the original's rules differ from `exact` only on
    /// ties; what is divided in the end is the rule's own count.
    pub(crate) fn missed(&self, deadlines: Deadlined, counting: CountingRule) -> u64 {
        match counting {
            CountingRule::PerToken => 1,
            _ => self.late_ns().div_ceil(deadlines.next_ns.max(1)),
        }
    }
}

/// The windows of a stream's late tokens; they do not overlap.
pub(crate) fn late_windows(tokens: &[DueToken], rule: &FluidityRule) -> Vec<LateWindow> {
    let full = rule.max_slack.map_or(u64::MAX, nanoseconds);
    let mut windows = Vec::new();
    let (mut after, mut from) = (None, 0);
    for (at, token) in tokens.iter().enumerate() {
        let ready = token.ready;
        if let Some(due) = token.due.filter(|due| *due < ready) {
            windows.push(LateWindow { token: at, after, from, due, ready });
        }
        let slack = token.due.map_or(0, |due| due.saturating_sub(ready));
        if slack == 0 || slack >= full {
            (after, from) = (Some(at), ready);
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::due::due_tokens;

    const DEADLINES: Deadlined = Deadlined { first_ns: 10, next_ns: 4 };

    /// (token, from, late, allowed)
    fn windows(gaps: &[u64], rule: FluidityRule) -> Vec<(usize, u64, u64, u64)> {
        let windows = late_windows(&due_tokens(gaps, DEADLINES, &rule), &rule);
        windows.iter().map(|w| (w.token, w.from, w.late_ns(), w.allowed_ns())).collect()
    }

    #[test]
    fn a_window_begins_with_the_arrival_or_the_last_token_without_slack() {
        let rule = FluidityRule::default();
        assert_eq!(windows(&[13], rule), [(0, 0, 3, 10)]);
        // The second is late; the third is early, so the fourth's window begins with the second.
        assert_eq!(windows(&[10, 6, 1, 9], rule), [(1, 10, 2, 4), (3, 16, 2, 8)]);
    }

    #[test]
    fn the_decode_phase_alone_begins_with_the_first_token() {
        let rule = FluidityRule { with_first_token: false, ..FluidityRule::default() };
        assert_eq!(windows(&[50, 6], rule), [(1, 50, 2, 4)]);
    }

    #[test]
    fn where_slack_is_bounded_what_was_before_it_was_full_does_not_count() {
        let max_slack = Some(Duration::from_nanos(3));
        let rule = FluidityRule { max_slack, ..FluidityRule::default() };
        // Ten early, of which three count: the second has seven.
        assert_eq!(windows(&[0, 9], rule), [(1, 0, 2, 7)]);
        assert_eq!(windows(&[5, 9], rule), [(1, 5, 2, 7)]);
    }
}
