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

    pub(crate) fn of_arrivals(&self, spec: &WorkloadSpec) -> &[RecordedRequest] {
        match &spec.arrivals {
            Arrivals::Recorded { path, .. } => &self.0[path],
            _ => &[],
        }
    }

    /// Requests of the run: recorded arrivals can't be more than were recorded.
    pub(crate) fn count(&self, spec: &WorkloadSpec) -> Result<u32, WorkloadError> {
        let Arrivals::Recorded { path, .. } = &spec.arrivals else { return Ok(spec.num_prompts) };
        let rows = self.0[path].len();
        if rows >= spec.num_prompts as usize {
            return Ok(spec.num_prompts);
        }
        Err(WorkloadError::File {
            path: path.clone(),
            cause: format!(
                "it has {rows} requests, fewer than the {} asked for; use --num-prompts {rows}",
                spec.num_prompts
            ),
        })
    }
}
