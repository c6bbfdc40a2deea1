use metron_trace::Machine;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::gpu::Gpu;
use crate::kernel::Kernel;

/// What this machine is, as far as it tells, and the accelerator if `device` is one.
pub(crate) fn this_machine(device: &str) -> Machine {
    let kinds = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds);
    let (gpu, kernel) = (Gpu::of_device(device), Kernel::here());
    let cpu = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
    Machine {
        cpu: cpu.filter(|brand| !brand.is_empty()),
        cores: std::thread::available_parallelism().ok().map(|n| n.get() as u32),
        cpu_features: cpu_features(),
        memory_bytes: Some(system.total_memory()).filter(|bytes| *bytes > 0),
        gpu: gpu.as_ref().map(|gpu| gpu.name.clone()),
        gpu_driver: gpu.map(|gpu| gpu.driver),
        os: System::long_os_version()
            .zip(System::kernel_version())
            .map(|(os, kernel)| format!("{os}, kernel {kernel}")),
        governor: kernel.governor(),
        clock_source: kernel.clock_source(),
        conditions: None,
    }
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
