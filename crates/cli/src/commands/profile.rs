use metron_llm::{CandleExecutor, ProfileError, measure_roofs};
use metron_report::ProfileReport;
use metron_trace::{BatchShape, Limits, PROFILE_VERSION, Profile, ShapeProfile};

use crate::args::ProfileArgs;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::ModelSection;
use crate::header::now;
use crate::machine::this_machine;
use crate::model_rig::ModelOnDisk;
use crate::output::OutputDir;
use crate::print;
use crate::progress::{Progress, StopSignal};

/// What is measured unless asked otherwise.
const SHAPES: [&str; 8] = [
    "prefill:64",
    "prefill:512",
    "decode:1x128",
    "decode:8x128",
    "decode:32x128",
    "decode:8x1024",
    "hybrid:8x128+64",
    "hybrid:8x128+256",
];

/// `metron profile`: where the time of a step goes.
pub(crate) fn run(args: &ProfileArgs) -> Result<(), Failure> {
    let quiet = args.output.quiet || args.output.json;
    let shapes = shapes(args)?;
    let mut section = ModelSection::default();
    section.overlay(&args.model);
    let model = ModelOnDisk::find(&section, quiet)?;
    if !quiet {
        print::note(&model.files.sentence());
    }
    let limits = limits(&shapes, &model, args.block_size)?;
    let loaded = model.load(limits.max_model_len, 0)?;
    let mut rig = model.rig(loaded, limits)?;
    let output = OutputDir::create(args.output.output.as_deref(), "profile")?;
    let stop = StopSignal::on_ctrl_c();
    let mut progress = Progress::new(stop.clone(), quiet);
    let measured = measure(&mut rig.executor, &shapes, args.repeats, &mut progress, &stop);
    progress.finish();
    let (roofs, shapes) = measured?;
    let profile = Profile {
        profile_version: PROFILE_VERSION,
        metron_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: Some(now()),
        command_line: std::env::args().collect(),
        model: rig.model_info(),
        executor: rig.executor_info(),
        machine: this_machine(&rig.executor_info().device),
        roofs,
        shapes,
    };
    let json = serde_json::to_string_pretty(&profile).or_fail(Kind::Internal)?;
    output.write("profile.json", &json)?;
    let report = ProfileReport(&profile);
    let page = output.write("profile.html", &report.to_html().or_fail(Kind::Internal)?)?;
    if args.output.json {
        print::result(&json);
    } else {
        print::result(&report.to_text());
    }
    if !quiet {
        print::note(&format!("\nWritten to {}", page.display()));
    }
    if stop.is_set() { Err(Failure::interrupted()) } else { Ok(()) }
}

fn shapes(args: &ProfileArgs) -> Result<Vec<BatchShape>, Failure> {
    if args.repeats == 0 {
        let error = anyhow::anyhow!("--repeats is 0; it must be at least 1");
        return Err(Failure { kind: Kind::Usage, error });
    }
    let asked = args.shapes.iter().map(String::as_str);
    let shapes: Vec<&str> = if args.shapes.is_empty() { SHAPES.to_vec() } else { asked.collect() };
    shapes.into_iter().map(str::parse).collect::<Result<_, _>>().or_fail(Kind::Usage)
}

/// A pool and a context in which the largest of the shapes fits.
fn limits(shapes: &[BatchShape], model: &ModelOnDisk, block_size: u32) -> Result<Limits, Failure> {
    let usage = |error| Failure { kind: Kind::Usage, error };
    if !(1..=1 << 16).contains(&block_size) {
        return Err(usage(anyhow::anyhow!("--block-size must be from 1 to 65536")));
    }
    let context = model.context();
    if let Some(shape) = shapes.iter().find(|shape| shape.longest() > context) {
        return Err(usage(anyhow::anyhow!(
            "the shape {shape} reaches {} positions, and the model's context is {context}",
            shape.longest()
        )));
    }
    let most = |of: &dyn Fn(&BatchShape) -> u32| shapes.iter().map(of).max().unwrap_or(1).max(1);
    Ok(Limits {
        block_size,
        num_blocks: most(&|shape| shape.blocks(block_size)),
        max_num_seqs: most(&|shape| shape.sequences().count() as u32),
        max_model_len: most(&BatchShape::longest),
    })
}

/// The machine's roofs, and each shape until somebody stops it.
fn measure(
    executor: &mut CandleExecutor,
    shapes: &[BatchShape],
    repeats: u32,
    progress: &mut Progress,
    stop: &StopSignal,
) -> Result<(metron_trace::Roofs, Vec<ShapeProfile>), Failure> {
    progress.phase("measuring the machine");
    let roofs = measure_roofs(executor).or_fail(Kind::Internal)?;
    executor.fill_cache().or_fail(Kind::Internal)?;
    let mut profiles = Vec::new();
    for shape in shapes {
        if stop.is_set() {
            break;
        }
        progress.phase(&shape.to_string());
        let profile = executor.profile(*shape, repeats).map_err(|error| {
            let kind = match error {
                ProfileError::Shape { .. } => Kind::Usage,
                ProfileError::Failed { .. } => Kind::Internal,
            };
            Failure { kind, error: error.into() }
        })?;
        profiles.push(profile);
    }
    if profiles.is_empty() { Err(Failure::interrupted()) } else { Ok((roofs, profiles)) }
}
