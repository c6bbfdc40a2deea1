//! Hardware counters of the threads that compute.

use metron_trace::Counters;

/// What happened between two readings.
pub(super) fn difference(later: Counters, earlier: Counters) -> Counters {
    Counters {
        cycles: later.cycles.saturating_sub(earlier.cycles),
        instructions: later.instructions.saturating_sub(earlier.instructions),
        cache_misses: later.cache_misses.saturating_sub(earlier.cache_misses),
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::CounterSet;

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Result;
    use std::sync::Mutex;

    use metron_trace::Counters;
    use perf_event::events::Hardware;
    use perf_event::{Builder, Counter};

    /// Counters of each thread of a pool and of the one that asks.
    pub(in crate::profile) struct CounterSet(Mutex<Vec<ThreadCounters>>);

    struct ThreadCounters([Counter; 3]);

    impl CounterSet {
        /// `None` where the kernel or the processor does not let them be counted.
        pub(in crate::profile) fn open(threads: &rayon::ThreadPool) -> Option<Self> {
            let of_pool = threads.broadcast(|_| ThreadCounters::open());
            let all = of_pool.into_iter().chain([ThreadCounters::open()]);
            all.collect::<Result<Vec<_>>>().ok().map(|all| Self(Mutex::new(all)))
        }

        /// Their sums since they were opened.
        pub(in crate::profile) fn read(&self) -> Option<Counters> {
            let mut sum = Counters::default();
            for thread in self.0.lock().ok()?.iter_mut() {
                let [cycles, instructions, cache_misses] = &mut thread.0;
                sum.cycles += cycles.read().ok()?;
                sum.instructions += instructions.read().ok()?;
                sum.cache_misses += cache_misses.read().ok()?;
            }
            Some(sum)
        }
    }

    impl ThreadCounters {
        fn open() -> Result<Self> {
            let open = |event| -> Result<Counter> {
                let mut counter = Builder::new(event).build()?;
                counter.enable()?;
                Ok(counter)
            };
            Ok(Self([
                open(Hardware::CPU_CYCLES)?,
                open(Hardware::INSTRUCTIONS)?,
                open(Hardware::CACHE_MISSES)?,
            ]))
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

    pub(super) fn read(&self) -> Option<Counters> {
        None
    }
}
