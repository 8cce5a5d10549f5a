//! The host around the agent: the loop, with everything in fixed places.

use core::fmt::Write;

use eva_core::prompt::{self, ToolResponse};
use eva_core::{
    Abort, Agent, Input, Outcome, Rules, SelectFailed, Selection, Step, ToolFailure, Usage,
    VideoInfo,
};

use crate::meter::Meter;

pub const VIDEO: VideoInfo = VideoInfo {
    duration: 600.0,
    width: 1280,
    height: 720,
    fps: 25.0,
};

pub type Text = heapless::String<4096>;

/// What stands around an episode: the parts that an application brings.
pub struct Host<'a> {
    /// What the model says, one text a turn; it fails after the last.
    pub replies: &'a [&'a str],
    pub rules: Rules,
    /// Frames that the source delivers for a selection.
    pub source: fn(&Selection) -> Result<u32, SelectFailed>,
    /// Another tool than `frame_select`: gets its name and its arguments, writes its answer.
    pub tool: Option<fn(&str, &str, &mut Text) -> Result<(), ToolFailure>>,
    /// How the model fails when it has nothing more to say.
    pub abort: Abort,
}

/// What is left of an episode.
pub struct Episode<'a> {
    pub outcome: Outcome,
    /// The reply that ended it.
    pub reply: &'a str,
    /// All that the model has read, a frame as `<WIDTHxHEIGHT>`.
    pub conversation: Text,
}

/// Most instructions that `Agent::handle` took, for each kind of input.
#[derive(Default)]
pub struct Cost {
    pub generated: u32,
    pub selected: u32,
    pub returned: u32,
    pub handled: u32,
}

impl<'a> Host<'a> {
    pub fn new(replies: &'a [&'a str]) -> Self {
        Self {
            replies,
            rules: Rules::published(),
            source: |selection| Ok(selection.nframes),
            tool: None,
            abort: Abort::Exception,
        }
    }

    /// Plays the whole episode. `None` if the agent refuses the result of its own step, or the
    /// conversation is too long for its place.
    pub fn play(&self, meter: &Meter, cost: &mut Cost) -> Option<Episode<'a>> {
        let mut agent = Agent::new(self.rules, VIDEO);
        if self.tool.is_some() {
            agent = agent.with_other_tools();
        }
        let mut text = Text::new();
        let mut response = None;
        let mut replies = self.replies.iter();
        let mut reply = "";
        prompt::write_question(&mut text, &VIDEO, " Who wins? ").ok()?;
        loop {
            let step = agent.step().clone();
            if matches!(step, Step::Generate | Step::Done(_))
                && let Some(response) = response.take()
            {
                ToolResponse::close(response, &mut text, "Who wins?").ok()?;
            }
            let (input, most) = match step {
                Step::Generate => match replies.next() {
                    Some(next) => {
                        reply = next;
                        let usage = Usage {
                            prompt: 100,
                            cached: 0,
                            completion: 10,
                        };
                        (Input::Generated { reply, usage }, &mut cost.generated)
                    }
                    None => (Input::Abort(self.abort), &mut cost.generated),
                },
                Step::SelectFrames(selection) => {
                    let result = (self.source)(&selection);
                    let response = response.get_or_insert_with(ToolResponse::new);
                    for index in 0..result.unwrap_or(0) {
                        let (labels, time) = (self.rules.labels, selection.time(index));
                        response
                            .frame_labelled(&mut text, labels, &selection, index, time)
                            .ok()?;
                        write!(text, "<{}x{}>", selection.width, selection.height).ok()?;
                    }
                    (Input::Selected(result), &mut cost.selected)
                }
                Step::CallTool(call) => {
                    let mut out = Text::new();
                    let result = match self.tool {
                        Some(tool) => {
                            tool(call.name.of(reply)?, call.arguments.of(reply)?, &mut out)
                        }
                        None => Err(ToolFailure::Unknown),
                    };
                    if result.is_ok() {
                        let response = response.get_or_insert_with(ToolResponse::new);
                        response.text(&mut text, &out).ok()?;
                    }
                    (Input::Returned(result), &mut cost.returned)
                }
                Step::Done(outcome) => {
                    return Some(Episode {
                        outcome,
                        reply,
                        conversation: text,
                    });
                }
            };
            let (moved_on, instructions) = meter.count(|| agent.handle(input).is_ok());
            if !moved_on {
                return None;
            }
            *most = instructions.max(*most);
            cost.handled += 1;
        }
    }
}
