use metron_trace::{Calibration, PrefillCurve, Work, WorkKind};

use crate::fluidity::nanoseconds;

/// The step times that work would take alone, by a header's calibration. Nanoseconds.
pub(crate) struct Isolated {
    curve: PrefillCurve,
    /// (sequences, step time) of isolated decodes, by size of the batch, each size once.
    decode: Vec<(u32, u64)>,
}

/// What is in a step, as time beyond that of a step with nothing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Contents {
    /// Nanoseconds that its prefills add.
    pub(crate) prefill_ns: u64,
    /// Nanoseconds that its recomputations add.
    pub(crate) recompute_ns: u64,
    /// Sequences that decode.
    pub(crate) decodes: u32,
}

impl Isolated {
    pub(crate) fn new(calibration: &Calibration) -> Self {
        let points = calibration.decode.iter();
        let mut decode: Vec<(u32, u64)> =
            points.map(|point| (point.batch, nanoseconds(point.step_time))).collect();
        decode.sort_unstable();
        decode.dedup_by_key(|(batch, _)| *batch);
        Self { curve: calibration.prefill.curve, decode }
    }

    /// The time of a step that runs only this work of one request, of which recomputed positions
    /// count nothing: alone, nobody would have preempted it. `None` if there is nothing else.
    pub(crate) fn alone(&self, work: &[&Work]) -> Option<u64> {
        let fresh = work.iter().filter(|work| work.kind != WorkKind::Recompute);
        fresh
            .map(|work| match work.kind {
                WorkKind::Decode => self.decode_step(1),
                _ => self.added_by(work).saturating_add(nanoseconds(self.curve.predict(0))),
            })
            .reduce(u64::saturating_add)
    }

    /// Everything in `work`.
    pub(crate) fn contents<'a>(&self, work: impl IntoIterator<Item = &'a Work>) -> Contents {
        let mut contents = Contents::default();
        for work in work {
            match work.kind {
                WorkKind::Decode => contents.decodes += 1,
                WorkKind::Prefill => add(&mut contents.prefill_ns, self.added_by(work)),
                WorkKind::Recompute => add(&mut contents.recompute_ns, self.added_by(work)),
            }
        }
        contents
    }

    /// What `others` decodes add to a step.
    pub(crate) fn added_by_decodes(&self, others: u32) -> u64 {
        self.decode_step(others.saturating_add(1)).saturating_sub(self.decode_step(1))
    }

    /// What a chunk behind its context adds to a step: the curve's rise over it.
    fn added_by(&self, work: &Work) -> u64 {
        let end = work.context.saturating_add(work.tokens);
        nanoseconds(self.curve.predict(end).saturating_sub(self.curve.predict(work.context)))
    }

    /// The time of a step in which `batch` sequences decode: on the line between the measured
    /// batches around it, or on that through the last two beyond them.
    fn decode_step(&self, batch: u32) -> u64 {
        let [first, .., last] = self.decode.as_slice() else {
            return self.decode.first().map_or(0, |(_, ns)| *ns);
        };
        let above = self.decode.partition_point(|(size, _)| *size < batch);
        let (low, high) = match above {
            0 => return first.1,
            at if at == self.decode.len() => (self.decode[at - 2], *last),
            at => (self.decode[at - 1], self.decode[at]),
        };
        let rise = i128::from(high.1) - i128::from(low.1);
        let run = i128::from(high.0 - low.0);
        let ns = i128::from(low.1) + rise * i128::from(batch - low.0) / run;
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

fn add(sum: &mut u64, ns: u64) {
    *sum = sum.saturating_add(ns);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metron_trace::{DecodePoint, PrefillFit, RequestId};

    use super::*;

    const MS: u64 = 1_000_000;

    /// 10 ms a step, 1 ms a prefill token; decodes of 1, 2 and 8 sequences take 11, 12 and 24 ms.
    fn isolated() -> Isolated {
        let curve = PrefillCurve { a: 0.010, b: 0.001, c: 0.0 };
        let prefill = PrefillFit { curve, points: Vec::new(), relative_residual: 0.0 };
        let decode = [(8, 24), (1, 11), (2, 12)].map(|(batch, ms)| DecodePoint {
            batch,
            context: 64,
            step_time: Duration::from_millis(ms),
        });
        Isolated::new(&Calibration { prefill, decode: decode.to_vec() })
    }

    fn work(context: u32, tokens: u32, kind: WorkKind) -> Work {
        Work { request: RequestId(0), context, tokens, kind }
    }

    #[test]
    fn decodes_between_and_beyond_the_measured_batches_are_on_their_lines() {
        let isolated = isolated();
        let steps = [0, 1, 2, 5, 8, 11].map(|batch| isolated.decode_step(batch) / MS);
        assert_eq!(steps, [11, 11, 12, 18, 24, 30]);
        assert_eq!(isolated.added_by_decodes(7) / MS, 13);
        assert_eq!(isolated.added_by_decodes(0), 0);
    }

    #[test]
    fn a_chunk_alone_is_a_step_and_what_it_adds_is_its_tokens() {
        let (isolated, chunk) = (isolated(), work(100, 20, WorkKind::Prefill));
        assert_eq!(isolated.alone(&[&chunk]), Some(30 * MS));
        assert_eq!(isolated.contents(&[chunk]).prefill_ns, 20 * MS);
    }

    #[test]
    fn recomputation_is_no_work_of_a_request_alone() {
        let (isolated, again) = (isolated(), work(0, 20, WorkKind::Recompute));
        assert_eq!(isolated.alone(&[&again]), None);
        assert_eq!(isolated.alone(&[&again, &work(20, 1, WorkKind::Decode)]), Some(11 * MS));
        assert_eq!(isolated.contents(&[again]).recompute_ns, 20 * MS);
    }

    #[test]
    fn without_measured_decodes_a_decode_takes_no_time() {
        let isolated = Isolated { decode: Vec::new(), ..isolated() };
        assert_eq!(isolated.alone(&[&work(9, 1, WorkKind::Decode)]), Some(0));
    }
}
