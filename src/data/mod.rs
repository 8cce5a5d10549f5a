//! Training data from videos and questions: what the paper's three data sets hold, made from one's
//! own.
//!
//! ```text
//! Pair (video, question, answer) ---> Sft   executor + hints + thinker ---> right runs, cut runs
//!                                 |-> Kto   rollouts + rules + judge   ---> labelled runs, balanced
//!                                 `-> Rl    failures + teacher         ---> new Pairs
//! ```
//!
//! Every stage asks models through the same trait, [`Policy`](eva_core::Policy); what plays is a
//! [`Setup`](crate::evaluate::Setup), as in an evaluation. A finished item is written at once, and a
//! stage that was stopped or killed goes on where it was. What it makes of the whole, the files
//! `data.jsonl`, `rejected.jsonl` and `summary.json`, follows from the finished items and the seed
//! alone, whatever the order in which they were finished.
//!
//! Nothing a model writes stops a stage: what can't be used is kept aside with the reason.
//!
//! Data are [`Sample`]s: conversations as the trained model will meet them (hints and objections are
//! left out of the messages and named in the [`Provenance`]), with frames by time and size.
//! [`Sample::conversation`] fetches the frames again and gives what `eva_burn::train::Example` reads.

mod audit;
mod balance;
mod bank;
mod coach;
mod cut;
mod dice;
mod files;
mod hints;
mod judge;
mod kto;
mod order;
mod pair;
mod play;
mod record;
mod replay;
mod rl;
mod sft;
mod stage;
mod summary;
mod teacher;
mod text;
mod verdict;

pub use audit::{Fault, Limits};
pub use balance::{Balance, ShareError, balance};
pub use bank::{Bank, Experience};
pub use files::write_files;
pub use hints::Family;
pub use judge::{Case, Judge, JudgeError, PolicyJudge, Verdict, WorldJudge};
pub use kto::{Balanced, Kto};
pub use order::{Order, spread};
pub use pair::{BadPair, Pair, PairError, PairFile, PairFileError, PairKind};
pub use record::{Label, Made, Objection, Provenance, Reason, Rejected, Sample};
pub use replay::ReplayError;
pub use rl::{Rl, Written};
pub use sft::Sft;
pub use stage::{DataError, Ended, Stage};
pub use summary::Summary;
pub use teacher::{
    Draft, Failure, Lesson, Malformed, PolicyTeacher, Teacher, TeacherError, WorldTeacher, drafts,
};
