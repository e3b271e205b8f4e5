//! The backoff of a storm, for whoever starts without `run`.

use std::time::Duration;

use serde::Serialize;

use crate::clock::as_millis;
use crate::office::profile::Profile;
use crate::office::storm;
use crate::{Kind, Result};

/// Our party is in a storm: it has started again and again without getting or keeping an office.
/// The next start should wait: 5 s, and twice as long each time that the storm goes on, at most
/// 300 s. In JSON an object with these fields, the pause as `pause_ms`; later versions may add
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Backoff {
    /// How long, from now on. Zero when it was waited for.
    #[serde(rename = "pause_ms", serialize_with = "as_millis")]
    pub pause: Duration,
    /// The starts that belong to the storm, as far as they are kept: at most 64.
    pub starts: usize,
    /// Whether the last of them was refused for a holder: the storm ends with that one, and then
    /// nobody needs to wait.
    pub after_refusal: bool,
}

impl Profile {
    /// The backoff of the storm that our party (what keeps starting this process: its unit, its
    /// container, its terminal) is in at the office of `kind`; `None` when it is in none, or the
    /// party is not known. Reads only; a `run` waits by itself, before it claims, and
    /// [`Profile::claim_with`] never does.
    ///
    /// ```
    /// use incumbent::{Kind, Store};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// let profile = Store::open(&path)?.profile("work")?;
    /// if let Some(backoff) = profile.backoff(&Kind::default())? {
    ///     std::thread::sleep(backoff.pause);
    ///     # unreachable!("nobody has started yet");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn backoff(&self, kind: &Kind) -> Result<Option<Backoff>> {
        let inner = &self.store().inner;
        let Some(party) = &inner.myself().party else { return Ok(None) };
        let boot_id = inner.observer().boot_id.as_deref();
        let now = inner.clock().boot_ms();
        let storm = inner
            .read(|connection| storm::of(connection, &self.office(kind), party, boot_id, now))?;
        Ok(storm.map(|storm| Backoff {
            pause: Duration::from_millis(storm.remaining_ms(now)),
            starts: storm.starts,
            after_refusal: storm.after_refusal,
        }))
    }
}
