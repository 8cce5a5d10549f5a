//! The KV cache: keys and values of the tokens already read, per layer.

use std::ops::Range;

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::config::{ModelConfig, TextConfig};
use crate::cpu;
#[cfg(feature = "gpu-kernels")]
use crate::gpu;
use crate::weights::Precision;

/// Bytes that the keys and values of one token take.
///
/// - precision: that of the weights. Beside all but `f32` keys and values have 16 bits: `bf16` beside `bf16`, `f16`
///   beside others (beside integers `f32`'s 32 on a GPU without `f16`)
#[must_use]
pub fn kv_bytes_per_token(config: &ModelConfig, precision: Precision) -> u64 {
    let bytes = match precision {
        Precision::Bf16 | Precision::F16 | Precision::Int8 | Precision::Int4 => 2,
        Precision::F32 => 4,
    };
    kv_values_per_token(&config.text) * bytes
}

/// Numbers that the keys and values of one token are.
pub(crate) fn kv_values_per_token(config: &TextConfig) -> u64 {
    let width = config.num_key_value_heads * config.head_dim();
    2 * config.num_hidden_layers as u64 * width as u64
}

/// Products of queries with one sequence's columns in a layer, padding included, from which on
/// [`KvCache::attend`] is taken for `f32`: 147 tokens of the 7B model, 256 of the 3B. With fewer there is little
/// to win, and a model as small as eva-tiny is trained by what rollouts have always computed, to the bit.
const WORTH_IT: usize = 1 << 19;

/// Keys and values of one sequence, or of several that advance together.
///
/// Sequences of different lengths are joined with their ends aligned: each new token then takes the
/// same column in all of them, and what lies before a shorter one is masked.
#[derive(Debug, Default)]
pub(crate) struct KvCache {
    layers: Vec<LayerCache>,
    /// Columns in use, those before a shorter sequence included.
    len: usize,
    /// For each sequence the columns before its first token.
    starts: Vec<usize>,
    /// Columns in use after the next append.
    reserved: usize,
    /// `[sequences, 1, 1, reserved]`, true before a sequence's first token, once a layer has asked for it.
    padding: Option<Tensor<4, Bool>>,
    /// `starts`, once the device has asked for them.
    #[cfg(feature = "gpu-kernels")]
    starts_on_gpu: Option<Tensor<1, Int>>,
}

#[derive(Debug)]
struct LayerCache {
    /// `[sequences, kv_heads, capacity, head_dim]`
    keys: Tensor<4>,
    /// `[sequences, kv_heads, capacity, head_dim]`
    values: Tensor<4>,
}

impl LayerCache {
    fn both(&mut self) -> [&mut Tensor<4>; 2] {
        [&mut self.keys, &mut self.values]
    }
}

impl KvCache {
    /// An empty cache for one sequence.
    pub(crate) fn new(config: &TextConfig, device: &Device) -> Self {
        let shape = [1, config.num_key_value_heads, 1, config.head_dim()];
        let layers = (0..config.num_hidden_layers)
            .map(|_| LayerCache {
                keys: Tensor::zeros(shape, device),
                values: Tensor::zeros(shape, device),
            })
            .collect();
        Self {
            layers,
            len: 0,
            starts: vec![0],
            reserved: 0,
            padding: None,
            #[cfg(feature = "gpu-kernels")]
            starts_on_gpu: None,
        }
    }

    /// Number of sequences.
    pub(crate) fn sequences(&self) -> usize {
        self.starts.len()
    }

    /// Bytes that it takes, room for further tokens included.
    pub(crate) fn bytes(&self) -> u64 {
        let layers = self
            .layers
            .iter()
            .flat_map(|layer| [&layer.keys, &layer.values]);
        layers
            .map(|tensor| tensor.dims().iter().product::<usize>() * tensor.dtype().size())
            .map(|bytes| bytes as u64)
            .sum()
    }

    /// Forgets what follows the first `len` tokens of a single sequence.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `additional` tokens of each sequence, of which [`padding`](Self::padding) then
    /// speaks. It doubles, so that appends stay cheap, but takes no more than `most` columns where
    /// they suffice.
    ///
    /// - dtype: of the keys and values that will come
    pub(crate) fn reserve(&mut self, additional: usize, most: usize, dtype: DType) {
        let (len, needed) = (self.len, self.len + additional);
        for tensor in self.layers.iter_mut().flat_map(LayerCache::both) {
            let [sequences, heads, capacity, width] = tensor.dims();
            let wider = needed.max((2 * capacity).min(most));
            if len == 0 && (needed > capacity || tensor.dtype() != dtype) {
                let shape = [sequences, heads, needed.max(capacity), width];
                *tensor = Tensor::zeros(shape, (&tensor.device(), dtype));
            } else if needed > capacity {
                tensor.inplace(|old| copied(&old, 0..sequences, 0..len, wider));
            }
        }
        self.reserved = needed;
        self.padding = None;
    }

    /// What must not be attended to once as many tokens were appended as room was last made for.
    pub(crate) fn padding(&mut self) -> Option<Tensor<4, Bool>> {
        if self.padding.is_none() {
            self.padding = self.mask(self.reserved);
        }
        self.padding.clone()
    }

    fn mask(&self, columns: usize) -> Option<Tensor<4, Bool>> {
        if self.starts.iter().all(|start| *start == 0) {
            return None;
        }
        let device = self.layers.first()?.keys.device();
        let count = self.sequences();
        let starts: Vec<i32> = self.starts.iter().map(|start| *start as i32).collect();
        let starts = Tensor::<1, Int>::from_data(TensorData::new(starts, [count]), &device)
            .reshape([count, 1, 1, 1])
            .expand([count, 1, 1, columns]);
        let places = Tensor::<1, Int>::arange(0..columns as i64, &device)
            .reshape([1, 1, 1, columns])
            .expand([count, 1, 1, columns]);
        Some(places.lower(starts))
    }

    /// Appends the new tokens' keys and values to a layer and returns all of it, in their number type. New ones
    /// are as exact in there as those before them, so that one reading or several come to the same.
    ///
    /// The tokens count as read only after [`advance`](Self::advance).
    ///
    /// # Shapes
    /// - keys, values: `[sequences, kv_heads, new, head_dim]`
    /// - returned: `[sequences, kv_heads, len + new, head_dim]`
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let LayerCache {
            keys: kept_keys,
            values: kept_values,
        } = &mut self.layers[layer];
        let append = |kept: &mut Tensor<4>, new: Tensor<4>| {
            let [sequences, heads, count, width] = new.dims();
            let (start, end) = (self.len, self.len + count);
            let range = [0..sequences, 0..heads, start..end, 0..width];
            let (dtype, kept_dtype) = (new.dtype(), kept.dtype());
            // In place: a clone of the cache alive here would copy all of it.
            kept.inplace(|kept| kept.slice_assign(range, new.cast(kept_dtype)));
            if dtype != kept_dtype && kept.device() == Device::flex() {
                return cpu::widened(kept, end);
            }
            kept.clone().narrow(2, 0, end).cast(dtype)
        };
        (append(kept_keys, keys), append(kept_values, values))
    }

    /// Appends one new token's keys and values of each sequence to a layer, as [`append`](Self::append)
    /// does, and returns the attention of its queries over all of it; `None` where that is for the caller:
    /// on other devices, with several new tokens, and over so few that Burn's products take no longer.
    ///
    /// # Shapes
    /// - query: `[sequences, heads, 1, head_dim]`, returned alike
    /// - keys, values: `[sequences, kv_heads, 1, head_dim]`
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        query: &Tensor<4>,
        keys: &Tensor<4>,
        values: &Tensor<4>,
    ) -> Option<Tensor<4>> {
        let [_, heads, asked, width] = query.dims();
        let new = keys.dims()[2];
        let ours = [query, keys, values].iter().all(|x| cpu::applies(x));
        let layer = &mut self.layers[layer];
        // Of 16 bits Burn's products would have all widened.
        let worth_it = heads * width * self.len >= WORTH_IT || layer.keys.dtype() != query.dtype();
        if !ours || asked != 1 || new != 1 || !worth_it {
            return None;
        }
        Some(cpu::attended(
            query.clone(),
            (&mut layer.keys, keys.clone()),
            (&mut layer.values, values.clone()),
            self.len,
            &self.starts,
        ))
    }

    /// Whether attention of new tokens is [`attend_on_gpu`](Self::attend_on_gpu)'s: one new token of each
    /// sequence, on a GPU, with heads of a shape that fits.
    ///
    /// # Shapes
    /// - x: `[sequences, new, hidden]`
    #[cfg(feature = "gpu-kernels")]
    pub(crate) fn attends_on_gpu(&self, x: &Tensor<3>, heads: usize) -> bool {
        let shape = self.layers.first().map(|layer| layer.keys.dims());
        shape.is_some_and(|[_, kv_heads, _, width]| {
            x.dims()[1] == 1 && gpu::applies(x) && gpu::fits(heads / kv_heads.max(1), width)
        })
    }

    /// Appends one new token's keys and values of each sequence to a layer, rotated, and returns the attention
    /// of its queries over all of it.
    ///
    /// # Shapes
    /// - query: `[sequences, 1, heads * head_dim]`, not yet rotated; returned alike
    /// - keys, values: `[sequences, 1, kv_heads * head_dim]`, not yet rotated
    /// - rotary: cosine and sine, `[sequences, 1, 1, head_dim / 2]` each
    #[cfg(feature = "gpu-kernels")]
    pub(crate) fn attend_on_gpu(
        &mut self,
        layer: usize,
        query: Tensor<3>,
        new: (Tensor<3>, Tensor<3>),
        rotary: (Tensor<4>, Tensor<4>),
    ) -> Tensor<3> {
        let device = query.device();
        let starts = self.starts_on_gpu.get_or_insert_with(|| {
            let starts: Vec<i32> = self.starts.iter().map(|start| *start as i32).collect();
            let count = starts.len();
            Tensor::from_data(TensorData::new(starts, [count]), (&device, DType::I32))
        });
        // Taken out, so that nothing else holds them and they are written in place.
        let LayerCache { keys, values } = self.layers.remove(layer);
        let (keys, values) = gpu::append((keys, values), new, rotary.clone(), self.len);
        let kept = (keys.clone(), values.clone());
        self.layers.insert(layer, LayerCache { keys, values });
        gpu::attend(query, kept, rotary, starts.clone(), self.len + 1)
    }

    /// Counts `new` tokens as read, once every layer has appended them.
    pub(crate) fn advance(&mut self, new: usize) {
        self.len += new;
    }

    /// Another cache with the first `len` tokens of a single sequence.
    pub(crate) fn prefix(&self, len: usize) -> Self {
        let copy = |tensor: &Tensor<4>| copied(tensor, 0..1, 0..len, len.max(1));
        let layers = self.layers.iter().map(|layer| LayerCache {
            keys: copy(&layer.keys),
            values: copy(&layer.values),
        });
        Self::single(layers.collect(), len)
    }

    fn single(layers: Vec<LayerCache>, len: usize) -> Self {
        Self {
            layers,
            len,
            starts: vec![0],
            reserved: 0,
            padding: None,
            #[cfg(feature = "gpu-kernels")]
            starts_on_gpu: None,
        }
    }

    /// Several single sequences as one cache, with room for at least one more token and at most
    /// `most` columns. Layer by layer: what is held twice at a time is one layer's.
    pub(crate) fn join(mut singles: Vec<Self>, most: usize) -> Self {
        if singles.len() == 1 {
            return singles.swap_remove(0);
        }
        let lens: Vec<usize> = singles.iter().map(|single| single.len).collect();
        let len = lens.iter().copied().max().unwrap_or(0);
        let capacity = (len + 1).max((len + len / 4).min(most));
        let mut parts: Vec<_> = singles
            .into_iter()
            .map(|single| single.layers.into_iter())
            .collect();
        let mut layers = Vec::new();
        while let Some(layer) = parts
            .iter_mut()
            .map(Iterator::next)
            .collect::<Option<Vec<LayerCache>>>()
            .filter(|layer| !layer.is_empty())
        {
            let (keys, values): (Vec<_>, Vec<_>) = layer
                .into_iter()
                .map(|layer| (layer.keys, layer.values))
                .unzip();
            layers.push(LayerCache {
                keys: aligned(keys, &lens, len, capacity),
                values: aligned(values, &lens, len, capacity),
            });
        }
        Self {
            layers,
            len,
            starts: lens.iter().map(|own| len - own).collect(),
            reserved: 0,
            padding: None,
            #[cfg(feature = "gpu-kernels")]
            starts_on_gpu: None,
        }
    }

    /// Takes some sequences out, given in rising order, and leaves the others. Layer by layer too.
    pub(crate) fn leave(&mut self, rows: &[usize]) -> Vec<Self> {
        if let ([0], [0]) = (rows, self.starts.as_slice()) {
            return vec![std::mem::take(self)];
        }
        let len = self.len;
        let (gone, stay): (Vec<usize>, Vec<usize>) =
            (0..self.sequences()).partition(|row| rows.contains(row));
        // What lies before all that stay goes too.
        let first = stay
            .iter()
            .map(|row| self.starts[*row])
            .min()
            .unwrap_or(len);
        let mut left: Vec<Vec<LayerCache>> = gone.iter().map(|_| Vec::new()).collect();
        let mut layers = Vec::new();
        for layer in std::mem::take(&mut self.layers) {
            for (row, left) in gone.iter().zip(&mut left) {
                let copy = |all: &Tensor<4>| {
                    let start = self.starts[*row];
                    copied(all, *row..row + 1, start..len, (len - start).max(1))
                };
                left.push(LayerCache {
                    keys: copy(&layer.keys),
                    values: copy(&layer.values),
                });
            }
            if !stay.is_empty() {
                let keep = |all: Tensor<4>| {
                    let columns = all.dims()[2] - first;
                    let row =
                        |row: &usize| all.clone().narrow(0, *row, 1).narrow(2, first, columns);
                    Tensor::cat(stay.iter().map(row).collect(), 0)
                };
                layers.push(LayerCache {
                    keys: keep(layer.keys),
                    values: keep(layer.values),
                });
            }
        }
        let caches = left.into_iter().zip(&gone);
        let caches = caches.map(|(layers, row)| Self::single(layers, len - self.starts[*row]));
        let caches = caches.collect();
        *self = Self {
            layers,
            len: len - first,
            starts: stay.iter().map(|row| self.starts[*row] - first).collect(),
            reserved: 0,
            padding: None,
            #[cfg(feature = "gpu-kernels")]
            starts_on_gpu: None,
        };
        caches
    }
}

/// Columns of some rows in a new tensor of `capacity` columns, zeros after them.
fn copied(
    all: &Tensor<4>,
    rows: Range<usize>,
    columns: Range<usize>,
    capacity: usize,
) -> Tensor<4> {
    let [_, heads, _, width] = all.dims();
    let shape = [rows.len(), heads, capacity, width];
    let empty = Tensor::zeros(shape, (&all.device(), all.dtype()));
    if columns.is_empty() {
        return empty;
    }
    empty.slice_assign(
        [0..rows.len(), 0..heads, 0..columns.len(), 0..width],
        all.clone().slice([rows, 0..heads, columns, 0..width]),
    )
}

/// Single sequences as rows of one tensor, each with its end at column `len`.
fn aligned(singles: Vec<Tensor<4>>, lens: &[usize], len: usize, capacity: usize) -> Tensor<4> {
    // One that has read something knows the number type.
    let read = singles.iter().zip(lens).find(|(_, own)| **own > 0);
    let Some(like) = read.map(|(single, _)| single).or(singles.first()) else {
        return Tensor::zeros([0; 4], &Device::default());
    };
    let [_, heads, _, width] = like.dims();
    let shape = [lens.len(), heads, capacity, width];
    let mut all = Tensor::zeros(shape, (&like.device(), like.dtype()));
    for (row, (single, own)) in singles.into_iter().zip(lens).enumerate() {
        if *own > 0 {
            let range = [row..row + 1, 0..heads, len - own..len, 0..width];
            all = all.slice_assign(range, single.narrow(2, 0, *own));
        }
    }
    all
}
