//! Products of quantized rows with vectors in AVX2.
//!
//! Written out, since what the compiler makes of the plain loops adds up each block by itself, which takes as
//! long as its products. Here eight lanes are added up over the whole row: 4-bit weights from memory come 1.3 to
//! 1.8 times as fast, and with four vectors for one taking apart of the weights a product takes 0.4 of the time.
//! 512 bits at a time brought nothing on an AVX-512 processor whose units are 256 bits wide.

use std::arch::x86_64::{__m256, __m256i};

use pulp::x86::V3;
use pulp::{NullaryFnOnce, cast};

use super::blocks::Rows;
use crate::ahead::Ahead;
use crate::quantized::activations::{GROUP, Vector};
use crate::quantized::matrix::Bits;
use crate::quantized::{BLOCK, PAIR};

/// Bytes of a pair of blocks.
const FOUR_BITS: usize = Bits::Four.row_bytes(PAIR);
const EIGHT_BITS: usize = Bits::Eight.row_bytes(PAIR);

/// Pairs of a group of blocks.
const PAIRS: usize = GROUP * BLOCK / PAIR;

/// Writes the products of rows with the vectors from `first` on; false where the processor has no AVX2, and
/// nothing was done.
pub(super) fn multiply<const N: usize>(
    rows: &mut Rows<'_>,
    vectors: &[Vector<'_>; N],
    first: usize,
) -> bool {
    let Some(simd) = V3::try_new() else {
        return false;
    };
    simd.vectorize(Multiply {
        simd,
        rows,
        vectors,
        first,
    });
    true
}

struct Multiply<'a, 'b, const N: usize> {
    simd: V3,
    rows: &'a mut Rows<'b>,
    vectors: &'a [Vector<'a>; N],
    first: usize,
}

impl<const N: usize> NullaryFnOnce for Multiply<'_, '_, N> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        match self.rows.bits {
            Bits::Four => self.each_row::<FOUR_BITS>(),
            Bits::Eight => self.each_row::<EIGHT_BITS>(),
        }
    }
}

impl<const N: usize> Multiply<'_, '_, N> {
    /// - `BYTES`: of a pair of blocks
    #[inline(always)]
    fn each_row<const BYTES: usize>(self) {
        let pairs = self.vectors.first().map_or(0, |vector| vector.steps.len());
        let masks = Masks::new(self.simd);
        let codes = self.rows.codes.as_chunks::<BYTES>().0;
        let mut ahead = Ahead::<_, BYTES>::of(self.rows.codes);
        let codes = codes.chunks_exact(pairs.max(1));
        let scales = self.rows.scales.chunks_exact((pairs * 2).max(1));
        let out = self.rows.out.chunks_exact_mut(self.rows.count);
        for ((codes, scales), out) in codes.zip(scales).zip(out) {
            let mut sums = Sums::new(self.simd, masks);
            let (groups, last) = codes.as_chunks::<PAIRS>();
            let (scales, last_scales) = scales.as_chunks::<GROUP>();
            for (group, (codes, scales)) in groups.iter().zip(scales).enumerate() {
                let factors = sums.factors::<BYTES>(self.vectors, group, scales);
                for (pair, codes) in codes.iter().enumerate() {
                    ahead.ask();
                    sums.add(self.vectors, group * PAIRS + pair, codes, &factors, pair);
                }
            }
            if !last.is_empty() {
                let mut scales = [0; GROUP];
                for (to, scale) in scales.iter_mut().zip(last_scales) {
                    *to = *scale;
                }
                let factors = sums.factors::<BYTES>(self.vectors, groups.len(), &scales);
                for (pair, codes) in last.iter().enumerate() {
                    ahead.ask();
                    let place = groups.len() * PAIRS + pair;
                    sums.add(self.vectors, place, codes, &factors, pair);
                }
            }
            for (to, sum) in out.iter_mut().skip(self.first).zip(sums.total()) {
                *to = sum;
            }
        }
    }
}

/// Sums of a row's products with each of some vectors.
struct Sums<const N: usize> {
    simd: V3,
    masks: Masks,
    /// Of the first and of the second blocks of pairs.
    halves: [[__m256; 2]; N],
    /// What 4-bit products have too much.
    over: [__m256; N],
}

impl<const N: usize> Sums<N> {
    #[inline(always)]
    fn new(simd: V3, masks: Masks) -> Self {
        let zero = simd.avx._mm256_setzero_ps();
        Self {
            simd,
            masks,
            halves: [[zero; 2]; N],
            over: [zero; N],
        }
    }

    /// What the whole sums of a group's blocks are multiplied by, for each vector.
    #[inline(always)]
    fn factors<const BYTES: usize>(
        &mut self,
        vectors: &[Vector<'_>; N],
        group: usize,
        scales: &[u16; GROUP],
    ) -> [[f32; GROUP]; N] {
        let V3 { avx, avx2, fma, .. } = self.simd;
        let wide = avx2._mm256_cvtepu16_epi32(cast(*scales));
        let scales: __m256 = cast(avx2._mm256_slli_epi32::<16>(wide));
        let mut factors = [[0.0; GROUP]; N];
        for index in 0..N {
            let vector = &vectors[index];
            let mut product = avx._mm256_mul_ps(scales, cast(vector.units[group]));
            if BYTES == FOUR_BITS {
                let eights = cast(vector.eights[group]);
                self.over[index] = fma._mm256_fmadd_ps(product, eights, self.over[index]);
                product = avx._mm256_mul_ps(product, cast(FOUR_BIT_UNITS));
            }
            factors[index] = cast(product);
        }
        factors
    }

    /// Adds the products of a pair of blocks.
    ///
    /// - place: of the pair in its row
    /// - pair: in its group
    #[inline(always)]
    fn add<const BYTES: usize>(
        &mut self,
        vectors: &[Vector<'_>; N],
        place: usize,
        codes: &[u8; BYTES],
        factors: &[[f32; GROUP]; N],
        pair: usize,
    ) {
        let V3 { avx, avx2, fma, .. } = self.simd;
        let weights = self.masks.weights(self.simd, codes);
        for index in 0..N {
            let steps: [__m256i; 4] = cast(vectors[index].steps[place]);
            for half in 0..2 {
                let [a, b] = weights[half];
                let a = avx2._mm256_madd_epi16(a, steps[2 * half]);
                let b = avx2._mm256_madd_epi16(b, steps[2 * half + 1]);
                let whole = avx._mm256_cvtepi32_ps(avx2._mm256_add_epi32(a, b));
                let factor = avx._mm256_set1_ps(factors[index][2 * pair + half]);
                let sum = &mut self.halves[index][half];
                *sum = fma._mm256_fmadd_ps(whole, factor, *sum);
            }
        }
    }

    #[inline(always)]
    fn total(self) -> [f32; N] {
        let avx = self.simd.avx;
        let mut totals = [0.0; N];
        let sums = self.halves.into_iter().zip(self.over);
        for (total, ([first, second], over)) in totals.iter_mut().zip(sums) {
            let sum = avx._mm256_sub_ps(avx._mm256_add_ps(first, second), over);
            *total = cast::<_, [f32; 8]>(sum).iter().sum();
        }
        totals
    }
}

/// A code of 4 bits is taken where it lies in its byte: those of second blocks are 16 times as much.
const FOUR_BIT_UNITS: [f32; GROUP] = {
    let mut units = [1.0; GROUP];
    let mut second = 1;
    while second < GROUP {
        units[second] = 1.0 / 16.0;
        second += 2;
    }
    units
};

/// What leaves the codes of first and of second blocks of the bytes that hold both.
#[derive(Clone, Copy)]
struct Masks {
    first: __m256i,
    second: __m256i,
}

impl Masks {
    #[inline(always)]
    fn new(simd: V3) -> Self {
        // Were they known, the compiler would mask bytes before they are widened, and widen twice as many: four
        // instructions more for each pair, and an eighth of the speed.
        let [first, second] = std::hint::black_box([0x0f, 0xf0]);
        Self {
            first: simd.avx._mm256_set1_epi16(first),
            second: simd.avx._mm256_set1_epi16(second),
        }
    }

    /// The two blocks of a pair, as numbers of 16 bits. Those of 4 bits are 8 more than they should be, in
    /// [`FOUR_BIT_UNITS`].
    #[inline(always)]
    fn weights<const BYTES: usize>(self, simd: V3, codes: &[u8; BYTES]) -> [[__m256i; 2]; 2] {
        let avx2 = simd.avx2;
        let codes = codes.as_chunks::<16>().0;
        // No closures: they would not have the instructions.
        if BYTES == FOUR_BITS {
            let a = avx2._mm256_cvtepu8_epi16(cast(codes[0]));
            let b = avx2._mm256_cvtepu8_epi16(cast(codes[1]));
            let Self { first, second } = self;
            [
                [
                    avx2._mm256_and_si256(a, first),
                    avx2._mm256_and_si256(b, first),
                ],
                [
                    avx2._mm256_and_si256(a, second),
                    avx2._mm256_and_si256(b, second),
                ],
            ]
        } else {
            [
                [
                    avx2._mm256_cvtepi8_epi16(cast(codes[0])),
                    avx2._mm256_cvtepi8_epi16(cast(codes[1])),
                ],
                [
                    avx2._mm256_cvtepi8_epi16(cast(codes[2])),
                    avx2._mm256_cvtepi8_epi16(cast(codes[3])),
                ],
            ]
        }
    }
}
