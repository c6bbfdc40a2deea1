use std::time::Duration;

use metron_engine::StepObserver;
use metron_lab::Watch;
use metron_trace::{Conditions, ExecutorInfo, Origin};

use crate::gpu::Gpu;
use crate::kernel;

/// The machine's counters at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Counters {
    uptime: Option<Duration>,
    cpu_pressure: Option<Duration>,
    steal: Option<Duration>,
    involuntary_switches: Option<u64>,
    swapped_pages: Option<u64>,
    cpu_mhz: Option<u32>,
    cpu_throttled: Option<u64>,
    gpu: Option<Gpu>,
}

impl Counters {
    /// Now, of this machine and the device that computes.
    fn read(device: &str) -> Self {
        Self {
            uptime: kernel::uptime(),
            cpu_pressure: kernel::cpu_pressure(),
            steal: kernel::steal(),
            involuntary_switches: kernel::involuntary_switches(),
            swapped_pages: kernel::swapped_pages(),
            cpu_mhz: kernel::cpu_mhz(),
            cpu_throttled: kernel::cpu_throttled(),
            gpu: Gpu::of_device(device),
        }
    }

    /// What happened since `before`; a counter that went back says nothing.
    fn since(&self, before: &Self) -> Conditions {
        let span = |of: fn(&Self) -> Option<Duration>| of(self)?.checked_sub(of(before)?);
        let count = |of: fn(&Self) -> Option<u64>| of(self)?.checked_sub(of(before)?);
        let both = |of: &dyn Fn(&Self) -> Option<u32>| Some([of(before)?, of(self)?]);
        Conditions {
            watched: span(|own| own.uptime).unwrap_or_default(),
            cpu_pressure: span(|own| own.cpu_pressure),
            steal: span(|own| own.steal),
            involuntary_switches: count(|own| own.involuntary_switches),
            swapped_pages: count(|own| own.swapped_pages),
            cpu_mhz: both(&|own| own.cpu_mhz),
            cpu_throttled: count(|own| own.cpu_throttled),
            gpu_mhz: both(&|own| own.gpu.as_ref()?.mhz),
            gpu_throttled: self.gpu.as_ref().and_then(|gpu| gpu.is_throttled),
        }
    }
}

/// Reads the machine's counters at the start and at the end of each run, and never in between.
#[derive(Debug)]
pub(crate) struct MachineWatch {
    /// What computes; `None` in virtual time, where there is nothing to watch.
    device: Option<String>,
    before: Option<Counters>,
}

impl MachineWatch {
    /// Of this machine, where `device` computes.
    pub(crate) fn of_device(device: &str) -> Self {
        Self { device: Some(device.to_owned()), before: None }
    }

    /// Of what an experiment runs on.
    pub(crate) fn of(origin: Origin, executor: &ExecutorInfo) -> Self {
        let device = (origin == Origin::Measured).then(|| executor.device.clone());
        Self { device, before: None }
    }

    /// From now on.
    pub(crate) fn begin(&mut self) {
        self.before = self.device.as_deref().map(Counters::read);
    }

    /// What the machine was like since it began.
    pub(crate) fn end(&mut self) -> Option<Conditions> {
        let before = self.before.take()?;
        Some(Counters::read(self.device.as_deref()?).since(&before))
    }
}

impl StepObserver for MachineWatch {}

impl Watch for MachineWatch {
    fn run_begins(&mut self, _policy: &str, _replicate: u32, _num_requests: usize) {
        self.begin();
    }

    fn run_ended(&mut self) -> Option<Conditions> {
        self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_what_happened_in_between() {
        let second = Duration::from_secs;
        let before = Counters {
            uptime: Some(second(100)),
            cpu_pressure: Some(second(7)),
            swapped_pages: Some(5),
            involuntary_switches: Some(9),
            cpu_mhz: Some(3000),
            ..Counters::default()
        };
        let after = Counters {
            uptime: Some(second(110)),
            cpu_pressure: Some(second(8)),
            swapped_pages: Some(7),
            involuntary_switches: Some(2),
            cpu_mhz: Some(2900),
            steal: Some(second(1)),
            ..Counters::default()
        };
        let expected = Conditions {
            watched: second(10),
            cpu_pressure: Some(second(1)),
            swapped_pages: Some(2),
            cpu_mhz: Some([3000, 2900]),
            ..Conditions::default()
        };
        assert_eq!(after.since(&before), expected, "a counter that went back is absent");
    }
}
