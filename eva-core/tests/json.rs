//! Reading one JSON object in place, against Python's rules and serde_json.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use eva_core::json::{MAX_DEPTH, NotJson, Number, Value, read_object};
use proptest::prelude::*;

/// The value of member `x`.
fn x(text: &str) -> Result<Option<Value<'_>>, NotJson> {
    let mut found = None;
    read_object(text, |key, value| {
        if key.is("x") {
            found = Some(value);
        }
    })?;
    Ok(found)
}

fn number(value: f64, integer: bool) -> Option<Value<'static>> {
    Some(Value::Number(Number { value, integer }))
}

#[test]
fn reads_each_kind_of_value() {
    assert_eq!(x("{}"), Ok(None));
    assert_eq!(x(" {\n\"x\" : null } "), Ok(Some(Value::Null)));
    assert_eq!(x(r#"{"x":true}"#), Ok(Some(Value::Bool(true))));
    assert_eq!(x(r#"{"x":false}"#), Ok(Some(Value::Bool(false))));
    assert_eq!(x(r#"{"x":12}"#), Ok(number(12.0, true)));
    assert_eq!(x(r#"{"x":-0}"#), Ok(number(0.0, true)));
    assert_eq!(x(r#"{"x":12.0}"#), Ok(number(12.0, false)));
    assert_eq!(x(r#"{"x":-1.5E+2}"#), Ok(number(-150.0, false)));
    assert_eq!(x(r#"{"x":Infinity}"#), Ok(number(f64::INFINITY, false)));
    assert_eq!(
        x(r#"{"x":-Infinity}"#),
        Ok(number(f64::NEG_INFINITY, false))
    );
    assert!(
        matches!(x(r#"{"x":NaN}"#), Ok(Some(Value::Number(n))) if n.value.is_nan() && !n.integer)
    );
    assert_eq!(
        x(r#"{"x":[1,{"a":"}"}, "]"]}"#),
        Ok(Some(Value::Other(r#"[1,{"a":"}"}, "]"]"#)))
    );
    assert_eq!(
        x(r#"{"x":"é\"\u00e9"}"#),
        Ok(Some(Value::Other(r#""é\"\u00e9""#)))
    );
}

#[test]
fn a_number_too_large_is_infinite() {
    let digits = "9".repeat(400);
    assert_eq!(
        x(&format!("{{\"x\":{digits}}}")),
        Ok(number(f64::INFINITY, true))
    );
    assert_eq!(x(r#"{"x":1e999}"#), Ok(number(f64::INFINITY, false)));
}

#[test]
fn the_last_of_repeated_names_counts() {
    assert_eq!(x(r#"{"x":1,"y":2,"x":3}"#), Ok(number(3.0, true)));
}

#[test]
fn names_are_compared_with_escapes_decoded() {
    assert_eq!(x(r#"{"\u0078":3}"#), Ok(number(3.0, true)));
    assert_eq!(x(r#"{"\ud800":3}"#), Ok(None));
    let mut seen = 0;
    read_object(r#"{"a\/\n\t\r\b\f\"\\":3}"#, |key, _| {
        seen += usize::from(key.is("a/\n\t\r\u{8}\u{c}\"\\"));
        seen += 10 * usize::from(key.is("a"));
    })
    .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn what_is_not_json_is_refused() {
    for text in [
        "",
        "{",
        "[]",
        "1",
        "{}x",
        "{} {}",
        "{,}",
        r#"{"x"}"#,
        r#"{"x":}"#,
        r#"{"x":1,}"#,
        r#"{"x":1 "y":2}"#,
        r#"{x:1}"#,
        r#"{'x':1}"#,
        r#"{"x":1.}"#,
        r#"{"x":.5}"#,
        r#"{"x":01}"#,
        r#"{"x":+1}"#,
        r#"{"x":-}"#,
        r#"{"x":1e}"#,
        r#"{"x":1e+}"#,
        r#"{"x":0x10}"#,
        r#"{"x":1_000}"#,
        r#"{"x":nan}"#,
        r#"{"x":True}"#,
        r#"{"x":None}"#,
        r#"{"x":tru}"#,
        r#"{"x":truee}"#,
        r#"{"x":"a}"#,
        r#"{"x":"\q"}"#,
        r#"{"x":"\u12g4"}"#,
        "{\"x\":\"a\nb\"}",
        r#"{"x":[1,]}"#,
        r#"{"x":[1 2]}"#,
        r#"{"x":[1}}"#,
        r#"{"x":{"a":1]}"#,
        r#"{"x":{"a"}}"#,
        r#"{"x":{,}}"#,
        "{\"x\":\u{a0}1}",
    ] {
        assert!(x(text).is_err(), "{text}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(x(&nested(MAX_DEPTH as usize)).is_ok());
    assert!(x(&nested(1 + MAX_DEPTH as usize)).is_err());
    assert!(x(&nested(100_000)).is_err());
}

proptest! {
    #[test]
    fn agrees_with_serde_json(text in "[\\{\\}\\[\\]\",:0-9eE.+\\- \\\\unltrefals]{0,24}") {
        let text = format!("{{\"x\":{text}}}");
        let ours = x(&text).is_ok();
        let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
        // Ours takes numbers beyond f64 and lone surrogates, as Python does.
        let lenient = matches!(&theirs, Err(e) if {
            let e = format!("{e}");
            e.contains("out of range") || e.contains("surrogate") || e.contains("hex escape")
        });
        prop_assert!(ours == theirs.is_ok() || lenient, "{text}: {theirs:?}");
    }

    #[test]
    fn reads_any_number_exactly(value: f64) {
        prop_assume!(value.is_finite());
        let text = format!("{{\"x\":{value:e}}}");
        let read = x(&text).unwrap();
        prop_assert_eq!(read, number(value, false));
    }

    #[test]
    fn no_text_makes_it_panic(text: String, cut: Vec<u8>) {
        let _ = x(&text);
        if let Ok(text) = core::str::from_utf8(&cut) {
            let _ = x(text);
        }
    }
}
