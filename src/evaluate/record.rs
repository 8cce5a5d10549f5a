//! The result of one item: [`Record`].

use eva_core::StopReason;
use eva_core::prompt::trim_question;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::score::is_correct;
use crate::benchmark::Item;

/// The result of one item, a line of `results.jsonl`.
///
/// The fields up to `error` are those of the published evaluation, whose files can be read too;
/// what they lack is 0 or empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Number of the item.
    pub index: u64,
    /// Paths of its video, as the item has them.
    pub videos: Vec<String>,
    /// The correct answer.
    #[serde(deserialize_with = "text")]
    pub gt: String,
    /// The answer that was given. In a file, none is the empty text, as in the published files.
    #[serde(serialize_with = "or_empty", deserialize_with = "if_any")]
    pub answer: Option<String>,
    /// Why the run ended, by its published name.
    pub stop_reason: String,
    /// Replies of the model.
    pub num_rounds: u32,
    /// Prompt and completion tokens of the last turn.
    pub total_tokens: u64,
    /// Visual tokens of all selections, as estimated before the frames are fetched.
    pub estimated_visual_tokens: u64,
    /// What went wrong, if anything did.
    pub error: Option<String>,
    /// Length of the video in seconds; 0 when it was not opened, or it is not known.
    pub video_seconds: f64,
    /// Frames delivered.
    pub frames: u64,
    /// Prompt tokens of all turns.
    pub prompt_tokens: u64,
    /// Those of them that an earlier turn had computed.
    pub cached_tokens: u64,
    /// Tokens generated in all turns.
    pub completion_tokens: u64,
    /// Time spent in the policy, waiting for a model that others use included.
    pub seconds_model: f64,
    /// Time spent in the source, opening it included.
    pub seconds_decoder: f64,
    /// What else the item says.
    pub extras: Map<String, Value>,
}

impl Record {
    /// The record of an item that was not answered yet.
    #[must_use]
    pub fn new(item: &Item) -> Self {
        Self {
            index: item.index,
            videos: item.videos.clone(),
            gt: item.ground_truth.clone(),
            extras: item.extras.clone(),
            ..Self::default()
        }
    }

    /// Whether the answer counts as correct, by [`is_correct`].
    #[must_use]
    pub fn is_correct(&self) -> bool {
        let answer = self.answer.as_deref();
        answer.is_some_and(|answer| is_correct(answer, &self.gt))
    }

    /// Whether there is no answer but white space, which the published scorer counts as a failure.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        let answer = self.answer.as_deref().unwrap_or_default();
        trim_question(answer).is_empty()
    }

    /// Whether the run came to an end that is the model's own. The others have an error, or a stop
    /// reason such as `exception`, and can be retried.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let reason: Option<StopReason> = self.stop_reason.parse().ok();
        let failed = self.error.as_ref().is_some_and(|error| !error.is_empty());
        !failed && reason.is_some_and(|reason| reason.is_settled())
    }

    /// Reads a line. It has to have an `index`: without one it is nobody's result.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Indexed {
            #[serde(rename = "index")]
            _index: u64,
        }
        _ = serde_json::from_slice::<Indexed>(line).ok()?;
        serde_json::from_slice(line).ok()
    }
}

/// A text, or what Python writes for another value: so does the published scorer read it.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text,
        other => other.to_string(),
    })
}

/// The same, where nothing and the empty text are no answer.
fn if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(from)?;
    if value.is_null() {
        return Ok(None);
    }
    let text = text(value).map_err(serde::de::Error::custom)?;
    Ok((!text.is_empty()).then_some(text))
}

fn or_empty<S: Serializer>(answer: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(answer.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_line_of_the_published_evaluation_is_read() {
        let line = br#"{"index": 3, "videos": ["x.mp4"], "gt": "C", "answer": " c",
            "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 900,
            "estimated_visual_tokens": 640, "error": null, "messages": []}"#;
        let record = Record::parse(line).unwrap();
        assert_eq!((record.index, record.num_rounds, record.frames), (3, 2, 0));
        assert!(record.is_correct() && record.is_settled());
    }

    #[test]
    fn no_answer_is_written_as_the_published_evaluation_writes_it() {
        let line = serde_json::to_string(&Record::default()).unwrap();
        assert!(line.contains("\"answer\":\"\""), "{line}");
        let mut record = Record::parse(line.as_bytes()).unwrap();
        assert_eq!(record.answer, None);
        record.answer = Some(" \u{1f}".to_owned());
        assert!(record.is_unanswered() && !record.is_correct());
    }

    #[test]
    fn values_that_are_no_texts_are_read_as_the_published_scorer_reads_them() {
        for (gt, answer) in [
            ("3", "3"),
            ("2.5", "2.5"),
            ("true", "\"TRUE\""),
            ("null", "\"none\""),
        ] {
            let line = format!("{{\"index\": 1, \"gt\": {gt}, \"answer\": {answer}}}");
            assert!(
                Record::parse(line.as_bytes()).unwrap().is_correct(),
                "{line}"
            );
        }
        let line = br#"{"index": 1, "gt": null, "answer": null}"#;
        assert!(Record::parse(line).unwrap().is_unanswered());
    }

    #[test]
    fn what_has_no_index_is_no_record() {
        for line in ["", "{}", "{\"index\": null}", "[]", "3", "{\"index\": 3"] {
            assert_eq!(Record::parse(line.as_bytes()), None, "{line}");
        }
        assert!(Record::parse(b"{\"index\": 3}").is_some());
    }

    #[test]
    fn records_with_an_error_or_an_end_that_is_not_the_models_can_be_retried() {
        let record = |stop_reason: &str, error: Option<&str>| Record {
            stop_reason: stop_reason.to_owned(),
            error: error.map(str::to_owned),
            ..Record::default()
        };
        for reason in [
            "answer_found",
            "max_turns_exceeded",
            "no_answer_no_tool_call",
            "no_valid_tool_call",
        ] {
            assert!(record(reason, None).is_settled());
            assert!(record(reason, Some("")).is_settled());
            assert!(!record(reason, Some("disk full")).is_settled());
        }
        for reason in ["exception", "openai_bad_request", "no_nframes", "", "new"] {
            assert!(!record(reason, None).is_settled(), "{reason}");
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was() {
        let mut record = Record {
            index: 9,
            gt: "line\nbreak".to_owned(),
            answer: Some("\u{2028}".to_owned()),
            seconds_model: 0.1,
            ..Record::default()
        };
        record.extras.insert("duration".to_owned(), "short".into());
        let line = serde_json::to_vec(&record).unwrap();
        assert!(!line.contains(&b'\n'));
        assert_eq!(Record::parse(&line), Some(record));
    }
}
