//! Text as a terminal may get it: what somebody wrote (a name, a path, an argument, a cell) is
//! shown and never obeyed.

use std::fmt::Write;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::cli::style::Style;
use crate::path_text::is_unprintable;

/// Begins a colour of ours, up to the letter `m`.
const COLOUR: &str = "\x1b[";

/// What somebody wrote, in one line. A control character shows as its escape, so that a file called
/// `a<line feed>b` is not taken for another one, nor its second half for a line of ours.
pub(crate) fn one_line(text: &str) -> String {
    escaped(text, |_| false)
}

/// Lines of ours, with what somebody wrote in them: the line breaks stay.
pub(crate) fn lines(text: &str) -> String {
    escaped(text, |character| character == '\n')
}

/// The same as an answer: so do the colours, where it has any. Others than ours (hidden text, say)
/// are of somebody who wrote them.
pub(crate) fn printable_lines(text: &str) -> String {
    if !Style::of_stdout().paints() {
        return lines(text);
    }
    let mut pieces = text.split(COLOUR);
    let mut shown = lines(pieces.next().unwrap_or_default());
    for piece in pieces {
        match piece.split_once('m').filter(|(code, _)| Style::CODES.contains(code)) {
            Some((code, rest)) => shown += &format!("{COLOUR}{code}m{}", lines(rest)),
            None => shown += &lines(&format!("{COLOUR}{piece}")),
        }
    }
    shown
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unprintable(character) && !stays(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The format of our documents. It changes when a field goes, or means something else; new fields
/// may come at any time.
const FORMAT: u64 = 1;

/// The name of the field that says it.
pub(crate) const FORMAT_NAME: &str = "format";

/// A document with its format: in an object, and in each element of an array or a stream, so that
/// a program that reads one of them has it. No document has a field of that name for anything else.
pub(crate) struct WithFormat<'a>(pub(crate) &'a Value);

impl Serialize for WithFormat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len() + 1))?;
                map.serialize_entry(FORMAT_NAME, &FORMAT)?;
                for (name, value) in fields.iter().filter(|(name, _)| *name != FORMAT_NAME) {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Value::Array(elements) => serializer.collect_seq(elements.iter().map(WithFormat)),
            plain => plain.serialize(serializer),
        }
    }
}

/// One JSON document with its format, over as many lines as it needs.
pub(crate) fn document(document: &Value) -> String {
    // A value has no keys but strings, and can be written for that reason.
    let text = serde_json::to_string_pretty(&WithFormat(document));
    json(&text.unwrap_or_else(|_| document.to_string())) + "\n"
}

/// The same in one line.
pub(crate) fn document_line(document: &Value) -> String {
    let text = serde_json::to_string(&WithFormat(document));
    json(&text.unwrap_or_else(|_| document.to_string()))
}

/// JSON has escapes for the control characters of ASCII only; a terminal obeys others, too. They
/// can only stand in strings.
fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && is_unprintable(character) {
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for (text, line, ours) in [
            ("plain \u{e4}\u{4e2d}", "plain \u{e4}\u{4e2d}", "plain \u{e4}\u{4e2d}"),
            ("a\nb", "a\\nb", "a\nb"),
            ("a\r\tb", "a\\r\\tb", "a\\r\\tb"),
            ("\u{1b}[2J", "\\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{9b}1A\u{7f}", "\\u{9b}1A\\u{7f}", "\\u{9b}1A\\u{7f}"),
            ("\u{202e}x", "\\u{202e}x", "\\u{202e}x"),
        ] {
            assert_eq!((one_line(text).as_str(), lines(text).as_str()), (line, ours));
        }
    }

    #[test]
    fn an_object_says_its_format_and_so_does_each_element() {
        use serde_json::json;
        for (document, expected) in [
            (json!({"a": {"b": 1}}), r#"{"format":1,"a":{"b":1}}"#),
            (json!([{"a": 1}, {"a": [{}]}]), r#"[{"format":1,"a":1},{"format":1,"a":[{}]}]"#),
            (json!({"a": 1, "format": 1}), r#"{"format":1,"a":1}"#),
            (json!([]), "[]"),
            (json!(null), "null"),
        ] {
            assert_eq!(document_line(&document), expected);
        }
    }

    #[test]
    fn a_document_reads_as_it_was() {
        let value = serde_json::json!({"a": "\u{1b}\n\u{9b}\u{202e}\u{7f}", "b\u{85}": [1]});
        for text in [document(&value), document_line(&value)] {
            let is_plain = |c: char| c == '\n' || !is_unprintable(c);
            assert!(text.chars().all(is_plain), "{text:?}");
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&read["a"], &read["b\u{85}"]), (&value["a"], &value["b\u{85}"]));
        }
    }
}
