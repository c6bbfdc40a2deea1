use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Result, Shape, Tensor};

use crate::matmul::Packed;

/// A projection `y = x W^T`, laid out for the device and number format that compute it.
#[derive(Debug, Clone)]
pub(crate) enum Linear {
    /// f32 on the CPU.
    Packed(Arc<Packed>),
    /// 8-bit blocks of 32 with a scale each.
    Q8(Arc<QMatMul>),
    /// Any format on a device with its own matrix product: `[k, n]`.
    Dense(Tensor),
}

/// How a model's weights are held, where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layouts {
    Packed,
    Q8,
    Dense(DType),
}

impl Linear {
    /// Stacks projections of the same input, each `[n, k]` in f32 on the CPU, into one.
    pub(crate) fn stack(
        weights: &[&Tensor],
        layout: Layouts,
        device: &candle_core::Device,
    ) -> Result<Self> {
        match layout {
            Layouts::Packed => {
                let k = weights[0].dim(1)?;
                let rows = weights
                    .iter()
                    .map(|weight| weight.flatten_all()?.to_vec1::<f32>())
                    .collect::<Result<Vec<_>>>()?;
                let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                Ok(Self::Packed(Arc::new(Packed::stack(k, &rows))))
            }
            Layouts::Q8 => {
                let stacked = Tensor::cat(weights, 0)?;
                let quantized = QTensor::quantize_onto(&stacked, GgmlDType::Q8_0, device)?;
                Ok(Self::Q8(Arc::new(QMatMul::from_qtensor(quantized)?)))
            }
            Layouts::Dense(dtype) => {
                let stacked = Tensor::cat(weights, 0)?.to_dtype(dtype)?.to_device(device)?;
                Ok(Self::Dense(stacked.t()?.contiguous()?))
            }
        }
    }

    /// `x` is `[m, k]`, the result `[m, n]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(packed) => x.apply_op1_no_bwd(&PackedProduct(packed)),
            Self::Q8(quantized) => quantized.forward(&x.to_dtype(DType::F32)?)?.to_dtype(x.dtype()),
            Self::Dense(weights) => x.matmul(weights),
        }
    }
}

struct PackedProduct<'a>(&'a Packed);

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
