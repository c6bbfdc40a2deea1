//! What users get wrong: the right exit code, one clear message, nothing half-written.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::metron::{metron, run, run_into, simulated, tiny_model};

const USAGE: i32 = 2;
const INPUT: i32 = 3;
const ENVIRONMENT: i32 = 4;

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

/// Runs a command that must fail, and leaves nothing behind.
fn check(dir: &Path, command: &mut Command, code: i32, message: &str) {
    let (got, output, error) = run(command);
    assert!(error.contains(message), "{error}\ndoes not say\n{message}");
    assert!(!error.contains("panicked"), "{error}");
    assert_eq!((got, output.as_str()), (code, ""), "{error}");
    assert!(!dir.join("metron-out").exists(), "nothing is half-written");
}

fn check_simulated(arguments: &[&str], code: i32, message: &str) {
    let dir = temporary();
    check(dir.path(), simulated(dir.path(), "compare").args(arguments), code, message);
}

#[test]
fn schedulers_that_are_not_there() {
    check_simulated(
        &["--schedulers", "sarathy"],
        USAGE,
        "there is no policy `sarathy` (did you mean `sarathi`?); there are static, orca, vllm-v0",
    );
    check_simulated(
        &["--schedulers", "sarathi:token_buget=9"],
        USAGE,
        "has no option `token_buget` (did you mean `token_budget`?)",
    );
    check_simulated(&["--schedulers", "sarathi:token_budget=0"], USAGE, "it must be at least 1");
    check_simulated(&["--schedulers", "sarathi:token_budget=many"], USAGE, "policy `sarathi`: ");
    check_simulated(&["--schedulers", "orca,orca"], USAGE, "`orca` stands twice");
    check_simulated(
        &["--baseline", "sarathy"],
        USAGE,
        "the baseline `sarathy` is not in the comparison; there are static, orca, vllm-v0, sarathi",
    );
    check_simulated(
        &["--schedulers", "orca", "--until", "decided"],
        USAGE,
        "--until decided compares schedulers; name two or more",
    );
}

#[test]
fn numbers_that_can_not_be() {
    check_simulated(&["--request-rate", "-1"], USAGE, "--request-rate is -1; it must be above 0");
    check_simulated(&["--request-rate", "NaN"], USAGE, "--request-rate is NaN; it must be above 0");
    check_simulated(&["--request-rate", "fast"], USAGE, "invalid value 'fast'");
    check_simulated(&["--num-prompts", "0"], USAGE, "num_prompts is 0; it must be at least 1");
    check_simulated(&["--replicates", "0"], USAGE, "replicates is 0; it must be at least 1");
    check_simulated(&["--burstiness", "0"], USAGE, "burstiness is 0; it must be a number above 0");
    check_simulated(&["--block-size", "0"], USAGE, "block_size is 0; it must be from 1");
    check_simulated(&["--input-len", "0"], USAGE, "prompt_tokens is 0; it must be at least 1");
    check_simulated(&["--random-range-ratio", "2", "--input-len", "5"], USAGE, "from 0 to below 1");
    check_simulated(&["--tbt-deadline", "50"], USAGE, "`50` is no deadline (time unit needed");
    check_simulated(
        &["--goodput", "ttfd:9"],
        USAGE,
        "`ttfd` can't be limited (did you mean `ttft`?)",
    );
    check_simulated(&["--replicats", "3"], USAGE, "a similar argument exists: '--replicates'");
}

#[test]
fn numbers_beyond_what_can_be_served() {
    check_simulated(
        &["--num-prompts", "2", "--input-len", "4000000000"],
        USAGE,
        "a request of 4000000064 tokens is longer than any sequence may be (16777216)",
    );
    check_simulated(
        &["--max-num-seqs", "16777216"],
        USAGE,
        "max_num_seqs is 16777216; it must be from 1 to 65536",
    );
    let message = "--request-rate is 1e-300; it must be above 0: from 0.000001 to 1000000000";
    check_simulated(&["--request-rate", "1e-300"], USAGE, message);
    let dir = temporary();
    let mut command = metron(dir.path());
    command.args(["calibrate", "--longest", "100000", "--model"]).arg(tiny_model());
    let message = "--longest is 100000; a sequence has 512 positions here, so a prompt may have at";
    check(dir.path(), &mut command, USAGE, message);
}

#[test]
fn options_that_nothing_would_heed() {
    let model = ["--model", "nosuchmodel", "--device", "gpu", "--dtype", "f64"];
    let message = "--model, --device, --dtype can't be honoured in virtual time";
    check_simulated(&model, USAGE, message);
    check_simulated(&["--prompt-text", "t.txt"], USAGE, "--prompt-text can't be honoured in");
    let alone = "--random-range-ratio spreads --input-len and --output-len; give one";
    check_simulated(&["--random-range-ratio", "0.5"], USAGE, alone);
    check_simulated(
        &["--input-len", "9", "--dataset-path", "t.csv"],
        USAGE,
        "the argument '--input-len <TOKENS>' cannot be used with '--dataset-path <FILE>'",
    );
    let shapes = "--burstiness shapes gamma arrivals; leave it out, or give --arrivals gamma";
    check_simulated(&["--burstiness", "0.5", "--request-rate", "inf"], USAGE, shapes);
    check_simulated(&["--burstiness", "0.5", "--arrivals", "poisson"], USAGE, shapes);
    check_simulated(
        &["--request-rate", "2", "--arrivals", "all-at-once"],
        USAGE,
        "--arrivals all-at-once has no rate; leave --request-rate out",
    );
    check_simulated(&["--result-dir", "d"], USAGE, "arguments were not provided");
    let dir = temporary();
    let check_line = |line: &[&str], message: &str| {
        check(dir.path(), metron(dir.path()).args(line), USAGE, message);
    };
    check_line(&["doctor", "--threads", "2"], "or leave --threads out");
    check_line(&["generate", "-p", "a", "--trace-operators"], "unexpected argument");
    check_line(&["calibrate", "--trace-operators"], "unexpected argument");
    check_line(&["capacity", "--baseline", "orca"], "--baseline means nothing to a search");
    check_line(&["capacity", "--save-result"], "--save-result means nothing to a search");
}

/// Before a model is looked for, which here is none.
#[test]
fn what_is_mistyped_is_said_before_anything_is_loaded() {
    let check_line = |line: &[&str], message: &str| {
        let dir = temporary();
        let mut command = metron(dir.path());
        command.args(["compare", "--model", "nosuchmodel"]).args(line);
        check(dir.path(), &mut command, USAGE, message);
    };
    check_line(&["--baseline", "sarthi"], "the baseline `sarthi` is not in the comparison");
    check_line(&["--schedulers", "sarathi,sarathi"], "`sarathi` stands twice");
    check_line(&["--schedulers", "orca", "--until", "decided"], "name two or more");
    check_line(&["--burstiness", "0"], "burstiness is 0; it must be a number above 0");
    check_line(&["--num-prompts", "0"], "num_prompts is 0; it must be at least 1");
}

#[test]
fn a_model_in_an_experiment_file_is_looked_for_beside_it() {
    let dir = temporary();
    fs::create_dir(dir.path().join("folder")).expect("the directory is new");
    let file = dir.path().join("folder/e.toml");
    fs::write(&file, "[model]\nid = \"./m.gguf\"\n").expect("the disk has room");
    fs::write(dir.path().join("m.gguf"), "GGUF").expect("the disk has room");
    let mut command = metron(dir.path());
    check(
        dir.path(),
        command.args(["run", "--experiment", "folder/e.toml"]),
        USAGE,
        "folder/m.gguf",
    );
}

#[test]
fn requests_that_do_not_fit() {
    check_simulated(
        &["--input-len", "100", "--output-len", "28", "--max-model-len", "64"],
        INPUT,
        "256 of 256 requests are longer than the 64 tokens",
    );
    let dir = temporary();
    let mut drop = simulated(dir.path(), "run");
    drop.args(["--max-model-len", "300", "--too-long", "drop", "-o", "out"]);
    let (code, _, error) = run(&mut drop);
    assert_eq!(code, 0, "{error}");
}

/// Whatever fits the pool is served, also by policies that reserve the whole context.
#[test]
fn a_pool_smaller_than_the_context_starves_nobody() {
    let dir = temporary();
    let mut command = simulated(dir.path(), "compare");
    command.args(["--input-len", "20", "--output-len", "4", "--num-prompts", "3"]);
    command.args(["--max-model-len", "64", "--kv-blocks", "3", "--replicates", "2", "-o", "out"]);
    let (code, out, error) = run(&mut command);
    assert_eq!(code, 0, "{error}");
    let done = out.lines().find(|line| line.starts_with("requests done")).expect("it is a row");
    let done: Vec<&str> = done.split_whitespace().skip(2).collect();
    assert_eq!(done, ["6"; 4], "{out}");
}

fn check_file(name: &str, text: &str, option: &str, code: i32, message: &str) {
    let dir = temporary();
    let path = dir.path().join(name);
    fs::write(&path, text).expect("the disk has room");
    check(dir.path(), simulated(dir.path(), "run").arg(option).arg(&path), code, message);
}

#[test]
fn experiment_files_that_are_wrong() {
    check_file(
        "e.toml",
        "seed = 1\n\n[engine]\nkv_block = 4\n",
        "--experiment",
        INPUT,
        "e.toml:4: unknown field `kv_block`",
    );
    check_file(
        "e.toml",
        "[engine]\nkv_block = 4\n",
        "--experiment",
        INPUT,
        "did you mean `kv_blocks`?",
    );
    check_file("e.toml", "seed = \"one\"\n", "--experiment", INPUT, "e.toml:1: invalid type");
    check_file("e.toml", "seed =\n", "--experiment", INPUT, "e.toml:1: ");
    check_simulated(&["--experiment", "nowhere.toml"], INPUT, "nowhere.toml: No such file");
}

#[test]
fn recorded_traces_that_are_wrong() {
    let check = |text, message| check_file("t.csv", text, "--dataset-path", INPUT, message);
    check("", "t.csv: it is empty");
    check("arrived_at,prompt_tokens\n1,2\n", "t.csv:1: there is no column output_tokens");
    check("prompt_tokens,output_tokens\nfive,1\n", "t.csv:2: prompt_tokens is `five`");
    check(
        "arrived_at,prompt_tokens,output_tokens\n5,9,1\n4,9,1\n",
        "t.csv:3: the time goes back by 1.000 s",
    );
}

#[test]
fn cost_files_that_are_wrong() {
    let dir = temporary();
    let path = dir.path().join("cost.toml");
    let run = |text: &str, message| {
        fs::write(&path, text).expect("the disk has room");
        let mut command = metron(dir.path());
        check(dir.path(), command.args(["run", "--simulate"]).arg(&path), INPUT, message);
    };
    run("name = 3", "cost.toml: ");
    run("name = \"a\"\nsource = \"b\"\npieces = []\n", "it has no [[pieces]]");
    let good = fs::read_to_string(crate::metron::data("cost.toml")).expect("it is there");
    run(&format!("{good}up_to_token = 5\n"), "unknown field `up_to_token`");
    let step = |ns: &str| good.replace("step_ns = 10.0e6", &format!("step_ns = {ns}"));
    run(&step("1e300"), "piece 1: 1e300 ns of a step of 1 tokens");
}

#[test]
fn a_machine_that_was_never_calibrated() {
    let dir = temporary();
    let mut command = metron(dir.path());
    check(dir.path(), command.args(["run", "--simulate"]), ENVIRONMENT, "run `metron calibrate`");
}

/// A directory with the tiny model's files, some of them changed.
fn spoilt_model(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = temporary();
    let model = dir.path().join("model");
    fs::create_dir(&model).expect("the directory is new");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(tiny_model().join(file), model.join(file)).expect("the disk has room");
    }
    change(&model);
    dir
}

fn check_model(change: impl FnOnce(&Path), message: &str) {
    let dir = spoilt_model(change);
    let mut command = metron(dir.path());
    command.args(["run", "--model", "model", "--input-len", "9", "--output-len", "2"]);
    check(dir.path(), &mut command, INPUT, message);
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the file is there");
    change(&mut bytes);
    fs::write(path, bytes).expect("the disk has room");
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("the file is there");
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).expect("the disk has room");
}

#[test]
fn models_that_are_wrong() {
    check_model(
        |model| fs::remove_file(model.join("config.json")).expect("it was there"),
        "has no config.json",
    );
    check_model(
        |model| replace(&model.join("config.json"), "LlamaForCausalLM", "MambaForCausalLM"),
        "architecture `MambaForCausalLM` is not supported; supported are LlamaForCausalLM",
    );
    check_model(
        |model| {
            replace(
                &model.join("config.json"),
                "\"num_hidden_layers\": ",
                "\"num_hidden_layers\": 9",
            );
        },
        "is missing",
    );
    check_model(
        |model| edit(&model.join("model.safetensors"), |bytes| bytes.truncate(bytes.len() / 2)),
        "model.safetensors: not a whole safetensors file",
    );
    check_model(
        |model| edit(&model.join("model.safetensors"), |bytes| bytes.truncate(3)),
        "model.safetensors: not a whole safetensors file",
    );
    check_model(|model| edit(&model.join("model.safetensors"), Vec::clear), "the file is empty");
    check_model(
        |model| fs::write(model.join("tokenizer.json"), "{}").expect("the disk has room"),
        "tokenizer.json",
    );
}

#[test]
fn gguf_files_that_are_wrong() {
    let check_gguf = |bytes: &[u8], message| {
        let dir = temporary();
        fs::write(dir.path().join("model.gguf"), bytes).expect("the disk has room");
        let mut command = metron(dir.path());
        command.args(["run", "--model", "model.gguf", "--input-len", "9", "--output-len", "2"]);
        check(dir.path(), &mut command, INPUT, message);
    };
    check_gguf(b"", "model.gguf");
    check_gguf(b"GGUF\x03\0\0\0", "cut off");
    check_gguf(b"GGUF\x09\0\0\0", "GGUF version 9 is not supported");
    // An alignment of zero, on which Candle divides.
    let mut zero = b"GGUF\x03\0\0\0".to_vec();
    zero.extend(0_u64.to_le_bytes());
    zero.extend(1_u64.to_le_bytes());
    zero.extend(17_u64.to_le_bytes());
    zero.extend(b"general.alignment");
    zero.extend(4_u32.to_le_bytes());
    zero.extend(0_u32.to_le_bytes());
    check_gguf(&zero, "general.alignment is 0; it must be a power of two");
    // More tensors than the file can hold.
    let mut many = b"GGUF\x03\0\0\0".to_vec();
    many.extend((1_u64 << 60).to_le_bytes());
    many.extend(0_u64.to_le_bytes());
    check_gguf(&many, "more than the file can hold");
}

#[test]
fn devices_and_dtypes_that_are_not_there() {
    let check_model = |arguments: &[&str], code, message| {
        let dir = temporary();
        let mut command = metron(dir.path());
        command.arg("run").arg("--model").arg(tiny_model());
        command.args(["--input-len", "9", "--output-len", "2"]).args(arguments);
        check(dir.path(), &mut command, code, message);
    };
    check_model(&["--device", "tpu"], USAGE, "devices are auto, cpu, cuda and cuda:INDEX");
    check_model(&["--dtype", "q4_0"], USAGE, "dtypes are f32, f16, bf16 and q8_0");
    check_model(&["--threads", "0"], USAGE, "--threads is 0; it must be at least 1");
    if cfg!(not(feature = "cuda")) {
        check_model(&["--device", "cuda"], ENVIRONMENT, "this build has no CUDA");
    }
}

#[test]
fn outputs_that_can_not_be_written() {
    let dir = temporary();
    fs::write(dir.path().join("file"), "").expect("the disk has room");
    let write_to = |output: &str, message| {
        let mut command = simulated(dir.path(), "run");
        check(dir.path(), command.args(["--output", output]), ENVIRONMENT, message);
    };
    write_to("file/under", "file/under: Not a directory");
    fs::create_dir(dir.path().join("full")).expect("the directory is new");
    fs::write(dir.path().join("full/old"), "").expect("the disk has room");
    write_to("full", "full is not empty; results are never overwritten");
    fs::create_dir(dir.path().join("empty")).expect("the directory is new");
    for output in ["empty", "new"] {
        let mut command = simulated(dir.path(), "run");
        command.args(["--save-result", "--result-dir", "full", "-o", output]);
        check(dir.path(), &mut command, ENVIRONMENT, "full is not empty");
    }
    assert!(dir.path().join("empty").exists(), "it was the user's");
    assert!(!dir.path().join("new").exists(), "nothing is half-written");
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_standard_output_does_not_take_are_told() {
    let dir = temporary();
    for arguments in [&["schedulers"][..], &["schedulers", "--json"], &["--help"]] {
        let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let (code, _, error) = run_into(metron(dir.path()).args(arguments), full);
        assert_eq!(code, ENVIRONMENT, "{arguments:?}: {error}");
        assert!(error.contains("standard output: No space left on device"), "{error}");
    }
}

/// What is no file is written into, not replaced by one.
#[cfg(unix)]
#[test]
fn an_export_leaves_a_link_a_link_and_a_file_readable() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let dir = temporary();
    let path = |name: &str| dir.path().join(name);
    let mut simulate = simulated(dir.path(), "run");
    let (code, _, error) = run(simulate.args(["--num-prompts", "5", "--output", "out"]));
    assert_eq!(code, 0, "{error}");
    symlink("named.json", path("link.json")).expect("the disk has room");
    fs::write(path("named.json"), "old").expect("the disk has room");
    let mut export = metron(dir.path());
    export.args(["export", "out/sarathi-r1.trace", "--format", "perfetto", "-o", "link.json"]);
    assert_eq!(run(&mut export), (0, String::new(), String::new()));
    assert!(path("link.json").is_symlink());
    assert!(fs::metadata(path("named.json")).expect("it is there").len() > 1000);
    let mode = |name: &str| fs::metadata(path(name)).expect("it is there").mode();
    assert_eq!(mode("out/metrics.json"), mode("out/sarathi-r1.trace/header.json"));
}

#[test]
fn runs_that_begin_in_one_second_have_directories_of_their_own() {
    let dir = temporary();
    for _ in 0..3 {
        let (code, _, error) = run(simulated(dir.path(), "run").args(["--num-prompts", "2"]));
        assert_eq!(code, 0, "{error}");
    }
    let results = dir.path().join("metron-out").read_dir().expect("it is there");
    assert_eq!(results.count(), 3);
}

#[test]
fn a_longer_sequence_than_the_models_context_is_refused() {
    let dir = temporary();
    let mut command = metron(dir.path());
    command.args(["run", "--max-model-len", "513", "--num-prompts", "2", "--model"]);
    let message = "positions are asked for, and tiny_llama's context is 512";
    check(dir.path(), command.arg(tiny_model()), USAGE, message);
}

/// A limit on the size of files stands for a full disk: writes fail half-way.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_ends_the_run_and_keeps_what_was_written() {
    let dir = temporary();
    let mut inner = simulated(dir.path(), "run");
    inner.args(["--num-prompts", "2000", "--request-rate", "2", "--output", "out"]);
    let mut command = Command::new("bash");
    command.current_dir(dir.path()).envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
    // Blocks of 1,024 bytes.
    command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "bash"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let (code, _, error) = run(&mut command);
    assert_eq!(code, ENVIRONMENT, "{error}");
    assert!(error.contains("File too large"), "{error}");
    assert!(error.contains(".arrows"), "the file is named: {error}");
    let (code, scored, error) = run(metron(dir.path()).args(["score", "out"]));
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("rows are whole and were read"), "{error}");
    assert!(scored.contains("requests done"), "{scored}");
}

#[test]
fn imports_that_are_wrong() {
    let dir = temporary();
    let import = |tool: &str, text: &str, code, message: &str| {
        fs::write(dir.path().join("file"), text).expect("the disk has room");
        let mut command = metron(dir.path());
        command.args(["import", tool, "file", "--output", "imported"]);
        check(dir.path(), &mut command, code, message);
        assert!(!dir.path().join("imported").exists(), "nothing is half-written");
    };
    import("etalon", "", INPUT, "file: it is empty");
    import("vllm", r#"{"ttfts": [-1]}"#, INPUT, "file: ttfts[0] is -1; it must be a time");
    import("aiperf", "{}\n", INPUT, "file: line 1: metadata is not there");
    import("etalom", "", USAGE, "a similar value exists: 'etalon'");
    let mut command = metron(dir.path());
    command.args(["import", "vllm", "nowhere", "--output", "imported"]);
    check(dir.path(), &mut command, INPUT, "nowhere: No such file");
}

#[test]
fn diffs_that_can_not_be() {
    let dir = temporary();
    let mut command = metron(dir.path());
    check(dir.path(), command.args(["diff", "nowhere", "."]), INPUT, "nowhere: No such file");
    for (output, schedulers) in [("a", "orca,static"), ("b", "vllm-v0,sarathi")] {
        let mut command = simulated(dir.path(), "compare");
        command.args(["--schedulers", schedulers, "--num-prompts", "9", "-o", output]);
        run(&mut command);
    }
    let mut command = metron(dir.path());
    check(
        dir.path(),
        command.args(["diff", "a", "b"]),
        INPUT,
        "a and b have no policy in common (orca, static; vllm-v0, sarathi); name a trace of each",
    );
}

#[test]
fn results_that_are_not_what_a_command_takes() {
    let dir = temporary();
    let mut compare = simulated(dir.path(), "compare");
    compare.args(["--schedulers", "orca,static", "--num-prompts", "9", "--replicates", "1"]);
    let (code, _, error) = run(compare.args(["-o", "out"]));
    assert_eq!(code, 0, "{error}");
    let mut export = metron(dir.path());
    export.args(["export", "out", "--format", "perfetto"]);
    let message = "out has several traces; name one: out/orca-r1.trace, out/static-r1.trace";
    check(dir.path(), &mut export, USAGE, message);
    let mut search = simulated(dir.path(), "capacity");
    check(dir.path(), search.args(["-o", "out"]), USAGE, "out holds no search but another result");
}

#[test]
fn traces_that_are_wrong() {
    let dir = temporary();
    let mut command = metron(dir.path());
    check(dir.path(), command.args(["score", "nowhere"]), INPUT, "nowhere: No such file");
    fs::create_dir(dir.path().join("empty")).expect("the directory is new");
    let mut command = metron(dir.path());
    check(dir.path(), command.args(["score", "empty"]), INPUT, "empty is no trace and has none");
    fs::write(dir.path().join("empty/header.json"), r#"{"format_version": 7}"#).expect("room");
    let mut command = metron(dir.path());
    check(
        dir.path(),
        command.args(["score", "empty"]),
        INPUT,
        "format version 7, this Metron reads",
    );
}

#[test]
fn objectives_that_are_none() {
    let check = |objective: &str, message: &str| {
        check_simulated(&["--objective", objective], USAGE, message);
    };
    check("ttft <= 200 for 95%", "`200` is no time (time unit needed");
    check("ttfd <= 200 ms for 95%", "`ttfd` can't be an objective (did you mean `ttft`?)");
    check("ttft <= 0 ms for 95%", "no time can be at most 0");
    check("class chad: ttft <= 1 s for 9%", "no class `chad` (did you mean `chat`?)");
    check_simulated(
        &["--objective", "ttft <= 1s for 99%", "--objective", "ttft <= 2s for 95%"],
        USAGE,
        "`ttft <= 2s for 95%` says nothing beside `ttft <= 1s for 99%`",
    );
    check_file(
        "e.toml",
        "[scoring]\nobjectives = [\"ttft <= 200 for 95%\"]\n",
        "--experiment",
        INPUT,
        "e.toml:2: `ttft <= 200 for 95%` is no objective",
    );
    check_file(
        "e.toml",
        "[scoring.classes.chad]\nnext_token = \"1s\"\n",
        "--experiment",
        USAGE,
        "deadlines for `chad`, and the workload's classes are chat, document",
    );
}

#[test]
fn capacities_that_can_not_be_searched() {
    let check = |arguments: &[&str], message: &str| {
        let dir = temporary();
        let mut command = simulated(dir.path(), "capacity");
        self::check(dir.path(), command.args(arguments), USAGE, message);
    };
    check(&["--request-rate", "2"], "capacity looks for the rate itself");
    check(&["--max-concurrency", "2"], "a closed loop (max_concurrency) has no arrival rate");
    check(&["--arrivals", "all-at-once"], "these arrivals have no rate to set");
    check(&["--probability", "1"], "--probability is 1; it must be above 0 and below 1");
    check(&["--objective", "ttft <= 200 for 95%"], "`200` is no time");
}
