//! Runs in virtual time on a machine whose every cost is known, and which can be made to misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metron_engine::{
    Batch, CostModel, Engine, Event, Executor, ExecutorError, Outcome, Planner, Refused,
    SampledToken, Scheduler, Submission, Wake,
};
use metron_metrics::{DeadlineRule, FirstTokenRule, FluidityRule, Scoring};
use metron_schedulers::{Defaults, Registry};
use metron_sim::AffineCost;
use metron_trace::{
    Calibration, DecodePoint, ExecutorInfo, FORMAT_VERSION, Header, Limits, ModelInfo, Origin,
    Phases, PolicyInfo, PreemptionCause, PrefillCurve, PrefillFit, Request, RequestId, Sampling,
    Timestamp, Trace,
};

/// 10 ms a step, 1 ms a prefill token, 0.5 ms a decode.
pub(crate) const COST: AffineCost = AffineCost {
    step_ns: 10e6,
    prefill_token_ns: 1e6,
    decode_token_ns: 0.5e6,
    prefill_context_ns: 0.0,
    decode_context_ns: 0.0,
};

/// Room for everything.
pub(crate) const LIMITS: Limits =
    Limits { block_size: 16, num_blocks: 1000, max_num_seqs: 16, max_model_len: 800 };

/// (arrival in ms, prompt tokens, output tokens)
pub(crate) type Arrival = (u64, u32, u32);

/// A machine in virtual time.
#[derive(Clone, Default)]
pub(crate) struct Machine {
    cost: AffineCost,
    /// What it needs to build a batch.
    prepare: Duration,
    /// A step that takes so much longer than its contents account for.
    hiccup: Option<(u64, Duration)>,
    now: Arc<AtomicU64>,
    done: Option<Outcome>,
}

impl Machine {
    pub(crate) fn costing(cost: AffineCost) -> Self {
        Self { cost, ..Self::default() }
    }

    pub(crate) fn preparing(self, prepare: Duration) -> Self {
        Self { prepare, ..self }
    }

    pub(crate) fn hiccuping(self, step: u64, hiccup: Duration) -> Self {
        Self { hiccup: Some((step, hiccup)), ..self }
    }

    /// A policy that takes `thinks` of this machine's time for each plan.
    pub(crate) fn thinking(&self, policy: &str, limits: Limits, thinks: Duration) -> Thinking {
        Thinking { policy: registered(policy, limits), clock: Arc::clone(&self.now), thinks }
    }

    fn pass(&self, span: Duration) {
        self.now.fetch_add(span.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Executor for Machine {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<(), ExecutorError> {
        let started_at = self.now();
        let hiccup = self.hiccup.filter(|(step, _)| *step == batch.step);
        let forward = self.cost.step_time(batch.work()) + hiccup.map_or(Duration::ZERO, |(_, t)| t);
        self.pass(self.prepare + forward);
        let tokens = batch.items().iter().filter(|item| item.samples).map(|item| SampledToken {
            request: item.request,
            id: None,
            is_end_of_sequence: false,
        });
        self.done = Some(Outcome {
            operators: Vec::new(),
            started_at,
            ended_at: self.now(),
            phases: Phases {
                prepare: Some(self.prepare),
                forward: Some(forward),
                ..Phases::default()
            },
            tokens: tokens.collect(),
            text: Vec::new(),
        });
        Ok(())
    }

    fn next_outcome(
        &mut self,
        until: Option<Timestamp>,
        outcome: &mut Outcome,
    ) -> Result<bool, ExecutorError> {
        if let Some(done) = self.done.take() {
            *outcome = done;
            return Ok(true);
        }
        self.pass(until.map_or(Duration::ZERO, |until| until - self.now()));
        Ok(false)
    }
}

/// A policy that is slow to decide.
pub(crate) struct Thinking {
    policy: Box<dyn Scheduler>,
    clock: Arc<AtomicU64>,
    thinks: Duration,
}

impl Scheduler for Thinking {
    fn observe(&mut self, event: Event<'_>) {
        self.policy.observe(event);
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        self.clock.fetch_add(self.thinks.as_nanos() as u64, Ordering::Relaxed);
        self.policy.plan(plan)
    }
}

/// Runs request 0, and preempts it for no good reason when it has so many tokens.
#[derive(Default)]
pub(crate) struct Fickle {
    pub(crate) preempts_at: Option<u32>,
}

impl Scheduler for Fickle {
    fn observe(&mut self, _event: Event<'_>) {}

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        let id = RequestId(0);
        let generated = plan.view(id).map(|view| view.generated());
        if generated.is_some() && self.preempts_at == generated {
            self.preempts_at = None;
            plan.preempt(id, PreemptionCause::Policy)?;
        }
        // Admitted already: the refusal changes nothing.
        let _ = plan.admit(id, 0, 0);
        plan.run(id, u32::MAX)?;
        Ok(Wake::OnEvent)
    }
}

/// A policy of Metron's.
pub(crate) fn registered(policy: &str, limits: Limits) -> Box<dyn Scheduler> {
    let spec = policy.parse().expect("the policy parses");
    let defaults = Defaults { limits, token_budget: 512 };
    Registry::default().build(&spec, &defaults).expect("the policy is known").0
}

/// Serves requests on a machine; the header's calibration is that of its costs, as they are alone.
pub(crate) fn serve(
    mut machine: Machine,
    policy: &mut dyn Scheduler,
    limits: Limits,
    arrivals: &[Arrival],
) -> Trace {
    let mut trace = Trace {
        header: header(&machine.cost, limits),
        requests: Vec::new(),
        steps: Vec::new(),
        tokens: Vec::new(),
        ends: Vec::new(),
    };
    let submissions: Vec<Submission> = arrivals.iter().zip(0..).map(submission).collect();
    let engine = Engine { policy: "served", limits, max_concurrency: None, cost_model: None };
    engine.run(&mut machine, policy, submissions, &mut trace).expect("the run ends");
    trace
}

fn submission((&(ms, prompt_tokens, output), id): (&Arrival, u32)) -> Submission {
    let request = Request {
        id: RequestId(id),
        arrived_at: Timestamp::from_nanos(ms * 1_000_000),
        prompt_tokens,
        output_tokens: Some(output),
        max_tokens: output,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    Submission { request, prompt: Vec::new() }
}

/// The first token within `first_ms` of the arrival, later ones within `next_ms`.
pub(crate) fn due(first_ms: u64, next_ms: u64) -> Scoring {
    Scoring {
        deadlines: DeadlineRule {
            first_token: FirstTokenRule::Fixed(Duration::from_millis(first_ms)),
            next_token: Some(Duration::from_millis(next_ms)),
        },
        prefill: None,
        fluidity: FluidityRule::default(),
        stall_limit: Duration::MAX,
        rate_target: metron::metrics::RateTarget::default(),
        goodput: None,
        class_deadlines: std::collections::BTreeMap::new(),
        objectives: metron::metrics::Objectives::default(),
    }
}

fn calibration(cost: &AffineCost) -> Calibration {
    let curve = PrefillCurve {
        a: cost.step_ns / 1e9,
        b: cost.prefill_token_ns / 1e9,
        c: cost.prefill_context_ns / 2e9,
    };
    let decode = [1, 2, 16].map(|batch| DecodePoint {
        batch,
        context: 0,
        step_time: Duration::from_secs_f64(
            f64::from(batch).mul_add(cost.decode_token_ns, cost.step_ns) / 1e9,
        ),
    });
    let prefill = PrefillFit { curve, points: Vec::new(), relative_residual: 0.0 };
    Calibration { prefill, decode: decode.to_vec() }
}

pub(crate) fn header(cost: &AffineCost, limits: Limits) -> Header {
    Header {
        format_version: FORMAT_VERSION,
        metron_version: String::new(),
        created_at: None,
        command_line: Vec::new(),
        origin: Origin::Simulated,
        seed: 0,
        replicate: 0,
        max_concurrency: None,
        policy: PolicyInfo {
            label: "served".to_owned(),
            name: String::new(),
            options: serde_json::Value::Null,
        },
        model: ModelInfo {
            id: String::new(),
            source: String::new(),
            format: String::new(),
            parameters: 0,
            sha256: None,
            dummy: true,
        },
        executor: ExecutorInfo {
            device: String::new(),
            dtype: None,
            threads: None,
            batch_invariant: None,
        },
        machine: metron_trace::Machine::default(),
        limits,
        experiment: serde_json::Value::Null,
        classes: Vec::new(),
        dropped_requests: 0,
        truncated_requests: 0,
        calibration: Some(calibration(cost)),
    }
}
