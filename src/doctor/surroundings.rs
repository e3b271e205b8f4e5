//! What else is on this machine: other builds of SQLite, other stores, the files of older programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use crate::claim::{older as claim_older, ours};
use crate::doctor::check::{Check, Observation, Opened, Scene, listed};
use crate::doctor::judged_owner;
use crate::doctor::judged_owner::Only;
use crate::liveness::{AnchorState, Ruling};
use crate::path_text::quoted;
use crate::process::older;
use crate::process::older::{lock, wire};
use crate::store::location::state_path;
use crate::sys::{CaptureError, Pid, ProcessState};
use crate::{Office, OpenOptions, ProfileName, Result, environment, sys};

pub(super) const CHECKS: &[Check<Scene>] = &[
    Check { id: "sqlite_library", silent: "", look: sqlite_library },
    Check { id: "sqlite_shell", silent: "there is no sqlite3 on the path", look: sqlite_shell },
    Check { id: "other_stores", silent: "no other store has a live holder", look: other_stores },
    Check { id: "blind_spots", silent: "", look: blind_spots },
];

pub(super) const CHECKS_WITH_STORE: &[Check<Opened>] = &[Check {
    id: "legacy_files",
    silent: "no file of an older program contradicts the store",
    look: legacy_files,
}];

/// Major, minor, patch.
type Version = (u32, u32, u32);

/// `3.50.7`, followed by whatever.
fn parsed(text: &str) -> Option<Version> {
    let mut numbers = text.split_whitespace().next()?.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next().unwrap_or(0)))
}

/// Whether a version has the bug that resets a WAL which another process still writes to: from
/// 3.7.0 on, repaired in 3.51.3, and before that in 3.50.7 and 3.44.6 (FIELD-BUGS row 74).
fn is_affected(version: Version) -> bool {
    let (major, minor, patch) = version;
    let is_repaired = match minor {
        44 => patch >= 6,
        50 => patch >= 7,
        51 => patch >= 3,
        _ => minor > 51,
    };
    major == 3 && minor >= 7 && !is_repaired
}

fn sqlite_library(_: &Scene) -> Result<Vec<Observation>> {
    let version = rusqlite::version();
    Ok(vec![match parsed(version) {
        Some(parsed) if is_affected(parsed) => Observation::error(format!(
            "this program is built with SQLite {version}, which can lose what others write (WAL \
            reset)"
        ))
        .remedy("build it with the SQLite that comes with it, or with 3.51.3 or later"),
        Some(_) => Observation::ok(format!("SQLite {version} has no known bug that matters here")),
        None => Observation::unknown(format!("this program is built with SQLite {version:?}")),
    }])
}

/// People write with it, too.
fn sqlite_shell(_: &Scene) -> Result<Vec<Observation>> {
    const WITHIN: Duration = Duration::from_secs(1);
    const LENGTH_MAX: usize = 4 * 1024;
    let mut command = sys::program("sqlite3");
    let answer = match sys::capture(command.arg("--version"), WITHIN, LENGTH_MAX) {
        Ok(answer) => String::from_utf8_lossy(&answer.bytes).into_owned(),
        Err(CaptureError::Start(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(error) => {
            let why = match error {
                CaptureError::Start(error) => format!("cannot be started: {error}"),
                CaptureError::TimedOut => format!("did not answer within {} s", WITHIN.as_secs()),
                CaptureError::TooMuch => "printed too much".to_owned(),
            };
            return Ok(vec![Observation::unknown(format!("the sqlite3 on the path {why}"))]);
        }
    };
    Ok(vec![match parsed(&answer) {
        Some(version) if is_affected(version) => {
            let (major, minor, patch) = version;
            Observation::info(format!(
                "the sqlite3 on the path has version {major}.{minor}.{patch}, which has a bug: \
                 what it writes while gateways run may damage the store (WAL reset)"
            ))
            .remedy(
                "use it only to read: `sqlite3 -readonly`, or `incumbent sql 'SELECT * FROM \
                 instances'`",
            )
        }
        Some((major, minor, patch)) => Observation::ok(format!(
            "the sqlite3 on the path has version {major}.{minor}.{patch}, without known bugs that \
             matter here"
        )),
        None => Observation::unknown("the sqlite3 on the path does not say its version"),
    }])
}

/// FIELD-BUGS row 30: two stores are two authorities, and neither refuses what the other granted.
fn other_stores(scene: &Scene) -> Result<Vec<Observation>> {
    let ours = scene.options.resolved_path()?;
    let by_environment = environment::value(environment::DB).map(PathBuf::from);
    let mut seen = Vec::new();
    let mut looked_at = vec![ours];
    for path in [by_environment, state_path().ok()].into_iter().flatten() {
        let options = OpenOptions::new().path(&path).single_reader();
        let Ok(path) = options.resolved_path() else { continue };
        if looked_at.contains(&path) {
            continue;
        }
        looked_at.push(path.clone());
        let Ok(Some(store)) = options.open_existing() else { continue };
        let Ok(owners) = judged_owner::look(&store.inner, &Only::default()) else { continue };
        let alive: Vec<_> = owners.iter().filter(|owner| !owner.is_dead()).collect();
        if !alive.is_empty() {
            seen.push(
                Observation::info(format!(
                    "another store has live holders, which this one does not know: {} ({})",
                    path.display(),
                    listed(&alive, 5, |owner| owner.name())
                ))
                .remedy(format!("`incumbent --db {} status --all`", quoted(&path))),
            );
        }
    }
    Ok(seen)
}

/// What nobody can see from here.
fn blind_spots(_: &Scene) -> Result<Vec<Observation>> {
    let mut blind = vec!["other machines that use the same tokens".to_owned()];
    blind.push(
        "another store, by another `--db` or by another build with a place of its own".to_owned(),
    );
    if sys::effective_uid().is_some_and(|uid| uid != 0) {
        blind.push(
            "which files the processes of other users have open, and their stores".to_owned(),
        );
    }
    if sys::SHOWS_RECORD_LOCKS {
        blind.push(
            "who holds a lock in another container or pid namespace (/proc/locks hides them)"
                .to_owned(),
        );
    } else {
        blind.push("who holds a lock, and which process has a lock file open".to_owned());
    }
    if !sys::process_table_is_ours() {
        blind.push("any process at all: /proc is another pid namespace's".to_owned());
    } else if sys::process_facts(1).state == ProcessState::Unknown {
        blind.push("the processes of other users: they are hidden (hidepid)".to_owned());
    }
    Ok(vec![Observation::info(format!("this doctor cannot see: {}", blind.join("; ")))])
}

/// The directories in which older programs may have left their files, and whose they are.
fn legacy_homes(opened: &Opened) -> Result<Vec<(PathBuf, Option<ProfileName>)>> {
    let rows: Vec<(String, String)> = opened.inner().read(|connection| {
        let mut rows = Vec::new();
        for column in ["legacy_home", "home"] {
            if !connection.column_exists(None, "profiles", column)? {
                continue;
            }
            let sql = format!(
                "SELECT profile, {column} FROM profiles WHERE {column} IS NOT NULL LIMIT 100"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let found = statement.query_map([], |row| {
                Ok((row.get(0).unwrap_or_default(), row.get(1).unwrap_or_default()))
            })?;
            rows.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Ok(rows)
    })?;
    let mut homes: Vec<(PathBuf, Option<ProfileName>)> = rows
        .into_iter()
        .map(|(profile, home)| (PathBuf::from(home), ProfileName::new(profile).ok()))
        .collect();
    homes.extend(environment::absolute_path("HERMES_HOME").map(|home| (home, None)));
    let only = &opened.scene.only;
    homes.retain(|(_, profile)| only.concerns(profile.as_ref().map(ProfileName::as_str), None));
    let mut distinct: Vec<(PathBuf, Option<ProfileName>)> = Vec::new();
    for home in homes {
        if distinct.iter().all(|(known, _)| *known != home.0) {
            distinct.push(home);
        }
    }
    Ok(distinct)
}

/// An older program knows its own files alone, and may say in them that somebody else runs.
fn legacy_files(opened: &Opened) -> Result<Vec<Observation>> {
    let holders: Vec<Pid> = opened
        .owners()?
        .iter()
        .filter(|owner| !owner.is_dead())
        .flat_map(|owner| [owner.record.pid, owner.record.child_pid, owner.record.keeper_pid])
        .flatten()
        .collect();
    let mut seen = Vec::new();
    for (home, profile) in legacy_homes(opened)? {
        seen.extend(one_home(opened, &home, profile.as_ref(), &holders)?);
    }
    Ok(seen)
}

/// How an older gateway is ended: with a record it is one like any other.
fn import_and_stop(opened: &Opened, home: &Path, profile: Option<&ProfileName>) -> String {
    let office = match profile {
        Some(profile) => Office { profile: profile.clone(), ..Office::default() },
        None => Office::default(),
    };
    let import =
        opened.scene.command(&format!("import {} --profile {}", quoted(home), office.profile));
    let stop = opened.scene.command(&office.verb("stop"));
    format!("{import} puts it on record, and then {stop} ends it")
}

/// The kernel's list says whether an older gateway lives; the words in the files say whom they are
/// about. Nobody's lock is tried: that would keep the older program from starting.
fn one_home(
    opened: &Opened,
    home: &Path,
    profile: Option<&ProfileName>,
    holders: &[Pid],
) -> Result<Vec<Observation>> {
    let of = profile.map_or_else(String::new, |profile| format!(" of profile {profile}"));
    let lock = home.join(older::LOCK_FILE);
    let state = lock::look(&lock);
    if state == AnchorState::Held {
        let pid = lock::whoever_holds(&lock).pid;
        if holders.contains(&pid) {
            return Ok(Vec::new());
        }
        let office = match profile {
            Some(profile) => Office { profile: profile.clone(), ..Office::default() },
            None => Office::default(),
        };
        let inner = opened.inner();
        let ours = |connection: &Connection| ours::obstacle(connection, inner, &office, home);
        if let Some(obstacle) = inner.read(ours)? {
            return Ok(vec![Observation::info(obstacle.holder.to_string())]);
        }
        let way_out = import_and_stop(opened, home, profile);
        return Ok(vec![
            Observation::error(format!(
                "an older gateway, {}, holds {}{of}, and is not on record as a holder here: two \
                 gateways may be running, or a start is about to be refused",
                opened.process(pid),
                lock.display()
            ))
            .remedy(way_out),
        ]);
    }
    let mut seen = Vec::new();
    for name in [older::PID_FILE, older::LOCK_FILE] {
        let path = home.join(name);
        let at = path.display();
        seen.push(match wire::PidRecord::read(&path) {
            Ok(said) if holders.contains(&said.pid) => continue,
            Ok(said) => {
                let verdict = claim_older::judge(opened.inner(), &said, &path).1;
                // Whoever lives without the lock has let it go.
                match verdict {
                    Ruling::Alive(_) if state != AnchorState::Free => Observation::error(format!(
                        "{at}{of} names {}, which is alive, and not on record as a holder here: \
                         two gateways may be running",
                        opened.process(said.pid)
                    ))
                    .remedy(format!(
                        "stop one of them; for that one: {}",
                        import_and_stop(opened, home, profile)
                    )),
                    Ruling::Unknown(_) if state != AnchorState::Free => Observation::unknown(
                        format!("{at}{of} names pid {}, which cannot be checked", said.pid),
                    ),
                    Ruling::Alive(_) | Ruling::Dead(_) | Ruling::Unknown(_) => Observation::info(
                        format!("{at}{of} names pid {}, which is no longer that gateway", said.pid),
                    ),
                }
            }
            Err(wire::Unusable::Missing) => continue,
            Err(wire::Unusable::Corrupt(why)) => {
                Observation::info(format!("{at} names no process: {why}"))
            }
            Err(wire::Unusable::Unreadable(why)) => {
                Observation::unknown(format!("{at} cannot be read: {why}"))
            }
        });
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sqlite.org: repaired in 3.51.3, and in the branches 3.50 and 3.44.
    #[test]
    fn versions_with_the_wal_reset_bug() {
        for (version, expected) in [
            ("3.6.23", false),
            ("3.7.0", true),
            ("3.40.1 2022-12-28 14:03:47 df5c253c0b3dd24916e4ec7cf77d3db5294cc9fd45ae7b9c", true),
            ("3.43.9", true),
            ("3.44.5", true),
            ("3.44.6", false),
            ("3.44.7", false),
            ("3.45.0", true),
            ("3.49.2", true),
            ("3.50.6", true),
            ("3.50.7", false),
            ("3.51.0", true),
            ("3.51.2", true),
            ("3.51.3", false),
            ("3.52.0", false),
            ("3.53.2", false),
            ("4.0.0", false),
        ] {
            assert_eq!(parsed(version).map(is_affected), Some(expected), "{version}");
        }
        for text in ["", "sqlite", "3", "3.x.1"] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(parsed("3.51"), Some((3, 51, 0)));
    }

    #[test]
    fn the_bundled_sqlite_is_repaired() {
        assert_eq!(parsed(rusqlite::version()).map(is_affected), Some(false));
    }
}
