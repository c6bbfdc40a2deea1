use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};

use crate::formats::{Format, PANEL, Q8};

/// Number format in which weights are held.
///
/// On the CPU sums are f32 whatever the weights are, and so are activations, but for those that enter
/// a product with bf16 weights: they are rounded to bf16 too. On other devices activations have the
/// weights' format (f32 for `q8_0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats.
    Bf16,
    /// 8-bit whole numbers in blocks of 32 with a scale each.
    Q8_0,
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" | "float32" => Ok(Self::F32),
            "f16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "q8_0" => Ok(Self::Q8_0),
            _ => Err(format!("`{text}` is no dtype; dtypes are f32, f16, bf16 and q8_0")),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
        })
    }
}

impl Dtype {
    /// The rule of docs/dtypes.md. On the CPU: the narrowest format that holds every weight of the
    /// file exactly. On CUDA: bf16, but f16 for an f16 file.
    pub(crate) fn default_of(stored: StoredDtype, device: &Device) -> Self {
        match stored {
            StoredDtype::F16 => Self::F16,
            _ if !device.is_cpu() => Self::Bf16,
            StoredDtype::Bf16 => Self::Bf16,
            StoredDtype::Q8_0 => Self::Q8_0,
            StoredDtype::Other => Self::F32,
        }
    }

    /// Bytes that a weight takes, its share of a scale included.
    pub(crate) fn bytes_per_weight(self) -> f64 {
        let (bytes, weights) = self.block();
        bytes as f64 / weights as f64
    }

    /// Bytes that so many weights take.
    pub(crate) fn bytes_of(self, weights: u64) -> u64 {
        let (bytes, per_block) = self.block();
        weights.div_ceil(per_block).saturating_mul(bytes)
    }

    /// Bytes and weights of the smallest piece in which weights are held.
    fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (4, 1),
            Self::F16 | Self::Bf16 => (2, 1),
            Self::Q8_0 => (size_of::<<Q8 as Format>::Block>() as u64, (PANEL * Q8::DEPTH) as u64),
        }
    }

    /// The format of activations and of the KV cache.
    pub(crate) fn of_activations(self, device: &Device) -> DType {
        match self {
            Self::F16 if !device.is_cpu() => DType::F16,
            Self::Bf16 if !device.is_cpu() => DType::BF16,
            _ => DType::F32,
        }
    }
}

/// Number format of the weights in a file, as far as the default depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredDtype {
    /// 16-bit floats.
    F16,
    /// Brain floats.
    Bf16,
    /// llama.cpp's 8-bit blocks.
    Q8_0,
    /// f32, several formats, other quantised formats (converted to f32, which holds them exactly),
    /// or none.
    Other,
}

impl StoredDtype {
    /// The one format of all these tensors.
    pub(crate) fn of_all(mut formats: impl Iterator<Item = Self>) -> Self {
        let first = formats.next().unwrap_or(Self::Other);
        if formats.all(|format| format == first) { first } else { Self::Other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0] {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        let refused = "q4_0".parse::<Dtype>().unwrap_err();
        assert_eq!(refused, "`q4_0` is no dtype; dtypes are f32, f16, bf16 and q8_0");
    }

    #[test]
    fn the_default_is_the_narrowest_format_that_loses_nothing() {
        let default = |stored| Dtype::default_of(stored, &Device::Cpu);
        assert_eq!(default(StoredDtype::Bf16), Dtype::Bf16);
        assert_eq!(default(StoredDtype::F16), Dtype::F16);
        assert_eq!(default(StoredDtype::Q8_0), Dtype::Q8_0);
        assert_eq!(default(StoredDtype::Other), Dtype::F32);
        let mixed = [StoredDtype::Bf16, StoredDtype::F16];
        assert_eq!(StoredDtype::of_all(mixed.into_iter()), StoredDtype::Other);
    }
}
