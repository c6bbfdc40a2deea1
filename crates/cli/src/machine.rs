use metron_trace::Machine;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// What this machine is, as far as it tells.
pub(crate) fn this_machine() -> Machine {
    let kinds = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds);
    let cpu = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
    Machine {
        cpu: cpu.filter(|brand| !brand.is_empty()),
        cores: std::thread::available_parallelism().ok().map(|n| n.get() as u32),
        cpu_features: cpu_features(),
        memory_bytes: Some(system.total_memory()).filter(|bytes| *bytes > 0),
        gpu: None,
        os: System::long_os_version()
            .zip(System::kernel_version())
            .map(|(os, kernel)| format!("{os}, kernel {kernel}")),
    }
}

/// Memory that a new process could take, in bytes.
pub(crate) fn free_memory() -> u64 {
    let kinds = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds);
    let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory);
    system.available_memory().min(limit)
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<String> {
    macro_rules! detected {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    detected!("avx2", "fma", "f16c", "avx512f", "avx512vnni", "avx512bf16", "avxvnni")
        .into_iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<String> {
    Vec::new()
}
