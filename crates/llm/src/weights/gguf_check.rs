//! Checks a GGUF file's header before Candle reads it: Candle divides by an alignment of zero and
//! accepts shapes whose product wraps.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::LoadError;

/// Limits beyond which no real file goes.
const MAX_NAME: u64 = 1 << 16;
const MAX_DIMENSIONS: u32 = 4;
const MAX_DEPTH: u32 = 4;
/// Candle keeps each element of an array as a value of 32 bytes and more; the largest arrays are
/// vocabularies and their merges.
const MAX_ARRAY: u64 = 1 << 22;

/// Fails with what is wrong and where.
pub(crate) fn check_gguf(path: &Path) -> Result<(), LoadError> {
    let io = |cause| LoadError::Io { path: path.to_owned(), cause };
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let mut header = Header { reader: BufReader::new(file), len, at: 0 };
    header.check().map_err(|cause| LoadError::Malformed { path: path.to_owned(), cause })
}

struct Header {
    reader: BufReader<File>,
    len: u64,
    at: u64,
}

type Check<T> = Result<T, String>;

/// Where a tensor has its data, counted from where data begin.
struct TensorData {
    name: String,
    start: u64,
    end: u64,
}

impl Header {
    fn check(&mut self) -> Check<()> {
        let magic = self.bytes::<4>("the magic number")?;
        match &magic {
            b"GGUF" => {}
            b"PK\x03\x04" => {
                return Err("this is a zip archive (a PyTorch pickle?), not GGUF".to_owned());
            }
            _ => return Err(format!("not a GGUF file: it begins with {magic:02x?}")),
        }
        let version = self.u32("the version")?;
        if !(2..=3).contains(&version) {
            let is_swapped = (2..=3).contains(&version.swap_bytes());
            let found = if is_swapped { "big-endian".to_owned() } else { version.to_string() };
            return Err(format!(
                "GGUF version {found} is not supported; little-endian 2 and 3 are"
            ));
        }
        let num_tensors = self.count("tensors", 24)?;
        let num_entries = self.count("metadata entries", 13)?;
        let alignment = self.metadata(num_entries)?;
        let tensors = self.tensors(num_tensors, alignment)?;
        self.check_data(tensors, alignment)
    }

    /// Checks the metadata, and returns the alignment of tensors.
    fn metadata(&mut self, num_entries: u64) -> Check<u64> {
        let mut alignment = 32;
        let mut keys = BTreeSet::new();
        for _ in 0..num_entries {
            let key = self.string("a metadata key")?;
            let kind = self.u32(&key)?;
            if key.is_empty() || !keys.insert(key.clone()) {
                return Err(format!(
                    "there are two metadata entries `{key}`, or one without a name"
                ));
            }
            if key == "general.alignment" {
                alignment = u64::from(self.alignment(kind)?);
            } else {
                self.skip_value(kind, &key, 0)?;
            }
        }
        Ok(alignment)
    }

    /// Checks the table of tensors, and returns where each has its data.
    fn tensors(&mut self, num_tensors: u64, alignment: u64) -> Check<Vec<TensorData>> {
        let mut names = BTreeSet::new();
        let mut tensors = Vec::new();
        for _ in 0..num_tensors {
            let tensor = self.tensor(alignment)?;
            if !names.insert(tensor.name.clone()) {
                return Err(format!("there are two tensors `{}`", tensor.name));
            }
            tensors.push(tensor);
        }
        Ok(tensors)
    }

    fn check_data(&self, mut tensors: Vec<TensorData>, alignment: u64) -> Check<()> {
        let data = self.at.next_multiple_of(alignment);
        tensors.sort_unstable_by_key(|tensor| tensor.start);
        for TensorData { name, end, .. } in &tensors {
            let end = data.saturating_add(*end);
            if end > self.len {
                let len = self.len;
                return Err(format!(
                    "tensor `{name}` ends at byte {end}, but the file has {len}: it is cut off"
                ));
            }
        }
        match tensors.windows(2).find(|pair| pair[0].end > pair[1].start) {
            Some(pair) => Err(format!("tensors `{}` and `{}` overlap", pair[0].name, pair[1].name)),
            None => Ok(()),
        }
    }

    fn alignment(&mut self, kind: u32) -> Check<u32> {
        const U32: u32 = 4;
        if kind != U32 {
            return Err(format!("general.alignment has value type {kind}; it must be a u32"));
        }
        let alignment = self.u32("general.alignment")?;
        if alignment.is_power_of_two() && alignment <= 1 << 20 {
            return Ok(alignment);
        }
        Err(format!("general.alignment is {alignment}; it must be a power of two up to 2^20"))
    }

    fn tensor(&mut self, alignment: u64) -> Check<TensorData> {
        let name = self.string("a tensor's name")?;
        let num_dimensions = self.u32(&name)?;
        if num_dimensions > MAX_DIMENSIONS {
            return Err(format!(
                "tensor `{name}` has {num_dimensions} dimensions; at most {MAX_DIMENSIONS}"
            ));
        }
        let mut elements = 1_u64;
        let mut first = 1;
        for i in 0..num_dimensions {
            let dimension = self.u64(&name)?;
            first = if i == 0 { dimension } else { first };
            elements = elements
                .checked_mul(dimension)
                .filter(|elements| (1..1 << 40).contains(elements))
                .ok_or_else(|| format!("tensor `{name}` has an impossible shape"))?;
        }
        let kind = self.u32(&name)?;
        let (block, bytes) = block_of(kind).ok_or_else(|| {
            let format = unsupported_format(kind);
            format!(
                "tensor `{name}` has the number format {format}; supported are F32, F16, BF16, \
                 Q4_0 to Q8_1 and Q2_K to Q8_K"
            )
        })?;
        if !first.is_multiple_of(block) {
            return Err(format!(
                "tensor `{name}` has rows of {first}, not whole blocks of {block}"
            ));
        }
        let offset = self.u64(&name)?;
        if !offset.is_multiple_of(alignment) {
            return Err(format!("tensor `{name}` stands at {offset}, not aligned to {alignment}"));
        }
        let end = offset.saturating_add(elements / block * bytes);
        Ok(TensorData { name, start: offset, end })
    }

    fn skip_value(&mut self, kind: u32, key: &str, depth: u32) -> Check<()> {
        match kind {
            0 | 1 | 7 => self.skip(1, key),
            2 | 3 => self.skip(2, key),
            4..=6 => self.skip(4, key),
            10..=12 => self.skip(8, key),
            8 => {
                let len = self.u64(key)?;
                self.skip(len, key)
            }
            9 if depth < MAX_DEPTH => {
                let kind = self.u32(key)?;
                let len = self.count(key, 1)?;
                if len > MAX_ARRAY {
                    return Err(format!(
                        "metadata `{key}` has {len} elements; at most {MAX_ARRAY}"
                    ));
                }
                match kind {
                    8 | 9 => (0..len).try_for_each(|_| self.skip_value(kind, key, depth + 1)),
                    _ => (0..len).try_for_each(|_| self.skip_value(kind, key, depth)),
                }
            }
            9 => Err(format!("metadata `{key}` has arrays in arrays, deeper than {MAX_DEPTH}")),
            _ => Err(format!("metadata `{key}` has the unknown value type {kind}")),
        }
    }

    /// A count of things that take at least `least` bytes each.
    fn count(&mut self, what: &str, least: u64) -> Check<u64> {
        let count = self.u64(what)?;
        if count.checked_mul(least).is_some_and(|bytes| bytes <= self.len - self.at) {
            return Ok(count);
        }
        Err(format!("{what}: it says that there are {count}, more than the file can hold"))
    }

    fn string(&mut self, what: &str) -> Check<String> {
        let len = self.u64(what)?;
        if len > MAX_NAME.min(self.len - self.at) {
            return Err(format!("{what} is {len} bytes long, more than the file can hold"));
        }
        let mut bytes = vec![0; len as usize];
        self.read(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
    }

    fn u32(&mut self, what: &str) -> Check<u32> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Check<u64> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Check<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes, what)?;
        Ok(bytes)
    }

    fn read(&mut self, bytes: &mut [u8], what: &str) -> Check<()> {
        self.reader
            .read_exact(bytes)
            .map_err(|_| format!("the file ends in {what}: it is cut off"))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, bytes: u64, what: &str) -> Check<()> {
        if bytes > self.len - self.at {
            return Err(format!("the file ends in {what}: it is cut off"));
        }
        self.at += bytes;
        let forward = i64::try_from(bytes).map_err(|error| error.to_string())?;
        self.reader.seek_relative(forward).map_err(|error| error.to_string())
    }
}

/// Elements and bytes of a block of a number format.
fn block_of(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 => (1, 4),      // F32
        1 | 30 => (1, 2), // F16, BF16
        2 => (32, 18),    // Q4_0
        3 => (32, 20),    // Q4_1
        6 => (32, 22),    // Q5_0
        7 => (32, 24),    // Q5_1
        8 => (32, 34),    // Q8_0
        9 => (32, 36),    // Q8_1
        10 => (256, 84),  // Q2_K
        11 => (256, 110), // Q3_K
        12 => (256, 144), // Q4_K
        13 => (256, 176), // Q5_K
        14 => (256, 210), // Q6_K
        15 => (256, 292), // Q8_K
        _ => return None,
    })
}

/// llama.cpp's name of a number format that is not supported, or its number.
fn unsupported_format(kind: u32) -> String {
    const FROM_16: [&str; 8] =
        ["IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS"];
    let name = (kind as usize).checked_sub(16).and_then(|at| FROM_16.get(at));
    name.map_or_else(|| format!("number {kind}"), ToString::to_string)
}

#[cfg(test)]
mod tests;
