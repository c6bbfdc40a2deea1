//! The messages of an Arrow IPC stream. Each is checked before Arrow decodes it, since Arrow panics
//! on some lengths that can't be and asks the system for as much memory as others say.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::read_record_batch;
use arrow_ipc::{Message, MessageHeader, root_as_message};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};

/// The four bytes that every message begins with.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Limits beyond which no trace goes. A message's metadata has some 50 bytes a column.
const MAX_METADATA: u64 = 1 << 20;
const MAX_ROWS: u64 = 1 << 24;
/// Bytes of a row in a column: the longest word that a table has is shorter.
const MAX_VALUE: u64 = 64;
/// LZ4 makes nothing smaller by more than this.
const MAX_COMPRESSION: u64 = 255;

/// One table's file, batch by batch.
pub(super) struct Messages {
    file: BufReader<File>,
    /// Bytes of the file that have not been read.
    left: u64,
    schema: Option<SchemaRef>,
}

/// What comes next in a table's file.
pub(super) enum Next {
    /// A whole batch.
    Batch(RecordBatch),
    /// The mark that closes a table, and nothing behind it.
    Closed,
    /// The end of the file, before that mark.
    CutOff,
}

/// A message's head and body.
struct Whole {
    metadata: Vec<u8>,
    body: Vec<u8>,
}

impl Messages {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let left = file.metadata()?.len();
        Ok(Self { file: BufReader::new(file), left, schema: None })
    }

    /// The next batch, or how the file ends.
    pub(super) fn next(&mut self) -> Result<Next, ArrowError> {
        loop {
            let Some(length) = self.metadata_length()? else { return Ok(Next::CutOff) };
            if length == 0 {
                return match self.left {
                    0 => Ok(Next::Closed),
                    left => Err(wrong(format!("{left} bytes follow the end of the table"))),
                };
            }
            let Some(whole) = self.message(length)? else { return Ok(Next::CutOff) };
            let schema = self.schema.take();
            let decoded = guarded(|| whole.decode(schema))?;
            match decoded {
                Decoded::Schema(schema) => self.schema = Some(schema),
                Decoded::Batch(schema, batch) => {
                    self.schema = Some(schema);
                    return Ok(Next::Batch(batch));
                }
            }
        }
    }

    /// Bytes of the next message's metadata, 0 for the mark that closes the table; `None` if the
    /// file ends before.
    fn metadata_length(&mut self) -> Result<Option<u64>, ArrowError> {
        let Some(head) = self.read(8)? else { return Ok(None) };
        let (mark, length) = head.split_at(4);
        if mark != CONTINUATION {
            return Err(wrong(format!("no message begins {} bytes before its end", self.left + 8)));
        }
        let length = u64::from(u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
        if length > MAX_METADATA {
            return Err(wrong(format!("a message's metadata would have {length} bytes")));
        }
        Ok(Some(length))
    }

    /// A message of so many bytes of metadata; `None` if the file ends before its end.
    fn message(&mut self, length: u64) -> Result<Option<Whole>, ArrowError> {
        let Some(metadata) = self.read(length)? else { return Ok(None) };
        let body = parse(&metadata)?.bodyLength();
        let body = u64::try_from(body)
            .map_err(|_| wrong(format!("a message's body would have {body} bytes")))?;
        Ok(self.read(body)?.map(|body| Whole { metadata, body }))
    }

    /// So many bytes; `None` if the file has not so many any more.
    fn read(&mut self, bytes: u64) -> Result<Option<Vec<u8>>, ArrowError> {
        if bytes > self.left {
            return Ok(None);
        }
        let mut read = vec![0; bytes as usize];
        self.file.read_exact(&mut read)?;
        self.left -= bytes;
        Ok(Some(read))
    }
}

/// What a message was.
enum Decoded {
    Schema(SchemaRef),
    /// With the schema that it was read by.
    Batch(SchemaRef, RecordBatch),
}

impl Whole {
    fn decode(self, schema: Option<SchemaRef>) -> Result<Decoded, ArrowError> {
        let message = parse(&self.metadata)?;
        match (message.header_type(), schema) {
            (MessageHeader::Schema, None) => {
                let schema = message.header_as_schema().ok_or_else(|| wrong("no schema"))?;
                let schema = try_fb_to_schema(schema)?;
                check_schema(&schema)?;
                Ok(Decoded::Schema(Arc::new(schema)))
            }
            (MessageHeader::RecordBatch, Some(schema)) => {
                let batch = message.header_as_record_batch().ok_or_else(|| wrong("no batch"))?;
                check_batch(&batch, &self.body)?;
                let (none, version) = (HashMap::new(), message.version());
                let body = self.body.into();
                let read =
                    read_record_batch(&body, batch, Arc::clone(&schema), &none, None, &version)?;
                Ok(Decoded::Batch(schema, read))
            }
            (MessageHeader::Schema, Some(_)) => Err(wrong("there are two schemas")),
            (MessageHeader::RecordBatch, None) => Err(wrong("a batch comes before the schema")),
            (other, _) => Err(wrong(format!("a message is neither schema nor batch: {other:?}"))),
        }
    }
}

fn parse(metadata: &[u8]) -> Result<Message<'_>, ArrowError> {
    root_as_message(metadata).map_err(|error| wrong(format!("a message is damaged: {error}")))
}

/// Only flat columns, so that nothing is nested and nothing refers to other messages.
fn check_schema(schema: &Schema) -> Result<(), ArrowError> {
    use DataType::{Float32, Int32, UInt32, UInt64, Utf8};
    let is_ours = |kind: &DataType| matches!(kind, Float32 | Int32 | UInt32 | UInt64 | Utf8);
    match schema.fields().iter().find(|field| !is_ours(field.data_type())) {
        Some(field) => Err(wrong(format!("column `{}` holds {}", field.name(), field.data_type()))),
        None => Ok(()),
    }
}

/// Everything that a batch says of its body.
fn check_batch(batch: &arrow_ipc::RecordBatch<'_>, body: &[u8]) -> Result<(), ArrowError> {
    let rows = whole(batch.length(), MAX_ROWS, "rows")?;
    for node in batch.nodes().into_iter().flatten() {
        if node.length() != batch.length() {
            let length = node.length();
            return Err(wrong(format!("a column of {length} rows in a batch of {rows}")));
        }
        whole(node.null_count(), rows, "nulls")?;
    }
    let is_compressed = batch.compression().is_some();
    for buffer in batch.buffers().into_iter().flatten() {
        let len = body.len() as u64;
        let from = whole(buffer.offset(), len, "bytes before a column")?;
        let bytes = whole(buffer.length(), len - from, "bytes of a column")?;
        let column = &body[from as usize..][..bytes as usize];
        if is_compressed && !column.is_empty() {
            check_compressed(column, (rows + 1) * MAX_VALUE)?;
        }
    }
    Ok(())
}

/// A compressed column begins with its length when it is not; -1 says that it isn't compressed.
fn check_compressed(column: &[u8], most: u64) -> Result<(), ArrowError> {
    let Some((prefix, packed)) = column.split_first_chunk::<8>() else {
        return Err(wrong("a compressed column without its length"));
    };
    let length = i64::from_le_bytes(*prefix);
    if length != -1 {
        let most = most.min(packed.len() as u64 * MAX_COMPRESSION);
        whole(length, most, "bytes of a column once it is unpacked")?;
    }
    Ok(())
}

/// A number from 0 to `most`.
fn whole(number: i64, most: u64, what: &str) -> Result<u64, ArrowError> {
    u64::try_from(number)
        .ok()
        .filter(|number| *number <= most)
        .ok_or_else(|| wrong(format!("{number} {what}; at most {most} are possible")))
}

/// Runs Arrow's code on bytes that have been read: what it refuses is wrong with them, and a panic
/// that no check foresaw too.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(|error| match error {
            ArrowError::IoError(cause, _) => wrong(cause),
            other => other,
        }),
        Err(_) => Err(wrong("it can't be decoded")),
    }
}

fn wrong(what: impl Into<String>) -> ArrowError {
    ArrowError::IpcError(what.into())
}
