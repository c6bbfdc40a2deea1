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
    // SAFETY: both settings may be set at any time, from any thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, bytes);
        libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = bytes;
}
