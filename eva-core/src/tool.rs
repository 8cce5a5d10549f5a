//! Tools beside `frame_select`: [`Tool`].

use core::fmt;

/// A function that the model may call by name.
pub trait Tool {
    /// What can go wrong in a call.
    type Error: core::error::Error;

    /// The name the model calls it by.
    fn name(&self) -> &str;

    /// Runs the tool on `arguments` (a JSON object) and writes what the model shall read.
    ///
    /// # Errors
    /// The tool's own error.
    fn call(&mut self, arguments: &str, out: &mut dyn fmt::Write) -> Result<(), Self::Error>;
}
