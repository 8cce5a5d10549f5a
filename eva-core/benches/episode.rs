//! What the agent itself takes of an episode: all that is neither model nor decoder.
//!
//!     make bench-core
//!
//! Three turns: a scan of 64 frames, two zooms in one reply, an answer. The bar is 10 microseconds, and
//! no allocation in `agent` and `agent_with_texts`: the profiler prints a line for each kind of
//! allocation that it saw, so it prints none under these two.

use core::fmt;

use divan::{AllocProfiler, Bencher, black_box};
use eva_core::prompt::{self, ToolResponse};
use eva_core::{Agent, Input, Outcome, Rules, Step, ToolFailure, Usage, VideoInfo};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const VIDEO: VideoInfo = VideoInfo {
    duration: 600.0,
    width: 1280,
    height: 720,
    fps: 25.0,
};

/// With as many words as a model writes.
const REPLIES: [&str; 3] = [
    "Summary: no frame has been seen yet, only the length and the size of the video are known.\n\
     Plan: scan the whole video with many small frames, some 400 tokens, to find the door; or watch \
     the first minute at full size, which costs more and may miss it. The scan is the better one.\n\
     Action: <tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 0, \
     \"end_time\": 600, \"nframes\": 64, \"resize\": 0.1}}</tool_call>",
    "Summary: frames 0 to 30 show an empty hall, frames 31 to 36 a person at the door, the others the \
     street.\nPlan: zoom into the time between 290 and 345 seconds, where the door opens, and look at \
     the end again.\nAction: <tool_call>{\"tool\": \"frame_select\", \"arguments\": \
     {\"start_time\": 290, \"end_time\": 345.5, \"nframes\": 16, \"resize\": 0.4}}\n\
     {\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 580, \"end_time\": 600, \
     \"nframes\": 32, \"resize\": 1.0}}</tool_call>",
    "Summary: the woman in red opens the door at 312 seconds and leaves.\nReflection: this is seen \
     clearly in three frames, and the end shows nothing against it: enough.\n\
     <answer> B </answer>",
];

/// Where text for the model goes: its length is kept, for a real one would go to a tokenizer.
struct Text(usize);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += black_box(text).len();
        Ok(())
    }
}

fn episode(mut frames: impl FnMut(&eva_core::Selection) -> fmt::Result) -> Option<Outcome> {
    let mut agent = Agent::new(Rules::published(), black_box(VIDEO));
    let mut replies = REPLIES.iter();
    loop {
        let input = match agent.step() {
            Step::Generate => Input::Generated {
                reply: black_box(replies.next()?),
                usage: Usage::default(),
            },
            Step::SelectFrames(selection) => {
                frames(selection).ok()?;
                Input::Selected(Ok(selection.nframes))
            }
            Step::CallTool(_) => Input::Returned(Err(ToolFailure::Unknown)),
            Step::Done(outcome) => return Some(outcome.clone()),
        };
        agent.handle(input).ok()?;
    }
}

#[divan::bench]
fn agent() -> Option<Outcome> {
    episode(|selection| {
        black_box(selection);
        Ok(())
    })
}

/// With the times of the frames and all that is written around question and frames.
#[divan::bench]
fn agent_with_texts() -> Option<(Outcome, usize)> {
    let mut text = Text(0);
    prompt::write_system(&mut text, prompt::SYSTEM, &[]).ok()?;
    prompt::write_question(&mut text, &VIDEO, "Who opens the door?").ok()?;
    let outcome = episode(|selection| {
        let mut response = ToolResponse::new();
        for index in 0..selection.nframes {
            black_box(selection.time(index));
            response.frame(&mut text, selection, index)?;
        }
        response.close(&mut text, "Who opens the door?")
    })?;
    Some((outcome, text.0))
}

/// The whole of `Session` with pictures of one byte: conversation, record and report.
#[divan::bench]
fn session(bencher: Bencher<'_, '_>) {
    use core::convert::Infallible;
    use eva_core::mock::ScriptedPolicy;
    use eva_core::{Frame, FrameSource, Selection, Session};

    struct Dots;

    impl FrameSource for Dots {
        type Pixels = u8;
        type Error = Infallible;

        fn info(&self) -> VideoInfo {
            VIDEO
        }

        fn frames(
            &mut self,
            selection: &Selection,
            sink: &mut dyn FnMut(Frame<u8>),
        ) -> Result<(), Infallible> {
            for time in selection.times() {
                sink(Frame { time, pixels: 0 });
            }
            Ok(())
        }
    }

    bencher
        .with_inputs(|| Session::new(Dots, ScriptedPolicy::new(REPLIES)))
        .bench_values(|mut session| session.ask("Who opens the door?").is_ok());
}

fn main() {
    // What is measured is what it should be.
    let outcome = agent();
    let ended = outcome.map(|outcome| (outcome.stop_reason, outcome.tally.num_rounds));
    if ended != Some((eva_core::StopReason::AnswerFound, 3)) {
        eprintln!("the episode does not end with an answer: {ended:?}");
        std::process::exit(1);
    }
    divan::main();
}
