use std::time::Duration;

use metron_trace::{Conditions, Origin, Trace};

use super::Doubt;

/// The share of the time in which something may wait for a processor, ...
const MOST_WAITING: f64 = 0.05;
/// ... the share of processor time that may be stolen, ...
const MOST_STOLEN: f64 = 0.01;
/// ... and involuntary switches a second of a thread that has its processor to itself.
const MOST_SWITCHES_PER_S: f64 = 50.0;
/// Processors that others keep busy on a quiet machine. With no more, it is Metron's own threads
/// that wait for each other: that is no other work, but how it was asked to run.
const MOST_OTHERS: f64 = 0.1;

/// A clock may differ by this share.
const MOST_CLOCK_CHANGE: f64 = 0.05;

/// Pages that a kernel may move without being short of memory: a mebibyte.
const MOST_SWAPPED: u64 = 256;

/// What a run's machine was like; nothing in virtual time, and where nobody looked.
pub(super) fn doubts_of_machine(trace: &Trace) -> Vec<Doubt> {
    match trace.header.machine.conditions {
        Some(conditions) if trace.header.origin == Origin::Measured => {
            doubts_of_conditions(&conditions)
        }
        _ => Vec::new(),
    }
}

/// What the conditions of a machine give cause for.
pub fn doubts_of_conditions(conditions: &Conditions) -> Vec<Doubt> {
    let clock = |mhz: Option<[u32; 2]>| mhz.filter(|mhz| has_changed(*mhz));
    let slowed = conditions.cpu_throttled.filter(|events| *events > 0);
    let found = [
        busy(conditions),
        clock(conditions.cpu_mhz)
            .map(|[before_mhz, after_mhz]| Doubt::CpuFrequency { before_mhz, after_mhz }),
        clock(conditions.gpu_mhz)
            .map(|[before_mhz, after_mhz]| Doubt::GpuClock { before_mhz, after_mhz }),
        (slowed.is_some() || conditions.gpu_throttled == Some(true))
            .then_some(Doubt::Throttling { events: slowed }),
        conditions
            .swapped_pages
            .filter(|pages| *pages >= MOST_SWAPPED)
            .map(|pages| Doubt::Swap { pages }),
    ];
    found.into_iter().flatten().collect()
}

fn busy(conditions: &Conditions) -> Option<Doubt> {
    let watched = conditions.watched.as_secs_f64();
    if watched <= 0.0 {
        return None;
    }
    let share = |time: Option<Duration>| time.map(|time| time.as_secs_f64() / watched);
    // The clocks of the two differ by a tick or so.
    let waiting = share(conditions.cpu_pressure).map(|share| share.min(1.0));
    let stolen = share(conditions.steal);
    let others = share(conditions.other_work);
    let switches_per_s = conditions.involuntary_switches.map(|count| count as f64 / watched);
    let is_above = |value: Option<f64>, most: f64| value.is_some_and(|value| value > most);
    let has_to_wait =
        is_above(waiting, MOST_WAITING) || is_above(switches_per_s, MOST_SWITCHES_PER_S);
    let for_others = others.is_none_or(|processors| processors > MOST_OTHERS);
    let is_busy = has_to_wait && for_others || is_above(stolen, MOST_STOLEN);
    is_busy.then_some(Doubt::BusyMachine { waiting, stolen, others, switches_per_s })
}

fn has_changed([before, after]: [u32; 2]) -> bool {
    let change = f64::from(before.abs_diff(after));
    change > MOST_CLOCK_CHANGE * f64::from(before.max(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Conditions = Conditions {
        watched: Duration::from_secs(10),
        cpu_pressure: Some(Duration::from_millis(300)),
        steal: Some(Duration::from_millis(50)),
        other_work: Some(Duration::from_millis(500)),
        involuntary_switches: Some(100),
        swapped_pages: Some(3),
        cpu_mhz: Some([3000, 2950]),
        cpu_throttled: Some(0),
        gpu_mhz: Some([1980, 1980]),
        gpu_throttled: Some(false),
    };

    fn check(conditions: Conditions, expected: Doubt) {
        assert_eq!(doubts_of_conditions(&conditions), [expected]);
    }

    #[test]
    fn a_quiet_machine_gives_no_cause_and_neither_does_one_that_tells_nothing() {
        assert!(doubts_of_conditions(&QUIET).is_empty());
        let silent = Conditions { watched: Duration::from_secs(10), ..Conditions::default() };
        assert!(doubts_of_conditions(&silent).is_empty());
        assert!(doubts_of_conditions(&Conditions::default()).is_empty());
    }

    #[test]
    fn other_work_is_seen_by_each_of_its_three_signs() {
        let busy = |waiting, stolen, others, switches_per_s| Doubt::BusyMachine {
            waiting: Some(waiting),
            stolen: Some(stolen),
            others: Some(others),
            switches_per_s: Some(switches_per_s),
        };
        let shared = Conditions { other_work: Some(Duration::from_secs(8)), ..QUIET };
        let waits = Conditions { cpu_pressure: Some(Duration::from_secs(4)), ..shared };
        check(waits, busy(0.4, 0.005, 0.8, 10.0));
        let switched = Conditions { involuntary_switches: Some(900), ..shared };
        check(switched, busy(0.03, 0.005, 0.8, 90.0));
        let stolen = Conditions { steal: Some(Duration::from_millis(200)), ..QUIET };
        check(stolen, busy(0.03, 0.02, 0.05, 10.0));
    }

    #[test]
    fn threads_of_its_own_that_wait_for_each_other_are_no_other_work() {
        let crowded = Conditions {
            cpu_pressure: Some(Duration::from_secs(6)),
            involuntary_switches: Some(900),
            ..QUIET
        };
        assert_eq!(doubts_of_conditions(&crowded), []);
        let unknown = Conditions { other_work: None, ..crowded };
        assert_eq!(doubts_of_conditions(&unknown).len(), 1, "who had them cannot be told");
        let elsewhere = Conditions { other_work: Some(Duration::from_secs(10)), ..QUIET };
        assert_eq!(doubts_of_conditions(&elsewhere), [], "nothing waited for it");
    }

    #[test]
    fn clocks_that_change_are_named_with_both_values() {
        check(
            Conditions { cpu_mhz: Some([3000, 2400]), ..QUIET },
            Doubt::CpuFrequency { before_mhz: 3000, after_mhz: 2400 },
        );
        check(
            Conditions { gpu_mhz: Some([1200, 1980]), ..QUIET },
            Doubt::GpuClock { before_mhz: 1200, after_mhz: 1980 },
        );
    }

    #[test]
    fn heat_and_swapping_are_seen() {
        check(
            Conditions { cpu_throttled: Some(2), ..QUIET },
            Doubt::Throttling { events: Some(2) },
        );
        check(
            Conditions { gpu_throttled: Some(true), ..QUIET },
            Doubt::Throttling { events: None },
        );
        check(Conditions { swapped_pages: Some(256), ..QUIET }, Doubt::Swap { pages: 256 });
    }
}
