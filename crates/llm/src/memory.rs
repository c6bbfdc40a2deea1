use candle_core::Device;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Memory that a KV cache could still take on a device, in bytes; `None` if it does not tell.
pub(crate) fn free_memory(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => Some(free_host_memory()),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let (free, _total) = device.cuda_stream().context().mem_get_info().ok()?;
            Some(free as u64)
        }
        _ => None,
    }
}

/// What the machine has free, within the limit of the control group.
fn free_host_memory() -> u64 {
    let kinds = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds);
    let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory);
    system.available_memory().min(limit)
}
