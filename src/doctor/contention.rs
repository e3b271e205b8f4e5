//! Who wants what somebody else has, and who keeps whom from writing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Row;

use crate::clock::{length, rfc3339};
use crate::doctor::check::{Check, Observation, Opened, Scene, beside, counted, listed, program};
use crate::office::storm::of as storm_of;
use crate::records::conflicts::CURRENT_FOR_MS;
use crate::records::{locks, markers};
use crate::store::busy::blocker;
use crate::sys::ProcessState;
use crate::{InstanceId, Kind, Office, ProfileName, Result, sys};

pub(super) const CHECKS_OF_FILES: &[Check<Scene>] =
    &[Check { id: "write_lock", silent: "no process blocks writes", look: write_lock }];

pub(super) const CHECKS: &[Check<Opened>] = &[
    Check {
        id: "duplicate_tokens",
        silent: "no token is used by two profiles",
        look: duplicate_tokens,
    },
    Check { id: "conflicts", silent: "nothing was refused lately", look: conflicts },
    Check { id: "storms", silent: "no start fails again and again", look: storms },
    Check { id: "open_markers", silent: "no stop or restart is requested", look: open_markers },
    Check { id: "desired", silent: "every profile may run", look: desired },
];

/// Between two looks at who writes: a transaction takes a millisecond.
const LOOKS_APART: Duration = Duration::from_millis(150);

/// So often after the first look: on a machine with more to do than it can, a writer may not run
/// for half a second. One that is stopped is told of at once.
const LOOKS_MAX: u32 = 7;

/// Somebody who holds the write lock at all looks and has written nothing in between.
fn write_lock(scene: &Scene) -> Result<Vec<Observation>> {
    let Some(location) = &scene.location else { return Ok(Vec::new()) };
    if !sys::SHOWS_RECORD_LOCKS || !sys::process_table_is_ours() {
        return Ok(vec![Observation::unknown(
            "this system does not show who holds a file's locks",
        )]);
    }
    let wal = beside(&location.file, "-wal");
    let Some(first) = blocker(&location.file) else { return Ok(Vec::new()) };
    let written = last_written(&wal);
    let mut second = first;
    let mut held_for = Duration::ZERO;
    for _ in 0..LOOKS_MAX {
        std::thread::sleep(LOOKS_APART);
        let Some(now) = blocker(&location.file) else { return Ok(Vec::new()) };
        if now.pid != second.pid || last_written(&wal) != written {
            return Ok(Vec::new());
        }
        second = now;
        held_for += LOOKS_APART;
        if matches!(second.state, ProcessState::Stopped | ProcessState::Traced) {
            break;
        }
    }
    let pid = second.pid;
    let state = match second.state {
        ProcessState::Stopped => ", which is stopped,",
        ProcessState::Traced => ", which is being traced,",
        ProcessState::Running | ProcessState::Zombie | ProcessState::Unknown => "",
    };
    let text = format!(
        "the write lock is held by {}{state} for longer than {} ms: nobody can claim, release or \
        stop",
        program(pid),
        held_for.as_millis()
    );
    Ok(vec![match second.state {
        ProcessState::Stopped => Observation::error(text)
            .remedy(format!("`kill -CONT {pid}` lets it go on, `kill -KILL {pid}` ends it")),
        ProcessState::Traced => Observation::error(text)
            .remedy(format!("end its debugger or tracer, or end it: `kill {pid}`")),
        ProcessState::Running | ProcessState::Zombie | ProcessState::Unknown => {
            Observation::warning(text).remedy(format!(
                "look at what it does; an idle `sqlite3` shell is ended by `kill {pid}`"
            ))
        }
    }])
}

/// By its name: opening it would cancel SQLite's locks.
fn last_written(wal: &Path) -> Option<(u64, SystemTime)> {
    let facts = std::fs::metadata(wal).ok()?;
    Some((facts.len(), facts.modified().ok()?))
}

fn time(at_ms: i64) -> String {
    rfc3339(at_ms).unwrap_or_else(|| "an unknown time".to_owned())
}

/// A text that may be damaged.
fn text(row: &Row<'_>, index: usize) -> String {
    row.get::<_, Option<String>>(index).ok().flatten().unwrap_or_default()
}

/// So long something that was refused is told of.
const LOOKED_BACK_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// Who used one identity.
#[derive(Default)]
struct Users {
    profiles: BTreeSet<String>,
    /// The profile that holds it now, and by which row.
    holder: Option<(String, InstanceId)>,
    /// The profiles that were refused it a short time ago and have not been started since, or wait
    /// for it.
    refused: BTreeSet<String>,
}

impl Users {
    /// Somebody holds it, and another profile is kept out: that one does not work until somebody
    /// gives it a token of its own.
    fn keep_one_out(&self) -> bool {
        self.holder.as_ref().is_some_and(|(holder, _)| self.refused.iter().any(|it| it != holder))
    }
}

/// FIELD-BUGS row 67: a profile that was cloned carries the token of the first.
fn duplicate_tokens(opened: &Opened) -> Result<Vec<Observation>> {
    const SQL: &str = "
        SELECT scope, identity_hash, i.profile, 1, i.id FROM scoped_locks JOIN instances AS i
            ON i.id = instance_id AND i.ended_at_ms IS NULL
        UNION ALL
        SELECT scope, identity_hash, c.profile, iif(last_at_ms >= ?2 AND NOT EXISTS (
                SELECT 1 FROM starts AS s WHERE s.profile = c.profile AND s.outcome = 'granted'
                    AND s.at_ms > c.last_at_ms), 2, 0), NULL
            FROM lock_conflicts AS c WHERE last_at_ms >= ?1
        UNION ALL
        SELECT scope, identity_hash, i.profile, 0, NULL FROM lock_conflicts AS c JOIN instances AS i
            ON i.id = c.holder_id WHERE c.last_at_ms >= ?1
        UNION ALL
        SELECT json_extract(detail, '$.scope'), json_extract(detail, '$.identity_hash'), profile,
            0, NULL
            FROM events WHERE event IN ('lock_acquired', 'lock_refused') AND at_ms >= ?1";
    let now_ms = opened.now_ms();
    let since_ms = now_ms.saturating_sub(LOOKED_BACK_MS);
    let recent_ms = now_ms.saturating_sub(CURRENT_FOR_MS);
    // By lock.
    let mut users: BTreeMap<(String, String), Users> = BTreeMap::new();
    let mut in_slots = Vec::new();
    opened.inner().read(|connection| {
        if !locks::exists(connection)? {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(SQL)?;
        let mut rows = statement.query((since_ms, recent_ms))?;
        while let Some(row) = rows.next()? {
            let profile = text(row, 2);
            if profile.is_empty() {
                continue;
            }
            let users = users.entry((text(row, 0), text(row, 1))).or_default();
            match row.get::<_, i64>(3)? {
                1 => users.holder = Some((profile.clone(), InstanceId(row.get(4)?))),
                2 => {
                    users.refused.insert(profile.clone());
                }
                _ => {}
            }
            users.profiles.insert(profile);
        }
        in_slots = locks::in_slots(connection, since_ms)?;
        Ok(())
    })?;
    // Whoever waits is kept out as well, however long it has not been refused.
    for row in opened.waiting()? {
        let (Some(lock), Some(profile)) = (row.lock, row.record.profile) else { continue };
        let (scope, hash) = (lock.scope.as_str(), lock.identity_hash.as_str());
        let users = users.entry((scope.to_owned(), hash.to_owned())).or_default();
        users.refused.insert(profile.to_string());
        users.profiles.insert(profile.to_string());
    }
    // Who was killed keeps nobody out, also before the next claim ends its row.
    for users in users.values_mut().filter(|users| users.keep_one_out()) {
        if let Some((_, id)) = users.holder
            && opened.is_dead(id)?
        {
            users.holder = None;
        }
    }
    // Of a lock with slots it is what they are for.
    for name in in_slots {
        users.remove(&name);
    }
    let only = &opened.scene.only;
    let shared = users.into_iter().filter(|(_, users)| {
        users.profiles.len() > 1
            && users.profiles.iter().any(|profile| only.concerns(Some(profile.as_str()), None))
    });
    let found = shared.map(|((scope, hash), users)| {
        let keeps_one_out = users.keep_one_out();
        let profiles: Vec<String> = users.profiles.into_iter().collect();
        let now = users.holder.map_or_else(
            || "nobody holds it now".to_owned(),
            |(holder, _)| format!("{holder} holds it now"),
        );
        let text = format!(
            "one identity ({scope}/{hash}) was used by {} within 7 days: {}; {now}",
            counted(profiles.len(), "profile", "profiles"),
            listed(&profiles, 8, Clone::clone)
        );
        // Else one took the place of the other, or both were stopped.
        let seen = if keeps_one_out { Observation::warning(text) } else { Observation::info(text) };
        seen.remedy("give each profile a token of its own, in its configuration")
    });
    Ok(found.collect())
}

/// Refusals of one contender, whoever refused it.
struct Refused {
    /// What it wanted: an office, or a lock.
    what: String,
    contender: String,
    pid: i64,
    first_at_ms: i64,
    last_at_ms: i64,
    count: i64,
}

impl Refused {
    /// Expects the columns in the order of both statements, the newest row first.
    fn of(row: &Row<'_>, what: String, profile: &str) -> Self {
        let whose =
            if profile.is_empty() { String::new() } else { format!(" of profile {profile}") };
        Self {
            what,
            contender: format!("{}{whose}", contender(&text(row, 0))),
            pid: row.get(1).unwrap_or_default(),
            first_at_ms: row.get(2).unwrap_or(-1),
            last_at_ms: row.get(3).unwrap_or(-1),
            count: row.get(4).unwrap_or_default(),
        }
    }

    /// What was refused is over. Who starts it again and again is a storm, and whom a process
    /// outside of its supervisor keeps out is told by that check.
    fn seen(self, opened: &Opened) -> Observation {
        let (times, when) = if self.count == 1 {
            ("once".to_owned(), format!("at {}", time(self.last_at_ms)))
        } else {
            let (first, last) = (time(self.first_at_ms), time(self.last_at_ms));
            (format!("{} times", self.count), format!("first at {first}, last at {last}"))
        };
        let text = format!(
            "{} was refused {} {times}, {when} (pid {})",
            self.contender, self.what, self.pid
        );
        Observation::info(text).remedy(format!(
            "no action needed if it was a mistake; otherwise let only one supervisor start it ({} \
             shows who holds what)",
            opened.scene.command("status --all")
        ))
    }
}

fn conflicts(opened: &Opened) -> Result<Vec<Observation>> {
    const OFFICES: &str = "SELECT contender, pid, first_at_ms, last_at_ms, count, profile, kind
         FROM conflicts ORDER BY last_at_ms DESC LIMIT 1000";
    const LOCKS: &str = "SELECT contender, pid, first_at_ms, last_at_ms, count, profile, scope,
            identity_hash FROM lock_conflicts ORDER BY last_at_ms DESC LIMIT 1000";
    let only = &opened.scene.only;
    let mut all: Vec<Refused> = Vec::new();
    opened.inner().read(|connection| {
        let mut statement = connection.prepare_cached(OFFICES)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (profile, kind) = (text(row, 5), text(row, 6));
            if only.concerns(Some(&profile), Some(&kind)) {
                add(&mut all, Refused::of(row, format!("{profile}/{kind}"), ""));
            }
        }
        if !locks::exists(connection)? {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(LOCKS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let profile = text(row, 5);
            if only.concerns(Some(&profile).filter(|it| !it.is_empty()).map(String::as_str), None) {
                let what = format!("{}/{}", text(row, 6), text(row, 7));
                add(&mut all, Refused::of(row, what, &profile));
            }
        }
        Ok(())
    })?;
    let since_ms = opened.now_ms().saturating_sub(LOOKED_BACK_MS);
    all.retain(|refused| refused.last_at_ms >= since_ms);
    Ok(all.into_iter().map(|refused| refused.seen(opened)).collect())
}

/// Refusals by one holder after the other are one story.
fn add(all: &mut Vec<Refused>, refused: Refused) {
    let is_same = |it: &&mut Refused| it.what == refused.what && it.contender == refused.contender;
    match all.iter_mut().find(is_same) {
        Some(known) => {
            known.first_at_ms = known.first_at_ms.min(refused.first_at_ms);
            known.count = known.count.saturating_add(refused.count);
        }
        None => all.push(refused),
    }
}

/// A party for people: its boot and namespace tell them nothing.
fn contender(party: &str) -> String {
    let words = party.split(' ').map(|word| match word.strip_prefix("parent:") {
        Some(parent) => {
            format!("a process started by pid {}", parent.split('/').next().unwrap_or(parent))
        }
        None => match (word.strip_prefix("pid:"), word.strip_prefix("named:")) {
            (Some(pid), _) => format!("pid {pid}"),
            (None, Some(name)) => format!("the supervisor {name}"),
            (None, None) => word.to_owned(),
        },
    });
    words.collect::<Vec<_>>().join(", ")
}

/// FIELD-BUGS row 46.
fn storms(opened: &Opened) -> Result<Vec<Observation>> {
    // A storm is forgotten after two minutes and its longest backoff.
    const LOOKED_BACK_MS: i64 = 10 * 60 * 1_000;
    const SQL: &str = "SELECT DISTINCT profile, kind, party FROM starts
        WHERE counted = 1 AND party IS NOT NULL AND boot_id IS ?1 AND at_boot_ms >= ?2 LIMIT 200";
    let inner = opened.inner();
    let now = inner.boot_time();
    let only = &opened.scene.only;
    inner.read(|connection| {
        let mut seen = Vec::new();
        let mut statement = connection.prepare_cached(SQL)?;
        let mut rows = statement.query((now.boot_id, now.ms.saturating_sub(LOOKED_BACK_MS)))?;
        while let Some(row) = rows.next()? {
            let (profile, kind, party) = (text(row, 0), text(row, 1), text(row, 2));
            let (Ok(profile), Ok(kind)) = (ProfileName::new(profile), Kind::new(kind)) else {
                continue;
            };
            if !only.concerns(Some(profile.as_str()), Some(kind.as_str())) {
                continue;
            }
            let office = Office { profile, kind };
            let Some(storm) = storm_of(connection, &office, &party, now.boot_id, now.ms)? else {
                continue;
            };
            let remaining_ms = i64::try_from(storm.remaining_ms(now.ms)).unwrap_or(i64::MAX);
            let whose = contender(&party);
            // The next one may start at once, and may go well: only a person knows.
            let (observation, next): (fn(String) -> Observation, _) = if remaining_ms > 0 {
                let next = format!("the next `run` waits for {}", length(remaining_ms));
                (Observation::warning, next)
            } else {
                (Observation::info, "the next `run` may start at once".to_owned())
            };
            let text = format!(
                "{office} was refused to {whose}, or ended badly, {} times in a row; {next}",
                storm.starts
            );
            seen.push(observation(text).remedy(format!(
                "find out why with {}; once that is fixed, the option `--no-backoff` of `run` \
                 starts at once",
                opened.scene.command(&office.verb("history"))
            )));
        }
        Ok(seen)
    })
}

fn open_markers(opened: &Opened) -> Result<Vec<Observation>> {
    let inner = opened.inner();
    let markers = inner.read(|connection| {
        if !markers::exists(connection)? {
            return Ok(Vec::new());
        }
        markers::all_open(connection, inner.boot_time())
    })?;
    let owners = opened.owners()?;
    let of = |id: InstanceId| owners.iter().find(|owner| owner.record.id == id);
    let concerned = markers.iter().filter_map(|marker| {
        let whom = match marker.instance {
            // Of another profile than the one asked about, or ended just now.
            Some(id) => of(id)?.name(),
            None => "a process that is not on record".to_owned(),
        };
        let pid = marker.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        let why = marker.reason.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        Some(Observation::info(format!(
            "{} for {whom}{pid}, written by {} at {}{why}, counts until {}",
            marker.name,
            marker.by,
            time(marker.written_at_ms),
            time(marker.expires_at_ms)
        )))
    });
    Ok(concerned.collect())
}

fn desired(opened: &Opened) -> Result<Vec<Observation>> {
    const SQL: &str =
        "SELECT profile FROM profiles WHERE desired = 'stopped' ORDER BY profile LIMIT 100";
    let stopped: Vec<String> = opened.inner().read(|connection| {
        let mut statement = connection.prepare_cached(SQL)?;
        let names = statement.query_map([], |row| Ok(text(row, 0)))?;
        Ok(names.collect::<rusqlite::Result<_>>()?)
    })?;
    let only = &opened.scene.only;
    let concerned = stopped.into_iter().filter(|name| only.concerns(Some(name), None));
    let found = concerned.map(|name| {
        Observation::info(format!(
            "profile {name} is set to stay stopped: `run --respect-desired` does not start it"
        ))
        .remedy(opened.scene.command(&format!("desired running --profile {name}")))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_for_people() {
        for (party, text) in [
            (
                "parent:12/3456/boot/ns systemd:gw.service",
                "a process started by pid 12, systemd:gw.service",
            ),
            ("pid:77", "pid 77"),
            ("named:red", "the supervisor red"),
            ("", ""),
        ] {
            assert_eq!(contender(party), text);
        }
    }
}
