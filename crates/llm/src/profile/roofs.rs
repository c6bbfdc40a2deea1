use candle_core::{Device, Tensor};
use metron_trace::Roofs;
use rayon::prelude::*;

use super::device_roofs::{self, Sizes};
use crate::dtype::Dtype;
use crate::executor::{CandleExecutor, Stopwatch};
use crate::formats::F32;
use crate::matmul::{Matrix, Packed, bf16};

/// Floats of each array: 128 MiB, beyond the caches of most machines.
const ARRAY: usize = 32 << 20;
const REPEATS: usize = 5;
/// Rows, inputs and outputs of the matrix product: large enough that its weights are used often.
const PRODUCT: (usize, usize, usize) = (480, 1024, 2048);

/// Measures what an executor's device can do at most, on the CPU with its threads: the best of a few
/// tries each.
pub fn measure_roofs(executor: &CandleExecutor) -> Result<Roofs, candle_core::Error> {
    let device = &executor.model.device;
    if !device.is_cpu() {
        let dtype = executor.model.dtype.of_activations(device);
        return device_roofs::measure(device, dtype, Sizes::OF_A_GPU);
    }
    executor.threads.install(|| {
        Ok(Roofs {
            triad_bytes_per_second: triad(),
            read_bytes_per_second: read(),
            flops_per_second: product(executor.model.dtype)?,
        })
    })
}

/// The share of an array that one thread works on.
fn share() -> usize {
    ARRAY.div_ceil(rayon::current_num_threads())
}

fn triad() -> f64 {
    let (b, c) = (vec![1.0_f32; ARRAY], vec![2.0_f32; ARRAY]);
    let mut a = vec![0.0_f32; ARRAY];
    let pass = || {
        let chunks =
            a.par_chunks_mut(share()).zip(b.par_chunks(share()).zip(c.par_chunks(share())));
        chunks.for_each(|(a, (b, c))| {
            for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                *a = b + 3.0 * c;
            }
        });
        std::hint::black_box(a.as_ptr());
    };
    best_rate(3.0 * 4.0 * ARRAY as f64, pass)
}

fn read() -> f64 {
    let array = vec![1.0_f32; ARRAY];
    best_rate(4.0 * ARRAY as f64, || {
        let sums = array.par_chunks(share()).map(|share| {
            // Independent sums, so that the additions do not wait for each other.
            let mut sums = [0.0_f32; 64];
            for chunk in share.chunks_exact(sums.len()) {
                sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
            }
            sums.iter().sum::<f32>()
        });
        std::hint::black_box(sums.sum::<f32>());
    })
}

/// The best of this crate's products and Candle's; that in bf16 only where the model's are.
fn product(dtype: Dtype) -> Result<f64, candle_core::Error> {
    let (rows, inputs, outputs) = PRODUCT;
    let (x, weights) = (vec![0.5_f32; rows * inputs], vec![0.25_f32; outputs * inputs]);
    let flops = 2.0 * (rows * inputs * outputs) as f64;
    let own = |matrix: &dyn Matrix| {
        best_rate(flops, || {
            std::hint::black_box(matrix.product(&x));
        })
    };
    let mut best = own(&Packed::<F32>::stack(inputs, &[&weights]));
    if dtype == Dtype::Bf16 {
        best = best.max(own(bf16::stack(inputs, &[&weights]).as_ref()));
    }
    let x = Tensor::from_vec(x, (rows, inputs), &Device::Cpu)?;
    let weights = Tensor::from_vec(weights, (outputs, inputs), &Device::Cpu)?.t()?.contiguous()?;
    x.matmul(&weights)?;
    let candle = best_rate(flops, || {
        std::hint::black_box(x.matmul(&weights).ok());
    });
    Ok(best.max(candle))
}

/// Work a second, in the best of the tries.
pub(super) fn best_rate(work: f64, mut pass: impl FnMut()) -> f64 {
    let mut best: f64 = 0.0;
    for _ in 0..REPEATS {
        let mut stopwatch = Stopwatch::start();
        pass();
        best = best.max(work / stopwatch.lap().as_secs_f64());
    }
    best
}
