//! Those on record as live, their anchors, and who supervises them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use rusqlite::OptionalExtension;

use crate::clock::{Deadline, rfc3339};
use crate::doctor::check::{Check, Only, Opened, Seen, counted, listed};
use crate::error::{Error, Result};
use crate::forensics::systemd::SystemdCheck;
use crate::liveness::{AnchorState, Judgement, Lease, RunState, Verdict};
use crate::names::{InstanceId, Office};
use crate::owner::because::because;
use crate::owner::holder::because_seen;
use crate::owner::judge::look as look_at;
use crate::path_text::quoted;
use crate::process::anchor::lost::LostOwner;
use crate::process::older::lock;
use crate::process::{anchor, subject};
use crate::records::instances::Record;
use crate::records::{instances, runtime};
use crate::span::Span;
use crate::stop_budget::StopPhases;
use crate::store::handle::Inner;
use crate::store::ourselves;
use crate::store::transaction::lost_owners;
use crate::sys;
use crate::sys::Pid;

pub(super) const CHECKS: &[Check<Opened>] = &[
    Check { id: "stale_rows", silent: "nobody is on record who is dead", look: stale_rows },
    Check {
        id: "unknown_holders",
        silent: "of everybody on record it can be told whether they live",
        look: unknown_holders,
    },
    Check { id: "holders_stopped", silent: "no holder is stopped", look: holders_stopped },
    Check { id: "unresponsive", silent: "no holder has missed its heartbeats", look: unresponsive },
    Check { id: "leaked_anchors", silent: "no anchor outlives its owner", look: leaked_anchors },
    Check {
        id: "orphan_anchors",
        silent: "every anchor that is held is on record",
        look: orphan_anchors,
    },
    Check { id: "missing_anchors", silent: "every holder has its anchor", look: missing_anchors },
    Check {
        id: "outside_supervisor",
        silent: "every holder is where its supervisor started it",
        look: outside_supervisor,
    },
    Check {
        id: "stop_budget",
        silent: "no unit kills its gateway before the stop budget is over",
        look: stop_budgets,
    },
];

/// Somebody on record as live, and what is known of it.
pub(super) struct Owner {
    pub(super) record: Record,
    pub(super) judged: Judgement,
    unresponsive_ms: Option<u64>,
}

impl Owner {
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

/// Looks at everybody on record as live. Where something is wrong with an anchor, row and anchor are
/// looked at once more: who lets go ends its row before it touches the anchor, so whoever is on
/// record even then has not let go.
pub(super) fn look(inner: &Inner, only: &Only) -> Result<Vec<Owner>> {
    let mut owners = look_once(inner, only)?;
    if !owners.iter().any(Owner::may_have_let_go) {
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

fn look_once(inner: &Inner, only: &Only) -> Result<Vec<Owner>> {
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
        Owner { record, judged, unresponsive_ms }
    });
    Ok(looked_at.collect())
}

fn each(opened: &Opened, mut seen: impl FnMut(&Owner) -> Option<Seen>) -> Result<Vec<Seen>> {
    Ok(opened.owners()?.iter().filter_map(&mut seen).collect())
}

/// The verb that ends the record of an office, or that of locks without one.
fn evict(opened: &Opened, owner: &Owner, force: &str) -> String {
    match owner.record.office() {
        Some(office) => opened.scene.command(&evict_verb(&office, force)),
        None => opened.scene.command("unlock --stale"),
    }
}

fn evict_verb(office: &Office, force: &str) -> String {
    format!("evict{force} --profile {} --kind {}", office.profile, office.kind)
}

/// It blocks nobody; but whoever counts rows counts it.
fn stale_rows(opened: &Opened) -> Result<Vec<Seen>> {
    each(opened, |owner| {
        let reason = owner.judged.verdict.reason();
        owner.is_stale().then(|| {
            Seen::warning(format!(
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

fn unknown_holders(opened: &Opened) -> Result<Vec<Seen>> {
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
        Some(Seen::unknown(text).remedy(format!(
            "look where it was started; if you know that it does not run any more, {}",
            evict(opened, owner, " --force")
        )))
    })
}

fn holders_stopped(opened: &Opened) -> Result<Vec<Seen>> {
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
            Seen::warning(text)
                .remedy(format!("`kill -CONT {pid}` lets it go on, `kill -KILL {pid}` ends it"))
        })
    })
}

fn unresponsive(opened: &Opened) -> Result<Vec<Seen>> {
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
        Some(Seen::warning(text).remedy(format!("look at what it does{restart}")))
    })
}

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
pub(super) fn garbage_count(opened: &Opened) -> Result<usize> {
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
        let reason = record.end_reason.as_deref().unwrap_or("unknown");
        format!("{} ended ({reason}{by})", name(&record))
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
        return "ask as root, or where that process runs".to_owned();
    }
    let words = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    format!("look at what it does, and end it: `kill {words}`")
}

/// A descriptor that a child inherited holds the lock of an owner that is gone (FIELD-BUGS row 69),
/// or an owner goes on whose record was ended.
fn leaked_anchors(opened: &Opened) -> Result<Vec<Seen>> {
    let leaked = opened.owners()?.iter().filter(|owner| owner.judged.flags.anchor_leaked);
    let leaked: Vec<&Owner> = leaked.collect();
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
                "{} is held by an older gateway, {}, which is gone; {} is kept by {who}, which may be that \
                 gateway, so every start is refused",
                owner.name(),
                owner.pid(),
                path.display()
            );
            seen.push(Seen::warning(text).remedy(format!(
                "{}; if nothing of it is at work, {}",
                end_them(&pids),
                opened.scene.command("evict --force")
            )));
            continue;
        }
        let (who, pids) = holders.of(opened, anchor);
        let text = format!(
            "{} was held by {}, which is gone ({}); its anchor is still held by {who}",
            owner.name(),
            owner.pid(),
            owner.judged.verdict.reason()
        );
        seen.push(Seen::warning(text).remedy(format!(
            "nothing has to be done, the next start takes its place; {}",
            end_them(&pids)
        )));
    }
    for file in ended.iter().take(ANCHORS_SHOWN) {
        let NamedBy::Ended(how) = &file.named_by else { continue };
        let (who, pids) = holders.of(opened, &file.name);
        seen.push(
            Seen::warning(format!(
                "{how}, and its anchor is still held by {who}: a child of it, or itself, may \
                 still be at work"
            ))
            .remedy(end_them(&pids)),
        );
    }
    Ok(seen)
}

/// Between two looks at what is wrong with an anchor: one that is just being made gets its row within
/// a millisecond, one whose row has just ended is let go, and a process that was killed lets go of one
/// descriptor after the other.
const SETTLES_WITHIN: Duration = Duration::from_millis(100);

/// So long something is looked at again while it is wrong, and twice at least: on a machine with more
/// to do than it can, a process may not run for a good part of a second.
const SETTLES_WITHIN_LOAD: Duration = Duration::from_millis(600);

/// The anchors of which `is_wrong` at all looks, and all others as they were at the last one. A busy
/// store always has some of which it is so at one look: people end processes because of them.
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
        (wrong, others) = anchors(opened)?
            .into_iter()
            .partition(|file| is_wrong(file) && before.contains(&file.name));
    }
    Ok((wrong, others))
}

fn orphan_anchors(opened: &Opened) -> Result<Vec<Seen>> {
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
            Seen::info(format!(
                "{} that nobody holds any more: {}",
                counted(free.len(), "anchor", "anchors"),
                listed(&free, 2, |file| file.name.clone())
            ))
            .remedy(format!(
                "nothing: the next start collects them, and so does {}",
                opened.scene.command("doctor --fix")
            )),
        );
    }
    Ok(seen)
}

/// Its owner recorded itself in a store that was deleted, replaced or restored from a copy, and
/// acts.
fn orphan(opened: &Opened, file: &AnchorFile, holders: &Holders) -> Result<Seen> {
    let (who, pids) = holders.of(opened, &file.name);
    let maker = file.maker.map_or_else(String::new, |pid| {
        format!(", and was made by pid {pid} of its own pid namespace")
    });
    let text = format!(
        "the anchor {} is held by {who}{maker}; no row names it, so its owner has lost its \
         store, and every claim is refused",
        file.name
    );
    Ok(Seen::error(text).remedy(way_out(opened, &pids)?))
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
            opened.scene.command(&evict_verb(&usual, " --force"))
        )
    };
    Ok(format!("wait until it notices that its store is gone, or {}{evict}", end_them(pids)))
}

/// What was deleted or moved away together with the store before this one, and is held anyway: a start is
/// refused by it as by any other orphan.
fn lost_anchors(opened: &Opened) -> Result<Vec<LostOwner>> {
    let inner = opened.inner();
    inner.read(|connection| lost_owners(connection, inner.view()))
}

fn lost_anchor(opened: &Opened, lost: &LostOwner) -> Result<Seen> {
    let pids: Vec<Pid> = lost.anchor.pid.into_iter().collect();
    let fate = match &lost.moved_to {
        Some(path) => format!("moved with its store to {}", path.display()),
        None => "deleted together with its store".to_owned(),
    };
    let text = format!(
        "the anchor {} was {fate} and is still held by {}; its owner may be at work, so every claim is \
         refused",
        lost.anchor.name,
        opened.processes(&pids)
    );
    Ok(Seen::error(text).remedy(way_out(opened, &pids)?))
}

fn missing_anchors(opened: &Opened) -> Result<Vec<Seen>> {
    let anchors = &opened.inner().location.anchors;
    each(opened, |owner| {
        if owner.is_dead() {
            return None;
        }
        let file = owner.record.anchor.as_deref().unwrap_or_default();
        let held = format!("{} is held by {}", owner.name(), owner.pid());
        match owner.judged.evidence.anchor {
            AnchorState::Missing => Some(
                Seen::warning(format!(
                    "{held}, whose anchor {file} is gone from {}: only its pid and start time tell \
                     that it lives",
                    anchors.display()
                ))
                .remedy(
                    "nothing as a rule: its owner makes it anew within a second, unless it is \
                    stopped \
                     or writes nothing; then start it again",
                ),
            ),
            AnchorState::Unreadable => Some(
                Seen::unknown(format!("{held}, whose anchor {file} cannot be looked at"))
                    .remedy(format!("look at the modes of {}", quoted(anchors))),
            ),
            AnchorState::None => Some(Seen::info(format!(
                "{held} without an anchor (`--no-keeper`): only its pid and start time tell that \
                it \
                 lives"
            ))),
            AnchorState::Held | AnchorState::Free => None,
        }
    })
}

/// FIELD-BUGS row 52: an owner that its supervisor does not know keeps the office for days, and the
/// supervisor's own starts are refused.
fn outside_supervisor(opened: &Opened) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for owner in opened.owners()?.iter().filter(|owner| owner.lives()) {
        let Some(pid) = owner.pid_here() else { continue };
        let recorded = owner.record.supervisor.as_deref().unwrap_or("none");
        let now = subject::supervisor_word(&sys::supervision(pid));
        let stop = owner.record.office().map_or_else(
            || format!("end it (`kill {pid}`)"),
            |office| {
                let verb = format!("stop --profile {} --kind {}", office.profile, office.kind);
                format!("stop it ({})", opened.scene.command(&verb))
            },
        );
        // Read after its row: who has ended meanwhile is under nobody.
        let is_it_still = || sys::process_facts(pid).start_time == owner.record.start_time;
        // The supervisors of other processes can be seen by their cgroups alone.
        if recorded.starts_with("systemd:") && now != recorded && is_it_still() {
            seen.push(
                Seen::warning(format!(
                    "{} is held by pid {pid}, which was started under {recorded} and is under \
                    {now} \
                     now: its supervisor does not know it",
                    owner.name()
                ))
                .remedy(format!("{stop}, and let the service start it")),
            );
        }
        if recorded == "none" {
            let refused = refused_services(opened, owner)?;
            seen.extend(refused.into_iter().map(|(service, count, last)| {
                Seen::warning(format!(
                    "{} is held by pid {pid}, which no supervisor started, since {}; {service} was \
                     refused it {}, the last time at {last}",
                    owner.name(),
                    owner.since(),
                    counted(usize::try_from(count).unwrap_or(usize::MAX), "time", "times"),
                ))
                .remedy(format!("{stop}, and let the service start it"))
            }));
        }
    }
    Ok(seen)
}

/// The services whose starts this owner refused, how often, and when last.
fn refused_services(opened: &Opened, owner: &Owner) -> Result<Vec<(String, i64, String)>> {
    let rows: Vec<(String, i64, i64)> = opened.inner().read(|connection| {
        Ok(connection
            .prepare_cached(
                "SELECT contender, sum(count), max(last_at_ms) FROM conflicts
                 WHERE holder_id = ?1 GROUP BY contender",
            )?
            .query_map([owner.record.id.as_i64()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<_>>()?)
    })?;
    let mut services: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for (contender, count, last_at_ms) in rows {
        if let Some(service) = service_of(&contender) {
            let entry = services.entry(service.to_owned()).or_default();
            *entry = (entry.0.saturating_add(count), entry.1.max(last_at_ms));
        }
    }
    let at = |ms| rfc3339(ms).unwrap_or_else(|| "an unknown time".to_owned());
    Ok(services.into_iter().map(|(name, (count, last))| (name, count, at(last))).collect())
}

/// The service in the name of a party: `parent:12/... systemd:gw.service`.
fn service_of(party: &str) -> Option<&str> {
    party.split(' ').find(|word| word.starts_with("systemd:") || word.starts_with("launchd:"))
}

/// So many units are asked about, all at the same time: 2 s in all.
const UNITS_MAX: usize = 8;

fn stop_budgets(opened: &Opened) -> Result<Vec<Seen>> {
    let mut units: BTreeMap<&str, (Duration, Vec<String>)> = BTreeMap::new();
    for owner in opened.owners()?.iter().filter(|owner| owner.lives()) {
        let supervisor = owner.record.supervisor.as_deref().unwrap_or_default();
        let Some(unit) = supervisor.strip_prefix("systemd:") else { continue };
        if owner.pid_here().is_none() {
            continue;
        }
        let (budget, names) = units.entry(unit).or_default();
        *budget = (*budget).max(owner.record.stop_budget());
        names.push(owner.name());
    }
    let left_out = units.len().saturating_sub(UNITS_MAX);
    let units: Vec<_> = units.iter().take(UNITS_MAX).collect();
    let mut seen = ask_at_once(&units);
    if left_out > 0 {
        seen.push(Seen::unknown(format!("{left_out} more units were not asked about")));
    }
    Ok(seen)
}

type Unit<'a> = (&'a &'a str, &'a (Duration, Vec<String>));

/// Asks about all of them at the same time; where there can be no more threads, one after the other.
fn ask_at_once(units: &[Unit<'_>]) -> Vec<Seen> {
    std::thread::scope(|threads| {
        let mut asked = Vec::new();
        for (unit, (budget, names)) in units {
            let ask = || one_unit(unit, *budget, names);
            asked.push(std::thread::Builder::new().spawn_scoped(threads, ask).map_err(|_| ask()));
        }
        let answers = asked.into_iter().map(|asked| match asked {
            Ok(thread) => thread.join().unwrap_or_default(),
            Err(answer) => answer,
        });
        answers.flatten().collect()
    })
}

fn one_unit(unit: &str, budget: Duration, names: &[String]) -> Option<Seen> {
    let check = SystemdCheck::of_unit(unit, &StopPhases::of_budget(budget));
    let of = listed(names, 3, Clone::clone);
    match (&check.mismatch, &check.timeout_stop) {
        (Ok(true), Ok(given)) => {
            let text = format!(
                "{unit} is killed {given} after it is asked to stop, and {of} may take {}",
                Span::Finite(check.expected_min)
            );
            let remedy = check.advice();
            Some(Seen { remedy, ..Seen::warning(text) })
        }
        (Ok(_), _) => None,
        (Err(_), _) => Some(Seen::unknown(format!(
            "whether {unit} gives {of} time enough to stop cannot be told: {}",
            check.reason().unwrap_or("systemd does not say")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(service_of(party), service, "{party}");
        }
    }
}
