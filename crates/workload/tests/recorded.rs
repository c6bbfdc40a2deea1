//! Recorded traces are read in their published forms, and what is wrong with one is said.

use std::io::Write;

use metron_workload::{WorkloadError, read_recorded};

fn file(text: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file for the test");
    file.write_all(text).expect("the disk has room");
    file
}

/// Reads a trace as (arrival after the first, prompt, output).
fn read(text: &[u8]) -> Result<Vec<(f64, u32, u32)>, WorkloadError> {
    let rows = read_recorded(file(text).path())?;
    let first = rows[0].arrived_at.unwrap_or(0.0);
    Ok(rows
        .iter()
        .map(|r| (r.arrived_at.map_or(-1.0, |at| at - first), r.prompt_tokens, r.output_tokens))
        .collect())
}

#[test]
fn azures_published_form_is_read() {
    let rows = read(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n\
          2023-11-16 18:15:46.6805900,374,44\n\
          2023-11-16 18:15:50.9951690,396,109\n",
    )
    .expect("it is well-formed");
    assert_eq!((rows[0].1, rows[0].2, rows[1].1, rows[1].2), (374, 44, 396, 109));
    assert!((rows[1].0 - 4.314_579).abs() < 1e-5, "{}", rows[1].0);
}

#[test]
fn an_offset_from_utc_counts() {
    let rows = read(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n\
          2023-11-16T02:30:00+02:00,1,1\n\
          2023-11-16 01:10:00Z,2,1\n\
          2023-11-16T03:20:00+02:00,3,1\n",
    );
    assert_eq!(rows.expect("it is well-formed"), [(0.0, 1, 1), (2400.0, 2, 1), (3000.0, 3, 1)]);
}

#[test]
fn mooncakes_published_form_is_read() {
    let rows = read(
        b"{\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1]}\n\
          {\"timestamp\": 3052, \"input_length\": 7322, \"output_length\": 490, \"hash_ids\": [0]}\n",
    );
    assert_eq!(rows.expect("it is well-formed"), [(0.0, 6758, 500), (3.052, 7322, 490)]);
}

#[test]
fn a_plain_csv_is_read_with_a_mark_and_other_line_ends() {
    let rows =
        read(b"\xef\xbb\xbfarrived_at,prompt_tokens,output_tokens\r\n1.5,10,2\r\n2,20,3\r\n");
    assert_eq!(rows.expect("it is well-formed"), [(0.0, 10, 2), (0.5, 20, 3)]);
}

#[test]
fn lengths_alone_are_read_as_lengths() {
    let rows = read(b"prompt_tokens,output_tokens\n74,918\n").expect("it is well-formed");
    assert_eq!(rows, [(-1.0, 74, 918)]);
}

fn check_refused(text: &[u8], expected: &str) {
    let error = read(text).expect_err("it is wrong").to_string();
    assert!(error.contains(expected), "{error}\nis not\n{expected}");
}

#[test]
fn traces_that_are_wrong_say_where_and_what_is_allowed() {
    check_refused(b"", "it is empty");
    check_refused(b"prompt_tokens,output_tokens\n", "it has a header and no requests");
    check_refused(
        b"arrived_at,prompt_tokens\n1,2\n",
        ":1: there is no column output_tokens or GeneratedTokens or num_decode_tokens; there are \
         arrived_at, prompt_tokens",
    );
    check_refused(
        b"prompt_tokens,input_tokens,output_tokens\n1,2,3\n",
        ":1: column `input_tokens` is there twice",
    );
    check_refused(
        b"prompt_tokens,output_tokens\n5,1\nmany,1\n",
        ":3: prompt_tokens is `many`; it must be a whole number from 1",
    );
    check_refused(b"prompt_tokens,output_tokens\n5,0\n", ":2: output_tokens is `0`");
    check_refused(b"prompt_tokens,output_tokens\n-5,1\n", ":2: prompt_tokens is `-5`");
    check_refused(b"prompt_tokens,output_tokens\n5.5,1\n", ":2: prompt_tokens is `5.5`");
    check_refused(
        b"prompt_tokens,output_tokens\n5\n",
        ":2: not a line of CSV: the header has 2 fields, and it 1",
    );
    check_refused(
        b"arrived_at,prompt_tokens,output_tokens\n2,1,1\n1,1,1\n",
        ":3: the time goes back by 1.000 s",
    );
    check_refused(b"arrived_at,prompt_tokens,output_tokens\nNaN,1,1\n", ":2: arrived_at is `NaN`");
    check_refused(b"prompt_tokens,output_tokens\n5,1\n\xff,1\n", ":3: it is not UTF-8");
    check_refused(
        b"prompt_tokens,output_tokens\n\"5,1\n6,1\n",
        ":2: not a line of CSV: the header has 2 fields, and it 1",
    );
    check_refused(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n\
          2023-11-16 18:15:50.9951690,396,109\n\
          2023-11-16 18:15:46.6805900,374,44\n",
        ":3: the time goes back by 4.315 s",
    );
    check_refused(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,396,109\n",
        ":2: TIMESTAMP is `yesterday`; it must be seconds, or a date as in 2023-11-16",
    );
    check_refused(b"{\"timestamp\": 0}\n", ":1: not a request (missing field `input_length`");
    check_refused(
        b"{\"timestamp\": 0, \"input_length\": 0, \"output_length\": 1}\n",
        ":1: input_length is 0; it must be at least 1",
    );
    let good = "{\"timestamp\": 9, \"input_length\": 1, \"output_length\": 1}\n";
    let fractional = good.replace("\"input_length\": 1", "\"input_length\": 1.5");
    check_refused(
        format!("{good}\n{fractional}").as_bytes(),
        ":3: not a request (invalid type: floating point `1.5`, expected u32, column 36)",
    );
    let earlier = good.replace('9', "8");
    check_refused(format!("{good}{earlier}").as_bytes(), ":2: the time goes back by 0.001 s");
}

#[test]
fn a_line_too_long_is_refused_and_never_shown() {
    let digits = "1".repeat(1 << 21);
    check_refused(
        format!("prompt_tokens,output_tokens\n5,1\n{digits},1\n").as_bytes(),
        ":3: the line is longer than 1 MiB",
    );
    check_refused(
        format!("{{\"timestamp\": {digits}}}").as_bytes(),
        ":1: the line is longer than 1 MiB",
    );
    let error = read(format!("prompt_tokens,output_tokens\n{},1\n", &digits[..9999]).as_bytes());
    let message = error.expect_err("it is no length").to_string();
    assert!(message.len() < 300 && message.contains("111...`"), "{message}");
}

#[test]
fn other_names_of_the_columns_are_known_and_other_columns_ignored() {
    let rows = read(b"arrived_at,num_prefill_tokens,num_decode_tokens,pd_ratio\n0,8,2,4.0\n");
    assert_eq!(rows.expect("it is Vidur's form"), [(0.0, 8, 2)]);
    let rows = read(b"arrival_s,client,input_tokens,output_tokens\n0.5,13,13,199\n");
    assert_eq!(rows.expect("it is well-formed"), [(0.0, 13, 199)]);
}
