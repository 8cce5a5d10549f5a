//! A plain picture in memory: [`RgbImage`].

use alloc::vec::Vec;

use crate::Pixels;

/// An 8-bit RGB picture that owns its bytes.
///
/// ```
/// use eva_core::{Pixels, RgbImage};
///
/// let image = RgbImage::new(2, 1, vec![255, 0, 0, 0, 0, 255])?; // a red and a blue pixel
/// assert_eq!((image.width(), &image.rgb()[3..]), (2, &[0, 0, 255][..]));
/// # Ok::<(), eva_core::WrongLength>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Stored"))]
pub struct RgbImage {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

/// A picture as it is stored, its length not yet checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Stored {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

#[cfg(feature = "serde")]
impl TryFrom<Stored> for RgbImage {
    type Error = WrongLength;

    fn try_from(stored: Stored) -> Result<Self, WrongLength> {
        Self::new(stored.width, stored.height, stored.rgb)
    }
}

/// [`RgbImage::new`] was given bytes that do not fit the picture's size.
///
/// ```
/// use eva_core::RgbImage;
///
/// let error = RgbImage::new(2, 2, vec![0; 11]).unwrap_err();
/// assert_eq!(error.given, 11);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an RGB picture of {width} x {height} pixels needs {width} * {height} * 3 bytes but was given \
     {given}: pass rows of 3 bytes a pixel without padding"
)]
pub struct WrongLength {
    /// Width in pixels that was asked for.
    pub width: u32,
    /// Height in pixels that was asked for.
    pub height: u32,
    /// Number of bytes that came.
    pub given: usize,
}

impl RgbImage {
    /// A picture of `width` x `height` pixels: rows from the top, R G B, no padding.
    ///
    /// # Errors
    /// [`WrongLength`] when `rgb` does not hold exactly `width * height * 3` bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, WrongLength> {
        // Three u32-sized factors always fit 128 bits.
        if u128::from(width) * u128::from(height) * 3 != rgb.len() as u128 {
            return Err(WrongLength {
                width,
                height,
                given: rgb.len(),
            });
        }
        Ok(Self { width, height, rgb })
    }

    /// The bytes, without a copy.
    #[must_use]
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }
}

impl Pixels for RgbImage {
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

/// Prints the size, not the thousands of bytes.
impl core::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "RgbImage({} x {})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    #[test]
    fn keeps_bytes_of_the_right_length() {
        let image = RgbImage::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(
            (image.width(), image.height(), image.rgb()),
            (2, 1, [1, 2, 3, 4, 5, 6].as_slice())
        );
        assert_eq!(image.into_rgb(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn refuses_bytes_of_another_length_even_when_the_product_is_huge() {
        let error = RgbImage::new(2, 2, vec![0; 11]).unwrap_err();
        assert!(error.to_string().contains("2 x 2"), "{error}");
        assert!(error.to_string().contains("11"), "{error}");
        assert!(RgbImage::new(u32::MAX, u32::MAX, vec![0; 3]).is_err());
    }
}
