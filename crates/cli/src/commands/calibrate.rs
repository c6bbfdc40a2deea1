use metron_lab::{CalibrationPlan, Rig, calibrate};

use super::lab_failure;
use crate::args::CalibrateArgs;
use crate::calibrations;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::{EngineSection, Experiment, ModelSection};
use crate::machine::this_machine;
use crate::model_rig::ModelOnDisk;
use crate::prepare::limits;
use crate::print;
use crate::progress::{Progress, StopSignal};

/// The longest prompt that is measured, unless asked otherwise.
const LONGEST: u32 = 1024;
/// The shortest.
const SHORTEST: u32 = 16;
/// Room for the tokens of decodes.
const DECODED: u32 = 64;

/// `metron calibrate`: ten repeats of everything, kept for `--simulate`.
pub(crate) fn run(args: &CalibrateArgs) -> Result<(), Failure> {
    let quiet = args.quiet || args.json;
    let mut model_section = ModelSection::default();
    model_section.overlay(&args.model);
    let mut engine = EngineSection::default();
    engine.overlay(&args.engine)?;
    let experiment = Experiment { engine, model: model_section, ..Experiment::default() };
    let model = ModelOnDisk::find(&experiment.model, quiet)?;
    let longest = args.longest.unwrap_or(LONGEST);
    let room = longest.saturating_add(DECODED);
    let context = limits(&experiment, room, Some(model.context()), |_| None)?.max_model_len;
    if args.longest.is_some() && longest >= context {
        let error = anyhow::anyhow!(
            "--longest is {longest}; a sequence has {context} positions here, so a prompt may have at \
             most {}",
            context.saturating_sub(1)
        );
        return Err(Failure { kind: Kind::Usage, error });
    }
    let mut rig = model.rig_for(&experiment, room)?;
    let mut progress = Progress::new(StopSignal::on_ctrl_c(), quiet);
    progress.phase("calibrating");
    let plan = CalibrationPlan::thorough(SHORTEST, longest, &rig.limits());
    let calibrated = calibrate(&mut rig, &plan, &mut progress).map_err(lab_failure)?;
    progress.finish();
    let machine = this_machine(&rig.executor_info().device);
    let full = calibrations::Thoroughness::Full;
    let (model, executor) = (rig.model_info(), rig.executor_info());
    let cost = calibrations::cost_of(&calibrated, &model, &executor, &machine, full);
    let path = calibrations::keep(&cost, full)?;
    if args.json {
        let json = serde_json::json!({
            "calibration": calibrated.calibration,
            "cost_model": cost,
            "written_to": path,
        });
        print::result(&serde_json::to_string_pretty(&json).or_fail(Kind::Internal)?);
        return Ok(());
    }
    print::result(&metron_report::calibration_text(&cost.name, &calibrated.calibration));
    if !quiet {
        print::note(&format!("Kept in {}: --simulate uses it", path.display()));
    }
    Ok(())
}
