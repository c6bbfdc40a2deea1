use std::path::{Path, PathBuf};

use metron_lab::Calibrated;
use metron_sim::{AffineCost, CostFile, Piece, StepSample, fit};
use metron_trace::{ExecutorInfo, Machine, ModelInfo};

use crate::exit::{Failure, Kind, OrFail};

/// The cost model that a calibration's steps fit.
pub(crate) fn cost_of(
    calibrated: &Calibrated,
    model: &ModelInfo,
    executor: &ExecutorInfo,
    machine: &Machine,
    thoroughness: Thoroughness,
) -> CostFile {
    let samples: Vec<StepSample> = calibrated
        .steps
        .iter()
        .map(|(work, took)| StepSample { work: work.clone(), took: *took })
        .collect();
    let cost: AffineCost = fit(&samples).unwrap_or_default();
    let dtype = executor.dtype.as_deref().unwrap_or("unknown dtype");
    let on = machine.cpu.as_deref().filter(|_| executor.device == "cpu");
    let threads = executor.threads.map_or_else(String::new, |n| format!(", {n} threads"));
    CostFile {
        name: format!("{} in {dtype} on {}{threads}", model.id, on.unwrap_or(&executor.device)),
        source: match thoroughness {
            Thoroughness::Full => {
                format!("metron calibrate: {} steps measured in isolation", samples.len())
            }
            Thoroughness::Quick => format!(
                "the {} isolated steps of a run's quick calibration; `metron calibrate` measures more",
                samples.len()
            ),
        },
        pieces: vec![Piece { up_to_tokens: None, cost }],
    }
}

/// How thorough a calibration was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thoroughness {
    /// Of `metron calibrate`.
    Full,
    /// Of a run that only needed its own deadlines.
    Quick,
}

/// Where this machine's last calibration is kept.
fn last_path(thoroughness: Thoroughness) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("METRON_CACHE")
        .map_or_else(|| home.join(".cache").join("metron"), PathBuf::from);
    cache.join(match thoroughness {
        Thoroughness::Full => "last-calibration.toml",
        Thoroughness::Quick => "last-quick-calibration.toml",
    })
}

/// Keeps a calibration as this machine's last of its kind.
pub(crate) fn keep(cost: &CostFile, thoroughness: Thoroughness) -> Result<PathBuf, Failure> {
    let path = last_path(thoroughness);
    let text = toml::to_string_pretty(cost).or_fail(Kind::Internal)?;
    crate::output::write_atomically(&path, text.as_bytes())?;
    Ok(path)
}

/// What stands for this machine's last calibration in a cost file's place.
pub(crate) const LAST: &str = "last";

/// Reads a cost file; [`LAST`] is this machine's last calibration, a full one if there is one.
pub(crate) fn read(path: &Path) -> Result<CostFile, Failure> {
    if path != Path::new(LAST) {
        return CostFile::read(path).or_fail(Kind::Input);
    }
    let full = last_path(Thoroughness::Full);
    let path = if full.exists() { full } else { last_path(Thoroughness::Quick) };
    if !path.exists() {
        let error = anyhow::anyhow!(
            "this machine was never calibrated ({} is not there); run `metron calibrate`, or name \
             a cost file: --simulate FILE",
            path.display()
        );
        return Err(Failure { kind: Kind::Environment, error });
    }
    CostFile::read(&path).or_fail(Kind::Input)
}
