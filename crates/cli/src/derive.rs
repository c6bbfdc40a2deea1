//! What an experiment leaves open, from the calibration.

use std::time::Duration;

use metron_lab::{Calibrated, Load, decode_deadline, first_token_slack, stall_limit};
use metron_metrics::{DeadlineRule, FirstTokenRule, Scoring};
use metron_trace::Limits;

use crate::experiment::ScoringSection;
use crate::workload_draft::{WorkloadDraft, set_rate};

/// The decoding batch that the default rate leads to: loaded, but not hopeless.
const TYPICAL_BATCH: u32 = 8;

/// What was derived, for the sentences of the header.
pub(crate) struct LoadFacts {
    pub(crate) batch: u32,
    pub(crate) decode_step: Duration,
    pub(crate) derived_rate: bool,
    pub(crate) derived_first_token: bool,
    pub(crate) derived_next_token: bool,
}

/// Derives the rate, if that is open, and says what the load will be.
pub(crate) fn derive_rate(
    draft: &mut WorkloadDraft,
    scoring: &ScoringSection,
    load: &Load<'_>,
    most_batch: u32,
) -> LoadFacts {
    let derived_rate = draft.derive_rate && draft.rate().is_some();
    if derived_rate {
        let rate = rounded(load.rate_for_batch(TYPICAL_BATCH.min(most_batch)));
        set_rate(&mut draft.spec, rate);
    }
    let batch = match draft.rate() {
        Some(rate) => load.batch_at_rate(rate, most_batch),
        None => most_batch.min(load.lengths.len() as u32),
    };
    LoadFacts {
        batch,
        decode_step: load.decode_step(batch),
        derived_rate,
        derived_first_token: scoring.first_token.is_none(),
        derived_next_token: scoring.next_token.is_none(),
    }
}

/// Derives the deadlines and the stall limit that are open.
pub(crate) fn derive_scoring(
    section: &mut ScoringSection,
    calibrated: &Calibrated,
    load: &Load<'_>,
    batch: u32,
) -> Scoring {
    let next_token =
        *section.next_token.get_or_insert_with(|| in_milliseconds(decode_deadline(load, batch)));
    let first_token = *section.first_token.get_or_insert_with(|| {
        FirstTokenRule::PredictedPlus(in_milliseconds(first_token_slack(next_token)))
    });
    let stall_limit = *section
        .stall_limit
        .get_or_insert_with(|| in_milliseconds(stall_limit(&calibrated.calibration, next_token)));
    Scoring {
        deadlines: DeadlineRule { first_token, next_token: Some(next_token) },
        class_deadlines: section.classes.clone(),
        prefill: Some(calibrated.calibration.prefill.curve),
        fluidity: section.fluidity_rule(),
        rate_target: section.rate_target(),
        stall_limit,
        goodput: section.goodput.clone(),
        objectives: section.objectives.clone(),
    }
}

/// The budget with which steps keep the later tokens' deadline. One whose steps are predicted to
/// take just the deadline would miss half of them.
pub(crate) fn token_budget(
    scoring: &Scoring,
    calibrated: &Calibrated,
    load: &Load<'_>,
    batch: u32,
    limits: Limits,
) -> u32 {
    let deadline = scoring.deadlines.next_token.unwrap_or(Duration::MAX);
    let step_limit = deadline.div_f64(calibrated.hybrid_excess(load.cost_model));
    load.token_budget(batch, step_limit, limits.block_size)
}

/// Requests so that a run takes about so long: arrivals, and then the last ones' output.
pub(crate) fn prompts_within(time: Duration, load: &Load<'_>, batch: u32) -> u32 {
    let a_second = load.rate_for_batch(batch);
    #[expect(clippy::cast_sign_loss, reason = "a time times a rate")]
    let requests = (time.as_secs_f64() * 0.75 * a_second).round() as u32;
    requests.clamp(8, 1024)
}

/// Two digits: a rate that people can read and repeat.
fn rounded(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.log10().floor() - 1.0);
    (rate / unit).round() * unit
}

/// Whole milliseconds, at least one.
fn in_milliseconds(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1))
}
