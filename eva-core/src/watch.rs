//! Looking on while a [`Session`](crate::Session) runs: [`Watch`].

use crate::agent::Step;
use crate::{Frame, Picture, Selection, Usage};

/// Is told what happens in a run, for a display, a log or a progress bar. Nothing it does changes
/// the run. `()` looks away.
///
/// ```
/// use eva_core::mock::{ScriptedPolicy, SolidSource};
/// use eva_core::{Session, Usage, VideoInfo, Watch};
///
/// /// Counts the model's tokens.
/// #[derive(Default)]
/// struct Tokens(u32);
///
/// impl<P> Watch<P> for Tokens {
///     fn on_reply(&mut self, _: &str, usage: &Usage) {
///         self.0 += usage.completion;
///     }
/// }
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut tokens = Tokens::default();
/// Session::new(SolidSource::new(video), ScriptedPolicy::new(["<answer>B</answer>"]))
///     .with_watch(&mut tokens)
///     .ask("Who wins?")?;
/// assert_eq!(tokens.0, 18); // the scripted policy counts bytes
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub trait Watch<P> {
    /// The run is about to carry out `step`; the last one is [`Step::Done`].
    fn on_step(&mut self, step: &Step) {
        _ = step;
    }

    /// The policy wrote a piece of its reply.
    fn on_text(&mut self, piece: &str) {
        _ = piece;
    }

    /// The policy finished its reply.
    fn on_reply(&mut self, reply: &str, usage: &Usage) {
        _ = (reply, usage);
    }

    /// The source delivered `frames` for `selection`.
    fn on_frames(&mut self, selection: &Selection, frames: &[Frame<P>]) {
        _ = (selection, frames);
    }

    /// The tool `name` returned pictures, which the model sees; its text comes before.
    fn on_tool_images(&mut self, name: &str, images: &[Picture<P>]) {
        _ = (name, images);
    }

    /// The tool `name`, called with `arguments`, returned a text.
    fn on_tool(&mut self, name: &str, arguments: &str, returned: &str) {
        _ = (name, arguments, returned);
    }
}

impl<P> Watch<P> for () {}

impl<P, W: Watch<P> + ?Sized> Watch<P> for &mut W {
    fn on_step(&mut self, step: &Step) {
        (**self).on_step(step);
    }
    fn on_text(&mut self, piece: &str) {
        (**self).on_text(piece);
    }
    fn on_reply(&mut self, reply: &str, usage: &Usage) {
        (**self).on_reply(reply, usage);
    }
    fn on_frames(&mut self, selection: &Selection, frames: &[Frame<P>]) {
        (**self).on_frames(selection, frames);
    }
    fn on_tool_images(&mut self, name: &str, images: &[Picture<P>]) {
        (**self).on_tool_images(name, images);
    }
    fn on_tool(&mut self, name: &str, arguments: &str, returned: &str) {
        (**self).on_tool(name, arguments, returned);
    }
}
