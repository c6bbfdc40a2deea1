//! Unsafe because vector instructions work on raw pointers, and a function compiled for
//! instructions that the machine lacks must not be called: `on_widest_lanes!` asks first.
//!
//! Sixteen floats at a time, in whatever registers the machine has: kernels are written once,
//! over [`Lanes`], and compiled for each kind.

#![expect(unsafe_code, reason = "vector instructions of the processor")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

#[cfg(target_arch = "x86_64")]
mod x86;

use half::{bf16, f16};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// The widest vector instructions that kernels of this crate use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What the compiler may assume of the target.
    Baseline,
    /// AVX2 with fused multiply-add and half floats: 16 registers of 8 floats.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F: 32 registers of 16 floats.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// What this machine has (the standard library asks it once).
    pub(crate) fn of_this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if has_avx2() {
                return Self::Avx2;
            }
        }
        Self::Baseline
    }
}

/// Whether this machine has all that [`Avx2`] is compiled for.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("f16c")
}

/// Whether this machine multiplies pairs of brain floats itself (AVX512-BF16).
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_bf16_products() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Asks for what is at an address, which may be any: soon it will be read.
#[inline(always)]
pub(crate) fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every such machine; it does not read, and no address is wrong.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Floats in [`Lanes`].
pub(crate) const WIDTH: usize = 16;

/// Sixteen floats.
pub(crate) trait Lanes: Copy {
    /// Accumulators that stay in registers beside a kernel's other values.
    const ACCUMULATORS: usize;

    unsafe fn splat(value: f32) -> Self;
    /// Reads 16 floats, at any alignment.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads 16 whole numbers of 8 bits.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// Reads 16 floats of 16 bits.
    unsafe fn load_f16(from: *const f16) -> Self;
    /// Reads 16 brain floats.
    unsafe fn load_bf16(from: *const bf16) -> Self;
    /// Writes 16 floats, at any alignment.
    unsafe fn store(self, to: *mut f32);
    /// `self * by + plus`
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, by: Self) -> Self;
    unsafe fn div(self, by: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// The nearest whole numbers.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for whole numbers n from -126 to 127.
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self;

    #[inline(always)]
    unsafe fn to_array(self) -> [f32; WIDTH] {
        let mut array = [0.0; WIDTH];
        // SAFETY: the array has room for 16 floats.
        unsafe { self.store(array.as_mut_ptr()) };
        array
    }

    /// Rounded to brain floats, and as floats again.
    #[inline(always)]
    unsafe fn to_bf16(self) -> Self {
        // SAFETY: as the caller's.
        unsafe { Self::load(self.to_array().map(|x| bf16::from_f32(x).to_f32()).as_ptr()) }
    }

    /// The sum, in a fixed order.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as the caller's.
        fold(unsafe { self.to_array() }, |a, b| a + b)
    }

    /// The greatest.
    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: as the caller's.
        fold(unsafe { self.to_array() }, f32::max)
    }

    /// `e^self` to the last two places; arguments beyond -87 and 87 are taken as those.
    ///
    /// `2^n * e^r` with `n` the nearest whole number to `self / ln 2`, and a polynomial of degree
    /// 6 for `e^r` on the half interval around 0 (Cephes, `expf`).
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // SAFETY: as the caller's.
        unsafe {
            let x = self.max(Self::splat(-87.0)).min(Self::splat(87.0));
            let n = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
            // ln 2 in two parts, so that n * ln 2 is exact to more digits.
            let r = n.mul_add(Self::splat(-0.693_359_4), x);
            let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.987_569_1e-4);
            for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
                p = p.mul_add(r, Self::splat(coefficient));
            }
            let e_r = p.mul_add(r.mul(r), r.mul_add(Self::splat(1.0), Self::splat(1.0)));
            e_r.scale_by_power_of_two(n)
        }
    }
}

#[inline(always)]
fn fold(mut lanes: [f32; WIDTH], by: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = WIDTH / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = by(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Lanes for any machine.
impl Lanes for [f32; WIDTH] {
    const ACCUMULATORS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; WIDTH]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller can read 16 floats there.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller can read 16 numbers there.
        let quants = unsafe { from.cast::<[i8; WIDTH]>().read_unaligned() };
        quants.map(f32::from)
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the caller can read 16 numbers there.
        let halves = unsafe { from.cast::<[f16; WIDTH]>().read_unaligned() };
        halves.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller can read 16 numbers there.
        let halves = unsafe { from.cast::<[bf16; WIDTH]>().read_unaligned() };
        halves.map(bf16::to_f32)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller can write 16 floats there.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self {
        std::array::from_fn(|i| self[i] * by[i] + plus[i])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        std::array::from_fn(|i| self[i] * by[i])
    }

    #[inline(always)]
    unsafe fn div(self, by: Self) -> Self {
        std::array::from_fn(|i| self[i] / by[i])
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i].max(other[i]))
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i].min(other[i]))
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        std::array::from_fn(|i| self[i].round_ties_even())
    }

    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        std::array::from_fn(|i| self[i] * f32::from_bits((n[i] as i32 + 127).cast_unsigned() << 23))
    }
}

/// Defines a function that runs a kernel on the widest lanes that the machine has. The kernel is
/// an `#[inline(always)]` unsafe function, generic over its [`Lanes`] and then over what the
/// function is generic over, and compiled for each kind.
macro_rules! on_widest_lanes {
    (
        $(#[$doc:meta])*
        fn $name:ident $(<$generic:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?)
            = $kernel:ident
    ) => {
        $(#[$doc])*
        fn $name $(<$generic: $bound>)? ($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma,f16c")]
            unsafe fn on_avx512 $(<$generic: $bound>)? ($($arg: $ty),*) {
                // SAFETY: as the caller's.
                unsafe { $kernel::<$crate::simd::Avx512 $(, $generic)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn on_avx2 $(<$generic: $bound>)? ($($arg: $ty),*) {
                // SAFETY: as the caller's.
                unsafe { $kernel::<$crate::simd::Avx2 $(, $generic)?>($($arg),*) }
            }
            // SAFETY: the machine was asked what it has.
            unsafe {
                match $crate::simd::Level::of_this_machine() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::Level::Avx512 => on_avx512 $(::<$generic>)? ($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::Level::Avx2 => on_avx2 $(::<$generic>)? ($($arg),*),
                    $crate::simd::Level::Baseline => {
                        $kernel::<[f32; $crate::simd::WIDTH] $(, $generic)?>($($arg),*)
                    }
                }
            }
        }
    };
}
pub(crate) use on_widest_lanes;

#[cfg(test)]
mod tests {
    use super::*;

    unsafe fn check_exp<L: Lanes>() {
        for step in -8_600..8_800 {
            let x = -f64::from(step) / 100.0;
            // SAFETY: as the caller's.
            let got = f64::from(unsafe { L::splat(x as f32).exp().to_array()[3] });
            let want = f64::from(x as f32).max(-87.0).exp();
            assert!((got / want - 1.0).abs() < 3e-7, "e^{x} is {want}, not {got}");
        }
    }

    #[test]
    fn the_exponential_is_right_to_the_last_places_on_every_kind_of_lanes() {
        // SAFETY: portable, and the machine is asked for the others.
        unsafe {
            check_exp::<[f32; WIDTH]>();
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx512f") {
                check_exp::<Avx512>();
            }
            #[cfg(target_arch = "x86_64")]
            if has_avx2() {
                check_exp::<Avx2>();
            }
        }
    }
}
