//! The decoder: Qwen2.5's transformer with M-RoPE and grouped-query attention.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::attention::{Reach, attend_padded};
use crate::cache::KvCache;
use crate::config::TextConfig;
use crate::layers::{RmsNorm, SwiGlu};
use crate::projection::{Embedding, Projection};
use crate::rope::Rotary;
use crate::weights::{Init, Weights, WeightsError};

/// Which tokens' final states are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum States {
    /// Those of all new tokens.
    All,
    /// That of the last one: of the last layer only keys and values are computed for the rest.
    Last,
}

/// The decoder without its output head.
#[derive(Module, Debug)]
pub(crate) struct TextModel {
    pub(crate) embed_tokens: Embedding,
    layers: Vec<DecoderLayer>,
    pub(crate) norm: RmsNorm,
}

#[derive(Module, Debug)]
struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    mlp: SwiGlu,
}

#[derive(Module, Debug)]
struct SelfAttention {
    q_proj: Projection,
    k_proj: Projection,
    v_proj: Projection,
    o_proj: Projection,
    heads: usize,
    kv_heads: usize,
}

impl TextModel {
    pub(crate) fn new(weights: &mut Weights, config: &TextConfig) -> Result<Self, WeightsError> {
        let width = config.hidden_size;
        // A wide start (0.2, not the usual 0.02) lets look-ups of text form several times faster
        // when a small model is trained from nothing.
        let embed_tokens = weights.embedding(
            "model.embed_tokens.weight",
            config.vocab_size,
            width,
            Init::Normal(0.2),
        )?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| DecoderLayer::new(weights, &format!("model.layers.{index}"), config))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embed_tokens,
            layers,
            norm: RmsNorm::new(weights, "model.norm", width, config.rms_norm_eps)?,
        })
    }

    /// The final, normalised hidden states of new tokens, which follow those in the cache.
    ///
    /// # Shapes
    /// - x: embeddings `[batch, new, hidden]`
    /// - returned: `[batch, asked, hidden]`
    pub(crate) fn forward(
        &self,
        mut x: Tensor<3>,
        rotary: &Rotary,
        mut cache: Option<&mut KvCache>,
        states: States,
    ) -> Tensor<3> {
        let new = x.dims()[1];
        let last = self.layers.len().saturating_sub(1);
        for (index, layer) in self.layers.iter().enumerate() {
            let asked = match states {
                States::Last if index == last => new.min(1),
                _ => new,
            };
            let cache = cache.as_deref_mut().map(|cache| (cache, index));
            x = layer.forward(x, rotary, cache, asked);
        }
        if let Some(cache) = cache {
            cache.advance(new);
        }
        self.norm.forward(x)
    }
}

impl DecoderLayer {
    fn new(weights: &mut Weights, name: &str, config: &TextConfig) -> Result<Self, WeightsError> {
        let (width, head) = (config.hidden_size, config.head_dim());
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let eps = config.rms_norm_eps;
        let attn = format!("{name}.self_attn");
        Ok(Self {
            input_layernorm: RmsNorm::new(weights, &format!("{name}.input_layernorm"), width, eps)?,
            self_attn: SelfAttention {
                q_proj: weights.linear(&format!("{attn}.q_proj"), width, heads * head, true)?,
                k_proj: weights.linear(&format!("{attn}.k_proj"), width, kv_heads * head, true)?,
                v_proj: weights.linear(&format!("{attn}.v_proj"), width, kv_heads * head, true)?,
                o_proj: weights.linear(&format!("{attn}.o_proj"), heads * head, width, false)?,
                heads,
                kv_heads,
            },
            post_attention_layernorm: RmsNorm::new(
                weights,
                &format!("{name}.post_attention_layernorm"),
                width,
                eps,
            )?,
            mlp: SwiGlu::new(
                weights,
                &format!("{name}.mlp"),
                width,
                config.intermediate_size,
                false,
            )?,
        })
    }

    /// - asked: the last tokens, whose states are returned
    fn forward(
        &self,
        x: Tensor<3>,
        rotary: &Rotary,
        cache: Option<(&mut KvCache, usize)>,
        asked: usize,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.forward(x.clone());
        let x = last(x, asked);
        let x = self.self_attn.add_to(x, normed, rotary, cache);
        let normed = self.post_attention_layernorm.forward(x.clone());
        self.mlp.add_to(x, normed)
    }
}

/// The last tokens of each sequence.
fn last(x: Tensor<3>, count: usize) -> Tensor<3> {
    let tokens = x.dims()[1];
    if count == tokens {
        return x;
    }
    x.narrow(1, tokens - count, count)
}

impl SelfAttention {
    /// What it makes of `x`, added to `to`, which may be the last tokens alone.
    fn add_to(
        &self,
        to: Tensor<3>,
        x: Tensor<3>,
        rotary: &Rotary,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<3> {
        #[cfg(feature = "gpu-kernels")]
        let mut cache = cache;
        #[cfg(feature = "gpu-kernels")]
        if let Some((cache, layer)) = &mut cache
            && cache.attends_on_gpu(&x, self.heads)
        {
            let [query, keys, values] =
                [&self.q_proj, &self.k_proj, &self.v_proj].map(|map| map.forward(x.clone()));
            let mixed = cache.attend_on_gpu(*layer, query, (keys, values), rotary.tables());
            return self.o_proj.add_to(to, mixed);
        }
        let [batch, tokens, _] = x.dims();
        let asked = to.dims()[1];
        let split = |x: Tensor<3>, heads: usize| {
            let [_, tokens, width] = x.dims();
            x.reshape([batch, tokens, heads, width / heads])
                .swap_dims(1, 2)
        };
        let turned = |x: Tensor<3>, heads: usize| rotary.apply(split(x, heads));
        let (q, k, v) = (&self.q_proj, &self.k_proj, &self.v_proj);
        let (query, keys, values) = if asked < tokens {
            let query = q.forward(last(x.clone(), asked));
            let [keys, values] = Projection::forward_each([k, v], &x)
                .unwrap_or_else(|| [k, v].map(|map| map.forward(x.clone())));
            (
                rotary.last(asked).apply(split(query, self.heads)),
                turned(keys, self.kv_heads),
                split(values, self.kv_heads),
            )
        } else if let Some([query, keys, values]) = Projection::forward_each([q, k, v], &x) {
            (
                turned(query, self.heads),
                turned(keys, self.kv_heads),
                split(values, self.kv_heads),
            )
        } else {
            // Each with what follows from it: gradients are added up in this order.
            (
                turned(q.forward(x.clone()), self.heads),
                turned(k.forward(x.clone()), self.kv_heads),
                split(v.forward(x), self.kv_heads),
            )
        };
        let mixed = attend_cached(query, keys, values, cache);
        let width = self.heads * mixed.dims()[3];
        let mixed = mixed.swap_dims(1, 2).reshape([batch, asked, width]);
        self.o_proj.add_to(to, mixed)
    }
}

/// Attention of new tokens over themselves and those in the cache, to which they are appended.
fn attend_cached(
    query: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    cache: Option<(&mut KvCache, usize)>,
) -> Tensor<4> {
    let Some((cache, layer)) = cache else {
        return attend_padded(query, keys, values, Reach::Causal, None);
    };
    if let Some(mixed) = cache.attend(layer, &query, &keys, &values) {
        return mixed;
    }
    let (keys, values) = cache.append(layer, keys, values);
    attend_padded(query, keys, values, Reach::Causal, cache.padding())
}
