use std::collections::BTreeSet;
use std::path::Path;

use metron_metrics::{RunOf, Scoring};
use metron_report::vllm_result;

use crate::args::SaveResultArgs;
use crate::exit::{Failure, Kind, OrFail};
use crate::output::OutputDir;

/// Where the runs go in the form of vLLM's benchmark, if that is asked for.
pub(crate) struct SavedResults {
    dir: OutputDir,
    with_requests: bool,
}

impl SavedResults {
    /// The directory that is asked for, or `otherwise`; it has to be new or empty.
    pub(crate) fn open(args: &SaveResultArgs, otherwise: &Path) -> Result<Option<Self>, Failure> {
        if !args.save_result && !args.save_detailed {
            return Ok(None);
        }
        let dir = OutputDir::create(Some(args.result_dir.as_deref().unwrap_or(otherwise)), "vllm")?;
        Ok(Some(Self { dir, with_requests: args.save_detailed }))
    }

    /// Writes a file for each run.
    pub(crate) fn write(&self, runs: &[RunOf<'_>], scoring: &Scoring) -> Result<(), Failure> {
        let seeds: BTreeSet<u64> = runs.iter().map(|run| run.trace.header.seed).collect();
        for run in runs {
            let result = vllm_result(run.trace, scoring, self.with_requests);
            let json = serde_json::to_string(&result).or_fail(Kind::Internal)?;
            let seed = match seeds.len() {
                1 => String::new(),
                _ => format!("seed{}-", run.trace.header.seed),
            };
            let name = format!("{}-{seed}r{}.json", run.policy, u64::from(run.replicate) + 1);
            self.dir.write(&metron_lab::file_name(&name), &json)?;
        }
        Ok(())
    }
}
