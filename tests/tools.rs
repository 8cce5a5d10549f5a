//! The ready-made tools in a session: what the model is told of them, and what it reads after calls
//! of several in one reply.
#![cfg(feature = "subtitles")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use eva::core::mock::ScriptedPolicy;
use eva::core::prompt::{self, FRAME_SELECT_SPEC};
use eva::core::{OwnedMessage, OwnedPart, ToolSpec};
use eva::tools::{Crop, Memory, ReadSubtitles, Shared, Subtitles};
use eva::world::{World, WorldSource};
use eva::{
    FailedCalls, ImageTool, Pixels, Report, RgbImage, Role, Rules, Session, StopReason, Tool,
};

const SUBTITLES: &str = "WEBVTT\n\n\
    00:50.000 --> 00:58.000\n<v Ann>Here comes\n\n\
    00:58.500 --> 01:02.000\nthe first card.\n\n\
    01:30.000 --> 01:31.000\nAnd it goes.\n";

type Video = Session<Shared<WorldSource>, ScriptedPolicy>;

/// A session about a synthetic world with all three tools.
fn session(world: &World, replies: &[&str]) -> (Video, Memory) {
    let video = Shared::new(WorldSource::new(Arc::new(world.clone())));
    let notes = Memory::new();
    let session = Session::new(video.clone(), ScriptedPolicy::new(replies.iter().copied()))
        .with_rules(Rules::published().with_failed_calls(FailedCalls::TellModel))
        .with_image_tool(Crop::new(video))
        .with_tool(ReadSubtitles::new(Subtitles::parse(SUBTITLES).unwrap()))
        .with_tool(notes.clone());
    (session, notes)
}

/// What the model reads of a message: its texts, and each picture by its size.
fn read(message: &OwnedMessage<RgbImage>) -> String {
    let parts = message.parts.iter().map(|part| match part {
        OwnedPart::Text(text) => text.clone(),
        OwnedPart::Image(picture) => format!("({} x {})", picture.width, picture.height),
    });
    parts.collect()
}

fn tool_message(report: &Report<RgbImage>, index: usize) -> &OwnedMessage<RgbImage> {
    let messages = report.conversation.messages().iter();
    let mut answers = messages.filter(|message| message.role == Role::Tool);
    answers.nth(index).unwrap()
}

#[test]
fn several_tools_are_called_in_one_reply_and_answer_in_order() {
    let world = World::new(7);
    let card = world.cards()[0];
    let (x, y, time) = (card.x, card.y, card.start.ceil() + 1.0);
    let look = format!(
        r#"Reflection: the card is small. <tool_call>
        {{"tool": "crop", "arguments": {{"time": {time}, "x": {x}, "y": {y}, "w": 84, "h": 84}}}}
        {{"tool": "read_subtitles", "arguments": {{"start_time": 55, "end_time": "01:00"}}}}
        {{"tool": "frame_select", "arguments": {{"start_time": 0, "end_time": 60, "nframes": 2, "resize": 0.1}}}}
        {{"tool": "memory", "arguments": {{"note": "a card at {time} s"}}}}
        </tool_call>"#
    );
    let (mut session, notes) = session(&world, &[&look, "<answer>B</answer>"]);
    let report = session.ask("Which card comes first?").unwrap();

    let (minutes, seconds) = (time as u32 / 60, time as u32 % 60);
    let (right, bottom) = (x + 84, y + 84);
    let answer = tool_message(&report, 0);
    assert_eq!(
        read(answer),
        format!(
            "<tool_response>x {x} to {right}, y {y} to {bottom} of 224 x 168:\n\
             Frame 0 at [{minutes:02}:{seconds:02}]: (84 x 84)\n\
             [00:50] Ann: Here comes\n[00:58] the first card.\n\
             Frame 1 at [00:00]: (28 x 28)\nFrame 2 at [01:00]: (28 x 28)\n\
             Note 1 of at most 64 is kept.\n\
             If more information is needed, call the frame selection tool again.\n\n\
             Question: Which card comes first?</tool_response>"
        )
    );

    // The crop is the card itself, pixel for pixel.
    let OwnedPart::Image(picture) = &answer.parts[1] else {
        panic!("{answer:?}")
    };
    let (whole, part) = (world.render(time), &picture.frame.pixels);
    let rows = whole.rgb().chunks_exact(224 * 3).skip(y as usize).take(84);
    let expected: Vec<u8> = rows
        .flat_map(|row| &row[x as usize * 3..][..84 * 3])
        .copied()
        .collect();
    assert_eq!(part.rgb(), expected);

    assert_eq!(notes.notes(), [format!("a card at {time} s")]);
    let tally = report.trajectory.outcome.tally;
    assert_eq!((tally.frames, tally.estimated_visual_tokens), (3, 9 + 2));
    let calls = report.trajectory.turns[0].calls.iter();
    let names: Vec<&str> = calls.map(|call| call.tool.as_str()).collect();
    assert_eq!(names, ["crop", "read_subtitles", "frame_select", "memory"]);
    assert_eq!(report.stop_reason(), &StopReason::AnswerFound);
}

#[test]
fn the_model_reads_why_a_call_failed_and_may_try_again() {
    let calls = r#"<tool_call>
        {"tool": "crop", "arguments": {"time": 9, "x": 500, "y": 0, "w": 50, "h": 50}}
        {"tool": "read_subtitles", "arguments": {"start_time": 0}}
        {"tool": "memory", "arguments": {"action": "remember"}}
        </tool_call>"#;
    let (mut session, _) = session(&World::new(7), &[calls, "<answer>B</answer>"]);
    let report = session.ask("?").unwrap();
    let answer = read(tool_message(&report, 0));
    let expected = [
        "<tool_response>Error in crop: the part from x 500, y 0 is outside the frame of 224 x 168 \
         pixels: begin inside",
        "Error in read_subtitles: end_time is missing: give seconds, or a clock such as \"01:30\"",
        "Error in memory: action is \"remember\": give \"write\", \"list\" or \"clear\"",
    ];
    let lines: Vec<&str> = answer.lines().take(3).collect();
    assert_eq!(lines, expected);
    assert_eq!(report.answer(), Some("B"));
}

#[test]
fn the_system_message_tells_the_model_of_each_tool() {
    let (mut session, notes) = session(&World::new(7), &["<answer>B</answer>"]);
    let report = session.ask("?").unwrap();
    let system = read(&report.conversation.messages()[0]);

    let crop = Crop::new(session.source().clone());
    let crop: &dyn ImageTool<RgbImage, Error = _> = &crop;
    let subtitles = ReadSubtitles::new(Subtitles::default());
    let specs = [
        ToolSpec {
            name: crop.name(),
            description: crop.description(),
            parameters: crop.parameters(),
        },
        ToolSpec {
            name: subtitles.name(),
            description: subtitles.description(),
            parameters: subtitles.parameters(),
        },
        ToolSpec {
            name: notes.name(),
            description: notes.description(),
            parameters: notes.parameters(),
        },
    ];
    let mut expected = String::new();
    prompt::write_system(&mut expected, prompt::SYSTEM, &specs).unwrap();
    assert_eq!(system, expected);

    // In words, since the model reads those: one line a tool, each of them JSON.
    let listed = system.split_once("<tools>\n").unwrap().1;
    let listed = listed.split_once("\n</tools>").unwrap().0;
    let tools: Vec<serde_json::Value> = (listed.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = (tools.iter())
        .map(|tool| tool["function"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [FRAME_SELECT_SPEC.name, "crop", "read_subtitles", "memory"]
    );
    assert_eq!(
        tools[1]["function"]["description"],
        "Shows a part of the frame at time (seconds), sharp: x and y are its upper left corner, w \
         and h its size, in pixels of the video, which is 224 wide and 168 high, or as fractions of \
         it if none is above 1."
    );
    let properties = |tool: usize| &tools[tool]["function"]["parameters"]["properties"];
    for name in ["time", "x", "y", "w", "h"] {
        assert_eq!(properties(1)[name]["type"], "number");
    }
    assert_eq!(properties(2)["end_time"]["type"], "number");
    assert_eq!(properties(3)["action"]["enum"][0], "write");
}
