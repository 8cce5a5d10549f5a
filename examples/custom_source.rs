//! A directory of PNG images, one a second, as a video; the bundled model answers from it.
//! `ffmpeg -i VIDEO -vf fps=1 DIR/%05d.png` makes such a directory, here it is drawn.
//!
//!     cargo run --release --example custom_source

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Error};
use std::path::{Path, PathBuf};

use eva::burn::{BurnPolicy, DeviceChoice};
use eva::world::{HEIGHT, Kind, WIDTH, World};
use eva::{Frame, FrameSource, Pixels, RgbImage, Selection, Session, VideoInfo};

struct Images(Vec<PathBuf>, VideoInfo);

fn open(dir: &Path) -> Result<Images, Error> {
    let mut files: Vec<_> = fs::read_dir(dir)?.flatten().map(|f| f.path()).collect();
    files.sort();
    let first = read(files.first().ok_or(Error::other("there is no image"))?)?;
    let info = VideoInfo {
        duration: files.len() as f64,
        width: first.width(),
        height: first.height(),
        fps: 1.0,
    };
    Ok(Images(files, info))
}

fn read(file: &Path) -> Result<RgbImage, Error> {
    let mut png = png::Decoder::new(BufReader::new(File::open(file)?)).read_info()?;
    let mut rgb = vec![0; png.output_buffer_size().unwrap_or_default()];
    let size = png.next_frame(&mut rgb)?; // other than 8-bit RGB is refused by its length
    RgbImage::new(size.width, size.height, rgb).map_err(Error::other)
}

impl FrameSource for Images {
    type Pixels = RgbImage;
    type Error = Error;
    fn info(&self) -> VideoInfo {
        self.1
    }
    fn frames(
        &mut self,
        asked: &Selection,
        to: &mut dyn FnMut(Frame<RgbImage>),
    ) -> Result<(), Error> {
        let Selection { width, height, .. } = *asked;
        for time in asked.times() {
            let time = time.floor().min(self.0.len() as f64 - 1.0);
            let image = read(&self.0[time as usize])?;
            let mut rgb = Vec::new();
            for index in 0..width * height {
                let x = index % width * image.width() / width; // the nearest pixel
                let y = index / width * image.height() / height;
                let at = (y * image.width() + x) as usize * 3;
                rgb.extend_from_slice(&image.rgb()[at..at + 3]);
            }
            let pixels = RgbImage::new(width, height, rgb).map_err(Error::other)?;
            to(Frame { time, pixels });
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (world, dir) = (World::new(11), tempfile::tempdir()?);
    for second in 0..world.duration() as u32 {
        let file = File::create(dir.path().join(format!("{second:05}.png")))?;
        let mut png = png::Encoder::new(BufWriter::new(file), WIDTH, HEIGHT);
        png.set_color(png::ColorType::Rgb);
        (png.write_header()?).write_image_data(world.render(f64::from(second)).rgb())?;
    }
    let model = BurnPolicy::tiny(&DeviceChoice::Cpu.open()?)?;
    let question = world.question(Kind::Find, 0).text;
    let report = Session::new(open(dir.path())?, model).ask(&question)?;
    let times: Vec<f64> = report.trajectory.frame_times().collect();
    println!("{question} {:?}, after {times:?} s", report.answer());
    Ok(())
}
