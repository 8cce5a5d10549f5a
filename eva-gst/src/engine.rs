//! Runs from the planner through the workers, in order: [`Engine`].
//!
//! ```text
//!            ┌─ one run answers all ──▶ worker with all threads ─┐
//!  planner ──┤                                                   ├──▶ answers in the order of targets
//!            └─ run, run, run ──▶ workers with one thread each ──┘
//! ```
//!
//! Runs do not depend on each other, so several workers, each with a decoder of one thread, do more
//! with the same processor time than one decoder of several threads.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use gstreamer as gst;

use crate::GstError;
use crate::ahead::{Ahead, Job};
use crate::decoder::{Decoder, Setup};
use crate::options::DecoderChoice;
use crate::planner::{Planner, Run};
use crate::reader::Reader;
use crate::worker::{Answer, Context, Lost, Shape, Worker};

/// Runs that are gathered ahead for each worker.
const AHEAD: usize = 4;

/// Takes answers as they come, in order; with each, from when until when its picture is known to be
/// on display.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Answer, Option<(i64, i64)>);

/// A file's planner and its workers.
pub(crate) struct Engine {
    context: Context,
    caps: gst::Caps,
    setup: Setup,
    pub(crate) reader: Reader,
    planner: Planner,
    /// Decodes what cannot be divided, in as many threads as allowed.
    main: Worker,
    /// Decode runs side by side; made when there are several for the first time.
    side: Vec<Worker>,
}

/// What a worker made of a job.
struct Done {
    place: usize,
    shown: Vec<Option<(i64, i64)>>,
    answers: Vec<Answer>,
    outcome: Result<Option<Lost>, GstError>,
}

impl Engine {
    /// `decoder` was made by `setup`.
    pub(crate) fn new(
        context: Context,
        caps: gst::Caps,
        mut setup: Setup,
        decoder: Decoder,
        mut reader: Reader,
    ) -> Self {
        reader.start_at_recovery_points(decoder.starts_at_recovery_points());
        if !decoder.is_hardware() && setup.choice == DecoderChoice::Auto {
            // Others beside it are not to try the hardware again that did not start.
            setup.choice = DecoderChoice::Software;
        }
        Self {
            main: Worker::new(context.clone(), decoder),
            context,
            caps,
            setup,
            reader,
            planner: Planner::default(),
            side: Vec::new(),
        }
    }

    /// Packets given to decoders so far.
    pub(crate) fn decoded(&self) -> u64 {
        let side: u64 = self.side.iter().map(|worker| worker.decoded).sum();
        self.main.decoded + side
    }

    /// Decodes the pictures on display at `targets` (ascending), one for each, in order.
    pub(crate) fn fetch(
        &mut self,
        targets: &[i64],
        shape: Option<Shape>,
        sink: Sink<'_>,
    ) -> Result<(), GstError> {
        let mut answered = 0;
        let mut outcome = self.fetch_some(targets, shape, &mut |answer, shown| {
            answered += 1;
            sink(answer, shown);
        });
        if let Err(error) = &outcome
            && self.main.decoder().is_hardware()
            && !error.is_final()
        {
            self.fall_back(error.to_string())?;
            let rest = targets.get(answered..).unwrap_or_default();
            outcome = self.fetch_some(rest, shape, sink);
        }
        if outcome.is_err() {
            self.planner.reset();
            self.main.reset();
        }
        outcome
    }

    /// The kind of element that decodes.
    pub(crate) fn decoder(&self) -> &str {
        self.main.decoder().name()
    }

    /// How many decoders may work side by side.
    fn threads(&self) -> usize {
        if self.main.decoder().can_be_joined() {
            self.setup.threads
        } else {
            1
        }
    }

    /// Takes a software decoder from here on: the hardware's failed.
    fn fall_back(&mut self, reason: String) -> Result<(), GstError> {
        let failed = self.main.decoder().name().to_owned();
        self.setup.choice = DecoderChoice::Software;
        let decoder = Decoder::new(&self.context.file, &self.caps, &self.setup)?;
        tracing::warn!(%failed, %reason, instead = decoder.name(), "a hardware decoder failed");
        self.reader
            .start_at_recovery_points(decoder.starts_at_recovery_points());
        self.main.replace(decoder);
        self.planner.reset();
        Ok(())
    }

    fn fetch_some(
        &mut self,
        targets: &[i64],
        shape: Option<Shape>,
        sink: Sink<'_>,
    ) -> Result<(), GstError> {
        let Some(&first) = targets.first() else {
            return Ok(());
        };
        let run = self.gather(targets, first)?;
        let alone = run.unfinished || run.covered == 0 || run.covered >= targets.len();
        let (answered, run) = if alone || self.threads() < 2 {
            (0, Some(run))
        } else {
            self.side_by_side(run, targets, shape, sink)?
        };
        let rest = targets.get(answered..).unwrap_or_default();
        self.one_by_one(run, rest, shape, sink)
    }

    fn gather(&mut self, targets: &[i64], first: i64) -> Result<Run, GstError> {
        let run = self.planner.gather(&mut self.reader, targets)?;
        if run.covered == 0 && run.packets.is_empty() {
            let reason = "nothing can be read there".to_owned();
            return Err(self.context.damaged(first, reason));
        }
        Ok(run)
    }

    /// Decodes run after run with the main worker. `run` is the first, if it was already gathered.
    fn one_by_one(
        &mut self,
        mut run: Option<Run>,
        targets: &[i64],
        shape: Option<Shape>,
        sink: Sink<'_>,
    ) -> Result<(), GstError> {
        let mut answered = 0;
        let mut shown = Vec::new();
        let mut retried = None;
        let mut rest = targets;
        while let Some(&target) = rest.first() {
            let run = match run.take() {
                Some(run) => run,
                None => self.gather(rest, target)?,
            };
            shown.extend_from_slice(&run.shown);
            let lost = self.main.decode(&run, rest, shape, &mut |answer| {
                sink(answer, shown.get(answered).copied().flatten());
                answered += 1;
            })?;
            rest = rest.get(run.covered..).unwrap_or_default();
            let Some(Lost { time, reason }) = lost else {
                continue;
            };
            if self.reader.starts_at_recovery_points() && run.may_recover() {
                // Damage, or a decoder that cannot start there after all: from IDR pictures, then.
                self.reader.start_at_recovery_points(false);
                rest = targets.get(answered..).unwrap_or_default();
                shown.truncate(answered);
                self.main.reset();
                self.planner.reset();
                continue;
            }
            // Where a keyframe is damaged, the picture before it stays on display.
            let begin = run.packets.first().map(|packet| packet.time);
            match begin.filter(|begin| *begin > self.context.first) {
                Some(begin) if retried != Some(time) => {
                    retried = Some(time);
                    rest = targets.get(answered..).unwrap_or_default();
                    shown.truncate(answered);
                    self.main.reset();
                    self.planner.retry_before(begin);
                }
                _ => return Err(self.context.damaged(time, reason)),
            }
        }
        Ok(())
    }

    /// Decodes independent runs with several workers at once, beginning with `first`. Returns how
    /// many targets were answered; what is left, because a run cannot be decoded apart from others
    /// or has damage in it, is for [`one_by_one`](Self::one_by_one), with the run to begin with.
    fn side_by_side(
        &mut self,
        first: Run,
        targets: &[i64],
        shape: Option<Shape>,
        sink: Sink<'_>,
    ) -> Result<(usize, Option<Run>), GstError> {
        let runs = 1 + targets.len() - first.covered.min(targets.len());
        let wanted = self.threads().min(runs);
        let single = Setup {
            threads: 1,
            ..self.setup.clone()
        };
        let mut side = core::mem::take(&mut self.side);
        while side.len() < wanted {
            match Decoder::new(&self.context.file, &self.caps, &single) {
                Ok(decoder) if decoder.name() == self.main.decoder().name() => {
                    side.push(Worker::new(self.context.clone(), decoder));
                }
                // Another element may not start at the same places.
                Ok(_) | Err(_) => break,
            }
        }
        let mut order = InOrder::default();
        let outcome = thread::scope(|scope| {
            let (jobs, take) = sync_channel::<Job>(0);
            let (give, done) = channel::<Done>();
            let take = Arc::new(Mutex::new(take));
            let started: Vec<ScopedJoinHandle<'_, ()>> = side
                .iter_mut()
                .take(wanted)
                .filter_map(|worker| {
                    let (take, give) = (Arc::clone(&take), give.clone());
                    thread::Builder::new()
                        .name("eva-decode".to_owned())
                        .spawn_scoped(scope, move || work(worker, &take, &give, shape))
                        .ok()
                })
                .collect();
            // Only the workers hold these ends now: should they be gone, sending and receiving fail.
            drop((take, give));
            if started.is_empty() {
                return Ok(Some(first));
            }
            let left = self.distribute(first, targets, &jobs, &done, &mut order, sink);
            drop(jobs);
            for worker in started {
                order.broken |= worker.join().is_err();
            }
            left
        });
        for worker in &mut side {
            worker.reset();
        }
        self.side = side;
        let run = outcome?;
        if order.broken {
            // Another look at the damaged place begins afresh.
            self.planner.reset();
            return Ok((order.answered, None));
        }
        Ok((order.answered, run))
    }

    /// Hands out runs and passes on what comes back, until all is done or something needs the main
    /// worker. The workers end when `jobs` is dropped by the caller.
    fn distribute(
        &mut self,
        first: Run,
        targets: &[i64],
        jobs: &SyncSender<Job>,
        done: &Receiver<Done>,
        order: &mut InOrder,
        sink: Sink<'_>,
    ) -> Result<Option<Run>, GstError> {
        let mut ahead = Ahead::new(AHEAD * self.threads());
        let mut rest = targets;
        let mut next = Some(first);
        let mut given = 0;
        // A run that cannot be decoded apart, or an error: after what was gathered before it.
        let mut left = Ok(None);
        loop {
            while !ahead.complete && ahead.has_room() {
                let gathered = match (next.take(), rest.first()) {
                    (_, None) => Ok(None),
                    (Some(run), _) => Ok(Some(run)),
                    (None, Some(target)) => self.gather(rest, *target).map(Some),
                };
                let mut run = match gathered {
                    Ok(Some(run)) if !run.unfinished && !run.resumed => run,
                    other => {
                        left = other;
                        ahead.complete = true;
                        break;
                    }
                };
                let (covered, beyond) = rest.split_at(run.covered.min(rest.len()));
                rest = beyond;
                run.covered = covered.len();
                ahead.push(Job::new(given, run, covered.to_vec()));
                given += 1;
                ahead.complete = rest.is_empty();
                // No worker is to wait while more is gathered.
                if !ahead.complete
                    && let Some(job) = ahead.pop()
                    && let Err(TrySendError::Full(job)) = jobs.try_send(job)
                {
                    ahead.put_back(job);
                }
            }
            let Some(job) = ahead.pop() else {
                break;
            };
            if jobs.send(job).is_err() {
                order.broken = true;
                break;
            }
            while let Ok(result) = done.try_recv() {
                order.take(result, sink)?;
            }
            if order.broken {
                break;
            }
        }
        while order.place < given && !order.broken {
            match done.recv() {
                Ok(result) => order.take(result, sink)?,
                Err(_) => order.broken = true,
            }
        }
        // What comes after a broken run is fetched another way, errors included.
        if order.broken { Ok(None) } else { left }
    }
}

/// Does jobs until there are no more.
fn work(
    worker: &mut Worker,
    take: &Mutex<Receiver<Job>>,
    give: &std::sync::mpsc::Sender<Done>,
    shape: Option<Shape>,
) {
    loop {
        let job = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        let mut answers = Vec::new();
        let outcome = worker.decode(&job.run, &job.targets, shape, &mut |answer| {
            answers.push(answer);
        });
        let done = Done {
            place: job.place,
            shown: job.run.shown,
            answers,
            outcome,
        };
        if give.send(done).is_err() {
            return;
        }
    }
}

/// Puts the results of jobs back into the order of their targets.
#[derive(Default)]
struct InOrder {
    waiting: BTreeMap<usize, Done>,
    /// The job whose answers come next.
    place: usize,
    /// Targets answered.
    answered: usize,
    /// A run gave no picture: what follows is to be fetched another way.
    broken: bool,
}

impl InOrder {
    fn take(&mut self, done: Done, sink: Sink<'_>) -> Result<(), GstError> {
        self.waiting.insert(done.place, done);
        while let Some(done) = self.waiting.remove(&self.place) {
            if self.broken {
                break;
            }
            self.place += 1;
            let shown = done.shown.into_iter().chain(core::iter::repeat(None));
            for (answer, shown) in done.answers.into_iter().zip(shown) {
                self.answered += 1;
                sink(answer, shown);
            }
            self.broken = done.outcome?.is_some();
        }
        Ok(())
    }
}
