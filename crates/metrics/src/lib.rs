//! Pure functions from a trace to what a user of the stream would feel.
//!
//! Nothing here reads a clock, a file or the engine: every number is a function of a
//! [`Trace`](metron_trace::Trace), so a saved trace can be scored again under other deadlines.

mod blame;
mod capacity;
mod comparison;
mod curve;
mod deadline;
mod dependence;
mod doubt;
mod due;
mod etalon;
mod fluidity;
mod from_one;
mod identity;
mod judgement;
mod latency;
mod limits;
mod measure;
mod objective;
mod objective_verdict;
mod percentile;
mod proportion;
mod rate;
mod seconds;
pub mod statistics;
mod steps;
mod summary;
mod timeline;
mod verdict;

pub use blame::{
    Blame, Cause, CauseShare, Explanation, LatePart, LateToken, Scored, TokenTime, Where, blame,
    explain, most_missed,
};
pub use capacity::{
    Bracket, Capacity, Probed, SearchEnd, passes_to_fail, passes_to_pass, reached_by,
};
pub use comparison::{Better, Comparison, PolicyRow, RunOf, StallStory, served_alike};
pub use curve::fit_prefill;
pub use deadline::{
    ClassDeadlines, DeadlineError, DeadlineRule, FirstTokenRule, optional_deadline, optional_span,
};
pub use doubt::{Doubt, GatheredDoubts, RaisedDoubt, doubts, doubts_of_conditions, requests_for};
pub use due::{DueToken, due_tokens};
pub use fluidity::{CountingRule, Deadlined, Fluidity, FluidityRule, fluidity};
pub use identity::{RunTwice, check_distinct};
pub use judgement::{Judgement, Judging, MeasureJudgement, PolicyJudgement};
pub use latency::{Absent, Latencies, Stalls};
pub use limits::{LimitError, RequestLimit, RequestLimits};
pub use measure::{MEASURES, Measure, RunSeries, Scale, WithinRun};
pub use objective::{Bound, Bounded, Objective, ObjectiveError, Objectives};
pub use objective_verdict::{Basis, Judged, ObjectiveVerdict, judge_objectives};
pub use percentile::{Distribution, interpolated, order_statistic, supports};
pub use proportion::{share_at_least, share_at_most};
pub use rate::{FluidRate, LeastDeadline, RateTarget, Stream, fluid_rate, least_decode_deadline};
pub use statistics::{Interval, NoInterval};
pub use steps::StepSummary;
pub use summary::{FluiditySummary, RequestCounts, RunSummary, Scoring, summarise};
pub use timeline::{Timeline, timelines};
pub use verdict::{Difference, EQUIVALENCE_MARGIN, Pairs, RECOMMENDED_REPLICATES, Verdict, judge};
