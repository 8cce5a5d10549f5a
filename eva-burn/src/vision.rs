//! The vision tower: patches to merged patches in the decoder's width.
//!
//! Most blocks attend within windows, a few over the whole picture. Windows (and pictures) of equal
//! size are batched; no mask over all patches is ever made.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::attention::{Reach, attend};
use crate::config::VisionConfig;
use crate::input::Grid;
use crate::layers::{RmsNorm, SwiGlu, residual};
use crate::projection::Projection;
use crate::rope::{Rotary, vision_rotary};
use crate::weights::{Weights, WeightsError};

const EPSILON: f64 = 1e-6;

/// The vision tower.
#[derive(Module, Debug)]
pub(crate) struct VisionTower {
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    merger: Merger,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: Linear,
}

#[derive(Module, Debug)]
struct Block {
    norm1: RmsNorm,
    attn: Attention,
    norm2: RmsNorm,
    mlp: SwiGlu,
    full: bool,
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Projection,
    proj: Projection,
    heads: usize,
}

/// Joins the patches of a merged patch and maps them to the decoder's width.
#[derive(Module, Debug)]
struct Merger {
    ln_q: RmsNorm,
    mlp: Vec<Projection>,
}

impl VisionTower {
    pub(crate) fn new(weights: &mut Weights, config: &VisionConfig) -> Result<Self, WeightsError> {
        let width = config.hidden_size;
        let blocks = (0..config.depth)
            .map(|index| Block::new(weights, index, config))
            .collect::<Result<_, _>>()?;
        // A 3D convolution whose stride is its size: a product with the flattened patch.
        let proj = weights.matrix(
            "visual.patch_embed.proj.weight",
            &[
                width,
                config.in_channels,
                config.temporal_patch_size,
                config.patch_size,
                config.patch_size,
            ],
            config.patch_values(),
        )?;
        let proj = Linear {
            weight: Param::from_tensor(proj),
            bias: None,
        };
        let merged = width * config.spatial_merge_size.pow(2);
        Ok(Self {
            patch_embed: PatchEmbed { proj },
            blocks,
            merger: Merger {
                ln_q: RmsNorm::new(weights, "visual.merger.ln_q", width, EPSILON)?,
                mlp: vec![
                    weights.linear("visual.merger.mlp.0", merged, merged, true)?,
                    weights.linear("visual.merger.mlp.2", merged, config.out_hidden_size, true)?,
                ],
            },
        })
    }

    /// Features of the merged patches of several pictures, one after the other, rows first.
    ///
    /// # Shapes
    /// - patches: `[patches, channels * frames * side * side]` in merge-grouped order
    /// - returned: `[patches / merge^2, hidden of the decoder]`
    pub(crate) fn forward(
        &self,
        patches: Tensor<2>,
        grids: &[Grid],
        config: &VisionConfig,
    ) -> Tensor<2> {
        let hidden = self.hidden(patches, grids, config, |_, _| {});
        self.merger.forward(hidden, config)
    }

    /// The tower without its merger; `look` sees the embedded patches (0) and each block's output.
    pub(crate) fn hidden(
        &self,
        patches: Tensor<2>,
        grids: &[Grid],
        config: &VisionConfig,
        mut look: impl FnMut(usize, &Tensor<2>),
    ) -> Tensor<2> {
        let device = patches.device();
        let rotary = vision_rotary(grids, config, &device);
        let windows = Groups::new(&windows(grids, config), &device);
        let pictures = Groups::new(&pictures(grids), &device);
        let patches = patches.cast(self.patch_embed.proj.weight.val().dtype());
        let mut x = self.patch_embed.proj.forward(patches);
        look(0, &x);
        for (index, block) in self.blocks.iter().enumerate() {
            let groups = if block.full { &pictures } else { &windows };
            x = block.forward(x, &rotary, groups);
            look(index + 1, &x);
        }
        x
    }
}

impl Block {
    fn new(
        weights: &mut Weights,
        index: usize,
        config: &VisionConfig,
    ) -> Result<Self, WeightsError> {
        let name = format!("visual.blocks.{index}");
        let width = config.hidden_size;
        Ok(Self {
            norm1: RmsNorm::new(weights, &format!("{name}.norm1"), width, EPSILON)?,
            attn: Attention {
                qkv: weights.linear(&format!("{name}.attn.qkv"), width, 3 * width, true)?,
                proj: weights.linear(&format!("{name}.attn.proj"), width, width, true)?,
                heads: config.num_heads,
            },
            norm2: RmsNorm::new(weights, &format!("{name}.norm2"), width, EPSILON)?,
            mlp: SwiGlu::new(
                weights,
                &format!("{name}.mlp"),
                width,
                config.intermediate_size,
                true,
            )?,
            full: config.fullatt_block_indexes.contains(&index),
        })
    }

    fn forward(&self, x: Tensor<2>, rotary: &Rotary, groups: &Groups) -> Tensor<2> {
        let attention = (self.attn).forward(self.norm1.forward(x.clone()), rotary, groups);
        let x = residual(x, attention);
        let normed = self.norm2.forward(x.clone());
        self.mlp.add_to(x, normed)
    }
}

impl Attention {
    fn forward(&self, x: Tensor<2>, rotary: &Rotary, groups: &Groups) -> Tensor<2> {
        let [patches, width] = x.dims();
        let head = width / self.heads;
        // [3 * heads, patches, head]: queries, keys, values
        let qkv = self
            .qkv
            .forward(x)
            .reshape([patches, 3 * self.heads, head])
            .swap_dims(0, 1);
        let rotated = rotary.apply(qkv.clone().narrow(0, 0, 2 * self.heads).unsqueeze::<4>());
        let (query, key) = (
            rotated.clone().narrow(1, 0, self.heads),
            rotated.narrow(1, self.heads, self.heads),
        );
        let value = qkv.narrow(0, 2 * self.heads, self.heads).unsqueeze::<4>();
        let rows = |x: Tensor<4>| x.swap_dims(1, 2).reshape([patches, width]);
        self.proj
            .forward(groups.attend(rows(query), rows(key), rows(value), self.heads))
    }
}

impl Merger {
    fn forward(&self, x: Tensor<2>, config: &VisionConfig) -> Tensor<2> {
        let [patches, width] = x.dims();
        let merge = config.spatial_merge_size.pow(2);
        let mut x = self
            .ln_q
            .forward(x)
            .reshape([patches / merge, width * merge]);
        for (index, layer) in self.mlp.iter().enumerate() {
            if index > 0 {
                x = gelu(x);
            }
            x = layer.forward(x);
        }
        x
    }
}

/// Sets of patches that attend to each other, batched by size.
struct Groups {
    /// Per size: the patches of all sets of that size.
    batches: Vec<Batch>,
    /// Where each patch stands in the batches' outputs, one after the other; `None` when the order
    /// is unchanged.
    restore: Option<Tensor<1, Int>>,
}

struct Batch {
    /// Patches of the sets, one set after the other; `None` for all patches in order.
    rows: Option<Tensor<1, Int>>,
    sets: usize,
    size: usize,
}

impl Groups {
    fn new(sets: &[Vec<usize>], device: &Device) -> Self {
        let indices = |values: &[usize]| {
            let values: Vec<i32> = values.iter().map(|value| *value as i32).collect();
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), device)
        };
        let mut by_size: BTreeMap<usize, Vec<&Vec<usize>>> = BTreeMap::new();
        for set in sets {
            by_size.entry(set.len()).or_default().push(set);
        }
        let order: Vec<usize> = by_size
            .values()
            .flatten()
            .flat_map(|set| set.iter().copied())
            .collect();
        let ordered = order.iter().enumerate().all(|(at, patch)| at == *patch);
        let whole = ordered && by_size.len() == 1;
        let batches = by_size
            .iter()
            .map(|(size, sets)| {
                let rows: Vec<usize> = sets.iter().flat_map(|set| set.iter().copied()).collect();
                Batch {
                    rows: (!whole).then(|| indices(&rows)),
                    sets: sets.len(),
                    size: *size,
                }
            })
            .collect();
        let restore = (!ordered).then(|| {
            let mut place = vec![0; order.len()];
            for (at, patch) in order.iter().enumerate() {
                place[*patch] = at;
            }
            indices(&place)
        });
        Self { batches, restore }
    }

    /// # Shapes
    /// - query, key, value: `[patches, width]`, returned alike
    fn attend(
        &self,
        query: Tensor<2>,
        key: Tensor<2>,
        value: Tensor<2>,
        heads: usize,
    ) -> Tensor<2> {
        let width = query.dims()[1];
        let mut outputs = Vec::with_capacity(self.batches.len());
        for batch in &self.batches {
            let take = |x: &Tensor<2>| {
                let x = match &batch.rows {
                    Some(rows) => x.clone().select(0, rows.clone()),
                    None => x.clone(),
                };
                x.reshape([batch.sets, batch.size, heads, width / heads])
                    .swap_dims(1, 2)
            };
            let mixed = attend(take(&query), take(&key), take(&value), Reach::Everything);
            outputs.push(
                mixed
                    .swap_dims(1, 2)
                    .reshape([batch.sets * batch.size, width]),
            );
        }
        let joined = if outputs.len() == 1 {
            outputs.swap_remove(0)
        } else {
            Tensor::cat(outputs, 0)
        };
        match &self.restore {
            Some(place) => joined.select(0, place.clone()),
            None => joined,
        }
    }
}

/// The patches of each picture.
fn pictures(grids: &[Grid]) -> Vec<Vec<usize>> {
    let mut start = 0;
    grids
        .iter()
        .map(|grid| {
            let patches = grid.patches();
            let set = (start..start + patches).collect();
            start += patches;
            set
        })
        .collect()
}

/// The patches of each attention window: squares of `window_size` pixels from the top left corner
/// of each picture, cut at its edges.
fn windows(grids: &[Grid], config: &VisionConfig) -> Vec<Vec<usize>> {
    let merge = config.spatial_merge_size;
    let side = (config.window_size / merge / config.patch_size).max(1);
    let per_merged = merge * merge;
    let mut start = 0;
    let mut sets = Vec::new();
    for grid in grids {
        let (rows, columns) = (grid.rows / merge, grid.columns / merge);
        for top in (0..rows).step_by(side) {
            for left in (0..columns).step_by(side) {
                let mut set = Vec::with_capacity(side * side * per_merged);
                for row in top..rows.min(top + side) {
                    for column in left..columns.min(left + side) {
                        let first = start + (row * columns + column) * per_merged;
                        set.extend(first..first + per_merged);
                    }
                }
                sets.push(set);
            }
        }
        start += grid.patches();
    }
    sets
}

/// The patches of several pictures, window after window: the order in which the reference
/// implementation computes. Ours stays in the input's order; this permutation compares the two.
#[must_use]
pub fn window_order(grids: &[Grid], config: &VisionConfig) -> Vec<usize> {
    windows(grids, config).concat()
}
