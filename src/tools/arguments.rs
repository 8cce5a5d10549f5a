//! Arguments that a model wrote: [`Arguments`].

use serde_json::{Map, Value};

/// What is wrong with the arguments of a call, in words for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentsError {
    /// They are not JSON, or not an object.
    #[error("the arguments are not a JSON object ({reason}): write {{\"name\": value, ...}}")]
    NotAnObject {
        /// What the parser met.
        reason: String,
    },
    /// One is missing, or `null`.
    #[error("{name} is missing: give {wanted}")]
    Missing {
        /// Its name.
        name: &'static str,
        /// What is expected.
        wanted: &'static str,
    },
    /// One is of another kind.
    #[error("{name} is {given}: give {wanted}")]
    Kind {
        /// Its name.
        name: &'static str,
        /// What was written, cut short.
        given: String,
        /// What is expected.
        wanted: &'static str,
    },
}

/// Longest quotation of what the model wrote, in characters.
const QUOTED: usize = 40;
const NUMBER: &str = "a number";
const TIME: &str = "seconds, or a clock such as \"01:30\"";
const TEXT: &str = "text in quotes";

/// The members of a call's arguments.
pub(super) struct Arguments(Map<String, Value>);

impl Arguments {
    pub(super) fn parse(text: &str) -> Result<Self, ArgumentsError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(other) => Err(ArgumentsError::NotAnObject {
                reason: format!("it is {}", quoted(&other)),
            }),
            Err(error) => Err(ArgumentsError::NotAnObject {
                reason: error.to_string(),
            }),
        }
    }

    /// A finite number, also when it is written as text.
    pub(super) fn number(&self, name: &'static str) -> Result<f64, ArgumentsError> {
        self.read(name, NUMBER, |value| match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        })
    }

    /// A time in seconds, also when it is written as a clock.
    pub(super) fn time(&self, name: &'static str) -> Result<f64, ArgumentsError> {
        self.read(name, TIME, |value| match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => clock(text.trim()),
            _ => None,
        })
    }

    /// A text, without white space at its ends; `None` when it is missing.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>, ArgumentsError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim())),
            Some(other) => Err(ArgumentsError::Kind {
                name,
                given: quoted(other),
                wanted: TEXT,
            }),
        }
    }

    fn read(
        &self,
        name: &'static str,
        wanted: &'static str,
        read: impl Fn(&Value) -> Option<f64>,
    ) -> Result<f64, ArgumentsError> {
        let value = match self.0.get(name) {
            None | Some(Value::Null) => return Err(ArgumentsError::Missing { name, wanted }),
            Some(value) => value,
        };
        match read(value) {
            Some(number) if number.is_finite() => Ok(number),
            _ => Err(ArgumentsError::Kind {
                name,
                given: quoted(value),
                wanted,
            }),
        }
    }
}

/// `90`, `1:30` or `0:01:30.5` in seconds.
fn clock(text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    for part in text.split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>().ok()?;
    }
    Some(seconds)
}

/// A value as the model wrote it, cut short.
fn quoted(value: &Value) -> String {
    cut(&value.to_string(), QUOTED)
}

/// `text`, or its first `longest` characters and three dots.
pub(super) fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn arguments(text: &str) -> Arguments {
        Arguments::parse(text).unwrap()
    }

    #[test]
    fn numbers_are_read_from_text_too() {
        let arguments = arguments(r#"{"a": 1, "b": -2.5, "c": " 3e2 ", "d": 4, "d": 5}"#);
        let numbers = ["a", "b", "c", "d"].map(|name| arguments.number(name).unwrap());
        assert_eq!(numbers, [1.0, -2.5, 300.0, 5.0]);
    }

    #[test]
    fn times_are_read_from_clocks_too() {
        let arguments = arguments(r#"{"a": 90, "b": "01:30", "c": "75:03", "d": "1:00:00.5"}"#);
        let times = ["a", "b", "c", "d"].map(|name| arguments.time(name).unwrap());
        assert_eq!(times, [90.0, 90.0, 4503.0, 3600.5]);
    }

    #[test]
    fn what_is_wrong_is_said_in_words_to_act_on() {
        let error = |text: &str| Arguments::parse(text).map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            error("[1]"),
            "the arguments are not a JSON object (it is [1]): write {\"name\": value, ...}"
        );
        assert!(error("{x: 1}").contains("key must be a string at line 1"));
        let arguments = arguments(r#"{"a": true, "b": null, "c": "NaN", "d": "soon"}"#);
        let number = |name| arguments.number(name).unwrap_err().to_string();
        assert_eq!(number("a"), "a is true: give a number");
        assert_eq!(number("b"), "b is missing: give a number");
        assert_eq!(number("c"), "c is \"NaN\": give a number");
        assert_eq!(
            arguments.time("d").unwrap_err().to_string(),
            "d is \"soon\": give seconds, or a clock such as \"01:30\""
        );
        assert_eq!(
            arguments.text("a").unwrap_err().to_string(),
            "a is true: give text in quotes"
        );
    }

    #[test]
    fn long_quotations_are_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü", 2), "äö...");
        let arguments = arguments(&format!(r#"{{"a": "{}"}}"#, "é".repeat(100)));
        let error = arguments.number("a").unwrap_err().to_string();
        assert!(error.chars().count() < 70, "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            if let Ok(arguments) = Arguments::parse(&text) {
                _ = (arguments.number("a"), arguments.time("a"), arguments.text("a"));
            }
        }

        #[test]
        fn any_member_is_read_as_a_finite_number_or_refused(
            member in prop_oneof!["[0-9:.eE+ -]{0,12}", ".{0,12}"],
        ) {
            let text = serde_json::json!({ "a": member }).to_string();
            let arguments = Arguments::parse(&text).unwrap();
            for result in [arguments.number("a"), arguments.time("a")] {
                prop_assert!(result.is_err() || result.is_ok_and(f64::is_finite));
            }
        }
    }
}
