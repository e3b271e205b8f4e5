//! Of what a command last wrote to its standard error: the line that says why it ended.
//!
//! Mostly that is the last line. An uncaught exception of Python is told by a line of its own,
//! after the frames; its message may go on for some lines more, and warnings about objects that
//! were not closed may follow. That line is what a person wants to read.

use std::ops::Range;

/// What the interpreter says of frames; in an exception group a margin comes before it.
const FRAME: &str = "File \"";

/// Begins a traceback about an object that is cleaned up after the crash.
const IGNORED: &str = "Exception ignored ";

/// The line that says why, of what was written last; `None` of nothing.
pub(crate) fn last_line(words: &str) -> Option<&str> {
    let last = || lines(words).into_iter().rev().find(|line| !line.is_blank());
    let at = exception(words).or_else(|| Some(last()?.range()))?;
    Some(&words[at])
}

/// Where the line of an exception stands that was not caught, and after which nothing was logged.
pub(crate) fn exception(words: &str) -> Option<Range<usize>> {
    let mut lines = lines(words);
    while let Some(ignored) = lines.iter().rposition(|line| line.text.starts_with(IGNORED))
        && lines[..ignored].iter().any(Line::is_frame)
    {
        lines.truncate(ignored);
    }
    let last_frame = lines.iter().rposition(Line::is_frame);
    let after_frames = last_frame.and_then(|frame| {
        // Source lines and marks below them are indented; so is what a group is divided by.
        let next = |line: &Line<'_>| !line.is_blank() && !line.is_indented();
        let at = frame + lines[frame..].iter().position(next)?;
        lines[at].names_something().then_some(at)
    });
    let at = after_frames.or_else(|| lines.iter().rposition(Line::names_error))?;
    let is_last = !lines[at + 1..].iter().any(Line::is_logged);
    is_last.then(|| lines[at].range())
}

/// A line without the margin of an exception group, and where it stands.
#[derive(Debug)]
struct Line<'a> {
    start: usize,
    text: &'a str,
}

fn lines(words: &str) -> Vec<Line<'_>> {
    let is_group = words.contains("Exception Group Traceback (most recent call last):");
    let mut lines = Vec::new();
    let mut start = 0;
    for whole in words.split_inclusive('\n') {
        let text = whole.trim_end();
        let bare = if is_group { without_margin(text) } else { text };
        lines.push(Line { start: start + text.len() - bare.len(), text: bare });
        start += whole.len();
    }
    lines
}

/// `  | ValueError: 1` is `ValueError: 1`, and `  +------` is nothing.
fn without_margin(text: &str) -> &str {
    let inner = text.trim_start();
    if let Some(rest) = inner.strip_prefix('|') {
        return rest.strip_prefix(' ').unwrap_or(rest);
    }
    if inner.starts_with("+-") { "" } else { text }
}

impl Line<'_> {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    fn is_blank(&self) -> bool {
        self.text.is_empty()
    }

    fn is_indented(&self) -> bool {
        self.text.starts_with(char::is_whitespace)
    }

    /// `  File "bot.py", line 3, in main`
    fn is_frame(&self) -> bool {
        let inner = self.text.trim_start();
        self.is_indented() && inner.starts_with(FRAME) && inner.contains("\", line ")
    }

    /// What stands before the message: `KeyError`, `__main__.NoChat`.
    fn name(&self) -> &str {
        self.text.split(": ").next().unwrap_or_default().trim_end_matches(':')
    }

    /// Whether that may be the class of an exception.
    fn names_something(&self) -> bool {
        let is_of_a_name = |it: char| it.is_alphanumeric() || "_.<>".contains(it);
        let name = self.name();
        name.starts_with(|it: char| it.is_alphabetic() || it == '_')
            && name.chars().all(is_of_a_name)
    }

    /// Whether it is one by its name.
    fn names_error(&self) -> bool {
        let name = self.name();
        self.names_something() && (name.ends_with("Error") || name.ends_with("Exception"))
    }

    /// Whether a program that goes on has written it: with a time or a level.
    fn is_logged(&self) -> bool {
        const LEVELS: [&str; 6] = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "CRITICAL"];
        self.text.starts_with(|it: char| it.is_ascii_digit() || it == '[')
            || LEVELS.iter().any(|level| self.text.starts_with(*level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEBACK: &str = concat!(
        "Traceback (most recent call last):\n",
        "  File \"bot.py\", line 9, in <module>\n",
        "    main()\n",
        "    ~~~~^^\n",
        "  File \"bot.py\", line 3, in main\n",
        "    raise RuntimeError('no chat')\n",
    );

    const CHAINED: &str = concat!(
        "KeyError: 'chat'\n",
        "\n",
        "During handling of the above exception, another exception occurred:\n",
        "\n",
        "Traceback (most recent call last):\n",
        "  File \"bot.py\", line 5, in f\n",
        "    g()\n",
        "config.NoChat: no chat in bot.toml\n",
    );

    const GROUP: &str = concat!(
        "  + Exception Group Traceback (most recent call last):\n",
        "  |   File \"g.py\", line 1, in <module>\n",
        "  |     raise g\n",
        "  | ExceptionGroup: two (2 sub-exceptions)\n",
        "  +-+---------------- 1 ----------------\n",
        "    | ValueError: first\n",
        "    +---------------- 2 ----------------\n",
        "    | KeyError: 'second'\n",
        "    +------------------------------------\n",
    );

    #[test]
    fn the_line_that_says_why() {
        let after = |rest: &str| format!("polling\n{TRACEBACK}{rest}");
        let cases = [
            // Whatever program it is.
            (String::new(), None),
            (" \n\n".to_owned(), None),
            ("one\ntwo\n".to_owned(), Some("two")),
            ("one\r\ntwo  \r\n\r\n \n".to_owned(), Some("two")),
            ("  two\n".to_owned(), Some("  two")),
            // An exception, with blank lines after it, with more lines, without a message.
            (after("RuntimeError: no chat\n"), Some("RuntimeError: no chat")),
            (after("RuntimeError: no chat\n\n\n"), Some("RuntimeError: no chat")),
            (after("RuntimeError: no chat\nin bot.toml\n"), Some("RuntimeError: no chat")),
            (after("KeyboardInterrupt\n"), Some("KeyboardInterrupt")),
            (after("app.main.<locals>.Stop: 1\n"), Some("app.main.<locals>.Stop: 1")),
            (
                after(
                    "p.ValidationError: 1 error for Bot\nchat\n  Field required [type=missing]\n",
                ),
                Some("p.ValidationError: 1 error for Bot"),
            ),
            (after(CHAINED), Some("config.NoChat: no chat in bot.toml")),
            (GROUP.to_owned(), Some("ExceptionGroup: two (2 sub-exceptions)")),
            // The cleaning up after it says nothing of why.
            (
                after(&format!(
                    "RuntimeError: no chat\nException ignored in: <coroutine>\n{TRACEBACK}\
                     RuntimeError: Event loop is closed\n"
                )),
                Some("RuntimeError: no chat"),
            ),
            (
                after("OSError: gone\nUnclosed client session\nclient_session: <C>\n"),
                Some("OSError: gone"),
            ),
            // It was caught: something else came last.
            (
                after("OSError: gone\n2026-01-02 03:04:05 ERROR giving up\n"),
                Some("2026-01-02 03:04:05 ERROR giving up"),
            ),
            (after("OSError: gone\nFATAL giving up\n"), Some("FATAL giving up")),
            (after("and so on, and so on\n"), Some("and so on, and so on")),
            // Its beginning was not kept.
            ("    main()\nRuntimeError: no chat\n".to_owned(), Some("RuntimeError: no chat")),
            ("    main()\nE.SomeError: 1\nchat\n  needed\n".to_owned(), Some("E.SomeError: 1")),
            (TRACEBACK.to_owned(), Some("    raise RuntimeError('no chat')")),
            // Another language.
            (
                "TypeError: x is not a function\n    at main (bot.js:3:1)\n\nNode.js v22.1.0\n"
                    .to_owned(),
                Some("TypeError: x is not a function"),
            ),
        ];
        for (words, expected) in cases {
            assert_eq!(last_line(&words), expected, "{words}");
        }
    }
}
