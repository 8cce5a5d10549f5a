//! `preprocessor_config.json`: [`ImageConfig`].

use std::path::Path;

use serde::Deserialize;

use super::keys::Keys;
use super::{CONFIG, ConfigError, UnknownKey, left, warned};

/// How pictures become patches: `preprocessor_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageConfig {
    /// Pictures below this many pixels are enlarged.
    pub min_pixels: usize,
    /// Pictures above this many pixels are reduced.
    pub max_pixels: usize,
    /// Mean of each channel after scaling to 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel after scaling to 0..1.
    pub std: [f32; 3],
}

impl Default for ImageConfig {
    /// The values of the published Qwen2.5-VL models.
    fn default() -> Self {
        Self {
            min_pixels: 56 * 56,
            max_pixels: 28 * 28 * 16384,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

const FILE: &str = "preprocessor_config.json";
/// Where transformers 5 keeps the parts of a processor together.
const NESTED_FILE: &str = "processor_config.json";

/// What `transformers` takes where a file does not say it: less than the published files do.
const DEFAULT_MAX_PIXELS: usize = 28 * 28 * 1280;

/// More than any model reads; a picture is enlarged to the least that a file asks for.
const MOST_PIXELS: usize = 1 << 28;

/// Processors that compute the same, but for the last digit of what they resize.
const PROCESSORS: [&str; 4] = [
    "Qwen2VLImageProcessor",
    "Qwen2VLImageProcessorFast",
    "Qwen2_5_VLImageProcessor",
    "Qwen2_5_VLImageProcessorFast",
];

#[derive(Deserialize)]
#[serde(untagged)]
enum Channels {
    All(f32),
    Each([f32; 3]),
}

impl Channels {
    fn each(self) -> [f32; 3] {
        match self {
            Self::All(value) => [value; 3],
            Self::Each(values) => values,
        }
    }
}

impl ImageConfig {
    /// Reads `preprocessor_config.json` in `dir`; without one, the `image_processor` of
    /// `processor_config.json`, and without that too, the published values. Where both files have
    /// one, the latter counts, as in `transformers`.
    ///
    /// The limits of size are read in all forms: `min_pixels` and `max_pixels`, on their own or in
    /// `size`, and `size.shortest_edge` and `size.longest_edge`. Where forms contradict each other,
    /// those on their own count.
    ///
    /// # Errors
    /// [`ConfigError`] when a file is there but is not valid, asks for another treatment than is
    /// computed here, or does not go with the `config.json` beside it.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        Ok(warned(Self::read(dir)?, dir))
    }

    pub(super) fn read(dir: &Path) -> Result<(Self, Vec<UnknownKey>), ConfigError> {
        let nested = dir.join(NESTED_FILE);
        if nested.exists()
            && let Some(mut keys) = Keys::read(&nested)?.object("image_processor")?
        {
            let config = Self::from_keys(&mut keys, dir)?;
            return Ok((config, left(NESTED_FILE, keys.unknown())));
        }
        let path = dir.join(FILE);
        if !path.exists() {
            return Ok((Self::default(), Vec::new()));
        }
        let mut keys = Keys::read(&path)?;
        let config = Self::from_keys(&mut keys, dir)?;
        Ok((config, left(FILE, keys.unknown())))
    }

    fn from_keys(keys: &mut Keys<'_>, dir: &Path) -> Result<Self, ConfigError> {
        let published = Self::default();
        let (min_pixels, max_pixels) = limits(keys)?;
        let mean: Option<Channels> = keys.optional("image_mean")?;
        let std: Option<Channels> = keys.optional("image_std")?;
        let config = Self {
            min_pixels: min_pixels.unwrap_or(published.min_pixels),
            max_pixels: max_pixels.unwrap_or(DEFAULT_MAX_PIXELS),
            mean: mean.map_or(published.mean, Channels::each),
            std: std.map_or(published.std, Channels::each),
        };
        let possible = config.min_pixels.max(1)..=MOST_PIXELS;
        if !possible.contains(&config.max_pixels) {
            let expected = "at least min_pixels, and at most 268435456";
            return Err(keys.unsupported("max_pixels", config.max_pixels, expected));
        }
        if config.mean.iter().any(|mean| !mean.is_finite()) {
            let values = config.mean.to_vec();
            return Err(keys.unsupported("image_mean", values, "three numbers"));
        }
        let usable = |std: &f32| std.is_finite() && *std > 0.0;
        if !config.std.iter().all(usable) {
            let values = config.std.to_vec();
            return Err(keys.unsupported("image_std", values, "three positive numbers"));
        }
        check_the_rest(keys)?;
        check_sides(keys, dir)?;
        Ok(config)
    }
}

/// The least and the most pixels, as far as they are given.
fn limits(keys: &mut Keys<'_>) -> Result<(Option<usize>, Option<usize>), ConfigError> {
    let least: Option<usize> = keys.optional("min_pixels")?;
    let most: Option<usize> = keys.optional("max_pixels")?;
    let Some(mut size) = keys.object("size")? else {
        return Ok((least, most));
    };
    let mut either = |outer: Option<usize>, names: [&'static str; 2]| {
        let mut inner = None;
        for name in names {
            let value: Option<usize> = size.optional(name)?;
            inner = inner.or(value);
        }
        if let (Some(inner), Some(outer)) = (inner, outer)
            && inner != outer
        {
            let [name, _] = names;
            tracing::warn!(
                inner,
                outer,
                "size.{name} is not what is given outside, which counts"
            );
        }
        Ok(outer.or(inner))
    };
    let found = (
        either(least, ["shortest_edge", "min_pixels"])?,
        either(most, ["longest_edge", "max_pixels"])?,
    );
    size.nothing_else("only shortest_edge and longest_edge, in pixels")?;
    Ok(found)
}

/// What has one value that can be computed, and what makes no difference.
fn check_the_rest(keys: &mut Keys<'_>) -> Result<(), ConfigError> {
    for key in ["do_resize", "do_rescale", "do_normalize"] {
        keys.check(key, "true", |value| *value == true)?;
    }
    for key in ["do_center_crop", "do_pad"] {
        keys.check(key, "false", |value| *value == false)?;
    }
    keys.check("resample", "3 (bicubic)", |value| *value == 3)?;
    let expected = "1/255, which scales bytes to 0..1";
    keys.check_number("rescale_factor", expected, 1.0 / 255.0)?;
    for key in ["image_processor_type", "feature_extractor_type"] {
        keys.check(key, "\"Qwen2VLImageProcessor\"", |kind| {
            PROCESSORS.iter().any(|known| kind == known)
        })?;
    }
    // Of the form of what comes in and goes out, and of videos, which are never sent as such.
    keys.harmless(&[
        "_processor_class",
        "_valid_processor_keys",
        "crop_size",
        "data_format",
        "default_to_square",
        "device",
        "disable_grouping",
        "do_convert_rgb",
        "do_sample_frames",
        "fps",
        "input_data_format",
        "max_frames",
        "min_frames",
        "model_input_names",
        "num_frames",
        "pad_size",
        "processor_class",
        "return_tensors",
        "video_metadata",
        "video_processor_type",
    ]);
    Ok(())
}

/// The sides of patches are said here and in `config.json`.
fn check_sides(keys: &mut Keys<'_>, dir: &Path) -> Result<(), ConfigError> {
    let path = dir.join(CONFIG);
    let vision = if path.exists() {
        Keys::read(&path)?.object("vision_config")?
    } else {
        None
    };
    let mut vision = vision.unwrap_or_else(|| Keys::new(&path, serde_json::Map::new()));
    for (own, other, default, expected) in [
        (
            "patch_size",
            "patch_size",
            14,
            "vision_config.patch_size of config.json",
        ),
        (
            "temporal_patch_size",
            "temporal_patch_size",
            2,
            "vision_config.temporal_patch_size of config.json",
        ),
        (
            "merge_size",
            "spatial_merge_size",
            2,
            "vision_config.spatial_merge_size of config.json",
        ),
    ] {
        let side: usize = vision.optional(other)?.unwrap_or(default);
        // What the file leaves out is the default there, and has to be the same too.
        let given: usize = keys.optional(own)?.unwrap_or(default);
        if given != side {
            return Err(keys.unsupported(own, given, expected));
        }
    }
    Ok(())
}
