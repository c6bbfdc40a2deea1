use metron_engine::{ObserverError, StepObserver, TextPiece};
use metron_trace::{Request, RequestEnd, StepRecord, Token, TraceWriter};

/// Writes a run to disk while it goes on.
#[derive(Debug)]
pub struct DiskRecorder(pub TraceWriter);

impl StepObserver for DiskRecorder {
    fn arrived(&mut self, request: &Request) -> Result<(), ObserverError> {
        Ok(self.0.append_request(request)?)
    }

    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        _text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        Ok(self.0.append_step(step, tokens)?)
    }

    fn ended(&mut self, end: &RequestEnd) -> Result<(), ObserverError> {
        Ok(self.0.append_end(end)?)
    }
}

/// Keeps the steps of a run in memory.
#[derive(Debug, Default)]
pub(crate) struct StepRecorder(pub(crate) Vec<StepRecord>);

impl StepObserver for StepRecorder {
    fn stepped(
        &mut self,
        step: &StepRecord,
        _tokens: &[Token],
        _text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.0.push(step.clone());
        Ok(())
    }
}
