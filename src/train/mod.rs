//! The paper's stages of training over conversations about videos: supervised fine-tuning, [`Kto`] and
//! [`Grpo`].
//!
//! `eva_burn::train` has the losses and the optimiser. Here is what leads there from videos: an
//! [`Encoder`] turns conversations into what is learnt from, [`rollout`](crate::rollout) plays the
//! runs of the policy, a [`Reward`] says what they are worth ([`PaperReward`], with a [`Judge`] for
//! completeness self-verification), and a [`Course`] takes the steps, keeps the state and writes what
//! was measured.

mod course;
mod encoder;
mod error;
mod grpo;
mod judge;
mod kto;
mod measures;
mod reward;

pub use course::{Beginning, Course, Ended, Line};
pub use encoder::{Encoder, EncoderError};
pub use error::TrainError;
pub use grpo::Grpo;
pub use judge::{Judge, LastRound};
pub use kto::{Kto, Labelled};
pub use measures::Measures;
pub use reward::{Asked, Form, PaperReward, Reward, Thrifty};
