//! Unsafe because a memory-mapped file must not change while it is mapped, which nobody can
//! promise; candle's loader asks for that promise.

#![expect(unsafe_code, reason = "memory-mapped files")]

use std::path::PathBuf;

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};

use super::{LoadError, PROJECTION, ROPE_DIVISORS, StoredTensor, Weights};
use crate::dtype::StoredDtype;

/// Safetensors files, one or several shards.
pub(crate) struct SafetensorsWeights {
    files: MmapedSafetensors,
    path: PathBuf,
}

impl SafetensorsWeights {
    /// Maps the files. Their headers are checked: lengths, offsets, overlaps and holes.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let path = paths.first().cloned().unwrap_or_default();
        for path in paths {
            let io = |cause| LoadError::Io { path: path.clone(), cause };
            let len = std::fs::metadata(path).map_err(io)?.len();
            if len == 0 {
                let cause = "the file is empty".to_owned();
                return Err(LoadError::Malformed { path: path.clone(), cause });
            }
        }
        let malformed = |path: &PathBuf, error: &candle_core::Error| LoadError::Malformed {
            path: path.clone(),
            cause: format!("not a whole safetensors file: {}", error.to_string().trim()),
        };
        for path in paths {
            // SAFETY: as for all of them, below; one at a time to name the one that is wrong.
            unsafe { MmapedSafetensors::new(path) }.map_err(|error| malformed(path, &error))?;
        }
        // SAFETY: weights are not written while they are read; a file cut short under us would
        // end the process, which no reader of mapped files can prevent.
        let files =
            unsafe { MmapedSafetensors::multi(paths) }.map_err(|error| malformed(&path, &error))?;
        Ok(Self { files, path })
    }
}

impl Weights for SafetensorsWeights {
    fn stored(&self, name: &str) -> Option<StoredTensor> {
        let view = self.files.get(&self.name_in_files(name)?).ok()?;
        let dtype = match DType::try_from(view.dtype()) {
            Ok(DType::F32) => Some(StoredDtype::Other),
            Ok(DType::F16) => Some(StoredDtype::F16),
            Ok(DType::BF16) => Some(StoredDtype::Bf16),
            _ => None,
        };
        let (shape, format) = (view.shape().to_vec(), format!("{:?}", view.dtype()));
        Some(StoredTensor { shape, format, dtype })
    }

    fn tensor(&self, name: &str) -> Result<Tensor, LoadError> {
        let read = || self.files.load(name, &Device::Cpu)?.to_dtype(DType::F32);
        read().map_err(|error| LoadError::Malformed {
            path: self.path.clone(),
            cause: format!("tensor {name}: {error}"),
        })
    }

    fn name_in_files(&self, name: &str) -> Option<String> {
        (name != ROPE_DIVISORS).then(|| name.to_owned())
    }

    fn names_in_files(&self) -> Vec<String> {
        self.files.tensors().into_iter().map(|(name, _)| name).collect()
    }

    fn format(&self) -> String {
        let stored = self.stored(PROJECTION);
        let dtype = stored.map(|tensor| format!(" {}", tensor.format.to_lowercase()));
        format!("safetensors{}", dtype.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
