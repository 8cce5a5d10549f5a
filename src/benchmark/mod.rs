//! The questions an evaluation asks: [`Item`]s from JSON Lines or of synthetic worlds, the videos
//! they are about, and what is published on the six benchmarks.
//!
//! ```
//! use eva::benchmark::{Benchmark, ItemFile};
//!
//! let line = r#"{"videos": ["/data/x.mp4"], "prompt": [{"role": "user", "content": "Who?"}],
//!     "reward_model": {"ground_truth": "C"}, "question_type": "person"}"#.replace('\n', "");
//! let file = ItemFile::parse(line.as_bytes())?;
//! assert_eq!(file.items[0].question(), "Who?");
//! assert_eq!(file.items[0].extras["question_type"], "person");
//! assert_eq!(Benchmark::named("lvbench").map(|known| known.items), Some(1549));
//! # Ok::<(), std::io::Error>(())
//! ```

mod file;
mod item;
pub(crate) mod lines;
mod registry;
mod synthetic;
mod videos;

pub use file::{BadLine, ItemFile, ItemFileError};
pub(crate) use item::is_answerable;
pub use item::{Item, ItemError, Prompt};
pub use registry::{Benchmark, Published, VisualPoint};
pub use synthetic::{WorldItems, WorldItemsError, WorldTask};
pub use videos::{VideoMissing, Videos, VideosError};
