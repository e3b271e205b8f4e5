//! Whether a command line is that of a gateway.

use crate::Kind;

/// Decides whether a live command line is of the recorded kind, when the start time cannot tell;
/// see [`OpenOptions::matcher`](crate::OpenOptions::matcher).
///
/// ```
/// use incumbent::process::{CommandLineMatcher, DefaultMatcher};
///
/// let recorded = ["my-gateway".to_owned(), "--serve".to_owned()];
/// let other = ["sleep".to_owned(), "60".to_owned()];
/// assert!(DefaultMatcher.is_of_recorded_kind(None, &recorded, &recorded));
/// assert!(!DefaultMatcher.is_of_recorded_kind(None, &recorded, &other));
/// ```
pub trait CommandLineMatcher: Send + Sync {
    /// Whether `live` may be the process that `recorded` was written for, word by word. Both are
    /// redacted the same way; neither is empty. True keeps a live owner, false evicts it: in doubt
    /// true. `kind` is that of its office, if it has one.
    fn is_of_recorded_kind(
        &self,
        kind: Option<&Kind>,
        recorded: &[String],
        live: &[String],
    ) -> bool;
}

/// Accepts the recorded command line itself and, for kind `hermes-gateway`, the forms in which
/// that gateway is started. Works on arguments, not on substrings: `hermes gateway status` or a
/// path that merely contains `hermes` does not match.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultMatcher;

impl CommandLineMatcher for DefaultMatcher {
    fn is_of_recorded_kind(
        &self,
        kind: Option<&Kind>,
        recorded: &[String],
        live: &[String],
    ) -> bool {
        recorded == live || (kind.is_some_and(has_known_forms) && is_hermes_gateway(live))
    }
}

/// Whether every gateway of this kind is known by the form of its command line.
pub(crate) fn has_known_forms(kind: &Kind) -> bool {
    kind.as_str() == "hermes-gateway"
}

fn is_hermes_gateway(arguments: &[String]) -> bool {
    arguments.iter().enumerate().any(|(index, argument)| {
        let path = argument.replace('\\', "/");
        let name = path.rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(".exe").unwrap_or(name);
        let rest = &arguments[index + 1..];
        if name == "hermes-gateway" || path == "gateway/run.py" || path.ends_with("/gateway/run.py")
        {
            return serves(rest);
        }
        let launches = name == "hermes"
            || path == "hermes_cli.main"
            || path == "hermes_cli/main.py"
            || path.ends_with("/hermes_cli/main.py");
        launches
            && match skip_options(rest) {
                [verb, rest @ ..] if verb == "gateway" => serves(rest),
                _ => false,
            }
    })
}

/// The verbs under which the gateway itself runs; `status`, `stop`, `install` only talk about it.
fn serves(rest: &[String]) -> bool {
    match skip_options(rest) {
        [] => true,
        [verb, ..] => matches!(verb.as_str(), "run" | "start" | "restart"),
    }
}

/// Skips options before a verb. Only the profile option takes its value as a separate argument.
fn skip_options(mut arguments: &[String]) -> &[String] {
    while let [option, rest @ ..] = arguments {
        if !option.starts_with('-') {
            break;
        }
        let takes_value = matches!(option.as_str(), "-p" | "--profile");
        arguments = if takes_value && !rest.is_empty() { &rest[1..] } else { rest };
    }
    arguments
}
