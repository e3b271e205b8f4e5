//! The scope and the identity of a lock, as they are given on the command line.

use std::ffi::{OsStr, OsString};
use std::io::Read;

use serde_json::Value;

use crate::cli::args;
use crate::lock::Scope;
use crate::{Error, LockName, LockRequest, Result, environment};

/// The longest identity that is read from standard input, in bytes: more is the wrong file.
const IDENTITY_LENGTH_MAX: u64 = 64 * 1024;

/// The lock that a verb's arguments name.
pub(crate) fn name(
    scope: &OsStr,
    identity: Option<&OsString>,
    variable: Option<&OsString>,
) -> Result<LockName> {
    request(scope, identity, variable).map(|request| request.name)
}

pub(super) fn request(
    scope: &OsStr,
    identity: Option<&OsString>,
    variable: Option<&OsString>,
) -> Result<LockRequest> {
    let identity = match (identity, variable) {
        (_, Some(variable)) => identity_in(variable)?,
        (Some(identity), None) if identity == "-" => {
            let mut text = Vec::new();
            std::io::stdin().take(IDENTITY_LENGTH_MAX + 1).read_to_end(&mut text).map_err(
                |error| {
                    Error::invalid(format!("cannot read the identity from standard input: {error}"))
                        .with_hint("give it by a pipe or a file, or use `--identity-env VAR`")
                },
            )?;
            if text.len() as u64 > IDENTITY_LENGTH_MAX {
                return Err(Error::invalid(format!(
                    "the identity on standard input has more than {IDENTITY_LENGTH_MAX} bytes"
                ))
                .with_hint("is that the right file?"));
            }
            text
        }
        (Some(identity), None) => identity.as_encoded_bytes().to_vec(),
        (None, None) => Vec::new(),
    };
    LockRequest::new(&scope.to_string_lossy(), identity)
}

pub(super) fn scope(text: &OsStr) -> Result<Scope> {
    Scope::new(text.to_string_lossy())
}

/// The identity in an environment variable. What is no name of a variable is not repeated: it may
/// be the identity itself, in the wrong place.
fn identity_in(variable: &OsStr) -> Result<Vec<u8>> {
    let is_name = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let hint = "name the variable, not its value: `--lock-env telegram-bot-token=BOT_TOKEN`, \
                `--identity-env BOT_TOKEN`";
    let Some(name) = variable.to_str().filter(|name| !name.is_empty() && is_name(name)) else {
        return Err(Error::invalid(
            "not a valid variable name (not shown: it may be the secret itself)",
        )
        .with_hint(hint));
    };
    let Some(identity) = environment::value(name) else {
        // By custom a variable is written in capitals; anything else may be a token.
        let shown = if name.contains(|c: char| c.is_ascii_lowercase()) {
            "the variable that was named"
        } else {
            &format!("the variable {name}")
        };
        return Err(Error::invalid(format!("{shown} is not set, or empty"))
            .with_hint("export it, or check the unit's environment file"));
    };
    Ok(identity.as_encoded_bytes().to_vec())
}

/// The locks of a `run`.
pub(crate) fn requests(arguments: &args::Run) -> Result<Vec<LockRequest>> {
    let metadata = arguments.metadata.as_deref().map(parse_metadata).transpose()?;
    let split = |argument: &OsString, what: &str| {
        let bytes = argument.as_encoded_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=').ok_or_else(|| {
            // Not repeated: it may be a secret.
            Error::invalid(format!("a lock is written as SCOPE={what}"))
                .with_hint("e.g. `--lock-env telegram-bot-token=BOT_TOKEN`")
        })?;
        let scope = String::from_utf8_lossy(&bytes[..at]).into_owned();
        Ok::<_, Error>((scope, bytes[at + 1..].to_vec()))
    };
    let mut requests = Vec::new();
    for argument in &arguments.lock {
        let (scope, identity) = split(argument, "IDENTITY")?;
        requests.push(LockRequest::new(&scope, identity)?);
    }
    for argument in &arguments.lock_env {
        let (scope, variable) = split(argument, "VAR")?;
        let variable = String::from_utf8_lossy(&variable).into_owned();
        requests.push(LockRequest::new(&scope, identity_in(OsStr::new(&variable))?)?);
    }
    if requests.is_empty() && metadata.is_some() {
        return Err(Error::invalid("`--metadata` is shown with a lock, but no lock is named")
            .with_hint("name one with `--lock-env SCOPE=VAR`"));
    }
    let requests: Vec<LockRequest> = requests
        .into_iter()
        .map(|request| match &metadata {
            Some(metadata) => request.metadata(metadata.clone()),
            None => Ok(request),
        })
        .collect::<Result<_>>()?;
    Ok(requests)
}

pub(super) fn parse_metadata(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        Error::invalid(format!("the metadata is not JSON: {error}"))
            .with_hint(r#"e.g. `--metadata '{"bot": "@weather"}'`"#)
    })
}
