//! What a device can do at most, by tensor operations that work on any.

use candle_core::{DType, Device, Result, Tensor};
use metron_trace::Roofs;

use super::roofs::best_rate;

/// How large the things are that are measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Floats of each array.
    array: usize,
    /// Rows, inputs and outputs of the matrix product.
    product: usize,
}

impl Sizes {
    /// 256 MiB an array, beyond a GPU's caches, and a product that fills all of its processors.
    pub(super) const OF_A_GPU: Self = Self { array: 1 << 26, product: 8192 };
}

/// The best of a few tries each: `a = b + c` stands for the triad, a sum of all elements for
/// reading, and the matrix product is in `dtype`, that of the model's activations.
pub(super) fn measure(device: &Device, dtype: DType, sizes: Sizes) -> Result<Roofs> {
    let bytes = (sizes.array * DType::F32.size_in_bytes()) as f64;
    let array = || Tensor::ones(sizes.array, DType::F32, device);
    let (b, c) = (array()?, array()?);
    let triad_bytes_per_second = rate(device, 3.0 * bytes, || &b + &c)?;
    let read_bytes_per_second = rate(device, bytes, || b.sum_all())?;
    let side = sizes.product;
    let x = Tensor::ones((side, side), dtype, device)?;
    let flops = 2.0 * (side as f64).powi(3);
    let flops_per_second = rate(device, flops, || x.matmul(&x))?;
    Ok(Roofs { triad_bytes_per_second, read_bytes_per_second, flops_per_second })
}

/// Work a second of an operation that is waited for, after a try that does not count: the first
/// loads its kernel.
fn rate(device: &Device, work: f64, run: impl Fn() -> Result<Tensor>) -> Result<f64> {
    let waited = || {
        run()?;
        device.synchronize()
    };
    waited()?;
    let mut failed = None;
    let rate = best_rate(work, || failed = waited().err().or(failed.take()));
    failed.map_or(Ok(rate), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_roofs_come_from_its_own_operations() {
        let sizes = Sizes { array: 1 << 16, product: 64 };
        let roofs = measure(&Device::Cpu, DType::F32, sizes).unwrap();
        assert!(roofs.triad_bytes_per_second > 0.0 && roofs.read_bytes_per_second > 0.0);
        assert!(roofs.flops_per_second > 0.0);
        // What the device can't compute with is an error, not a rate.
        assert!(measure(&Device::Cpu, DType::U8, sizes).is_err());
    }
}
