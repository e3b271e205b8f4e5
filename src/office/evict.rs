//! Ending the record of an office by hand.

use std::path::PathBuf;

use crate::claim::older_home::home_of_claim;
use crate::claim::sweep::Force;
use crate::claim::sweep::{Orphans, evict_orphans};
use crate::claim::{judge_to_end, older};
use crate::environment::{Fault, planted};
use crate::liveness::{Lease, Ruling};
use crate::owner::{LiveCommandLine, judgement, needs_command_line};
use crate::owner::{ending, older as owner_older};
use crate::records::profiles::forget_legacy_home;
use crate::records::{End, EndReason};
use crate::store::{Inner, Tx};
use crate::{Holder, InstanceId, Office, Reason, Result, Verdict, Wanted, owner, sys};

/// What came of [`Profile::evict`](crate::Profile::evict); an example is there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Eviction {
    /// No office is on record as held: nothing to do.
    Nothing,
    /// The record was ended.
    Done {
        /// The generation that was ended.
        instance: InstanceId,
        /// Its recorded pid.
        pid: Option<sys::Pid>,
        /// What was known of it.
        verdict: Verdict,
        /// Why.
        reason: Reason,
        /// The directory of an older program that the profile stands for no more: its lock would
        /// keep everybody out again.
        legacy_home: Option<PathBuf>,
    },
    /// Nobody was on record, but the lock of an older program in this directory cannot be had or
    /// looked at: the profile stands for it no more.
    LegacyHomeForgotten(PathBuf),
    /// Anchors whose records were lost with their store no longer stand in the way; their
    /// processes were left alone.
    OrphansRemoved(usize),
    /// It lives or may live, and nobody said `force`.
    Refused(Box<Holder>),
}

impl Eviction {
    /// What was known of the owner whose record was ended, as a clause for people; empty where none
    /// was.
    #[must_use]
    pub fn because(&self) -> &'static str {
        let Self::Done { reason, .. } = self else { return "" };
        reason.because()
    }
}

pub(super) fn evict(inner: &Inner, office: &Office, force: Force, by: &str) -> Result<Eviction> {
    // Read the command line first if the verdict may hang on it; it counts only for that row.
    let command_line = inner.read(|connection| {
        let Some(record) = owner::live(connection, office)? else { return Ok(None) };
        let judged = judgement(inner, &record);
        Ok(needs_command_line(&judged.evidence).then_some(record))
    })?;
    let command_line =
        command_line.as_ref().map_or_else(LiveCommandLine::not_read, LiveCommandLine::read);
    let force = if planted(Fault::EvictUnasked) { Force::Yes } else { force };
    inner.write(|tx| {
        let Some(record) = owner::live(tx, office)? else {
            let wanted = Wanted::Office(office.clone());
            return Ok(match evict_orphans(tx, inner, &wanted, force, by)? {
                Orphans::None if force == Force::Yes => forget_blocked_home(tx, inner, office)?,
                Orphans::None => Eviction::Nothing,
                Orphans::Refused(holder) => Eviction::Refused(holder),
                Orphans::Removed(count) => Eviction::OrphansRemoved(count),
            });
        };
        let judged = judge_to_end(inner, &record, Lease::None, &command_line);
        let end = match (judged.ruling, force) {
            (Ruling::Dead(reason), Force::No) => {
                End::new(EndReason::Dead(reason)).detail(format!("found by {by}"))
            }
            (Ruling::Dead(_) | Ruling::Alive(_) | Ruling::Unknown(_), Force::Yes) => End::new(
                EndReason::Evicted,
            )
            .by(by)
            .detail(format!("it was {}: {}", judged.ruling.verdict(), judged.ruling.reason())),
            (Ruling::Alive(_) | Ruling::Unknown(_), Force::No) => {
                let mut holder = Holder::of(&record, office, &judged);
                holder.add_what_it_said(tx, inner, &record)?;
                return Ok(Eviction::Refused(Box::new(holder)));
            }
        };
        ending::end_other(tx, record.id, &end)?;
        let home = home_of_claim(tx, office, None)?;
        let is_of_older = owner_older::home_of_holder(&record).is_some()
            || home.is_some_and(|home| older::is_by_pid_file(&record, &home));
        let legacy_home =
            if is_of_older && force == Force::Yes { forget_legacy_home(tx, office)? } else { None };
        Ok(Eviction::Done {
            legacy_home,
            instance: record.id,
            pid: record.pid,
            verdict: judged.ruling.verdict(),
            reason: judged.ruling.reason(),
        })
    })
}

/// Forgets the directory of an older program if that stands in the way of every claim.
fn forget_blocked_home(tx: &Tx<'_>, inner: &Inner, office: &Office) -> Result<Eviction> {
    let home = home_of_claim(tx, office, None)?;
    if !home.is_some_and(|home| older::is_in_the_way(inner, &home)) {
        return Ok(Eviction::Nothing);
    }
    let forgotten = forget_legacy_home(tx, office)?;
    Ok(forgotten.map_or(Eviction::Nothing, Eviction::LegacyHomeForgotten))
}
