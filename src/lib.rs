//! A video agent that plans before it looks: the EVA paper (arXiv 2603.22918) in Rust.
//!
//! Asked about a video, the model first reads only the question and the video's length and size. It
//! plans what to watch, looks at just that through one tool (a window, a number of frames, a
//! resolution), reflects, and looks again or answers.
//!
//! ```no_run
//! # #[cfg(feature = "gst")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use eva::burn::{BurnPolicy, DeviceChoice};
//! use eva::gst::GstSource;
//! use eva::Session;
//!
//! let video = GstSource::open("holiday.mp4")?;
//! let model = BurnPolicy::tiny(&DeviceChoice::Cpu.open()?)?;
//! let mut session = Session::new(video, model);
//! let report = session.ask("What digit is on the red card?").map_err(|e| e.to_string())?;
//! println!("{:?} after {} frames", report.answer(), report.trajectory.outcome.tally.frames);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "gst"))]
//! # fn main() {}
//! ```
//!
//! This package is the host layer; its parts are crates of their own and can be used alone:
//!
//! - [`core`]: the agent and the tool protocol, without std, allocator or IO
//! - [`burn`]: the Qwen2.5-VL model and its training in Burn
#![cfg_attr(
    feature = "gst",
    doc = "- [`gst`]: frame-exact video sources over GStreamer"
)]
#![cfg_attr(
    feature = "remote",
    doc = "- [`openai`]: a model behind an OpenAI-compatible HTTP API"
)]
//! - [`world`]: synthetic videos with ground truth, to train and to test on
//! - [`benchmark`]: the questions an evaluation asks, published or synthetic
//! - [`evaluate`]: many questions about many videos, resumable, with scores
#![cfg_attr(
    feature = "data",
    doc = "- [`data`]: training data from videos and questions"
)]
#![cfg_attr(
    feature = "hub",
    doc = "- [`hub`]: models from Hugging Face's hub, by name"
)]
//! - [`journal`]: what many workers finish, on disk, resumable after a kill
//! - [`rollout`]: many runs in lock-step over one model
//! - [`train`]: the paper's three stages of training
//! - [`tools`]: tools beside `frame_select`: a sharp part of a frame, subtitles, notes
//!
//! # Features
//!
//! - `gst`: `eva::gst`, and MP4 files of synthetic worlds. Needs GStreamer's development files.
//! - `data`: `eva::data`, training data for supervised fine-tuning, KTO and GRPO. Brings the lexical
//!   ranker `bm25`.
//! - `hub`: `eva::hub`, models from Hugging Face's hub. Costs an HTTP client with TLS, and SHA-256.
//! - `remote`: `eva::openai`, a model on a server that speaks the OpenAI-compatible chat API (vLLM,
//!   SGLang, llama.cpp's server, `transformers serve`, hosted services). Costs an HTTP client with TLS.
//! - `subtitles`: `eva::tools::ReadSubtitles`, for SubRip and WebVTT files.
//! - `wgpu`: the model on Vulkan, Metal or DX12.
//! - `vulkan`, `metal`: as `wgpu`, with kernels in SPIR-V or in Metal's own language.
//! - `cuda`: the model on NVIDIA GPUs. Its build needs the network.
//! - `nvrtc`: as `cuda`, with kernels compiled by CUDA's own compiler.
#![forbid(unsafe_code)]

pub use eva_burn as burn;
pub use eva_core as core;
#[cfg(feature = "gst")]
pub use eva_gst as gst;

pub use eva_core::{
    Agent, FailedCalls, Frame, FrameSource, ImageTool, Input, Picture, Pixels, Policy, Report,
    RgbImage, Role, Rules, Run, Selection, Session, SessionError, Step, StopReason, Tool, ToolSpec,
    Trajectory, Usage, VideoInfo, Watch,
};

pub mod benchmark;
#[cfg(feature = "data")]
pub mod data;
pub mod evaluate;
#[cfg(feature = "hub")]
pub mod hub;
pub mod journal;
#[cfg(feature = "remote")]
pub mod openai;
mod pool;
pub mod rollout;
pub mod tools;
pub mod train;
#[cfg(any(feature = "hub", feature = "remote"))]
mod web;
pub mod world;

/// The program in the README compiles.
#[cfg(all(doctest, feature = "gst"))]
#[doc = include_str!("../README.md")]
struct Readme;
