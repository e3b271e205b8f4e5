//! Those on record as live, their anchors, and who supervises them.

pub(crate) mod anchors;
pub(crate) mod units;

use crate::Result;
use crate::claim::sweep::Force;
use crate::clock::length;
use crate::doctor::check::{Check, Observation, Opened, each_owner};
use crate::doctor::judged_owner::JudgedOwner;
use crate::liveness::{Ruling, RunState, because_seen};
use crate::owner::frozen;

pub(super) const CHECKS: &[Check<Opened>] = &[
    Check { id: "stale_rows", silent: "no dead holder is on record", look: stale_rows },
    Check {
        id: "unknown_holders",
        silent: "every holder on record can be checked",
        look: unknown_holders,
    },
    Check {
        id: "holders_stopped",
        silent: "no holder is stopped or frozen",
        look: holders_stopped,
    },
    Check { id: "unresponsive", silent: "no holder has missed its heartbeats", look: unresponsive },
    Check {
        id: "leaked_anchors",
        silent: "no process keeps the lock file of a dead holder",
        look: anchors::leaked_anchors,
    },
    Check {
        id: "orphan_anchors",
        silent: "every lock file that is held is on record",
        look: anchors::orphan_anchors,
    },
    Check {
        id: "missing_anchors",
        silent: "every holder has its lock file",
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

/// It blocks nobody, and the next start ends it.
fn stale_rows(opened: &Opened) -> Result<Vec<Observation>> {
    each_owner(opened, |owner| {
        let reason = owner.judged.ruling.reason();
        owner.is_stale().then(|| {
            Observation::info(format!(
                "{}: the holder on record, {} since {}, is dead ({reason}: {})",
                owner.name(),
                owner.pid(),
                owner.since(),
                because_seen(&reason, owner.judged.flags, &owner.judged.evidence)
            ))
            .remedy(format!(
                "no action needed: the next start takes its place; {} ends this record now, {} \
                 ends all of them",
                opened.evict(owner, Force::No),
                opened.scene.command("doctor --fix")
            ))
        })
    })
}

fn unknown_holders(opened: &Opened) -> Result<Vec<Observation>> {
    each_owner(opened, |owner| {
        let Ruling::Unknown(_) = owner.judged.ruling else { return None };
        let reason = owner.judged.ruling.reason();
        let text = format!(
            "{}: whether the holder on record, {} since {}, is alive cannot be seen from here \
             ({reason}: {})",
            owner.name(),
            owner.pid(),
            owner.since(),
            reason.because()
        );
        Some(Observation::unknown(text).remedy(format!(
            "check where it was started; if it is certainly gone, {} ends its record",
            opened.evict(owner, Force::Yes)
        )))
    })
}

fn holders_stopped(opened: &Opened) -> Result<Vec<Observation>> {
    each_owner(opened, |owner| {
        if owner.judged.flags.frozen {
            let pids = [owner.record.child_pid, owner.record.pid];
            // Elsewhere its numbers are those of strangers.
            let pids = pids.map(|pid| pid.filter(|_| owner.pid_here().is_some()));
            let text = format!(
                "{} is held by {}, which is frozen by its control group: it does nothing, and gets \
                 no signal until it is thawed",
                owner.name(),
                owner.pid()
            );
            let thaw = frozen::how_to_thaw(pids, owner.record.supervisor.as_deref());
            return Some(Observation::warning(text).remedy(format!("thaw it: {thaw}")));
        }
        if owner.judged.flags.command_stopped {
            return command_stopped(opened, owner);
        }
        let pid = owner.pid_here()?;
        let is_stopped = owner.judged.evidence.process_state == RunState::Stopped;
        (is_stopped && !owner.is_dead()).then(|| {
            // Whoever only waits keeps nobody out.
            if !owner.holds_something {
                return Observation::info(format!(
                    "{}: it waits, but is suspended by a signal (SIGSTOP)",
                    owner.name_and_pid()
                ))
                .remedy(format!("`kill -CONT {pid}` continues it"));
            }
            let text = format!(
                "{} is held by pid {pid}, which is suspended by a signal (SIGSTOP): it does \
                 nothing, and keeps others out",
                owner.name()
            );
            let end = owner.record.office().map_or_else(
                || format!("`kill -KILL {pid}`"),
                |office| opened.scene.command(&office.verb("stop --force --timeout 10s")),
            );
            Observation::warning(text)
                .remedy(format!("`kill -CONT {pid}` continues it, {end} ends it"))
        })
    })
}

/// Of a `run` that is not stopped itself.
fn command_stopped(opened: &Opened, owner: &JudgedOwner) -> Option<Observation> {
    let (child, office) = (owner.record.child_pid?, owner.record.office()?);
    let text = format!(
        "{office} does nothing: its command, pid {child}, is suspended by a signal (SIGSTOP)"
    );
    let again = opened
        .scene
        .command(&format!("restart --profile {} --kind {}", office.profile, office.kind));
    let remedy = format!("`kill -CONT {child}` continues it, {again} restarts it");
    Some(Observation::warning(text).remedy(remedy))
}

fn unresponsive(opened: &Opened) -> Result<Vec<Observation>> {
    each_owner(opened, |owner| {
        let silent = owner.unresponsive_for.filter(|_| !owner.is_dead())?;
        let text = format!(
            "{} is held by {}, which has sent no heartbeat for {} s; it promised one every {}",
            owner.name(),
            owner.pid(),
            silent.as_secs(),
            length(owner.record.heartbeat_every_ms.unwrap_or_default())
        );
        let remedy = what_to_do_about_silence(opened, owner);
        Some(Observation::warning(text).remedy(remedy))
    })
}

/// One that is suspended serves no restart, and may only need to go on.
fn what_to_do_about_silence(opened: &Opened, owner: &JudgedOwner) -> String {
    let is_stopped = owner.judged.evidence.process_state == RunState::Stopped;
    if let Some(pid) = owner.pid_here().filter(|_| is_stopped) {
        return format!("it is suspended: continue it first (`kill -CONT {pid}`)");
    }
    if owner.judged.flags.frozen {
        return "it is frozen: thaw it first".to_owned();
    }
    match owner.record.office() {
        Some(office) => {
            let restart = opened.scene.command(&office.verb("restart"));
            format!("check what it does; {restart} restarts it")
        }
        None => "look at what it does".to_owned(),
    }
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
