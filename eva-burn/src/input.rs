//! Pictures to patches, as the published processor does it.

use burn::tensor::{Device, Tensor, TensorData};
use eva_core::Pixels;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::config::{ImageConfig, ModelConfig, VisionConfig};

/// Why a picture cannot be shown to the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The picture has no pixels, or fewer bytes than its size says.
    #[error("a picture of {width}x{height} pixels has {bytes} bytes of RGB, {expected} are needed")]
    Bytes {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes given.
        bytes: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// One side is more than 200 times the other, which the processor refuses.
    #[error(
        "a picture of {width}x{height} pixels is too narrow: the longer side may be 200 times the shorter"
    )]
    Narrow {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Resizing failed.
    #[error("cannot resize a picture of {width}x{height} pixels: {reason}")]
    Resize {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Why.
        reason: String,
    },
}

/// A picture's size in patches; both sides are multiples of the merge size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Patches from top to bottom.
    pub rows: usize,
    /// Patches from left to right.
    pub columns: usize,
}

impl Grid {
    /// Number of patches.
    #[must_use]
    pub fn patches(self) -> usize {
        self.rows * self.columns
    }

    /// Number of tokens the picture takes in a conversation.
    #[must_use]
    pub fn tokens(self, merge: usize) -> usize {
        self.patches() / (merge * merge)
    }
}

/// The size (height, width) a picture is resized to: multiples of `factor`, between `min_pixels`
/// and `max_pixels`, the aspect ratio kept as well as that allows (the processor's `smart_resize`).
#[must_use]
pub fn smart_resize(
    height: usize,
    width: usize,
    factor: usize,
    min_pixels: usize,
    max_pixels: usize,
) -> (usize, usize) {
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    let nearest = |side: f64| (side / f).round_ties_even() * f;
    let (mut out_h, mut out_w) = (nearest(h), nearest(w));
    if out_h * out_w > max_pixels as f64 {
        let beta = (h * w / max_pixels as f64).sqrt();
        out_h = f.max((h / beta / f).floor() * f);
        out_w = f.max((w / beta / f).floor() * f);
    } else if out_h * out_w < min_pixels as f64 {
        let beta = (min_pixels as f64 / (h * w)).sqrt();
        out_h = (h * beta / f).ceil() * f;
        out_w = (w * beta / f).ceil() * f;
    }
    (out_h.max(f) as usize, out_w.max(f) as usize)
}

/// The patches of several pictures, ready for the vision tower.
#[derive(Debug, Clone, Default)]
pub struct Patches {
    /// Flattened patches, one after the other, in merge-grouped order.
    values: Vec<f32>,
    /// Size of each picture.
    pub grids: Vec<Grid>,
}

impl Patches {
    /// Resizes (bicubic with antialiasing, as the published processor), normalises and cuts a
    /// picture.
    ///
    /// # Errors
    /// [`ImageError`] when the picture's bytes do not fit its size, or it cannot be resized.
    pub fn push(
        &mut self,
        image: &impl Pixels,
        images: &ImageConfig,
        vision: &VisionConfig,
    ) -> Result<(), ImageError> {
        let grid = grid(image, images, vision)?;
        let (width, height) = (
            grid.columns * vision.patch_size,
            grid.rows * vision.patch_size,
        );
        if (image.width() as usize, image.height() as usize) == (width, height) {
            self.cut(image.rgb(), grid, images, vision);
        } else {
            let target = resize(image, width as u32, height as u32)?;
            self.cut(target.buffer(), grid, images, vision);
        }
        self.grids.push(grid);
        Ok(())
    }

    /// Cuts a picture that has its final size. Order of patches: merged patches row by row, the
    /// patches inside each row by row; inside a patch: channel, frame, row, column.
    fn cut(&mut self, rgb: &[u8], grid: Grid, images: &ImageConfig, vision: &VisionConfig) {
        let side = vision.patch_size;
        let stride = grid.columns * side * 3;
        let mut scale = [[0.0f32; 256]; 3];
        for (channel, table) in scale.iter_mut().enumerate() {
            for (value, out) in table.iter_mut().enumerate() {
                *out = (value as f32 / 255.0 - images.mean[channel]) / images.std[channel];
            }
        }
        self.values.reserve(grid.patches() * vision.patch_values());
        for (row, column) in crate::rope::merged_order(grid, vision.spatial_merge_size) {
            for (channel, table) in scale.iter().enumerate() {
                let start = self.values.len();
                for y in 0..side {
                    let line = (row * side + y) * stride + column * side * 3 + channel;
                    self.values
                        .extend((0..side).map(|x| table[usize::from(rgb[line + x * 3])]));
                }
                let end = self.values.len();
                for _ in 1..vision.temporal_patch_size {
                    self.values.extend_from_within(start..end);
                }
            }
        }
    }

    /// Adds other pictures' patches after these.
    pub fn append(&mut self, other: &Self) {
        self.values.extend_from_slice(&other.values);
        self.grids.extend_from_slice(&other.grids);
    }

    /// The first pictures, and the others.
    #[must_use]
    pub fn split_at(&self, pictures: usize) -> (Self, Self) {
        let patches = |grids: &[Grid]| grids.iter().map(|grid| grid.patches()).sum::<usize>();
        let (before, after) = self.grids.split_at(pictures.min(self.grids.len()));
        let width = self.values.len() / patches(&self.grids).max(1);
        let middle = (patches(before) * width).min(self.values.len());
        let (first, others) = self.values.split_at(middle);
        let part = |values: &[f32], grids: &[Grid]| Self {
            values: values.to_vec(),
            grids: grids.to_vec(),
        };
        (part(first, before), part(others, after))
    }

    /// # Shapes
    /// - returned: `[patches, channels * frames * side * side]`
    pub(crate) fn tensor(&self, config: &ModelConfig, device: &Device) -> Tensor<2> {
        let width = config.vision.patch_values();
        let rows = self.values.len() / width;
        Tensor::from_data(TensorData::new(self.values.clone(), [rows, width]), device)
    }

    /// The flattened patches, one after the other.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Antialiased bicubic (a = -0.5), equal to Pillow's: rows are resized first and rounded to bytes
/// before columns are, which decides the result where values overshoot.
fn resize(image: &impl Pixels, width: u32, height: u32) -> Result<Image<'static>, ImageError> {
    let failed = |reason: String| ImageError::Resize {
        width: image.width(),
        height: image.height(),
        reason,
    };
    let source = ImageRef::new(image.width(), image.height(), image.rgb(), PixelType::U8x3)
        .map_err(|error| failed(error.to_string()))?;
    let mut rows = Image::new(width, image.height(), PixelType::U8x3);
    let mut target = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    let mut resizer = Resizer::new();
    resizer
        .resize(&source, &mut rows, &options)
        .map_err(|error| failed(error.to_string()))?;
    resizer
        .resize(&rows, &mut target, &options)
        .map_err(|error| failed(error.to_string()))?;
    Ok(target)
}

/// The size in patches that a picture will have.
///
/// # Errors
/// [`ImageError`] when the picture's bytes do not fit its size, or it is too narrow.
pub fn grid(
    image: &impl Pixels,
    images: &ImageConfig,
    vision: &VisionConfig,
) -> Result<Grid, ImageError> {
    let (width, height) = (image.width(), image.height());
    let expected = width as usize * height as usize * 3;
    if image.rgb().len() != expected || expected == 0 {
        return Err(ImageError::Bytes {
            width,
            height,
            bytes: image.rgb().len(),
            expected,
        });
    }
    if width.max(height) > 200 * width.min(height) {
        return Err(ImageError::Narrow { width, height });
    }
    let (h, w) = smart_resize(
        height as usize,
        width as usize,
        vision.merged_side(),
        images.min_pixels,
        images.max_pixels,
    );
    Ok(Grid {
        rows: h / vision.patch_size,
        columns: w / vision.patch_size,
    })
}
