//! The same seed gives the same requests; recorded traces are read in their published forms.

use std::io::Write;
use std::path::Path;

use metron_workload::{
    Arrivals, Class, Lengths, Prompts, TooLong, Vocabulary, WorkloadError, WorkloadSpec, generate,
    read_recorded,
};
use proptest::prelude::*;

fn spec(request_rate: f64) -> WorkloadSpec {
    let class = |weight, prompt_tokens| Class {
        name: String::new(),
        weight,
        priority: 0,
        lengths: Lengths::Uniform { prompt_tokens, output_tokens: [1, 40] },
    };
    WorkloadSpec {
        num_prompts: 200,
        arrivals: Arrivals::Gamma { request_rate, burstiness: 1.0 },
        max_concurrency: None,
        classes: vec![class(4.0, [5, 50]), class(1.0, [500, 600])],
        prompts: Prompts::Random,
        temperature: 0.0,
        stop_at_eos: false,
    }
}

fn vocabulary() -> Vocabulary {
    Vocabulary { ordinary: (100..200).collect(), text: None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_same_seed_gives_the_same_requests(seed in any::<u64>(), replicate in 0_u32..5) {
        let make = || generate(&spec(2.0), &vocabulary(), seed, replicate).unwrap();
        prop_assert_eq!(make(), make());
        let other = generate(&spec(2.0), &vocabulary(), seed, replicate + 1).unwrap();
        prop_assert_ne!(make().lengths(), other.lengths());
    }

    /// The streams are independent: another rate changes the times and nothing else.
    #[test]
    fn another_rate_changes_the_arrivals_alone(seed in any::<u64>()) {
        let slow = generate(&spec(1.0), &vocabulary(), seed, 0).unwrap();
        let mut fast = generate(&spec(3.0), &vocabulary(), seed, 0).unwrap();
        for (fast, slow) in fast.requests.iter_mut().zip(&slow.requests) {
            fast.arrived_at = slow.arrived_at;
        }
        prop_assert_eq!(slow, fast);
    }

    #[test]
    fn prompts_have_exactly_their_length(seed in any::<u64>()) {
        let text = Vocabulary { ordinary: Vec::new(), text: Some(vec![1, 2, 3]) };
        for vocabulary in [vocabulary(), text] {
            let workload = generate(&spec(2.0), &vocabulary, seed, 0).unwrap();
            for (request, prompt) in workload.requests.iter().zip(&workload.prompts) {
                prop_assert_eq!(request.prompt_tokens as usize, prompt.len());
            }
        }
    }

    #[test]
    fn what_is_too_long_is_dropped_or_cut(seed in any::<u64>(), limit in 20_u32..400) {
        let whole = generate(&spec(2.0), &vocabulary(), seed, 0).unwrap();
        let (mut dropped, mut cut) = (whole.clone(), whole.clone());
        dropped.fit(limit, TooLong::Drop).unwrap();
        cut.fit(limit, TooLong::Truncate).unwrap();
        prop_assert!(dropped.longest() <= limit && cut.longest() <= limit);
        prop_assert_eq!(dropped.requests.len() + dropped.dropped as usize, whole.requests.len());
        prop_assert_eq!(cut.requests.len(), whole.requests.len());
        prop_assert_eq!(cut.truncated, dropped.dropped);
        for (request, prompt) in cut.requests.iter().zip(&cut.prompts) {
            prop_assert_eq!(request.prompt_tokens as usize, prompt.len());
        }
    }
}

#[test]
fn classes_are_drawn_by_their_weights() {
    let workload = generate(&spec(2.0), &vocabulary(), 1, 0).expect("the spec is fine");
    let long = workload.requests.iter().filter(|request| request.class == 1).count();
    // 40 expected of 200, with a standard deviation of 5.7.
    assert!((20..=60).contains(&long), "{long}");
}

#[test]
fn requests_that_are_too_long_are_refused_with_their_count_and_the_longest() {
    let mut workload = generate(&spec(2.0), &vocabulary(), 1, 0).expect("the spec is fine");
    let error = workload.fit(100, TooLong::Error).expect_err("some are longer").to_string();
    assert!(error.contains("of 200 requests are longer than the 100 tokens"), "{error}");
    assert!(error.contains("--too-long drop"), "{error}");
}

fn check_bad(change: impl FnOnce(&mut WorkloadSpec), expected: &str) {
    let mut spec = spec(2.0);
    change(&mut spec);
    let error = generate(&spec, &vocabulary(), 0, 0).expect_err("it can't be").to_string();
    assert_eq!(error, expected);
}

#[test]
fn numbers_that_can_not_be_are_refused() {
    check_bad(|s| s.num_prompts = 0, "num_prompts is 0; it must be at least 1");
    check_bad(|s| s.max_concurrency = Some(0), "max_concurrency is 0; it must be at least 1");
    check_bad(
        |s| s.arrivals = Arrivals::Gamma { request_rate: -1.0, burstiness: 1.0 },
        "request_rate is -1; it must be a number above 0",
    );
    check_bad(
        |s| s.arrivals = Arrivals::Gamma { request_rate: f64::NAN, burstiness: 1.0 },
        "request_rate is NaN; it must be a number above 0",
    );
    check_bad(
        |s| {
            s.classes[0].lengths = Lengths::Uniform { prompt_tokens: [9, 3], output_tokens: [1, 1] }
        },
        "prompt_tokens is 9 to 3; it must be at least 1, and the first not above the second",
    );
    check_bad(|s| s.classes.clear(), "weight is []; it must be above 0, of at least one class");
}

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
        ":1: there is no column output_tokens or GeneratedTokens; there are arrived_at, prompt_tokens",
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
    check_refused(b"prompt_tokens,output_tokens\n5\n", ":2: not a line of CSV: it has 1 fields");
    check_refused(
        b"arrived_at,prompt_tokens,output_tokens\n2,1,1\n1,1,1\n",
        ":3: the time goes back by 1.000 s",
    );
    check_refused(b"arrived_at,prompt_tokens,output_tokens\nNaN,1,1\n", ":2: arrived_at is `NaN`");
    check_refused(b"prompt_tokens,output_tokens\n\xff,1\n", "UTF-8");
    check_refused(b"{\"timestamp\": 0}\n", ":1: not a request (missing field `input_length`");
    check_refused(
        b"{\"timestamp\": 0, \"input_length\": 0, \"output_length\": 1}\n",
        ":1: input_length is 0; it must be at least 1",
    );
}

#[test]
fn a_trace_too_short_is_refused_and_one_without_times_too() {
    let short = file(b"arrived_at,prompt_tokens,output_tokens\n1,2,3\n");
    let recorded = |path: &Path| {
        let mut spec = spec(2.0);
        spec.arrivals = Arrivals::Recorded { path: path.to_owned(), speed: 1.0 };
        generate(&spec, &vocabulary(), 0, 0).map(|_| ())
    };
    let error = recorded(short.path()).expect_err("it has one request").to_string();
    assert!(error.contains("it has 1 requests, fewer than the 200 asked for"), "{error}");

    let rows = "1,2\n".repeat(200);
    let lengths = file(format!("prompt_tokens,output_tokens\n{rows}").as_bytes());
    let error = recorded(lengths.path()).expect_err("it has no times").to_string();
    assert!(error.contains("it has lengths but no arrival times"), "{error}");
}

#[test]
fn a_spec_reads_back_as_it_was_written_and_refuses_unknown_keys() {
    let text = toml::to_string(&spec(2.0)).expect("it has a form in TOML");
    assert_eq!(toml::from_str::<WorkloadSpec>(&text).expect("it is a spec"), spec(2.0));
    let error = toml::from_str::<WorkloadSpec>(&format!("num_promts = 3\n{text}"));
    assert!(
        error.expect_err("the key is unknown").to_string().contains("unknown field `num_promts`")
    );
}
