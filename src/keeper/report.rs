//! What a keeper tells the process that started it, in one JSON document on a pipe.

use serde::{Deserialize, Serialize};

use crate::clock::{millis, of_millis};
use crate::{Error, ErrorKind};

/// What came of a keeper's first transaction.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum KeeperReport {
    /// It holds an anchor for the process, or another keeper does already. `granted` is the
    /// office's fence, if this keeper claimed one, and `evicted` whose place that took.
    Keeps {
        granted: Option<i64>,
        evicted: Option<i64>,
    },
    /// Whatever was seen before it was started has changed: look again.
    Changed,
    Failed(ToldError),
}

/// An [`Error`], as it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToldError {
    kind: String,
    message: String,
    hint: Option<String>,
    command_line_hint: Option<String>,
    path: Option<std::path::PathBuf>,
    retry_after_ms: Option<i64>,
}

impl ToldError {
    pub(super) fn of(error: &Error) -> Self {
        Self {
            kind: error.kind().as_str().to_owned(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            command_line_hint: error.command_line_hint().map(str::to_owned),
            path: error.path().map(std::path::Path::to_owned),
            retry_after_ms: error.retry_after().map(millis),
        }
    }
}

impl From<ToldError> for Error {
    fn from(told: ToldError) -> Self {
        let kind = ErrorKind::parse(&told.kind).unwrap_or(ErrorKind::Internal);
        let mut error = Self::new(kind, told.message);
        if let Some(hint) = told.hint {
            let at_command_line = told.command_line_hint.unwrap_or_else(|| hint.clone());
            error = error.with_hints(hint, at_command_line);
        }
        if let Some(path) = told.path {
            error = error.at(path);
        }
        match told.retry_after_ms {
            Some(ms) => error.with_retry_after(of_millis(ms)),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_error_is_told_as_it_is() {
        let pause = Duration::from_millis(7);
        for &kind in ErrorKind::ALL {
            let error = Error::new(kind, "what").with_hints("how", "which flag").at("/where");
            let error = error.with_retry_after(pause);
            let told = serde_json::to_string(&ToldError::of(&error)).unwrap();
            let error = Error::from(serde_json::from_str::<ToldError>(&told).unwrap());
            assert_eq!(error.kind(), kind);
            assert_eq!(error.hint(), Some("how"));
            assert_eq!(error.command_line_hint(), Some("which flag"));
            assert_eq!(error.path(), Some(std::path::Path::new("/where")));
            assert_eq!(error.retry_after(), Some(pause));
            assert!(error.to_string().contains("what"));
        }
    }
}
