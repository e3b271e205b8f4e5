//! Command lines: redacted before they are stored or shown, and compared only in that form.
//!
//! They are searched for a wanted identity before they are redacted (`mask`); calls of our own
//! verbs in them are known by their form (`redact_own_verbs`). Rows that the process made before,
//! or makes later, are kept without it (`rewrite_argv`, `hidden_argv` in
//! `records/instances/insert.rs`). Messages never repeat an argument that may be a secret.

pub(crate) mod mask;
pub(crate) mod matcher;
pub(crate) mod own_verbs;
pub(crate) mod redact;

/// What stands in place of a secret.
pub(crate) const REDACTED: &str = "<redacted>";

/// A longer argument is cut: command lines are for recognising a process, not for its input.
const ARGUMENT_LENGTH_MAX: usize = 300;

fn cut(argument: &str) -> String {
    if argument.len() <= ARGUMENT_LENGTH_MAX {
        return argument.to_owned();
    }
    let end = argument.floor_char_boundary(ARGUMENT_LENGTH_MAX);
    format!("{}...", &argument[..end])
}

/// A redacted command line as one line of text for people: arguments with blanks are quoted.
#[must_use]
pub(crate) fn display(arguments: &[String]) -> String {
    let quoted = arguments.iter().map(|argument| {
        if argument.is_empty() || argument.contains(|c: char| c.is_whitespace() || c.is_control()) {
            format!("{argument:?}")
        } else {
            argument.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}
