//! The KV cache: keys and values of the tokens already read, per layer.

use burn::tensor::{Device, Tensor};

use crate::config::TextConfig;

/// Keys and values of one batch of sequences that advance together.
#[derive(Debug)]
pub(crate) struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
}

#[derive(Debug)]
pub(crate) struct LayerCache {
    /// `[batch, kv_heads, capacity, head_dim]`
    keys: Tensor<4>,
    /// `[batch, kv_heads, capacity, head_dim]`
    values: Tensor<4>,
}

impl KvCache {
    /// An empty cache for `batch` sequences.
    pub(crate) fn new(batch: usize, capacity: usize, config: &TextConfig, device: &Device) -> Self {
        let shape = [
            batch,
            config.num_key_value_heads,
            capacity.max(1),
            config.head_dim(),
        ];
        let layers = (0..config.num_hidden_layers)
            .map(|_| LayerCache {
                keys: Tensor::zeros(shape, device),
                values: Tensor::zeros(shape, device),
            })
            .collect();
        Self { layers, len: 0 }
    }

    /// Forgets what follows the first `len` tokens.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `additional` tokens; doubles, so that appends stay cheap.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let needed = self.len + additional;
        for layer in &mut self.layers {
            let [batch, heads, capacity, width] = layer.keys.dims();
            if needed <= capacity {
                continue;
            }
            let shape = [batch, heads, needed.max(2 * capacity), width];
            let len = self.len;
            for tensor in [&mut layer.keys, &mut layer.values] {
                let device = tensor.device();
                let dtype = tensor.dtype();
                tensor.inplace(|old| {
                    let grown = Tensor::zeros(shape, (&device, dtype));
                    if len == 0 {
                        return grown;
                    }
                    grown.slice_assign(
                        [0..batch, 0..heads, 0..len, 0..width],
                        old.narrow(2, 0, len),
                    )
                });
            }
        }
    }

    /// Appends the new tokens' keys and values to a layer and returns all of it.
    ///
    /// The tokens count as read only after [`advance`](Self::advance).
    ///
    /// # Shapes
    /// - keys, values: `[batch, kv_heads, new, head_dim]`
    /// - returned: `[batch, kv_heads, len + new, head_dim]`
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, new, width] = keys.dims();
        let (start, end) = (self.len, self.len + new);
        let range = [0..batch, 0..heads, start..end, 0..width];
        let layer = &mut self.layers[layer];
        if start == 0 && layer.keys.dtype() != keys.dtype() {
            layer.keys.inplace(|cache| cache.cast(keys.dtype()));
            layer.values.inplace(|cache| cache.cast(values.dtype()));
        }
        // In place: a clone of the cache alive here would copy all of it.
        layer
            .keys
            .inplace(|cache| cache.slice_assign(range.clone(), keys));
        layer
            .values
            .inplace(|cache| cache.slice_assign(range, values));
        (
            layer.keys.clone().narrow(2, 0, end),
            layer.values.clone().narrow(2, 0, end),
        )
    }

    /// Counts `new` tokens as read, once every layer has appended them.
    pub(crate) fn advance(&mut self, new: usize) {
        self.len += new;
    }
}
