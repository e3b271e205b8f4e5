//! Those on record as live, their anchors, and who supervises them.

pub(crate) mod anchors;
pub(crate) mod units;

use std::collections::HashMap;

use crate::clock::rfc3339;
use crate::doctor::check::{Check, Observation, Only, Opened};
use crate::doctor::owners::anchors::SETTLES_WITHIN;
use crate::liveness::{AnchorState, Judgement, Lease, RunState, Verdict};
use crate::owner::because;
use crate::owner::because::because_seen;
use crate::owner::judge::look as look_at;
use crate::records::{Record, instances, runtime};
use crate::store::Inner;
use crate::sys::Pid;
use crate::{Office, Result};

pub(super) const CHECKS: &[Check<Opened>] = &[
    Check { id: "stale_rows", silent: "nobody is on record who is dead", look: stale_rows },
    Check {
        id: "unknown_holders",
        silent: "of everybody on record it can be told whether they live",
        look: unknown_holders,
    },
    Check { id: "holders_stopped", silent: "no holder is stopped", look: holders_stopped },
    Check { id: "unresponsive", silent: "no holder has missed its heartbeats", look: unresponsive },
    Check {
        id: "leaked_anchors",
        silent: "no anchor outlives its owner",
        look: anchors::leaked_anchors,
    },
    Check {
        id: "orphan_anchors",
        silent: "every anchor that is held is on record",
        look: anchors::orphan_anchors,
    },
    Check {
        id: "missing_anchors",
        silent: "every holder has its anchor",
        look: anchors::missing_anchors,
    },
    Check {
        id: "outside_supervisor",
        silent: "every holder is where its supervisor started it",
        look: units::outside_supervisor,
    },
    Check {
        id: "stop_budget",
        silent: "no unit kills its gateway before the stop budget is over",
        look: units::stop_budgets,
    },
];

/// Somebody on record as live, and what is known of it.
pub(super) struct JudgedOwner {
    pub(super) record: Record,
    pub(super) judged: Judgement,
    unresponsive_ms: Option<u64>,
}

impl JudgedOwner {
    /// For people: `default/gateway`, or what it is without an office.
    pub(super) fn name(&self) -> String {
        name(&self.record)
    }

    fn pid(&self) -> String {
        self.record.pid.map_or_else(|| "an unknown process".to_owned(), |pid| format!("pid {pid}"))
    }

    fn since(&self) -> String {
        rfc3339(self.record.started_at_ms).unwrap_or_else(|| "an unknown time".to_owned())
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.judged.verdict, Verdict::Dead(_))
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

    fn lives(&self) -> bool {
        matches!(self.judged.verdict, Verdict::Alive(_))
    }

    /// Its pid is one of this process table.
    fn pid_here(&self) -> Option<Pid> {
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
    let (records, silences) = inner.read(|connection| {
        let mut records = instances::all_live(connection)?;
        records.retain(|record| {
            let office = record.office();
            let kind = office.as_ref().map(|office| office.kind.as_str());
            only.concerns(record.profile.as_ref().map(crate::names::ProfileName::as_str), kind)
        });
        let has_runtime = runtime::exists(connection)?;
        let mut silences = Vec::new();
        for record in &records {
            let said = if has_runtime { runtime::runtime(connection, record.id)? } else { None };
            let wall_ms = inner.clock().wall_ms();
            let now = inner.boot_time();
            silences.push(runtime::unresponsive_ms(record, said.as_ref(), now, wall_ms));
        }
        Ok((records, silences))
    })?;
    let looked_at = records.into_iter().zip(silences).map(|(record, unresponsive_ms)| {
        let judged = look_at(inner, &record, Lease::None);
        JudgedOwner { record, judged, unresponsive_ms }
    });
    Ok(looked_at.collect())
}

fn each(
    opened: &Opened,
    mut seen: impl FnMut(&JudgedOwner) -> Option<Observation>,
) -> Result<Vec<Observation>> {
    Ok(opened.owners()?.iter().filter_map(&mut seen).collect())
}

/// The verb that ends the record of an office, or that of locks without one.
fn evict(opened: &Opened, owner: &JudgedOwner, force: &str) -> String {
    match owner.record.office() {
        Some(office) => opened.scene.command(&evict_verb(&office, force)),
        None => opened.scene.command("unlock --stale"),
    }
}

fn evict_verb(office: &Office, force: &str) -> String {
    format!("evict{force} --profile {} --kind {}", office.profile, office.kind)
}

/// It blocks nobody; but whoever counts rows counts it.
fn stale_rows(opened: &Opened) -> Result<Vec<Observation>> {
    each(opened, |owner| {
        let reason = owner.judged.verdict.reason();
        owner.is_stale().then(|| {
            Observation::warning(format!(
                "{} is on record as held by {} since {}, which is dead ({reason}: {})",
                owner.name(),
                owner.pid(),
                owner.since(),
                because_seen(reason, owner.judged.flags, &owner.judged.evidence)
            ))
            .remedy(format!(
                "nothing has to be done, the next start takes its place; {} ends this record, {} \
                 all of them",
                evict(opened, owner, ""),
                opened.scene.command("doctor --fix")
            ))
        })
    })
}

fn unknown_holders(opened: &Opened) -> Result<Vec<Observation>> {
    each(opened, |owner| {
        let Verdict::Unknown(_) = owner.judged.verdict else { return None };
        let reason = owner.judged.verdict.reason();
        let text = format!(
            "{} is on record as held by {} since {}, and nobody can tell from here whether that \
            lives \
             ({reason}: {})",
            owner.name(),
            owner.pid(),
            owner.since(),
            because(reason)
        );
        Some(Observation::unknown(text).remedy(format!(
            "look where it was started; if you know that it does not run any more, {}",
            evict(opened, owner, " --force")
        )))
    })
}

fn holders_stopped(opened: &Opened) -> Result<Vec<Observation>> {
    each(opened, |owner| {
        let pid = owner.pid_here()?;
        let is_stopped = owner.judged.evidence.process_state == RunState::Stopped;
        (is_stopped && !owner.is_dead()).then(|| {
            let text = format!(
                "{} is held by pid {pid}, which is stopped by a signal: it does nothing, and \
                nobody \
                 else may",
                owner.name()
            );
            Observation::warning(text)
                .remedy(format!("`kill -CONT {pid}` lets it go on, `kill -KILL {pid}` ends it"))
        })
    })
}

fn unresponsive(opened: &Opened) -> Result<Vec<Observation>> {
    each(opened, |owner| {
        let silent_ms = owner.unresponsive_ms.filter(|_| !owner.is_dead())?;
        let text = format!(
            "{} is held by {}, which has given no sign of life for {} s and had promised one \
            every {} ms",
            owner.name(),
            owner.pid(),
            silent_ms / 1_000,
            owner.record.heartbeat_every_ms.unwrap_or_default()
        );
        let restart = owner.record.office().map_or_else(String::new, |office| {
            let verb = format!("restart --profile {} --kind {}", office.profile, office.kind);
            format!("; {} starts it anew", opened.scene.command(&verb))
        });
        Some(Observation::warning(text).remedy(format!("look at what it does{restart}")))
    })
}

#[cfg(test)]
mod tests {
    use crate::doctor::owners::units;

    #[test]
    fn the_service_of_a_party() {
        for (party, service) in [
            ("parent:12/34/boot/ns systemd:gw.service", Some("systemd:gw.service")),
            ("systemd:gw.service", Some("systemd:gw.service")),
            ("launchd:org.example.gw", Some("launchd:org.example.gw")),
            ("parent:12/34/boot/ns container:abc", None),
            ("named:systemd", None),
            ("pid:12", None),
        ] {
            assert_eq!(units::service_of(party), service, "{party}");
        }
    }
}
