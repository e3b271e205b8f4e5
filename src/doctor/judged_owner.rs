//! Those on record as live, each with what is known of it: looked at once for all checks.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::rfc3339;
use crate::liveness::{AnchorState, Judgement, Lease, Ruling};
use crate::owner::judge::look as look_at;
use crate::records::{Record, instances, locks, runtime};
use crate::store::Inner;
use crate::sys::Pid;
use crate::{Kind, ProfileName, Result};

/// Whom the checks of owners are about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Only {
    pub(super) profile: Option<ProfileName>,
    pub(super) kind: Option<Kind>,
}

impl Only {
    /// Something without a profile concerns everybody.
    pub(super) fn concerns(&self, profile: Option<&str>, kind: Option<&str>) -> bool {
        let fits = |wanted: Option<&str>, found: Option<&str>| match (wanted, found) {
            (Some(wanted), Some(found)) => wanted == found,
            (Some(_), None) | (None, _) => true,
        };
        fits(self.profile.as_ref().map(ProfileName::as_str), profile)
            && fits(self.kind.as_ref().map(Kind::as_str), kind)
    }
}

/// Somebody on record as live, and what is known of it.
pub(super) struct JudgedOwner {
    pub(super) record: Record,
    pub(super) judged: Judgement,
    pub(super) unresponsive_for: Option<Duration>,
    /// An office, or a lock. Else it waits for one.
    pub(super) holds_something: bool,
}

impl JudgedOwner {
    /// For people: `default/gateway`, or what it is without an office.
    pub(super) fn name(&self) -> String {
        name(&self.record)
    }

    pub(super) fn pid(&self) -> String {
        self.record.pid.map_or_else(|| "an unknown process".to_owned(), |pid| format!("pid {pid}"))
    }

    /// `a process of profile work without an office, pid 7`.
    pub(super) fn name_and_pid(&self) -> String {
        format!("{}, {}", self.name(), self.pid())
    }

    pub(super) fn since(&self) -> String {
        rfc3339(self.record.started_at_ms).unwrap_or_else(|| "an unknown time".to_owned())
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.judged.ruling, Ruling::Dead(_))
    }

    /// Its row may be ended: it is dead, and nobody holds its anchor in its place.
    pub(super) fn is_stale(&self) -> bool {
        self.is_dead() && !self.judged.flags.anchor_leaked
    }

    /// What was seen of its anchor is also seen of one whose row has just ended.
    fn may_have_let_go(&self) -> bool {
        let anchor = self.judged.evidence.anchor;
        self.is_dead() || matches!(anchor, AnchorState::Missing | AnchorState::Free)
    }

    pub(super) fn lives(&self) -> bool {
        matches!(self.judged.ruling, Ruling::Alive(_))
    }

    /// Its pid is one of this process table.
    pub(super) fn pid_here(&self) -> Option<Pid> {
        self.record.pid.filter(|_| self.judged.evidence.is_here())
    }
}

pub(super) fn name(record: &Record) -> String {
    match (record.office(), &record.profile) {
        (Some(office), _) => office.to_string(),
        (None, Some(profile)) => format!("a process of profile {profile} without an office"),
        (None, None) => "a process without an office".to_owned(),
    }
}

/// Between two looks at what is wrong with an anchor: one that is just being made gets its row
/// within a millisecond, one whose row has just ended is let go, and a process that was killed lets
/// go of one descriptor after the other.
pub(super) const SETTLES_WITHIN: Duration = Duration::from_millis(100);

/// Looks at everybody on record as live. Where something is wrong with an anchor, row and anchor
/// are looked at once more: who lets go ends its row before it touches the anchor, so whoever is on
/// record even then has not let go.
pub(super) fn look(inner: &Inner, only: &Only) -> Result<Vec<JudgedOwner>> {
    let mut owners = look_once(inner, only)?;
    if !owners.iter().any(JudgedOwner::may_have_let_go) {
        return Ok(owners);
    }
    if owners.iter().any(|owner| owner.judged.flags.anchor_leaked) {
        std::thread::sleep(SETTLES_WITHIN);
    }
    let again = look_once(inner, only)?;
    let mut again: HashMap<_, _> = again.into_iter().map(|it| (it.record.id, it)).collect();
    owners = owners
        .into_iter()
        .filter_map(|owner| {
            if owner.may_have_let_go() { again.remove(&owner.record.id) } else { Some(owner) }
        })
        .collect();
    Ok(owners)
}

fn look_once(inner: &Inner, only: &Only) -> Result<Vec<JudgedOwner>> {
    let (records, known) = inner.read(|connection| {
        let mut records = instances::all_live(connection)?;
        records.retain(|record| {
            let office = record.office();
            let kind = office.as_ref().map(|office| office.kind.as_str());
            only.concerns(record.profile.as_ref().map(ProfileName::as_str), kind)
        });
        let has_runtime = runtime::exists(connection)?;
        let has_locks = locks::exists(connection)?;
        let mut known = Vec::new();
        for record in &records {
            let said = if has_runtime { runtime::runtime(connection, record.id)? } else { None };
            let unresponsive_for = runtime::unresponsive_for(inner, record, said.as_ref());
            let holds_something = record.office().is_some()
                || (has_locks && locks::count_of_instance(connection, record.id)? > 0);
            known.push((unresponsive_for, holds_something));
        }
        Ok((records, known))
    })?;
    let looked_at = records.into_iter().zip(known);
    let looked_at = looked_at.map(|(record, (unresponsive_for, holds_something))| {
        let judged = look_at(inner, &record, Lease::None);
        JudgedOwner { record, judged, unresponsive_for, holds_something }
    });
    Ok(looked_at.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_one_profile_hears_of_no_other() {
        let only = |profile: Option<&str>, kind: Option<&str>| Only {
            profile: profile.map(|name| ProfileName::new(name).unwrap()),
            kind: kind.map(|name| Kind::new(name).unwrap()),
        };
        for (asked, profile, kind, expected) in [
            (only(None, None), Some("a"), Some("gateway"), true),
            (only(Some("a"), None), Some("a"), Some("gateway"), true),
            (only(Some("a"), None), Some("b"), Some("gateway"), false),
            (only(Some("a"), None), None, None, true),
            (only(None, Some("cron")), Some("a"), Some("gateway"), false),
            (only(Some("a"), Some("cron")), Some("a"), Some("cron"), true),
        ] {
            assert_eq!(asked.concerns(profile, kind), expected, "{asked:?} {profile:?} {kind:?}");
        }
    }
}
