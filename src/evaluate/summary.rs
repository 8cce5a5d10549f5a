//! A run in numbers: [`Scorer`] counts, [`Summary`] is what it comes to.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Record;
use super::score::{Interval, wilson};
use crate::benchmark::is_answerable;

/// Most different values of an extra that still make a category. With more it is a name or a text.
const MOST_VALUES: usize = 40;

/// What a record without a stop reason counts as.
const MISSING_REASON: &str = "missing_stop_reason";

/// The category of the length of an item's video, unless the item itself has one.
const LENGTH: &str = "duration";

/// Counts records, one by one; keeps none of them.
#[derive(Debug, Clone, Default)]
pub struct Scorer {
    items: u64,
    correct: u64,
    unanswered: u64,
    unanswerable: u64,
    errors: u64,
    sums: Means,
    stop_reasons: BTreeMap<String, u64>,
    /// By extra, then by its value. `None` for an extra that has too many of them.
    categories: BTreeMap<String, Option<Category>>,
}

/// For each value of an extra, the correct items and all.
type Category = BTreeMap<String, (u64, u64)>;

/// What a run comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Of all items.
    #[serde(flatten)]
    pub score: Score,
    /// Items without an answer, or with an empty one. They count as wrong.
    pub unanswered: u64,
    /// Items whose ground truth no answer can match. They count as wrong.
    pub unanswerable: u64,
    /// Items that ended by an error, or an end that is not the model's own.
    pub errors: u64,
    /// Means over all items.
    pub means: Means,
    /// How many items ended by which stop reason.
    pub stop_reasons: BTreeMap<String, u64>,
    /// By extra of the items, then by its value: `question_type`, `person`.
    pub categories: BTreeMap<String, BTreeMap<String, Score>>,
}

/// How many are correct.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Number of items.
    pub items: u64,
    /// Those with the correct answer.
    pub correct: u64,
    /// Their share, 0 to 1; 0 without items.
    pub accuracy: f64,
    /// Where the share lies with 95% confidence (Wilson).
    pub interval: Interval,
}

/// Means over the items of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Means {
    /// Replies of the model.
    pub rounds: f64,
    /// Frames delivered.
    pub frames: f64,
    /// Visual tokens, as estimated.
    pub visual_tokens: f64,
    /// Tokens of the last turn.
    pub total_tokens: f64,
    /// Prompt tokens of all turns.
    pub prompt_tokens: f64,
    /// Those of them that were computed before.
    pub cached_tokens: f64,
    /// Tokens generated.
    pub completion_tokens: f64,
    /// Seconds in the policy.
    pub seconds_model: f64,
    /// Seconds in the source.
    pub seconds_decoder: f64,
}

impl Score {
    /// `correct` out of `items`.
    #[must_use]
    pub fn new(correct: u64, items: u64) -> Self {
        Self {
            items,
            correct,
            accuracy: correct as f64 / items.max(1) as f64,
            interval: wilson(correct, items),
        }
    }
}

impl Means {
    fn of(record: &Record) -> Self {
        Self {
            rounds: f64::from(record.num_rounds),
            frames: record.frames as f64,
            visual_tokens: record.estimated_visual_tokens as f64,
            total_tokens: record.total_tokens as f64,
            prompt_tokens: record.prompt_tokens as f64,
            cached_tokens: record.cached_tokens as f64,
            completion_tokens: record.completion_tokens as f64,
            seconds_model: record.seconds_model,
            seconds_decoder: record.seconds_decoder,
        }
    }

    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            rounds: f(self.rounds, other.rounds),
            frames: f(self.frames, other.frames),
            visual_tokens: f(self.visual_tokens, other.visual_tokens),
            total_tokens: f(self.total_tokens, other.total_tokens),
            prompt_tokens: f(self.prompt_tokens, other.prompt_tokens),
            cached_tokens: f(self.cached_tokens, other.cached_tokens),
            completion_tokens: f(self.completion_tokens, other.completion_tokens),
            seconds_model: f(self.seconds_model, other.seconds_model),
            seconds_decoder: f(self.seconds_decoder, other.seconds_decoder),
        }
    }
}

impl Scorer {
    /// A count of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a record.
    pub fn add(&mut self, record: &Record) {
        let correct = record.is_correct();
        self.items += 1;
        self.correct += u64::from(correct);
        self.unanswered += u64::from(record.is_unanswered());
        self.unanswerable += u64::from(!is_answerable(&record.gt));
        self.errors += u64::from(!record.is_settled());
        self.sums = self.sums.zip(Means::of(record), |sum, one| sum + one);
        let reason = match record.stop_reason.as_str() {
            "" => MISSING_REASON,
            reason => reason,
        };
        match self.stop_reasons.get_mut(reason) {
            Some(count) => *count += 1,
            None => _ = self.stop_reasons.insert(reason.to_owned(), 1),
        }
        for (key, value) in &record.extras {
            self.categorise(key, value, correct);
        }
        let own = record.extras.get(LENGTH).is_some_and(Value::is_string);
        if record.video_seconds > 0.0 && !own {
            self.count(LENGTH, length(record.video_seconds), correct);
        }
    }

    /// How many are correct so far.
    #[must_use]
    pub fn score(&self) -> Score {
        Score::new(self.correct, self.items)
    }

    /// The means so far.
    #[must_use]
    pub fn means(&self) -> Means {
        let items = self.items.max(1) as f64;
        self.sums.zip(self.sums, |sum, _| sum / items)
    }

    /// What all comes to. An extra is a category when its values repeat: more than one, and fewer
    /// than half as many as items.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut categories = BTreeMap::new();
        for (key, values) in &self.categories {
            let Some(values) = values else { continue };
            let counted: u64 = values.values().map(|(_, items)| items).sum();
            if values.len() < 2 || values.len() as u64 * 2 > counted {
                continue;
            }
            let scores = values
                .iter()
                .map(|(value, (correct, items))| (value.clone(), Score::new(*correct, *items)));
            categories.insert(key.clone(), scores.collect());
        }
        Summary {
            score: self.score(),
            unanswered: self.unanswered,
            unanswerable: self.unanswerable,
            errors: self.errors,
            means: self.means(),
            stop_reasons: self.stop_reasons.clone(),
            categories,
        }
    }

    fn categorise(&mut self, key: &str, value: &Value, correct: bool) {
        match value {
            Value::String(text) => match listed(text) {
                Some(names) => names.for_each(|name| self.count(key, name, correct)),
                None => self.count(key, text, correct),
            },
            Value::Bool(_) | Value::Number(_) => self.count(key, &value.to_string(), correct),
            Value::Array(values) => {
                let names = values.iter().filter_map(Value::as_str);
                names.for_each(|name| self.count(key, name, correct));
            }
            Value::Object(inner) => {
                // Some benchmarks keep the facts about an item in an object of their own.
                for (inner_key, value) in inner.iter().filter(|(_, value)| !value.is_object()) {
                    self.categorise(&format!("{key}.{inner_key}"), value, correct);
                }
            }
            Value::Null => {}
        }
    }

    /// Counts an item as one of those that are called `name` in category `key`.
    fn count(&mut self, key: &str, name: &str, correct: bool) {
        if !self.categories.contains_key(key) {
            self.categories
                .insert(key.to_owned(), Some(BTreeMap::new()));
        }
        let Some(entry) = self.categories.get_mut(key) else {
            return;
        };
        if let Some(values) = entry {
            if !values.contains_key(name) {
                values.insert(name.to_owned(), (0, 0));
            }
            if let Some((right, items)) = values.get_mut(name) {
                *right += u64::from(correct);
                *items += 1;
            }
            if values.len() > MOST_VALUES {
                *entry = None;
            }
        }
    }
}

/// The names in a list that was written as text in Python's way, `['reasoning', 'summarization']`:
/// one benchmark names the kinds of a question so. An item of several kinds counts in each.
fn listed(text: &str) -> Option<impl Iterator<Item = &str>> {
    let inner = text.strip_prefix("['")?.strip_suffix("']")?;
    Some(inner.split("', '"))
}

/// About how long a video is. The names sort by length.
fn length(seconds: f64) -> &'static str {
    match seconds {
        ..60.0 => "00 to 01 min",
        ..180.0 => "01 to 03 min",
        ..900.0 => "03 to 15 min",
        ..3600.0 => "15 to 60 min",
        _ => "60 min on",
    }
}

impl<'a> FromIterator<&'a Record> for Scorer {
    fn from_iter<I: IntoIterator<Item = &'a Record>>(records: I) -> Self {
        let mut scorer = Self::new();
        records.into_iter().for_each(|record| scorer.add(record));
        scorer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::Map;

    fn record(index: u64, answer: Option<&str>, gt: &str, kind: &str) -> Record {
        let mut record = Record {
            index,
            gt: gt.to_owned(),
            answer: answer.map(str::to_owned),
            stop_reason: match answer {
                Some(_) => "answer_found".to_owned(),
                None => "exception".to_owned(),
            },
            num_rounds: 2 + (index % 2) as u32,
            frames: index,
            ..Record::default()
        };
        record.extras.insert("kind".to_owned(), kind.into());
        record
            .extras
            .insert("uid".to_owned(), format!("u{index}").into());
        record.extras.insert("split".to_owned(), "test".into());
        record.extras.insert(
            "more".to_owned(),
            serde_json::json!({"long": index.is_multiple_of(2)}),
        );
        record
    }

    fn records() -> [Record; 4] {
        [
            record(0, Some("a"), "A", "who"),
            record(1, Some("b"), "A", "who"),
            record(2, None, "@", "what"),
            record(3, Some("D "), "d", "what"),
        ]
    }

    #[test]
    fn everything_is_counted_over_all_items_the_failed_ones_included() {
        let summary = records().iter().collect::<Scorer>().summary();
        assert_eq!((summary.score.items, summary.score.correct), (4, 2));
        assert_eq!(summary.score.accuracy, 0.5);
        assert_eq!((summary.unanswerable, summary.errors), (1, 1));
        assert_eq!((summary.means.rounds, summary.means.frames), (2.5, 1.5));
        assert_eq!(summary.stop_reasons["answer_found"], 3);
        assert_eq!(summary.stop_reasons["exception"], 1);
    }

    #[test]
    fn extras_that_repeat_are_categories_and_names_are_not() {
        let summary = records().iter().collect::<Scorer>().summary();
        let keys: Vec<&String> = summary.categories.keys().collect();
        assert_eq!(keys, ["kind", "more.long"]);
        let who = summary.categories["kind"]["who"];
        assert_eq!((who.items, who.correct), (2, 1));
        assert_eq!(summary.categories["more.long"]["true"].correct, 1);
    }

    #[test]
    fn an_item_of_several_kinds_counts_in_each_however_they_are_listed() {
        let mut scorer = Scorer::new();
        for (kinds, answer) in [
            (serde_json::json!("['reasoning', 'summarization']"), "A"),
            (serde_json::json!("['reasoning']"), "B"),
            (serde_json::json!(["summarization", "reasoning"]), "A"),
            (serde_json::json!("[]"), "A"),
        ] {
            let mut record = record(0, Some(answer), "A", "who");
            record.extras = Map::from_iter([("question_type".to_owned(), kinds)]);
            scorer.add(&record);
        }
        let kinds = &scorer.summary().categories["question_type"];
        let counted = |kind: &str| (kinds[kind].correct, kinds[kind].items);
        assert_eq!(counted("reasoning"), (2, 3));
        assert_eq!(counted("summarization"), (2, 2));
        assert_eq!(counted("[]"), (1, 1));
    }

    #[test]
    fn the_length_of_the_video_is_a_category_in_order_of_length() {
        let mut scorer = Scorer::new();
        for seconds in [30.0, 60.0, 200.0, 1000.0, 4000.0, 0.0] {
            for index in 0..2 {
                let mut record = record(index, Some("A"), "A", "who");
                record.video_seconds = seconds;
                scorer.add(&record);
            }
        }
        // Its own word for it counts, not the length.
        let mut own = record(0, Some("A"), "A", "who");
        own.video_seconds = 5.0;
        own.extras.insert(LENGTH.to_owned(), "short".into());
        let worded: Scorer = [&own, &own, &own, &own].into_iter().collect();
        assert_eq!(worded.categories[LENGTH].as_ref().unwrap().len(), 1);
        let summary = scorer.summary();
        let lengths: Vec<&String> = summary.categories[LENGTH].keys().collect();
        assert_eq!(
            lengths,
            [
                "00 to 01 min",
                "01 to 03 min",
                "03 to 15 min",
                "15 to 60 min",
                "60 min on"
            ]
        );
    }

    #[test]
    fn answers_and_reasons_that_are_missing_are_counted() {
        let mut scorer = Scorer::new();
        for answer in [None, Some(" "), Some("A")] {
            let mut record = record(0, answer, "A", "who");
            record.stop_reason.clear();
            scorer.add(&record);
        }
        let summary = scorer.summary();
        assert_eq!(summary.unanswered, 2);
        assert_eq!(summary.stop_reasons[MISSING_REASON], 3);
    }

    #[test]
    fn a_flood_of_values_is_not_kept() {
        let mut scorer = Scorer::new();
        for index in 0..10_000 {
            scorer.add(&record(index, Some("A"), "A", "who"));
        }
        assert_eq!(scorer.categories["uid"], None);
        assert_eq!(scorer.score().correct, 10_000);
    }

    #[test]
    fn nothing_at_all_is_summed_up_without_a_division_by_zero() {
        let summary = Scorer::new().summary();
        assert_eq!((summary.score.items, summary.score.accuracy), (0, 0.0));
        assert_eq!(summary.means, Means::default());
        let text = serde_json::to_string(&summary).unwrap();
        assert!(
            text.contains("\"accuracy\":0.0") && !text.contains("null"),
            "{text}"
        );
    }
}
