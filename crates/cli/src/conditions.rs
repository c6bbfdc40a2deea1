use std::time::Duration;

use metron_engine::StepObserver;
use metron_lab::Watch;
use metron_trace::{Conditions, ExecutorInfo, Origin};

use crate::gpu::Gpu;
use crate::kernel::{Kernel, ProcessorTime, Switches};

/// The machine's counters at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Counters {
    uptime: Option<Duration>,
    cpu_pressure: Option<Duration>,
    processors: Option<ProcessorTime>,
    own_time: Option<Duration>,
    involuntary_switches: Option<Switches>,
    swapped_pages: Option<u64>,
    cpu_mhz: Option<u32>,
    cpu_throttled: Option<u64>,
    gpu: Option<Gpu>,
}

impl Counters {
    /// Now, of a machine and the device that computes.
    fn read(kernel: &Kernel, device: &str) -> Self {
        Self {
            uptime: kernel.uptime(),
            cpu_pressure: kernel.cpu_pressure(),
            processors: kernel.processor_time(),
            own_time: kernel.own_time(),
            involuntary_switches: kernel.involuntary_switches(),
            swapped_pages: kernel.swapped_pages(),
            cpu_mhz: kernel.cpu_mhz(),
            cpu_throttled: kernel.cpu_throttled(),
            gpu: Gpu::of_device(device),
        }
    }

    /// What happened since `before`; a counter that went back says nothing.
    fn since(&self, before: &Self) -> Conditions {
        let span = |of: fn(&Self) -> Option<Duration>| of(self)?.checked_sub(of(before)?);
        let count = |of: fn(&Self) -> Option<u64>| of(self)?.checked_sub(of(before)?);
        let both = |of: &dyn Fn(&Self) -> Option<u32>| Some([of(before)?, of(self)?]);
        let watched = span(|own| own.uptime);
        let idle = span(|own| Some(own.processors?.idle));
        let stolen = span(|own| Some(own.processors?.stolen));
        let count_of = self.processors.map(|time| time.processors);
        // What is left is others' work; the clocks differ by a tick or two, so it may be below zero.
        let other_work = || {
            let known = idle? + stolen? + span(|own| own.own_time)?;
            Some((watched? * count_of?).saturating_sub(known))
        };
        Conditions {
            watched: watched.unwrap_or_default(),
            cpu_pressure: span(|own| own.cpu_pressure),
            steal: stolen.zip(count_of).map(|(stolen, processors)| stolen / processors),
            other_work: other_work(),
            involuntary_switches: self.most_switches_since(before),
            swapped_pages: count(|own| own.swapped_pages),
            cpu_mhz: both(&|own| own.cpu_mhz),
            cpu_throttled: count(|own| own.cpu_throttled),
            gpu_mhz: both(&|own| own.gpu.as_ref()?.mhz),
            gpu_throttled: self.gpu.as_ref().and_then(|gpu| gpu.is_throttled),
        }
    }
}

impl Counters {
    /// How often the thread that lost its processor most often did so; all others wait for it at the
    /// end of an operator. Those that are new are the recorder's and the watch's own.
    fn most_switches_since(&self, before: &Self) -> Option<u64> {
        let before = before.involuntary_switches.as_ref()?;
        let threads = self.involuntary_switches.as_ref()?.iter();
        threads.filter_map(|(thread, count)| count.checked_sub(*before.get(thread)?)).max()
    }
}

/// Reads the machine's counters at the start and at the end of each run, and never in between.
#[derive(Debug)]
pub(crate) struct MachineWatch {
    kernel: Kernel,
    /// What computes; `None` in virtual time, where there is nothing to watch.
    device: Option<String>,
    before: Option<Counters>,
}

impl MachineWatch {
    /// Of this machine, where `device` computes.
    pub(crate) fn of_device(device: &str) -> Self {
        Self { kernel: Kernel::here(), device: Some(device.to_owned()), before: None }
    }

    /// Of what an experiment runs on.
    pub(crate) fn of(origin: Origin, executor: &ExecutorInfo) -> Self {
        let device = (origin == Origin::Measured).then(|| executor.device.clone());
        Self { kernel: Kernel::here(), device, before: None }
    }

    /// From now on.
    pub(crate) fn begin(&mut self) {
        self.before = self.device.as_deref().map(|device| Counters::read(&self.kernel, device));
    }

    /// What the machine was like since it began.
    pub(crate) fn end(&mut self) -> Option<Conditions> {
        let before = self.before.take()?;
        Some(Counters::read(&self.kernel, self.device.as_deref()?).since(&before))
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
    use std::path::Path;

    use metron_metrics::{Doubt, doubts_of_conditions};

    use super::*;

    /// A machine in a directory, as the kernel would show it.
    struct Shown {
        root: tempfile::TempDir,
        watch: MachineWatch,
    }

    impl Shown {
        /// Two processors at 3 GHz, 100 s after its start, and watched from then on.
        fn quiet() -> Self {
            let root = tempfile::tempdir().expect("a directory for the test");
            let kernel = Kernel::below(root.path());
            let watch = MachineWatch { kernel, device: Some("cpu".to_owned()), before: None };
            let mut shown = Self { root, watch };
            shown.show("proc/uptime", "100.00 190.00");
            shown.show("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=700000");
            shown.show("proc/stat", &stat(9000, 0));
            shown.show("proc/self/stat", &own(100));
            for thread in ["7", "9"] {
                shown.switched(thread, 40);
            }
            shown.show("proc/vmstat", "pgfault 9\npswpin 5\npswpout 2");
            for cpu in ["cpu0", "cpu1"] {
                shown.of_processor(cpu, "cpufreq/scaling_cur_freq", 3_000_000);
                shown.of_processor(cpu, "thermal_throttle/core_throttle_count", 2);
                shown.of_processor(cpu, "thermal_throttle/package_throttle_count", 4);
            }
            // No processors, though their names begin like one's.
            shown.of_processor("cpufreq", "cpufreq/scaling_cur_freq", 9_000_000);
            shown.watch.begin();
            // Ten seconds in which a processor was this process's, and the other idle.
            shown.show("proc/uptime", "110.00 200.00");
            shown.show("proc/stat", &stat(10_000, 0));
            shown.show("proc/self/stat", &own(1100));
            shown
        }

        fn show(&self, file: &str, text: &str) {
            let path = self.root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("it is new");
            std::fs::write(path, format!("{text}\n")).expect("the disk has room");
        }

        fn switched(&self, thread: &str, times: u32) {
            let status = format!("Name:\tm\nnonvoluntary_ctxt_switches:\t{times}");
            self.show(&format!("proc/self/task/{thread}/status"), &status);
        }

        fn of_processor(&self, cpu: &str, file: &str, figure: u32) {
            self.show(&format!("sys/devices/system/cpu/{cpu}/{file}"), &figure.to_string());
        }

        /// What is doubted ten seconds later.
        fn doubts(mut self) -> Vec<Doubt> {
            doubts_of_conditions(&self.watch.end().expect("it began"))
        }
    }

    /// So many ticks of two processors idle, and so many stolen.
    fn stat(idle: u32, stolen: u32) -> String {
        format!("cpu  1 0 1 {idle} 0 0 0 {stolen} 0 0\ncpu0 1\ncpu1 1\nctxt 7")
    }

    /// A process that has had so many ticks.
    fn own(ticks: u32) -> String {
        format!("7 (metron) R 1 7 7 0 -1 0 1 0 0 0 {ticks} 0 0 0 20 0 3 0 1 1 1")
    }

    #[test]
    fn a_quiet_machine_is_read_with_all_its_counters() {
        let mut shown = Shown::quiet();
        let expected = Conditions {
            watched: Duration::from_secs(10),
            cpu_pressure: Some(Duration::ZERO),
            steal: Some(Duration::ZERO),
            other_work: Some(Duration::ZERO),
            involuntary_switches: Some(0),
            swapped_pages: Some(0),
            cpu_mhz: Some([3000, 3000]),
            cpu_throttled: Some(0),
            ..Conditions::default()
        };
        assert_eq!(shown.watch.end(), Some(expected));
    }

    #[test]
    fn other_work_is_what_neither_idled_nor_was_stolen_nor_its_own() {
        let shown = Shown::quiet();
        shown.show("proc/stat", &stat(9200, 100));
        shown.show("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=4700000");
        shown.switched("7", 50);
        shown.switched("9", 240);
        shown.switched("11", 9000);
        let [Doubt::BusyMachine { waiting, stolen, others, switches_per_s }] = shown.doubts()[..]
        else {
            panic!("it was busy")
        };
        assert_eq!((waiting, stolen, others), (Some(0.4), Some(0.05), Some(0.7)));
        assert_eq!(switches_per_s, Some(20.0));
    }

    #[test]
    fn a_frequency_that_falls_is_seen_and_that_of_an_idle_processor_is_not() {
        let shown = Shown::quiet();
        shown.of_processor("cpu1", "cpufreq/scaling_cur_freq", 800_000);
        assert_eq!(shown.doubts(), []);
        let shown = Shown::quiet();
        shown.of_processor("cpu0", "cpufreq/scaling_cur_freq", 2_400_000);
        shown.of_processor("cpu1", "cpufreq/scaling_cur_freq", 800_000);
        assert_eq!(shown.doubts(), [Doubt::CpuFrequency { before_mhz: 3000, after_mhz: 2400 }]);
    }

    #[test]
    fn throttling_is_seen_of_a_processor_and_of_its_package() {
        for file in ["core_throttle_count", "package_throttle_count"] {
            let shown = Shown::quiet();
            shown.of_processor("cpu1", &format!("thermal_throttle/{file}"), 9);
            let [Doubt::Throttling { events: Some(events) }] = shown.doubts()[..] else {
                panic!("{file} is not seen")
            };
            assert!(events > 0, "{file}");
        }
    }

    #[test]
    fn swapping_is_seen() {
        let shown = Shown::quiet();
        shown.show("proc/vmstat", "pswpin 205\npswpout 302");
        assert_eq!(shown.doubts(), [Doubt::Swap { pages: 500 }]);
    }

    #[test]
    fn a_counter_that_went_back_or_is_not_there_is_absent() {
        let mut shown = Shown::quiet();
        shown.switched("7", 2);
        shown.switched("9", 2);
        std::fs::remove_file(shown.root.path().join("proc/pressure/cpu")).expect("it was there");
        let conditions = shown.watch.end().expect("it began");
        assert_eq!((conditions.involuntary_switches, conditions.cpu_pressure), (None, None));
        assert_eq!(conditions.swapped_pages, Some(0));
    }
}
