//! What a verb answers, and the one place that writes it.
//!
//! A verb returns its [`Answer`] and never hears what became of it: whether anybody reads it, or
//! the disk is full, turns no answer into another one (a refusal is 75, a grant 0). What the output
//! may decide stands in [`Answer::deliver`]: only the 0 of a question (`Verb::nature`, a total
//! match) becomes 70, where the answer is cut off by anything but a closed pipe.
//!
//! Descriptors 0 to 2 that are closed are `/dev/null` before `main` (the runtime of Rust), so no
//! file of a store takes their numbers. Output to a closed one is output that nobody wants, and
//! changes nothing.

use std::borrow::Cow;
use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::advice::Invocation;
use super::nature::Nature;
use super::output::{self, Format, exit};
use super::printable;
use crate::Error;
use crate::environment::{Fault, planted};

/// How a verb ended: what it answers, or an error to be shown.
pub(crate) type Outcome = crate::Result<Answer>;

/// An exit code, and what is said with it.
#[derive(Debug)]
pub(crate) struct Answer {
    code: i32,
    /// For standard output.
    body: Body,
    /// For standard error, where people read; a document says the same.
    complaints: Vec<Complaint>,
}

#[derive(Debug)]
enum Body {
    /// The same twice: text for people, as it is written, and one JSON document for programs.
    Both(Vec<u8>, Value),
    /// The same in either format, as it is.
    Bytes(Vec<u8>),
}

impl Body {
    fn in_format(&self, format: Format) -> Cow<'_, [u8]> {
        match (self, format) {
            (Self::Both(_, document), Format::Json) => {
                Cow::Owned(printable::document(document).into_bytes())
            }
            (Self::Both(bytes, _), Format::Text) | (Self::Bytes(bytes), _) => Cow::Borrowed(bytes),
        }
    }
}

/// What went wrong or was refused, for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Complaint {
    message: String,
    place: Option<String>,
    /// What can be done about it: this, or that.
    advice: Vec<String>,
}

impl Answer {
    /// `text` for people, or `document` as one JSON document.
    pub(crate) fn new(code: i32, text: impl AsRef<str>, document: Value) -> Self {
        let text = printable::printable_lines(text.as_ref()).into_bytes();
        Self { code, body: Body::Both(text, document), complaints: Vec::new() }
    }

    /// Another one for programs.
    pub(crate) fn or_document(mut self, document: Value) -> Self {
        let (Body::Both(text, _) | Body::Bytes(text)) = self.body;
        self.body = Body::Both(text, document);
        self
    }

    /// Data, byte for byte; but a person who looks at it sees it on a terminal, which obeys none of
    /// it.
    pub(crate) fn data(code: i32, data: Vec<u8>) -> Self {
        if !io::stdout().is_terminal() {
            return Self::bytes(code, data);
        }
        Self::bytes(code, printable::lines(&String::from_utf8_lossy(&data)).into_bytes())
    }

    /// The same bytes in either format, as they are.
    pub(crate) fn bytes(code: i32, body: Vec<u8>) -> Self {
        Self { code, body: Body::Bytes(body), complaints: Vec::new() }
    }

    /// Nothing on standard output.
    pub(crate) fn silent(code: i32) -> Self {
        Self::bytes(code, Vec::new())
    }

    /// A verb that failed.
    pub(crate) fn error(invocation: &Invocation, error: &Error) -> Self {
        Self::failed(output::exit_code(error), invocation, error)
    }

    /// The same, where something else decides about the code.
    pub(crate) fn failed(code: i32, invocation: &Invocation, error: &Error) -> Self {
        let mut document = output::error_document(error);
        invocation.complete_in(&mut document);
        Self::new(code, "", document).complaining(Complaint::of(error))
    }

    pub(crate) fn complaining(mut self, complaints: impl IntoIterator<Item = Complaint>) -> Self {
        self.complaints.extend(complaints);
        self
    }

    /// Says it, and returns the exit code: the verb's own, but for the 0 of a question whose answer
    /// is cut off or missing. A pipe that nobody reads is no such case: nobody can take what he did
    /// not read for a whole answer.
    #[must_use]
    pub(crate) fn deliver(
        &self,
        format: Format,
        invocation: &Invocation,
        verb: &str,
        nature: Nature,
    ) -> i32 {
        let complain = || {
            for complaint in &self.complaints {
                complaint.tell(invocation, verb);
            }
        };
        let body = self.body.in_format(format);
        // A document says the same.
        if format == Format::Text || body.is_empty() {
            complain();
        }
        let Err(error) = output::write(&body) else { return self.code };
        if format == Format::Json {
            complain();
        }
        if error.kind() == io::ErrorKind::BrokenPipe {
            return if planted(Fault::ClosedPipeIsZero) { exit::OK } else { self.code };
        }
        let is_lost = self.code == exit::OK && nature == Nature::Question;
        if is_lost {
            Complaint::cut_off(&error).tell(invocation, verb);
            return exit::FAILED;
        }
        let advice = format!(
            "only the output was lost: the command was carried out, with exit code {}; write the \
             output elsewhere",
            self.code
        );
        Complaint::unwritable(&error).advising(advice).tell(invocation, verb);
        self.code
    }
}

impl Complaint {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, advice: Vec::new() }
    }

    /// Of a question whose answer is missing, or does not look whole.
    pub(crate) fn cut_off(error: &io::Error) -> Self {
        Self::unwritable(error)
            .advising("free some disk space, or write it elsewhere, and ask again")
    }

    fn unwritable(error: &io::Error) -> Self {
        Self::new(format!("cannot write to standard output: {error}"))
    }

    /// What, where, and what to do.
    pub(crate) fn of(error: &Error) -> Self {
        let message = error.to_string();
        let place = error.path().map(|path| path.display().to_string());
        Self {
            place: place.filter(|place| !message.contains(place)),
            advice: error.command_line_hint().map(str::to_owned).into_iter().collect(),
            message,
        }
    }

    /// Each further one is another way out.
    pub(crate) fn advising(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }

    /// The same, unless this command was advised before.
    pub(crate) fn advising_also(self, command: &str, advice: impl Into<String>) -> Self {
        let is_said = self.advice.iter().any(|it| it.contains(command));
        if is_said { self } else { self.advising(advice) }
    }

    pub(super) fn tell(&self, invocation: &Invocation, verb: &str) {
        output::tell_lines(&self.text(invocation, verb));
    }

    /// `incumbent: VERB: MESSAGE`, and what to do below it. Arguments that are wrong may say no
    /// verb.
    pub(super) fn text(&self, invocation: &Invocation, verb: &str) -> String {
        let verb = if verb.is_empty() { String::new() } else { format!("{verb}: ") };
        format!("incumbent: {verb}{}\n{}", self.message_line(), self.below(invocation))
    }

    fn message_line(&self) -> String {
        printable::one_line(&self.message)
    }

    fn below(&self, invocation: &Invocation) -> String {
        let mut text = String::new();
        let mut add = |label: &str, line: &str| {
            text += &format!("  {:<6} {}\n", format!("{label}:"), printable::one_line(line));
        };
        if let Some(place) = &self.place {
            add("where", place);
        }
        for (nth, advice) in self.advice.iter().enumerate() {
            add(if nth == 0 { "try" } else { "or" }, &invocation.complete(advice));
        }
        text
    }
}

impl IntoIterator for Complaint {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}
