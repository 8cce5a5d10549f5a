//! Pictures as addresses: [`ImageUrls`].

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eva_core::{Message, Part, Pixels};
use reqwest::Url;
use xxhash_rust::xxh3::Xxh3;

use super::{Images, OpenAiError};

/// Makes the addresses of pictures, `data:` or `file:`.
///
/// A conversation is sent whole each turn, so the pictures of the last one stay encoded, by their
/// content. Those that the next one does not have are dropped: what is kept is never more than what
/// a request holds.
#[derive(Clone)]
pub(super) struct ImageUrls {
    images: Images,
    kept: HashMap<u128, Arc<str>>,
}

impl ImageUrls {
    pub(super) fn new(images: Images) -> Result<Self, OpenAiError> {
        let images = match images {
            Images::Files(folder) => {
                Images::Files(existing(&folder).map_err(|error| OpenAiError::ImageFile {
                    path: folder,
                    error,
                })?)
            }
            images => images,
        };
        Ok(Self {
            images,
            kept: HashMap::new(),
        })
    }

    /// The addresses of all pictures of `conversation`, in order.
    pub(super) fn of<P: Pixels>(
        &mut self,
        conversation: &[Message<'_, P>],
    ) -> Result<Vec<Arc<str>>, OpenAiError> {
        let mut used = HashMap::new();
        let urls = self.look_up(conversation, &mut used)?;
        self.kept = used;
        Ok(urls)
    }

    /// The same for several conversations; pictures of all of them are kept for their next turns.
    pub(super) fn of_all<'a, P: Pixels + 'a>(
        &mut self,
        conversations: impl Iterator<Item = &'a [Message<'a, P>]>,
    ) -> Vec<Result<Vec<Arc<str>>, OpenAiError>> {
        let mut used = HashMap::new();
        let urls = conversations
            .map(|conversation| self.look_up(conversation, &mut used))
            .collect();
        self.kept = used;
        urls
    }

    fn look_up<P: Pixels>(
        &self,
        conversation: &[Message<'_, P>],
        used: &mut HashMap<u128, Arc<str>>,
    ) -> Result<Vec<Arc<str>>, OpenAiError> {
        let parts = conversation.iter().flat_map(|message| message.parts);
        let mut urls = Vec::new();
        for part in parts {
            let Part::Image(picture) = part else { continue };
            let content = hash(*picture);
            let known = used.get(&content).or_else(|| self.kept.get(&content));
            let url = match known {
                Some(url) => Arc::clone(url),
                None => Arc::from(self.url(*picture, content)?),
            };
            used.insert(content, Arc::clone(&url));
            urls.push(url);
        }
        Ok(urls)
    }

    fn url<P: Pixels>(&self, picture: &P, content: u128) -> Result<String, OpenAiError> {
        match &self.images {
            Images::Files(folder) => {
                let path = folder.join(format!("{content:032x}.png"));
                // It may be there from an earlier run, or from another worker.
                if !path.exists() {
                    let written = write(&path, &encoded(picture, png(picture))?);
                    written.map_err(|error| OpenAiError::ImageFile {
                        path: path.clone(),
                        error,
                    })?;
                }
                file_url(path)
            }
            Images::Jpeg { quality } => Ok(data_url(
                "jpeg",
                &encoded(picture, jpeg(picture, *quality))?,
            )),
            Images::Png => Ok(data_url("png", &encoded(picture, png(picture))?)),
        }
    }
}

/// The folder, made if need be, from the root.
fn existing(folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    fs::canonicalize(folder)
}

fn hash<P: Pixels>(picture: &P) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&picture.width().to_le_bytes());
    hash.update(&picture.height().to_le_bytes());
    hash.update(picture.rgb());
    hash.digest128()
}

fn data_url(kind: &str, bytes: &[u8]) -> String {
    let mut url = format!("data:image/{kind};base64,");
    STANDARD.encode_string(bytes, &mut url);
    url
}

fn file_url(path: PathBuf) -> Result<String, OpenAiError> {
    match Url::from_file_path(&path) {
        Ok(url) => Ok(url.into()),
        Err(()) => Err(OpenAiError::ImageFile {
            path,
            error: io::Error::other("it has no address"),
        }),
    }
}

/// Under its own name only when it is whole: a server, or another worker, may look at any moment.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let new = path.with_extension(format!("{}-{number}.new", std::process::id()));
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What is left of it is of no use.
        _ = fs::remove_file(&new);
    }
    written
}

/// The bytes, or an error that says which picture.
fn encoded<P: Pixels>(picture: &P, bytes: Result<Vec<u8>, String>) -> Result<Vec<u8>, OpenAiError> {
    bytes.map_err(|why| OpenAiError::Image {
        width: picture.width(),
        height: picture.height(),
        why,
    })
}

/// The rows of a picture, if there are as many bytes as its size asks for.
fn rows<P: Pixels>(picture: &P) -> Result<&[u8], String> {
    let rgb = picture.rgb();
    let needed = u128::from(picture.width()) * u128::from(picture.height()) * 3;
    if needed == 0 || rgb.len() as u128 != needed {
        return Err(format!(
            "it has {} bytes where {needed} are needed",
            rgb.len()
        ));
    }
    Ok(rgb)
}

fn png<P: Pixels>(picture: &P) -> Result<Vec<u8>, String> {
    let rgb = rows(picture)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // The request is read once: time counts for more than size.
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(|error| error.to_string())?;
    writer
        .write_image_data(rgb)
        .map_err(|error| error.to_string())?;
    writer.finish().map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn jpeg<P: Pixels>(picture: &P, quality: u8) -> Result<Vec<u8>, String> {
    let rgb = rows(picture)?;
    let side = |side: u32| u16::try_from(side).map_err(|_| "JPEG holds 65535 pixels a side");
    let (width, height) = (side(picture.width())?, side(picture.height())?);
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, quality.clamp(1, 100))
        .encode(rgb, width, height, jpeg_encoder::ColorType::Rgb)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use eva_core::{RgbImage, Role};

    /// A picture whose pixels all differ.
    fn picture(width: u32, height: u32, first: u8) -> RgbImage {
        let bytes = (0..width * height * 3).map(|i| first.wrapping_add(i as u8));
        RgbImage::new(width, height, bytes.collect()).unwrap()
    }

    fn urls(images: &mut ImageUrls, pictures: &[RgbImage]) -> Result<Vec<Arc<str>>, OpenAiError> {
        let parts: Vec<Part<'_, RgbImage>> = pictures.iter().map(Part::Image).collect();
        images.of(&[Message {
            role: Role::Tool,
            parts: &parts,
        }])
    }

    fn bytes(url: &str, kind: &str) -> Vec<u8> {
        let start = format!("data:image/{kind};base64,");
        STANDARD.decode(url.strip_prefix(&start).unwrap()).unwrap()
    }

    fn read_png(bytes: &[u8]) -> RgbImage {
        let mut reader = png::Decoder::new(io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        RgbImage::new(info.width, info.height, rgb).unwrap()
    }

    #[test]
    fn a_png_holds_the_exact_pixels() {
        let mut images = ImageUrls::new(Images::Png).unwrap();
        let pictures = [picture(28, 56, 3), picture(1, 1, 9)];
        let urls = urls(&mut images, &pictures).unwrap();
        for (url, picture) in urls.iter().zip(pictures) {
            assert_eq!(read_png(&bytes(url, "png")), picture);
        }
    }

    #[test]
    fn a_jpeg_is_one_and_its_quality_counts() {
        let size = |quality| {
            let mut images = ImageUrls::new(Images::Jpeg { quality }).unwrap();
            let urls = urls(&mut images, &[picture(56, 28, 0)]).unwrap();
            let bytes = bytes(&urls[0], "jpeg");
            assert!(bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]));
            bytes.len()
        };
        assert!(size(10) < size(95));
    }

    #[test]
    fn pictures_of_the_last_conversation_stay_encoded_and_others_go() {
        let mut images = ImageUrls::new(Images::Png).unwrap();
        let (a, b) = (picture(28, 28, 0), picture(28, 28, 1));
        let first = urls(&mut images, &[a.clone(), a.clone()]).unwrap();
        assert!(Arc::ptr_eq(&first[0], &first[1]));
        let second = urls(&mut images, &[a.clone(), b.clone()]).unwrap();
        assert!(Arc::ptr_eq(&first[0], &second[0]));
        assert_eq!(images.kept.len(), 2);
        let third = urls(&mut images, &[b]).unwrap();
        assert!(Arc::ptr_eq(&second[1], &third[0]));
        assert_eq!(images.kept.len(), 1);
        // The same bytes in another shape are another picture.
        let flat = RgbImage::new(56, 14, a.into_rgb()).unwrap();
        assert_ne!(first[0], urls(&mut images, &[flat]).unwrap()[0]);
    }

    #[test]
    fn a_frame_is_written_once_and_again_when_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("my frames/new");
        let mut images = ImageUrls::new(Images::Files(folder.clone())).unwrap();
        let frame = picture(28, 28, 7);
        let url = urls(&mut images, std::slice::from_ref(&frame))
            .unwrap()
            .remove(0);
        assert!(url.contains("my%20frames"), "{url}");
        let path = Url::parse(&url).unwrap().to_file_path().unwrap();
        assert_eq!(read_png(&fs::read(&path).unwrap()), frame);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        // Whoever comes later finds it, and does not write it anew.
        fs::write(&path, "as it was").unwrap();
        let mut later = ImageUrls::new(Images::Files(folder)).unwrap();
        assert_eq!(
            urls(&mut later, std::slice::from_ref(&frame)).unwrap()[0],
            url
        );
        assert_eq!(fs::read(&path).unwrap(), b"as it was");
        fs::remove_file(&path).unwrap();
        let mut after = ImageUrls::new(later.images).unwrap();
        urls(&mut after, std::slice::from_ref(&frame)).unwrap();
        assert_eq!(read_png(&fs::read(&path).unwrap()), frame);
    }

    #[test]
    fn what_can_not_be_a_picture_or_a_folder_is_an_error() {
        struct Odd;
        impl Pixels for Odd {
            fn width(&self) -> u32 {
                u32::MAX
            }
            fn height(&self) -> u32 {
                2
            }
            fn rgb(&self) -> &[u8] {
                &[1, 2, 3]
            }
        }
        for images in [Images::Png, Images::Jpeg { quality: 90 }] {
            let mut urls = ImageUrls::new(images).unwrap();
            let error = urls
                .of(&[Message {
                    role: Role::User,
                    parts: &[Part::Image(&Odd)],
                }])
                .unwrap_err();
            assert!(error.to_string().contains("4294967295 x 2"), "{error}");
        }
        let mut urls = ImageUrls::new(Images::Png).unwrap();
        let empty = RgbImage::new(0, 5, Vec::new()).unwrap();
        assert!(super::tests::urls(&mut urls, &[empty]).is_err());
        let wide = RgbImage::new(65_536, 1, vec![0; 65_536 * 3]).unwrap();
        let mut urls = ImageUrls::new(Images::Jpeg { quality: 90 }).unwrap();
        assert!(super::tests::urls(&mut urls, &[wide]).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        let images = Images::Files(file.path().join("below a file"));
        let Err(error) = ImageUrls::new(images) else {
            panic!("a folder below a file")
        };
        assert!(error.to_string().contains("below a file"), "{error}");
    }
}
