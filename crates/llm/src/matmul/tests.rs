use std::sync::Arc;

use super::*;
use crate::formats::{Bf16, F16, F32, Q8};
use proptest::prelude::*;

pub(super) fn values(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| (((i + salt) * 7919 % 1013) as f32 / 1013.0) - 0.5).collect()
}

/// Compares a product with the plain sums over numbers as the kernel has them, to what the roundings
/// of its additions and multiplications may make of them.
pub(super) fn check_sums<F: Multiply>(product: &[f32], x: &[f32], weights: &Packed<F>) {
    let (n, k) = (weights.n, weights.k);
    assert_eq!(product.len(), x.len() / k * n);
    let mut column = vec![0.0; k];
    for (at, got) in product.iter().enumerate() {
        weights.copy_row(at % n, &mut column);
        let terms = x[at / n * k..][..k].iter().zip(&column);
        let terms = terms.map(|(a, b)| f64::from(*a) * f64::from(*b));
        let (want, magnitude) =
            terms.fold((0.0, 0.0), |(sum, all), term| (sum + term, all + term.abs()));
        let bound = f64::from(f32::EPSILON) / 2.0 * (k as f64 + 2.0) * magnitude;
        assert!((f64::from(*got) - want).abs() <= bound, "{got} for {want}, of {magnitude}");
    }
}

fn check_product<F: Multiply>(m: usize, n: usize, k: usize) {
    let x = values(m * k, 1);
    let packed = Packed::<F>::stack(k, &[&values(n * k, 2)]);
    check_sums(&packed.product(&x), &x, &packed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_product_is_the_plain_sum(m in 1_usize..70, n in 1_usize..70, k in 1_usize..200) {
        check_product::<F32>(m, n, k);
        check_product::<F16>(m, n, k);
        check_product::<Q8>(m, n, k);
    }

    /// The bits of a row are the same, alone and among others.
    #[test]
    fn a_row_does_not_depend_on_the_others(m in 2_usize..40, n in 1_usize..40) {
        let k = 65;
        let (x, w) = (values(m * k, 3), values(n * k, 4));
        let formats: [Arc<dyn Matrix>; 4] = [
            Arc::new(Packed::<F32>::stack(k, &[&w])),
            Arc::new(Packed::<Bf16>::stack(k, &[&w])),
            bf16::stack(k, &[&w]),
            Arc::new(Packed::<Q8>::stack(k, &[&w])),
        ];
        for packed in formats {
            let together = packed.product(&x);
            for (row, together) in x.chunks_exact(k).zip(together.chunks_exact(n)) {
                prop_assert_eq!(packed.product(row), together);
            }
        }
    }
}

/// A product on lanes of one kind.
///
/// # Safety
/// The machine has the lanes' instructions.
unsafe fn check_lanes<L: Lanes, F: Multiply + Widen>(rows: usize) {
    const K: usize = 45;
    let x = values(rows * K, 8);
    let packed = Packed::<F>::stack(K, &[&values(70 * K, 9)]);
    // SAFETY: as the caller's.
    let product = packed.multiply(&x, K, |job| unsafe { multiply_panels_on::<L, F>(job) });
    check_sums(&product, &x, &packed);
}

/// # Safety
/// The machine has the lanes' instructions.
unsafe fn check_formats<L: Lanes>() {
    for m in [1, 3, 5, 13] {
        // SAFETY: as the caller's.
        unsafe {
            check_lanes::<L, F32>(m);
            check_lanes::<L, F16>(m);
            check_lanes::<L, Q8>(m);
        }
    }
}

#[test]
fn every_kind_of_lanes_gives_the_same_products() {
    // SAFETY: portable, and the machine is asked for the others.
    unsafe {
        check_formats::<[f32; PANEL]>();
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
        {
            check_formats::<crate::simd::Avx2>();
        }
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") {
            check_formats::<crate::simd::Avx512>();
        }
    }
}

#[test]
fn a_stack_holds_its_matrices_one_above_the_other() {
    let (a, b) = (values(3 * 8, 5), values(20 * 8, 6));
    let stacked = Packed::<F32>::stack(8, &[&a, &b]);
    let mut row = vec![0.0; 8];
    stacked.copy_row(2, &mut row);
    assert_eq!(row, a[2 * 8..]);
    stacked.copy_row(3 + 19, &mut row);
    assert_eq!(row, b[19 * 8..]);
    assert_eq!(stacked.n(), 23);
}

#[test]
fn eight_bits_are_off_by_half_a_step_at_most() {
    let w = values(16 * 96, 7);
    let packed = Packed::<Q8>::stack(96, &[&w]);
    let mut row = vec![0.0; 96];
    for (at, weights) in w.chunks_exact(96).enumerate() {
        packed.copy_row(at, &mut row);
        let half_a_step = 0.5 / 127.0 / 2.0 * 1.001;
        assert!(row.iter().zip(weights).all(|(a, b)| (a - b).abs() <= half_a_step));
    }
}
