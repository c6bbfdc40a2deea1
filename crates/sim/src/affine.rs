use std::path::Path;
use std::time::Duration;

use metron_engine::CostModel;
use metron_trace::{Work, WorkKind};
use serde::{Deserialize, Serialize};

/// A step's time as a sum of costs that grow with what is in it.
///
/// The five coefficients are multiplied with 1; the step's prefill tokens; its decode tokens; the
/// sum of `n * (past + n / 2)` over its prefill chunks of `n` tokens behind `past` positions; and
/// the sum of `past` over its decode tokens. Recomputed positions cost what prefill costs. Linear
/// models of this kind predict steps well enough for decisions about them (DistServe, OSDI'24,
/// section 4.1; Niyama, ASPLOS'26).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AffineCost {
    /// Nanoseconds of every step.
    pub step_ns: f64,
    /// Nanoseconds of a prefill token.
    pub prefill_token_ns: f64,
    /// Nanoseconds of a decode token.
    pub decode_token_ns: f64,
    /// Nanoseconds of a prefill token's attention to one position before it.
    pub prefill_context_ns: f64,
    /// Nanoseconds of a decode token's attention to one position before it.
    pub decode_context_ns: f64,
}

impl AffineCost {
    /// What each coefficient is multiplied with, in the order of the fields.
    pub fn features(work: &[Work]) -> [f64; 5] {
        let mut features = [1.0, 0.0, 0.0, 0.0, 0.0];
        for work in work {
            let (past, n) = (f64::from(work.context), f64::from(work.tokens));
            if work.kind == WorkKind::Decode {
                features[2] += n;
                features[4] += n * past;
            } else {
                features[1] += n;
                features[3] += n * (past + n / 2.0);
            }
        }
        features
    }

    pub(crate) fn from_coefficients(ns: [f64; 5]) -> Self {
        let [step_ns, prefill_token_ns, decode_token_ns, prefill_context_ns, decode_context_ns] =
            ns;
        Self { step_ns, prefill_token_ns, decode_token_ns, prefill_context_ns, decode_context_ns }
    }

    fn coefficients(&self) -> [f64; 5] {
        [
            self.step_ns,
            self.prefill_token_ns,
            self.decode_token_ns,
            self.prefill_context_ns,
            self.decode_context_ns,
        ]
    }
}

impl CostModel for AffineCost {
    fn step_time(&self, work: &[Work]) -> Duration {
        let features = Self::features(work);
        let ns: f64 = self.coefficients().iter().zip(features).map(|(c, x)| c * x).sum();
        // Never zero: virtual time must move.
        Duration::try_from_secs_f64(ns / 1e9).unwrap_or_default().max(Duration::from_nanos(1))
    }
}

/// A cost model as a data file holds it: where its numbers come from, and one affine model for
/// each range of step sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostFile {
    /// What it is the cost of ("Llama-3-8B on A100").
    pub name: String,
    /// Where the numbers come from.
    pub source: String,
    /// Models in order of step size.
    pub pieces: Vec<Piece>,
}

/// The model for steps of some sizes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// The largest step it is for, in tokens; the last piece has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_tokens: Option<u32>,
    /// Its costs.
    #[serde(flatten)]
    pub cost: AffineCost,
}

/// Why a file is no cost model.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub struct CostFileError {
    /// The file.
    pub path: std::path::PathBuf,
    /// What is wrong with it.
    pub cause: String,
}

impl CostFile {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, CostFileError> {
        let error = |cause: String| CostFileError { path: path.to_owned(), cause };
        let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
        let file: Self = toml::from_str(&text).map_err(|e| error(e.to_string()))?;
        file.check().map_err(error)?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let limits: Vec<Option<u32>> = self.pieces.iter().map(|p| p.up_to_tokens).collect();
        let (last, first) = limits.split_last().ok_or("it has no [[pieces]]")?;
        if last.is_some() || first.iter().any(Option::is_none) || !first.is_sorted() {
            return Err("its pieces must be in order of `up_to_tokens`, which all but the last \
                        have"
                .to_owned());
        }
        let all = self.pieces.iter().flat_map(|piece| piece.cost.coefficients());
        match all.into_iter().find(|ns| !ns.is_finite()) {
            Some(ns) => Err(format!("a cost of {ns} ns; costs must be finite")),
            None => Ok(()),
        }
    }
}

impl CostModel for CostFile {
    fn step_time(&self, work: &[Work]) -> Duration {
        let tokens: u32 = work.iter().map(|w| w.tokens).sum();
        let fits = |piece: &&Piece| piece.up_to_tokens.is_none_or(|most| tokens <= most);
        self.pieces.iter().find(fits).map_or(Duration::ZERO, |piece| piece.cost.step_time(work))
    }
}
