//! The nouns of a run and their stored form.
//!
//! Everything that is known about a run is a [`Trace`]: its [`Header`], the [`Request`]s, each
//! [`StepRecord`] with its [`Work`], each output [`Token`], and how each request ended. Every
//! metric is a pure function of it. Results of other tools become traces too, with what they know
//! ([`Tool::import`]). This crate reads no clock and knows no model.

mod conditions;
mod header;
mod import;
mod operator;
mod profile;
mod request;
mod step;
mod store;
mod time;

pub use conditions::Conditions;
pub use header::{
    Calibration, DecodePoint, ExecutorInfo, Header, Limits, Machine, ModelInfo, Origin, PolicyInfo,
    PrefillCurve, PrefillFit,
};
pub use import::{ImportError, ImportNote, Imported, Tool};
pub use operator::{Operator, OperatorSpan};
pub use profile::{
    BatchShape, Counters, OperatorProfile, PROFILE_VERSION, Profile, Roofs, ShapeError,
    ShapeProfile, StepCounters,
};
pub use request::{Deadlines, EndStatus, Request, RequestEnd, RequestId, Sampling};
pub use step::{Phases, Preemption, PreemptionCause, StepRecord, Token, Work, WorkKind};
pub use store::{FORMAT_VERSION, Missing, StoreError, TraceReader, TraceWriter};
pub use time::Timestamp;

/// Everything known about one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// What ran, on what, with which settings.
    pub header: Header,
    /// Every request that arrived, in order of arrival, and then those that an early end left unsent.
    pub requests: Vec<Request>,
    /// Every step, in order.
    pub steps: Vec<StepRecord>,
    /// Every output token, in order of time; a request's tokens are in order of index.
    pub tokens: Vec<Token>,
    /// How each request ended; one that is not here was still in progress when the run ended.
    pub ends: Vec<RequestEnd>,
}
