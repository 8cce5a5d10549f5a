//! [`Features`]: what the vision tower made of recent pictures.

use std::collections::VecDeque;

use burn::tensor::{Device, Int, Tensor};

use crate::config::ModelConfig;
use crate::context::Mark;
use crate::input::{ImageError, Patches};
use crate::model::Qwen25Vl;

/// Features of recent pictures, so that a picture is computed once even where what precedes it in the
/// conversation changed, or where it is shown again.
#[derive(Debug)]
pub(crate) struct Features {
    /// The least recently used first.
    kept: VecDeque<(Mark, Tensor<2>)>,
    bytes: u64,
    limit: u64,
}

impl Features {
    /// - limit: bytes that it keeps at most
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            kept: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    /// The features of some pictures, one after the other; `cut` gives the patches of one by its
    /// place.
    ///
    /// # Shapes
    /// - returned: `[merged patches of all, hidden]`; `None` without pictures
    pub(crate) fn see(
        &mut self,
        pictures: &[Mark],
        mut cut: impl FnMut(usize) -> Result<Patches, ImageError>,
        model: &Qwen25Vl,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Option<Tensor<2>>, ImageError> {
        let mut missing: Vec<Mark> = Vec::new();
        let mut patches = Patches::default();
        let mut known: Vec<(Mark, Tensor<2>)> = Vec::new();
        for (place, picture) in pictures.iter().enumerate() {
            if missing.contains(picture) || known.iter().any(|(mark, _)| mark == picture) {
                continue;
            }
            if let Some(features) = self.find(picture) {
                known.push((*picture, features));
            } else {
                patches.append(&cut(place)?);
                missing.push(*picture);
            }
        }
        if !missing.is_empty() {
            let seen = model.see(&patches, config, device);
            if missing == pictures && self.limit == 0 {
                return Ok(Some(seen));
            }
            if missing == pictures {
                self.keep_rows(&missing, &seen, config);
                return Ok(Some(seen));
            }
            known.extend(self.keep_rows(&missing, &seen, config));
        }
        let rows = pictures.iter().filter_map(|picture| {
            let same = known.iter().find(|(mark, _)| mark == picture);
            same.map(|(_, features)| features.clone())
        });
        let rows: Vec<Tensor<2>> = rows.collect();
        Ok((!rows.is_empty()).then(|| Tensor::cat(rows, 0)))
    }

    fn find(&mut self, picture: &Mark) -> Option<Tensor<2>> {
        let at = self.kept.iter().position(|(mark, _)| mark == picture)?;
        let entry = self.kept.remove(at)?;
        let features = entry.1.clone();
        self.kept.push_back(entry);
        Some(features)
    }

    /// Divides features among their pictures, and keeps as many as it may.
    fn keep_rows(
        &mut self,
        pictures: &[Mark],
        seen: &Tensor<2>,
        config: &ModelConfig,
    ) -> Vec<(Mark, Tensor<2>)> {
        let mut start = 0;
        let mut parts = Vec::with_capacity(pictures.len());
        for picture in pictures {
            let end = start + picture.tokens(config);
            // Rows of their own: a view would keep those of all the others alive.
            let rows = Tensor::<1, Int>::arange(start as i64..end as i64, &seen.device());
            let part = (*picture, seen.clone().select(0, rows));
            self.keep(part.clone());
            parts.push(part);
            start = end;
        }
        parts
    }

    fn keep(&mut self, entry: (Mark, Tensor<2>)) {
        let bytes = bytes(&entry.1);
        if bytes > self.limit {
            return;
        }
        while self.bytes + bytes > self.limit {
            let Some((_, oldest)) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= self::bytes(&oldest);
        }
        self.bytes += bytes;
        self.kept.push_back(entry);
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }
}

fn bytes(features: &Tensor<2>) -> u64 {
    let [rows, width] = features.dims();
    (rows * width * features.dtype().size()) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::config::ImageConfig;
    use eva_core::RgbImage;

    /// The bundled model's shape, with random weights.
    fn model() -> (Qwen25Vl, ModelConfig) {
        let dir = tempfile::tempdir().unwrap();
        crate::bundled::unpack(dir.path()).unwrap();
        let config = ModelConfig::load(dir.path()).unwrap();
        let model = Qwen25Vl::random(&config, 1, &Device::flex()).unwrap();
        (model, config)
    }

    fn cut(shade: u8, config: &ModelConfig) -> Patches {
        let width = 56 + 28 * u32::from(shade % 3);
        let rgb = (0..width * 56 * 3).map(|index| shade.wrapping_mul(41) ^ index as u8);
        let image = RgbImage::new(width, 56, rgb.collect()).unwrap();
        let mut patches = Patches::default();
        patches
            .push(&image, &ImageConfig::default(), &config.vision)
            .unwrap();
        patches
    }

    fn mark(shade: u8, config: &ModelConfig) -> Mark {
        Mark {
            hash: u64::from(shade),
            grid: cut(shade, config).grids.first().copied(),
        }
    }

    /// What is returned for pictures of some shades, and which of them were computed.
    fn see(
        features: &mut Features,
        shades: &[u8],
        (model, config): &(Qwen25Vl, ModelConfig),
    ) -> (Vec<f32>, Vec<u8>) {
        let marks: Vec<Mark> = shades.iter().map(|shade| mark(*shade, config)).collect();
        let mut computed = Vec::new();
        let look = |place: usize| {
            computed.push(shades[place]);
            Ok(cut(shades[place], config))
        };
        let seen = features.see(&marks, look, model, config, &Device::flex());
        let seen = seen.unwrap().unwrap();
        (seen.try_into_vec_as().unwrap(), computed)
    }

    #[test]
    fn a_picture_is_computed_once_whatever_stands_around_it() {
        let model = model();
        let mut features = Features::new(1 << 20);
        let (first, computed) = see(&mut features, &[1, 2], &model);
        assert_eq!(computed, [1, 2]);
        let (mixed, computed) = see(&mut features, &[3, 2, 2, 4, 1, 4], &model);
        assert_eq!(computed, [3, 4], "known ones are not cut, new ones once");
        let (fresh, _) = see(&mut Features::new(0), &[3, 2, 2, 4, 1, 4], &model);
        assert_eq!(mixed.len(), fresh.len());
        for (kept, fresh) in mixed.iter().zip(&fresh) {
            assert!((kept - fresh).abs() < 1e-4, "{kept} against {fresh}");
        }
        let (again, computed) = see(&mut features, &[1, 2], &model);
        assert_eq!((again, computed.len()), (first, 0));
    }

    #[test]
    fn no_more_bytes_are_kept_than_allowed_and_the_oldest_go_first() {
        let model = model();
        let tokens = |shade| mark(shade, &model.1).tokens(&model.1);
        let row = 4 * model.1.text.hidden_size;
        // Room for two of the pictures.
        let mut features = Features::new(((tokens(1) + tokens(4)) * row) as u64);
        see(&mut features, &[1], &model);
        see(&mut features, &[4], &model);
        assert!(see(&mut features, &[1, 4], &model).1.is_empty());
        see(&mut features, &[1], &model);
        assert_eq!(see(&mut features, &[7], &model).1, [7]);
        assert!(features.bytes <= features.limit);
        let again = see(&mut features, &[1], &model).1;
        assert!(again.is_empty(), "used last before 7");
        assert_eq!(see(&mut features, &[4], &model).1, [4]);

        let mut none = Features::new(0);
        assert_eq!(see(&mut none, &[1], &model).1, [1]);
        assert_eq!(see(&mut none, &[1], &model).1, [1]);
        assert_eq!(none.bytes, 0);
    }
}
