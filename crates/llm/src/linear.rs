use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Module, Result, Shape, Storage, Tensor};

use crate::dtype::Dtype;
use crate::formats::{F16, F32, Q8};
use crate::matmul::{Matrix, Packed, bf16};

/// A projection `y = x W^T`, laid out for the device and number format that compute it.
#[derive(Debug, Clone)]
pub(crate) enum Linear {
    /// On the CPU, for the kernel of this crate.
    Packed(Arc<dyn Matrix>),
    /// On another device, 8-bit blocks of 32 with a scale each.
    Quantized(Arc<QMatMul>),
    /// On another device, by its own matrix product: `[k, n]`.
    Dense(Tensor),
}

impl Linear {
    /// Stacks projections of the same input, each `[n, k]` in f32 on the CPU, into one.
    pub(crate) fn stack(weights: &[Tensor], dtype: Dtype, device: &Device) -> Result<Self> {
        if device.is_cpu() {
            return Ok(Self::Packed(match dtype {
                Dtype::F32 => pack(weights, |k, rows| Arc::new(Packed::<F32>::stack(k, rows)))?,
                Dtype::F16 => pack(weights, |k, rows| Arc::new(Packed::<F16>::stack(k, rows)))?,
                Dtype::Bf16 => pack(weights, bf16::stack)?,
                Dtype::Q8_0 => pack(weights, |k, rows| Arc::new(Packed::<Q8>::stack(k, rows)))?,
            }));
        }
        let stacked = Tensor::cat(weights, 0)?;
        if dtype == Dtype::Q8_0 {
            let quantized = QTensor::quantize_onto(&stacked, GgmlDType::Q8_0, device)?;
            return Ok(Self::Quantized(Arc::new(QMatMul::from_qtensor(quantized)?)));
        }
        let stacked = stacked.to_dtype(dtype.of_activations(device))?.to_device(device)?;
        Ok(Self::Dense(stacked.t()?.contiguous()?))
    }

    /// `x` is `[m, k]`, the result `[m, n]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(matrix) => x.apply_op1_no_bwd(&PackedProduct(matrix.as_ref())),
            Self::Quantized(quantized) => quantized.forward(x),
            Self::Dense(weights) => x.matmul(weights),
        }
    }
}

fn pack(
    weights: &[Tensor],
    stack: fn(usize, &[&[f32]]) -> Arc<dyn Matrix>,
) -> Result<Arc<dyn Matrix>> {
    let k = weights[0].dim(1)?;
    let weights = weights.iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
    // Read where they lie: a copy of the embedding alone would double the peak of loading.
    let lent: Vec<_> = weights.iter().map(Tensor::storage_and_layout).collect();
    let rows = lent.iter().map(|(storage, layout)| host_floats(storage, layout, "packing"));
    Ok(stack(k, &rows.collect::<Result<Vec<_>>>()?))
}

struct PackedProduct<'a>(&'a dyn Matrix);

impl CustomOp1 for PackedProduct<'_> {
    fn name(&self) -> &'static str {
        "packed-product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(storage, layout, self.name())?;
        let shape = Shape::from((x.len() / self.0.k(), self.0.n()));
        Ok((CpuStorage::F32(self.0.product(x)), shape))
    }
}

/// Reads a contiguous tensor on the CPU as floats.
pub(crate) fn with_floats<T>(x: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    read(host_floats(&storage, layout, "the CPU's kernel")?)
}

fn host_floats<'a>(storage: &'a Storage, layout: &Layout, op: &'static str) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => floats(storage, layout, op),
        _ => candle_core::bail!("{op} works on tensors of the CPU"),
    }
}

/// The floats of a contiguous tensor.
pub(crate) fn floats<'a>(
    storage: &'a CpuStorage,
    layout: &Layout,
    op: &'static str,
) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("{op} works on contiguous f32 tensors"),
    }
}
