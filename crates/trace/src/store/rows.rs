use super::tables::OfStep;
use crate::{OperatorSpan, Preemption, Request, RequestEnd, StepRecord, Timestamp, Token, Work};

/// Rows on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Rows of an earlier time went before.
    pub(super) since: Timestamp,
    pub(super) requests: Vec<Request>,
    /// Without what has a table of its own.
    pub(super) steps: Vec<StepRecord>,
    pub(super) work: Vec<OfStep<Work>>,
    pub(super) preemptions: Vec<OfStep<Preemption>>,
    pub(super) operators: Vec<OfStep<OperatorSpan>>,
    pub(super) tokens: Vec<Token>,
    pub(super) ends: Vec<RequestEnd>,
}

impl Rows {
    /// None yet, from now on.
    pub(super) fn since(since: Timestamp) -> Self {
        Self { since, ..Self::default() }
    }

    /// How many there are in the largest tables.
    pub(super) fn count(&self) -> usize {
        self.requests.len() + self.work.len() + self.operators.len() + self.tokens.len()
    }

    /// Memory that they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        held(&self.requests)
            + held(&self.steps)
            + held(&self.work)
            + held(&self.preemptions)
            + held(&self.operators)
            + held(&self.tokens)
            + held(&self.ends)
    }

    pub(super) fn push_step(&mut self, step: &StepRecord, tokens: &[Token]) {
        let index = step.index;
        self.work.extend(of_step(index, &step.work));
        self.preemptions.extend(of_step(index, &step.preemptions));
        self.operators.extend(of_step(index, &step.operators));
        self.tokens.extend(tokens);
        self.steps.push(StepRecord {
            work: Vec::new(),
            preemptions: Vec::new(),
            operators: Vec::new(),
            ..*step
        });
    }
}

fn of_step<T: Copy>(step: u64, rows: &[T]) -> impl Iterator<Item = OfStep<T>> {
    rows.iter().map(move |&row| OfStep { step, row })
}

fn held<T>(rows: &Vec<T>) -> usize {
    rows.capacity() * size_of::<T>()
}
