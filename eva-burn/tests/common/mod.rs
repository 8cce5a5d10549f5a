//! Reference values of `transformers`, and how they are compared with ours.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod small;

use std::path::Path;

use eva_burn::ModelConfig;
use eva_burn::config::ImageConfig;
use eva_burn::context::Picture;
use eva_burn::input::Patches;
use eva_core::Pixels;
use safetensors::{Dtype, SafeTensors};

/// The GPU to test: `EVA_DEVICE` (`wgpu`, `vulkan`, `metal`, `cuda`), or the first that is compiled in.
/// Without a GPU, `wgpu` is Mesa's lavapipe.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub fn gpu() -> eva_burn::Device {
    let first = if cfg!(feature = "wgpu") {
        "wgpu"
    } else {
        "cuda"
    };
    let name = std::env::var("EVA_DEVICE").unwrap_or_else(|_| first.to_owned());
    let choice: eva_burn::DeviceChoice = name.parse().unwrap();
    choice.open().unwrap()
}

/// Whether a device is the CUDA GPU to test: there Burn rounds what products multiply to 10 bits (TF32).
pub fn on_cuda(device: &eva_burn::Device) -> bool {
    let cuda = std::env::var("EVA_DEVICE").is_ok_and(|name| name.starts_with("cuda"));
    cuda && *device != eva_burn::Device::flex()
}

/// What numbers in f32 may be off by, of the largest one; up to 3.0e-3 was measured on CUDA, 5e-6 elsewhere.
pub fn tolerance(device: &eva_burn::Device) -> f32 {
    if on_cuda(device) { 4e-3 } else { 2e-3 }
}

/// Tensors that `transformers` computed.
pub struct Reference(Vec<u8>);

impl Reference {
    /// `reference.safetensors` in `dir`.
    pub fn load(dir: &Path) -> Self {
        Self(std::fs::read(dir.join("reference.safetensors")).unwrap())
    }
    pub fn all(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.all().tensor(name).unwrap().shape().to_vec()
    }
    pub fn f32(&self, name: &str) -> Vec<f32> {
        let all = self.all();
        let view = all.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        view.data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect()
    }
    pub fn i64(&self, name: &str) -> Vec<i64> {
        let all = self.all();
        let view = all.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        view.data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b))
            .collect()
    }
    pub fn image(&self, name: &str) -> Image {
        let all = self.all();
        let view = all.tensor(name).unwrap();
        let [height, width, 3] = *view.shape() else {
            panic!("{name} is not an RGB image")
        };
        Image {
            width: width as u32,
            height: height as u32,
            rgb: view.data().to_vec(),
        }
    }
    pub fn images(&self) -> Vec<Image> {
        let mut images = Vec::new();
        while self
            .all()
            .tensor(&format!("image_{}_rgb_u8", images.len()))
            .is_ok()
        {
            images.push(self.image(&format!("image_{}_rgb_u8", images.len())));
        }
        images
    }
    pub fn tokens(&self) -> Vec<u32> {
        self.i64("input_ids").iter().map(|id| *id as u32).collect()
    }
}

pub struct Image {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Pixels for Image {
    fn width(&self) -> u32 {
        self.width
    }
    fn height(&self) -> u32 {
        self.height
    }
    fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

pub fn pictures(reference: &Reference, config: &ModelConfig, images: &ImageConfig) -> Vec<Picture> {
    let pictures = reference
        .images()
        .into_iter()
        .enumerate()
        .map(|(hash, image)| {
            let mut patches = Patches::default();
            patches.push(&image, images, &config.vision).unwrap();
            Picture {
                patches,
                hash: hash as u64,
            }
        });
    pictures.collect()
}

pub fn all_patches(pictures: &[Picture]) -> Patches {
    let mut all = Patches::default();
    for picture in pictures {
        all.append(&picture.patches);
    }
    all
}

/// The largest difference, relative to the reference's largest value.
pub fn assert_close(name: &str, ours: &[f32], reference: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), reference.len(), "{name}: number of values");
    let scale = reference
        .iter()
        .fold(0.0f32, |max, value| max.max(value.abs()));
    let difference = ours
        .iter()
        .zip(reference)
        .fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
    println!("{name}: largest difference {difference:e}, largest value {scale:e}");
    assert!(
        difference <= tolerance * scale,
        "{name}: off by {difference} of {scale}"
    );
    assert!(
        ours.iter().all(|value| value.is_finite()),
        "{name}: not finite"
    );
}

pub fn argmax(scores: &[f32]) -> u32 {
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}
