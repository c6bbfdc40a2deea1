//! Recording on disks that are slow, stalled or full: the loop does not wait, and nothing is lost
//! without a word.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use metron::engine::{Engine, EngineError, RunEnd, StepObserver, Submission};
use metron::lab::DiskRecorder;
use metron::sim::SimExecutor;
use metron::trace::{
    Header, Limits, Missing, Origin, Request, RequestId, Sampling, StoreError, Timestamp, Trace,
    TraceReader, TraceWriter,
};

use crate::blame::served::{COST, header, registered};

const LIMITS: Limits =
    Limits { block_size: 16, num_blocks: 1000, max_num_seqs: 8, max_model_len: 1024 };

/// Longer than any of these runs takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What holds a disk up.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn close(&self, is_closed: bool) {
        let (closed, changed) = &*self.0;
        *closed.lock().expect("nobody panicked") = is_closed;
        changed.notify_all();
    }

    fn pass(&self) {
        let (closed, changed) = &*self.0;
        let closed = closed.lock().expect("nobody panicked");
        drop(changed.wait_while(closed, |closed| *closed).expect("nobody panicked"));
    }
}

/// A file behind a gate, on a disk with so much room.
struct Held {
    file: File,
    gate: Gate,
    room: usize,
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gate.pass();
        let fit = bytes.len().min(self.room);
        if fit == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= fit;
        self.file.write(&bytes[..fit])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A recorder whose table `small` has room for so many bytes, and whose disk the gate holds up.
fn recorder(dir: &Path, origin: Origin, gate: &Gate, small: (&'static str, usize)) -> DiskRecorder {
    let header = Header { origin, ..header(&COST, LIMITS) };
    let gate = gate.clone();
    let open = move |path: &Path| {
        let room = if path.ends_with(small.0) { small.1 } else { usize::MAX };
        let held = Held { file: File::create_new(path)?, gate: gate.clone(), room };
        Ok(Box::new(held) as Box<dyn Write + Send>)
    };
    DiskRecorder(TraceWriter::create_on(dir, &header, open).expect("the directory is new"))
}

/// No table is small.
const ROOM: (&str, usize) = ("none", 0);

/// Some `steps` with a token for each of eight sequences.
fn serve(steps: u32, observer: &mut dyn StepObserver) -> Result<RunEnd, EngineError> {
    let submission = |id: u32| {
        let request = Request {
            id: RequestId(id),
            arrived_at: Timestamp::ZERO,
            prompt_tokens: 16,
            output_tokens: Some(500),
            max_tokens: 500,
            class: 0,
            priority: 0,
            deadlines: None,
            sampling: Sampling::GREEDY,
        };
        Submission { request, prompt: Vec::new() }
    };
    let submissions: Vec<_> = (0..steps * 8 / 500).map(submission).collect();
    let engine =
        Engine { policy: "orca", limits: LIMITS, max_concurrency: None, cost_model: Some(&COST) };
    let mut executor = SimExecutor::new(COST);
    engine.run(&mut executor, registered("orca", LIMITS).as_mut(), submissions, observer)
}

/// A run's recorder, what there was to record, and how it ended.
type Served = (DiskRecorder, Trace, Result<RunEnd, EngineError>);

/// Serves in a thread of its own, so that a loop that waits is found out.
fn served(steps: u32, mut recorder: DiskRecorder) -> Receiver<Served> {
    let (done, is_done) = channel();
    std::thread::spawn(move || {
        let header = header(&COST, LIMITS);
        let (requests, steps_of, tokens, ends) = Default::default();
        let mut memory = Trace { header, requests, steps: steps_of, tokens, ends };
        let end = serve(steps, &mut (&mut memory, &mut recorder));
        let _ = done.send((recorder, memory, end));
    });
    is_done
}

fn assert_same(read: &Trace, memory: &Trace) {
    assert_eq!(read.requests, memory.requests);
    assert_eq!(read.steps, memory.steps);
    assert_eq!(read.tokens, memory.tokens);
    assert_eq!(read.ends, memory.ends);
}

#[test]
fn a_measured_run_goes_on_while_the_disk_stands_still_and_every_record_is_there() {
    let (dir, gate) = (tempfile::tempdir().expect("a directory for the test"), Gate::default());
    let trace = dir.path().join("trace");
    let recorder = recorder(&trace, Origin::Measured, &gate, ROOM);
    gate.close(true);
    let (recorder, memory, end) =
        served(8000, recorder).recv_timeout(PATIENCE).expect("the loop does not wait");
    assert!(matches!(end, Ok(RunEnd::Complete)), "{end:?}");
    assert!(memory.steps.len() >= 8000, "{} steps", memory.steps.len());
    let rows = memory.steps.len() * 8;
    assert!(recorder.0.bytes_waiting() > rows * size_of::<metron::trace::Work>(), "all wait");

    gate.close(false);
    recorder.0.finish().expect("the disk has room");
    let (read, missing) = TraceReader::read(&trace).expect("it is whole");
    assert_same(&read, &memory);
    assert_eq!(missing, []);
}

#[test]
fn a_run_in_virtual_time_waits_for_the_disk_and_not_in_memory() {
    let (dir, gate) = (tempfile::tempdir().expect("a directory for the test"), Gate::default());
    let trace = dir.path().join("trace");
    let recorder = recorder(&trace, Origin::Simulated, &gate, ROOM);
    gate.close(true);
    let run = served(40_000, recorder);
    let waits = run.recv_timeout(Duration::from_millis(200)).err();
    assert_eq!(waits, Some(RecvTimeoutError::Timeout), "the loop waits");
    gate.close(false);
    let (recorder, memory, end) = run.recv_timeout(PATIENCE).expect("the loop goes on");
    assert!(matches!(end, Ok(RunEnd::Complete)), "{end:?}");
    recorder.0.finish().expect("the disk has room");
    let (read, _) = TraceReader::read(&trace).expect("it is whole");
    assert_same(&read, &memory);
}

#[test]
fn a_disk_that_stands_still_for_long_ends_the_run_before_its_memory_grows() {
    let (dir, gate) = (tempfile::tempdir().expect("a directory for the test"), Gate::default());
    let trace = dir.path().join("trace");
    let recorder = recorder(&trace, Origin::Measured, &gate, ROOM);
    gate.close(true);
    let (recorder, memory, end) =
        served(200_000, recorder).recv_timeout(PATIENCE).expect("the loop does not wait");
    assert!(recorder.0.bytes_waiting() < 100_000_000, "{} bytes", recorder.0.bytes_waiting());
    assert!(memory.steps.len() > 20_000, "{} steps", memory.steps.len());
    let error = recording_failed(end).to_string();
    assert!(error.contains("the disk has not taken what waits since"), "{error}");
    assert!(error.contains(&*trace.to_string_lossy()), "{error}");

    // What it had until then is written once the disk goes on.
    gate.close(false);
    recorder.0.finish().expect("the disk has room");
    let (read, _) = TraceReader::read(&trace).expect("it is whole");
    assert_eq!(read.steps, memory.steps);
}

fn recording_failed(end: Result<RunEnd, EngineError>) -> StoreError {
    match end {
        Err(EngineError::Observer(error)) => *error.downcast().expect("the writer's own"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_disk_that_gets_full_ends_the_run_and_says_where_the_trace_ends() {
    for origin in [Origin::Measured, Origin::Simulated] {
        for table in ["work.arrows", "tokens.arrows", "steps.arrows"] {
            let dir = tempfile::tempdir().expect("a directory for the test");
            let trace = dir.path().join("trace");
            let recorder = recorder(&trace, origin, &Gate::default(), (table, 300_000));
            let (recorder, memory, end) =
                served(200_000, recorder).recv_timeout(PATIENCE).expect("nothing hangs");
            let error = recording_failed(end);
            let StoreError::Lost { whole_until, .. } = error else { panic!("{error}") };
            let said = error.to_string();
            assert!(said.contains(table) && said.contains("what came later is lost"), "{said}");
            let again = recorder.0.finish().expect_err("it is still lost").to_string();
            assert_eq!(again, said);

            let (read, missing) = TraceReader::read(&trace).expect("what is whole can be read");
            assert!(missing.iter().any(|part| matches!(part, Missing::Tail { .. })));
            assert!(whole_until > Timestamp::ZERO, "{said}");
            let whole = memory.steps.iter().take_while(|step| step.ended_at < whole_until).count();
            assert!(read.steps.len() >= whole && whole > 0, "{} of {whole}", read.steps.len());
            assert_eq!(read.steps[..whole], memory.steps[..whole], "{table}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_without_room_is_refused_before_the_run() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let open = |path: &Path| {
        let is_full = path.ends_with("work.arrows");
        let file = File::create(if is_full { Path::new("/dev/full") } else { path })?;
        Ok(Box::new(file) as Box<dyn Write + Send>)
    };
    let header = header(&COST, LIMITS);
    let error = TraceWriter::create_on(dir.path(), &header, open).expect_err("there is no room");
    assert!(matches!(error, StoreError::Io { disk_full: true, .. }), "{error}");
    assert!(error.to_string().contains("work.arrows: No space left"), "{error}");
}
