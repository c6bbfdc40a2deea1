//! The small operators of a layer: by this crate's kernels on the CPU, and by Candle elsewhere.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, InplaceOp2, Layout, Result, Shape, Tensor};
use candle_nn::ops::silu;

use crate::kernels;
use crate::linear::floats;

/// `x / sqrt(mean(x^2) + eps) * weight` of each row.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if x.device().is_cpu() {
        x.apply_op2_no_bwd(weight, &RmsNorm { eps })
    } else {
        candle_nn::ops::rms_norm(x, weight, eps)
    }
}

/// `x + y`; on the CPU in the memory of `x`, to which nothing else may refer.
pub(crate) fn residual(x: Tensor, y: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        x.inplace_op2(y, &Add)?;
        Ok(x)
    } else {
        x + y
    }
}

/// `silu(gate) * up` of `[tokens, 2 * width]` rows, a gate and an up half each: `[tokens, width]`.
pub(crate) fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    let width = gate_up.dim(D::Minus1)? / 2;
    if gate_up.device().is_cpu() {
        return gate_up.apply_op1_no_bwd(&Swiglu { width });
    }
    let half = |from| gate_up.narrow(D::Minus1, from, width);
    silu(&half(0)?.contiguous()?)?.mul(&half(width)?)
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let weight = floats(weight, weight_layout, self.name())?;
        let out = kernels::rms_norm(floats(x, x_layout, self.name())?, weight, self.eps);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<()> {
        let y = floats(y, y_layout, self.name())?;
        match (x, x_layout.contiguous_offsets()) {
            (CpuStorage::F32(x), Some((start, end))) => kernels::add(&mut x[start..end], y),
            _ => candle_core::bail!("{} works on contiguous f32 tensors", self.name()),
        }
        Ok(())
    }
}

struct Swiglu {
    width: usize,
}

impl CustomOp1 for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = kernels::swiglu(floats(storage, layout, self.name())?, self.width);
        let shape = Shape::from((out.len() / self.width, self.width));
        Ok((CpuStorage::F32(out), shape))
    }
}
