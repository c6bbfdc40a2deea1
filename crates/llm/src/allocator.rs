//! Unsafe because the C library's settings are set through a foreign function.

#![expect(unsafe_code, reason = "a call of the C library")]

/// Keeps the memory of activations in the process, where the C library allows it: by default glibc
/// gives large blocks back as soon as they are free, and the next step takes a page fault for every
/// 4 KiB of them. A prefill of 512 tokens took up to 1.6 times as long, and now and then.
pub(crate) fn keep_memory() {
    const LARGE: i32 = 1 << 30;
    give_back_from(LARGE);
}

/// Gives blocks of a megabyte and more back when they are free. By default glibc's threshold follows
/// the largest block that was freed, and tens of megabytes of what weights pass through stay.
pub(crate) fn return_memory() {
    give_back_from(1 << 20);
}

fn give_back_from(bytes: i32) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: every setting may be set at any time, from any thread.
        let set = |setting, bytes| unsafe { libc::mallopt(setting, bytes) == 1 };
        set_up_to_limit(bytes, |bytes| set(libc::M_MMAP_THRESHOLD, bytes));
        set(libc::M_TRIM_THRESHOLD, bytes);
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = bytes;
}

/// Sets a threshold, or the greatest below it that every glibc takes: the older ones refuse more
/// than 32 MiB, and would keep what was set before.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_up_to_limit(bytes: i32, set: impl Fn(i32) -> bool) {
    const LIMIT: i32 = 1 << 25;
    if !set(bytes) {
        set(bytes.min(LIMIT));
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_c_library_that_refuses_a_threshold_gets_the_greatest_that_it_takes() {
        for (limit, expected) in [(i32::MAX, 1 << 30), (1 << 25, 1 << 25)] {
            let threshold = Cell::new(1 << 20);
            set_up_to_limit(1 << 30, |bytes| {
                let takes = bytes <= limit;
                threshold.set(if takes { bytes } else { threshold.get() });
                takes
            });
            assert_eq!(threshold.get(), expected);
        }
    }
}
