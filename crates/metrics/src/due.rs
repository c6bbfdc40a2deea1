use crate::fluidity::{Deadlined, FluidityRule, nanoseconds};

/// A token beside its deadline, in nanoseconds after the arrival of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueToken {
    /// When it was ready.
    pub ready: u64,
    /// When it was due: `None` for the first token where only the decode phase is scored.
    pub due: Option<u64>,
}

impl DueToken {
    /// How late it was; `None` if it was not.
    pub fn late_by(&self) -> Option<u64> {
        self.ready.checked_sub(self.due?).filter(|late| *late > 0)
    }
}

/// The deadlines that the fluidity-index counts, as points in time: each token is due `D_d` after
/// the one before was, and after a late token `D_d` after that was ready.
pub fn due_tokens(
    inter_token_ns: &[u64],
    deadlines: Deadlined,
    rule: &FluidityRule,
) -> Vec<DueToken> {
    let most_slack = rule.max_slack.map_or(u64::MAX, nanoseconds);
    let (mut ready, mut line) = (0_u64, 0_u64);
    let mut tokens = Vec::with_capacity(inter_token_ns.len());
    for (i, gap) in inter_token_ns.iter().enumerate() {
        ready = ready.saturating_add(*gap);
        let after = if i == 0 { deadlines.first_ns } else { deadlines.next_ns };
        let due = (i > 0 || rule.with_first_token).then(|| line.saturating_add(after));
        let slack = due.map_or(0, |due| due.saturating_sub(ready)).min(most_slack);
        line = ready.saturating_add(slack);
        tokens.push(DueToken { ready, due });
    }
    tokens
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::fluidity::{Fluidity, fluidity};

    #[test]
    fn the_line_goes_on_from_early_tokens_and_starts_again_from_late_ones() {
        let deadlines = Deadlined { first_ns: 10, next_ns: 4 };
        let tokens = due_tokens(&[6, 1, 12, 2], deadlines, &FluidityRule::default());
        let due: Vec<_> = tokens.iter().map(|token| token.due).collect();
        assert_eq!(due, [Some(10), Some(14), Some(18), Some(23)]);
        let late: Vec<_> = tokens.iter().map(DueToken::late_by).collect();
        assert_eq!(late, [None, None, Some(1), None]);
    }

    proptest! {
        #[test]
        fn late_tokens_miss_what_the_index_counts(
            gaps in proptest::collection::vec(0..50_u64, 0..30),
            first_ns in 0..60_u64,
            next_ns in 1..20_u64,
            with_first_token: bool,
            max_slack in proptest::option::of((0..30_u64).prop_map(Duration::from_nanos)),
        ) {
            let deadlines = Deadlined { first_ns, next_ns };
            let rule = FluidityRule { with_first_token, max_slack, ..FluidityRule::default() };
            let tokens = due_tokens(&gaps, deadlines, &rule);
            let late = || tokens.iter().filter_map(DueToken::late_by);
            let scored = tokens.iter().filter(|token| token.due.is_some()).count();
            let shown = Fluidity {
                met: (scored - late().count()) as u64,
                missed: late().map(|late| late.div_ceil(next_ns)).sum(),
            };
            prop_assert_eq!(shown, fluidity(&gaps, deadlines, &rule));
        }
    }
}
