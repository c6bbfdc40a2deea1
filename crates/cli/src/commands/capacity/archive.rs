use std::path::{Path, PathBuf};

use metron_lab::Calibrated;
use metron_metrics::Objectives;
use metron_schedulers::PolicySpec;
use metron_sim::CostFile;

use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::Experiment;
use crate::output::OutputDir;

/// Files of a search's directory.
const EXPERIMENT: &str = "experiment.toml";
const CALIBRATION: &str = "calibration.json";
const COST: &str = "cost.toml";

/// The directory of a search: what it was asked, what it measured before, and its runs.
pub(super) struct Archive {
    pub(super) dir: OutputDir,
    goes_on: bool,
}

/// The experiment of the search that `dir` has; `None` of a directory without any experiment.
///
/// # Errors
/// If the experiment is none of a search: a run's or a comparison's.
pub(super) fn saved_experiment(dir: &Path) -> Result<Option<PathBuf>, Failure> {
    let experiment = dir.join(EXPERIMENT);
    if !experiment.exists() {
        return Ok(None);
    }
    if [CALIBRATION, COST].iter().all(|file| dir.join(file).exists()) {
        return Ok(Some(experiment));
    }
    let error = anyhow::anyhow!(
        "{} holds no search but another result; name another directory (its experiment can be \
         searched: --experiment {})",
        dir.display(),
        experiment.display()
    );
    Err(Failure { kind: Kind::Usage, error })
}

impl Archive {
    /// Opens the directory of a search that goes on, or makes a new one.
    pub(super) fn open(asked: Option<&Path>) -> Result<Self, Failure> {
        match asked {
            Some(dir) if saved_experiment(dir)?.is_some() => {
                Ok(Self { dir: OutputDir::existing(dir.to_owned()), goes_on: true })
            }
            _ => Ok(Self { dir: OutputDir::create(asked, "capacity")?, goes_on: false }),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path.join(name)
    }

    /// What was measured when the search began: measured again it would be a little different, and
    /// with it the deadlines and the policies' options.
    pub(super) fn calibration(&self) -> Result<Option<(Calibrated, CostFile)>, Failure> {
        if !self.goes_on {
            return Ok(None);
        }
        let path = self.path(CALIBRATION);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
            .or_fail(Kind::Input)?;
        let calibrated = serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
            .or_fail(Kind::Input)?;
        let cost = CostFile::read(&self.path(COST)).or_fail(Kind::Input)?;
        Ok(Some((calibrated, cost)))
    }

    /// Writes down what is asked, before anything runs. A search that goes on may ask for other
    /// objectives, policies and more replicates; with anything else its runs would not be its own.
    pub(super) fn keep(
        &self,
        experiment: &Experiment,
        calibrated: &Calibrated,
        cost: &CostFile,
    ) -> Result<(), Failure> {
        let text = toml::to_string_pretty(experiment).or_fail(Kind::Internal)?;
        if self.goes_on {
            let saved = std::fs::read_to_string(self.path(EXPERIMENT)).or_fail(Kind::Input)?;
            let saved: Experiment = toml::from_str(&saved).or_fail(Kind::Input)?;
            self.check_same(&saved, experiment)?;
            self.check_policies(&saved, experiment)?;
        } else {
            let calibrated = serde_json::to_string(calibrated).or_fail(Kind::Internal)?;
            self.dir.write(CALIBRATION, &calibrated)?;
            self.dir.write(COST, &toml::to_string_pretty(cost).or_fail(Kind::Internal)?)?;
        }
        self.dir.write(EXPERIMENT, &text).map(|_| ())
    }

    /// A virtual machine whose costs have changed is another one.
    pub(super) fn check_cost(&self, saved: &CostFile, current: &CostFile) -> Result<(), Failure> {
        if saved == current {
            return Ok(());
        }
        let error = anyhow::anyhow!(
            "the cost model is another than that of the runs in {}; name another directory",
            self.dir.path.display()
        );
        Err(Failure { kind: Kind::Usage, error })
    }

    /// A policy of other options under the same label would take the place of the first.
    fn check_policies(&self, saved: &Experiment, asked: &Experiment) -> Result<(), Failure> {
        let is_another = |asked: &&PolicySpec| {
            saved.schedulers.iter().any(|old| old.label() == asked.label() && old != *asked)
        };
        let Some(policy) = asked.schedulers.iter().find(is_another) else { return Ok(()) };
        let error = anyhow::anyhow!(
            "`{}` has other options in {}; give it another label, or name another directory",
            policy.label(),
            self.dir.path.display()
        );
        Err(Failure { kind: Kind::Usage, error })
    }

    fn check_same(&self, saved: &Experiment, asked: &Experiment) -> Result<(), Failure> {
        let lines = |experiment: &Experiment| {
            let mut fixed = experiment.clone();
            fixed.replicates = None;
            // Older searches did not keep it.
            fixed.probability = fixed.probability.filter(|_| saved.probability.is_some());
            fixed.scoring.objectives = Objectives::default();
            fixed.schedulers.clear();
            toml::to_string_pretty(&fixed).or_fail(Kind::Internal)
        };
        let (saved, asked) = (lines(saved)?, lines(asked)?);
        if saved == asked {
            return Ok(());
        }
        let missing = |from: &str, to: &str| {
            let line = from.lines().find(|line| !to.lines().any(|other| other == *line));
            line.unwrap_or("nothing").to_owned()
        };
        let error = anyhow::anyhow!(
            "{} has the runs of another search: `{}` there, `{}` here; only objectives, \
             schedulers and replicates may change, so name another directory",
            self.dir.path.display(),
            missing(&saved, &asked),
            missing(&asked, &saved)
        );
        Err(Failure { kind: Kind::Usage, error })
    }
}
