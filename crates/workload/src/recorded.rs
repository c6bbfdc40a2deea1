use std::fs::File;
use std::io::Read;
use std::path::Path;

use jiff::civil::DateTime;
use serde::Deserialize;

use crate::error::WorkloadError;

/// One request of a recorded trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecordedRequest {
    /// Seconds from any fixed instant; `None` in a file of lengths alone.
    pub arrived_at: Option<f64>,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Length of the output.
    pub output_tokens: u32,
}

/// Names of a column, as traces call it: ours, Azure's, Vidur's and Etalon's, others'.
const ARRIVAL: [&str; 3] = ["arrived_at", "TIMESTAMP", "arrival_s"];
const PROMPT: [&str; 4] = ["prompt_tokens", "ContextTokens", "num_prefill_tokens", "input_tokens"];
const OUTPUT: [&str; 3] = ["output_tokens", "GeneratedTokens", "num_decode_tokens"];

/// A file larger than this is no trace that one run can replay.
const LARGEST_FILE: u64 = 1 << 30;
/// A line longer than this is no line of a trace.
const LONGEST_LINE: usize = 1 << 20;

/// Reads a recorded trace: Azure's CSV (`TIMESTAMP,ContextTokens,GeneratedTokens`, with dates), a
/// CSV with `arrived_at,prompt_tokens,output_tokens` (seconds), a CSV of lengths alone
/// (`prompt_tokens,output_tokens`, or Vidur's `num_prefill_tokens,num_decode_tokens`; other columns
/// are ignored), or Mooncake's JSON lines (`timestamp` in milliseconds, `input_length`,
/// `output_length`). Arrivals have to be in order.
pub fn read_recorded(path: &Path) -> Result<Vec<RecordedRequest>, WorkloadError> {
    let source = Source { path };
    let bytes = source.bytes()?;
    let text = source.text(&bytes)?;
    let rows = match text.trim_start().chars().next() {
        None => return Err(source.error("it is empty")),
        Some('{') => source.json_lines(text)?,
        Some(_) => source.csv(text)?,
    };
    if rows.is_empty() {
        return Err(source.error("it has a header and no requests"));
    }
    Ok(rows)
}

/// The file that errors name.
struct Source<'a> {
    path: &'a Path,
}

impl Source<'_> {
    fn error(&self, cause: impl Into<String>) -> WorkloadError {
        WorkloadError::File { path: self.path.to_owned(), cause: cause.into() }
    }

    fn line_error(&self, line: u64, cause: impl Into<String>) -> WorkloadError {
        WorkloadError::Line { path: self.path.to_owned(), line, cause: cause.into() }
    }

    fn bytes(&self) -> Result<Vec<u8>, WorkloadError> {
        let mut bytes = Vec::new();
        File::open(self.path)
            .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
            .map_err(|cause| WorkloadError::Io { path: self.path.to_owned(), cause })?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(self.error("it is larger than 1 GiB; cut it to the requests to replay"));
        }
        Ok(bytes)
    }

    /// The file without its byte order mark, and with no line too long.
    fn text<'b>(&self, bytes: &'b [u8]) -> Result<&'b str, WorkloadError> {
        let text = str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
            self.line_error(line as u64, "it is not UTF-8")
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match (1..).zip(text.lines()).find(|(_, line)| line.len() > LONGEST_LINE) {
            Some((line, _)) => Err(self.line_error(line, "the line is longer than 1 MiB")),
            None => Ok(text),
        }
    }

    fn csv(&self, text: &str) -> Result<Vec<RecordedRequest>, WorkloadError> {
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let wrong = |error: csv::Error| {
            let line = error.position().map_or(1, csv::Position::line);
            self.line_error(line, format!("not a line of CSV: {}", csv_cause(&error)))
        };
        let header = reader.headers().map_err(wrong)?.clone();
        let columns = Columns::find(&header).map_err(|cause| self.line_error(1, cause))?;
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(wrong)?;
            let line = record.position().map_or(0, csv::Position::line);
            let row = columns.read(&header, &record);
            row.and_then(|row| push_in_order(&mut rows, row))
                .map_err(|cause| self.line_error(line, cause))?;
        }
        Ok(rows)
    }

    fn json_lines(&self, text: &str) -> Result<Vec<RecordedRequest>, WorkloadError> {
        let mut rows = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let row =
                serde_json::from_str::<MooncakeLine>(line).map_err(|error| json_cause(&error));
            row.and_then(MooncakeLine::checked)
                .and_then(|row| push_in_order(&mut rows, row))
                .map_err(|cause| self.line_error(number, cause))?;
        }
        Ok(rows)
    }
}

/// Where a CSV has what is read of it.
struct Columns {
    arrival: Option<usize>,
    prompt: usize,
    output: usize,
}

impl Columns {
    fn find(header: &csv::StringRecord) -> Result<Self, String> {
        let column = |names: &[&str]| {
            let mut found = (0..header.len()).filter(|i| names.contains(&&header[*i]));
            match (found.next(), found.next()) {
                (_, Some(twice)) => Err(format!("column `{}` is there twice", &header[twice])),
                (column, None) => Ok(column),
            }
        };
        let required = |names: &[&str]| {
            column(names)?.ok_or_else(|| {
                let there = header.iter().collect::<Vec<_>>().join(", ");
                let there = shown(&there, 200);
                format!("there is no column {}; there are {there}", names.join(" or "))
            })
        };
        Ok(Self {
            prompt: required(&PROMPT)?,
            output: required(&OUTPUT)?,
            arrival: column(&ARRIVAL)?,
        })
    }

    fn read(
        &self,
        header: &csv::StringRecord,
        record: &csv::StringRecord,
    ) -> Result<RecordedRequest, String> {
        let refused = |column: usize, allowed: &str| {
            let text = shown(&record[column], 40);
            format!("{} is `{text}`; it must be {allowed}", &header[column])
        };
        let tokens = |column: usize| {
            let tokens = record[column].parse().ok().filter(|tokens| *tokens >= 1);
            tokens.ok_or_else(|| refused(column, "a whole number from 1"))
        };
        let arrived_at = self.arrival.map(|column| {
            seconds(&record[column]).ok_or_else(|| {
                refused(column, "seconds, or a date as in 2023-11-16 18:15:46.6805900")
            })
        });
        Ok(RecordedRequest {
            arrived_at: arrived_at.transpose()?,
            prompt_tokens: tokens(self.prompt)?,
            output_tokens: tokens(self.output)?,
        })
    }
}

/// A text that a message can hold.
fn shown(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn csv_cause(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the header has {expected_len} fields, and it {len}")
        }
        _ => error.to_string(),
    }
}

/// Seconds: a number, or a date.
fn seconds(text: &str) -> Option<f64> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    seconds.or_else(|| {
        // A date with an offset, `Z` among them, and then one without.
        let instant = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            let date: DateTime = text.parse().ok()?;
            Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
        });
        let nanos = instant?.as_nanosecond();
        // Relative to a day near the traces', so that an f64 still holds microseconds.
        Some((nanos - 1_600_000_000_000_000_000) as f64 / 1e9)
    })
}

fn push_in_order(rows: &mut Vec<RecordedRequest>, row: RecordedRequest) -> Result<(), String> {
    let before = rows.last().and_then(|before| before.arrived_at);
    if let (Some(before), Some(now)) = (before, row.arrived_at)
        && now < before
    {
        let by = before - now;
        return Err(format!(
            "the time goes back by {by:.3} s; requests must be in order of arrival"
        ));
    }
    rows.push(row);
    Ok(())
}

/// A line of Mooncake's trace; what else it has is ignored.
#[derive(Deserialize)]
struct MooncakeLine {
    /// Milliseconds.
    timestamp: f64,
    input_length: u32,
    output_length: u32,
}

impl MooncakeLine {
    fn checked(self) -> Result<RecordedRequest, String> {
        let lengths = [("input_length", self.input_length), ("output_length", self.output_length)];
        match lengths.into_iter().find(|(_, tokens)| *tokens == 0) {
            Some((name, _)) => Err(format!("{name} is 0; it must be at least 1")),
            None => Ok(RecordedRequest {
                arrived_at: Some(self.timestamp / 1e3),
                prompt_tokens: self.input_length,
                output_tokens: self.output_length,
            }),
        }
    }
}

/// The cause without serde's own line number, which counts from the line.
fn json_cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let cause = text.rsplit_once(" at line ").map_or(text.as_str(), |(cause, _)| cause);
    format!(
        "not a request ({cause}, column {}); a line is {{\"timestamp\": ms, \"input_length\": n, \
         \"output_length\": n}}",
        error.column()
    )
}
