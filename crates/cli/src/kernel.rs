//! What a kernel says of its machine in files, as Linux has them. Where a file is not there, the
//! answer is `None`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A tick is a hundredth of a second in every file that a program reads.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

/// A file's text, without blanks around it; `None` of an empty one.
pub(crate) fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// A count for each thread, by its number.
pub(crate) type Switches = BTreeMap<OsString, u64>;

/// What a kernel shows below `/proc` and `/sys`.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// Where these two are.
    root: PathBuf,
}

/// Since the machine started, of all processors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessorTime {
    pub(crate) processors: u32,
    /// With nothing to run.
    pub(crate) idle: Duration,
    /// Given to others by a hypervisor.
    pub(crate) stolen: Duration,
}

impl Kernel {
    /// Of this machine.
    pub(crate) fn here() -> Self {
        Self::below("/")
    }

    /// Whose files are below `root`.
    pub(crate) fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn text(&self, file: &str) -> Option<String> {
        text(self.root.join(file))
    }

    /// The time since the machine started.
    pub(crate) fn uptime(&self) -> Option<Duration> {
        let uptime = self.text("proc/uptime")?;
        let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The time during which some task waited for a processor, since the machine started.
    pub(crate) fn cpu_pressure(&self) -> Option<Duration> {
        some_total(&self.text("proc/pressure/cpu")?)
    }

    /// Where the processors' time went that no process had.
    pub(crate) fn processor_time(&self) -> Option<ProcessorTime> {
        ProcessorTime::of(&self.text("proc/stat")?)
    }

    /// Processor time of this process, of all its threads together.
    pub(crate) fn own_time(&self) -> Option<Duration> {
        own_time(&self.text("proc/self/stat")?)
    }

    /// How often each thread of this process lost its processor although it could have gone on.
    pub(crate) fn involuntary_switches(&self) -> Option<Switches> {
        let threads = fs::read_dir(self.root.join("proc/self/task")).ok()?.flatten();
        let switches = threads.filter_map(|thread| {
            let status = text(thread.path().join("status"))?;
            let count = named(&status, "nonvoluntary_ctxt_switches:")?;
            Some((thread.file_name(), count))
        });
        Some(switches.collect()).filter(|switches: &Switches| !switches.is_empty())
    }

    /// Pages swapped in and out since the machine started.
    pub(crate) fn swapped_pages(&self) -> Option<u64> {
        let stat = self.text("proc/vmstat")?;
        Some(named(&stat, "pswpin")? + named(&stat, "pswpout")?)
    }

    /// The frequency of the processor that is fastest now, in MHz. Those with nothing to do are slow,
    /// and no run's matter.
    pub(crate) fn cpu_mhz(&self) -> Option<u32> {
        let khz = self.of_processors("cpufreq/scaling_cur_freq").max()?;
        u32::try_from(khz / 1000).ok()
    }

    /// How often processors slowed down for heat, their own or their package's, all together.
    pub(crate) fn cpu_throttled(&self) -> Option<u64> {
        let cores = self.of_processors("thermal_throttle/core_throttle_count");
        let packages = self.of_processors("thermal_throttle/package_throttle_count");
        cores.chain(packages).reduce(|sum, count| sum + count)
    }

    /// What decides the processors' frequency.
    pub(crate) fn governor(&self) -> Option<String> {
        self.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    }

    /// Where the kernel reads the time.
    pub(crate) fn clock_source(&self) -> Option<String> {
        self.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
    }

    /// The figure in a file of each processor that has it.
    fn of_processors(&self, file: &str) -> impl Iterator<Item = u64> {
        let entries = fs::read_dir(self.root.join("sys/devices/system/cpu"));
        let directories = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        directories
            .filter(|path| {
                path.file_name().is_some_and(|name| is_processor(&name.to_string_lossy()))
            })
            .filter_map(move |cpu| text(cpu.join(file))?.parse().ok())
    }
}

/// Whether it is `cpu` and a number.
fn is_processor(name: &str) -> bool {
    let number = name.strip_prefix("cpu");
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Of `some avg10=1.17 avg60=1.43 avg300=2.45 total=4772064523`, in microseconds.
fn some_total(pressure: &str) -> Option<Duration> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    let total = some.split_whitespace().find_map(|field| field.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

impl ProcessorTime {
    /// Of `/proc/stat`: behind `cpu `, the fourth figure and the fifth (waiting for a disk) are idle,
    /// the eighth is stolen; and each processor has a line `cpuN`.
    fn of(stat: &str) -> Option<Self> {
        let all = stat.lines().find(|line| line.starts_with("cpu "))?;
        let figures: Vec<u64> =
            all.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
        let names = stat.lines().filter_map(|line| line.split_whitespace().next());
        let processors = u32::try_from(names.filter(|name| is_processor(name)).count()).ok()?;
        let [_, _, _, idle, waiting, _, _, stolen, ..] = figures[..] else { return None };
        let idle = ticks(idle.saturating_add(waiting));
        (processors > 0).then(|| Self { processors, idle, stolen: ticks(stolen) })
    }
}

/// Of `1234 (name) S 1 ..`: the 14th and the 15th figure, and the name may hold anything.
fn own_time(stat: &str) -> Option<Duration> {
    let mut behind_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut figure = || behind_name.next()?.parse::<u64>().ok();
    Some(ticks(figure()?.saturating_add(figure()?)))
}

/// The figure behind a name at the start of a line.
fn named(text: &str, name: &str) -> Option<u64> {
    let fields = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let mut of_name = fields.filter(|(own, _)| *own == name);
    of_name.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_as_the_kernel_writes_them() {
        let pressure = "some avg10=1.17 avg60=1.43 avg300=2.45 total=4772064523\n\
                        full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(some_total(pressure), Some(Duration::from_micros(4_772_064_523)));
        let stat = "cpu  1688 384 234 1494 118 0 21 990 0 0\ncpu0 8 3 2 1 1 0 2 4 0 0\n\
                    cpu1 8 3 2 1 1 0 2 4 0 0\nctxt 1\n";
        let expected = ProcessorTime {
            processors: 2,
            idle: Duration::from_millis(16_120),
            stolen: Duration::from_millis(9900),
        };
        assert_eq!(ProcessorTime::of(stat), Some(expected));
        let own = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 3 0 100 1 1";
        assert_eq!(own_time(own), Some(Duration::from_secs(3)));
        let status = "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t17\n";
        assert_eq!(named(status, "nonvoluntary_ctxt_switches:"), Some(17));
        assert_eq!(named("pswpin 3\npswpout 4\n", "pswpout"), Some(4));
    }

    #[test]
    fn what_is_not_there_is_absent_and_not_zero() {
        assert_eq!(some_total("full total=7"), None);
        assert_eq!(ProcessorTime::of("cpu  1 2 3\ncpu0 1 2 3\n"), None);
        assert_eq!(own_time("7 (a) S 1"), None);
        assert_eq!(named("pswpin 3\n", "pswpout"), None);
        assert_eq!(text("/no/such/file"), None);
    }
}
