//! Colours and marks of answers: for a terminal, and colours where the environment asks for them.

use std::io;
use std::io::IsTerminal;

use anstream::{AutoStream, ColorChoice};
use anstyle::AnsiColor;

use crate::environment;

const GOOD: anstyle::Style = AnsiColor::Green.on_default().bold();

const DOUBTFUL: anstyle::Style = AnsiColor::Yellow.on_default().bold();

const BAD: anstyle::Style = AnsiColor::Red.on_default().bold();

const FAINT: anstyle::Style = anstyle::Style::new().dimmed();

/// Styles for a terminal, by `NO_COLOR`, `CLICOLOR` and the like; plain text elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colour: bool,
    is_terminal: bool,
}

impl Style {
    /// The codes that it makes, of `anstyle`'s: bold, faint, a colour, and the end of all.
    pub(crate) const CODES: [&str; 6] = ["1", "2", "31", "32", "33", "0"];

    pub(crate) fn of_stdout() -> Self {
        let dumb = environment::text("TERM").is_some_and(|term| term == "dumb");
        Self {
            // Of a dumb one anstream would ask for more.
            colour: !dumb
                && AutoStream::auto(io::stdout()).current_choice() == ColorChoice::AlwaysAnsi,
            is_terminal: io::stdout().is_terminal() && !dumb,
        }
    }

    /// A symbol in front of an answer, where a terminal shows it.
    fn mark(self, style: anstyle::Style, symbol: &str) -> String {
        if self.is_terminal { self.paint(style, symbol) + " " } else { String::new() }
    }

    pub(crate) fn good_mark(self) -> String {
        self.mark(GOOD, "\u{25cf}")
    }

    pub(crate) fn doubtful_mark(self) -> String {
        self.mark(DOUBTFUL, "?")
    }

    pub(crate) fn bad_mark(self) -> String {
        self.mark(BAD, "\u{25cb}")
    }

    /// Whether there are colours in what it makes.
    pub(crate) fn paints(self) -> bool {
        self.colour
    }

    fn paint(self, style: anstyle::Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint(GOOD, text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint(BAD, text)
    }

    pub(crate) fn doubtful(self, text: &str) -> String {
        self.paint(DOUBTFUL, text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.paint(FAINT, text)
    }
}
