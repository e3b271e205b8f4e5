//! What a keeper tells the process that started it, in one JSON document on a pipe.

use serde::{Deserialize, Serialize};

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
    path: Option<std::path::PathBuf>,
    retry_after_ms: Option<u64>,
}

impl ToldError {
    pub(super) fn of(error: &Error) -> Self {
        Self {
            kind: error.kind().as_str().to_owned(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            path: error.path().map(std::path::Path::to_owned),
            retry_after_ms: error.retry_after_ms(),
        }
    }
}

/// Every kind, so that a word can be read.
const KINDS: [ErrorKind; 17] = [
    ErrorKind::InvalidInput,
    ErrorKind::Busy,
    ErrorKind::CannotRead,
    ErrorKind::CannotWrite,
    ErrorKind::Permission,
    ErrorKind::Filesystem,
    ErrorKind::NotOurs,
    ErrorKind::TooNew,
    ErrorKind::TooOld,
    ErrorKind::Corrupt,
    ErrorKind::ProfileBelongsTo,
    ErrorKind::StoreReplaced,
    ErrorKind::NotOwner,
    ErrorKind::NotRunning,
    ErrorKind::Forked,
    ErrorKind::Unsupported,
    ErrorKind::Internal,
];

impl From<ToldError> for Error {
    fn from(told: ToldError) -> Self {
        let kind = KINDS.into_iter().find(|kind| kind.as_str() == told.kind);
        let mut error = Self::new(kind.unwrap_or(ErrorKind::Internal), told.message);
        if let Some(hint) = told.hint {
            error = error.with_hint(hint);
        }
        if let Some(path) = told.path {
            error = error.at(path);
        }
        match told.retry_after_ms {
            Some(retry_after_ms) => error.retry_after(retry_after_ms),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_as_it_is() {
        for kind in KINDS {
            let error = Error::new(kind, "what").with_hint("how").at("/where").retry_after(7);
            let told = serde_json::to_string(&ToldError::of(&error)).unwrap();
            let error = Error::from(serde_json::from_str::<ToldError>(&told).unwrap());
            assert_eq!(error.kind(), kind);
            assert_eq!(error.hint(), Some("how"));
            assert_eq!(error.path(), Some(std::path::Path::new("/where")));
            assert_eq!(error.retry_after_ms(), Some(7));
            assert!(error.to_string().contains("what"));
        }
    }
}
