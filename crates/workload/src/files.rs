use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::WorkloadError;
use crate::recorded::{RecordedRequest, read_recorded};
use crate::spec::{Arrivals, Lengths, WorkloadSpec};

/// The recorded traces that a spec names, each read once.
pub(crate) struct Files(BTreeMap<PathBuf, Vec<RecordedRequest>>);

impl Files {
    pub(crate) fn read(spec: &WorkloadSpec) -> Result<Self, WorkloadError> {
        let of_arrivals = match &spec.arrivals {
            Arrivals::Recorded { path, .. } => Some(path),
            _ => None,
        };
        let of_lengths = spec.classes.iter().filter_map(|class| match &class.lengths {
            Lengths::Recorded { path } => Some(path),
            _ => None,
        });
        let mut files = BTreeMap::new();
        for path in of_arrivals.into_iter().chain(of_lengths) {
            if !files.contains_key(path) {
                files.insert(path.clone(), read_recorded(path)?);
            }
        }
        Ok(Self(files))
    }

    pub(crate) fn of(&self, lengths: &Lengths) -> Vec<RecordedRequest> {
        match lengths {
            Lengths::Recorded { path } => self.0[path].clone(),
            _ => Vec::new(),
        }
    }

    /// The requests whose arrivals a replicate replays, none where arrivals are not recorded: a
    /// stretch of its own, as long as the trace has one, and then one that was replayed before.
    pub(crate) fn replayed(
        &self,
        spec: &WorkloadSpec,
        replicate: u32,
    ) -> Result<&[RecordedRequest], WorkloadError> {
        let Arrivals::Recorded { path, .. } = &spec.arrivals else { return Ok(&[]) };
        let (rows, asked) = (&self.0[path], spec.num_prompts as usize);
        let stretches = rows.len() / asked;
        if stretches == 0 {
            let (rows, path) = (rows.len(), path.clone());
            let cause = format!(
                "it has fewer requests than the {asked} asked for; use --num-prompts {rows}"
            );
            return Err(WorkloadError::File { path, cause });
        }
        let first = replicate as usize % stretches * asked;
        Ok(&rows[first..first + asked])
    }
}
