//! Every tensor that a model is loaded from: [`parameters`].

use super::activation_bytes;
use crate::config::{ModelConfig, TextConfig, VisionConfig};
use crate::quantized::{Bits, scheme};
use crate::weights::Precision;

/// A tensor by the checkpoint's name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape in the checkpoint: a matrix is `[output, input]`.
    pub shape: Vec<usize>,
}

impl Parameter {
    /// How many numbers it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        let sides = self.shape.iter().map(|side| *side as u64);
        sides.fold(1, u64::saturating_mul)
    }

    /// Bytes that it takes in memory.
    #[must_use]
    pub fn bytes(&self, precision: Precision) -> u64 {
        match (scheme(&self.name, precision), self.shape.as_slice()) {
            (Some(bits), [rows, columns]) => {
                let scales = 2 * Bits::row_scales(*columns);
                (*rows as u64).saturating_mul((bits.row_bytes(*columns) + scales) as u64)
            }
            _ => self.count().saturating_mul(activation_bytes(precision)),
        }
    }
}

/// The tensors that a model of this configuration is loaded from.
#[must_use]
pub fn parameters(config: &ModelConfig) -> Vec<Parameter> {
    let mut list = List(Vec::new());
    list.vision(&config.vision);
    list.text(&config.text);
    if !config.tie_word_embeddings {
        let shape = [config.text.vocab_size, config.text.hidden_size];
        list.add("lm_head.weight", &shape);
    }
    list.0
}

struct List(Vec<Parameter>);

impl List {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.push(Parameter {
            name: name.to_owned(),
            shape: shape.to_vec(),
        });
    }

    /// A linear layer from `input` to `output` numbers.
    fn linear(&mut self, name: &str, [output, input]: [usize; 2], bias: bool) {
        self.add(&format!("{name}.weight"), &[output, input]);
        if bias {
            self.add(&format!("{name}.bias"), &[output]);
        }
    }

    fn vision(&mut self, config: &VisionConfig) {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let patch = [
            width,
            config.in_channels,
            config.temporal_patch_size,
            config.patch_size,
            config.patch_size,
        ];
        self.add("visual.patch_embed.proj.weight", &patch);
        for index in 0..config.depth {
            let name = |part: &str| format!("visual.blocks.{index}.{part}");
            self.add(&name("norm1.weight"), &[width]);
            self.add(&name("norm2.weight"), &[width]);
            self.linear(&name("attn.qkv"), [3 * width, width], true);
            self.linear(&name("attn.proj"), [width, width], true);
            self.linear(&name("mlp.gate_proj"), [inner, width], true);
            self.linear(&name("mlp.up_proj"), [inner, width], true);
            self.linear(&name("mlp.down_proj"), [width, inner], true);
        }
        let merged = width * config.spatial_merge_size.pow(2);
        self.add("visual.merger.ln_q.weight", &[width]);
        self.linear("visual.merger.mlp.0", [merged, merged], true);
        let out = [config.out_hidden_size, merged];
        self.linear("visual.merger.mlp.2", out, true);
    }

    fn text(&mut self, config: &TextConfig) {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let keys = config.num_key_value_heads * config.head_dim();
        let embeddings = [config.vocab_size, width];
        self.add("model.embed_tokens.weight", &embeddings);
        for index in 0..config.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{index}.{part}");
            self.add(&name("input_layernorm.weight"), &[width]);
            let second = name("post_attention_layernorm.weight");
            self.add(&second, &[width]);
            self.linear(&name("self_attn.q_proj"), [width, width], true);
            self.linear(&name("self_attn.k_proj"), [keys, width], true);
            self.linear(&name("self_attn.v_proj"), [keys, width], true);
            self.linear(&name("self_attn.o_proj"), [width, width], false);
            self.linear(&name("mlp.gate_proj"), [inner, width], false);
            self.linear(&name("mlp.up_proj"), [inner, width], false);
            self.linear(&name("mlp.down_proj"), [width, inner], false);
        }
        self.add("model.norm.weight", &[width]);
    }
}
