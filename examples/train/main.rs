//! Trains a tiny Qwen2.5-VL from nothing to watch synthetic videos, on the CPU:
//!
//! ```text
//! cargo run --release --example train -- all --seed 1 --out runs/tiny
//! ```
//!
//! Stages: `base` (configuration and tokenizer), `sight` (the vision tower learns to name what it
//! sees), `sft` (whole conversations of the scripted expert), `eval` (held-out worlds). Each stage
//! writes a whole model directory, so that stages can be run again one by one.

mod base;
mod episodes;
mod evaluate;
mod sight;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use eva::world::Split;
use eva_burn::chat::Chat;
use eva_burn::config::ImageConfig;
use eva_burn::train::{Batch, Schedule, StepReport, Trainer};
use eva_burn::weights::{Precision, save};
use eva_burn::{Device, DeviceChoice, ModelConfig, Qwen25Vl};

// Many short-lived tensors on several threads: measured 8% faster than the system's allocator on
// one thread, more on two.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Any stage's error, with what it was about.
type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// All stages, one after the other.
    All,
    /// Configuration, tokenizer and chat template.
    Base,
    /// First sight of the vision tower.
    Sight,
    /// Supervised fine-tuning on the expert's conversations.
    Sft,
    /// Accuracy on held-out worlds.
    Eval,
}

#[derive(Debug, Parser)]
#[command(about = "Trains a tiny Qwen2.5-VL to watch synthetic videos")]
struct Arguments {
    /// What to run.
    stage: Stage,
    /// Seed of the weights and of the order of the data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The model directory, with the metrics beside the weights.
    #[arg(long, default_value = "runs/tiny")]
    out: PathBuf,
    /// Steps of first sight.
    #[arg(long, default_value_t = 400)]
    sight_steps: usize,
    /// Steps of supervised fine-tuning.
    #[arg(long, default_value_t = 2600)]
    sft_steps: usize,
    /// Examples a step and thread.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Threads, each with a shard of the batch.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Peak learning rate of supervised fine-tuning.
    #[arg(long, default_value_t = 2e-3)]
    rate: f64,
    /// Where the model runs: cpu, wgpu, vulkan, metal, cuda or cuda:N; all but cpu must be compiled in.
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// Held-out worlds; one question of each kind is asked about each.
    #[arg(long, default_value_t = 100)]
    worlds: u32,
    /// Number of the first held-out world.
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// Evaluate through real MP4 files instead of rendered frames.
    #[arg(long)]
    mp4: bool,
    /// Evaluate on the test worlds: for reported numbers only, never to choose anything.
    #[arg(long)]
    test: bool,
}

/// What a stage works with.
struct Run {
    arguments: Arguments,
    config: ModelConfig,
    images: ImageConfig,
    chat: Chat,
    /// The device that training runs on.
    device: Device,
}

impl Run {
    fn load(arguments: Arguments) -> Result<Self, Failure> {
        let dir = &arguments.out;
        let config = ModelConfig::load(dir)?;
        let images = ImageConfig::load(dir)?;
        let chat = Chat::load(dir, config.image_token_id)?;
        Ok(Self {
            config,
            images,
            chat,
            device: arguments.device.open()?.autodiff(),
            arguments,
        })
    }

    fn save(&self, model: &Qwen25Vl) -> Result<(), Failure> {
        Ok(save(
            model,
            &self.config,
            &self.arguments.out,
            Precision::F32,
        )?)
    }

    fn metrics(&self, stage: &str) -> Result<std::fs::File, Failure> {
        Ok(std::fs::File::create(
            self.arguments.out.join(format!("{stage}.jsonl")),
        )?)
    }

    fn sight(&self) -> Result<(), Failure> {
        let arguments = &self.arguments;
        let model = Qwen25Vl::random(&self.config, arguments.seed, &self.device)
            .ok_or("the configuration cannot be built")?;
        let schedule = Schedule {
            peak: 3e-3,
            warmup: 50,
            steps: arguments.sight_steps,
        };
        let mut trainer = Trainer::new(model, self.config.clone(), schedule);
        let mut metrics = self.metrics("sight")?;
        let (mut window, started) = (Window::default(), Instant::now());
        for step in 0..arguments.sight_steps {
            let shards: Vec<_> = (0..arguments.threads)
                .map(|shard| sight::pictures(self, (step * arguments.threads + shard) as u32))
                .collect::<Result<_, _>>()?;
            let report = trainer.first_sight(&shards);
            let kinds = shards.iter().zip(&report.right).flat_map(|(shard, right)| {
                shard
                    .labels
                    .iter()
                    .zip(right)
                    .map(|((_, name), right)| (sight::field(self, *name), *right))
            });
            window.add(&report, kinds.collect());
            if (step + 1) % 50 == 0 {
                window.flush(
                    "sight",
                    step + 1,
                    arguments.sight_steps,
                    started,
                    &mut metrics,
                )?;
            }
        }
        self.save(&trainer.model())
    }

    fn sft(&self) -> Result<(), Failure> {
        let arguments = &self.arguments;
        let model = Qwen25Vl::load(&self.config, &arguments.out, &self.device)?;
        let schedule = Schedule {
            peak: arguments.rate,
            warmup: 100,
            steps: arguments.sft_steps,
        };
        let mut trainer = Trainer::new(model, self.config.clone(), schedule);
        let mut metrics = self.metrics("sft")?;
        let (mut window, started) = (Window::default(), Instant::now());
        for step in 0..arguments.sft_steps {
            let progress = step as f64 / arguments.sft_steps as f64;
            let made: Vec<_> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..arguments.threads)
                    .map(|shard| {
                        let index = (step * arguments.threads + shard) as u64;
                        scope.spawn(move || {
                            episodes::shard(self, index, progress)
                                .map_err(|error| error.to_string())
                        })
                    })
                    .collect();
                workers
                    .into_iter()
                    .map(|worker| worker.join().map_err(|_| "a worker stopped".to_owned())?)
                    .collect::<Result<_, String>>()
            })?;
            let shards: Vec<Batch> = made
                .iter()
                .map(|(_, examples)| Batch::new(examples, &self.config))
                .collect();
            let report = trainer.sft(&shards);
            let mut fields = Vec::new();
            for (((name, _), shard), right) in made.iter().zip(&shards).zip(&report.right) {
                for turns in shard.turns() {
                    for (turn, range) in turns.iter().enumerate() {
                        let whole = right[range.clone()].iter().all(|right| *right);
                        fields.push((format!("{name}.{}", turn + 1), whole));
                    }
                }
            }
            window.add(&report, fields);
            if (step + 1) % 50 == 0 {
                window.flush("sft", step + 1, arguments.sft_steps, started, &mut metrics)?;
            }
            if (step + 1) % 500 == 0 {
                self.save(&trainer.model())?;
            }
        }
        self.save(&trainer.model())
    }
}

/// Means over the steps since the last line.
#[derive(Default)]
struct Window {
    loss: f64,
    steps: usize,
    /// Right and all, by field.
    fields: std::collections::BTreeMap<String, (usize, usize)>,
}

impl Window {
    fn add(&mut self, report: &StepReport, fields: Vec<(String, bool)>) {
        self.loss += report.loss;
        self.steps += 1;
        for (field, right) in fields {
            let entry = self.fields.entry(field).or_default();
            entry.0 += usize::from(right);
            entry.1 += 1;
        }
    }

    /// Prints a line and appends a JSON line.
    fn flush(
        &mut self,
        stage: &str,
        step: usize,
        steps: usize,
        started: Instant,
        metrics: &mut std::fs::File,
    ) -> Result<(), Failure> {
        let loss = self.loss / self.steps.max(1) as f64;
        let share = |&(right, all): &(usize, usize)| right as f64 / all.max(1) as f64;
        let seconds = started.elapsed().as_secs_f64();
        print!("{stage} {step}/{steps} {seconds:.0} s loss {loss:.4}");
        for (field, counts) in &self.fields {
            print!(" {field} {:.3}", share(counts));
        }
        println!();
        let fields: serde_json::Map<_, _> = self
            .fields
            .iter()
            .map(|(field, counts)| (field.clone(), share(counts).into()))
            .collect();
        let line = serde_json::json!({"stage": stage, "step": step, "seconds": seconds, "loss": loss, "right": fields});
        writeln!(metrics, "{line}")?;
        *self = Self::default();
        Ok(())
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let stage = arguments.stage;
    let wants = |one| stage == Stage::All || stage == one;
    let dir: &Path = &arguments.out;
    if wants(Stage::Base) {
        std::fs::create_dir_all(dir)?;
        base::write(dir)?;
    }
    if stage == Stage::Base {
        return Ok(());
    }
    let run = Run::load(arguments)?;
    if wants(Stage::Sight) {
        run.sight()?;
    }
    if wants(Stage::Sft) {
        run.sft()?;
    }
    if wants(Stage::Eval) {
        let Arguments {
            first,
            worlds,
            mp4,
            test,
            ..
        } = run.arguments;
        let split = if test { Split::Test } else { Split::Dev };
        evaluate::run(
            &run.arguments.out,
            &evaluate::Exam {
                split,
                first,
                worlds,
                mp4,
                device: run.arguments.device.open()?,
            },
        )?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
