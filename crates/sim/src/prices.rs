use metron_trace::Work;

use crate::affine::{AffineCost, CostFile, Piece};

impl CostFile {
    /// Prices of work below the cost of every step: a model without a constant, by which no step
    /// of at most `max_num_seqs` sequences costs more than it does by this one. Work that has to be
    /// done takes at least the sum of its prices, however it is put into steps: this is the curve
    /// of batch efficiency at its best, a full batch.
    ///
    /// Of all such prices those under which `mix` costs most: a linear program in two variables
    /// (a prefill token, a decode token), whose solution is a corner of what its constraints leave.
    pub fn least_prices(&self, max_num_seqs: u32, mix: &[Work]) -> AffineCost {
        let least = |of: fn(&AffineCost) -> f64| {
            self.pieces.iter().map(|piece| of(&piece.cost)).fold(f64::INFINITY, f64::min).max(0.0)
        };
        let context = AffineCost {
            prefill_context_ns: least(|cost| cost.prefill_context_ns),
            decode_context_ns: least(|cost| cost.decode_context_ns),
            ..AffineCost::default()
        };
        let constraints = self.constraints(max_num_seqs);
        let [_, prefills, decodes, ..] = AffineCost::features(mix);
        let value = |prices: &[f64; 2]| prices[0] * prefills + prices[1] * decodes;
        let best = corners(&constraints)
            .filter(|prices| constraints.iter().all(|own| own.allows(prices)))
            .max_by(|a, b| value(a).total_cmp(&value(b)));
        let [prefill_token_ns, decode_token_ns] = best.unwrap_or_default();
        AffineCost { prefill_token_ns, decode_token_ns, ..context }
    }

    /// What prices may not exceed: the costs of the smallest and the largest steps of each piece,
    /// all prefill or with as many decodes as there can be, and of the step of as many decodes
    /// alone. All other steps are between these.
    fn constraints(&self, max_num_seqs: u32) -> Vec<Constraint> {
        let mut constraints = vec![Constraint([-1.0, 0.0], 0.0), Constraint([0.0, -1.0], 0.0)];
        let mut from = 1;
        for Piece { up_to_tokens, cost } in &self.pieces {
            let within =
                |tokens: &u32| *tokens >= from && up_to_tokens.is_none_or(|most| *tokens <= most);
            let sizes = [Some(from), *up_to_tokens, Some(max_num_seqs).filter(within)];
            for tokens in sizes.into_iter().flatten() {
                for decodes in [0, max_num_seqs.min(tokens)] {
                    let [p, d] = [f64::from(tokens - decodes), f64::from(decodes)];
                    let most = cost.step_ns + cost.prefill_token_ns * p + cost.decode_token_ns * d;
                    constraints.push(Constraint([p, d], most));
                }
            }
            match up_to_tokens {
                Some(tokens) => from = tokens.saturating_add(1),
                // Steps without end are as good as a step's last token.
                None => constraints.push(Constraint([1.0, 0.0], cost.prefill_token_ns)),
            }
        }
        constraints
    }
}

/// `a . prices <= b`.
#[derive(Debug, Clone, Copy)]
struct Constraint([f64; 2], f64);

impl Constraint {
    fn allows(&self, prices: &[f64; 2]) -> bool {
        let Self([p, d], most) = self;
        let cost = p * prices[0] + d * prices[1];
        cost <= most + 1e-9 * most.abs().max(1.0)
    }
}

/// Where two constraints hold exactly.
fn corners(constraints: &[Constraint]) -> impl Iterator<Item = [f64; 2]> {
    let pairs = constraints
        .iter()
        .enumerate()
        .flat_map(|(at, a)| constraints[at + 1..].iter().map(move |b| (a, b)));
    pairs.filter_map(|(Constraint(a, most_a), Constraint(b, most_b))| {
        let determinant = a[0] * b[1] - a[1] * b[0];
        let corner = [
            (most_a * b[1] - a[1] * most_b) / determinant,
            (a[0] * most_b - most_a * b[0]) / determinant,
        ];
        corner.iter().all(|price| price.is_finite()).then_some(corner)
    })
}

#[cfg(test)]
mod tests {
    use metron_engine::CostModel;
    use metron_trace::{RequestId, WorkKind};
    use proptest::prelude::*;

    use super::*;

    fn work(kind: WorkKind, tokens: u32, context: u32) -> Work {
        Work { request: RequestId(0), context, tokens, kind }
    }

    fn file(pieces: Vec<Piece>) -> CostFile {
        CostFile { name: String::new(), source: String::new(), pieces }
    }

    fn piece(up_to_tokens: Option<u32>, step: f64, prefill: f64, decode: f64) -> Piece {
        let cost = AffineCost {
            step_ns: step,
            prefill_token_ns: prefill,
            decode_token_ns: decode,
            prefill_context_ns: 2.0,
            decode_context_ns: 3.0,
        };
        Piece { up_to_tokens, cost }
    }

    const MIX: [Work; 2] = [
        Work { request: RequestId(0), context: 0, tokens: 100, kind: WorkKind::Prefill },
        Work { request: RequestId(0), context: 100, tokens: 50, kind: WorkKind::Decode },
    ];

    #[test]
    fn a_full_batch_shares_the_cost_of_a_step() {
        let prices = file(vec![piece(None, 800.0, 5.0, 1.0)]).least_prices(8, &MIX);
        let expected = AffineCost {
            step_ns: 0.0,
            prefill_token_ns: 5.0,
            decode_token_ns: 1.0 + 800.0 / 8.0,
            prefill_context_ns: 2.0,
            decode_context_ns: 3.0,
        };
        assert_eq!(prices, expected);
    }

    #[test]
    fn steps_that_wait_for_memory_make_decodes_cheap_and_prefills_dear() {
        // Up to 64 tokens take as long as reading the weights; more take 10 each.
        let roofline = file(vec![piece(Some(64), 640.0, 0.0, 0.0), piece(None, 0.0, 10.0, 10.0)]);
        let prices = roofline.least_prices(32, &MIX);
        // A full step of 64 has 32 decodes beside 32 prefill tokens: neither is free.
        assert!((prices.prefill_token_ns - 10.0).abs() < 1e-6, "{prices:?}");
        assert!((prices.decode_token_ns - 10.0).abs() < 1e-6, "{prices:?}");
    }

    proptest! {
        #[test]
        fn no_step_costs_more_by_its_prices_than_it_does(
            steps in proptest::collection::vec(0.0..1e6_f64, 3),
            tokens in proptest::collection::vec(0.0..1e4_f64, 6),
            max_num_seqs in 1_u32..40,
            prefill in 0_u32..500, decodes in 0_u32..40, context in 0_u32..1000,
        ) {
            let file = file(vec![
                piece(Some(30), steps[0], tokens[0], tokens[1]),
                piece(Some(200), steps[1], tokens[2], tokens[3]),
                piece(None, steps[2], tokens[4], tokens[5]),
            ]);
            let prices = file.least_prices(max_num_seqs, &MIX);
            let decodes = decodes.min(max_num_seqs);
            let step = [
                work(WorkKind::Prefill, prefill, context),
                work(WorkKind::Decode, decodes, context),
            ];
            prop_assume!(prefill + decodes > 0);
            let (least, real) = (prices.step_time(&step), file.step_time(&step));
            prop_assert!(least.as_secs_f64() <= real.as_secs_f64() * (1.0 + 1e-6) + 2e-9);
        }
    }
}
