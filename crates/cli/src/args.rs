mod sections;

use std::path::PathBuf;

use clap::{Arg, Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

pub(crate) use sections::{
    ArrivalsArg, EngineArgs, LoadFormatArg, MaxSlack, ModelArgs, OutputArgs, RuleArg,
    SaveResultArgs, ScoringArgs, TooLongArg, WorkloadArgs,
};

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
pub(crate) struct ExperimentArgs {
    /// Take the experiment from this TOML file; options given here override it.
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
    /// share the level, and at most --replicates. [default limit: 40 in virtual time, else 10]
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
    /// Time every operator of every step, and keep the times in the trace; steps become longer.
    #[arg(long, help_heading = "Engine")]
    pub(crate) trace_operators: bool,
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
#[command(mut_args(without_those_of_comparisons))]
pub(crate) struct CapacityArgs {
    /// The capacity is the rate at which a run keeps its objectives with this probability.
    /// [default: 0.5, and that of a search that goes on]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) probability: Option<f64>,
    #[command(flatten)]
    pub(crate) experiment: ExperimentArgs,
}

/// A search compares nothing: options for that are refused, and its help is silent of them.
fn without_those_of_comparisons(arg: Arg) -> Arg {
    let of_comparisons = ["baseline", "save_result", "save_detailed", "result_dir"];
    let is_one = of_comparisons.contains(&arg.get_id().as_str());
    if is_one { arg.hide(true) } else { arg }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CalibrateArgs {
    /// Longest prompt to measure, at least 16. [default: 1024, or what the context has]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(16..))]
    pub(crate) longest: Option<u32>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the result.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
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
    #[arg(long, value_name = "N", default_value_t = 50, requires = "overhead")]
    pub(crate) pairs: u32,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the result.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// Directory of a saved trace: a `*.trace` in the output directory of a run or comparison.
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
#[expect(clippy::struct_excessive_bools, reason = "flags that say nothing of each other")]
pub(crate) struct GenerateArgs {
    /// The text to continue.
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// The text is a user's message: put it into the model's chat template.
    #[arg(long)]
    pub(crate) chat: bool,
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
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the result.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) scoring: ScoringArgs,
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
    /// Print one JSON object instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) scoring: ScoringArgs,
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
    /// In which replicate, from 1. [default: the first]
    #[arg(long, value_name = "N", requires = "request", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replicate: Option<u32>,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) scoring: ScoringArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}
