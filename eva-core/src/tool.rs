//! Tools beside `frame_select`: [`Tool`], [`ImageTool`], and what the model is told of them.

use core::fmt;

use crate::source::Picture;

/// The schema of a tool that takes no arguments.
///
/// ```
/// let schema = eva_core::tool::NO_PARAMETERS;
/// assert!(eva_core::json::read_object(schema, |_, _| ()).is_ok());
/// ```
pub const NO_PARAMETERS: &str = r#"{"type": "object", "properties": {}}"#;

/// What the model is told of a tool: [`prompt::write_system`](crate::prompt::write_system) puts it
/// into the system message.
///
/// ```
/// use eva_core::ToolSpec;
/// use eva_core::tool::NO_PARAMETERS;
///
/// let clock = ToolSpec { name: "clock", description: "Says the time.", parameters: NO_PARAMETERS };
/// # assert_eq!(clock.name, "clock");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolSpec<'a> {
    /// The name the model calls it by.
    pub name: &'a str,
    /// What it does and when to call it, in one line.
    pub description: &'a str,
    /// The JSON Schema of its arguments, itself JSON: written as it is.
    pub parameters: &'a str,
}

/// A function that the model may call by name.
///
/// ```
/// use core::fmt::{self, Write};
/// use eva_core::Tool;
///
/// /// Remembers what the model wants to keep from one look to the next.
/// #[derive(Default)]
/// struct Memory(Vec<String>);
///
/// impl Tool for Memory {
///     type Error = fmt::Error;
///     fn name(&self) -> &str {
///         "remember"
///     }
///     fn description(&self) -> &str {
///         "Keeps a note, and shows all notes so far."
///     }
///     fn parameters(&self) -> &str {
///         r#"{"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]}"#
///     }
///     fn call(&mut self, arguments: &str, out: &mut dyn fmt::Write) -> Result<(), fmt::Error> {
///         self.0.push(arguments.to_string());
///         self.0.iter().try_for_each(|note| writeln!(out, "- {note}"))
///     }
/// }
///
/// let mut text = String::new();
/// Memory::default().call(r#"{"note": "a red car"}"#, &mut text)?;
/// assert_eq!(text, "- {\"note\": \"a red car\"}\n");
/// # Ok::<(), fmt::Error>(())
/// ```
pub trait Tool {
    /// What can go wrong in a call. Under [`FailedCalls::TellModel`](crate::FailedCalls) the model
    /// reads its text.
    type Error: core::error::Error;

    /// The name the model calls it by.
    fn name(&self) -> &str;

    /// What it does and when to call it, in one line for the model.
    fn description(&self) -> &str;

    /// The JSON Schema of its arguments. By default it takes none.
    fn parameters(&self) -> &str {
        NO_PARAMETERS
    }

    /// Runs the tool on `arguments` (text in braces that the model wrote: whether it is JSON, and
    /// fits the schema, is for the tool to check) and writes what the model shall read.
    ///
    /// # Errors
    /// The tool's own error.
    fn call(&mut self, arguments: &str, out: &mut dyn fmt::Write) -> Result<(), Self::Error>;
}

/// A function that the model may call by name and that answers with pictures, and text if it likes:
/// a crop at full resolution, a contact sheet, a chart. `P` is the picture type that the session's
/// source and policy share.
///
/// ```
/// use core::convert::Infallible;
/// use core::fmt;
/// use eva_core::{Frame, ImageTool, Picture};
///
/// /// Shows a map of the place.
/// struct Map;
///
/// impl ImageTool<&'static str> for Map {
///     type Error = Infallible;
///     fn name(&self) -> &str {
///         "map"
///     }
///     fn description(&self) -> &str {
///         "Shows a map of the place where the video was taken."
///     }
///     fn call(
///         &mut self,
///         _: &str,
///         out: &mut dyn fmt::Write,
///         images: &mut dyn FnMut(Picture<&'static str>),
///     ) -> Result<(), Infallible> {
///         _ = out.write_str("The map:");
///         images(Picture { frame: Frame { time: 0.0, pixels: "a map" }, width: 280, height: 280 });
///         Ok(())
///     }
/// }
///
/// let mut tokens = 0;
/// Map.call("{}", &mut String::new(), &mut |picture| tokens += picture.visual_tokens())?;
/// assert_eq!(tokens, 100);
/// # Ok::<(), Infallible>(())
/// ```
pub trait ImageTool<P> {
    /// What can go wrong in a call. Under [`FailedCalls::TellModel`](crate::FailedCalls) the model
    /// reads its text.
    type Error: core::error::Error;

    /// The name the model calls it by.
    fn name(&self) -> &str;

    /// What it does and when to call it, in one line for the model.
    fn description(&self) -> &str;

    /// The JSON Schema of its arguments. By default it takes none.
    fn parameters(&self) -> &str {
        NO_PARAMETERS
    }

    /// Runs the tool as [`Tool::call`] does, and pushes pictures into `images`, which the model sees
    /// behind the text. They count among the run's frames and visual tokens.
    ///
    /// # Errors
    /// The tool's own error; what was written and pushed before it is not shown.
    fn call(
        &mut self,
        arguments: &str,
        out: &mut dyn fmt::Write,
        images: &mut dyn FnMut(Picture<P>),
    ) -> Result<(), Self::Error>;
}
