//! Anchors that no row accounts for, that outlive their owner, or that are missing.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::OptionalExtension;

use crate::claim::sweep::Force;
use crate::clock::Deadline;
use crate::doctor::check::{Observation, Opened, counted, each_owner, listed};
use crate::doctor::judged_owner;
use crate::doctor::judged_owner::{JudgedOwner, SETTLES_WITHIN};
use crate::liveness::{AnchorState, RunState};
use crate::path_text::quoted;
use crate::process::anchor;
use crate::process::anchor::lost::LostOwner;
use crate::process::older::lock;
use crate::records::instances;
use crate::store::busy::blocker;
use crate::store::ourselves;
use crate::store::transaction::lost_owners;
use crate::sys::Pid;
use crate::{Error, InstanceId, Office, Reason, Result, sys};

/// An anchor file, and what the store says of it.
struct AnchorFile {
    name: String,
    /// From its name: in the pid namespace of whoever made it.
    maker: Option<Pid>,
    state: AnchorState,
    named_by: NamedBy,
}

impl AnchorFile {
    fn is_garbage(&self) -> bool {
        self.state == AnchorState::Free && self.named_by != NamedBy::Live
    }
}

/// How many anchors nobody holds and no live row names.
pub(crate) fn garbage_count(opened: &Opened) -> Result<usize> {
    Ok(anchors(opened)?.iter().filter(|file| file.is_garbage()).count())
}

#[derive(PartialEq)]
enum NamedBy {
    /// A row that has not ended.
    Live,
    /// One that has; how.
    Ended(String),
    Nobody,
}

/// All anchors of the store, but for our own.
fn anchors(opened: &Opened) -> Result<Vec<AnchorFile>> {
    let inner = opened.inner();
    let directory = &inner.location.anchors;
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", directory, error)),
    };
    let own = inner.own_anchor();
    let mut files = Vec::new();
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some((_, maker)) = anchor::parse_name(&name) else { continue };
        if own.as_ref().is_none_or(|own| own.name() != name) {
            let state = anchor::probe(&directory.join(&name));
            files.push(AnchorFile { name, maker, state, named_by: NamedBy::Nobody });
        }
    }
    // Only now: whoever committed before the file was probed is on record.
    inner.read(|connection| {
        for file in &mut files {
            file.named_by = if ourselves::live_on_anchor(connection, &file.name)? > 0 {
                NamedBy::Live
            } else {
                ended_on(connection, &file.name)?.map_or(NamedBy::Nobody, NamedBy::Ended)
            };
        }
        Ok(())
    })?;
    files.retain(|file| file.state != AnchorState::Missing);
    Ok(files)
}

/// How the last row ended that names `anchor`.
fn ended_on(connection: &rusqlite::Connection, anchor: &str) -> Result<Option<String>> {
    let id = connection
        .prepare_cached(
            "SELECT max(id) FROM instances WHERE anchor = ?1 AND ended_at_ms IS NOT NULL",
        )?
        .query_row([anchor], |row| row.get::<_, Option<i64>>(0))
        .optional()?
        .flatten();
    let Some(id) = id else { return Ok(None) };
    let record = instances::by_id(connection, InstanceId(id))?;
    Ok(record.map(|record| {
        let by = record.ended_by.as_ref().map_or_else(String::new, |by| format!(", by {by}"));
        let reason = record.end_reason.as_ref().map_or("unknown", Reason::as_str);
        format!("{} ended ({reason}{by})", judged_owner::name(&record))
    }))
}

/// So many anchors without a live owner are told one by one.
const ANCHORS_SHOWN: usize = 8;

/// Who has which anchors open. Slow: it looks at every descriptor of every process.
struct Holders(Vec<(Pid, String)>);

impl Holders {
    fn look(opened: &Opened) -> Self {
        Self(sys::processes_with_files_of(&opened.inner().location.anchors))
    }

    /// Of the file of one anchor, as words and as pids.
    fn of(&self, opened: &Opened, anchor: &str) -> (String, Vec<Pid>) {
        let mut pids: Vec<Pid> =
            self.0.iter().filter(|(_, name)| name == anchor).map(|(pid, _)| *pid).collect();
        pids.dedup();
        if pids.is_empty() {
            return ("a process that cannot be seen from here".to_owned(), pids);
        }
        (opened.processes(&pids), pids)
    }
}

fn end_them(pids: &[Pid]) -> String {
    if pids.is_empty() {
        return "run this as root, or where that process runs".to_owned();
    }
    let words = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    format!(
        "check what it does, and end it: `kill {words}`, or `kill -KILL {words}` if that does \
         nothing"
    )
}

/// A descriptor that a child inherited holds the lock of an owner that is gone (FIELD-BUGS row 69),
/// or an owner goes on whose record was ended.
pub(super) fn leaked_anchors(opened: &Opened) -> Result<Vec<Observation>> {
    let leaked = opened.owners()?.iter().filter(|owner| owner.judged.flags.anchor_leaked);
    let leaked: Vec<&JudgedOwner> = leaked.collect();
    let is_ended = |file: &AnchorFile| {
        file.state == AnchorState::Held && matches!(file.named_by, NamedBy::Ended(_))
    };
    let (ended, _) = settled_anchors(opened, is_ended)?;
    if leaked.is_empty() && ended.is_empty() {
        return Ok(Vec::new());
    }
    let holders = Holders::look(opened);
    let mut seen = Vec::new();
    for owner in leaked {
        let anchor = owner.record.anchor.as_deref().unwrap_or_default();
        // The lock of an older gateway: what keeps it may be that gateway, detached.
        if let Some(path) = lock::path_of(anchor) {
            let pids = sys::processes_with_open_file(path);
            let who = if pids.is_empty() {
                "a process that cannot be seen from here".to_owned()
            } else {
                opened.processes(&pids)
            };
            let text = format!(
                "{} is held by an older gateway, {}, which is gone; {} is kept by {who}, which may \
                 be that gateway, so every start is refused",
                owner.name(),
                owner.pid(),
                path.display()
            );
            seen.push(Observation::warning(text).remedy(format!(
                "{}; if nothing of it is running, {}",
                end_them(&pids),
                opened.evict(owner, Force::Yes)
            )));
            continue;
        }
        let (who, pids) = holders.of(opened, anchor);
        let text = format!(
            "{} was held by {}, which is gone ({}), but {who} still holds its lock file",
            owner.name(),
            owner.pid(),
            owner.judged.ruling.reason()
        );
        seen.push(
            Observation::warning(text)
                .remedy(format!("{}; a start does not wait for that", end_them(&pids))),
        );
    }
    for file in ended.iter().take(ANCHORS_SHOWN) {
        let NamedBy::Ended(how) = &file.named_by else { continue };
        let (who, pids) = holders.of(opened, &file.name);
        seen.push(
            Observation::warning(format!(
                "{how}, but {who} still holds its lock file: the gateway, or a child of it, may \
                 still be running"
            ))
            .remedy(end_them(&pids)),
        );
    }
    Ok(seen)
}

/// So long something is looked at again while it is wrong, and twice at least: on a machine with
/// more to do than it can, a process may not run for a good part of a second.
const SETTLES_WITHIN_LOAD: Duration = Duration::from_millis(600);

/// The anchors of which `is_wrong` at all looks, and all others as they were at the last one. A
/// busy store always has some of which it is so at one look: people end processes because of them.
/// One whose maker is writing to the store is about to be recorded, however long the disk takes.
fn settled_anchors(
    opened: &Opened,
    is_wrong: impl Fn(&AnchorFile) -> bool,
) -> Result<(Vec<AnchorFile>, Vec<AnchorFile>)> {
    let (mut wrong, mut others): (Vec<_>, Vec<_>) =
        anchors(opened)?.into_iter().partition(&is_wrong);
    let deadline = Deadline::after(SETTLES_WITHIN_LOAD);
    let mut looks = 1;
    while !wrong.is_empty() && (looks < 2 || !deadline.has_passed()) {
        looks += 1;
        std::thread::sleep(SETTLES_WITHIN);
        let before: HashSet<String> = wrong.into_iter().map(|file| file.name).collect();
        // Asked first: whoever begins after that has committed nothing that was wrong before.
        let writer = blocker(&opened.inner().location.file).map(|it| it.pid);
        (wrong, others) = anchors(opened)?.into_iter().partition(|file| {
            let is_in_work = writer.is_some() && file.maker == writer;
            is_wrong(file) && before.contains(&file.name) && !is_in_work
        });
    }
    Ok((wrong, others))
}

pub(super) fn orphan_anchors(opened: &Opened) -> Result<Vec<Observation>> {
    let is_orphan =
        |file: &AnchorFile| file.state == AnchorState::Held && file.named_by == NamedBy::Nobody;
    let (orphans, files) = settled_anchors(opened, is_orphan)?;
    let mut seen = Vec::new();
    if !orphans.is_empty() {
        let holders = Holders::look(opened);
        for file in orphans.iter().take(ANCHORS_SHOWN) {
            seen.push(orphan(opened, file, &holders)?);
        }
    }
    for lost in lost_anchors(opened)?.iter().take(ANCHORS_SHOWN) {
        seen.push(lost_anchor(opened, lost)?);
    }
    let free: Vec<&AnchorFile> = files.iter().filter(|file| file.is_garbage()).collect();
    if !free.is_empty() {
        seen.push(
            Observation::info(format!(
                "{} that nobody holds any more: {}",
                counted(free.len(), "lock file", "lock files"),
                listed(&free, 2, |file| file.name.clone())
            ))
            .remedy(format!(
                "no action needed: the next start deletes them, and so does {}",
                opened.scene.command("doctor --fix")
            )),
        );
    }
    Ok(seen)
}

/// Its owner recorded itself in a store that was deleted, replaced or restored from a copy, and
/// acts.
fn orphan(opened: &Opened, file: &AnchorFile, holders: &Holders) -> Result<Observation> {
    let (who, pids) = holders.of(opened, &file.name);
    let maker = file
        .maker
        .map_or_else(String::new, |pid| format!(" (made by pid {pid} of its own pid namespace)"));
    let text = format!(
        "{who} holds the lock file {}{maker}, which is not on record: its store was deleted or \
         replaced, so every claim is refused",
        file.name
    );
    Ok(Observation::error(text).remedy(way_out(opened, &pids)?))
}

fn way_out(opened: &Opened, pids: &[Pid]) -> Result<String> {
    // Where somebody is on record, `evict` is about them.
    let usual = Office::default();
    let is_held = opened.owners()?.iter().any(|owner| owner.record.office() == Some(usual.clone()));
    let evict = if is_held {
        String::new()
    } else {
        format!(
            "; if you know that it is harmless, {}",
            opened.scene.command(&usual.verb("evict --force"))
        )
    };
    Ok(format!("wait until it notices that its store is gone, or {}{evict}", end_them(pids)))
}

/// What was deleted or moved away together with the store before this one, and is held anyway: a
/// start is refused by it as by any other orphan.
fn lost_anchors(opened: &Opened) -> Result<Vec<LostOwner>> {
    let inner = opened.inner();
    inner.read(|connection| lost_owners(connection, inner.view()))
}

fn lost_anchor(opened: &Opened, lost: &LostOwner) -> Result<Observation> {
    let pids: Vec<Pid> = lost.anchor.pid.into_iter().collect();
    let fate = match &lost.moved_to {
        Some(path) => format!("moved with its store to {}", path.display()),
        None => "deleted together with its store".to_owned(),
    };
    let text = format!(
        "the lock file {} was {fate}, and {} still holds it: a gateway may be running, so every \
         claim is refused",
        lost.anchor.name,
        opened.processes(&pids)
    );
    Ok(Observation::error(text).remedy(way_out(opened, &pids)?))
}

/// So long a live owner may take to make its anchor again: it looks once a second.
const MADE_AGAIN_WITHIN: Duration = Duration::from_millis(1_500);

/// Whether the anchor of a live row is missing, and stays so.
fn stays_missing(opened: &Opened, name: &str, until: Deadline) -> bool {
    let path = opened.inner().location.anchors.join(name);
    while anchor::probe(&path) == AnchorState::Missing {
        if until.has_passed() {
            let inner = opened.inner();
            let live = inner.read(|connection| ourselves::live_on_anchor(connection, name));
            return live.is_ok_and(|count| count > 0);
        }
        std::thread::sleep(SETTLES_WITHIN);
    }
    false
}

/// What has an owner make its anchor again.
fn made_again_by(opened: &Opened, owner: &JudgedOwner) -> String {
    let is_stopped = owner.judged.evidence.process_state == RunState::Stopped;
    match (owner.pid_here().filter(|_| is_stopped), owner.record.office()) {
        (Some(pid), _) => {
            format!("`kill -CONT {pid}` continues it, and it makes its lock file again")
        }
        (None, Some(office)) => {
            format!("stop it ({}), and start it again", opened.scene.command(&office.verb("stop")))
        }
        (None, None) => "end it where it runs, and start it again".to_owned(),
    }
}

pub(super) fn missing_anchors(opened: &Opened) -> Result<Vec<Observation>> {
    let anchors = &opened.inner().location.anchors;
    let made_again = Deadline::after(MADE_AGAIN_WITHIN);
    each_owner(opened, |owner| {
        if owner.is_dead() {
            return None;
        }
        let file = owner.record.anchor.as_deref().unwrap_or_default();
        let held = format!("{} is held by {}", owner.name(), owner.pid());
        match owner.judged.evidence.anchor {
            AnchorState::Missing => stays_missing(opened, file, made_again).then(|| {
                Observation::warning(format!(
                    "{held}, whose lock file {file} is gone from {}: only its pid and start time \
                     show that it is alive",
                    anchors.display()
                ))
                .remedy(made_again_by(opened, owner))
            }),
            AnchorState::Unreadable => Some(
                Observation::unknown(format!("{held}, whose lock file {file} cannot be read"))
                    .remedy(format!("check the modes of {}", quoted(anchors))),
            ),
            AnchorState::None => Some(Observation::info(format!(
                "{held} without a lock file (`--no-keeper`): only its pid and start time show \
                 that it is alive"
            ))),
            AnchorState::Held | AnchorState::Free => None,
        }
    })
}
