//! Writes an update, as the holder.

use std::collections::HashSet;

use crate::clock::millis;
use crate::records::identities::by_or_self;
use crate::records::runtime::Speaker;
use crate::records::{instances, runtime};
use crate::status::field::Field;
use crate::status::platform;
use crate::status::platform::PlatformUpdate;
use crate::status::update::StatusUpdate;
use crate::store::{Inner, Tx};
use crate::{Error, ErrorKind, InstanceId, ProfileName, Result, sys};

/// Which process a heartbeat is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// This very process holds the office.
    Own,
    /// That of the row, or the command where it is a `run`.
    OnRecord,
}

/// Writes `update` to the row `id`, as its owner, all of it or nothing.
pub(crate) fn write(
    inner: &Inner,
    id: InstanceId,
    nonce_hash: &str,
    update: &StatusUpdate,
    whose: Whose,
) -> Result<()> {
    update.check()?;
    let writer =
        by_or_self(inner, update.by.as_deref().map(crate::status::field::presentable).as_deref());
    // Before anybody waits for it.
    let memory_bytes = match whose {
        _ if !update.is_a_beat() => None,
        Whose::Own => memory_of(inner.observer().pid),
        Whose::OnRecord => memory_on_record(inner, id),
    };
    inner.write(|tx| {
        let update = &*update.without_identities(tx)?;
        let standing = instances::standing(tx, id)?;
        let Some(standing) = standing.filter(|row| row.nonce_hash == nonce_hash) else {
            return Err(not_owner("this instance is not on record in the store"));
        };
        if let Some((reason, _)) = standing.ended {
            return Err(not_owner(&format!("the office was lost: {reason}")));
        }
        let Some((office, pid)) = instances::office_of(tx, id)? else {
            return Err(not_owner("a process without an office has no runtime status"));
        };
        if !runtime::exists(tx)? {
            tx.check_schema()?;
        }
        let owner =
            Speaker { id, office: &office, pid, writer: &writer, writer_pid: inner.observer().pid };
        apply(tx, &owner, update, memory_bytes)
    })
}

/// What the process of a row has in memory, or the command where it is a `run`.
fn memory_on_record(inner: &Inner, id: InstanceId) -> Option<u64> {
    let acting = inner.read(|connection| instances::acting_process(connection, id)).ok()??;
    let (pid, start_time) = acting;
    let seen = inner.with_clear_sight(|| Ok(sys::process_facts(pid).start_time)).ok()?;
    // Another namespace may have another process of that number.
    if seen.is_none() || seen != start_time {
        return None;
    }
    memory_of(pid)
}

fn memory_of(pid: sys::Pid) -> Option<u64> {
    sys::details::family_rss(pid)
}

fn not_owner(why: &str) -> Error {
    Error::new(ErrorKind::NotOwner, format!("not the holder of the office: {why}")).with_hint(
        "`incumbent status` says who holds it; claim it first (in a script: `incumbent claim --pid \
         $$`)",
    )
}

fn apply(
    tx: &Tx<'_>,
    owner: &Speaker<'_>,
    update: &StatusUpdate,
    memory_bytes: Option<u64>,
) -> Result<()> {
    if update.sets_runtime() {
        let before = runtime::runtime(tx, owner.id)?;
        let mut now = before.clone().unwrap_or_default();
        update.apply(&mut now, tx.now_ms());
        owner.set_runtime(tx, before.as_ref(), &now)?;
    }
    match update.heartbeat_every {
        Field::Set(cadence) => owner.beat(tx, Some(millis(cadence)), memory_bytes)?,
        Field::Clear => owner.promise_nothing(tx)?,
        Field::Keep if update.beats => owner.beat(tx, None, memory_bytes)?,
        Field::Keep => {}
    }
    match &update.serves {
        Field::Keep => {}
        Field::Clear => owner.set_serves(tx, &[])?,
        Field::Set(profiles) => {
            // Its own it serves anyway; one that is named twice stands where it was named first.
            let mut named = HashSet::from([&owner.office.profile]);
            let others: Vec<ProfileName> =
                profiles.iter().filter(|profile| named.insert(profile)).cloned().collect();
            owner.set_serves(tx, &others)?;
        }
    }
    let own = &owner.office.profile;
    for profile in &update.forgotten {
        owner.remove_platforms(tx, profile.as_ref().unwrap_or(own), None)?;
    }
    let of_others =
        |platform: &PlatformUpdate| platform.profile.as_ref().is_some_and(|of| of != own);
    let served = if update.platforms.iter().any(of_others) {
        runtime::serves(tx, owner.id)?
    } else {
        Vec::new()
    };
    for platform in &update.platforms {
        let profile = platform.profile.as_ref().unwrap_or(own);
        if profile != own && !served.contains(profile) {
            return Err(Error::new(
                ErrorKind::NotOwner,
                format!("{} neither holds profile {profile} nor serves it", owner.office),
            )
            .with_hints(
                "publish first that it serves it (`StatusUpdate::serves`)",
                format!(
                    "publish first that it serves it: `incumbent status-set --profile {own} --kind \
                     {} --serves {profile}`",
                    owner.office.kind
                ),
            ));
        }
        platform::apply_to_platform(tx, owner, profile, platform)?;
    }
    Ok(())
}

/// Says all of `update`, of the time `at_ms`, unless all of it was said already; whether it was
/// news.
pub(crate) fn apply_if_news(
    tx: &Tx<'_>,
    owner: &Speaker<'_>,
    update: &StatusUpdate,
    at_ms: i64,
) -> Result<bool> {
    let before = runtime::runtime(tx, owner.id)?;
    let mut now = before.clone().unwrap_or_default();
    update.apply(&mut now, tx.now_ms());
    let mut is_news = update.sets_runtime() && before.is_none_or(|it| !it.says_the_same(&now));
    for platform in &update.platforms {
        let profile = &owner.office.profile;
        let before = runtime::platform(tx, owner.id, profile, &platform.platform)?;
        let mut now = before.clone().unwrap_or_default();
        platform.apply(&mut now, tx.now_ms());
        is_news |= before.is_none_or(|it| !it.says_the_same(&now));
    }
    if is_news {
        apply(tx, owner, update, None)?;
        runtime::said_at(tx, owner.id, at_ms)?;
    }
    Ok(is_news)
}
