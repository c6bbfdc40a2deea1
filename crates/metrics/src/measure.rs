use serde::{Deserialize, Serialize};

use crate::comparison::Better;
use crate::statistics::{NoInterval, Steady, steady_percentile, steady_share};
use crate::summary::RunSummary;
use crate::verdict::EQUIVALENCE_MARGIN;

/// How two values of a metric are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// By their ratio: times and rates. Replicates are averaged by their logarithms.
    Ratio,
    /// By their difference: shares, of which 0 and 1 are as good as any.
    Share,
}

/// One run's values in the order of its requests' arrivals; absent ones are left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunSeries {
    /// Each request's TTFT, in seconds.
    pub ttft: Vec<f64>,
    /// Every gap of every finished request, in seconds.
    pub tbt: Vec<f64>,
    /// Whether each request's fluidity-index reaches the one that the fluid token rate asks
    /// ([`RateTarget`](crate::RateTarget)).
    pub are_fluid: Vec<bool>,
}

/// A quantity of one long run, with its interval.
pub type WithinRun = fn(&RunSeries) -> Result<Steady, NoInterval>;

/// A number of a run by which policies are compared over replicates.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Its name in JSON.
    pub key: &'static str,
    /// Which way it is better.
    pub better: Better,
    /// How two of its values are compared.
    pub scale: Scale,
    /// Its value of one run; `None` where the run has none.
    pub of: fn(&RunSummary) -> Option<f64>,
    /// For a headline measure, its interval from within one run. Verdicts on headline measures are
    /// held to one level together.
    pub within: Option<WithinRun>,
}

/// What policies are compared by, headline measures first.
///
/// The three headline measures are what a user of a stream notices: how many streams kept their
/// deadlines, how long the first token took, and how long the worst gaps were. They are few because
/// each further one makes every verdict harder to reach.
pub const MEASURES: [Measure; 8] = [
    Measure {
        key: "share_fluid",
        better: Better::Higher,
        scale: Scale::Share,
        of: |summary| summary.fluidity.share_fluid,
        within: Some(|series| steady_share(&series.are_fluid)),
    },
    Measure {
        key: "ttft_p50_s",
        better: Better::Lower,
        scale: Scale::Ratio,
        of: |summary| summary.ttft.p50,
        within: Some(|series| steady_percentile(&series.ttft, 0.5)),
    },
    Measure {
        key: "tbt_p99_s",
        better: Better::Lower,
        scale: Scale::Ratio,
        of: |summary| summary.tbt.p99,
        within: Some(|series| steady_percentile(&series.tbt, 0.99)),
    },
    beside("output_tokens_per_s", Better::Higher, |s| s.output_throughput),
    beside("fluid_tokens_per_s", Better::Higher, |s| Some(s.fluid_rate.tokens_per_second)),
    beside("ttft_mean_s", Better::Lower, |s| s.ttft.mean),
    beside("tpot_mean_s", Better::Lower, |s| s.tpot.mean),
    beside("end_to_end_p50_s", Better::Lower, |s| s.end_to_end.p50),
];

/// A time or a rate beside the headline.
const fn beside(key: &'static str, better: Better, of: fn(&RunSummary) -> Option<f64>) -> Measure {
    Measure { key, better, scale: Scale::Ratio, of, within: None }
}

impl Measure {
    /// Whether its verdicts share the level with those on the other headline measures.
    pub fn is_headline(&self) -> bool {
        self.within.is_some()
    }
}

impl Scale {
    /// A value where means and deviations are taken: its logarithm, or itself. `None` of a time or
    /// a rate of 0, which has no ratio to another.
    pub(crate) fn inward(self, value: f64) -> Option<f64> {
        match self {
            Self::Ratio => (value > 0.0 && value.is_finite()).then(|| value.ln()),
            Self::Share => Some(value),
        }
    }

    /// A mean, or the end of its interval, as a value again.
    pub(crate) fn outward(self, inward: f64) -> f64 {
        match self {
            Self::Ratio => inward.exp(),
            Self::Share => inward.clamp(0.0, 1.0),
        }
    }

    /// The equivalence margin between inward values.
    pub(crate) fn margin(self) -> f64 {
        match self {
            Self::Ratio => EQUIVALENCE_MARGIN.ln_1p(),
            Self::Share => EQUIVALENCE_MARGIN,
        }
    }

    /// A difference of inward values as people read it: a relative one of -0.2 is 20 % less, one of
    /// shares is in points of 1.
    pub(crate) fn difference(self, inward: f64) -> f64 {
        match self {
            Self::Ratio => inward.exp_m1(),
            Self::Share => inward.clamp(-1.0, 1.0),
        }
    }
}
