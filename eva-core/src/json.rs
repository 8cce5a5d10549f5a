//! One JSON object, read in place: no allocator, no recursion.
//!
//! Accepts exactly what Python's `json.loads` accepts for an object (its `NaN` and `Infinity`
//! included, since the published code reads calls with it), except that more than
//! [`MAX_DEPTH`] levels of nesting are refused.

use core::fmt::{self, Write};

/// Deepest nesting inside the object. One bit a level records whether it is an array or an object.
///
/// ```
/// use eva_core::json::{MAX_DEPTH, read_object};
///
/// let nested = |levels: u32| {
///     let levels = levels as usize;
///     format!(r#"{{"x": {}{}}}"#, "[".repeat(levels), "]".repeat(levels))
/// };
/// assert!(read_object(&nested(MAX_DEPTH), |_, _| ()).is_ok());
/// assert!(read_object(&nested(MAX_DEPTH + 2), |_, _| ()).is_err());
/// ```
pub const MAX_DEPTH: u32 = u128::BITS;

/// The text is not a JSON object.
///
/// ```
/// let error = eva_core::json::read_object(r#"{"n": 1.}"#, |_, _| ()).unwrap_err();
/// assert_eq!(error.to_string(), "not a JSON object: unexpected text at byte 8");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object: unexpected text at byte {at}")]
pub struct NotJson {
    /// The byte at which reading stopped.
    pub at: usize,
}

/// A JSON number.
///
/// ```
/// use eva_core::json::{Number, Value, read_object};
///
/// let mut last = None;
/// read_object(r#"{"n": 8.0}"#, |_, value| last = Some(value))?;
/// assert_eq!(last, Some(Value::Number(Number { value: 8.0, integer: false })));
/// # Ok::<(), eva_core::json::NotJson>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Number {
    /// Its value; a whole number too large for `f64` is infinite.
    pub value: f64,
    /// Whether it was written without fraction and exponent: Python's `int`, not its `float`.
    pub integer: bool,
}

/// A member's value. What is not a number, a truth value or null is left unread.
///
/// ```
/// use eva_core::json::{Value, read_object};
///
/// let mut values = Vec::new();
/// read_object(r#"{"a": null, "b": true, "c": [1, {}]}"#, |_, value| values.push(value))?;
/// assert_eq!(values, [Value::Null, Value::Bool(true), Value::Other("[1, {}]")]);
/// # Ok::<(), eva_core::json::NotJson>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, `NaN`, `Infinity` or `-Infinity`
    Number(Number),
    /// A string, an array or an object: its text, quotes and brackets included.
    Other(&'a str),
}

/// A member's name, escapes not yet decoded.
///
/// ```
/// let mut found = false;
/// eva_core::json::read_object(r#"{"n\u006fte": 1}"#, |key, _| found = key.is("note"))?;
/// assert!(found);
/// # Ok::<(), eva_core::json::NotJson>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Key<'a>(&'a str);

impl Key<'_> {
    /// Whether the name, escapes decoded, is `name`.
    #[must_use]
    pub fn is(self, name: &str) -> bool {
        let mut raw = self.0.chars();
        let mut name = name.chars();
        loop {
            let Some(c) = raw.next() else {
                return name.next().is_none();
            };
            let decoded = if c == '\\' {
                match raw.next() {
                    Some('b') => '\u{8}',
                    Some('f') => '\u{c}',
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('u') => {
                        let code = raw
                            .by_ref()
                            .take(4)
                            .fold(0, |code, hex| code * 16 + hex.to_digit(16).unwrap_or(0));
                        // Half of a surrogate pair: no name that is asked for has one.
                        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                    // A quote, a slash or a backslash stands for itself.
                    Some(c) => c,
                    None => return false,
                }
            } else {
                c
            };
            if name.next() != Some(decoded) {
                return false;
            }
        }
    }
}

/// Reads `text` as one object and hands each member to `member`, in order. A repeated name is handed
/// out each time: in Python the last one counts.
///
/// ```
/// use eva_core::json::{Value, read_object};
///
/// /// The number under `name`; the last one counts.
/// fn number(text: &str, name: &str) -> Option<f64> {
///     let mut found = None;
///     read_object(text, |key, value| {
///         if let (true, Value::Number(number)) = (key.is(name), value) {
///             found = Some(number.value);
///         }
///     })
///     .ok()?;
///     found
/// }
///
/// assert_eq!(number(r#"{"x": 1, "time": 2.5}"#, "time"), Some(2.5));
/// assert_eq!(number(r#"{"time": 2.5"#, "time"), None);
/// ```
///
/// # Errors
/// [`NotJson`] when the text is anything else; members before the error have been handed out.
pub fn read_object<'a>(
    text: &'a str,
    mut member: impl FnMut(Key<'a>, Value<'a>),
) -> Result<(), NotJson> {
    let mut reader = Reader { text, at: 0 };
    reader.space();
    reader.expect(b'{')?;
    reader.space();
    if !reader.eat(b'}') {
        loop {
            let key = reader.key()?;
            let value = reader.value()?;
            member(key, value);
            reader.space();
            if reader.eat(b'}') {
                break;
            }
            reader.expect(b',')?;
            reader.space();
        }
    }
    reader.space();
    if reader.at == text.len() {
        Ok(())
    } else {
        Err(reader.error())
    }
}

/// Text written as a JSON string, quotes included.
///
/// ```
/// use eva_core::json::Quoted;
///
/// assert_eq!(Quoted("a \"b\"\n").to_string(), r#""a \"b\"\n""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\0'..='\u{1f}' => write!(f, "\\u{:04x}", c as u32)?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self) -> NotJson {
        NotJson { at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.eat(byte) {
            Ok(())
        } else {
            Err(self.error())
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let found = rest.starts_with(word.as_bytes());
        if found {
            self.at += word.len();
        }
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A name with its colon, up to its value.
    fn key(&mut self) -> Result<Key<'a>, NotJson> {
        let quoted = self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(Key(quoted))
    }

    /// A string; gives what is between its quotes.
    fn string(&mut self) -> Result<&'a str, NotJson> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let inner = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(inner);
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                            self.at += 1;
                        }
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|b| b.is_ascii_hexdigit()) {
                                    return Err(self.error());
                                }
                                self.at += 1;
                            }
                        }
                        _ => return Err(self.error()),
                    }
                }
                Some(0x20..) => self.at += 1,
                // Control characters must be escaped; or the text ends inside the string.
                _ => return Err(self.error()),
            }
        }
    }

    fn value(&mut self) -> Result<Value<'a>, NotJson> {
        if matches!(self.peek(), Some(b'{' | b'[' | b'"')) {
            let start = self.at;
            self.skip()?;
            return Ok(Value::Other(
                self.text.get(start..self.at).unwrap_or_default(),
            ));
        }
        self.scalar()
    }

    fn scalar(&mut self) -> Result<Value<'a>, NotJson> {
        let float = |value| {
            Value::Number(Number {
                value,
                integer: false,
            })
        };
        if self.eat_word("null") {
            Ok(Value::Null)
        } else if self.eat_word("true") {
            Ok(Value::Bool(true))
        } else if self.eat_word("false") {
            Ok(Value::Bool(false))
        } else if self.eat_word("NaN") {
            Ok(float(f64::NAN))
        } else if self.eat_word("Infinity") {
            Ok(float(f64::INFINITY))
        } else if self.eat_word("-Infinity") {
            Ok(float(f64::NEG_INFINITY))
        } else {
            self.number().map(Value::Number)
        }
    }

    fn number(&mut self) -> Result<Number, NotJson> {
        let start = self.at;
        self.eat(b'-');
        // A leading zero stands alone: `01` ends after the zero and fails at the `1`.
        if !self.eat(b'0') {
            self.digits()?;
        }
        let mut integer = true;
        if self.eat(b'.') {
            integer = false;
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            integer = false;
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        let lexeme = self.text.get(start..self.at).unwrap_or_default();
        match lexeme.parse() {
            Ok(value) => Ok(Number { value, integer }),
            Err(_) => Err(self.error()),
        }
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Err(self.error());
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    /// Passes over a string, array or object, checking it.
    fn skip(&mut self) -> Result<(), NotJson> {
        let mut kinds: u128 = 0; // innermost level in the lowest bit; 1 is an object
        let mut depth = 0;
        loop {
            // At a value.
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth == MAX_DEPTH {
                        return Err(self.error());
                    }
                    self.at += 1;
                    self.space();
                    let object = open == b'{';
                    if !self.eat(if object { b'}' } else { b']' }) {
                        depth += 1;
                        kinds = kinds << 1 | u128::from(object);
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                _ => {
                    self.scalar()?;
                }
            }
            // Behind a value: close what ends here, then go on to the next value.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                self.space();
                let object = kinds & 1 == 1;
                if self.eat(b',') {
                    self.space();
                    if object {
                        self.key()?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' })?;
                depth -= 1;
                kinds >>= 1;
            }
        }
    }
}
