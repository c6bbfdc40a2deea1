use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a machine was like while a run went on: differences of its counters from the run's start to
/// its end. A counter that could not be read is `None`: absent is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// How long it was watched.
    pub watched: Duration,
    /// Time during which some task of the machine waited for a processor (pressure stall
    /// information, `some`).
    pub cpu_pressure: Option<Duration>,
    /// Processor time that a hypervisor gave to others, as a mean over the processors.
    pub steal: Option<Duration>,
    /// Processor time that other processes took, of all processors together.
    pub other_work: Option<Duration>,
    /// How often a thread of the run was taken off its processor although it could have gone on, of
    /// the one to which it happened most often.
    pub involuntary_switches: Option<u64>,
    /// Pages that were swapped in or out.
    pub swapped_pages: Option<u64>,
    /// Frequency of the fastest processor before and after, in MHz.
    pub cpu_mhz: Option<[u32; 2]>,
    /// How often a processor slowed down because it was hot.
    pub cpu_throttled: Option<u64>,
    /// Clock of the accelerator's multiprocessors before and after, in MHz.
    pub gpu_mhz: Option<[u32; 2]>,
    /// Whether the accelerator had slowed down for heat or power at the end.
    pub gpu_throttled: Option<bool>,
}
