//! The stored format: what is written is read back, and a killed run keeps its whole batches.

use std::fs;
use std::path::Path;
use std::time::Duration;

use metron_trace::{
    Deadlines, EndStatus, ExecutorInfo, FORMAT_VERSION, Header, Imported, Limits, Machine, Missing,
    ModelInfo, Operator, OperatorSpan, Origin, Phases, PolicyInfo, Preemption, PreemptionCause,
    Request, RequestEnd, RequestId, Sampling, StepRecord, StoreError, Timestamp, Token, Tool,
    Trace, TraceReader, TraceWriter, Work, WorkKind,
};
use proptest::prelude::*;

fn header() -> Header {
    Header {
        format_version: FORMAT_VERSION,
        metron_version: "0.1.0".to_owned(),
        created_at: None,
        command_line: vec!["metron".to_owned(), "run".to_owned()],
        origin: Origin::Simulated,
        seed: 7,
        replicate: 0,
        max_concurrency: None,
        policy: PolicyInfo {
            label: "sarathi".to_owned(),
            name: "sarathi".to_owned(),
            options: serde_json::json!({ "token_budget": 256 }),
        },
        model: ModelInfo {
            id: "tiny".to_owned(),
            source: "seeded random weights".to_owned(),
            format: "dummy".to_owned(),
            parameters: 1,
            sha256: None,
            dummy: true,
        },
        executor: ExecutorInfo {
            device: "cpu".to_owned(),
            dtype: None,
            threads: Some(2),
            batch_invariant: Some(true),
        },
        machine: Machine::default(),
        limits: Limits { block_size: 16, num_blocks: 8, max_num_seqs: 2, max_model_len: 64 },
        experiment: serde_json::Value::Null,
        classes: Vec::new(),
        dropped_requests: 0,
        truncated_requests: 0,
        calibration: None,
    }
}

prop_compose! {
    fn a_request(id: u32)(
        arrived_at in any::<u64>(),
        lengths in any::<(u32, Option<u32>, u32, u32, i32)>(),
        deadlines in proptest::option::of((any::<u64>(), 1_u64..)),
        temperature in 0.0_f32..2.0,
        top_k in any::<Option<u32>>(),
    ) -> Request {
        let (prompt_tokens, output_tokens, max_tokens, class, priority) = lengths;
        Request {
            id: RequestId(id),
            arrived_at: Timestamp::from_nanos(arrived_at),
            prompt_tokens,
            output_tokens,
            max_tokens,
            class,
            priority,
            deadlines: deadlines.map(|(first, next)| Deadlines {
                first_token: Duration::from_nanos(first),
                next_token: Duration::from_nanos(next),
            }),
            sampling: Sampling { temperature, top_k, ..Sampling::GREEDY },
        }
    }
}

prop_compose! {
    fn a_step(index: u64)(
        times in any::<(u64, u64, u64)>(),
        phases in any::<(u64, Option<u64>, Option<u64>)>(),
        counts in any::<(u32, u32, u32, u32)>(),
        predicted in any::<Option<u64>>(),
        work in proptest::collection::vec((any::<(u32, u32, u32)>(), 0..3_usize), 0..5),
        preempted in proptest::collection::vec(any::<(u32, bool, u32)>(), 0..3),
        operators in proptest::collection::vec(
            (0..Operator::ALL.len(), any::<Option<u32>>(), any::<u64>(), any::<u64>()),
            0..3,
        ),
    ) -> StepRecord {
        let span = |ns: Option<u64>| ns.map(Duration::from_nanos);
        StepRecord {
            index,
            planned_at: Timestamp::from_nanos(times.0),
            started_at: Timestamp::from_nanos(times.1),
            ended_at: Timestamp::from_nanos(times.2),
            phases: Phases {
                schedule: Duration::from_nanos(phases.0),
                forward: span(phases.1),
                detokenise: span(phases.2),
                ..Phases::default()
            },
            work: work
                .into_iter()
                .map(|((request, context, tokens), kind)| Work {
                    request: RequestId(request),
                    context,
                    tokens,
                    kind: [WorkKind::Prefill, WorkKind::Decode, WorkKind::Recompute][kind],
                })
                .collect(),
            preemptions: preempted
                .into_iter()
                .map(|(request, policy, tokens_lost)| Preemption {
                    request: RequestId(request),
                    cause: if policy {
                        PreemptionCause::Policy
                    } else {
                        PreemptionCause::OutOfBlocks
                    },
                    tokens_lost,
                })
                .collect(),
            blocks_used: counts.0,
            blocks_free: counts.1,
            num_waiting: counts.2,
            num_running: counts.3,
            predicted: span(predicted),
            operators: operators
                .into_iter()
                .map(|(operator, layer, started_at, took)| OperatorSpan {
                    operator: Operator::ALL[operator],
                    layer,
                    started_at: Timestamp::from_nanos(started_at),
                    took: Duration::from_nanos(took),
                })
                .collect(),
        }
    }
}

prop_compose! {
    fn a_trace()(
        requests in (0_u32..4).prop_flat_map(|n| (0..n).map(a_request).collect::<Vec<_>>()),
        steps in (0_u64..6).prop_flat_map(|n| (0..n).map(a_step).collect::<Vec<_>>()),
        ids in any::<[Option<u32>; 6]>(),
        status in 0..5_usize,
    ) -> Trace {
        let tokens = steps.iter().zip(ids).map(|(step, id)| Token {
            request: RequestId(0),
            index: u32::try_from(step.index).expect("few steps"),
            step: Some(step.index),
            id,
            at: step.ended_at,
        });
        let ends = requests.iter().map(|request| RequestEnd {
            request: request.id,
            status: [
                EndStatus::Finished,
                EndStatus::Failed,
                EndStatus::TimedOut,
                EndStatus::Cancelled,
                EndStatus::Unsent,
            ][status],
            ended_at: request.arrived_at,
        });
        Trace { header: header(), tokens: tokens.collect(), ends: ends.collect(), requests, steps }
    }
}

/// A trace of nothing but steps.
fn of_steps(steps: Vec<StepRecord>) -> Trace {
    Trace { header: header(), requests: Vec::new(), steps, tokens: Vec::new(), ends: Vec::new() }
}

fn write(trace: &Trace, dir: &Path) {
    let mut writer = TraceWriter::create(dir, &trace.header).expect("the directory is new");
    for request in &trace.requests {
        writer.append_request(request).expect("the disk has room");
    }
    for step in &trace.steps {
        let of_step = |token: &&Token| token.step == Some(step.index);
        let tokens: Vec<Token> = trace.tokens.iter().filter(of_step).copied().collect();
        writer.append_step(step, &tokens).expect("the disk has room");
    }
    for end in &trace.ends {
        writer.append_end(end).expect("the disk has room");
    }
    writer.finish().expect("the disk has room");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_trace_is_read_as_it_was_written(trace in a_trace()) {
        let dir = tempfile::tempdir().unwrap();
        write(&trace, &dir.path().join("trace"));
        let (read, missing) = TraceReader::read(&dir.path().join("trace")).unwrap();
        prop_assert_eq!(read, trace);
        prop_assert!(missing.is_empty());
    }
}

/// A measured run: a request, a step, its token and the end of the request each second, so that each
/// is flushed.
fn of_a_step_a_second() -> Trace {
    let at = |second: u32| Timestamp::ZERO + Duration::from_secs(u64::from(second));
    let request = |id: u32| Request {
        id: RequestId(id),
        arrived_at: at(id),
        prompt_tokens: 1,
        output_tokens: Some(1),
        max_tokens: 1,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    let step = |index: u32| StepRecord {
        index: u64::from(index),
        planned_at: at(index),
        started_at: at(index),
        ended_at: at(index + 1),
        work: vec![Work {
            request: RequestId(index),
            context: 0,
            tokens: 1,
            kind: WorkKind::Prefill,
        }],
        ..StepRecord::default()
    };
    let token = |index: u32| Token {
        request: RequestId(index),
        index: 0,
        step: Some(u64::from(index)),
        id: None,
        at: at(index + 1),
    };
    let end = |id: u32| RequestEnd {
        request: RequestId(id),
        status: EndStatus::Finished,
        ended_at: at(id + 1),
    };
    Trace {
        header: Header { origin: Origin::Measured, ..header() },
        requests: (0..SECONDS).map(request).collect(),
        steps: (0..SECONDS).map(step).collect(),
        tokens: (0..SECONDS).map(token).collect(),
        ends: (0..SECONDS).map(end).collect(),
    }
}

const SECONDS: u32 = 40;

/// Writes such a run second by second.
fn write_as_it_runs(trace: &Trace, dir: &Path) {
    let mut writer = TraceWriter::create(dir, &trace.header).expect("the directory is new");
    for second in 0..SECONDS as usize {
        writer.append_request(&trace.requests[second]).expect("the disk has room");
        let tokens = &trace.tokens[second..=second];
        writer.append_step(&trace.steps[second], tokens).expect("the disk has room");
        writer.append_end(&trace.ends[second]).expect("the disk has room");
    }
    writer.finish().expect("the disk has room");
}

/// Cuts a table of a stored trace to a share of its bytes.
fn cut(dir: &Path, table: &str, keep: f64) {
    let path = dir.join(format!("{table}.arrows"));
    let bytes = fs::read(&path).expect("it was written");
    #[expect(clippy::cast_sign_loss, reason = "a fraction of a length")]
    let len = (bytes.len() as f64 * keep) as usize;
    fs::write(&path, &bytes[..len]).expect("the disk has room");
}

/// As if the run had been killed while one of the tables was being written.
#[test]
fn a_table_that_is_cut_off_keeps_its_whole_batches() {
    let trace = of_a_step_a_second();
    for table in ["requests", "steps", "work", "tokens", "ends"] {
        let kept = [0.0, 0.3, 0.6, 0.99].map(|keep| check_cut(&trace, table, keep));
        let is_more = kept[0] == 0 && kept[1] > 0 && kept[3] > kept[1];
        assert!(is_more && kept.is_sorted(), "{table}: {kept:?}");
    }
}

/// Rows of the table that are whole: they are read, and everything that belongs to them.
fn check_cut(trace: &Trace, table: &str, keep: f64) -> usize {
    let dir = tempfile::tempdir().expect("a directory for the test");
    write_as_it_runs(trace, dir.path());
    cut(dir.path(), table, keep);
    let (read, missing) = TraceReader::read(dir.path()).expect("the rest is whole");
    let Some(Missing::Tail { path, rows_read }) = missing.first() else {
        panic!("nothing is missing of {table}")
    };
    assert_eq!(*path, dir.path().join(format!("{table}.arrows")));
    let rows = |of: &str| if table == of { *rows_read } else { SECONDS as usize };
    assert_eq!(read.requests, trace.requests[..rows("requests")]);
    assert_eq!(read.tokens, trace.tokens[..rows("tokens").min(rows("steps"))]);
    assert_eq!(read.ends, trace.ends[..rows("ends")]);
    let mut steps = trace.steps[..rows("steps")].to_vec();
    for step in steps.iter_mut().skip(rows("work")) {
        step.work.clear();
    }
    assert_eq!(read.steps, steps);
    *rows_read
}

/// Tokens are written before the records of their steps.
#[test]
fn tokens_whose_steps_were_not_written_any_more_are_left_out_and_told() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    write_as_it_runs(&of_a_step_a_second(), dir.path());
    cut(dir.path(), "steps", 0.5);
    let (read, missing) = TraceReader::read(dir.path()).expect("the rest is whole");
    let tokens = SECONDS as usize - read.steps.len();
    assert!((5..35).contains(&tokens), "{tokens}");
    assert_eq!(missing[1..], [Missing::StepRecords { tokens }]);
    assert!(read.tokens.iter().all(|token| token.step < Some(read.steps.len() as u64)));
}

/// Bytes of a file that are replaced: where, as a share of its length, and by what.
fn some_bytes() -> impl Strategy<Value = Vec<(f64, u8)>> {
    proptest::collection::vec((0.0..1.0_f64, any::<u8>()), 1..8)
}

/// Replaces bytes of a file; whether any of them is another now.
fn alter(path: &Path, changes: &[(f64, u8)]) -> bool {
    let written = fs::read(path).expect("it was written");
    let mut bytes = written.clone();
    for (at, byte) in changes {
        #[expect(clippy::cast_sign_loss, reason = "a fraction of a length")]
        let at = (bytes.len() as f64 * at) as usize;
        bytes[at] = *byte;
    }
    fs::write(path, &bytes).expect("the disk has room");
    bytes != written
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// As a killed run leaves it there are no checksums: what is read may be wrong then, but
    /// nothing panics, and nothing asks for more memory than such a file can fill.
    #[test]
    fn a_damaged_table_is_refused_or_read_within_its_size(
        trace in a_trace(),
        table in prop::sample::select(vec!["steps", "work", "tokens", "requests", "ends"]),
        changes in some_bytes(),
        was_killed in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        write(&trace, dir.path());
        if was_killed {
            fs::remove_file(dir.path().join("checksums.json")).unwrap();
        }
        let is_altered = alter(&dir.path().join(format!("{table}.arrows")), &changes);
        let mut read = None;
        let allocated = allocation_counter::measure(|| read = Some(TraceReader::read(dir.path())));
        prop_assert!(allocated.bytes_max < 4 << 20, "{} bytes", allocated.bytes_max);
        match read.unwrap() {
            Err(StoreError::Malformed { path, .. }) => {
                let is_named = path == dir.path().join(format!("{table}.arrows"));
                prop_assert!(is_named, "{}", path.display());
            }
            Err(other) => prop_assert!(false, "{}", other),
            Ok((read, _)) => prop_assert!(was_killed || !is_altered && read == trace),
        }
    }
}

#[test]
fn a_file_that_was_changed_after_its_run_is_refused_with_what_to_do() {
    let append = |dir: &Path| {
        let path = dir.join("steps.arrows");
        let bytes = [fs::read(&path).unwrap(), vec![0]].concat();
        fs::write(path, bytes).unwrap();
    };
    check_refused(append, "it was damaged or changed since; copy it again, or remove checksums");
    let spoil = |dir: &Path| fs::write(dir.join("checksums.json"), "{").unwrap();
    check_refused(spoil, "not the checksums of a trace");
}

/// A run of so many steps of one decode each, so far apart.
fn steps_apart(count: u64, span: Duration) -> Vec<StepRecord> {
    let step = |index: u64| {
        let at = |steps: u64| Timestamp::ZERO + span * u32::try_from(steps).expect("few steps");
        let request = RequestId(0);
        StepRecord {
            index,
            planned_at: at(index),
            started_at: at(index),
            ended_at: at(index + 1),
            phases: Phases::default(),
            work: vec![Work { request, context: 7, tokens: 1, kind: WorkKind::Decode }],
            preemptions: Vec::new(),
            blocks_used: 1,
            blocks_free: 7,
            num_waiting: 0,
            num_running: 1,
            predicted: None,
            operators: Vec::new(),
        }
    };
    (0..count).map(step).collect()
}

#[test]
fn in_virtual_time_long_steps_make_no_larger_files_than_short_ones() {
    let size = |span: Duration| {
        let dir = tempfile::tempdir().unwrap();
        write(&of_steps(steps_apart(2000, span)), dir.path());
        fs::metadata(dir.path().join("steps.arrows")).unwrap().len()
    };
    let (short, long) = (size(Duration::from_micros(100)), size(Duration::from_secs(1)));
    assert!(long < 2 * short, "{long} bytes for {short}");
}

#[test]
fn what_was_measured_is_on_disk_when_it_has_waited_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let measured = Header { origin: Origin::Measured, ..header() };
    let mut writer = TraceWriter::create(dir.path(), &measured).unwrap();
    for step in steps_apart(3, Duration::from_millis(600)) {
        assert_eq!(writer.bytes_waiting() > 0, step.index > 0);
        writer.append_step(&step, &[]).unwrap();
    }
    // The thread needs a moment.
    let on_disk = (0..10_000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        writer.bytes_waiting() == 0
    });
    assert!(on_disk, "{} bytes wait", writer.bytes_waiting());
    let (read, missing) = TraceReader::read(dir.path()).unwrap();
    assert_eq!((read.steps.len(), missing.is_empty()), (3, false));
    writer.finish().unwrap();
}

fn check_refused(spoil: impl FnOnce(&Path), expected: &str) {
    let dir = tempfile::tempdir().expect("a directory for the test");
    write(&of_steps(Vec::new()), dir.path());
    spoil(dir.path());
    let error = TraceReader::read(dir.path()).expect_err("it is spoilt").to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_trace_of_another_version_is_refused() {
    let header = |version| format!(r#"{{"format_version": {version}}}"#);
    for version in [FORMAT_VERSION - 1, 99] {
        let other = |dir: &Path| fs::write(dir.join("header.json"), header(version));
        let expected =
            format!("format version {version}, this Metron reads version {FORMAT_VERSION}");
        check_refused(|dir| other(dir).unwrap(), &expected);
    }
}

#[test]
fn a_header_that_is_no_header_is_refused() {
    check_refused(|dir| fs::write(dir.join("header.json"), "{").unwrap(), "not a trace's header");
}

#[test]
fn a_missing_table_is_named() {
    check_refused(|dir| fs::remove_file(dir.join("work.arrows")).unwrap(), "work.arrows");
}

#[test]
fn a_table_of_another_kind_is_refused() {
    let swap = |dir: &Path| fs::copy(dir.join("ends.arrows"), dir.join("steps.arrows"));
    // Empty tables have no batch to read, so both need a row.
    let dir = tempfile::tempdir().unwrap();
    let mut writer = TraceWriter::create(dir.path(), &header()).unwrap();
    let end = RequestEnd {
        request: RequestId(0),
        status: EndStatus::Finished,
        ended_at: Timestamp::ZERO,
    };
    writer.append_end(&end).unwrap();
    writer.finish().unwrap();
    swap(dir.path()).unwrap();
    fs::remove_file(dir.path().join("checksums.json")).unwrap();
    let error = TraceReader::read(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Malformed { .. }), "{error}");
    assert!(error.to_string().contains("there is no column `step`"), "{error}");
}

#[test]
fn an_old_trace_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    TraceWriter::create(dir.path(), &header()).unwrap().finish().unwrap();
    assert!(matches!(TraceWriter::create(dir.path(), &header()), Err(StoreError::Io { .. })));
}

#[test]
fn a_trace_without_steps_is_written_whole() {
    let Imported { trace, .. } =
        Tool::Vllm.import(include_str!("data/vllm.json")).expect("it is a result");
    let dir = tempfile::tempdir().unwrap();
    TraceWriter::write(dir.path(), &trace).expect("the disk has room");
    let (read, missing) = TraceReader::read(dir.path()).unwrap();
    assert_eq!((read, missing), (trace, Vec::new()));
}
