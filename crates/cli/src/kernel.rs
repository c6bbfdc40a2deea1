//! What a kernel says of its machine in files, as Linux has them. Where a file is not there, the
//! answer is `None`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the kernel shows its processors.
const CPUS: &str = "/sys/devices/system/cpu";

/// The kernel's ticks are a hundredth of a second in every file that a program reads.
const TICK: Duration = Duration::from_millis(10);

/// A file's text, without blanks around it; `None` of an empty one.
pub(crate) fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The time since the machine started.
pub(crate) fn uptime() -> Option<Duration> {
    let seconds: f64 = text("/proc/uptime")?.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The time during which some task waited for a processor, since the machine started.
pub(crate) fn cpu_pressure() -> Option<Duration> {
    some_total(&text("/proc/pressure/cpu")?)
}

/// Of `some avg10=1.17 avg60=1.43 avg300=2.45 total=4772064523`, in microseconds.
fn some_total(pressure: &str) -> Option<Duration> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    let total = some.split_whitespace().find_map(|field| field.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

/// Processor time that a hypervisor gave to others, as a mean over the processors.
pub(crate) fn steal() -> Option<Duration> {
    mean_steal(&text("/proc/stat")?)
}

/// The eighth figure behind `cpu `, over the number of `cpuN` lines.
fn mean_steal(stat: &str) -> Option<Duration> {
    let all = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: u32 = all.split_whitespace().nth(8)?.parse().ok()?;
    let is_processor = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let processors = u32::try_from(stat.lines().filter(is_processor).count()).ok()?;
    (processors > 0).then(|| TICK * ticks / processors)
}

/// How often this thread lost its processor although it could have gone on.
pub(crate) fn involuntary_switches() -> Option<u64> {
    let status = text("/proc/thread-self/status")?;
    named(&status, "nonvoluntary_ctxt_switches:")
}

/// Pages swapped in and out since the machine started.
pub(crate) fn swapped_pages() -> Option<u64> {
    let stat = text("/proc/vmstat")?;
    Some(named(&stat, "pswpin")? + named(&stat, "pswpout")?)
}

/// The figure behind a name at the start of a line.
fn named(text: &str, name: &str) -> Option<u64> {
    let fields = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let mut of_name = fields.filter(|(own, _)| *own == name);
    of_name.next()?.1.trim().parse().ok()
}

/// The mean frequency of the processors, in MHz.
pub(crate) fn cpu_mhz() -> Option<u32> {
    let khz: Vec<u64> = processors()
        .filter_map(|cpu| text(cpu.join("cpufreq/scaling_cur_freq"))?.parse().ok())
        .collect();
    let count = u64::try_from(khz.len()).ok().filter(|count| *count > 0)?;
    u32::try_from(khz.iter().sum::<u64>() / count / 1000).ok()
}

/// How often processors slowed down for heat, all together.
pub(crate) fn cpu_throttled() -> Option<u64> {
    let counts = processors()
        .filter_map(|cpu| text(cpu.join("thermal_throttle/core_throttle_count"))?.parse().ok());
    counts.reduce(|sum: u64, count| sum + count)
}

/// What decides the processors' frequency.
pub(crate) fn governor() -> Option<String> {
    text(format!("{CPUS}/cpu0/cpufreq/scaling_governor"))
}

/// Where the kernel reads the time.
pub(crate) fn clock_source() -> Option<String> {
    text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
}

/// The directory of each processor.
fn processors() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(CPUS).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name.strip_prefix("cpu");
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
    })
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
        assert_eq!(mean_steal(stat), Some(Duration::from_millis(4950)));
        let status = "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t17\n";
        assert_eq!(named(status, "nonvoluntary_ctxt_switches:"), Some(17));
        assert_eq!(named("pswpin 3\npswpout 4\n", "pswpout"), Some(4));
    }

    #[test]
    fn what_is_not_there_is_absent_and_not_zero() {
        assert_eq!(some_total("full total=7"), None);
        assert_eq!(mean_steal("cpu  1 2 3\n"), None);
        assert_eq!(named("pswpin 3\n", "pswpout"), None);
        assert_eq!(text("/no/such/file"), None);
    }
}
