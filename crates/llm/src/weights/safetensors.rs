//! Unsafe because a memory-mapped file must not change while it is mapped, which nobody can
//! promise; candle's loader asks for that promise.

#![expect(unsafe_code, reason = "memory-mapped files")]

use std::path::PathBuf;

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};

use super::{LoadError, Weights};
use crate::dtype::StoredDtype;

/// Safetensors files, one or several shards.
pub(crate) struct SafetensorsWeights {
    files: MmapedSafetensors,
    path: PathBuf,
    format: String,
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
        let dtype = files.tensors().first().map(|(_, view)| format!("{:?}", view.dtype()));
        let format = format!("safetensors {}", dtype.unwrap_or_default().to_lowercase());
        Ok(Self { files, path, format })
    }
}

impl Weights for SafetensorsWeights {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.files.get(name).ok().map(|view| view.shape().to_vec())
    }

    fn tensor(&self, name: &str) -> Result<Tensor, LoadError> {
        let read = || self.files.load(name, &Device::Cpu)?.to_dtype(DType::F32);
        read().map_err(|error| LoadError::Malformed {
            path: self.path.clone(),
            cause: format!("tensor {name}: {error}"),
        })
    }

    fn format(&self) -> String {
        self.format.clone()
    }

    fn stored_dtype(&self) -> StoredDtype {
        let tensors = self.files.tensors();
        StoredDtype::of_all(tensors.iter().map(|(_, view)| match DType::try_from(view.dtype()) {
            Ok(DType::F16) => StoredDtype::F16,
            Ok(DType::BF16) => StoredDtype::Bf16,
            _ => StoredDtype::Other,
        }))
    }
}
