use super::*;
use crate::formats::{Bf16, F16, F32, Q8};
use proptest::prelude::*;

fn values(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| (((i + salt) * 7919 % 1013) as f32 / 1013.0) - 0.5).collect()
}

/// Compares a product with the plain sums over the weights as the format holds them.
fn check_product<F: Format>(m: usize, n: usize, k: usize) -> Result<(), TestCaseError> {
    let x = values(m * k, 1);
    let packed = Packed::<F>::stack(k, &[&values(n * k, 2)]);
    let product = packed.product(&x);
    prop_assert_eq!(product.len(), m * n);
    let mut column = vec![0.0; k];
    for (at, got) in product.iter().enumerate() {
        packed.copy_row(at % n, &mut column);
        let row = &x[at / n * k..][..k];
        let want: f64 = row.iter().zip(&column).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        prop_assert!((f64::from(*got) - want).abs() < 1e-4, "{got} for {want}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_product_is_the_plain_sum(m in 1_usize..40, n in 1_usize..70, k in 1_usize..200) {
        check_product::<F32>(m, n, k)?;
        check_product::<F16>(m, n, k)?;
        check_product::<Bf16>(m, n, k)?;
        check_product::<Q8>(m, n, k)?;
    }

    /// The bits of a row are the same, alone and among others.
    #[test]
    fn a_row_does_not_depend_on_the_others(m in 2_usize..40, n in 1_usize..40) {
        let k = 64;
        let (x, w) = (values(m * k, 3), values(n * k, 4));
        let formats: [Box<dyn Matrix>; 2] = [
            Box::new(Packed::<F32>::stack(k, &[&w])),
            Box::new(Packed::<Q8>::stack(k, &[&w])),
        ];
        for packed in formats {
            let together = packed.product(&x);
            for (row, together) in x.chunks_exact(k).zip(together.chunks_exact(n)) {
                prop_assert_eq!(packed.product(row), together);
            }
        }
    }
}

/// One panel group on lanes of one kind.
///
/// # Safety
/// The machine has the lanes' instructions.
unsafe fn check_lanes<L: Lanes, F: Format>(rows: usize) {
    const N: usize = 70;
    const K: usize = 45;
    let x = values(rows * K, 8);
    let packed = Packed::<F>::stack(K, &[&values(N * K, 9)]);
    let mut product = vec![f32::NAN; rows * N];
    let out = Output { start: product.as_mut_ptr(), columns: N };
    // SAFETY: as the caller's.
    unsafe {
        multiply_panels_on::<L, F>(&Job {
            x: &x,
            k: K,
            blocks: &packed.blocks,
            column: 0,
            out: &out,
        });
    }
    for (got, want) in product.iter().zip(packed.product(&x)) {
        assert!((got - want).abs() < 1e-5, "{got} for {want}");
    }
}

/// # Safety
/// The machine has the lanes' instructions.
unsafe fn check_formats<L: Lanes>() {
    for m in [1, 3, 5, 13] {
        // SAFETY: as the caller's.
        unsafe {
            check_lanes::<L, F32>(m);
            check_lanes::<L, F16>(m);
            check_lanes::<L, Bf16>(m);
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
