//! Unsafe in its test alone, which takes processors away from a thread.
//!
//! The threads that compute on the CPU.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::weights::LoadError;

/// A pool of so many threads; `None` for the default.
pub(crate) fn pool(threads: Option<usize>) -> Result<ThreadPool, LoadError> {
    let threads = threads.unwrap_or_else(default_threads);
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("forward-{index}"))
        .build()
        .map_err(|error| LoadError::Device {
            device: "cpu".to_owned(),
            cause: format!("{threads} threads can't be started: {error}"),
        })
}

/// Gives the pool that all of the process shares so many threads, if it has not begun: weights are
/// laid out on it, since in a pool of their own the memory that loading frees would stay with
/// another thread, and the peak rise by a twentieth.
pub(crate) fn limit_shared_pool(threads: Option<usize>) {
    let threads = threads.unwrap_or_else(default_threads);
    // An error says that it has begun.
    let _ = ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// The physical cores, or fewer where this process may not use as many: what it is pinned to, and
/// the quota of its control group.
fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    num_cpus::get_physical().min(allowed)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_pinned_to_one_processor_gets_one_thread() {
        let pinned = std::thread::spawn(|| {
            pin_this_thread();
            pool(None).unwrap().current_num_threads()
        });
        assert_eq!(pinned.join().unwrap(), 1);
        assert_eq!(pool(Some(3)).unwrap().current_num_threads(), 3);
    }

    /// To the first of the processors that it may use.
    #[expect(unsafe_code, reason = "the system's calls take a set by its address")]
    fn pin_this_thread() {
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: sets are plain bits, and of the size that the calls are told.
        let failed = unsafe {
            let (mut allowed, mut first): (libc::cpu_set_t, _) =
                (std::mem::zeroed(), std::mem::zeroed());
            libc::sched_getaffinity(0, size, &raw mut allowed);
            let processors = 0..libc::CPU_SETSIZE as usize;
            let one = processors.into_iter().find(|cpu| libc::CPU_ISSET(*cpu, &allowed));
            libc::CPU_SET(one.unwrap_or_default(), &mut first);
            libc::sched_setaffinity(0, size, &raw const first)
        };
        assert_eq!(failed, 0);
    }
}
