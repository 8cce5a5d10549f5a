//! What the rules say of a whole run.

use eva_core::{Selection, Trajectory};

use super::{Limits, Pair, Reason};

/// Why the run is undesirable, by rule alone: a wrong answer or none, an answer without a look, looks
/// that are too much or too little. Empty when nothing speaks against it.
pub(super) fn reasons(pair: &Pair, trajectory: &Trajectory, limits: &Limits) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match &trajectory.outcome.answer {
        None => reasons.push(Reason::NoAnswer),
        Some(answer) => {
            if !pair.is_right(answer) {
                reasons.push(Reason::WrongAnswer);
            }
            if trajectory.frame_times().next().is_none() {
                reasons.push(Reason::NoFrames);
            }
        }
    }
    let mut before: Vec<Selection> = Vec::new();
    let calls = trajectory.turns.iter().flat_map(|turn| &turn.calls);
    for look in calls
        .filter(|call| call.frames > 0)
        .filter_map(|call| call.selection)
    {
        let faults = limits.faults(&pair.question, &trajectory.video, &before, &look);
        reasons.extend(faults.into_iter().map(Reason::from));
        before.push(look);
    }
    reasons.sort_unstable();
    reasons.dedup();
    reasons
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use eva_core::mock::{ScriptedPolicy, SolidSource};
    use eva_core::{Session, VideoInfo};

    fn call(start: u32, end: u32, nframes: u32, resize: f64) -> String {
        format!(
            "<tool_call>{{\"tool\": \"frame_select\", \"arguments\": {{\"start_time\": {start}, \
             \"end_time\": {end}, \"nframes\": {nframes}, \"resize\": {resize}}}}}</tool_call>"
        )
    }

    #[track_caller]
    fn expect(replies: &[String], expected: &[Reason]) {
        let pair = Pair::parse(
            br#"{"video": "x", "question": "What does he say?", "answer": "no", "kind": "open_ended"}"#,
        )
        .unwrap();
        let info = VideoInfo {
            duration: 900.0,
            width: 1280,
            height: 720,
            fps: 25.0,
        };
        let policy = ScriptedPolicy::new(replies.iter().cloned());
        let report = Session::new(SolidSource::new(info), policy)
            .ask("?")
            .unwrap();
        assert_eq!(
            reasons(&pair, &report.trajectory, &Limits::default()),
            expected
        );
    }

    #[test]
    fn each_rule_is_found_and_a_good_run_has_nothing_against_it() {
        let right = "<answer>No.</answer>".to_owned();
        let wrong = "<answer>yes</answer>".to_owned();
        let scan = call(0, 900, 32, 0.1);
        let sharp = call(40, 44, 4, 0.6);
        expect(&[scan.clone(), sharp.clone(), right.clone()], &[]);
        expect(&[scan.clone(), wrong.clone()], &[Reason::WrongAnswer]);
        expect(std::slice::from_ref(&right), &[Reason::NoFrames]);
        expect(&[wrong], &[Reason::NoFrames, Reason::WrongAnswer]);
        expect(&["I don't know".to_owned()], &[Reason::NoAnswer]);
        expect(&[call(40, 44, 40, 0.6), right.clone()], &[Reason::TooDense]);
        expect(&[call(0, 900, 4, 0.1), right.clone()], &[Reason::TooSparse]);
        expect(&[call(40, 44, 4, 0.1), right.clone()], &[Reason::TooSmall]);
        expect(&[sharp.clone(), sharp, right], &[Reason::Rewatched]);
    }
}
