//! Options that several commands share, by the heading of their help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// A card's id (`metron models`), a hub id `org/name`, a directory, or a GGUF file.
    /// [default: smollm2-135m-instruct on the CPU, qwen2.5-7b-instruct on CUDA]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Where to compute: auto, cpu, cuda or cuda:INDEX. [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Number format to compute with: f32, f16, bf16 or `q8_0`. [default: by a fixed rule of the
    /// weights' format and the device, see docs/dtypes.md]
    #[arg(long, value_name = "DTYPE")]
    pub(crate) dtype: Option<String>,
    /// Threads of computation on the CPU. [default: the physical cores that this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Refuse a device on which the bits of a request's logits depend on what runs beside it.
    #[arg(long)]
    pub(crate) batch_invariant: bool,
    /// Where the weights' numbers come from.
    #[arg(long, value_enum)]
    pub(crate) load_format: Option<LoadFormatArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadFormatArg {
    /// The model's files.
    Auto,
    /// Seeded random numbers in the model's shape: timings are real, the text isn't. No download.
    Dummy,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Blocks of the KV pool. [default: a quarter of the free memory, and no more than all slots
    /// can use, or 16777216]
    #[arg(long, value_name = "N")]
    pub(crate) kv_blocks: Option<u32>,
    /// Positions of a KV block. [default: 16]
    #[arg(long, value_name = "N")]
    pub(crate) block_size: Option<u32>,
    /// Slots: the most sequences that run at a time, at most 65536. [default: 32]
    #[arg(long, value_name = "N")]
    pub(crate) max_num_seqs: Option<u32>,
    /// The most positions of a sequence; static and orca reserve so many for each. [default: the
    /// longest request of the workload, in whole blocks]
    #[arg(long, value_name = "N")]
    pub(crate) max_model_len: Option<u32>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Workload")]
pub(crate) struct WorkloadArgs {
    /// Requests a second, or `inf` for all at once. [default: from the calibration, so that the
    /// machine is loaded but not hopeless]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub(crate) request_rate: Option<f64>,
    /// Shape of the gamma distribution of gaps: 1 is Poisson, below is burstier, above steadier.
    #[arg(long, value_name = "SHAPE", allow_negative_numbers = true)]
    pub(crate) burstiness: Option<f64>,
    /// How requests arrive. [default: poisson; gamma with --burstiness]
    #[arg(long, value_enum)]
    pub(crate) arrivals: Option<ArrivalsArg>,
    /// Requests of a run. [default: as many as the time allows]
    #[arg(long, value_name = "N")]
    pub(crate) num_prompts: Option<u32>,
    /// Closed loop: the most requests in progress; the next arrives when one ends.
    #[arg(long, value_name = "N")]
    pub(crate) max_concurrency: Option<u32>,
    /// Prompt length in tokens. [default: a mixture of short and long prompts]
    #[arg(long, visible_alias = "isl", value_name = "TOKENS", conflicts_with = "dataset_path")]
    pub(crate) input_len: Option<u32>,
    /// Output length in tokens.
    #[arg(long, visible_alias = "osl", value_name = "TOKENS", conflicts_with = "dataset_path")]
    pub(crate) output_len: Option<u32>,
    /// Lengths are uniform in `len * (1 - ratio) ..= len * (1 + ratio)`.
    #[arg(long, value_name = "RATIO", allow_negative_numbers = true)]
    pub(crate) random_range_ratio: Option<f64>,
    /// A recorded trace: Azure 2023 CSV, Mooncake JSONL, `arrived_at,prompt_tokens,output_tokens`
    /// CSV, or a CSV of lengths alone.
    #[arg(long, visible_alias = "trace", value_name = "FILE")]
    pub(crate) dataset_path: Option<PathBuf>,
    /// Cut prompts from this text instead of drawing random tokens.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_text: Option<PathBuf>,
    /// What to do with requests longer than the context or the cache. [default: error]
    #[arg(long, value_enum)]
    pub(crate) too_long: Option<TooLongArg>,
    /// End a request at an end-of-sequence token. By default every request generates exactly the
    /// workload's output length, so that every scheduler does the same work.
    #[arg(long)]
    pub(crate) stop_at_eos: bool,
    /// Sampling temperature; 0 is greedy. [default: 0]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArrivalsArg {
    Poisson,
    Gamma,
    Constant,
    AllAtOnce,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TooLongArg {
    Error,
    Drop,
    Truncate,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Deadlines and scoring")]
pub(crate) struct ScoringArgs {
    /// Deadline of the first token after the arrival: `500ms`, `predicted + 300ms`,
    /// `predicted * 2`. [default: predicted + 0.3 s scaled to this machine's speed; of saved runs as
    /// recorded]
    #[arg(long, value_name = "D_P")]
    pub(crate) ttft_deadline: Option<String>,
    /// Deadline of each later token after the one before: `50ms`. [default: 5 isolated decode
    /// steps at the batch size that the workload will have; of saved runs as recorded]
    #[arg(long, value_name = "D_D")]
    pub(crate) tbt_deadline: Option<String>,
    /// How a late token's missed deadlines are counted. [default: exact; of saved runs as
    /// recorded]
    #[arg(long, value_enum)]
    pub(crate) rule: Option<RuleArg>,
    /// Score the decode phase alone: without the first token. `--without-first-token=false` takes
    /// back what an experiment or a saved run says.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) without_first_token: Option<bool>,
    /// The fluidity-index from which a request counts as fluid. [default: 0.9; of saved runs as
    /// recorded]
    #[arg(long, value_name = "INDEX", value_parser = share)]
    pub(crate) fluid_index: Option<f64>,
    /// The share of requests that have to be fluid at the fluid token generation rate.
    /// [default: 0.99; of saved runs as recorded]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) fluid_share: Option<f64>,
    /// Slack never grows above this, or `none`. [default: none; of saved runs as recorded]
    #[arg(long, value_name = "DURATION", value_parser = max_slack)]
    pub(crate) max_slack: Option<MaxSlack>,
    /// A TBT above this is a stall. [default: the greater of the TBT deadline and 10 isolated TBTs;
    /// of saved runs as recorded]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) stall_limit: Option<Duration>,
    /// Limits that a request meets to count as goodput, in milliseconds: `ttft:200 tpot:50
    /// e2el:1000`.
    #[arg(long, value_name = "KEY:MS..")]
    pub(crate) goodput: Vec<String>,
    /// What a run is judged by, with units; may be given several times: `ttft <= 200 ms for 95%`,
    /// `P99 tbt <= 0.1 s`, `fluidity_index >= 0.9 for 99%`, `class chat: ttft <= 1 s for 90%`.
    #[arg(long = "objective", value_name = "OBJECTIVE")]
    pub(crate) objectives: Vec<String>,
}

/// The most that slack grows to; `None` where a user takes a limit back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxSlack(pub(crate) Option<Duration>);

fn max_slack(text: &str) -> Result<MaxSlack, humantime::DurationError> {
    if text == "none" {
        return Ok(MaxSlack(None));
    }
    humantime::parse_duration(text).map(|most| MaxSlack(Some(most)))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "it must be a number above 0 and at most 1".to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuleArg {
    /// A token on the k-th deadline after its own has missed k.
    Exact,
    /// The two papers' pseudo-code.
    Paper,
    /// The original tool's code, in floating point.
    Etalon,
    /// The original documentation: a late token has missed one.
    PerToken,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Directory for the traces, metrics.json, experiment.toml and report.html.
    /// [default: metron-out/COMMAND-DATE]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the result.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Results in the form of `vllm bench serve`")]
#[command(group(ArgGroup::new("form").args(["save_result", "save_detailed"]).multiple(true)))]
pub(crate) struct SaveResultArgs {
    /// Write each run as JSON with the names of `vllm bench serve`.
    #[arg(long)]
    pub(crate) save_result: bool,
    /// The same with its lists of a request each.
    #[arg(long)]
    pub(crate) save_detailed: bool,
    /// Directory for them. [default: vllm, in the output directory of a run; for score here]
    #[arg(long, value_name = "DIR", requires = "form")]
    pub(crate) result_dir: Option<PathBuf>,
}
