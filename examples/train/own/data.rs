//! Own data: runs to learn from, questions to ask, and their videos.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use eva::benchmark::{Videos, WorldTask};
use eva::core::{Frame, FrameSource, RgbImage, Selection, VideoInfo};
use eva::data::{Pair, Sample, spread};
use eva::world::World;

use super::settings::Settings;
use crate::worlds::{Video, VideoError};
use crate::{Failure, say};

/// Videos that stay open.
const OPEN: usize = 16;

/// A video that several runs look at, so that what is decoded for one is there for the others.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Video>>);

impl FrameSource for Shared {
    type Pixels = RgbImage;
    type Error = VideoError;

    fn info(&self) -> VideoInfo {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).info()
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<RgbImage>),
    ) -> Result<(), VideoError> {
        let mut video = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        video.frames(selection, sink)
    }
}

/// All videos; those used last stay open.
pub(super) struct Footage {
    videos: Option<Videos>,
    open: Vec<(String, Shared)>,
}

impl Footage {
    pub(super) fn new(settings: &Settings) -> Result<Self, Failure> {
        let videos = settings.videos.as_ref().map(Videos::new).transpose()?;
        Ok(Self {
            videos,
            open: Vec::new(),
        })
    }

    pub(super) fn get(&mut self, name: &str) -> Result<Shared, Failure> {
        if let Some(at) = self.open.iter().position(|(known, _)| known == name) {
            let found = self.open.remove(at);
            self.open.push(found);
        } else {
            let video = Shared(Arc::new(Mutex::new(self.video(name)?)));
            if self.open.len() >= OPEN {
                self.open.remove(0);
            }
            self.open.push((name.to_owned(), video));
        }
        let last = self.open.last().map(|(_, video)| video.clone());
        last.ok_or_else(|| format!("{name} was not opened").into())
    }

    fn video(&self, name: &str) -> Result<Video, Failure> {
        match &self.videos {
            Some(videos) => Video::open(&videos.resolve(name)?),
            None => {
                let seed = WorldTask::seed(name);
                let seed = seed.ok_or_else(|| {
                    format!("{name} is no synthetic world: name the folder of the videos, `videos`")
                })?;
                Ok(Video::drawn(Arc::new(World::new(seed))))
            }
        }
    }
}

/// The runs of a file that `build_data sft` or `build_data kto` wrote.
pub(super) fn samples(path: &Path) -> Result<Vec<Sample>, Failure> {
    lines(path, |line| serde_json::from_str(line))
}

/// The questions of a file that `build_data rl` wrote.
pub(super) fn pairs(path: &Path) -> Result<Vec<Pair>, Failure> {
    lines(path, |line| Pair::parse(line.as_bytes()))
}

fn lines<T, E: std::fmt::Display>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut read = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        read.push(parse(line).map_err(|error| format!("{shown}, line {number}: {error}"))?);
    }
    if read.is_empty() {
        return Err(format!("{shown} is empty: there is nothing to learn from").into());
    }
    Ok(read)
}

/// The order in which data are learnt from: each once, then all again in another order.
pub(super) struct Course {
    /// What each is about: neighbours are to differ.
    prompts: Vec<u64>,
    seed: u64,
    epoch: Option<(usize, Vec<usize>)>,
}

impl Course {
    pub(super) fn new(prompts: Vec<u64>, seed: u64) -> Self {
        Self {
            prompts,
            seed,
            epoch: None,
        }
    }

    /// Over runs: neighbours are not to be about the same question. Says how often all come up.
    pub(super) fn over(samples: &[Sample], settings: &Settings) -> Self {
        let course = Self::new(
            samples.iter().map(|sample| sample.item).collect(),
            settings.seed,
        );
        course.tell(settings);
        course
    }

    /// Says how often all data come up.
    pub(super) fn tell(&self, settings: &Settings) {
        let (count, batch) = (self.prompts.len(), settings.batch);
        let steps = settings.optimisation.schedule.steps;
        let epochs = steps as f64 * batch as f64 / count.max(1) as f64;
        say(format_args!(
            "{count} in the file, {batch} a step, {steps} steps: {epochs:.2} epochs"
        ));
    }

    /// The places of the data of a step.
    pub(super) fn of(&mut self, step: usize, batch: usize) -> Vec<usize> {
        let count = self.prompts.len().max(1);
        let mut places = Vec::new();
        for turn in step * batch..(step + 1) * batch {
            let (epoch, place) = (turn / count, turn % count);
            if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
                let seed = self.seed ^ (epoch as u64) << 32;
                self.epoch = Some((epoch, spread(&self.prompts, seed).order));
            }
            places.extend(self.epoch.as_ref().and_then(|(_, order)| order.get(place)));
        }
        places
    }
}
