use proptest::prelude::*;

use super::super::tests::{check_sums, values};
use super::super::{Matrix, multiply_panels_on};
use super::*;

fn nearest(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// The product by floats, on lanes of one kind.
///
/// # Safety
/// The machine has the lanes' instructions.
unsafe fn product_on<L: Lanes>(weights: &Packed<Bf16>, x: &[f32]) -> Vec<f32> {
    let mut rounded = Vec::new();
    // SAFETY: as the caller's.
    unsafe {
        round_rows(x, weights.k, weights.k, &mut rounded, |row, out| {
            round_to_floats_on::<L>(row, out);
        });
        weights.multiply(&rounded, weights.k, |job| multiply_panels_on::<L, Bf16>(job))
    }
}

/// The products by every kind of instructions that this machine has, with their names.
fn products(w: &[f32], k: usize, x: &[f32]) -> Vec<(&'static str, Vec<f32>)> {
    let weights = &Packed::<Bf16>::stack(k, &[w]);
    // SAFETY: portable, and the machine is asked for the others.
    unsafe {
        let mut products = vec![
            ("the fastest", stack(k, &[w]).product(x)),
            ("its floats'", weights.product(x)),
            ("any machine's", product_on::<[f32; WIDTH]>(weights, x)),
        ];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
            {
                products.push(("AVX2", product_on::<crate::simd::Avx2>(weights, x)));
            }
            if std::arch::is_x86_feature_detected!("avx512f") {
                products.push(("AVX-512", product_on::<Avx512>(weights, x)));
            }
        }
        products
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Nothing is lost beyond the rounding of both operands and that of the sums.
    #[test]
    fn a_product_is_the_plain_sum_over_rounded_numbers_on_every_kind_of_instructions(
        m in 1_usize..70,
        n in 1_usize..70,
        k in 1_usize..200,
    ) {
        let x = values(m * k, 1);
        let rounded: Vec<f32> = x.iter().copied().map(nearest).collect();
        let w = values(n * k, 2);
        let weights = Packed::<Bf16>::stack(k, &[&w]);
        for (_, product) in products(&w, k, &x) {
            check_sums(&product, &rounded, &weights);
        }
    }
}

/// Products with the columns of a unit matrix are the activations as they were rounded.
#[test]
fn activations_are_rounded_to_the_nearest_even_brain_float() {
    let one = 1.0_f32.to_bits();
    let ties = [0x7fff, 0x8000, 0x8001, 0x1_7fff, 0x1_8000, 0x1_8001];
    let mut x: Vec<f32> = ties.iter().map(|bits| f32::from_bits(one + bits)).collect();
    x.extend([-0.137, 3.38e38, -3.38e38, f32::MIN_POSITIVE, 1e-30, 0.0, 65_504.0]);
    let k = x.len();
    let unit: Vec<f32> = (0..k * k).map(|at| f32::from(at / k == at % k)).collect();
    let want: Vec<f32> = x.iter().copied().map(nearest).collect();
    for (by, product) in products(&unit, k, &x) {
        assert_eq!(product, want, "{by} instructions");
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    for x in [f32::NAN, f32::INFINITY, f32::MAX] {
        for k in [1, 2, 17] {
            let row = vec![x; k];
            for (by, product) in products(&vec![1.0; k], k, &row) {
                assert!(!product[0].is_finite(), "{x} becomes {} by {by} instructions", product[0]);
            }
        }
    }
}
