use std::time::Instant;

use candle_core::{Device, Result};
use metron_trace::{Operator, OperatorSpan, Timestamp};

use crate::executor::clock;

/// Times the operators of a forward pass, where that was asked for.
#[derive(Debug)]
pub(crate) struct OperatorClock<'a> {
    timed: Option<Timed<'a>>,
    layer: Option<u32>,
}

#[derive(Debug)]
struct Timed<'a> {
    /// What times count from.
    started: Instant,
    device: &'a Device,
    spans: &'a mut Vec<OperatorSpan>,
}

impl<'a> OperatorClock<'a> {
    /// One that times nothing.
    pub(crate) fn off() -> Self {
        Self { timed: None, layer: None }
    }

    /// One that appends to `spans`, with times since `started`.
    pub(crate) fn new(
        started: Instant,
        device: &'a Device,
        spans: &'a mut Vec<OperatorSpan>,
    ) -> Self {
        Self { timed: Some(Timed { started, device, spans }), layer: None }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.timed.is_some()
    }

    /// From here on operators belong to this layer, or to none.
    pub(crate) fn enter(&mut self, layer: Option<usize>) {
        self.layer = layer.map(|layer| layer as u32);
    }

    /// Runs an operator. A device runs behind the host, so a timed one is waited for.
    pub(crate) fn time<T>(
        &mut self,
        operator: Operator,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(Timed { started, device, spans }) = &mut self.timed else { return run() };
        let began = clock();
        let result = run()?;
        device.synchronize()?;
        let since = began.saturating_duration_since(*started);
        spans.push(OperatorSpan {
            operator,
            layer: self.layer,
            started_at: Timestamp::from_nanos(since.as_nanos() as u64),
            took: clock().saturating_duration_since(began),
        });
        Ok(result)
    }
}
