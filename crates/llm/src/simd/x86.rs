//! Unsafe because vector instructions work on raw pointers, and must be there.

use std::arch::x86_64::{
    __m256, __m256bh, __m512, __m512bh, _CMP_UNORD_Q, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT,
    _mm_loadl_epi64, _mm_loadu_si128, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256,
    _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps,
    _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_round_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm512_add_epi32,
    _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh,
    _mm512_cvtph_ps, _mm512_div_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps,
};

use half::{bf16, f16};

use super::Lanes;

/// What takes a float up to the next brain float if added to its bits, but for a tie to an even one.
const BELOW_HALF: i32 = 0x7fff;

/// The bits of a brain float in a float, and of the second of a pair.
const UPPER_HALF: i32 = (0xffff_0000_u32).cast_signed();

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// One register of AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY (of every block): the caller's machine has AVX-512, and its pointers are good for 16
// floats.
impl Lanes for Avx512 {
    const ACCUMULATORS: usize = 24;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // A brain float is the upper half of a float.
        Self(unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, by.0, plus.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, by.0) })
    }

    #[inline(always)]
    unsafe fn to_bf16(self) -> Self {
        Self(unsafe {
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(odd, _mm512_set1_epi32(BELOW_HALF));
            let rounded =
                _mm512_and_si512(_mm512_add_epi32(bits, up), _mm512_set1_epi32(UPPER_HALF));
            let no_number = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            _mm512_mask_blend_ps(no_number, _mm512_castsi512_ps(rounded), self.0)
        })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn div(self, by: Self) -> Self {
        Self(unsafe { _mm512_div_ps(self.0, by.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { _mm512_roundscale_ps::<NEAREST>(self.0) })
    }

    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        Self(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
}

/// What AVX512-BF16 adds: a register holds 16 pairs of brain floats.
impl Avx512 {
    /// `plus`, and the products of both halves of each pair. Numbers below the normal ones count
    /// as zero.
    ///
    /// # Safety
    /// The machine has AVX512-BF16.
    #[inline(always)]
    pub(crate) unsafe fn multiply_pairs(self, by: Self, plus: Self) -> Self {
        // SAFETY: the caller's; registers of the same width.
        Self(unsafe {
            let pairs = |lanes: Self| std::mem::transmute::<__m512, __m512bh>(lanes.0);
            _mm512_dpbf16_ps(plus.0, pairs(self), pairs(by))
        })
    }

    /// Writes 16 brain floats, the nearest.
    ///
    /// # Safety
    /// The machine has AVX512-BF16, and they can be written there.
    #[inline(always)]
    pub(crate) unsafe fn store_bf16(self, to: *mut bf16) {
        // SAFETY: the caller's.
        unsafe { to.cast::<__m256bh>().write_unaligned(_mm512_cvtneps_pbh(self.0)) }
    }
}

/// Two registers of AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Avx2([__m256; 2]);

// SAFETY (of every block): the caller's machine has AVX2 and FMA, and its pointers are good for
// 16 floats.
impl Lanes for Avx2 {
    const ACCUMULATORS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        let half = unsafe { _mm256_set1_ps(value) };
        Self([half, half])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] })
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        let half = |i: usize| unsafe {
            let quants = _mm_loadl_epi64(from.add(8 * i).cast());
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(quants))
        };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        let half = |i: usize| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.add(8 * i).cast())) };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        let half = |i: usize| unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8 * i).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0[0]);
            _mm256_storeu_ps(to.add(8), self.0[1]);
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self {
        let half = |i: usize| unsafe { _mm256_fmadd_ps(self.0[i], by.0[i], plus.0[i]) };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        let half = |i: usize| unsafe { _mm256_add_ps(self.0[i], other.0[i]) };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        Self(unsafe { [_mm256_mul_ps(self.0[0], by.0[0]), _mm256_mul_ps(self.0[1], by.0[1])] })
    }

    #[inline(always)]
    unsafe fn to_bf16(self) -> Self {
        Self(unsafe { [nearest_bf16(self.0[0]), nearest_bf16(self.0[1])] })
    }

    #[inline(always)]
    unsafe fn div(self, by: Self) -> Self {
        let half = |i: usize| unsafe { _mm256_div_ps(self.0[i], by.0[i]) };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        let half = |i: usize| unsafe { _mm256_max_ps(self.0[i], other.0[i]) };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        let half = |i: usize| unsafe { _mm256_min_ps(self.0[i], other.0[i]) };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe {
            [_mm256_round_ps::<NEAREST>(self.0[0]), _mm256_round_ps::<NEAREST>(self.0[1])]
        })
    }

    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self {
        let half = |i: usize| unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n.0[i]), _mm256_set1_epi32(127));
            let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased));
            _mm256_mul_ps(self.0[i], power)
        };
        Self([half(0), half(1)])
    }
}

/// No closure: it is large enough to become a function without the features.
#[inline(always)]
unsafe fn nearest_bf16(x: __m256) -> __m256 {
    // SAFETY: the caller's machine has AVX2.
    unsafe {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let up = _mm256_add_epi32(odd, _mm256_set1_epi32(BELOW_HALF));
        let rounded = _mm256_and_si256(_mm256_add_epi32(bits, up), _mm256_set1_epi32(UPPER_HALF));
        let no_number = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
        _mm256_blendv_ps(_mm256_castsi256_ps(rounded), x, no_number)
    }
}
