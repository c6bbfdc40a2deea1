use std::process::Command;

/// The reasons of a slow clock that are heat or power: hardware slowdown, thermal slowdown by
/// software and by hardware, and the power brake (NVML's `nvmlClocksThrottleReasons`).
const SLOWDOWNS: u64 = 0x8 | 0x20 | 0x40 | 0x80;

/// What an NVIDIA accelerator says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    pub(crate) driver: String,
    /// Clock of its multiprocessors.
    pub(crate) mhz: Option<u32>,
    /// Whether it has slowed down for heat or power; `None` where it does not say.
    pub(crate) is_throttled: Option<bool>,
}

impl Gpu {
    /// The one that a device's name means (`cuda:1`); `None` of another device, and where the
    /// driver's own program is not there.
    pub(crate) fn of_device(device: &str) -> Option<Self> {
        let index = device.strip_prefix("cuda")?.trim_start_matches(':');
        let index = if index.is_empty() { "0" } else { index };
        let output = Command::new("nvidia-smi")
            .arg("--query-gpu=name,driver_version,clocks.sm,clocks_throttle_reasons.active")
            .args(["--format=csv,noheader,nounits", "--id", index])
            .output()
            .ok()?;
        Self::parse(&String::from_utf8(output.stdout).ok()?)
    }

    /// Of a line `NVIDIA H100, 570.86, 1980, 0x0000000000000000`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.lines().next()?.split(',').map(str::trim);
        let mut next = || fields.next();
        let (name, driver) = (next()?.to_owned(), next()?.to_owned());
        let mhz = next().and_then(|mhz| mhz.parse().ok());
        let reasons = next().and_then(|reasons| reasons.strip_prefix("0x"));
        let reasons = reasons.and_then(|reasons| u64::from_str_radix(reasons, 16).ok());
        Some(Self { name, driver, mhz, is_throttled: reasons.map(|set| set & SLOWDOWNS != 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_is_read_from_its_line() {
        let gpu =
            Gpu::parse("NVIDIA H100, 570.86, 1980, 0x0000000000000001\n").expect("it is whole");
        assert_eq!((gpu.name.as_str(), gpu.driver.as_str()), ("NVIDIA H100", "570.86"));
        assert_eq!((gpu.mhz, gpu.is_throttled), (Some(1980), Some(false)), "it was idle");
        let hot = Gpu::parse("NVIDIA H100, 570.86, 1200, 0x0000000000000020").expect("it is whole");
        assert_eq!(hot.is_throttled, Some(true));
        let silent = Gpu::parse("NVIDIA H100, 570.86, [N/A], [N/A]").expect("it has a name");
        assert_eq!((silent.mhz, silent.is_throttled), (None, None));
        assert_eq!(Gpu::parse(""), None);
        assert_eq!(Gpu::of_device("cpu"), None);
    }
}
