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
        Duration::try_from_secs_f64(ns.clamp(1.0, MOST_NS) / 1e9).unwrap_or(LONGEST_STEP)
    }
}

/// The longest step: eleven days. Costs above it are none.
const LONGEST_STEP: Duration = Duration::from_secs(1_000_000);
/// The same in nanoseconds.
const MOST_NS: f64 = 1e15;

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

/// The model for steps of some sizes; in a file one table with all the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "PieceTable", into = "PieceTable")]
pub struct Piece {
    /// The largest step it is for, in tokens; the last piece has none.
    pub up_to_tokens: Option<u32>,
    /// Its costs.
    pub cost: AffineCost,
}

/// A piece as a file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PieceTable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    up_to_tokens: Option<u32>,
    step_ns: f64,
    prefill_token_ns: f64,
    decode_token_ns: f64,
    prefill_context_ns: f64,
    decode_context_ns: f64,
}

impl From<PieceTable> for Piece {
    fn from(table: PieceTable) -> Self {
        let cost = AffineCost {
            step_ns: table.step_ns,
            prefill_token_ns: table.prefill_token_ns,
            decode_token_ns: table.decode_token_ns,
            prefill_context_ns: table.prefill_context_ns,
            decode_context_ns: table.decode_context_ns,
        };
        Self { up_to_tokens: table.up_to_tokens, cost }
    }
}

impl From<Piece> for PieceTable {
    fn from(piece: Piece) -> Self {
        let [step_ns, prefill_token_ns, decode_token_ns, prefill_context_ns, decode_context_ns] =
            piece.cost.coefficients();
        Self {
            up_to_tokens: piece.up_to_tokens,
            step_ns,
            prefill_token_ns,
            decode_token_ns,
            prefill_context_ns,
            decode_context_ns,
        }
    }
}

impl Piece {
    /// Checks that no step of `from` tokens or more takes less than nothing, or longer than the
    /// longest.
    fn check(&self, from: u32) -> Result<(), String> {
        let [step_ns, per_unit @ ..] = self.cost.coefficients();
        let is_cost = |ns: f64| (0.0..=MOST_NS).contains(&ns);
        if let Some(ns) = per_unit.into_iter().find(|ns| !is_cost(*ns)) {
            return Err(format!("{ns:e} ns of a token or a position; it takes 0 to 1e15 ns"));
        }
        // The shortest step: the fewest tokens, of the cheaper kind, behind no context.
        let token_ns = self.cost.prefill_token_ns.min(self.cost.decode_token_ns);
        let shortest = step_ns + f64::from(from) * token_ns;
        if !is_cost(shortest) || step_ns > MOST_NS {
            return Err(format!(
                "{shortest:e} ns of a step of {from} tokens; it takes 0 to 1e15 ns"
            ));
        }
        Ok(())
    }
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
        let is_ascending = first.first() != Some(&Some(0)) && first.is_sorted_by(|a, b| a < b);
        if last.is_some() || first.iter().any(Option::is_none) || !is_ascending {
            return Err(
                "every piece but the last needs `up_to_tokens`, at least 1 and ascending; \
                        the last has none"
                    .to_owned(),
            );
        }
        let mut from = 1;
        for (piece, number) in self.pieces.iter().zip(1..) {
            piece.check(from).map_err(|cause| format!("piece {number}: {cause}"))?;
            from = piece.up_to_tokens.map_or(from, |last| last.saturating_add(1));
        }
        Ok(())
    }
}

impl CostModel for CostFile {
    fn step_time(&self, work: &[Work]) -> Duration {
        let tokens: u32 = work.iter().map(|w| w.tokens).sum();
        let fits = |piece: &&Piece| piece.up_to_tokens.is_none_or(|most| tokens <= most);
        self.pieces.iter().find(fits).map_or(Duration::ZERO, |piece| piece.cost.step_time(work))
    }
}

#[cfg(test)]
mod tests {
    use metron_trace::RequestId;

    use super::*;

    const TABLES: &str = "name = \"a\"\nsource = \"b\"\n\n[[pieces]]\nup_to_tokens = 64\n\
        step_ns = 640.0\nprefill_token_ns = 0.0\ndecode_token_ns = 0.0\n\
        prefill_context_ns = 0.0\ndecode_context_ns = 0.0\n\n[[pieces]]\nstep_ns = -10.0\n\
        prefill_token_ns = 10.0\ndecode_token_ns = 10.0\nprefill_context_ns = 2.0\n\
        decode_context_ns = 3.0\n";

    fn parse(text: &str) -> Result<CostFile, String> {
        let file: CostFile = toml::from_str(text).map_err(|error| error.to_string())?;
        file.check().map(|()| file)
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let file = parse(TABLES).expect("it is fine");
        assert_eq!(toml::to_string(&file).expect("it can be written"), TABLES);
    }

    #[test]
    fn keys_that_nobody_reads_are_refused() {
        for key in ["up_to_token = 5", "nonsense = 3"] {
            let error = parse(&format!("{TABLES}{key}\n")).expect_err("it is no key");
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn costs_below_nothing_or_beyond_the_longest_step_are_refused() {
        let check = |from, to, expected| {
            assert!(TABLES.contains(from));
            assert_eq!(
                parse(&TABLES.replace(from, to)),
                Err::<CostFile, _>(String::from(expected))
            );
        };
        let step = "piece 1: -1e9 ns of a step of 1 tokens; it takes 0 to 1e15 ns";
        check("step_ns = 640.0", "step_ns = -1e9", step);
        let step = "piece 1: 1e300 ns of a step of 1 tokens; it takes 0 to 1e15 ns";
        check("step_ns = 640.0", "step_ns = 1e300", step);
        // Behind 64 tokens of 10 ns: below 0 only beyond that.
        let step = "piece 2: -1e0 ns of a step of 65 tokens; it takes 0 to 1e15 ns";
        check("step_ns = -10.0", "step_ns = -651.0", step);
        let token = "piece 2: -1e0 ns of a token or a position; it takes 0 to 1e15 ns";
        check("decode_context_ns = 3.0", "decode_context_ns = -1.0", token);
        check("decode_context_ns = 3.0", "decode_context_ns = nan", &token.replace("-1e0", "NaN"));
    }

    #[test]
    fn a_step_too_long_to_count_is_the_longest() {
        let cost = AffineCost { decode_context_ns: MOST_NS, ..AffineCost::default() };
        let kind = WorkKind::Decode;
        let work = Work { request: RequestId(0), context: u32::MAX, tokens: 1, kind };
        assert_eq!(cost.step_time(&[work]), LONGEST_STEP);
        let nothing = AffineCost { step_ns: -5.0, ..AffineCost::default() };
        assert_eq!(nothing.step_time(&[]), Duration::from_nanos(1));
    }
}
