//! Results of other tools, and results in the form of other tools.

use std::fs;
use std::path::Path;
use std::process::Command;

use metron::metrics::{CountingRule, Deadlined, FluidityRule, Latencies, timelines};
use metron::trace::Tool;
use serde_json::Value;

use crate::metron::{data, metron, run, simulated};

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

fn read(path: &Path) -> Value {
    json(&fs::read_to_string(path).expect("the file is there"))
}

/// What a command that must succeed prints.
fn printed(command: &mut Command) -> String {
    let (code, text, error) = run(command);
    assert_eq!(code, 0, "{error}");
    text
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Equal to a part in a million: the trace holds whole nanoseconds.
fn assert_close(got: &Value, expected: &Value) {
    let (got, expected) = (number(got), number(expected));
    assert!((got / expected - 1.0).abs() < 1e-6, "{got} for {expected}");
}

#[test]
fn an_etalon_result_scores_to_what_etalon_computed() {
    let dir = temporary();
    let file = data("etalon/request_level_metrics.json");
    printed(metron(dir.path()).arg("import").arg("etalon").arg(file).args(["-o", "etalon"]));
    let mut score = metron(dir.path());
    score.args(["score", "etalon", "--rule", "etalon", "--json"]);
    score.args(["--ttft-deadline", "0.1s", "--tbt-deadline", "0.05s"]);
    let scored = json(&printed(&mut score));
    let summary = &scored["comparison"]["policies"][0]["pooled"];
    let computed = read(&data("etalon/computed.json"));
    let missed = number(&summary["fluidity"]["missed"]);
    let met = number(&summary["fluidity"]["met"]);
    assert_close(&missed.into(), &computed["service_level_missed_deadlines"]);
    assert_close(&(met + missed).into(), &computed["service_level_total_deadlines"]);
    assert_close(&summary["tail_tbt_rate"], &computed["tbt_based_throughput"]);
    assert_close(&summary["tpot_rate"], &computed["tpot_based_throughput"]);
    assert_close(&summary["etalon_fluid_rate"], &computed["deadline_based_throughput"]);
    let absent = ["window_s", "request_throughput", "output_throughput", "total_throughput"];
    for name in absent.into_iter().chain(["steps"]) {
        assert_eq!(summary[name], Value::Null, "{name} is not known");
    }
    assert_eq!(summary["scheduling_delay"]["n"], 0);
}

#[test]
fn each_request_of_etalon_is_within_a_nanosecond_and_misses_as_many_deadlines() {
    let text = fs::read_to_string(data("etalon/request_level_metrics.json")).expect("it is there");
    let etalon = json(&text);
    let trace = Tool::Etalon.import(&text).expect("it is a result").trace;
    let rule = FluidityRule { counting: CountingRule::Etalon, ..FluidityRule::default() };
    let deadlines = Deadlined { first_ns: 100_000_000, next_ns: 50_000_000 };
    let timelines = timelines(&trace);
    assert_eq!(timelines.len(), 40);
    for (at, timeline) in timelines.iter().enumerate() {
        let latencies = Latencies::of(timeline);
        for (name, got) in [
            ("ttft", latencies.ttft),
            ("tpot", latencies.tpot),
            ("end_to_end_latency", latencies.end_to_end),
            ("normalized_end_to_end_latency", latencies.normalized),
        ] {
            let off = got.expect("it has one").as_secs_f64() - number(&etalon[name][at]);
            assert!(off.abs() <= 1.001e-9, "{name} of request {at} is off by {off} s");
        }
        let index = timeline.fluidity(deadlines, &rule).index().expect("it has deadlines");
        let missed = number(&etalon["deadline_miss_rate"][at]);
        assert!((1.0 - index - missed).abs() < 1e-12, "request {at}: {index}, {missed}");
    }
}

#[test]
fn an_import_without_deadlines_says_what_to_give() {
    let dir = temporary();
    let file = data("etalon/request_level_metrics.json");
    let mut import = metron(dir.path());
    import.arg("import").arg("etalon").arg(file).args(["--label", "mine", "-o", "etalon"]);
    let (code, _, error) = run(&mut import);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("etalon does not know steps, nor arrivals"), "{error}");
    let (code, text, error) = run(metron(dir.path()).args(["score", "etalon"]));
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("no deadlines are known"), "{error}");
    assert!(text.contains("mine"), "{text}");
}

#[test]
fn results_are_saved_in_vllms_form_and_read_back_the_same() {
    let dir = temporary();
    let mut saved = simulated(dir.path(), "run");
    saved.args(["--num-prompts", "40", "--save-detailed", "--goodput", "ttft:2000", "-o", "out"]);
    printed(&mut saved);
    let result = read(&dir.path().join("out/vllm/sarathi-r1.json"));
    assert_eq!(result["completed"], 40);
    assert_eq!(result["itls"].as_array().map(Vec::len), Some(40));
    assert!(number(&result["request_goodput"]) > 0.0);
    let result = dir.path().join("out/vllm/sarathi-r1.json");
    printed(metron(dir.path()).arg("import").arg("vllm").arg(result).args(["-o", "back"]));
    let (_, text, error) = run(metron(dir.path()).args(["score", "back"]));
    assert!(text.starts_with("Imported, simulated: "), "{text}");
    assert!(error.contains("simulated, by another tool's account"), "{error}");
    let deadlines = ["--ttft-deadline", "1s", "--tbt-deadline", "60ms"];
    let scored = ["out/sarathi-r1.trace", "back"].map(|trace| {
        let mut score = metron(dir.path());
        json(&printed(score.args(["score", trace, "--json"]).args(deadlines)))
    });
    let [run, back] = scored.map(|json| json["comparison"]["policies"][0]["pooled"].clone());
    for metric in ["ttft", "tbt", "tpot", "end_to_end", "fluidity", "fluid_rate"] {
        assert_eq!(run[metric], back[metric], "{metric}");
    }
}

#[test]
fn a_saved_trace_is_written_in_vllms_form_by_score() {
    let dir = temporary();
    printed(simulated(dir.path(), "run").args(["--num-prompts", "20", "-o", "out"]));
    printed(metron(dir.path()).args(["score", "out", "--save-result", "--result-dir", "plots"]));
    let result = read(&dir.path().join("plots/sarathi-r1.json"));
    assert!(result.get("ttfts").is_none(), "lists only with --save-detailed");
    assert!(number(&result["p99_tpot_ms"]) >= number(&result["median_tpot_ms"]));
}

#[test]
fn a_diff_shows_what_changed_and_in_which_inputs() {
    let dir = temporary();
    let save = |budget: &str, output: &str| {
        let mut command = simulated(dir.path(), "run");
        command.args(["--schedulers", &format!("sarathi:token_budget={budget}")]);
        command.args(["--num-prompts", "40", "--request-rate", "3", "-o", output]);
        printed(&mut command);
    };
    save("32", "a");
    save("256", "b");
    let text = printed(metron(dir.path()).args(["diff", "a", "b"]));
    assert!(text.contains("policy.options.token_budget   32"), "{text}");
    assert!(!text.contains("machine.cpu"), "what is the same is not listed: {text}");
    let diff = json(&printed(metron(dir.path()).args(["diff", "a", "b", "--json"])));
    let metrics = diff["policies"][0]["metrics"].as_array().expect("a list");
    let tbt = metrics.iter().find(|metric| metric["name"] == "tbt.max").expect("it is there");
    let difference = number(&tbt["b"]) - number(&tbt["a"]);
    assert_eq!(number(&tbt["difference"]).to_bits(), difference.to_bits());
    assert!(difference > 0.0, "larger chunks stall longer: {tbt}");

    let same = printed(metron(dir.path()).args(["diff", "a", "a"]));
    assert!(same.contains("Nothing differs in their inputs."), "{same}");
}
