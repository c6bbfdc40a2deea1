use metron_trace::{Request, RequestEnd, RequestId, StepRecord, Token, Trace};

use crate::executor::TextPiece;

/// Watches a run: records it, shows its progress, streams its text. It changes nothing.
///
/// The loop calls it between steps, on the loop's own thread, so it must be quick. An error ends
/// the run; what was observed before stands.
pub trait StepObserver {
    /// A request arrived.
    fn arrived(&mut self, _request: &Request) -> Result<(), ObserverError> {
        Ok(())
    }

    /// A step is done, with the tokens it made and the text they completed.
    fn stepped(
        &mut self,
        _step: &StepRecord,
        _tokens: &[Token],
        _text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        Ok(())
    }

    /// The policy gave a request up, for this reason; its end is reported next.
    fn rejected(&mut self, _id: RequestId, _reason: &str) -> Result<(), ObserverError> {
        Ok(())
    }

    /// A request ended.
    fn ended(&mut self, _end: &RequestEnd) -> Result<(), ObserverError> {
        Ok(())
    }

    /// Whether the run should stop at the next step boundary (Ctrl-C, a time limit).
    fn wants_stop(&self) -> bool {
        false
    }
}

/// Why an observer could not go on (a full disk, say).
pub type ObserverError = Box<dyn std::error::Error + Send + Sync>;

/// Watches nothing.
impl StepObserver for () {}

/// Keeps the run in memory: a trace with a header and nothing else yet is filled.
impl StepObserver for Trace {
    fn arrived(&mut self, request: &Request) -> Result<(), ObserverError> {
        self.requests.push(request.clone());
        Ok(())
    }

    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        _text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.steps.push(step.clone());
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn ended(&mut self, end: &RequestEnd) -> Result<(), ObserverError> {
        self.ends.push(*end);
        Ok(())
    }
}

/// Each in turn.
impl<A: StepObserver + ?Sized, B: StepObserver + ?Sized> StepObserver for (&mut A, &mut B) {
    fn arrived(&mut self, request: &Request) -> Result<(), ObserverError> {
        self.0.arrived(request)?;
        self.1.arrived(request)
    }

    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.0.stepped(step, tokens, text)?;
        self.1.stepped(step, tokens, text)
    }

    fn rejected(&mut self, id: RequestId, reason: &str) -> Result<(), ObserverError> {
        self.0.rejected(id, reason)?;
        self.1.rejected(id, reason)
    }

    fn ended(&mut self, end: &RequestEnd) -> Result<(), ObserverError> {
        self.0.ended(end)?;
        self.1.ended(end)
    }

    fn wants_stop(&self) -> bool {
        self.0.wants_stop() || self.1.wants_stop()
    }
}
