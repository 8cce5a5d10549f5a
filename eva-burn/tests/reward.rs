//! Rewards: ROUGE against Google's package, verified multiple choice, and their sum.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use eva_burn::train::reward::{
    FORMAT_REWARD, Grade, Rouge, Weights, completeness, is_right, last_round, open_ended,
};
use eva_core::Role;
use eva_core::trajectory::{ImageRecord, MessageRecord, PartRecord};
use proptest::prelude::*;

#[test]
fn rouge_is_bit_for_bit_that_of_googles_package() {
    let golden = include_str!("fixtures/rouge.jsonl");
    let mut pairs = 0;
    for line in golden.split('\n').filter(|line| !line.is_empty()) {
        let [reference, candidate, one, two, longest]: [String; 5] =
            serde_json::from_str(line).unwrap();
        let [one, two, longest] = [one, two, longest].map(|score| score.parse().unwrap());
        let expected = Rouge { one, two, longest };
        assert_eq!(Rouge::new(&reference, &candidate), expected, "{line}");
        pairs += 1;
    }
    assert_eq!(pairs, 1000);
}

#[test]
fn rouge_by_hand() {
    // Of 4 and 3 words, 3 are shared, 2 of them in order ("the card"), and no neighbours.
    let rouge = Rouge::new("the red card shows", "The card: red!");
    let f = |precision: f64, recall: f64| 2.0 * precision * recall / (precision + recall);
    assert_eq!(rouge.one, f(1.0, 0.75));
    assert_eq!(rouge.two, 0.0);
    assert_eq!(rouge.longest, f(2.0 / 3.0, 0.5));
    assert_eq!(rouge.mean(), (rouge.one + rouge.two + rouge.longest) / 3.0);
}

#[test]
fn texts_without_words_score_nothing() {
    for (reference, candidate) in [("", ""), ("", "a"), ("a", ""), ("漢字", "漢字"), ("-", "-")]
    {
        assert_eq!(Rouge::new(reference, candidate).mean(), 0.0);
    }
}

proptest! {
    #[test]
    fn rouge_of_any_texts_lies_within_0_and_1(a in any::<String>(), b in any::<String>()) {
        let rouge = Rouge::new(&a, &b);
        for score in [rouge.one, rouge.two, rouge.longest, rouge.mean()] {
            prop_assert!((0.0..=1.0).contains(&score), "{rouge:?}");
        }
    }

    /// Precision and recall change places, which the F-measure doesn't see.
    #[test]
    fn rouge_is_symmetric(a in "[abc ]{0,30}", b in "[abc ]{0,30}") {
        let (there, back) = (Rouge::new(&a, &b), Rouge::new(&b, &a));
        for (x, y) in [(there.one, back.one), (there.two, back.two), (there.longest, back.longest)] {
            prop_assert!((x - y).abs() < 1e-15);
        }
    }

    #[test]
    fn a_text_agrees_with_itself(words in prop::collection::vec("[a-z0-9]{1,5}", 2..20)) {
        let text = words.join(" ");
        prop_assert_eq!(Rouge::new(&text, &text.to_uppercase()).mean(), 1.0);
    }

    #[test]
    fn a_longer_shared_order_never_exceeds_the_shared_words(a in "[abc ]{0,30}", b in "[abc ]{0,30}") {
        let rouge = Rouge::new(&a, &b);
        prop_assert!(rouge.longest <= rouge.one);
    }

    #[test]
    fn grading_takes_any_text_and_stays_within_0_and_1(answer in any::<Option<String>>(), truth in any::<String>()) {
        let answer = answer.as_deref();
        for grade in [
            open_ended(answer, &truth),
            completeness(answer, &truth, &[()], |_| answer.map(str::to_owned)),
        ] {
            let reward = Weights::default().reward(grade, true);
            prop_assert!((0.0..=1.0).contains(&reward));
        }
    }
}

fn judged(answer: Option<&str>, judge: Option<&str>) -> Grade {
    completeness(answer, "B", &["frame"], |frames| {
        assert_eq!(frames, ["frame"]);
        judge.map(str::to_owned)
    })
}

#[test]
fn a_right_choice_counts_only_when_the_judge_is_right_too() {
    let right = |accuracy| Grade::Right { accuracy };
    assert_eq!(judged(Some(" b\n"), Some("B")), right(1.0));
    assert_eq!(judged(Some("B"), Some("C")), right(0.0));
    assert_eq!(judged(Some("B"), None), right(0.0));
    assert_eq!(judged(Some("C"), Some("B")), Grade::Wrong);
    assert_eq!(judged(Some(" "), Some("B")), Grade::Unanswered);
    assert_eq!(judged(None, Some("B")), Grade::Unanswered);
}

#[test]
fn the_judge_is_asked_only_when_it_can_decide() {
    let unasked = |answer, frames: &[u8]| {
        completeness(answer, "B", frames, |_| panic!("asked about {answer:?}"))
    };
    assert_eq!(unasked(Some("C"), &[1]), Grade::Wrong);
    assert_eq!(unasked(None, &[1]), Grade::Unanswered);
    assert_eq!(unasked(Some("B"), &[]), Grade::Right { accuracy: 0.0 });
}

#[test]
fn an_empty_answer_is_never_right() {
    assert!(!is_right(Some(""), "") && !is_right(None, "") && !is_right(Some(" "), " "));
    assert!(is_right(Some("straße"), "STRASSE"), "as Python's upper()");
}

#[test]
fn the_format_reward_is_for_wrong_answers_after_a_look() {
    let weights = Weights::default();
    let right = |accuracy| Grade::Right { accuracy };
    for (grade, looked, reward) in [
        (right(1.0), true, 1.0),
        (right(1.0), false, 1.0),
        (right(0.0), true, 0.0),
        (right(0.25), true, 0.25),
        (Grade::Wrong, true, FORMAT_REWARD),
        (Grade::Wrong, false, 0.0),
        (Grade::Unanswered, true, 0.0),
        (Grade::Unanswered, false, 0.0),
    ] {
        assert_eq!(
            weights.reward(grade, looked),
            reward,
            "{grade:?}, looked: {looked}"
        );
    }
    let weights = Weights {
        accuracy: 0.5,
        format: 2.0,
    };
    assert_eq!(weights.reward(right(1.0), true), 0.5);
    assert_eq!(weights.reward(Grade::Wrong, true), 2.0 * FORMAT_REWARD);
}

#[test]
fn an_open_ended_answer_earns_its_rouge() {
    assert_eq!(
        open_ended(Some("the RED card."), "the red card"),
        Grade::Right { accuracy: 1.0 }
    );
    assert_eq!(open_ended(Some("blue"), "the red card"), Grade::Wrong);
    assert_eq!(open_ended(Some("\n"), "the red card"), Grade::Unanswered);
    let partly = open_ended(Some("a red card"), "the red card").accuracy();
    assert!(
        (partly - (2.0 / 3.0 + 0.5 + 2.0 / 3.0) / 3.0).abs() < 1e-15,
        "{partly}"
    );
}

#[test]
fn the_last_round_is_the_last_look_that_brought_frames() {
    let frame = |time| ImageRecord {
        time,
        width: 28,
        height: 28,
    };
    let message = |role, times: &[f64]| MessageRecord {
        role,
        parts: std::iter::once(PartRecord::Text("text".to_owned()))
            .chain(times.iter().map(|time| PartRecord::Image(frame(*time))))
            .collect(),
    };
    let mut messages = vec![message(Role::User, &[9.0]), message(Role::Assistant, &[])];
    assert_eq!(last_round(&messages), []);
    messages.push(message(Role::Tool, &[1.0, 2.0]));
    messages.push(message(Role::Tool, &[3.0, 4.0]));
    messages.push(message(Role::Assistant, &[]));
    messages.push(message(Role::Tool, &[]));
    assert_eq!(last_round(&messages), [frame(3.0), frame(4.0)]);
}
