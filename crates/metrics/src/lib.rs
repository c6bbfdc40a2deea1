//! Pure functions from a trace to what a user of the stream would feel.
//!
//! Nothing here reads a clock, a file or the engine: every number is a function of a
//! [`Trace`](metron_trace::Trace), so a saved trace can be scored again under other deadlines.

mod blame;
mod comparison;
mod curve;
mod deadline;
mod due;
mod etalon;
mod fluidity;
mod judgement;
mod latency;
mod limits;
mod measure;
mod percentile;
mod rate;
pub mod statistics;
mod steps;
mod summary;
mod timeline;
mod verdict;

pub use blame::{
    Blame, Cause, CauseShare, Explanation, LatePart, LateToken, Scored, TokenTime, Where, blame,
    explain, most_missed,
};
pub use comparison::{Better, Comparison, PolicyRow, RunOf, StallStory};
pub use curve::fit_prefill;
pub use deadline::{DeadlineError, DeadlineRule, FirstTokenRule, optional_span};
pub use due::{DueToken, due_tokens};
pub use fluidity::{CountingRule, Deadlined, Fluidity, FluidityRule, fluidity};
pub use judgement::{Judgement, Judging, MeasureJudgement, PolicyJudgement};
pub use latency::{Absent, Latencies, Stalls};
pub use limits::{LimitError, RequestLimit, RequestLimits};
pub use measure::{MEASURES, Measure, RunSeries, Scale, WithinRun};
pub use percentile::{Distribution, interpolated, order_statistic, supports};
pub use rate::{FluidRate, LeastDeadline, RateTarget, Stream, fluid_rate, least_decode_deadline};
pub use statistics::{Interval, RunTooShort};
pub use steps::StepSummary;
pub use summary::{FluiditySummary, RequestCounts, RunSummary, Scoring, summarise};
pub use timeline::{Timeline, timelines};
pub use verdict::{Difference, EQUIVALENCE_MARGIN, Pairs, RECOMMENDED_REPLICATES, Verdict, judge};
