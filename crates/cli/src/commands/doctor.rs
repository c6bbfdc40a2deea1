use std::sync::Arc;
use std::time::Duration;

use metron_lab::{Overhead, OverheadPlan, Rig, overhead};
use metron_metrics::{Doubt, doubts_of_conditions};
use metron_report::bare_doubts_text;
use metron_sim::{AffineCost, CostFile, Piece};
use metron_trace::{Conditions, Header, Limits, Machine, Origin};
use serde::Serialize;

use super::lab_failure;
use crate::args::DoctorArgs;
use crate::conditions::MachineWatch;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::{EngineSection, Experiment, ModelSection};
use crate::facts::{as_text, fact, machine_facts};
use crate::header::header_of;
use crate::machine::this_machine;
use crate::model_rig::{ModelOnDisk, ModelRig};
use crate::print;
use crate::progress::{Progress, StopSignal};
use crate::stopwatch::Stopwatch;
use crate::virtual_rig::{SharedCost, VirtualRig};

/// How long the machine is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// Sequences of the runs whose recording is measured.
const BATCH: u32 = 8;
const PROMPT_TOKENS: u32 = 16;
/// Steps of such a run on a model, and on an executor that does nothing.
const MODEL_STEPS: u32 = 48;
const NULL_STEPS: u32 = 10_000;

/// `metron doctor`: what this machine is, and what its numbers are worth.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    if args.overhead { cost_of_recording(args) } else { examine(args) }
}

/// What is seen of a machine without running anything on it.
#[derive(Serialize)]
struct Examined {
    machine: Machine,
    conditions: Option<Conditions>,
    clock_tick_s: Option<f64>,
    doubts: Vec<Doubt>,
}

fn examine(args: &DoctorArgs) -> Result<(), Failure> {
    check_without_model(args)?;
    let device = args.model.device.as_deref().unwrap_or("cpu");
    let tick = Stopwatch::start().tick();
    let mut watch = MachineWatch::of_device(device);
    watch.begin();
    std::thread::sleep(WATCHED);
    let conditions = watch.end();
    let doubts = conditions.as_ref().map(doubts_of_conditions).unwrap_or_default();
    let examined = Examined {
        machine: this_machine(device),
        conditions,
        clock_tick_s: tick.map(|tick| tick.as_secs_f64()),
        doubts,
    };
    if args.json {
        print::result(&serde_json::to_string_pretty(&examined).or_fail(Kind::Internal)?);
        return Ok(());
    }
    let mut facts = machine_facts(&examined.machine);
    if let Some(tick) = tick {
        let source = examined.machine.clock_source.as_deref().unwrap_or("unknown source");
        facts.push(fact("clock", format!("{source}, ticks of {} ns", tick.as_nanos())));
    }
    if let Some(conditions) = &examined.conditions {
        facts.push(fact("watched", seen(conditions)));
    }
    let doubts = bare_doubts_text(&examined.doubts);
    let doubts = if doubts.is_empty() { "Nothing to doubt was seen.\n".to_owned() } else { doubts };
    print::result(&format!("{}\n{doubts}", as_text(&facts)));
    Ok(())
}

/// Refuses options on a model that is not run. The device is what is looked at.
fn check_without_model(args: &DoctorArgs) -> Result<(), Failure> {
    let mut section = ModelSection::default();
    section.overlay(&args.model);
    section.device = None;
    let unheard = section.given();
    if unheard.is_empty() {
        return Ok(());
    }
    let error = anyhow::anyhow!(
        "only `doctor --overhead` runs a model; add --overhead, or leave {} out",
        unheard.join(", ")
    );
    Err(Failure { kind: Kind::Usage, error })
}

/// What could be read of a machine's conditions, in words.
fn seen(conditions: &Conditions) -> String {
    let share = |time: Option<Duration>, of: &str| {
        let share = time?.as_secs_f64() / conditions.watched.as_secs_f64();
        share.is_finite().then(|| format!("{of} {:.1} % of the time", share * 100.0))
    };
    let parts = [
        share(conditions.cpu_pressure, "something waited for a processor"),
        share(conditions.steal, "stolen by a hypervisor"),
        conditions.other_work.map(|time| {
            let processors = time.as_secs_f64() / conditions.watched.as_secs_f64();
            format!("other processes kept {processors:.2} processors busy")
        }),
        conditions.swapped_pages.map(|pages| format!("{pages} pages swapped")),
        conditions.cpu_mhz.map(|[before, after]| format!("{before} to {after} MHz")),
        conditions.gpu_mhz.map(|[before, after]| format!("accelerator {before} to {after} MHz")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let parts = if parts.is_empty() { "it tells nothing".to_owned() } else { parts.join(", ") };
    format!("for {:.1} s: {parts}", conditions.watched.as_secs_f64())
}

/// What recording costs, on the model and on an executor that does nothing.
#[derive(Serialize)]
struct Recording {
    model: String,
    batch: u32,
    on_model: Overhead,
    on_null_executor: Overhead,
}

fn cost_of_recording(args: &DoctorArgs) -> Result<(), Failure> {
    if args.pairs < 2 {
        let error = anyhow::anyhow!("--pairs is {}; an interval takes at least 2", args.pairs);
        return Err(Failure { kind: Kind::Usage, error });
    }
    let quiet = args.quiet || args.json;
    let stop = StopSignal::on_ctrl_c();
    let mut progress = Progress::new(stop.clone(), quiet);
    let mut rig = model_rig(args, quiet)?;
    progress.phase("measuring what recording costs");
    // Of traces that nobody keeps.
    let (model, executor) = (rig.model_info(), rig.executor_info());
    let header = header_of(Origin::Measured, model, executor, rig.limits());
    let output_tokens = MODEL_STEPS.min(rig.limits().max_model_len - PROMPT_TOKENS);
    let plan = OverheadPlan {
        pairs: args.pairs,
        batch: BATCH,
        prompt_tokens: PROMPT_TOKENS,
        output_tokens,
    };
    let on_model = measure(&mut rig, plan, &header, &stop)?;
    let plan = OverheadPlan { output_tokens: NULL_STEPS, ..plan };
    let on_null_executor = measure(&mut null_rig(), plan, &header, &stop)?;
    progress.finish();
    let model = format!("{} on {}", header.model.id, header.executor.device);
    let recording = Recording { model, batch: BATCH, on_model, on_null_executor };
    if args.json {
        print::result(&serde_json::to_string_pretty(&recording).or_fail(Kind::Internal)?);
    } else {
        print::result(&recording.to_text());
    }
    if stop.is_set() { Err(Failure::interrupted()) } else { Ok(()) }
}

fn measure(
    rig: &mut dyn Rig,
    plan: OverheadPlan,
    header: &Header,
    stop: &StopSignal,
) -> Result<Overhead, Failure> {
    let scratch = tempfile::tempdir().or_fail(Kind::Environment)?;
    let stopwatch = Stopwatch::start();
    overhead(rig, plan, header, scratch.path(), &|| stopwatch.read(), &|| stop.is_set())
        .map_err(lab_failure)
}

fn model_rig(args: &DoctorArgs, quiet: bool) -> Result<ModelRig, Failure> {
    let mut model = ModelSection::default();
    model.overlay(&args.model);
    let engine = EngineSection { max_num_seqs: Some(BATCH), ..EngineSection::default() };
    let experiment = Experiment { model, engine, ..Experiment::default() };
    let model = ModelOnDisk::find(&experiment.model, quiet)?;
    let context = model.context();
    if context <= PROMPT_TOKENS {
        let error = anyhow::anyhow!(
            "the model's context is {context} positions; measuring takes more than {PROMPT_TOKENS}"
        );
        return Err(Failure { kind: Kind::Input, error });
    }
    model.rig_for(&experiment, PROMPT_TOKENS + MODEL_STEPS)
}

/// An executor whose steps take no time: what is left is the loop.
fn null_rig() -> VirtualRig {
    let max_model_len = PROMPT_TOKENS + NULL_STEPS;
    let limits = Limits {
        block_size: 16,
        num_blocks: BATCH * max_model_len.div_ceil(16),
        max_num_seqs: BATCH,
        max_model_len,
    };
    let cost = AffineCost { step_ns: 1.0, ..AffineCost::default() };
    let cost = CostFile {
        name: "nothing".to_owned(),
        source: "a nanosecond a step".to_owned(),
        pieces: vec![Piece { up_to_tokens: None, cost }],
    };
    VirtualRig::new(limits, SharedCost(Arc::new(cost)))
}

impl Recording {
    fn to_text(&self) -> String {
        let (model, null) = (&self.on_model, &self.on_null_executor);
        let percent = |ratio: f64| format!("{:+.2}", (ratio - 1.0) * 100.0);
        let interval = model.interval.map_or_else(String::new, |interval| {
            format!(" [{}, {}]", percent(interval.low), percent(interval.high))
        });
        let ratios = null.interval.map_or_else(String::new, |interval| {
            format!(" [{:.2}, {:.2}]", interval.low, interval.high)
        });
        format!(
            "What recording a run costs (95 % intervals of {} pairs of runs, with and without):\n\
             on {} at batch {}: {} %{interval} of a step of {:.2} ms\n\
             on an executor that does nothing: {:.2} times{ratios} a bare loop of {:.0} ns a \
             step, {:.0} ns more\n",
            model.pairs,
            self.model,
            self.batch,
            percent(model.ratio),
            model.bare_step_s * 1e3,
            null.ratio,
            null.bare_step_s * 1e9,
            null.added_s * 1e9,
        )
    }
}
