//! How a program says that it ended.

use crate::office::tenure::Tenure;
use crate::records::{Identities, instances};
use crate::store::AnchoredBy;
use crate::{Released, Result, records};

/// A longer text is cut here, in bytes.
const DETAIL_LENGTH_MAX: usize = 4 * 1024;

/// How a program ended, for [`Tenure::release_with`], where the example is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it does nothing by itself"]
pub struct End {
    reason: Reason,
    exit_code: Option<i32>,
    detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Released,
    Exited,
    Crashed,
}

impl End {
    /// It let go, as [`Tenure::release`] does.
    pub fn released() -> Self {
        Self { reason: Reason::Released, exit_code: None, detail: None }
    }

    /// It ended by itself, with this exit code. Another one than 0 is an end that nobody asked for:
    /// it counts when too many starts follow each other.
    pub fn exited(code: i32) -> Self {
        Self { reason: Reason::Exited, exit_code: Some(code), detail: None }
    }

    /// A fault of its own ended it: an exception that nobody caught.
    pub fn crashed() -> Self {
        Self { reason: Reason::Crashed, exit_code: None, detail: None }
    }

    /// What it exits with. Without it the history has none.
    pub fn exit_code(mut self, code: i32) -> Self {
        self.exit_code = Some(code);
        self
    }

    /// What a person should know of it: the message of the exception, and where. What is locked as
    /// an identity, or looks like a secret, is taken out, and what is longer than 4 KiB is cut.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl Tenure {
    /// Releases the office, and says how the program ended: for one that ends by an exception,
    /// which `history` then shows with its message and its exit code. A stop or a takeover that was
    /// asked for explains an end as ever; a crash stays a crash. Visible to others when this
    /// returns.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::exit::End;
    /// use incumbent::{Claim, Kind, Reason, Store};
    ///
    /// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
    /// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
    /// tenure.release_with(End::crashed().exit_code(1).detail("division by zero"))?;
    /// let last = &work.history(&Kind::default(), 1)?[0];
    /// assert_eq!(last.end_reason, Some(Reason::Crashed));
    /// assert_eq!(last.exit_code, Some(1));
    /// assert_eq!(last.detail.as_deref(), Some("division by zero"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The tenure of a `run` ([`Tenure::from_environment`]) ends with that `run`. There the detail
    /// is kept, and stands in the history with the end as the `run` sees it: its exit code, its
    /// signal. It is forgotten when the `run` starts its command again.
    ///
    /// # Errors
    /// [`Forked`](crate::ErrorKind::Forked) in a forked child, which releases nothing. What cannot
    /// be written is [`Released::Pending`]. For the tenure of a `run` those of
    /// [`Tenure::update_status`]: the word is lost then.
    pub fn release_with(mut self, end: End) -> Result<Released> {
        let inner = &self.footing.inner;
        inner.check_process()?;
        let detail = end.detail.map(|detail| {
            let text = Identities::known_to(inner).text(&detail);
            text[..text.floor_char_boundary(DETAIL_LENGTH_MAX)].to_owned()
        });
        if self.footing.anchored_by == AnchoredBy::TheRun {
            if let Some(word) = detail {
                let (id, nonce_hash) = (self.footing.instance, &self.footing.nonce_hash);
                inner.write(|tx| instances::last_word(tx, id, nonce_hash, &word))?;
            }
            return self.release();
        }
        let how = records::End {
            exit_code: end.exit_code,
            detail,
            ..records::End::new(match end.reason {
                Reason::Released => records::EndReason::Released,
                Reason::Exited => records::EndReason::Exited,
                Reason::Crashed => records::EndReason::Crashed,
            })
        };
        Ok(self.let_go(&how))
    }
}
