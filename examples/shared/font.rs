//! The font of the charts: a server has none.

use epaint_default_fonts::UBUNTU_LIGHT;
use plotters::style::{FontStyle, register_font};

use crate::Failure;

/// Makes `sans-serif` a font that this program brings.
pub(crate) fn register() -> Result<(), Failure> {
    register_font("sans-serif", FontStyle::Normal, UBUNTU_LIGHT)
        .map_err(|_| "the font of the charts is damaged".into())
}
