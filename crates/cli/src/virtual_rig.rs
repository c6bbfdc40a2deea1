use std::time::Duration;

use metron_engine::{CostModel, Executor, ExecutorError};
use metron_lab::Rig;
use metron_sim::{CostFile, SimExecutor};
use metron_trace::{Limits, Work};
use std::sync::Arc;

/// A cost model that several owners share.
#[derive(Clone)]
pub(crate) struct SharedCost(pub(crate) Arc<CostFile>);

impl CostModel for SharedCost {
    fn step_time(&self, work: &[Work]) -> Duration {
        self.0.step_time(work)
    }
}

/// The system under test in virtual time.
pub(crate) struct VirtualRig {
    limits: Limits,
    cost: SharedCost,
    executor: SimExecutor<SharedCost>,
}

impl VirtualRig {
    pub(crate) fn new(limits: Limits, cost: SharedCost) -> Self {
        let executor = SimExecutor::new(cost.clone());
        Self { limits, cost, executor }
    }
}

impl Rig for VirtualRig {
    fn start(&mut self) -> Result<&mut dyn Executor, ExecutorError> {
        self.executor = SimExecutor::new(self.cost.clone());
        Ok(&mut self.executor)
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn ordinary_token_ids(&self) -> &[u32] {
        &[]
    }
}
