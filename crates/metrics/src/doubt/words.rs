use super::Doubt;

impl Doubt {
    /// What was seen, with its figures: a sentence without its full stop.
    pub fn finding(&self) -> String {
        match *self {
            Self::LateArrivals { late, of, worst_s } => format!(
                "late arrivals: {late} of {of} requests were seen late, by up to {}",
                milliseconds(worst_s)
            ),
            Self::BusyMachine { waiting, stolen, others, switches_per_s } => {
                busy(waiting, stolen, others, switches_per_s)
            }
            Self::CpuFrequency { before_mhz, after_mhz } => format!(
                "the processors' frequency changed: {before_mhz} MHz before a run, {after_mhz} MHz \
                 after it"
            ),
            Self::GpuClock { before_mhz, after_mhz } => format!(
                "the accelerator's clock changed: {before_mhz} MHz before a run, {after_mhz} MHz \
                 after it"
            ),
            Self::Throttling { events: Some(events) } => {
                format!("the processors slowed down for heat {events} times")
            }
            Self::Throttling { events: None } => {
                "the accelerator had slowed down for heat or power".to_owned()
            }
            Self::Swap { pages } => format!("the machine swapped: {pages} pages in and out"),
            Self::NoWarmUp { factor } => format!(
                "no warm-up: the first steps took {factor:.1} times as long as the rest, by their \
                 batches"
            ),
            Self::NotStationary { from, to } => format!(
                "not stationary: requests in progress grew from {from:.0} to {to:.0} while others \
                 arrived"
            ),
            Self::TooFewRequests { share, have, need } => format!(
                "too few requests: a figure for {} % of requests takes at least {need} of them, and \
                 has {have}",
                percent(share)
            ),
            Self::ClockResolution { tick_s, step_s } => format!(
                "the clock ticks every {}, and the median step takes {}",
                milliseconds(tick_s),
                milliseconds(step_s)
            ),
            Self::ObserverCost { share } => {
                format!(
                    "the observer's own cost: {} % of busy time went by between steps",
                    percent(share)
                )
            }
            Self::CalibrationResiduals { residual } => format!(
                "the calibration scatters: isolated prefills are {} % off its curve",
                percent(residual)
            ),
            Self::FirstReplicateSlower { by } => format!(
                "the first replicate was slower: its steps took {} % longer than the others', by \
                 their batches",
                percent(by)
            ),
            Self::RepeatedRequests { distinct, of } => format!(
                "repeated requests: a policy's {of} runs in virtual time are copies of {distinct} of them; \
                 intervals and verdicts are about these requests, not others like them"
            ),
            Self::Extrapolated { requests, prompt_tokens, range } => format!(
                "extrapolated: deadlines of {requests} requests were predicted outside the \
                 calibrated {} to {} tokens, the farthest for {prompt_tokens}",
                range.0, range.1
            ),
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::LateArrivals { .. } => {
                "Free a processor for the loop (--threads), or end other work; a policy that waits \
                 on purpose looks the same."
            }
            Self::BusyMachine { .. } => {
                "End the other work, or take fewer --threads, and run again; deadlines missed for it \
                 are unexplained ones."
            }
            Self::CpuFrequency { .. } => {
                "Set the governor to performance, and let the machine cool between runs."
            }
            Self::GpuClock { .. } => "Lock the clocks (nvidia-smi -lgc), and run again.",
            Self::Throttling { .. } => "Cool the machine, or lower its clock, and run again.",
            Self::Swap { .. } => {
                "Take fewer --kv-blocks or a smaller model, or end other programs."
            }
            Self::NoWarmUp { .. } => {
                "Run again on a machine that is warm, or longer (--num-prompts), so that they weigh less."
            }
            Self::NotStationary { .. } => {
                "Latencies are this run length's only: lower --request-rate, or ask metron capacity, \
                 with runs long enough (--num-prompts)."
            }
            Self::TooFewRequests { .. } => {
                "Raise --num-prompts, or --replicates (not for a capacity, which judges each run alone)."
            }
            Self::ClockResolution { .. } => "Use a machine whose clock source is tsc or its like.",
            Self::ObserverCost { .. } => {
                "Ask metron doctor --overhead what recording costs; steps so short need a larger model."
            }
            Self::CalibrationResiduals { .. } => {
                "Calibrate on a quiet machine, or give --ttft-deadline as a duration."
            }
            Self::FirstReplicateSlower { .. } => {
                "Add replicates (--replicates), or run again: `metron score` of the others leaves it out."
            }
            Self::RepeatedRequests { .. } => {
                "Vary arrivals or lengths (--request-rate, --random-range-ratio), or take --replicates 1; of \
                 a recorded trace lower --num-prompts, so that each replicate has a stretch of its own."
            }
            Self::Extrapolated { .. } => {
                "Give --ttft-deadline as a duration, or calibrate with such prompts in the workload."
            }
        }
    }
}

fn busy(
    waiting: Option<f64>,
    stolen: Option<f64>,
    others: Option<f64>,
    switches_per_s: Option<f64>,
) -> String {
    let signs = [
        waiting.map(|share| format!("something waited for one {} % of the time", percent(share))),
        stolen
            .filter(|share| *share > 0.0)
            .map(|share| format!("{} % of their time was stolen by a hypervisor", percent(share))),
        others.map(|count| format!("other processes kept {count:.2} of them busy")),
        switches_per_s
            .map(|rate| format!("a thread of the run lost its own {rate:.0} times a second")),
    ];
    let signs: Vec<String> = signs.into_iter().flatten().collect();
    format!("other work had the processors: {}", signs.join(", "))
}

/// A share in per cent with the digits that it has.
fn percent(share: f64) -> f64 {
    (share * 1e4).round() / 100.0
}

fn milliseconds(seconds: f64) -> String {
    format!("{} ms", (seconds * 1e6).round() / 1e3)
}
