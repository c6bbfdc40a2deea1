use metron_workload::{Arrivals, Class, Lengths, Prompts, WorkloadSpec};

use crate::args::{ArrivalsArg, WorkloadArgs};
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::absolute;

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

impl WorkloadDraft {
    /// The workload of an experiment's file, with the command line's options before it.
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
        Ok(draft)
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
                let error = anyhow::anyhow!(
                    "--random-range-ratio is {ratio}; it must be from 0 to below 1"
                );
                return Err(Failure { kind: Kind::Usage, error });
            }
            self.spec.classes = vec![one_class(Lengths::Uniform {
                prompt_tokens: around(args.input_len.unwrap_or(512), ratio),
                output_tokens: around(args.output_len.unwrap_or(64), ratio),
            })];
        }
        Ok(())
    }

    fn overlay_arrivals(&mut self, args: &WorkloadArgs) -> Result<(), Failure> {
        if args.request_rate == Some(f64::INFINITY) || args.arrivals == Some(ArrivalsArg::AllAtOnce)
        {
            self.spec.arrivals = Arrivals::AllAtOnce;
            self.derive_rate = false;
            return Ok(());
        }
        let usage = |error| Failure { kind: Kind::Usage, error };
        let given = match self.spec.arrivals {
            Arrivals::Gamma { request_rate, .. } | Arrivals::Constant { request_rate } => {
                request_rate
            }
            _ => 1.0,
        };
        if args.request_rate.is_some_and(|rate| rate.is_nan() || rate <= 0.0) {
            let rate = args.request_rate.unwrap_or_default();
            let error = anyhow::anyhow!("--request-rate is {rate}; it must be above 0, or inf");
            return Err(usage(error));
        }
        let request_rate = args.request_rate.unwrap_or(given);
        self.derive_rate &= args.request_rate.is_none();
        let burstiness = args.burstiness.unwrap_or(1.0);
        match args.arrivals {
            Some(ArrivalsArg::Constant) => {
                self.spec.arrivals = Arrivals::Constant { request_rate };
            }
            Some(ArrivalsArg::Trace)
                if !matches!(self.spec.arrivals, Arrivals::Recorded { .. }) =>
            {
                let error = anyhow::anyhow!(
                    "--arrivals trace needs --dataset-path FILE with arrival times, and no \
                     --request-rate"
                );
                return Err(usage(error));
            }
            Some(ArrivalsArg::Poisson | ArrivalsArg::Gamma) => {
                self.spec.arrivals = Arrivals::Gamma { request_rate, burstiness };
            }
            _ if args.request_rate.is_some() || args.burstiness.is_some() => {
                self.spec.arrivals = Arrivals::Gamma { request_rate, burstiness };
            }
            _ => {}
        }
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
        arrivals: Arrivals::Gamma { request_rate: 1.0, burstiness: 1.0 },
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
