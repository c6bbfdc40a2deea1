use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Conditions;

/// What ran, on what, with which settings: enough to run it again and to doubt it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the stored format.
    pub format_version: u32,
    /// Version of Metron that wrote it.
    pub metron_version: String,
    /// Wall-clock date of the run, RFC 3339; `None` where nobody looked (virtual time, tests).
    pub created_at: Option<String>,
    /// The command as typed.
    pub command_line: Vec<String>,
    /// Whether the times are the machine's.
    pub origin: Origin,
    /// The seed that every random stream of the run derives from.
    pub seed: u64,
    /// Which repetition of its experiment it is, from 0: replicates of one number and seed have the
    /// same requests, whatever the policy.
    pub replicate: u32,
    /// Closed loop: the most requests in progress. `None`: an open loop, or not known.
    pub max_concurrency: Option<u32>,
    /// The policy and its settings.
    pub policy: PolicyInfo,
    /// The model.
    pub model: ModelInfo,
    /// What ran it.
    pub executor: ExecutorInfo,
    /// The machine.
    pub machine: Machine,
    /// Limits of the engine.
    pub limits: Limits,
    /// The experiment as run, in its file's own terms.
    pub experiment: serde_json::Value,
    /// Names of the workload's classes, in the order of [`Request::class`](crate::Request::class).
    pub classes: Vec<String>,
    /// Requests the workload dropped because they were longer than the context or the cache.
    pub dropped_requests: u32,
    /// Requests the workload cut for the same reason.
    pub truncated_requests: u32,
    /// What was measured before the run.
    pub calibration: Option<Calibration>,
}

impl Header {
    /// What the result of another tool says of its own times' origin, as one in vLLM's form that
    /// Metron wrote does; `None` if it says nothing, and of what was not imported.
    pub fn said_origin(&self) -> Option<Origin> {
        let said = self.experiment.pointer("/imported/says/origin")?;
        Origin::deserialize(said).ok()
    }

    /// Whether the times are a virtual clock's, here or by another tool's account.
    pub fn is_simulated(&self) -> bool {
        self.origin == Origin::Simulated || self.said_origin() == Some(Origin::Simulated)
    }
}

/// Whose clock the times of a trace are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The machine's clock.
    Measured,
    /// A virtual clock, moved by a cost model.
    Simulated,
    /// The clock of another tool's client. There are no steps, and what that tool did not say of its
    /// seed, engine and machine is 0 or empty in the header.
    Imported,
    /// Likewise of a tool that kept no arrivals: each request has a clock of its own, which starts
    /// with its arrival, so nothing that spans several requests can be computed.
    ImportedWithoutArrivals,
}

impl Origin {
    /// Whether all requests share one clock, so that their arrivals can be compared.
    pub const fn knows_arrivals(self) -> bool {
        !matches!(self, Self::ImportedWithoutArrivals)
    }

    /// Whether another tool measured it.
    pub const fn is_imported(self) -> bool {
        matches!(self, Self::Imported | Self::ImportedWithoutArrivals)
    }
}

/// A policy as configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// How the run's tables call it: unique among the policies of a comparison.
    pub label: String,
    /// The registered name.
    pub name: String,
    /// Every option with its value.
    pub options: serde_json::Value,
}

/// The model that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Id of its card, or the name the user gave.
    pub id: String,
    /// Where the weights came from, in words ("hub org/name@revision", "Python package x==1",
    /// a path, "seeded random weights").
    pub source: String,
    /// Format of the weights as stored (`safetensors bf16`, `GGUF Q4_1`, `dummy`).
    pub format: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Checksum of the weights file, where there is one file.
    pub sha256: Option<String>,
    /// Whether the weights are seeded random numbers: timings are real, the text isn't.
    pub dummy: bool,
}

/// What carried out the steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorInfo {
    /// "cpu", "cuda:0", or the cost model's name in virtual time.
    pub device: String,
    /// Number format of the weights as computed with; `None` in virtual time.
    pub dtype: Option<String>,
    /// Threads of computation on the CPU; `None` elsewhere.
    pub threads: Option<u32>,
    /// Whether the bits of a request's logits are the same whatever runs beside it; `None` in
    /// virtual time.
    pub batch_invariant: Option<bool>,
}

/// The machine of a run. A fact that could not be read is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu: Option<String>,
    /// Logical processors this process may use.
    pub cores: Option<u32>,
    /// Instruction-set extensions that decide which kernels run.
    pub cpu_features: Vec<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Name of the accelerator.
    pub gpu: Option<String>,
    /// Version of its driver.
    pub gpu_driver: Option<String>,
    /// Operating system and kernel release.
    pub os: Option<String>,
    /// What decides the processors' frequency (`performance`, `powersave`, ...).
    pub governor: Option<String>,
    /// Where the kernel reads the time (`tsc`, `hpet`, ...).
    pub clock_source: Option<String>,
    /// What it was like during the run; `None` where nobody looked (virtual time), and until the
    /// run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,
}

/// The limits within which a policy plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Positions of one KV block.
    pub block_size: u32,
    /// KV blocks in the pool.
    pub num_blocks: u32,
    /// Slots: the most sequences that may be admitted at a time.
    pub max_num_seqs: u32,
    /// The most positions one sequence may have.
    pub max_model_len: u32,
}

impl Limits {
    /// Blocks needed to hold `tokens` positions.
    pub const fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_size)
    }

    /// The most positions that one sequence can have: the context, or the whole KV pool if that is
    /// smaller.
    pub fn longest_sequence(&self) -> u32 {
        self.max_model_len.min(self.num_blocks.saturating_mul(self.block_size))
    }
}

/// What was measured on the system under test, in isolation, before the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Time of an isolated prefill over its length.
    pub prefill: PrefillFit,
    /// Times of isolated decode steps.
    pub decode: Vec<DecodePoint>,
}

/// The fitted prefill curve with what it was fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrefillFit {
    /// The curve.
    pub curve: PrefillCurve,
    /// (prompt tokens, time) of every isolated repeat.
    pub points: Vec<(u32, Duration)>,
    /// Root mean square of the relative residuals.
    pub relative_residual: f64,
}

impl PrefillFit {
    /// Shortest and longest prompt that were measured; a prediction outside is an extrapolation.
    pub fn range(&self) -> Option<(u32, u32)> {
        let lengths = self.points.iter().map(|(tokens, _)| *tokens);
        Some((lengths.clone().min()?, lengths.max()?))
    }
}

/// `a + b P + c P^2` seconds for a prompt of `P` tokens, no coefficient negative.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PrefillCurve {
    /// Seconds.
    pub a: f64,
    /// Seconds a token.
    pub b: f64,
    /// Seconds a token squared.
    pub c: f64,
}

impl PrefillCurve {
    /// The time of an isolated prefill of `prompt_tokens`.
    pub fn predict(&self, prompt_tokens: u32) -> Duration {
        let p = f64::from(prompt_tokens);
        Duration::try_from_secs_f64((self.c * p + self.b).mul_add(p, self.a)).unwrap_or_default()
    }
}

/// The median time of an isolated decode step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodePoint {
    /// Sequences in the step.
    pub batch: u32,
    /// Positions in each one's KV cache.
    pub context: u32,
    /// Median time of the step.
    pub step_time: Duration,
}
