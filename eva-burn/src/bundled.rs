//! The bundled model, eva-tiny: a whole model directory inside the program.
//!
//! It is in Hugging Face's layout and is loaded like any other; `assets/eva-tiny/README.md` says how
//! it was trained and what it can do.

use std::io;
use std::path::Path;

use burn::tensor::Device;

use crate::policy::{BurnPolicy, LoadError};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../assets/eva-tiny/", $name)).as_slice())),*]
    };
}

/// The files of the model directory.
const FILES: [(&str, &[u8]); 7] = files![
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Writes the model directory to `dir`, which must exist: a small model to start from, or to look at.
///
/// # Errors
/// When a file cannot be written.
pub fn unpack(dir: &Path) -> io::Result<()> {
    FILES
        .iter()
        .try_for_each(|(name, content)| std::fs::write(dir.join(name), content))
}

impl BurnPolicy {
    /// Loads eva-tiny, the model that comes with this crate. It knows the videos of the synthetic
    /// world (`eva::world`) and nothing else.
    ///
    /// # Errors
    /// [`LoadError::Unpack`] when there is no room for 5 MB of temporary files, which are removed
    /// again at once.
    pub fn tiny(device: &Device) -> Result<Self, LoadError> {
        let dir = tempfile::tempdir()?;
        unpack(dir.path())?;
        Self::load(dir.path(), device)
    }
}
