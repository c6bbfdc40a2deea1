use candle_core::Device;
use sysinfo::{CGroupLimits, MemoryRefreshKind, RefreshKind, System};

use crate::config::ModelConfig;
use crate::dtype::Dtype;
use crate::weights::LoadError;

/// Memory that is free on a device, in bytes; `None` if it does not tell.
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
    free_within(system.available_memory(), system.cgroup_limits())
}

/// A control group is charged for the pages of files that it has read as well (the weights that were
/// just downloaded, say), and gives these back when it needs them: taken is what processes hold.
/// Files in memory (`/dev/shm`) are taken as well, and not told apart from the others here.
fn free_within(available: u64, group: Option<CGroupLimits>) -> u64 {
    let left = group.map_or(u64::MAX, |group| group.total_memory.saturating_sub(group.rss));
    available.min(left)
}

/// Refuses a model that is larger than what is free: an allocation that fails ends the process.
pub(crate) fn check_loads(
    model: &str,
    config: &ModelConfig,
    dtype: Dtype,
    device: &Device,
    free: u64,
) -> Result<(), LoadError> {
    let bytes = bytes_to_load(config, dtype, device);
    if bytes <= free {
        return Ok(());
    }
    let (model, bytes_in) = (model.to_owned(), |dtype| bytes_to_load(config, dtype, device));
    let narrower = [Dtype::Bf16, Dtype::Q8_0].into_iter().find(|other| bytes_in(*other) <= free);
    let advice = match narrower {
        Some(dtype) => format!("--dtype {dtype} takes {} MiB", bytes_in(dtype) >> 20),
        None => format!(
            "the narrowest, --dtype q8_0, takes {} MiB: take a smaller model",
            bytes_in(Dtype::Q8_0) >> 20
        ),
    };
    Err(LoadError::TooLarge { model, dtype: dtype.to_string(), bytes, free, advice })
}

/// What loading takes at least: the weights, and on the CPU what passes in f32 into the kernel's
/// layout. The tables of tokens do so first, while there is nothing else, and then the layers, whose
/// largest matrix is gate and up in one.
fn bytes_to_load(config: &ModelConfig, dtype: Dtype, device: &Device) -> u64 {
    let weights = dtype.bytes_of(config.parameters());
    if !device.is_cpu() {
        return weights;
    }
    let matrix = |rows: usize| rows as u64 * config.hidden_size as u64;
    let (table, gate_up) = (matrix(config.vocab_size), matrix(2 * config.intermediate_size));
    let tables = if config.tie_word_embeddings { table } else { 2 * table };
    let at_first = dtype.bytes_of(tables) + Dtype::F32.bytes_of(table);
    at_first.max(weights.saturating_add(Dtype::F32.bytes_of(gate_up)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::card;

    #[test]
    fn pages_of_files_that_were_read_are_free() {
        let group = |total_memory, free_memory, rss| {
            Some(CGroupLimits { total_memory, free_memory, rss, free_swap: 0 })
        };
        assert_eq!(free_within(100, group(40, 2, 10)), 30);
        assert_eq!(free_within(20, group(40, 2, 10)), 20);
        assert_eq!(free_within(100, group(40, 0, 50)), 0);
        assert_eq!(free_within(100, None), 100);
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_a_dtype_in_which_it_does() {
        let card = card("llama-3.1-8b-instruct").unwrap();
        let config: ModelConfig = card.config.clone().try_into().unwrap();
        let check = |dtype, gib: u64| {
            let checked = check_loads(&card.id, &config, dtype, &Device::Cpu, gib << 30);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check(Dtype::F32, 33), Ok(()));
        assert_eq!(check(Dtype::Bf16, 17), Ok(()));
        let refusals = [
            check(Dtype::F32, 24).unwrap_err(),
            check(Dtype::F32, 12).unwrap_err(),
            check(Dtype::Q8_0, 8).unwrap_err(),
        ];
        insta::assert_snapshot!(refusals.join("\n"), @r"
        llama-3.1-8b-instruct takes 31081 MiB to load in f32, but only 24576 MiB are free; --dtype bf16 takes 15764 MiB
        llama-3.1-8b-instruct takes 31081 MiB to load in f32, but only 12288 MiB are free; --dtype q8_0 takes 9063 MiB
        llama-3.1-8b-instruct takes 9063 MiB to load in q8_0, but only 8192 MiB are free; the narrowest, --dtype q8_0, takes 9063 MiB: take a smaller model
        ");
    }
}
