use std::fs::File;
use std::io::{BufRead, BufReader, Read};
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

/// Names of a column, as traces call it.
const ARRIVAL: [&str; 3] = ["arrived_at", "TIMESTAMP", "arrival_s"];
const PROMPT: [&str; 3] = ["prompt_tokens", "ContextTokens", "input_tokens"];
const OUTPUT: [&str; 2] = ["output_tokens", "GeneratedTokens"];

/// A line longer than this is no line of a trace.
const LONGEST_LINE: u64 = 1 << 20;

/// Reads a recorded trace: Azure's CSV (`TIMESTAMP,ContextTokens,GeneratedTokens`, with dates), a
/// CSV with `arrived_at,prompt_tokens,output_tokens` (seconds), a CSV of lengths alone
/// (`prompt_tokens,output_tokens`), or Mooncake's JSON lines (`timestamp` in milliseconds,
/// `input_length`, `output_length`). Arrivals have to be in order.
pub fn read_recorded(path: &Path) -> Result<Vec<RecordedRequest>, WorkloadError> {
    let io = |cause| WorkloadError::Io { path: path.to_owned(), cause };
    let mut text = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut text)).map_err(io)?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    let rows = match first {
        None => return Err(file_error(path, "it is empty")),
        Some(b'{') => read_json_lines(path, text)?,
        Some(_) => read_csv(path, text)?,
    };
    if rows.is_empty() {
        return Err(file_error(path, "it has a header and no requests"));
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn file_error(path: &Path, cause: impl Into<String>) -> WorkloadError {
    WorkloadError::File { path: path.to_owned(), cause: cause.into() }
}

fn line_error(path: &Path, line: u64, cause: impl Into<String>) -> WorkloadError {
    WorkloadError::Line { path: path.to_owned(), line, cause: cause.into() }
}

type Rows = Vec<(u64, RecordedRequest)>;

fn read_csv(path: &Path, text: &[u8]) -> Result<Rows, WorkloadError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
    let wrong = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        line_error(path, line, format!("not a line of CSV: {}", csv_cause(&error)))
    };
    let header = reader.headers().map_err(wrong)?.clone();
    let column = |names: &[&str]| -> Result<Option<usize>, WorkloadError> {
        let mut found = (0..header.len()).filter(|i| names.contains(&&header[*i]));
        let column = found.next();
        match found.next() {
            Some(twice) => {
                Err(line_error(path, 1, format!("column `{}` is there twice", &header[twice])))
            }
            None => Ok(column),
        }
    };
    let required = |names: &[&str]| {
        column(names)?.ok_or_else(|| {
            let there = header.iter().collect::<Vec<_>>().join(", ");
            let names = names.join(" or ");
            line_error(path, 1, format!("there is no column {names}; there are {there}"))
        })
    };
    let (prompt, output, arrival) = (required(&PROMPT)?, required(&OUTPUT)?, column(&ARRIVAL)?);
    let mut rows = Rows::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |column: usize| (&header[column], record.get(column).unwrap_or_default());
        let tokens = |column| {
            let (name, text) = field(column);
            tokens(text).ok_or_else(|| {
                line_error(
                    path,
                    line,
                    format!("{name} is `{text}`; it must be a whole number from 1"),
                )
            })
        };
        let arrived_at = arrival.map(|column| {
            let (name, text) = field(column);
            time(text).ok_or_else(|| {
                let allowed = "seconds, or a date as in 2023-11-16 18:15:46.6805900";
                line_error(path, line, format!("{name} is `{text}`; it must be {allowed}"))
            })
        });
        let row = RecordedRequest {
            arrived_at: arrived_at.transpose()?,
            prompt_tokens: tokens(prompt)?,
            output_tokens: tokens(output)?,
        };
        push_in_order(path, &mut rows, line, row)?;
    }
    Ok(rows)
}

fn csv_cause(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} fields, and the header {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

fn tokens(text: &str) -> Option<u32> {
    text.parse().ok().filter(|tokens| *tokens >= 1)
}

/// Seconds: a number, or a date.
fn time(text: &str) -> Option<f64> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    seconds.or_else(|| {
        let date: DateTime = text.parse().ok()?;
        let nanos = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_nanosecond();
        // Relative to a day near the traces', so that an f64 still holds microseconds.
        Some((nanos - 1_600_000_000_000_000_000) as f64 / 1e9)
    })
}

fn push_in_order(
    path: &Path,
    rows: &mut Rows,
    line: u64,
    row: RecordedRequest,
) -> Result<(), WorkloadError> {
    let before = rows.last().and_then(|(_, before)| before.arrived_at);
    if let (Some(before), Some(now)) = (before, row.arrived_at)
        && now < before
    {
        let by = before - now;
        let cause =
            format!("the time goes back by {by:.3} s; requests must be in order of arrival");
        return Err(line_error(path, line, cause));
    }
    rows.push((line, row));
    Ok(())
}

/// A line of Mooncake's trace.
#[derive(Deserialize)]
struct MooncakeLine {
    /// Milliseconds.
    timestamp: f64,
    input_length: u32,
    output_length: u32,
}

fn read_json_lines(path: &Path, text: &[u8]) -> Result<Rows, WorkloadError> {
    let mut rows = Rows::new();
    let mut reader = BufReader::new(text);
    for line in 1.. {
        let mut bytes = Vec::new();
        let read = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut bytes);
        let read = read.map_err(|cause| WorkloadError::Io { path: path.to_owned(), cause })?;
        if read == 0 {
            break;
        }
        if read as u64 == LONGEST_LINE {
            return Err(line_error(path, line, "the line is longer than 1 MiB"));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let parsed: MooncakeLine = serde_json::from_slice(&bytes).map_err(|error| {
            line_error(
                path,
                line,
                format!(
                    "not a request ({error}); a line is {{\"timestamp\": ms, \"input_length\": n, \
                 \"output_length\": n}}"
                ),
            )
        })?;
        for (name, tokens) in
            [("input_length", parsed.input_length), ("output_length", parsed.output_length)]
        {
            if tokens == 0 {
                return Err(line_error(path, line, format!("{name} is 0; it must be at least 1")));
            }
        }
        let row = RecordedRequest {
            arrived_at: Some(parsed.timestamp / 1e3),
            prompt_tokens: parsed.input_length,
            output_tokens: parsed.output_length,
        };
        push_in_order(path, &mut rows, line, row)?;
    }
    Ok(rows)
}
