//! What a program says beside its output.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Writes a line to the standard error. Where nobody reads it any more (`2>&1 | head -1`) it goes unsaid:
/// `eprintln!` would panic there, in the middle of a run that has better things to do.
pub(crate) fn tell(line: impl Display) {
    _ = writeln!(io::stderr(), "{line}");
}
