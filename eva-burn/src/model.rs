//! The whole model: pictures and tokens in, scores of the next token out.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::cache::KvCache;
use crate::config::ModelConfig;
use crate::input::Patches;
use crate::projection::{Embedding, Projection};
use crate::rope::{Position, text_rotary};
use crate::text::{States, TextModel};
use crate::threads::awake;
use crate::vision::VisionTower;
use crate::weights::{Precision, Weights, WeightsError};

/// Up to this many tokens, each product takes so little time that waking threads for it counts.
const FEW: usize = 12;

/// The hidden size from which several threads share a product of one token, and only the last one's state is computed
/// where no other is asked for.
const WIDE: usize = 512;

/// Qwen2.5-VL; the module paths are the checkpoint's names.
#[derive(Module, Debug)]
pub struct Qwen25Vl {
    pub(crate) visual: VisionTower,
    pub(crate) model: TextModel,
    lm_head: Option<Projection>,
}

impl Qwen25Vl {
    /// Loads the weights of a Hugging Face directory.
    ///
    /// # Errors
    /// [`WeightsError`] names the tensor or the file.
    pub fn load(config: &ModelConfig, dir: &Path, device: &Device) -> Result<Self, WeightsError> {
        Self::load_as(config, dir, device, Precision::F32)
    }

    /// As [`load`](Self::load), with the weights in another precision. On a GPU, and for training, `f16` and
    /// `bf16` are that of activations too; norms and softmax are computed in `f32` all the same. What keys and values
    /// are kept in says [`kv_bytes_per_token`](crate::kv_bytes_per_token).
    ///
    /// # Errors
    /// [`WeightsError`] names the tensor or the file.
    pub fn load_as(
        config: &ModelConfig,
        dir: &Path,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, WeightsError> {
        Self::build(config, Weights::open(dir, device, precision)?)
    }

    /// Random weights, for training from nothing.
    #[must_use]
    pub fn random(config: &ModelConfig, seed: u64, device: &Device) -> Option<Self> {
        Self::build(config, Weights::random(seed, device)).ok()
    }

    fn build(config: &ModelConfig, mut weights: Weights) -> Result<Self, WeightsError> {
        let weights = &mut weights;
        let (width, vocab) = (config.text.hidden_size, config.text.vocab_size);
        Ok(Self {
            visual: VisionTower::new(weights, &config.vision)?,
            model: TextModel::new(weights, &config.text)?,
            lm_head: if config.tie_word_embeddings {
                None
            } else {
                Some(weights.linear("lm_head", width, vocab, false)?)
            },
        })
    }

    /// The device its weights are on.
    pub(crate) fn device(&self) -> Device {
        self.model.norm.device()
    }

    /// The same model, computed alike, on its device without gradients.
    #[must_use]
    pub fn without_gradients(&self) -> Self {
        self.valid()
    }

    /// The number type that it computes in.
    pub(crate) fn precision(&self) -> Precision {
        match self.model.norm.dtype() {
            DType::F16 => Precision::F16,
            DType::BF16 => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// The number type that keys and values are kept in: that of the activations, but beside packed weights one of
    /// 16 bits, where the device has it. Beside `bf16` that is `bf16`, with its range, as on a GPU; beside integers
    /// `f16`, which rounds far less than the weights were.
    pub(crate) fn kv_dtype(&self) -> DType {
        let packed = self.model.embed_tokens.kv_dtype();
        let packed = packed.filter(|dtype| self.device().supports_dtype(*dtype));
        packed.unwrap_or_else(|| self.model.norm.dtype())
    }

    /// Reads `tokens` tokens, by `read`. Few of them a large model on the CPU reads with threads kept [`awake`].
    pub(crate) fn reading<R: Send>(&self, tokens: usize, read: impl FnOnce() -> R + Send) -> R {
        let on_cpu = self.device() == Device::flex();
        if on_cpu && tokens <= FEW && self.model.norm.width() >= WIDE {
            awake(read)
        } else {
            read()
        }
    }

    /// The input embeddings, `[vocab, hidden]`.
    pub(crate) fn embeddings(&self) -> &Embedding {
        &self.model.embed_tokens
    }

    /// Whether its weights are packed in fewer bits than they are multiplied in (`int8` and `int4`; on
    /// the CPU `f16` and `bf16` too): such a model is for inference alone, and can't be saved.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        !matches!(self.model.embed_tokens, Embedding::Dense(_))
    }

    /// Features of pictures' merged patches.
    ///
    /// # Shapes
    /// - returned: `[merged patches of all pictures, hidden]`
    #[must_use]
    pub fn see(&self, patches: &Patches, config: &ModelConfig, device: &Device) -> Tensor<2> {
        self.visual.forward(
            patches.tensor(config, device),
            &patches.grids,
            &config.vision,
        )
    }

    /// Embeddings of a batch of token sequences of one length, with pictures in their places.
    ///
    /// - tokens: `batch` sequences; every `image_token_id` takes the next row of `features`
    ///
    /// # Shapes
    /// - features: `[merged patches, hidden]`
    /// - returned: `[batch, tokens, hidden]`
    #[must_use]
    pub fn embed(
        &self,
        tokens: &[&[u32]],
        features: Option<Tensor<2>>,
        config: &ModelConfig,
    ) -> Tensor<3> {
        let device = self.device();
        let ids: Vec<u32> = tokens.concat();
        let words = self.model.embed_tokens.rows(&ids, &device);
        let [count, width] = words.dims();
        let length = count / tokens.len().max(1);
        let Some(features) = features else {
            return words.reshape([tokens.len(), length, width]);
        };
        let available = features.dims()[0];
        let mut seen = 0;
        let places: Vec<i32> = ids
            .iter()
            .enumerate()
            .map(|(place, token)| {
                if *token == config.image_token_id && seen < available {
                    seen += 1;
                    (count + seen - 1) as i32
                } else {
                    place as i32
                }
            })
            .collect();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &device);
        // One gather over words and pictures together.
        Tensor::cat(vec![words, features], 0)
            .select(0, places)
            .reshape([tokens.len(), length, width])
    }

    /// Final hidden states of new tokens, which follow those in the cache.
    ///
    /// # Shapes
    /// - embeddings: `[batch, new, hidden]`
    /// - positions: `batch` sequences of `new` places
    /// - returned: `[batch, asked, hidden]`: new tokens up to the last, which with [`States::Last`] is alone, or
    ///   behind others where leaving those out saves little
    pub(crate) fn decode(
        &self,
        embeddings: Tensor<3>,
        positions: &[&[Position]],
        config: &ModelConfig,
        cache: Option<&mut KvCache>,
        states: States,
    ) -> Tensor<3> {
        let rotary = text_rotary(positions, &config.text, &embeddings.device());
        // One token alone is rounded otherwise than among others. A small model's rollouts, of which training is to
        // come out the same to the bit each time, stay what they were.
        let small = self.model.norm.width() < WIDE;
        let states = if small { States::All } else { states };
        self.model.forward(embeddings, &rotary, cache, states)
    }

    /// The vision tower's hidden states before its merger: the embedded patches, then each block's
    /// output, in the order of the patches.
    ///
    /// # Shapes
    /// - each: `[patches, vision hidden]`
    #[must_use]
    pub fn vision_states(
        &self,
        patches: &Patches,
        config: &ModelConfig,
        device: &Device,
    ) -> Vec<Tensor<2>> {
        let mut states = Vec::new();
        let input = patches.tensor(config, device);
        self.visual
            .hidden(input, &patches.grids, &config.vision, |_, state| {
                states.push(state.clone())
            });
        states
    }

    /// Scores of the next token.
    ///
    /// # Shapes
    /// - hidden: `[rows, hidden]`
    /// - returned: `[rows, vocab]`
    #[must_use]
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => self.model.embed_tokens.scores(hidden),
        }
    }
}
