//! What is said of a platform.

use serde_json::Value;

use crate::clock::rfc3339;
use crate::records::runtime;
use crate::records::runtime::{PlatformStatus, Speaker};
use crate::status::field;
use crate::status::field::Field;
use crate::store::Tx;
use crate::{Error, ProfileName, Result};

/// Platforms that one instance may speak of: a status is read as a whole.
const PLATFORMS_MAX: i64 = 256;

/// What a gateway wants to say about one platform; see
/// [`StatusUpdate::platform`](crate::StatusUpdate::platform). A field that is not named stays as it
/// is. One instance speaks of 256 platforms at most.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use incumbent::status::PlatformUpdate;
/// use incumbent::{Claim, StatusUpdate, Store};
///
/// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
/// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
/// let failed = PlatformUpdate::new("telegram")
///     .state("retrying")
///     .error_code("401")
///     .needs_attention(true);
/// tenure.update_status(&StatusUpdate::new().platform(failed))?;
/// let telegram = &work.status()?.platforms[0];
/// assert_eq!(telegram.error_code.as_deref(), Some("401"));
/// // Later it is given up:
/// tenure.update_status(&StatusUpdate::new().platform(PlatformUpdate::new("telegram").remove()))?;
/// assert!(work.status()?.platforms.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it is a part of an update"]
pub struct PlatformUpdate {
    pub(super) profile: Option<ProfileName>,
    pub(super) platform: String,
    pub(super) state: Field<String>,
    pub(super) error_code: Field<String>,
    pub(super) error_message: Field<String>,
    needs_attention: Field<bool>,
    retrying_since_ms: Field<i64>,
    pub(super) extra: Field<Value>,
    is_removed: bool,
}

impl PlatformUpdate {
    /// About the platform of this name (1 to 64 characters), for the profile of the office.
    pub fn new(platform: impl Into<String>) -> Self {
        Self { platform: platform.into(), ..Self::default() }
    }

    /// For another profile, which the instance serves ([`StatusUpdate::serves`]).
    ///
    /// [`StatusUpdate::serves`]: crate::StatusUpdate::serves
    pub fn of_profile(mut self, profile: ProfileName) -> Self {
        self.profile = Some(profile);
        self
    }

    /// `connected`, `retrying`, `fatal`, or whatever word says it: 1 to 64 characters.
    pub fn state(mut self, state: impl Into<Field<String>>) -> Self {
        self.state = state.into();
        self
    }

    /// What programs make of its last error: 1 to 64 characters.
    pub fn error_code(mut self, code: impl Into<Field<String>>) -> Self {
        self.error_code = code.into();
        self
    }

    /// What people make of it. What looks like a token is taken out, and what is longer than 4 KiB
    /// is cut.
    pub fn error_message(mut self, message: impl Into<Field<String>>) -> Self {
        self.error_message = message.into();
        self
    }

    /// Whether a person has to do something.
    pub fn needs_attention(mut self, needs: impl Into<Field<bool>>) -> Self {
        self.needs_attention = needs.into();
        self
    }

    /// When it began to reconnect: Unix milliseconds, wall time, up to the year 9999.
    pub fn retrying_since_ms(mut self, since_ms: impl Into<Field<i64>>) -> Self {
        self.retrying_since_ms = since_ms.into();
        self
    }

    /// Whatever else there is to say, at most 64 KiB of JSON. Never a secret: of what it
    /// says only identities that are locked in this store are taken out.
    pub fn extra(mut self, extra: impl Into<Field<Value>>) -> Self {
        self.extra = extra.into();
        self
    }

    /// Forgets the platform as a whole; nothing else may be said of it then.
    pub fn remove(mut self) -> Self {
        self.is_removed = true;
        self
    }

    fn sets_something(&self) -> bool {
        !(self.state.is_keep()
            && self.error_code.is_keep()
            && self.error_message.is_keep()
            && self.needs_attention.is_keep()
            && self.retrying_since_ms.is_keep()
            && self.extra.is_keep())
    }

    pub(super) fn check(&self) -> Result<()> {
        field::check_word("a platform", &self.platform)?;
        if self.is_removed && self.sets_something() {
            return Err(Error::invalid(format!(
                "platform {} is both removed and updated",
                self.platform
            ))
            .with_hint("leave out one of the two"));
        }
        self.state.check(|word| field::check_word("a platform's state", word))?;
        self.error_code.check(|word| field::check_word("an error code", word))?;
        self.extra.check(|extra| field::check_extra("a platform's extra", extra))?;
        self.retrying_since_ms.check(|ms| match rfc3339(*ms) {
            Some(_) => Ok(()),
            None => Err(Error::invalid(format!("{ms} is not a valid time in Unix milliseconds"))
                .with_hint("Unix milliseconds")),
        })
    }

    pub(super) fn apply(&self, status: &mut PlatformStatus, now_ms: i64) {
        self.state.apply_state(&mut status.state, &mut status.state_since_ms, now_ms);
        self.error_code.apply(&mut status.error_code);
        self.error_message.apply_text(&mut status.error_message);
        self.needs_attention.apply(&mut status.needs_attention);
        self.retrying_since_ms.apply(&mut status.retrying_since_ms);
        self.extra.apply(&mut status.extra);
    }
}

pub(super) fn apply_to_platform(
    tx: &Tx<'_>,
    owner: &Speaker<'_>,
    profile: &ProfileName,
    update: &PlatformUpdate,
) -> Result<()> {
    if update.is_removed {
        return owner.remove_platforms(tx, profile, Some(&update.platform));
    }
    let before = runtime::platform(tx, owner.id, profile, &update.platform)?;
    if before.is_none() && runtime::platform_count(tx, owner.id)? >= PLATFORMS_MAX {
        return Err(Error::invalid(format!(
            "{} has {PLATFORMS_MAX} platforms, the maximum",
            owner.office
        ))
        .with_hints(
            "remove some (`PlatformUpdate::remove`)",
            "remove some (`incumbent status-set --clear platforms`)",
        ));
    }
    let mut now = before.clone().unwrap_or_default();
    now.platform.clone_from(&update.platform);
    update.apply(&mut now, tx.now_ms());
    owner.set_platform(tx, profile, before.as_ref(), &now)
}
