//! Paths in text: as a word for a shell, and in a JSON document.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use crate::names::hex;

/// Puts `path` into a document as `name`. JSON has only Unicode: of a path that is something else
/// the text shows what can be shown, and `<name>_bytes` says all of it, in hex, so that two such
/// paths can be told apart.
pub(crate) fn put(document: &mut Value, name: &str, path: &Path) {
    document[name] = path.display().to_string().into();
    if path.to_str().is_none() {
        document[format!("{name}_bytes")] = hex(path.as_os_str().as_encoded_bytes()).into();
    }
}

/// A word as a shell takes it: byte for byte, and in one line.
pub(crate) fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(byte);
    let bytes = word.as_encoded_bytes();
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match word.to_str() {
        Some(text) if !text.contains(is_unprintable) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        // bash, zsh, ksh and POSIX.1-2024: the only form without the bytes themselves.
        Some(_) | None => format!("$'{}'", bytes.iter().copied().map(escaped).collect::<String>()),
    }
}

/// In octal, which has three digits at most: where `\xff` ends before another hex digit POSIX
/// leaves open.
fn escaped(byte: u8) -> String {
    match byte {
        b'\\' | b'\'' => format!("\\{}", char::from(byte)),
        b'\n' => "\\n".to_owned(),
        0x20..=0x7e => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    }
}

/// Whether a character is not seen, but acts on what is: control characters, those that turn the
/// direction of writing, and those that end a line.
pub(crate) fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_for_a_shell() {
        use std::os::unix::ffi::OsStrExt;
        for (word, expected) in [
            (b"/a/b.db".as_slice(), "/a/b.db"),
            (b"", "''"),
            (b"a b", "'a b'"),
            (b"it's", r"'it'\''s'"),
            (b"$(x)", "'$(x)'"),
            (b"a\nb'\xff", r"$'a\nb\'\377'"),
            (b"\xffa\\\x7f\"", r#"$'\377a\\\177"'"#),
        ] {
            assert_eq!(quoted(OsStr::from_bytes(word)), expected);
        }
    }

    #[test]
    fn a_document_tells_paths_apart_that_look_alike() {
        use std::os::unix::ffi::OsStrExt;
        let of = |bytes: &[u8]| {
            let mut document = serde_json::json!({"path": null});
            put(&mut document, "path", Path::new(OsStr::from_bytes(bytes)));
            document
        };
        assert_eq!(of(b"/a\xc3\xa4"), serde_json::json!({"path": "/a\u{e4}"}));
        let one = serde_json::json!({"path": "/a\u{fffd}", "path_bytes": "2f61ff"});
        assert_eq!(of(b"/a\xff"), one);
        assert_ne!(of(b"/a\xfe"), one);
    }
}
