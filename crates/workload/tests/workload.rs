//! The same seed gives the same requests, and what can not be asked for is refused.

use std::io::Write;
use std::path::Path;

use metron_trace::Request;
use metron_workload::{
    Arrivals, Class, Lengths, Prompts, TooLong, Vocabulary, WorkloadError, WorkloadSpec, generate,
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
    fn other_lengths_change_the_prompts_alone(seed in any::<u64>()) {
        let mut longer = spec(2.0);
        longer.classes[0].lengths = Lengths::Fixed { prompt_tokens: 90, output_tokens: 9 };
        let (some, other) =
            [spec(2.0), longer].map(|spec| generate(&spec, &vocabulary(), seed, 0).unwrap()).into();
        for (some, other) in some.requests.iter().zip(&other.requests) {
            prop_assert_eq!(some.arrived_at, other.arrived_at);
            prop_assert_eq!((some.class, some.sampling), (other.class, other.sampling));
        }
    }

    /// In virtual time there are no tokens; the requests are the same.
    #[test]
    fn another_vocabulary_changes_the_prompts_alone(seed in any::<u64>()) {
        let real = generate(&spec(2.0), &vocabulary(), seed, 0).unwrap();
        let virtual_time = generate(&spec(2.0), &Vocabulary::default(), seed, 0).unwrap();
        prop_assert_eq!(real.requests, virtual_time.requests);
        prop_assert!(virtual_time.prompts.iter().all(Vec::is_empty));
    }

    #[test]
    fn more_requests_are_the_same_ones_and_then_others(seed in any::<u64>(), count in 1_u32..200) {
        let fewer = WorkloadSpec { num_prompts: count, ..spec(2.0) };
        let fewer = generate(&fewer, &vocabulary(), seed, 0).unwrap();
        let all = generate(&spec(2.0), &vocabulary(), seed, 0).unwrap();
        prop_assert_eq!(&fewer.requests[..], &all.requests[..count as usize]);
        prop_assert_eq!(&fewer.prompts[..], &all.prompts[..count as usize]);
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

/// A policy sees the cap, so it must not be what was drawn.
#[test]
fn a_drawn_length_is_a_cap_only_where_an_end_of_sequence_token_may_come_before_it() {
    let make = |stop_at_eos| {
        let spec = WorkloadSpec { stop_at_eos, ..spec(2.0) };
        generate(&spec, &vocabulary(), 1, 0).expect("the spec is fine")
    };
    let (drawn, capped) = (make(false), make(true));
    assert_eq!(drawn.lengths(), capped.lengths());
    assert!(drawn.requests.iter().all(|request| request.max_tokens == Request::NO_CAP));
    assert!(capped.requests.iter().all(|request| request.output_tokens.is_none()));
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

/// Nothing shorter than a token in and a token out can be asked for.
#[test]
fn a_limit_that_no_request_can_be_cut_to_is_an_error() {
    let mut workload = generate(&spec(2.0), &vocabulary(), 1, 0).expect("the spec is fine");
    workload.clone().fit(2, TooLong::Truncate).expect("two tokens are enough");
    assert!(matches!(workload.fit(1, TooLong::Truncate), Err(WorkloadError::TooLong { .. })));
    assert!(matches!(workload.fit(1, TooLong::Drop), Err(WorkloadError::NoPrompts(_))));
}

fn with_lengths(lengths: Lengths) -> WorkloadSpec {
    let mut spec = WorkloadSpec { num_prompts: 20_000, ..spec(2.0) };
    spec.classes = vec![Class { name: String::new(), weight: 1.0, priority: 0, lengths }];
    spec
}

#[test]
fn lognormal_lengths_have_the_asked_median_and_spread_and_stay_within_their_range() {
    let spec = with_lengths(Lengths::Lognormal {
        prompt_median: 200.0,
        prompt_sigma: 0.6,
        prompt_range: [50, 1000],
        output_median: 40.0,
        output_sigma: 0.0,
        output_range: [1, 100],
    });
    let workload = generate(&spec, &Vocabulary::default(), 5, 0).expect("the spec is fine");
    let mut prompts: Vec<u32> = workload.lengths().iter().map(|lengths| lengths.0).collect();
    prompts.sort_unstable();
    // The quantiles of a lognormal: median * exp(z * sigma), within four standard errors.
    for (z, rank) in [(-1.0_f64, 3_173), (0.0, 10_000), (1.0, 16_827)] {
        let got = f64::from(prompts[rank]);
        let expected = 200.0 * (z * 0.6).exp();
        assert!((got / expected - 1.0).abs() < 0.03, "{got} for {expected}");
    }
    assert_eq!((prompts[0], prompts[19_999]), (50, 1000), "3.5 in a thousand are cut to each end");
    assert!(workload.lengths().iter().all(|lengths| lengths.1 == 40));
}

#[test]
fn uniform_lengths_reach_both_ends_and_have_the_mean_between() {
    let spec = with_lengths(Lengths::Uniform { prompt_tokens: [11, 20], output_tokens: [1, 3] });
    let workload = generate(&spec, &Vocabulary::default(), 5, 0).expect("the spec is fine");
    let prompts = || workload.lengths().into_iter().map(|lengths| lengths.0);
    assert_eq!((prompts().min(), prompts().max()), (Some(11), Some(20)));
    let mean = prompts().map(f64::from).sum::<f64>() / 20_000.0;
    assert!((mean - 15.5).abs() < 0.1, "{mean}");
}

#[test]
fn recorded_lengths_come_in_an_order_of_the_replicates_own_and_start_over() {
    let file = file(b"prompt_tokens,output_tokens\n7,1\n8,2\n9,3\n");
    let spec = WorkloadSpec {
        num_prompts: 5,
        ..with_lengths(Lengths::Recorded { path: file.path().to_owned() })
    };
    let mut orders = std::collections::BTreeSet::new();
    for replicate in 0..20 {
        let workload =
            generate(&spec, &Vocabulary::default(), 0, replicate).expect("the file is fine");
        let lengths = workload.lengths();
        assert_eq!(lengths[..2], lengths[3..], "it starts over");
        let mut rows = lengths[..3].to_vec();
        rows.sort_unstable();
        assert_eq!(rows, [(7, 1), (8, 2), (9, 3)], "each row once");
        orders.insert(lengths);
    }
    assert!(orders.len() > 2, "{orders:?}");
}

/// A trace of as many requests as asked, a second apart: request i has i prompt tokens.
fn replay(rows: u32, num_prompts: u32) -> (tempfile::NamedTempFile, WorkloadSpec) {
    let header = "arrived_at,prompt_tokens,output_tokens".to_owned();
    let lines = (1..=rows).map(|i| format!("{i},{i},1"));
    let text: Vec<String> = std::iter::once(header).chain(lines).collect();
    let file = file(text.join("\n").as_bytes());
    let path = || file.path().to_owned();
    let mut spec = with_lengths(Lengths::Recorded { path: path() });
    spec.num_prompts = num_prompts;
    spec.arrivals = Arrivals::Recorded { path: path(), speed: 1.0 };
    (file, spec)
}

/// (arrival in seconds, prompt tokens) of each request.
fn arrivals_and_prompts(spec: &WorkloadSpec, replicate: u32) -> Vec<(u64, u32)> {
    let workload = generate(spec, &Vocabulary::default(), 0, replicate).expect("the file is fine");
    let pair = |request: &metron_trace::Request| {
        (request.arrived_at.as_nanos() / 1_000_000_000, request.prompt_tokens)
    };
    workload.requests.iter().map(pair).collect()
}

#[test]
fn each_replicate_replays_a_stretch_of_its_own_as_long_as_the_trace_has_one() {
    let (_file, spec) = replay(5, 2);
    assert_eq!(arrivals_and_prompts(&spec, 0), [(0, 1), (1, 2)]);
    assert_eq!(arrivals_and_prompts(&spec, 1), [(0, 3), (1, 4)]);
    assert_eq!(arrivals_and_prompts(&spec, 2), [(0, 1), (1, 2)], "there is no third");
}

#[test]
fn classes_that_name_the_arrivals_file_take_each_requests_lengths_with_its_arrival() {
    let (_file, mut spec) = replay(50, 50);
    spec.classes.push(spec.classes[0].clone());
    let expected: Vec<(u64, u32)> = (0..50).map(|i| (u64::from(i), i + 1)).collect();
    assert_eq!(arrivals_and_prompts(&spec, 0), expected);
    let workload = generate(&spec, &Vocabulary::default(), 0, 0).expect("the file is fine");
    let of_first = workload.requests.iter().filter(|request| request.class == 0).count();
    assert!((10..40).contains(&of_first), "both classes are drawn: {of_first}");
}

#[test]
fn recorded_arrivals_begin_at_zero_and_are_as_fast_as_asked() {
    let file = file(b"arrived_at,prompt_tokens,output_tokens\n100,7,1\n101,8,2\n104,9,3\n");
    let path = || file.path().to_owned();
    let mut spec = with_lengths(Lengths::Recorded { path: path() });
    spec.num_prompts = 3;
    spec.arrivals = Arrivals::Recorded { path: path(), speed: 2.0 };
    let workload = generate(&spec, &Vocabulary::default(), 0, 0).expect("the file is fine");
    let ms: Vec<u64> =
        workload.requests.iter().map(|r| r.arrived_at.as_nanos() / 1_000_000).collect();
    assert_eq!(ms, [0, 500, 2000]);
}

fn check_bad(change: impl FnOnce(&mut WorkloadSpec), expected: &str) {
    let mut spec = spec(2.0);
    change(&mut spec);
    let generated = generate(&spec, &vocabulary(), 0, 0).map(|_| ());
    assert_eq!(generated.expect_err("it can't be").to_string(), expected);
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
    check_bad(
        |s| s.num_prompts = u32::MAX,
        "num_prompts is 4294967295; it must be at most 10000000",
    );
    check_bad(
        |s| {
            s.classes[0].lengths =
                Lengths::Fixed { prompt_tokens: u32::MAX, output_tokens: u32::MAX };
            s.classes.truncate(1);
        },
        "prompt_tokens is more than 268435456 in all 200 requests together; it must be fewer: \
         shorten the prompts, or run fewer requests",
    );
    check_bad(
        |s| s.classes.iter_mut().for_each(|class| class.weight = f64::MAX),
        "weight is [1.7976931348623157e308, 1.7976931348623157e308]; it must be above 0, of at least one class",
    );
    check_bad(|s| s.temperature = -0.5, "temperature is -0.5; it must be a number, 0 or more");
    check_bad(
        |s| {
            s.classes[0].lengths = Lengths::Fixed { prompt_tokens: 5, output_tokens: 0 };
        },
        "output_tokens is 0; it must be at least 1",
    );
    check_bad(|s| s.classes.clear(), "weight is []; it must be above 0, of at least one class");
}

fn file(text: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file for the test");
    file.write_all(text).expect("the disk has room");
    file
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
    assert!(
        error.contains("it has fewer requests than the 200 asked for; use --num-prompts 1"),
        "{error}"
    );

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
