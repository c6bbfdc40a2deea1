use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Serve a real transformer under competing batching schedulers, and see which serves it better.
#[derive(Debug, Parser)]
#[command(name = "metron", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run several schedulers on the same requests and compare them.
    Compare(ExperimentArgs),
    /// Find the greatest arrival rate at which each scheduler keeps its objectives.
    Capacity(CapacityArgs),
    /// Run one scheduler, or an experiment file as it stands.
    Run(ExperimentArgs),
    /// Measure this machine: isolated prefills and decodes; saved for `--simulate`.
    Calibrate(CalibrateArgs),
    /// What this machine is and what it is doing: whether its numbers can be believed, and what
    /// recording costs.
    Doctor(DoctorArgs),
    /// Generate text from a prompt, through the same engine.
    Generate(GenerateArgs),
    /// Compute all metrics of saved traces again, under other deadlines if asked.
    Score(ScoreArgs),
    /// Measure where the time of a step goes, operator by operator, against this machine's limits.
    Profile(ProfileArgs),
    /// Turn a saved trace into another program's format.
    Export(ExportArgs),
    /// Turn another tool's result into a trace, to be scored as if it were Metron's.
    Import(ImportArgs),
    /// Two saved results side by side: their metrics, and what differs in their inputs.
    Diff(DiffArgs),
    /// Why deadlines were missed: the causes under each policy, or one request's story.
    Explain(ExplainArgs),
    /// List the models that can be named, and whether they are on disk.
    Models(ListArgs),
    /// List the schedulers that can be named.
    Schedulers(ListArgs),
}

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
    /// Threads of computation on the CPU. [default: physical cores]
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
    /// can use]
    #[arg(long, value_name = "N")]
    pub(crate) kv_blocks: Option<u32>,
    /// Positions of a KV block. [default: 16]
    #[arg(long, value_name = "N")]
    pub(crate) block_size: Option<u32>,
    /// Slots: the most sequences that run at a time. [default: 32]
    #[arg(long, value_name = "N")]
    pub(crate) max_num_seqs: Option<u32>,
    /// Time every operator of every step, and keep the times in the trace; steps become longer.
    #[arg(long)]
    pub(crate) trace_operators: bool,
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
    /// How requests arrive. [default: poisson]
    #[arg(long, value_enum)]
    pub(crate) arrivals: Option<ArrivalsArg>,
    /// Requests of a run. [default: as many as the time allows]
    #[arg(long, value_name = "N")]
    pub(crate) num_prompts: Option<u32>,
    /// Closed loop: the most requests in progress; the next arrives when one ends.
    #[arg(long, value_name = "N")]
    pub(crate) max_concurrency: Option<u32>,
    /// Prompt length in tokens. [default: a mixture of short and long prompts]
    #[arg(long, visible_alias = "isl", value_name = "TOKENS")]
    pub(crate) input_len: Option<u32>,
    /// Output length in tokens.
    #[arg(long, visible_alias = "osl", value_name = "TOKENS")]
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
    /// `predicted * 2`. [default: predicted + 0.3 s scaled to this machine's speed]
    #[arg(long, value_name = "D_P")]
    pub(crate) ttft_deadline: Option<String>,
    /// Deadline of each later token after the one before: `50ms`. [default: 5 isolated decode
    /// steps at the batch size that the workload will have]
    #[arg(long, value_name = "D_D")]
    pub(crate) tbt_deadline: Option<String>,
    /// How a late token's missed deadlines are counted. [default: exact]
    #[arg(long, value_enum)]
    pub(crate) rule: Option<RuleArg>,
    /// Score the decode phase alone: without the first token.
    #[arg(long)]
    pub(crate) without_first_token: bool,
    /// The fluidity-index from which a request counts as fluid. [default: 0.9]
    #[arg(long, value_name = "INDEX", value_parser = share)]
    pub(crate) fluid_index: Option<f64>,
    /// The share of requests that have to be fluid at the fluid token generation rate.
    /// [default: 0.99]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) fluid_share: Option<f64>,
    /// Slack never grows above this.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) max_slack: Option<Duration>,
    /// A TBT above this is a stall. [default: the greater of the TBT deadline and 10 isolated TBTs]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) stall_limit: Option<Duration>,
    /// Limits that a request meets to count as goodput, in milliseconds: `ttft:200 tpot:50
    /// e2el:1000`.
    #[arg(long, value_name = "KEY:MS", num_args = 1..)]
    pub(crate) goodput: Vec<String>,
    /// What a run is judged by, with units; may be given several times: `ttft <= 200 ms for 95%`,
    /// `P99 tbt <= 0.1 s`, `fluidity_index >= 0.9 for 99%`, `class chat: ttft <= 1 s for 90%`.
    #[arg(long = "objective", value_name = "OBJECTIVE")]
    pub(crate) objectives: Vec<String>,
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
pub(crate) struct SaveResultArgs {
    /// Write each run as JSON with the names of `vllm bench serve`.
    #[arg(long)]
    pub(crate) save_result: bool,
    /// The same with its lists of a request each.
    #[arg(long)]
    pub(crate) save_detailed: bool,
    /// Directory for them. [default: vllm, in the output directory of a run]
    #[arg(long, value_name = "DIR")]
    pub(crate) result_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ExperimentArgs {
    /// Take the experiment from this TOML file; options given here go before it.
    #[arg(long, value_name = "FILE")]
    pub(crate) experiment: Option<PathBuf>,
    /// Schedulers with their options: `sarathi:token_budget=256,vllm-v0`.
    /// [default: static,orca,vllm-v0,sarathi for compare; sarathi for run]
    #[arg(
        long,
        visible_alias = "scheduler",
        value_name = "NAME[:KEY=VALUE..]",
        value_delimiter = ','
    )]
    pub(crate) schedulers: Vec<String>,
    /// Repetitions with other seeds, the same for every scheduler. [default: at least 2 and as
    /// many as the time allows for compare, 10 in virtual time; 1 for run; for capacity the most:
    /// 10, and 40 in virtual time]
    #[arg(long, value_name = "N")]
    pub(crate) replicates: Option<u32>,
    /// Add replicates until every headline verdict is reached, looking at four fixed counts that
    /// share the level; --replicates is then the limit. [default limit: 40 in virtual time, else 10]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) until: Option<Until>,
    /// The scheduler that the others are compared with, by its label. [default: the first]
    #[arg(long, value_name = "NAME")]
    pub(crate) baseline: Option<String>,
    /// Seed of everything random. [default: 0]
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,
    /// Run in virtual time: with a cost file, or without one with this machine's last calibration.
    #[arg(long, value_name = "COST FILE", num_args = 0..=1, default_missing_value = crate::calibrations::LAST)]
    pub(crate) simulate: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    #[command(flatten)]
    pub(crate) scoring: ScoringArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) save_result: SaveResultArgs,
}

/// When a comparison has enough replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Until {
    /// When no headline verdict is open.
    Decided,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CapacityArgs {
    /// The capacity is the rate at which a run keeps its objectives with this probability.
    #[arg(long, value_name = "P", default_value_t = 0.5, allow_negative_numbers = true)]
    pub(crate) probability: f64,
    #[command(flatten)]
    pub(crate) experiment: ExperimentArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CalibrateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Longest prompt to measure. [default: 1024]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) longest: Option<u32>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the result.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ProfileArgs {
    /// Batch shapes: prefill:TOKENS, decode:BATCHxCONTEXT, hybrid:BATCHxCONTEXT+TOKENS; a prefill
    /// behind N positions ends in @N. [default: a grid of all three]
    #[arg(long, value_name = "SHAPE", value_delimiter = ',')]
    pub(crate) shapes: Vec<String>,
    /// Times each shape is measured.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) repeats: u32,
    /// Positions of a KV block.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) block_size: u32,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DoctorArgs {
    /// Measure what recording a run costs: paired runs with and without the recorder, on the model
    /// and on an executor that does nothing.
    #[arg(long)]
    pub(crate) overhead: bool,
    /// Pairs of runs.
    #[arg(long, value_name = "N", default_value_t = 20, requires = "overhead")]
    pub(crate) pairs: u32,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the result.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// Directory of a saved trace.
    #[arg(value_name = "TRACE")]
    pub(crate) trace: PathBuf,
    /// What to turn it into.
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// The file to write. [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Trace events that Perfetto's viewer and Chrome's open.
    Perfetto,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct GenerateArgs {
    /// The text to continue.
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// The most tokens to generate.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 64)]
    pub(crate) max_tokens: u32,
    /// 0 takes the most probable token.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) temperature: f32,
    /// Keep only the K most probable tokens.
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Keep the most probable tokens whose probabilities first reach P.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) top_p: f32,
    /// Seed of the sampling.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Do not stop at an end-of-sequence token.
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Print one JSON object with `prompt_ids`, `output_ids`, text and metrics.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the text.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ScoreArgs {
    /// Directories of saved traces, or the output directory of a run or comparison.
    #[arg(value_name = "TRACE", required = true)]
    pub(crate) traces: Vec<PathBuf>,
    /// The scheduler that the others are compared with, by its label. [default: as it was run]
    #[arg(long, value_name = "NAME")]
    pub(crate) baseline: Option<String>,
    #[command(flatten)]
    pub(crate) scoring: ScoringArgs,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the result.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) save_result: SaveResultArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ToolArg {
    /// The original tool of the Metron paper: its `request_level_metrics.json`.
    Etalon,
    /// `vllm bench serve --save-result --save-detailed`: its JSON.
    Vllm,
    /// `AIPerf`: its `profile_export.jsonl`.
    Aiperf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ImportArgs {
    /// Whose result it is.
    #[arg(value_enum, value_name = "TOOL")]
    pub(crate) tool: ToolArg,
    /// The result.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Directory for the trace.
    #[arg(long, short, value_name = "TRACE")]
    pub(crate) output: PathBuf,
    /// How tables call it. [default: the file's own label, else the tool's name]
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DiffArgs {
    /// A trace, or the output directory of a run or comparison.
    #[arg(value_name = "A")]
    pub(crate) a: PathBuf,
    /// Another.
    #[arg(value_name = "B")]
    pub(crate) b: PathBuf,
    #[command(flatten)]
    pub(crate) scoring: ScoringArgs,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// Directories of saved traces, or the output directory of a run or comparison.
    #[arg(value_name = "TRACE", required = true)]
    pub(crate) traces: Vec<PathBuf>,
    /// Tell the story of this request, under each policy. [default: each policy's missed deadlines
    /// by cause]
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<u32>,
    #[command(flatten)]
    pub(crate) scoring: ScoringArgs,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}
