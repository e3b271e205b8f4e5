//! Arguments that say no verb: help and the version, which are answers, and questions that are
//! wrong.

use std::ffi::OsString;
use std::io::{IsTerminal, stderr};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::advice::Invocation;
use super::answer::Answer;
use super::nature::Nature;
use super::output::{self, Format, Style, exit};
use super::printable::one_line;
use crate::Error;

/// Says it, and returns the exit code.
pub(super) fn show(mut error: clap::Error, arguments: &[OsString]) -> i32 {
    if !error.use_stderr() {
        let answer = help(&error);
        return answer.deliver(Format::Text, &Invocation::default(), "help", Nature::Question);
    }
    escape(&mut error);
    let wants_json = arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--json");
    let format = if wants_json { Format::Json } else { Format::Text };
    let (verb, error) = match too_many_about_a_lock(&error, arguments) {
        Some(error) => ("lock", error),
        None if wants_json => ("", in_one_line(&error)),
        None => {
            tell(&error);
            return exit::USAGE;
        }
    };
    let invocation = Invocation::default();
    let answer = Answer::error(&invocation, &error);
    answer.deliver(format, &invocation, verb, Nature::Question)
}

/// The text that `--help` and `--version` ask for.
pub(super) fn help(asked: &clap::Error) -> Answer {
    let text = asked.render();
    let text = if Style::of_stdout().paints() { text.ansi().to_string() } else { text.to_string() };
    Answer::bytes(exit::OK, text.into_bytes())
}

/// What was typed is repeated in the error: as it may be shown.
fn escape(error: &mut clap::Error) {
    let escaped: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, ContextValue::String(one_line(text)))),
            ContextValue::Strings(texts) => {
                let texts = texts.iter().map(|text| one_line(text)).collect();
                Some((kind, ContextValue::Strings(texts)))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in escaped {
        error.insert(kind, value);
    }
}

fn tell(error: &clap::Error) {
    if stderr().is_terminal() {
        // In colours. Nobody is left to be told that it cannot be.
        let _ = error.print();
    } else {
        output::tell_lines(&error.render().to_string());
    }
}

/// An argument too many would be repeated, and next to a lock it may be the identity.
fn too_many_about_a_lock(error: &clap::Error, arguments: &[OsString]) -> Option<Error> {
    let is_about_a_lock = arguments.iter().any(|word| {
        word == "lock" || word == "unlock" || word.to_string_lossy().starts_with("--lock")
    });
    (is_about_a_lock && error.kind() == ErrorKind::UnknownArgument).then(|| {
        Error::invalid("there is one argument too many (not shown: it may be a secret)").with_hint(
            "quote an identity with blanks, put `--` before an identity that begins with a dash, \
             or use `--identity-env`",
        )
    })
}

/// For programs: the first paragraph is what is wrong, and the usage comes after it.
fn in_one_line(error: &clap::Error) -> Error {
    const USAGE: &str = "Usage: ";
    let text = error.render().to_string();
    let mut paragraphs = text.trim().split("\n\n");
    let message = paragraphs.next().unwrap_or_default().trim_start_matches("error: ");
    let usage = paragraphs.find_map(|paragraph| paragraph.strip_prefix(USAGE));
    let forms: Vec<String> =
        usage.into_iter().flat_map(str::lines).map(|form| format!("`{}`", form.trim())).collect();
    let more = "see `incumbent --help`";
    let hint = if forms.is_empty() {
        more.to_owned()
    } else {
        format!("write {}; {more}", forms.join(" or "))
    };
    Error::invalid(message.replace("\n  ", " ")).with_hint(hint)
}
