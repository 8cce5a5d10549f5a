//! The episodes, and what must come of each.

use core::fmt::Write;

use eva_core::{
    Abort, Agent, FailedCalls, Input, Rules, SelectFailed, Step, StopReason, ToolFailure, Usage,
};

use crate::check;
use crate::host::{Cost, Episode, Host, Text, VIDEO};
use crate::meter::Meter;

const SCAN: &str = r#"Plan: scan. <tool_call>{"tool": "frame_select", "arguments":
    {"start_time": 0, "end_time": 600, "nframes": 8, "resize": 0.1}}</tool_call>"#;
const ZOOM: &str = r#"Plan: zoom. <tool_call>{"tool": "frame_select", "parameters":
    {"start_time": 50.5, "end_time": 100, "nframes": 2, "resize": null}}</tool_call>"#;
const ANSWER: &str = "Reflection: enough. <answer>\n B </answer>";

/// A player of episodes: counts them, and what they cost.
struct Player<'a> {
    meter: &'a Meter,
    cost: &'a mut Cost,
    played: u32,
}

impl Player<'_> {
    fn play<'a>(&mut self, host: &Host<'a>) -> Episode<'a> {
        self.played += 1;
        match host.play(self.meter, self.cost) {
            Some(episode) => episode,
            None => crate::fail("the agent refused its own step", self.played),
        }
    }

    /// Plays `host` and checks that it ends without an answer, for this reason.
    fn ends(&mut self, host: &Host<'_>, reason: &str) {
        let episode = self.play(host);
        check!(episode.outcome.answer.is_none());
        if !is_named(&episode.outcome.stop_reason, reason) {
            crate::fail(reason, self.played);
        }
    }
}

fn is_named(reason: &StopReason, name: &str) -> bool {
    let mut text = heapless::String::<512>::new();
    write!(text, "{reason}").is_ok() && text == name && name.parse() == Ok(reason.clone())
}

/// Plays all, and gives their number.
#[inline(never)]
pub fn play_all(meter: &Meter, cost: &mut Cost) -> u32 {
    let mut player = Player {
        meter,
        cost,
        played: 0,
    };
    answers(&mut player);
    looks_again(&mut player);
    calls_a_tool_of_the_host(&mut player);
    keeps_to_the_budget(&mut player);
    ends_for_every_reason(&mut player);
    goes_on_where_the_rules_say_so(&mut player);
    refuses_what_does_not_fit();
    player.played
}

fn answers(player: &mut Player<'_>) {
    let episode = player.play(&Host::new(&[ANSWER]));
    check!(episode.outcome.stop_reason == StopReason::AnswerFound);
    check!(
        episode
            .outcome
            .answer
            .and_then(|span| span.of(episode.reply))
            == Some("B")
    );
    check!(episode.outcome.tally.num_rounds == 1);
    check!(episode.outcome.tally.total_tokens == 110);

    let episode = player.play(&Host::new(&["I am sure. Answer: Ж)"]));
    check!(
        episode
            .outcome
            .answer
            .and_then(|span| span.of(episode.reply))
            == Some("Ж")
    );
}

fn looks_again(player: &mut Player<'_>) {
    let episode = player.play(&Host::new(&[SCAN, ZOOM, ANSWER]));
    check!(episode.outcome.stop_reason == StopReason::AnswerFound);
    let tally = episode.outcome.tally;
    check!((tally.num_rounds, tally.frames) == (3, 10));
    check!(tally.estimated_visual_tokens == 8 * 5 * 3 + 2 * 26 * 46);
    let text = "Video Length: 599 seconds. Original video resolution: 720p. Who wins?\
        <tool_response>Frame 0 at [00:00]: <140x84>\nFrame 1 at [01:25]: <140x84>\n\
        Frame 2 at [02:51]: <140x84>\nFrame 3 at [04:17]: <140x84>\n\
        Frame 4 at [05:42]: <140x84>\nFrame 5 at [07:08]: <140x84>\n\
        Frame 6 at [08:34]: <140x84>\nFrame 7 at [10:00]: <140x84>\n\
        If more information is needed, call the frame selection tool again.\n\n\
        Question: Who wins?</tool_response>\
        <tool_response>Frame 0 at [00:50]: <1288x728>\nFrame 1 at [01:40]: <1288x728>\n\
        If more information is needed, call the frame selection tool again.\n\n\
        Question: Who wins?</tool_response>";
    check!(episode.conversation == text);
}

fn calls_a_tool_of_the_host(player: &mut Player<'_>) {
    let note = |name: &str, arguments: &str, out: &mut Text| {
        if name != "note" {
            return Err(ToolFailure::Unknown);
        }
        if arguments == r#"{"forget": 1}"# {
            return Err(ToolFailure::Failed);
        }
        write!(out, "noted {arguments}").map_err(|_| ToolFailure::Failed)
    };
    let both = r#"<tool_call>{"tool": "note", "arguments": {"text": "a dog"}}
        {"tool": "frame_select", "arguments": {"start_time": 3, "end_time": 9, "nframes": 1}}
        </tool_call>"#;
    let replies = [both, ANSWER];
    let mut host = Host::new(&replies);
    host.tool = Some(note);
    let episode = player.play(&host);
    check!(episode.outcome.stop_reason == StopReason::AnswerFound);
    let text = "Video Length: 599 seconds. Original video resolution: 720p. Who wins?\
        <tool_response>noted {\"text\": \"a dog\"}\nFrame 0 at [00:03]: <1288x728>\n\
        If more information is needed, call the frame selection tool again.\n\n\
        Question: Who wins?</tool_response>";
    check!(episode.conversation == text);

    host.replies = &[r#"<tool_call>{"tool": "note", "arguments": {"forget": 1}}</tool_call>"#];
    player.ends(&host, "call_tool_failed");
    host.replies = &[r#"<tool_call>{"tool": "unheard", "arguments": {}}</tool_call>"#];
    player.ends(&host, "no_valid_tool_call");
}

fn keeps_to_the_budget(player: &mut Player<'_>) {
    let greedy = r#"<tool_call>{"tool": "frame_select", "arguments":
        {"start_time": 0, "end_time": 600, "nframes": 64, "resize": 1}}</tool_call>"#;
    let replies = [greedy, ANSWER];
    let mut host = Host::new(&replies);
    // As Python reckons it, halves to even: (12000 / (64 * 26 * 46)) ** (1 / 3) is 0.539.
    host.source = |selection| {
        check!(selection.nframes == 34);
        check!((selection.width, selection.height) == (700, 392));
        Ok(1)
    };
    let episode = player.play(&host);
    check!(episode.outcome.tally.estimated_visual_tokens == 34 * 25 * 14);
}

fn ends_for_every_reason(player: &mut Player<'_>) {
    player.ends(&Host::new(&["I wonder."]), "no_answer_no_tool_call");
    player.ends(
        &Host::new(&["<tool_call>{}</tool_call>"]),
        "no_valid_tool_call",
    );
    player.ends(&Host::new(&[SCAN; 6]), "max_turns_exceeded");
    player.ends(&Host::new(&[SCAN]), "exception");
    let mut refused = Host::new(&[]);
    refused.abort = Abort::BadRequest;
    player.ends(&refused, "openai_bad_request");
    let mut broken = Host::new(&[SCAN]);
    broken.source = |_| Err(SelectFailed);
    player.ends(&broken, "call_frame_select_failed");

    let bad = r#"<tool_call>
        {"tool": "frame_select", "arguments": {start_time}}
        {"tool": "frame_select", "arguments": {"start_time": 0, "nframes": 1}}
        {"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 9}}
        {"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 9, "nframes": 0}}
        </tool_call>"#;
    let names = "arguments_not_json; no_start_or_end_time; no_nframes; call_frame_select_failed";
    player.ends(&Host::new(&[bad]), names);
    let raises = r#"<tool_call>{"tool": "frame_select", "arguments":
        {"start_time": 0, "end_time": Infinity, "nframes": 1}}</tool_call>"#;
    player.ends(&Host::new(&[raises]), "exception");
}

fn goes_on_where_the_rules_say_so(player: &mut Player<'_>) {
    let bad = r#"<tool_call>{"tool": "frame_select", "arguments": {start_time}}</tool_call>"#;
    let replies = [bad, SCAN, SCAN, ANSWER];
    let mut host = Host::new(&replies);
    // The second scan is cut to the 30 tokens that the first leaves: 5 frames of 6.
    host.rules = Rules::published()
        .with_failed_calls(FailedCalls::TellModel)
        .with_max_run_visual_tokens(150);
    let episode = player.play(&host);
    check!(episode.outcome.stop_reason == StopReason::AnswerFound);
    let tally = episode.outcome.tally;
    check!((tally.num_rounds, tally.estimated_visual_tokens) == (4, 120 + 5 * 2 * 3));

    // What an application wants: nothing is beyond the end, and the model may look again.
    let beyond = r#"<tool_call>{"tool": "frame_select", "arguments":
        {"start_time": 700, "end_time": 800, "nframes": 8}}</tool_call>"#;
    let replies = [beyond, SCAN, ANSWER];
    let mut host = Host::new(&replies);
    host.rules = Rules::default();
    let episode = player.play(&host);
    check!(episode.outcome.stop_reason == StopReason::AnswerFound);
    check!(episode.outcome.tally.num_rounds == 3);
    // The last of 8 frames is just before the end, and labelled so.
    let end = "\nFrame 7 at [09:59]: <140x84>\n\
        If more information is needed, call the frame selection tool again.\n\n\
        Question: Who wins?</tool_response>";
    check!(episode.conversation.ends_with(end));

    let replies = [beyond];
    let mut host = Host::new(&replies);
    host.rules = Rules::default().with_failed_calls(FailedCalls::EndRun);
    player.ends(&host, "window_outside_video");
}

fn refuses_what_does_not_fit() {
    let mut agent = Agent::new(Rules::published(), VIDEO);
    let before = agent.clone();
    check!(agent.handle(Input::Selected(Ok(1))).is_err());
    check!(agent == before);
}

/// Lets `agent` handle what goes deepest: a number of more digits than the quick ways to read one
/// take, a budget to be cut, nested arguments, a call of another tool.
#[inline(never)]
pub fn handle_the_worst(agent: &mut Agent) {
    let reply = r#"<tool_call>{"tool": "frame_select", "arguments": {"x": [[{"y": [1e5]}]],
        "start_time": 2.2250738585072011360574097967091319759348195463516456480e-308, "end_time":
        179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587207096330286416692887910946555547851940402630657488671505820681908902000708383676273854845817711531764475730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880,
        "nframes": 1e3, "resize": 1}} {"tool": "note", "arguments": {}}
        {"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 1e2, "nframes": 1}}
        </tool_call>"#;
    for reply in [reply, ANSWER] {
        let usage = Usage::default();
        check!(agent.handle(Input::Generated { reply, usage }).is_ok());
        while let Step::SelectFrames(_) | Step::CallTool(_) = agent.step() {
            let input = match agent.step() {
                Step::CallTool(_) => Input::Returned(Ok(())),
                _ => Input::Selected(Ok(1)),
            };
            check!(agent.handle(input).is_ok());
        }
    }
    check!(matches!(agent.step(), Step::Done(_)));
}
