use std::ops::RangeInclusive;

use metron_workload::{Arrivals, Class, Lengths, Prompts, Vocabulary, WorkloadSpec};

use crate::args::{ArrivalsArg, WorkloadArgs};
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::absolute;
use crate::prepare::draw;

/// A workload with what is still to be derived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkloadDraft {
    pub(crate) spec: WorkloadSpec,
    /// Whether the rate is a placeholder.
    pub(crate) derive_rate: bool,
    /// Whether the number of requests is a placeholder.
    pub(crate) derive_count: bool,
}

/// Requests to draw lengths from while the number is not known.
const SAMPLE: u32 = 256;

/// Stands for a rate that is still to be derived.
const PLACEHOLDER_RATE: f64 = 1.0;

/// The rates that can be asked for: beyond them a run of one request takes weeks, or all come at once.
const RATES: RangeInclusive<f64> = 1e-6..=1e9;

impl WorkloadDraft {
    /// The workload of an experiment's file, with the command line's options in its place.
    pub(crate) fn new(spec: Option<&WorkloadSpec>, args: &WorkloadArgs) -> Result<Self, Failure> {
        let is_given = spec.is_some();
        let mut draft = Self {
            spec: spec.cloned().unwrap_or_else(default_workload),
            derive_rate: !is_given,
            derive_count: !is_given,
        };
        draft.overlay_lengths(args)?;
        draft.overlay_arrivals(args)?;
        let WorkloadArgs { num_prompts, max_concurrency, prompt_text, .. } = args;
        if let Some(count) = num_prompts {
            draft.spec.num_prompts = *count;
            draft.derive_count = false;
        }
        draft.spec.max_concurrency = max_concurrency.or(draft.spec.max_concurrency);
        if let Some(path) = prompt_text {
            draft.spec.prompts = Prompts::Text { path: absolute(path) };
        }
        draft.spec.stop_at_eos |= args.stop_at_eos;
        draft.spec.temperature = args.temperature.unwrap_or(draft.spec.temperature);
        draft.check(args)?;
        Ok(draft)
    }

    /// Refuses numbers that can't be, before anything is loaded.
    fn check(&self, args: &WorkloadArgs) -> Result<(), Failure> {
        if let Some(rate) = self.rate().filter(|rate| !RATES.contains(rate)) {
            let (field, or_inf) = match args.request_rate {
                Some(_) => ("--request-rate", ", or inf"),
                None => ("request_rate", ""),
            };
            return Err(usage(anyhow::anyhow!(
                "{field} is {}; it must be above 0: from 0.000001 to 1000000000 a second{or_inf}",
                in_short(rate)
            )));
        }
        let one = WorkloadSpec { num_prompts: self.spec.num_prompts.min(1), ..self.spec.clone() };
        draw(&one, &Vocabulary::default(), 0, 0).map(|_| ())
    }

    fn overlay_lengths(&mut self, args: &WorkloadArgs) -> Result<(), Failure> {
        if let Some(path) = &args.dataset_path {
            let path = absolute(path);
            let rows = metron_workload::read_recorded(&path).or_fail(Kind::Input)?;
            self.spec.classes = vec![one_class(Lengths::Recorded { path: path.clone() })];
            if rows[0].arrived_at.is_some() && args.request_rate.is_none() {
                self.spec.arrivals = Arrivals::Recorded { path, speed: 1.0 };
                self.spec.num_prompts = rows.len() as u32;
                self.derive_rate = false;
                self.derive_count = false;
            }
        } else if args.input_len.is_some() || args.output_len.is_some() {
            let ratio = args.random_range_ratio.unwrap_or(0.0);
            if !(0.0..1.0).contains(&ratio) {
                return Err(usage(anyhow::anyhow!(
                    "--random-range-ratio is {ratio}; it must be from 0 to below 1"
                )));
            }
            self.spec.classes = vec![one_class(Lengths::Uniform {
                prompt_tokens: around(args.input_len.unwrap_or(512), ratio),
                output_tokens: around(args.output_len.unwrap_or(64), ratio),
            })];
            return Ok(());
        }
        if args.random_range_ratio.is_some() {
            return Err(usage(anyhow::anyhow!(
                "--random-range-ratio spreads --input-len and --output-len; give one of them"
            )));
        }
        Ok(())
    }

    /// What is not asked for stays as it is; a rate that nobody gave is derived.
    fn overlay_arrivals(&mut self, args: &WorkloadArgs) -> Result<(), Failure> {
        check_arrivals(args).map_err(usage)?;
        let known = self.rate().filter(|_| !self.derive_rate);
        let rate = args.request_rate.or(known);
        let request_rate = rate.unwrap_or(PLACEHOLDER_RATE);
        let burstiness = args.burstiness.unwrap_or(match self.spec.arrivals {
            Arrivals::Gamma { burstiness, .. } => burstiness,
            _ => 1.0,
        });
        let gamma = Arrivals::Gamma { request_rate, burstiness };
        self.spec.arrivals = match (args.arrivals, &self.spec.arrivals) {
            (None, _) if args.request_rate.is_none() && args.burstiness.is_none() => return Ok(()),
            (None, _) if request_rate.is_infinite() => Arrivals::AllAtOnce,
            (None, _) if args.burstiness.is_some() => gamma,
            (Some(ArrivalsArg::AllAtOnce), _) => Arrivals::AllAtOnce,
            (Some(ArrivalsArg::Trace), Arrivals::Recorded { .. }) => return Ok(()),
            (Some(ArrivalsArg::Trace), _) => {
                return Err(usage(anyhow::anyhow!(
                    "--arrivals trace needs --dataset-path FILE with arrival times, and no \
                     --request-rate"
                )));
            }
            (Some(ArrivalsArg::Poisson), _) => Arrivals::Gamma { request_rate, burstiness: 1.0 },
            (Some(ArrivalsArg::Constant), _) | (None, Arrivals::Constant { .. }) => {
                Arrivals::Constant { request_rate }
            }
            (Some(ArrivalsArg::Gamma) | None, _) => gamma,
        };
        self.derive_rate = rate.is_none() && self.rate().is_some();
        Ok(())
    }

    /// A spec to draw lengths from, with a number of requests in any case.
    pub(crate) fn sample(&self) -> WorkloadSpec {
        let arrivals = match &self.spec.arrivals {
            Arrivals::Recorded { .. } => self.spec.arrivals.clone(),
            _ => Arrivals::AllAtOnce,
        };
        let num_prompts = if self.derive_count { SAMPLE } else { self.spec.num_prompts };
        WorkloadSpec { arrivals, num_prompts, ..self.spec.clone() }
    }

    /// The rate of the arrivals, where they have one.
    pub(crate) fn rate(&self) -> Option<f64> {
        match self.spec.arrivals {
            Arrivals::Gamma { request_rate, .. } | Arrivals::Constant { request_rate } => {
                Some(request_rate)
            }
            Arrivals::AllAtOnce | Arrivals::Recorded { .. } => None,
        }
    }
}

/// A number that may have hundreds of digits.
fn in_short(value: f64) -> String {
    let text = value.to_string();
    if text.len() > 12 { format!("{value:e}") } else { text }
}

fn usage(error: anyhow::Error) -> Failure {
    Failure { kind: Kind::Usage, error }
}

/// Refuses options on arrivals that say two things, or of which one would not be heard.
fn check_arrivals(args: &WorkloadArgs) -> anyhow::Result<()> {
    let WorkloadArgs { request_rate, burstiness, arrivals, .. } = args;
    let is_gamma = matches!(arrivals, None | Some(ArrivalsArg::Gamma));
    let is_at_once = *request_rate == Some(f64::INFINITY);
    match arrivals {
        Some(ArrivalsArg::AllAtOnce) if request_rate.is_some() && !is_at_once => {
            anyhow::bail!("--arrivals all-at-once has no rate; leave --request-rate out")
        }
        Some(kind) if is_at_once && *kind != ArrivalsArg::AllAtOnce => {
            anyhow::bail!("--request-rate inf is all at once; leave --arrivals out, or give a rate")
        }
        Some(ArrivalsArg::Trace) if request_rate.is_some() => anyhow::bail!(
            "--arrivals trace takes the times of --dataset-path; leave --request-rate out"
        ),
        _ => {}
    }
    if burstiness.is_some() && (is_at_once || !is_gamma) {
        anyhow::bail!(
            "--burstiness shapes gamma arrivals; leave it out, or give --arrivals gamma and a finite \
             --request-rate"
        );
    }
    Ok(())
}

/// Sets the rate of arrivals that have one.
pub(crate) fn set_rate(spec: &mut WorkloadSpec, rate: f64) {
    if let Arrivals::Gamma { request_rate, .. } | Arrivals::Constant { request_rate } =
        &mut spec.arrivals
    {
        *request_rate = rate;
    }
}

/// The names of a workload's classes.
pub(crate) fn class_names(spec: &WorkloadSpec) -> Vec<String> {
    spec.classes.iter().map(|class| class.name.clone()).collect()
}

fn one_class(lengths: Lengths) -> Class {
    Class { name: String::new(), weight: 1.0, priority: 0, lengths }
}

fn around(length: u32, ratio: f64) -> [u32; 2] {
    let at = |factor: f64| {
        #[expect(clippy::cast_sign_loss, reason = "a length times a factor that is not negative")]
        let tokens = (f64::from(length) * factor).round() as u32;
        tokens.max(length.min(1)) // a length of 0 stays one, to be refused
    };
    [at(1.0 - ratio), at(1.0 + ratio)]
}

/// Long prompts among short ones, so that generation stalls can be seen.
fn default_workload() -> WorkloadSpec {
    let lengths = |prompt_median, prompt_range, output_range| Lengths::Lognormal {
        prompt_median,
        prompt_sigma: 0.6,
        prompt_range,
        output_median: 32.0,
        output_sigma: 0.4,
        output_range,
    };
    let class =
        |name: &str, weight, lengths| Class { name: name.to_owned(), weight, priority: 0, lengths };
    WorkloadSpec {
        num_prompts: SAMPLE,
        arrivals: Arrivals::Gamma { request_rate: PLACEHOLDER_RATE, burstiness: 1.0 },
        max_concurrency: None,
        classes: vec![
            class("chat", 0.85, lengths(64.0, [16, 256], [8, 64])),
            class("document", 0.15, lengths(1024.0, [768, 1280], [8, 64])),
        ],
        prompts: Prompts::Random,
        temperature: 0.0,
        stop_at_eos: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(file: Option<Arrivals>, args: &WorkloadArgs) -> (Arrivals, bool) {
        let spec = file.map(|arrivals| WorkloadSpec { arrivals, ..default_workload() });
        let draft = WorkloadDraft::new(spec.as_ref(), args).expect("the numbers are fine");
        (draft.spec.arrivals, draft.derive_rate)
    }

    fn at(request_rate: f64) -> WorkloadArgs {
        WorkloadArgs { request_rate: Some(request_rate), ..WorkloadArgs::default() }
    }

    #[test]
    fn another_rate_leaves_the_kind_of_a_files_arrivals_as_it_is() {
        let bursty = |request_rate| Arrivals::Gamma { request_rate, burstiness: 0.25 };
        let even = |request_rate| Arrivals::Constant { request_rate };
        assert_eq!(arrivals(Some(bursty(3.0)), &at(5.0)), (bursty(5.0), false));
        assert_eq!(arrivals(Some(even(3.0)), &at(5.0)), (even(5.0), false));
        let steadier = WorkloadArgs { burstiness: Some(4.0), ..WorkloadArgs::default() };
        let expected = Arrivals::Gamma { request_rate: 3.0, burstiness: 4.0 };
        assert_eq!(arrivals(Some(bursty(3.0)), &steadier), (expected, false));
        let poisson =
            WorkloadArgs { arrivals: Some(ArrivalsArg::Poisson), ..WorkloadArgs::default() };
        let expected = Arrivals::Gamma { request_rate: 3.0, burstiness: 1.0 };
        assert_eq!(arrivals(Some(bursty(3.0)), &poisson), (expected, false));
        assert_eq!(arrivals(Some(bursty(3.0)), &at(f64::INFINITY)), (Arrivals::AllAtOnce, false));
    }

    #[test]
    fn a_rate_that_nobody_gave_is_derived() {
        let of_kind = |kind| WorkloadArgs { arrivals: Some(kind), ..WorkloadArgs::default() };
        let burstiness = WorkloadArgs { burstiness: Some(0.3), ..WorkloadArgs::default() };
        for args in [&of_kind(ArrivalsArg::Poisson), &of_kind(ArrivalsArg::Constant), &burstiness] {
            assert!(arrivals(None, args).1, "{args:?}");
            assert!(arrivals(Some(Arrivals::AllAtOnce), args).1, "{args:?}");
        }
        assert!(!arrivals(None, &of_kind(ArrivalsArg::AllAtOnce)).1, "there is none");
        assert!(!arrivals(None, &at(2.0)).1);
    }
}
