/// p-values adjusted so that, of all hypotheses together, the chance to reject any true one is at
/// most the level that they are held to (Holm 1979): the k-th smallest of m is multiplied by
/// `m - k + 1`, and none is below one before it.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least: f64 = 0.0;
    for (rank, at) in order.into_iter().enumerate() {
        least = least.max(p[at] * (p.len() - rank) as f64).min(1.0);
        adjusted[at] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_smallest_is_multiplied_by_all_and_none_falls_below_one_before_it() {
        assert_eq!(holm(&[0.25, 0.0625, 0.125]), [0.25, 0.1875, 0.25]);
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn no_p_value_is_made_smaller_and_their_order_stays(
            p in prop::collection::vec(0.0..1.0_f64, 1..12),
        ) {
            let adjusted = holm(&p);
            for (own, new) in p.iter().zip(&adjusted) {
                prop_assert!(new >= own && *new <= 1.0);
                for (other, other_new) in p.iter().zip(&adjusted) {
                    prop_assert!(own > other || new <= other_new);
                }
            }
        }
    }
}
