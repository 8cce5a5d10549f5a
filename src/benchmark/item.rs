//! One question about one video: [`Item`].

use eva_core::Role;
use eva_core::prompt::trim_question;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A question about a video, and the answer that counts as correct.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its number, by which its result is found again; unique within a benchmark.
    pub index: u64,
    /// Paths of the video as they are written; the first is watched. Never empty.
    pub videos: Vec<String>,
    /// The messages to begin with. At least one is the user's.
    pub prompt: Vec<Prompt>,
    /// The correct answer, as it is written.
    pub ground_truth: String,
    /// What else the item says: members that are none of the above, for example `question_type`.
    pub extras: Map<String, Value>,
}

/// A message of an [`Item`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// Who speaks.
    pub role: Role,
    /// The text. A literal `\n` (backslash, n) in it stays one: the published prompts have it.
    pub content: String,
}

/// Why a line is not an [`Item`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// There is nothing to compare an answer with.
    #[error("`reward_model.ground_truth` is missing: write the correct answer there, as text")]
    GroundTruth,
    /// The number can't be used to find the result again.
    #[error("`index` is not a whole number from 0 on: correct it, or leave it out")]
    Index,
    /// No question is asked.
    #[error("`prompt` has no message of role `user`: add one that asks the question")]
    NoQuestion,
    /// Not JSON at all, for instance half a line.
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
    /// The messages can't be read.
    #[error(
        "`prompt` is not a list of messages: write [{{\"role\": \"user\", \"content\": \"...\"}}]"
    )]
    Prompt,
    /// Longer than any item can be.
    #[error("longer than {0} bytes: write one item a line")]
    TooLong(usize),
    /// No video is named.
    #[error("`videos` is not a list of paths: write [\"x.mp4\"]")]
    Videos,
}

impl Item {
    /// Reads one line of JSON. An item without `index` gets `number`.
    ///
    /// # Errors
    /// [`ItemError`] says which member is wrong.
    pub fn parse(line: &[u8], number: u64) -> Result<Self, ItemError> {
        let mut members: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|error| ItemError::NotAnObject(error.to_string()))?;
        let videos = videos(members.remove("videos")).ok_or(ItemError::Videos)?;
        let prompt: Vec<Prompt> = members
            .remove("prompt")
            .and_then(|prompt| serde_json::from_value(prompt).ok())
            .ok_or(ItemError::Prompt)?;
        if !prompt.iter().any(|message| message.role == Role::User) {
            return Err(ItemError::NoQuestion);
        }
        let ground_truth = match members
            .get("reward_model")
            .and_then(|rule| rule.get("ground_truth"))
        {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return Err(ItemError::GroundTruth),
        };
        members.remove("reward_model");
        let index = match members.remove("index") {
            None | Some(Value::Null) => number,
            Some(index) => whole(&index).ok_or(ItemError::Index)?,
        };
        Ok(Self {
            index,
            videos,
            prompt,
            ground_truth,
            extras: members,
        })
    }

    /// The path of the video that is watched, as it is written.
    #[must_use]
    pub fn video(&self) -> &str {
        self.videos.first().map_or("", String::as_str)
    }

    /// The question: the first user message, trimmed.
    #[must_use]
    pub fn question(&self) -> &str {
        let asked = |message: &&Prompt| message.role == Role::User;
        let message = self.prompt.iter().find(asked);
        message.map_or("", |message| trim_question(&message.content))
    }

    /// Whether any answer can match the ground truth. It has to hold a letter or a digit: some
    /// published items have `@`, which no option is called.
    #[must_use]
    pub fn is_answerable(&self) -> bool {
        is_answerable(&self.ground_truth)
    }
}

/// See [`Item::is_answerable`].
pub(crate) fn is_answerable(ground_truth: &str) -> bool {
    ground_truth.chars().any(char::is_alphanumeric)
}

fn videos(written: Option<Value>) -> Option<Vec<String>> {
    let videos: Vec<String> = serde_json::from_value(written?).ok()?;
    let named = videos.first().is_some_and(|path| !path.trim().is_empty());
    named.then_some(videos)
}

/// A whole number, also as tables write it that have passed through floats or text.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            // Beyond 2^53 not every whole number can be written as a float.
            let exact = float.fract() == 0.0 && (0.0..9e15).contains(&float);
            exact.then_some(float as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn line(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut value = serde_json::json!({
            "videos": ["/data/videos/x.mp4"],
            "prompt": [{"role": "user", "content": " Who?\\nA. Ann "}],
            "reward_model": {"style": "rule", "ground_truth": "C", "reward_fn": "video_crop"},
            "index": 7,
            "uid": "a-1",
            "question_type": "person",
        });
        change(&mut value);
        value.to_string().into_bytes()
    }

    #[test]
    fn a_published_line_is_read_with_its_extras_and_its_literal_line_breaks() {
        let item = Item::parse(&line(|_| ()), 3).unwrap();
        assert_eq!((item.index, item.video()), (7, "/data/videos/x.mp4"));
        assert_eq!(item.question(), "Who?\\nA. Ann");
        assert_eq!(item.prompt[0].content, " Who?\\nA. Ann ");
        assert_eq!(item.ground_truth, "C");
        let extras: Vec<&String> = item.extras.keys().collect();
        assert_eq!(extras, ["question_type", "uid"]);
    }

    /// Items of our own in the shapes of the six published files.
    #[test]
    fn lines_in_the_shapes_of_the_six_published_files_are_read() {
        let shapes = [
            // LSDBench: literal line breaks.
            (
                r#"{"videos": ["1f-2a.mp4"], "prompt": [{"role": "user", "content": "What next?\\nA: Saws it.\\nB: Paints it."}], "reward_model": {"style": "rule", "ground_truth": "A", "reward_fn": "video_crop"}, "index": 0}"#,
                "What next?\\nA: Saws it.\\nB: Paints it.",
                &[][..],
            ),
            // LVBench: kinds as a list in Python's writing.
            (
                r#"{"videos": ["Ab_1.mp4"], "prompt": [{"role": "user", "content": "Who?\\n(A) Ann\\n(B) Bob"}], "reward_model": {"style": "rule", "ground_truth": "B", "reward_fn": "video_crop"}, "index": 1, "uid": 55, "question_type": "['reasoning', 'summarization']", "time_reference": "00:15-00:19", "id": "Ab_1_55", "video_type": "sport"}"#,
                "Who?\\n(A) Ann\\n(B) Bob",
                &["id", "question_type", "time_reference", "uid", "video_type"],
            ),
            // LongVideoBench: line breaks, five options.
            (
                r#"{"videos": ["q-Z.mp4"], "prompt": [{"role": "user", "content": "Where?\nA. in\nE. out\nAnswer with a letter."}], "reward_model": {"style": "rule", "ground_truth": "E", "reward_fn": "video_crop"}, "index": 2}"#,
                "Where?\nA. in\nE. out\nAnswer with a letter.",
                &[],
            ),
            // MLVU: absolute paths.
            (
                r#"{"videos": ["/mnt/data/MLVU/video/1_plotQA/movie_6.mp4"], "prompt": [{"role": "user", "content": "Watch.Question: Why?\nOptions:\n(A) \n(D)\nOnly the best."}], "reward_model": {"style": "rule", "ground_truth": "@", "reward_fn": "video_crop"}, "index": 3}"#,
                "Watch.Question: Why?\nOptions:\n(A) \n(D)\nOnly the best.",
                &[],
            ),
            // Video-Holmes: both kinds of line breaks, escaped letters, an explanation.
            (
                r#"{"videos": ["_h.mp4"], "prompt": [{"role": "user", "content": "Order?\\n\u2460 a\nA. \u2460-\u2461"}], "reward_model": {"style": "rule", "ground_truth": "A", "reward_fn": "video_crop"}, "index": 4, "Question_ID": 9, "Question_Type": "TA", "Explanation": "First (0:00) \u2192 then."}"#,
                "Order?\\n\u{2460} a\nA. \u{2460}-\u{2461}",
                &["Explanation", "Question_ID", "Question_Type"],
            ),
            // Video-MME: quotation marks.
            (
                r#"{"videos": ["5w.mp4"], "prompt": [{"role": "user", "content": "What is \"it\"?\nA. 1.\nD. 4."}], "reward_model": {"style": "rule", "ground_truth": "D", "reward_fn": "video_crop"}, "index": 5}"#,
                "What is \"it\"?\nA. 1.\nD. 4.",
                &[],
            ),
        ];
        for (number, (line, question, extras)) in shapes.into_iter().enumerate() {
            let item = Item::parse(line.as_bytes(), 99).unwrap();
            assert_eq!(item.index, number as u64);
            assert_eq!(item.question(), question);
            assert_eq!(item.extras.keys().collect::<Vec<_>>(), extras);
            assert_eq!(item.is_answerable(), item.ground_truth != "@");
        }
    }

    #[test]
    fn an_item_without_an_index_gets_the_number_of_its_line() {
        for absent in [Value::Null, Value::from(3.0), Value::from(" 3 ")] {
            let item = Item::parse(&line(|value| value["index"] = absent), 3).unwrap();
            assert_eq!(item.index, 3);
        }
        let without = line(|value| _ = value.as_object_mut().unwrap().remove("index"));
        assert_eq!(Item::parse(&without, 3).unwrap().index, 3);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        let wrong =
            |key: &str, value: Value| Item::parse(&line(|line| line[key] = value), 0).unwrap_err();
        let json = |text| serde_json::from_str::<Value>(text).unwrap();
        for videos in ["[]", "\"x.mp4\"", "[1]", "[\" \"]", "null"] {
            assert_eq!(wrong("videos", json(videos)), ItemError::Videos);
        }
        for prompt in [
            "null",
            "{}",
            "[\"Who?\"]",
            "[{\"role\": \"judge\", \"content\": \"\"}]",
        ] {
            assert_eq!(wrong("prompt", json(prompt)), ItemError::Prompt);
        }
        assert_eq!(wrong("prompt", json("[]")), ItemError::NoQuestion);
        for truth in [
            "null",
            "{}",
            "{\"ground_truth\": null}",
            "{\"ground_truth\": [\"C\"]}",
        ] {
            assert_eq!(wrong("reward_model", json(truth)), ItemError::GroundTruth);
        }
        for index in ["-1", "1.5", "\"a\"", "[]", "1e300", "true"] {
            assert_eq!(wrong("index", json(index)), ItemError::Index);
        }
        for text in ["", "{", "[]", "null", "\u{feff}{}", "{\"a\": 1} {}"] {
            let error = Item::parse(text.as_bytes(), 0).unwrap_err();
            assert!(
                matches!(error, ItemError::NotAnObject(_)),
                "{text}: {error}"
            );
        }
        assert!(Item::parse(&[b'"', 0xff, b'"'], 0).is_err());
        assert!(Item::parse(&b"[".repeat(100_000), 0).is_err());
    }

    #[test]
    fn a_number_is_a_ground_truth_and_a_sign_alone_is_one_that_nothing_matches() {
        let truth = |value: Value| {
            let text = line(|line| line["reward_model"]["ground_truth"] = value);
            Item::parse(&text, 0).unwrap()
        };
        assert_eq!(truth(Value::from(4)).ground_truth, "4");
        assert!(truth(Value::from("c")).is_answerable());
        for sign in ["@", "", " - "] {
            assert!(!truth(Value::from(sign)).is_answerable(), "{sign}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = Item::parse(&bytes, 0);
        }

        #[test]
        fn no_damage_to_a_good_line_makes_the_parser_panic(at in 0usize..250, byte: u8, cut: bool) {
            let mut bytes = line(|_| ());
            let at = at % bytes.len();
            if cut {
                bytes.truncate(at);
                prop_assert!(Item::parse(&bytes, 0).is_err());
            } else {
                bytes[at] = byte;
                _ = Item::parse(&bytes, 0);
            }
        }

        #[test]
        fn any_texts_come_back_as_they_were_written(
            index in 0u64..1 << 53, video in "[^\\s]\\PC{0,20}", question: String, truth: String,
            extra: String,
        ) {
            let text = line(|line| {
                line["index"] = index.into();
                line["videos"] = serde_json::json!([video]);
                line["prompt"][0]["content"] = question.clone().into();
                line["reward_model"]["ground_truth"] = truth.clone().into();
                line["Explanation"] = extra.clone().into();
            });
            let item = Item::parse(&text, 0).unwrap();
            prop_assert_eq!(item.index, index);
            prop_assert_eq!(item.video(), video);
            prop_assert_eq!(&item.prompt[0].content, &question);
            prop_assert_eq!(item.question(), trim_question(&question));
            prop_assert_eq!(item.ground_truth, truth);
            prop_assert_eq!(&item.extras["Explanation"], &Value::from(extra));
        }
    }
}
