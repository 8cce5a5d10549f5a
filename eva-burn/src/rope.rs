//! Rotary position embeddings: M-RoPE for the decoder, two axes for the vision tower.
//!
//! Angles are computed on the host (a few thousand numbers) and handed over as cosine and sine
//! tables; the checkpoint rotates halves, not interleaved pairs.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::config::{TextConfig, VisionConfig};
use crate::cpu;
#[cfg(feature = "gpu-kernels")]
use crate::gpu;
use crate::input::Grid;

/// Cosine and sine of every token's angles.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    /// `[batch, 1, tokens, head_dim / 2]`
    cos: Tensor<4>,
    /// `[batch, 1, tokens, head_dim / 2]`
    sin: Tensor<4>,
}

impl Rotary {
    fn new(angles: &[f32], shape: [usize; 4], device: &Device) -> Self {
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|angle| f(*angle)).collect();
            Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
        };
        Self {
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }

    /// That of the last tokens alone.
    pub(crate) fn last(&self, count: usize) -> Self {
        let last = |table: &Tensor<4>| {
            let tokens = table.dims()[2];
            table.clone().narrow(2, tokens - count, count)
        };
        Self {
            cos: last(&self.cos),
            sin: last(&self.sin),
        }
    }

    /// Cosine and sine, `[batch, 1, tokens, head_dim / 2]` each, in `f32`.
    #[cfg(feature = "gpu-kernels")]
    pub(crate) fn tables(&self) -> (Tensor<4>, Tensor<4>) {
        (self.cos.clone(), self.sin.clone())
    }

    /// Rotates queries or keys.
    ///
    /// # Shapes
    /// - x: `[batch, heads, tokens, head_dim]`, returned alike
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        if cpu::applies(&x) {
            return cpu::rotated(x, self.cos.clone(), self.sin.clone());
        }
        #[cfg(feature = "gpu-kernels")]
        if gpu::applies(&x) {
            return gpu::rotated(x, self.cos.clone(), self.sin.clone());
        }
        let half = x.dims()[3] / 2;
        let dtype = x.dtype();
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let (cos, sin) = (self.cos.clone().cast(dtype), self.sin.clone().cast(dtype));
        Tensor::cat(
            vec![
                first.clone() * cos.clone() - second.clone() * sin.clone(),
                second * cos + first * sin,
            ],
            3,
        )
    }
}

/// A token's place on the three axes of M-RoPE: time, height, width.
pub type Position = [u32; 3];

/// The M-RoPE tables of a batch of token sequences.
///
/// # Shapes
/// - positions: `batch` sequences of the same length
pub(crate) fn text_rotary(
    positions: &[&[Position]],
    config: &TextConfig,
    device: &Device,
) -> Rotary {
    let half = config.head_dim() / 2;
    let frequencies = frequencies(config.head_dim(), config.rope_theta);
    let mut axes = Vec::with_capacity(half);
    for (axis, count) in config.mrope_section.into_iter().enumerate() {
        axes.extend(std::iter::repeat_n(axis, count));
    }
    let tokens = positions.first().map_or(0, |sequence| sequence.len());
    let mut angles = Vec::with_capacity(positions.len() * tokens * half);
    for position in positions.iter().flat_map(|sequence| sequence.iter()) {
        angles.extend(
            axes.iter()
                .zip(&frequencies)
                .map(|(axis, frequency)| position[*axis] as f32 * frequency),
        );
    }
    Rotary::new(&angles, [positions.len(), 1, tokens, half], device)
}

/// The tables of the vision tower for the patches of several pictures, in merge-grouped order
/// (all patches of a merged patch follow each other).
pub(crate) fn vision_rotary(grids: &[Grid], config: &VisionConfig, device: &Device) -> Rotary {
    // Half of a head's frequencies go to the row, half to the column.
    let frequencies = frequencies(config.head_dim() / 2, 10_000.0);
    let merge = config.spatial_merge_size;
    let mut angles = Vec::new();
    for grid in grids {
        for (row, column) in merged_order(*grid, merge) {
            angles.extend(frequencies.iter().map(|frequency| row as f32 * frequency));
            angles.extend(
                frequencies
                    .iter()
                    .map(|frequency| column as f32 * frequency),
            );
        }
    }
    let half = config.head_dim() / 2;
    let patches = angles.len() / half;
    Rotary::new(&angles, [1, 1, patches, half], device)
}

/// Row and column of each patch of a picture, in merge-grouped order.
pub(crate) fn merged_order(grid: Grid, merge: usize) -> impl Iterator<Item = (usize, usize)> {
    let (rows, columns) = (grid.rows / merge, grid.columns / merge);
    (0..rows).flat_map(move |block_row| {
        (0..columns).flat_map(move |block_column| {
            (0..merge).flat_map(move |row| {
                (0..merge)
                    .map(move |column| (block_row * merge + row, block_column * merge + column))
            })
        })
    })
}

/// `1 / theta^(2i / width)` for `width / 2` frequencies.
fn frequencies(width: usize, theta: f64) -> Vec<f32> {
    (0..width / 2)
        .map(|i| (1.0 / theta.powf(2.0 * i as f64 / width as f64)) as f32)
        .collect()
}

/// M-RoPE positions of a token sequence with pictures, and the position of the next text token.
///
/// Text advances on all three axes together; a picture's tokens share a time and spread over height
/// and width; what follows a picture starts one after the largest position so far.
///
/// - tokens: ids, with one `image_token` per merged patch
/// - grids: one per picture, in order, in merged patches
///
/// Tokens of pictures that `grids` does not cover count as text.
#[must_use]
pub fn positions(
    tokens: &[u32],
    grids: &[Grid],
    image_token: u32,
    merge: usize,
) -> (Vec<Position>, u32) {
    let mut out = Vec::with_capacity(tokens.len());
    let mut next = 0;
    let mut grids = grids.iter();
    let mut index = 0;
    while index < tokens.len() {
        let picture = if tokens[index] == image_token {
            grids.next()
        } else {
            None
        };
        if let Some(grid) = picture {
            let (rows, columns) = ((grid.rows / merge) as u32, (grid.columns / merge) as u32);
            for row in 0..rows {
                for column in 0..columns {
                    out.push([next, next + row, next + column]);
                }
            }
            index += (rows * columns) as usize;
            next += rows.max(columns).max(1);
        } else {
            out.push([next; 3]);
            next += 1;
            index += 1;
        }
    }
    out.truncate(tokens.len());
    (out, next)
}
