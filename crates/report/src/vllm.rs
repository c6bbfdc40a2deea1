//! A run in the form of `vllm bench serve --save-result` (vllm-project/vllm,
//! `vllm/benchmarks/serve.py`), so that what plots those plots this.

use std::time::Duration;

use metron_metrics::{Absent, Latencies, Scoring, Timeline, interpolated, summarise, timelines};
use metron_trace::{EndStatus, Header, Timestamp, Trace};
use serde_json::{Map, Value, json};

/// The percentiles that are written of each metric.
const PERCENTILES: [u32; 4] = [50, 90, 95, 99];

/// One run with vLLM's names and definitions: statistics are of finished requests, in milliseconds,
/// percentiles interpolated linearly as NumPy does, whatever the sample's size; throughputs count
/// the tokens of finished requests. `with_requests` adds vLLM's lists of a request each, in seconds
/// (its `--save-detailed`), without texts, which are not recorded.
///
/// Unlike vLLM's, a statistic without a sample is null and not 0.
pub fn vllm_result(trace: &Trace, scoring: &Scoring, with_requests: bool) -> Map<String, Value> {
    let timelines = timelines(trace);
    let finished: Vec<&Timeline> = timelines.iter().filter(|t| t.is_finished()).collect();
    let mut result = about(&trace.header, timelines.len());
    result.extend(totals(trace, scoring, &finished, timelines.len()));
    let latencies: Vec<Latencies> =
        finished.iter().map(|timeline| Latencies::of(timeline)).collect();
    let sample = |of: fn(&Latencies) -> Result<Duration, Absent>| {
        Sample::of(latencies.iter().filter_map(|latency| of(latency).ok()))
    };
    sample(|latency| latency.ttft).write("ttft", &mut result);
    sample(|latency| latency.tpot).write("tpot", &mut result);
    sample(|latency| latency.end_to_end).write("e2el", &mut result);
    Sample::of(finished.iter().flat_map(|timeline| later_gaps(timeline))).write("itl", &mut result);
    if with_requests {
        result.extend(of_requests(&timelines, trace.header.origin.knows_arrivals()));
    }
    result
}

type Fields = Vec<(String, Value)>;

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Fields {
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

/// What ran, under what load.
fn about(header: &Header, num_prompts: usize) -> Map<String, Value> {
    // `2026-11-24T15:18:44+00:00` as `20261124-151844`.
    let date = header.created_at.as_ref().map(|date| {
        let digits: String = date.chars().take(19).filter(|c| *c != '-' && *c != ':').collect();
        digits.replace('T', "-")
    });
    let (request_rate, burstiness) = traffic(header);
    let max_concurrency = header.experiment.pointer("/experiment/workload/max_concurrency");
    let about = fields([
        ("date", json!(date)),
        ("endpoint_type", json!("metron")),
        ("backend", json!("metron")),
        ("label", json!(header.policy.label)),
        ("model_id", json!(header.model.id)),
        ("tokenizer_id", json!(header.model.id)),
        ("num_prompts", json!(num_prompts)),
        ("request_rate", request_rate),
        ("burstiness", burstiness),
        ("max_concurrency", max_concurrency.cloned().unwrap_or_default()),
        // Not vLLM's, whose `--metadata` adds such fields: nobody may take a simulated result for a
        // measured one.
        ("origin", json!(header.origin)),
        ("metron_version", json!(header.metron_version)),
        ("seed", json!(header.seed)),
    ]);
    about.into_iter().collect()
}

/// Rate and burstiness in vLLM's terms: infinite are the rate of requests that come all at once and
/// the burstiness of those that come at constant intervals. Null for recorded arrivals.
fn traffic(header: &Header) -> (Value, Value) {
    let arrivals = &header.experiment["experiment"]["workload"]["arrivals"];
    let rate = arrivals["request_rate"].clone();
    match arrivals["kind"].as_str() {
        Some("gamma") => (rate, arrivals["burstiness"].clone()),
        Some("constant") => (rate, json!("inf")),
        Some("all_at_once") => (json!("inf"), json!(1.0)),
        _ => (Value::Null, Value::Null),
    }
}

fn totals(trace: &Trace, scoring: &Scoring, finished: &[&Timeline], all: usize) -> Fields {
    let summary = summarise(&[trace], scoring);
    let input: u64 = finished.iter().map(|timeline| u64::from(timeline.prompt_tokens)).sum();
    let output: u64 = finished.iter().map(|timeline| timeline.tokens_at.len() as u64).sum();
    let window_s = summary.window_s.filter(|window_s| *window_s > 0.0);
    let a_second = |count: u64| json!(window_s.map(|window_s| count as f64 / window_s));
    let knows_arrivals = trace.header.origin.knows_arrivals();
    let peak = |of: fn(&[&Timeline]) -> usize| json!(knows_arrivals.then(|| of(finished)));
    fields([
        ("duration", json!(summary.window_s)),
        ("completed", json!(finished.len())),
        ("failed", json!(all - finished.len())),
        ("total_input_tokens", json!(input)),
        ("total_output_tokens", json!(output)),
        ("request_throughput", a_second(finished.len() as u64)),
        ("request_goodput", json!(summary.goodput)),
        ("output_throughput", a_second(output)),
        ("total_token_throughput", a_second(input + output)),
        ("max_output_tokens_per_s", peak(most_tokens_in_a_second)),
        ("max_concurrent_requests", peak(most_in_progress)),
    ])
}

/// Tokens in the fullest of the whole seconds after the first arrival.
fn most_tokens_in_a_second(finished: &[&Timeline]) -> usize {
    let first = finished.iter().map(|timeline| timeline.arrived_at).min().unwrap_or_default();
    let tokens = finished.iter().flat_map(|timeline| &timeline.tokens_at);
    let mut seconds: Vec<u64> = tokens.map(|at| at.since(first).as_secs()).collect();
    seconds.sort_unstable();
    seconds.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0)
}

/// The most requests in progress at a time; one that ends as another arrives leaves before.
fn most_in_progress(finished: &[&Timeline]) -> usize {
    let last = |timeline: &Timeline| timeline.tokens_at.last().copied();
    let mut changes: Vec<(Timestamp, isize)> = finished
        .iter()
        .flat_map(|timeline| {
            let arrived_at = timeline.arrived_at;
            [(arrived_at, 1), (last(timeline).unwrap_or(arrived_at), -1)]
        })
        .collect();
    changes.sort_unstable();
    let in_progress = changes.iter().scan(0_isize, |now, (_, change)| {
        *now += change;
        Some(*now)
    });
    in_progress.max().unwrap_or(0).unsigned_abs()
}

fn later_gaps(timeline: &Timeline) -> impl Iterator<Item = Duration> {
    timeline.inter_token_ns().into_iter().skip(1).map(Duration::from_nanos)
}

/// The lists of a request each. A request without a token has a TTFT of 0, as in vLLM, and says in
/// `errors` why it has none.
fn of_requests(timelines: &[Timeline], knows_arrivals: bool) -> Fields {
    let list = |of: fn(&Timeline) -> Value| timelines.iter().map(of).collect::<Vec<Value>>();
    let ttft = |timeline: &Timeline| {
        let first = timeline.tokens_at.first();
        json!(first.map_or(0.0, |at| at.since(timeline.arrived_at).as_secs_f64()))
    };
    let itl = |timeline: &Timeline| {
        later_gaps(timeline).map(|gap| gap.as_secs_f64()).collect::<Vec<_>>().into()
    };
    let mut lists = fields([
        ("input_lens", list(|timeline| json!(timeline.prompt_tokens)).into()),
        ("output_lens", list(|timeline| json!(timeline.tokens_at.len())).into()),
        ("ttfts", list(ttft).into()),
        ("itls", list(itl).into()),
        ("errors", list(|timeline| json!(error(timeline.status))).into()),
    ]);
    if knows_arrivals {
        let arrivals = list(|timeline| json!(timeline.arrived_at.as_secs_f64()));
        lists.push(("start_times".to_owned(), arrivals.into()));
    }
    lists
}

fn error(status: Option<EndStatus>) -> &'static str {
    match status {
        Some(EndStatus::Finished) => "",
        Some(EndStatus::Failed) => "failed",
        Some(EndStatus::TimedOut) => "timed out",
        Some(EndStatus::Cancelled) => "cancelled",
        Some(EndStatus::Unsent) => "not sent",
        None => "in progress when the run ended",
    }
}

/// A sample of times, in sorted milliseconds.
struct Sample(Vec<f64>);

impl Sample {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_unstable_by(f64::total_cmp);
        Self(times)
    }

    fn write(&self, metric: &str, result: &mut Map<String, Value>) {
        let mean = self.mean();
        let deviation = mean.map(|mean| self.deviation(mean));
        result.insert(format!("mean_{metric}_ms"), json!(mean));
        result.insert(format!("std_{metric}_ms"), json!(deviation));
        result.insert(format!("median_{metric}_ms"), json!(interpolated(&self.0, 0.5)));
        for p in PERCENTILES {
            let value = interpolated(&self.0, f64::from(p) / 100.0);
            result.insert(format!("p{p}_{metric}_ms"), json!(value));
        }
    }

    fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.iter().sum::<f64>() / self.0.len() as f64)
    }

    /// Of the population, as NumPy's default.
    fn deviation(&self, mean: f64) -> f64 {
        let squares = self.0.iter().map(|value| (value - mean).powi(2));
        (squares.sum::<f64>() / self.0.len() as f64).sqrt()
    }
}
