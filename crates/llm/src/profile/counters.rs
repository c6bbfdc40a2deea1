//! Hardware counters of the threads that compute.

use metron_trace::Counters;

#[cfg(target_os = "linux")]
pub(super) use linux::CounterSet;

/// What every thread had counted at some instant.
pub(super) struct Reading(Vec<ThreadReading>);

/// What one thread had counted: three events, which run together or not at all.
#[derive(Debug, Clone, Copy)]
struct ThreadReading {
    counts: [u64; 3],
    /// For how long they were to be counted, in nanoseconds of the thread's own time.
    enabled: u64,
    /// For how much of that they were: less where others took turns with the processor's counters.
    running: u64,
}

/// What happened between two readings, on all threads; `None` where a thread ran and was not counted,
/// which is not zero.
pub(super) fn difference(later: &Reading, earlier: &Reading) -> Option<Counters> {
    let [cycles, instructions, cache_misses] = counted(later, earlier)?;
    Some(Counters { cycles, instructions, cache_misses })
}

fn counted(later: &Reading, earlier: &Reading) -> Option<[u64; 3]> {
    let mut sums = [0; 3];
    for (later, earlier) in later.0.iter().zip(&earlier.0) {
        let counts = later.since(earlier)?;
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    Some(sums)
}

impl ThreadReading {
    /// Scaled up to the whole time, as `perf stat` does it.
    fn since(&self, earlier: &Self) -> Option<[u64; 3]> {
        let enabled = u128::from(self.enabled.saturating_sub(earlier.enabled));
        let running = u128::from(self.running.saturating_sub(earlier.running));
        if enabled == 0 {
            // The thread slept.
            return Some([0; 3]);
        }
        let mut counts = [0; 3];
        for (at, count) in counts.iter_mut().enumerate() {
            let counted = u128::from(self.counts[at].saturating_sub(earlier.counts[at]));
            *count = u64::try_from((counted * enabled).checked_div(running)?).ok()?;
        }
        Some(counts)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{Error, Result};
    use std::sync::Mutex;

    use perf_event::events::{Event, Hardware};
    use perf_event::{Builder, Counter, Group};

    use super::{Reading, ThreadReading};

    /// Counters of each thread of a pool and of the one that asks.
    pub(in crate::profile) struct CounterSet(Mutex<Vec<ThreadCounters>>);

    /// The events of one thread, as a group: the kernel counts all of them at a time or none.
    struct ThreadCounters {
        group: Group,
        members: [Counter; 3],
    }

    impl CounterSet {
        /// `None` where the kernel or the processor does not let them be counted.
        pub(in crate::profile) fn open(threads: &rayon::ThreadPool) -> Option<Self> {
            let events = [Hardware::CPU_CYCLES, Hardware::INSTRUCTIONS, Hardware::CACHE_MISSES];
            Self::of(events, threads)
        }

        pub(super) fn of<E>(events: [E; 3], threads: &rayon::ThreadPool) -> Option<Self>
        where
            E: Event + Copy + Sync,
        {
            let of_pool = threads.broadcast(|_| ThreadCounters::open(events));
            let all = of_pool.into_iter().chain([ThreadCounters::open(events)]);
            all.collect::<Result<Vec<_>>>().ok().map(|all| Self(Mutex::new(all)))
        }

        pub(in crate::profile) fn read(&self) -> Option<Reading> {
            let mut threads = self.0.lock().ok()?;
            let readings = threads.iter_mut().map(ThreadCounters::read);
            readings.collect::<Result<_>>().ok().map(Reading)
        }
    }

    impl ThreadCounters {
        fn open(events: [impl Event; 3]) -> Result<Self> {
            let mut group = Group::new()?;
            let [first, second, third] = events.map(|event| group.add(&Builder::new(event)));
            let members = [first?, second?, third?];
            group.enable()?;
            Ok(Self { group, members })
        }

        fn read(&mut self) -> Result<ThreadReading> {
            let data = self.group.read()?;
            let absent = || Error::other("the kernel left something out");
            let [first, second, third] = &self.members;
            let count = |member| data.get(member).map(|entry| entry.value()).ok_or_else(absent);
            let time = |time: Option<std::time::Duration>| {
                time.map(|time| time.as_nanos() as u64).ok_or_else(absent)
            };
            Ok(ThreadReading {
                counts: [count(first)?, count(second)?, count(third)?],
                enabled: time(data.time_enabled())?,
                running: time(data.time_running())?,
            })
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct CounterSet;

#[cfg(not(target_os = "linux"))]
impl CounterSet {
    pub(super) fn open(_threads: &rayon::ThreadPool) -> Option<Self> {
        None
    }

    pub(super) fn read(&self) -> Option<Reading> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(threads: &[(u64, u64, u64)]) -> Reading {
        let reading = |&(count, enabled, running): &(u64, u64, u64)| ThreadReading {
            counts: [count, 2 * count, 0],
            enabled,
            running,
        };
        Reading(threads.iter().map(reading).collect())
    }

    #[test]
    fn what_was_counted_half_of_the_time_is_doubled() {
        let earlier = reading(&[(100, 1_000, 1_000), (7, 50, 50)]);
        let later = reading(&[(160, 1_400, 1_200), (9, 60, 60)]);
        assert_eq!(counted(&later, &earlier), Some([120 + 2, 240 + 4, 0]));
    }

    #[test]
    fn a_thread_that_slept_counts_nothing() {
        let earlier = reading(&[(100, 1_000, 900), (7, 50, 50)]);
        let later = reading(&[(100, 1_000, 900), (9, 60, 60)]);
        assert_eq!(counted(&later, &earlier), Some([2, 4, 0]));
    }

    #[test]
    fn a_thread_that_ran_uncounted_leaves_the_sum_absent() {
        let earlier = reading(&[(100, 1_000, 900), (7, 50, 0)]);
        let later = reading(&[(150, 1_500, 1_400), (7, 60, 0)]);
        assert_eq!(counted(&later, &earlier), None);
        assert!(difference(&later, &earlier).is_none());
    }

    /// Events of the kernel's own go the same way as the processor's, and more machines let them be
    /// counted.
    #[cfg(target_os = "linux")]
    mod with_software_events {
        use std::hint::black_box;

        use perf_event::events::{Hardware, Software};
        use rayon::{ThreadPool, ThreadPoolBuilder};

        use super::*;

        const EVENTS: [Software; 3] =
            [Software::TASK_CLOCK, Software::PAGE_FAULTS, Software::DUMMY];

        fn pool() -> ThreadPool {
            ThreadPoolBuilder::new().num_threads(2).build().unwrap()
        }

        /// Counters, unless even these events are forbidden.
        #[expect(clippy::print_stdout, reason = "what was not tested is said")]
        fn open(threads: &ThreadPool) -> Option<CounterSet> {
            let counters = CounterSet::of(EVENTS, threads);
            if counters.is_none() {
                println!("not tested, because perf events are forbidden");
            }
            counters
        }

        fn work(rounds: u64) {
            let mixed = (0..rounds * 100_000).fold(1_u64, |mixed, round| {
                black_box(mixed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round))
            });
            black_box(mixed);
        }

        fn during(counters: &CounterSet, work: impl FnOnce()) -> [u64; 3] {
            let earlier = counters.read().unwrap();
            work();
            counted(&counters.read().unwrap(), &earlier).unwrap()
        }

        #[test]
        fn counts_grow_with_the_work_of_all_threads() {
            let threads = pool();
            let Some(counters) = open(&threads) else { return };
            let [little, much] = [1, 30].map(|rounds| {
                during(&counters, || {
                    threads.broadcast(|_| work(rounds));
                })
            });
            assert!(0 < little[0] && little[0] < much[0], "{little:?} {much:?}");
            assert_eq!(much[2], 0, "what never happens is counted, as zero");
        }

        #[test]
        fn each_phase_has_the_counts_of_its_own() {
            let threads = pool();
            let Some(counters) = open(&threads) else { return };
            let of_pool = during(&counters, || threads.install(|| work(10)));
            let of_asker = during(&counters, || work(10));
            let of_nobody = during(&counters, || ());
            assert!(of_pool[0] > of_nobody[0], "{of_pool:?} {of_nobody:?}");
            assert!(of_asker[0] > of_nobody[0], "{of_asker:?} {of_nobody:?}");
        }

        #[test]
        fn an_event_that_no_processor_has_is_absent() {
            assert!(CounterSet::of([Hardware::from(9_999); 3], &pool()).is_none());
        }
    }
}
