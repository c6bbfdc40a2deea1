//! Unsafe because the C library's settings are set through a foreign function.

#![expect(unsafe_code, reason = "a call of the C library")]

/// Keeps the memory of activations in the process, where the C library allows it: by default glibc
/// gives large blocks back as soon as they are free, and the next step takes a page fault for every
/// 4 KiB of them. A prefill of 512 tokens took up to 1.6 times as long, and now and then.
pub(crate) fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both settings may be set at any time, from any thread.
    unsafe {
        const LARGE: libc::c_int = 1 << 30;
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}
