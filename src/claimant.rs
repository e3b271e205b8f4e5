//! What every claimant does, whatever it claims: examine a recorded owner, run the errands that are
//! too slow for a transaction, and look for anchors that nobody accounts for.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use crate::anchor::{self, Orphan, Sweep};
use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result, with_clear_sight};
use crate::family::{self, Family, Remains};
use crate::holder::Holder;
use crate::instance::{self, EndReason, Origin, Record, Subject};
use crate::legacy;
use crate::liveness::{
    AliveReason, AnchorState, DeadReason, Evidence, Flags, Judgement, Lease, Presence,
    StartTimeMatch, UnknownReason, Verdict, judge,
};
use crate::marker_table;
use crate::names::{InstanceId, ProfileName, Wanted};
use crate::observe::{
    FREE_TWICE_APART, LiveCommandLine, anchor_of, compare_command_line, hangs_on_init,
    has_left_its_lock, needs_command_line, observe,
};
use crate::reservation;
use crate::standing::Force;
use crate::store::{EventRecord, Inner, Location, Tx, lost_owners, named_anchors};
use crate::sys::{self, Existence, ProcessFacts, ProcessState, StartTime, Trust, Unproven};
use crate::takeover::{LeftOver, trust_in};
use crate::wait::{Obstacle, Watch};

/// How often one claim looks again because what it had read before belonged to another
/// generation, or a child had to be ended first. More would mean something that changes hands
/// faster than it can be looked at.
pub(crate) const ATTEMPTS: usize = 8;

/// How long a claimant waits for a killed child to be gone. A killed process goes in milliseconds
/// unless it hangs in the kernel (a dead disk), and then nobody else can help either.
const CHILD_GONE_WITHIN: Duration = Duration::from_secs(5);

/// Between the two looks that find an owner stopped: job control and snapshots stop healthy processes
/// for an instant.
const STOPPED_TWICE_APART: Duration = Duration::from_millis(200);

/// The holder whose place a claim took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Its recorded pid.
    pub pid: Option<sys::Pid>,
    /// Its profile, if it has one.
    pub profile: Option<ProfileName>,
    /// Its generation.
    pub instance: InstanceId,
    /// Why it counted as dead, in snake case; `evicted` for one that was stopped.
    pub reason: &'static str,
    /// What it, a `run` that was killed, had left in its session: ended before the place was taken.
    pub ended: Vec<sys::Pid>,
    /// What had left that session, and was left alone.
    pub left_alone: Vec<sys::Pid>,
}

impl Evicted {
    pub(crate) fn of(record: &Record, reason: EndReason, aside: &Aside) -> Self {
        let Remains { ended, left_alone, .. } = aside.remains_of(record.id);
        Self {
            ended,
            left_alone,
            pid: record.pid,
            profile: record.profile.clone(),
            instance: record.id,
            reason: reason.as_str(),
        }
    }

    /// As the CLI's JSON shows it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut document = serde_json::json!({
            "pid": self.pid,
            "profile": self.profile.as_ref().map(ProfileName::as_str),
            "reason": self.reason,
        });
        for (name, pids) in [("ended", &self.ended), ("left_alone", &self.left_alone)] {
            if !pids.is_empty() {
                document[name] = serde_json::json!(pids);
            }
        }
        document
    }
}

/// What a new row relies on for its liveness.
#[derive(Clone, Debug)]
pub(crate) enum Attachment {
    /// This process' own anchor.
    Own,
    /// This process' own anchor, held for another process that we keep.
    Keeper { pid: sys::Pid, start_time: Option<StartTime> },
    /// The anchor of a keeper that already keeps the recorded process.
    Kept { anchor: String, keeper: sys::Pid, keeper_start_time: Option<StartTime> },
    /// None: only pid and start time tell.
    None,
}

/// The anchor that a new row names, and its keeper.
pub(crate) type Attached = (Option<String>, Option<(sys::Pid, Option<StartTime>)>);

impl Attachment {
    /// Makes the anchor, if it is to be this process' own and there is none yet.
    pub(crate) fn attach(&self, tx: &Tx<'_>, inner: &Inner) -> Result<Attached> {
        Ok(match self {
            Self::Own => (Some(inner.anchor(tx)?.name().to_owned()), None),
            Self::Keeper { pid, start_time } => {
                (Some(inner.anchor(tx)?.name().to_owned()), Some((*pid, *start_time)))
            }
            Self::Kept { anchor, keeper, keeper_start_time } => {
                (Some(anchor.clone()), Some((*keeper, *keeper_start_time)))
            }
            Self::None => (None, None),
        })
    }
}

/// To be run outside the transaction, because it is slow; claim again afterwards.
#[derive(Debug)]
pub(crate) enum Errand {
    /// The verdict hangs on the command line of this holder.
    ReadCommandLine(Box<Record>),
    /// This holder's `run` is gone, and its command must be ended first.
    EndChild(Box<Record>),
    /// This holder's `run` was killed, and its command with it: what that had started must be ended first.
    /// Whom the claim is for is not ended by it.
    EndFamily(Box<Record>, sys::Pid),
    /// The same, but nothing of it may be ended.
    FindFamily(Box<Record>, sys::Pid),
    /// This holder was the first process of a pid namespace, which counts as ended when its anchor is free
    /// twice.
    LookAgain(Box<Record>),
    /// This `run` of another profile is about to take the lock of the older program in this directory.
    AwaitOlderLock(Box<Record>, PathBuf),
    /// This holder may be evicted if it is found stopped twice.
    FindStopped(Box<Record>),
    /// This holder is to be replaced: what it has started may outlive it.
    ListChildren(Box<Record>),
}

impl Errand {
    /// Whom it may end: a person who replaces the holder by force means what that has left behind, too.
    pub(crate) fn trust(&self, inner: &Inner, force: Force) -> Trust {
        match self {
            Self::EndChild(record) | Self::EndFamily(record, _) => trust_in(inner, record, force),
            _ => inner.trust().clone(),
        }
    }
}

/// Whether a refusal is recorded. A waiter is refused once, however often it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Yes,
    No,
}

impl Count {
    /// Does one step of a claim; where the store cannot be written, again without a record of the refusal: what
    /// is refused is refused, also on a full disk.
    pub(crate) fn if_writable<T>(self, mut step: impl FnMut(Self) -> Result<T>) -> Result<T> {
        match step(self) {
            Err(error) if self == Self::Yes && error.kind() == ErrorKind::CannotWrite => {
                step(Self::No)
            }
            outcome => outcome,
        }
    }
}

/// Who claims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    pub(crate) origin: Origin,
    pub(crate) subject: &'a Subject,
}

/// What a claimant makes of a recorded owner.
#[derive(Debug)]
pub(crate) enum Examined {
    /// Its record is to be ended, for this reason.
    Over(EndReason),
    /// It is the very process that the claim is for, by a row that `--pid` made.
    Same,
    Errand(Errand),
    /// It lives, or cannot be told dead.
    InTheWay(Judgement),
}

/// Examines the owner of `record`. `lease` is that of the lock in question, if there is one.
pub(crate) fn examine(
    inner: &Inner,
    claimant: Claimant<'_>,
    record: &Record,
    lease: Lease,
    aside: &Aside,
) -> Examined {
    let command_line = aside.command_line(record.id);
    let judged = judge_for_claim(inner, record, lease, &command_line);
    if let Some(reason) = another_life_of_ours(inner, claimant, record, &judged) {
        return Examined::Over(reason);
    }
    let subject = claimant.subject.pid;
    let is_about_the_subject = record.is_pid
        && judged.evidence.is_here()
        && record.pid == Some(claimant.subject.pid)
        && judged.evidence.start_time != StartTimeMatch::Different;
    match judged.verdict {
        // What a script recorded for itself goes on when it executes a program that claims.
        Verdict::Alive(_) if is_about_the_subject && claimant.origin != Origin::Pid => {
            Examined::Over(EndReason::ReExecuted)
        }
        // Its own lease that ran out is still its own while nobody else came.
        Verdict::Dead(DeadReason::LeaseExpired)
            if is_about_the_subject && judged.evidence.process == Presence::Present =>
        {
            match claimant.origin {
                Origin::Pid => Examined::Same,
                Origin::Library | Origin::Run => Examined::Over(EndReason::ReExecuted),
            }
        }
        Verdict::Dead(reason) if may_have_family(record, &judged.evidence) => {
            match aside.family_left(record.id) {
                None if may_end_family(record, &judged.evidence) => {
                    Examined::Errand(Errand::EndFamily(Box::new(record.clone()), subject))
                }
                None => Examined::Errand(Errand::FindFamily(Box::new(record.clone()), subject)),
                Some(family) => {
                    let judged = with_family(judged, family);
                    match judged.verdict {
                        Verdict::Dead(_) => Examined::Over(EndReason::Dead(reason)),
                        Verdict::Alive(_) | Verdict::Unknown(_) => Examined::InTheWay(judged),
                    }
                }
            }
        }
        Verdict::Dead(reason) => Examined::Over(EndReason::Dead(reason)),
        // Of a pid here there is one process: if that is alive, the two are the same.
        Verdict::Alive(_) if is_about_the_subject => Examined::Same,
        Verdict::Alive(_) | Verdict::Unknown(_)
            if needs_command_line(&judged.evidence) && !command_line.is_for(record.id) =>
        {
            Examined::Errand(Errand::ReadCommandLine(Box::new(record.clone())))
        }
        Verdict::Unknown(_)
            if hangs_on_init(record, &judged.evidence)
                && !aside.looked_again.contains(&record.id) =>
        {
            Examined::Errand(Errand::LookAgain(Box::new(record.clone())))
        }
        Verdict::Alive(AliveReason::ChildLives)
            if !aside.spared.contains(&record.id) && may_end_child(record, &judged.evidence) =>
        {
            Examined::Errand(Errand::EndChild(Box::new(record.clone())))
        }
        Verdict::Alive(_) | Verdict::Unknown(_) => Examined::InTheWay(judged),
    }
}

/// Whether a claimant ends the command that a killed `run` left behind. Only where the free lock is the
/// very file on record: in a copy of the store the `run` may live and hold the original (FIELD-BUGS row
/// 95), and rows of version 0.1 do not say which file it was.
fn may_end_child(record: &Record, seen: &Evidence) -> bool {
    seen.anchor == AnchorState::Free && seen.is_here() && record.identity.anchor.is_some()
}

/// Whether a dead owner is a `run` that was killed, whose command may have left something in its session
/// here (FIELD-BUGS row 107). What is left counts whatever became of the anchor.
fn may_have_family(record: &Record, seen: &Evidence) -> bool {
    record.is_run && record.identity.child_sid.is_some() && seen.is_here()
}

/// The same as [`judge_record`] for verbs that end the record of a dead owner without taking its place: with
/// the record would go all that the next claim can find the family by.
pub(crate) fn judge_to_end(
    inner: &Inner,
    record: &Record,
    lease: Lease,
    command_line: &LiveCommandLine,
) -> Judgement {
    let judged = judge_record(inner, record, lease, command_line);
    if !matches!(judged.verdict, Verdict::Dead(_)) || !may_have_family(record, &judged.evidence) {
        return judged;
    }
    with_family(judged, &family::living(record, None, inner.trust()))
}

/// What a family makes of a dead owner.
fn with_family(judged: Judgement, family: &Family) -> Judgement {
    match family {
        Family::NotSeen => {
            Judgement { verdict: Verdict::Unknown(UnknownReason::NotVerifiable), ..judged }
        }
        Family::Seen(remains) => match remains.living.first() {
            Some(pid) => Judgement {
                verdict: Verdict::Alive(AliveReason::ChildLives),
                left_behind: Some(*pid),
                ..judged
            },
            None => judged,
        },
    }
}

/// Ends the family of an owner that is dead, outside of any transaction: whoever stops an office stops that
/// as well. Returns whom that ended.
pub(crate) fn end_family(inner: &Inner, record: &Record, trust: &Trust) -> Vec<sys::Pid> {
    let judged = judge_record(inner, record, Lease::None, &LiveCommandLine::not_read());
    if matches!(judged.verdict, Verdict::Dead(_))
        && may_have_family(record, &judged.evidence)
        && may_end_family(record, &judged.evidence)
        && let Family::Seen(remains) = family::end(record, None, trust)
    {
        return remains.ended;
    }
    Vec::new()
}

/// Whether it is ended: as with the command itself. That very file may still have been held when we looked
/// at it, and its owner was gone when we looked at that.
fn may_end_family(record: &Record, seen: &Evidence) -> bool {
    let is_that_file = matches!(seen.anchor, AnchorState::Free | AnchorState::Held);
    is_that_file && seen.is_here() && record.identity.anchor.is_some()
}

/// Looks at a recorded owner and judges it.
pub(crate) fn judge_record(
    inner: &Inner,
    record: &Record,
    lease: Lease,
    command_line: &LiveCommandLine,
) -> Judgement {
    let mut anchor = anchor_of(record, &inner.location.anchors);
    if anchor == AnchorState::Free && holds_another(inner, record) {
        anchor = AnchorState::Held;
    }
    judge_with(inner, record, anchor, lease, command_line)
}

/// Whether the owner of a free anchor of ours has gone back to where the store was before it was moved
/// here (FIELD-BUGS row 96): it is at work, and its command is not one that was left behind.
fn holds_another(inner: &Inner, record: &Record) -> bool {
    let Location { file, anchors, .. } = &inner.location;
    match (&record.anchor, &record.identity.anchor) {
        (Some(name), Some(key)) => anchor::went_back(anchors, name, key, file),
        (Some(_) | None, None) | (None, Some(_)) => false,
    }
}

/// The same in a claim, which may try the lock of an older gateway: there the kernel's word decides, and
/// not its list.
fn judge_for_claim(
    inner: &Inner,
    record: &Record,
    lease: Lease,
    command_line: &LiveCommandLine,
) -> Judgement {
    match record.anchor.as_deref().and_then(legacy::path_of) {
        Some(path) => judge_with(inner, record, legacy::probe(path), lease, command_line),
        None => judge_record(inner, record, lease, command_line),
    }
}

fn judge_with(
    inner: &Inner,
    record: &Record,
    anchor: AnchorState,
    lease: Lease,
    command_line: &LiveCommandLine,
) -> Judgement {
    let seen = observe(record, inner.view(), anchor, command_line, inner.matcher());
    let judged = judge(Evidence { lease, ..seen });
    let leaked = judged.flags.anchor_leaked || has_left_its_lock(record, &seen);
    let release_pending = inner.has_pending_release(record.id);
    let flags = Flags { anchor_leaked: leaked, release_pending, ..judged.flags };
    Judgement { flags, ..judged }
}

/// Judges a record with everything that can be seen, the command line included: people want to
/// know when it changed, even where it decides nothing.
pub(crate) fn look(inner: &Inner, record: &Record, lease: Lease) -> Judgement {
    let mut judged = judge_record(inner, record, lease, &LiveCommandLine::not_read());
    if hangs_on_init(record, &judged.evidence) {
        std::thread::sleep(FREE_TWICE_APART);
        judged = judge_record(inner, record, lease, &LiveCommandLine::not_read());
    }
    let seen = judged.evidence;
    if !seen.is_here() || seen.process == Presence::Gone {
        return judged;
    }
    let command_line =
        compare_command_line(&LiveCommandLine::read(record), record, inner.matcher());
    let again = judge(Evidence { command_line, ..seen });
    let leaked = judged.flags.anchor_leaked || again.flags.anchor_leaked;
    let release_pending = judged.flags.release_pending;
    let flags = Flags { anchor_leaked: leaked, release_pending, ..again.flags };
    Judgement { flags, ..again }
}

/// The process executed itself anew (same pid, same start time, its anchor released by the exec), lost
/// track of a grant that was committed all the same (the row names our very anchor), or meets itself in
/// a copy of the store that was put in the place of the one it was in.
fn another_life_of_ours(
    inner: &Inner,
    claimant: Claimant<'_>,
    record: &Record,
    judged: &Judgement,
) -> Option<EndReason> {
    if claimant.origin == Origin::Pid || record.pid != Some(claimant.subject.pid) {
        return None;
    }
    let Evidence { anchor, start_time, .. } = judged.evidence;
    let names_our_anchor =
        inner.own_anchor().is_some_and(|anchor| record.anchor.as_deref() == Some(anchor.name()));
    let re_executed = anchor == AnchorState::Free
        && judged.evidence.is_here()
        && start_time == StartTimeMatch::Equal
        && record.child_pid.is_none();
    if names_our_anchor && inner.comes_from_a_lost_store() {
        return Some(EndReason::StoreReplaced);
    }
    (names_our_anchor || re_executed).then_some(EndReason::ReExecuted)
}

pub(crate) fn changes_too_fast(what: &impl fmt::Display) -> Error {
    Error::new(ErrorKind::Busy, format!("{what} changes hands too fast to be claimed"))
        .with_hint("try again")
        .retry_after(1_000)
}

/// What a claim learns and does between two transactions, because it is too slow for one.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    command_lines: Vec<LiveCommandLine>,
    /// The holders whose command could not be ended, or was, and still counts as alive by its lock: they
    /// are refused like any other.
    spared: Vec<InstanceId>,
    /// The holders whose command was ended.
    ended: Vec<InstanceId>,
    /// The holders whose anchor was found free, and is looked at again.
    looked_again: Vec<InstanceId>,
    /// Those of other profiles that were given the time to take the lock of an older program.
    awaited: Vec<InstanceId>,
    /// The holders that were looked at whether they are stopped, and what came of it.
    stopped: Vec<(InstanceId, bool)>,
    /// The killed holders whose families were ended, and who is left of each.
    families: Vec<(InstanceId, Family)>,
    /// What the holders had started.
    children: Vec<(InstanceId, Vec<LeftOver>)>,
}

impl Aside {
    /// Runs `errand`, which must not go on beyond `deadline` for the sake of an eviction.
    ///
    /// # Errors
    /// Where it ran short of something, and so did not see all that it looked for.
    pub(crate) fn run(&mut self, errand: Errand, deadline: Deadline, trust: &Trust) -> Result<()> {
        with_clear_sight(
            || "look at who holds it",
            || {
                self.carry_out(errand, deadline, trust);
                Ok(())
            },
        )
    }

    fn carry_out(&mut self, errand: Errand, deadline: Deadline, trust: &Trust) {
        match errand {
            Errand::ReadCommandLine(record) => {
                self.command_lines.push(LiveCommandLine::read(&record));
            }
            Errand::EndChild(record) => {
                if self.ended.contains(&record.id) || !kill_child(&record, trust) {
                    self.spared.push(record.id);
                } else {
                    self.ended.push(record.id);
                }
            }
            Errand::LookAgain(record) => {
                std::thread::sleep(FREE_TWICE_APART);
                self.looked_again.push(record.id);
            }
            Errand::AwaitOlderLock(record, home) => {
                legacy::wait_for_lock(&home, deadline);
                self.awaited.push(record.id);
            }
            Errand::EndFamily(record, subject) => {
                self.families.push((record.id, family::end(&record, Some(subject), trust)));
            }
            Errand::FindFamily(record, subject) => {
                self.families.push((record.id, family::living(&record, Some(subject), trust)));
            }
            Errand::FindStopped(record) => {
                let in_time = deadline.remaining() > STOPPED_TWICE_APART;
                self.stopped.push((record.id, in_time && stays_stopped(&record)));
            }
            Errand::ListChildren(record) => {
                self.children.push((record.id, LeftOver::of(&record, trust)));
            }
        }
    }

    /// Whether the owner of this row has had the time to take the lock of an older program.
    pub(crate) fn has_awaited(&self, id: InstanceId) -> bool {
        self.awaited.contains(&id)
    }

    fn command_line(&self, id: InstanceId) -> LiveCommandLine {
        self.command_lines.iter().rev().find(|line| line.is_for(id)).cloned().unwrap_or_default()
    }

    /// Who is left of the family of this holder's command; `None` when nobody has looked yet.
    fn family_left(&self, id: InstanceId) -> Option<&Family> {
        self.families.iter().find(|(of, _)| *of == id).map(|(_, family)| family)
    }

    /// What came of looking for the family of this holder.
    fn remains_of(&self, id: InstanceId) -> Remains {
        match self.family_left(id) {
            Some(Family::Seen(remains)) => remains.clone(),
            Some(Family::NotSeen) | None => Remains::default(),
        }
    }

    /// What this holder had started; `None` when nobody has looked yet.
    pub(crate) fn children(&self, id: InstanceId) -> Option<Vec<LeftOver>> {
        self.children.iter().find(|(of, _)| *of == id).map(|(_, children)| children.clone())
    }

    /// Whether this holder was found stopped twice; `None` when nobody has looked yet.
    pub(crate) fn was_found_stopped(&self, id: InstanceId) -> Option<bool> {
        self.stopped.iter().find(|(looked_at, _)| *looked_at == id).map(|(_, stopped)| *stopped)
    }
}

/// Whether a process is found stopped twice. It is looked at in between as well: once it goes on or
/// dies, there is something better to do than to wait.
fn stays_stopped(record: &Record) -> bool {
    const LOOK_EVERY: Duration = Duration::from_millis(5);

    let until = Deadline::after(STOPPED_TWICE_APART);
    while is_stopped(record) {
        if until.has_passed() {
            return true;
        }
        std::thread::sleep(LOOK_EVERY.min(until.remaining()));
    }
    false
}

/// Whether the process of a record of this namespace is stopped by job control, and the command of a
/// `run` with it: a stopped `run` does not stop what it started.
pub(crate) fn is_stopped(record: &Record) -> bool {
    let is_stopped = |facts: &ProcessFacts, start_time: Option<StartTime>| {
        facts.state == ProcessState::Stopped
            && start_time.is_some()
            && facts.start_time == start_time
    };
    let is_out_of_action = |pid: sys::Pid, start_time: Option<StartTime>| {
        let facts = sys::process_facts(pid);
        facts.existence == Existence::Gone || is_stopped(&facts, start_time)
    };
    record.pid.is_some_and(|pid| is_stopped(&sys::process_facts(pid), record.start_time))
        && record.child_pid.is_none_or(|child| is_out_of_action(child, record.child_start_time))
}

/// Looks for anchors without a row: orphans stand in the way of what is `wanted`, garbage is
/// collected.
///
/// A process that goes on from a store that was replaced meets the anchors of those who were in it,
/// too. What it held there, none of them can hold; of anything else they may be the owners.
pub(crate) fn sweep(
    tx: &Tx<'_>,
    inner: &Inner,
    named: &HashSet<String>,
    wanted: impl IntoIterator<Item = Wanted>,
) -> Result<Sweep> {
    let own = inner.own_anchor();
    let lost_store = match &own {
        Some(own) if inner.held_before(wanted) => own.store_id(),
        Some(_) | None => None,
    };
    let mut sweep = anchor::sweep(
        &inner.location.anchors,
        inner.store_uuid()?,
        named,
        own.as_ref().map(|anchor| anchor.name()),
        lost_store,
        |name| instance::names_anchor(tx, name),
    )?;
    tx.check_settled(&sweep.orphans)?;
    if lost_store.is_none() {
        sweep.orphans.extend(tx.lost_anchors()?);
    }
    Ok(sweep)
}

/// How long an anchor without a row has to stay so before a question calls it an orphan: one that is just
/// being made gets its row within a millisecond, and on a busy machine within this.
const ORPHAN_SETTLES_WITHIN: Duration = Duration::from_millis(600);

/// Who refuses every claim here without a record, as a question sees it: nobody, as a rule, and then it
/// takes one look at the directory.
pub(crate) fn orphan(inner: &Inner) -> Result<Option<Orphan>> {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let known = |connection: &Connection| {
        Ok((named_anchors(connection)?, lost_owners(connection, inner.view())?))
    };
    let (mut named, lost) = inner.read(known)?;
    if let Some(owner) = lost.into_iter().find(|owner| !owner.is_us(inner.observer())) {
        return Ok(Some(owner.anchor));
    }
    named.extend(inner.own_anchor().map(|own| own.name().to_owned()));
    let until = Deadline::after(ORPHAN_SETTLES_WITHIN);
    let mut before: Option<Vec<Orphan>> = None;
    loop {
        let held = anchor::held_in(&inner.location.anchors, &named)?;
        if held.is_empty() {
            return Ok(None);
        }
        // Only now: whoever committed before its anchor was probed is on record.
        let without_row = |connection: &Connection| {
            let mut without = Vec::new();
            for it in &held {
                if !instance::names_anchor(connection, &it.name)? {
                    without.push(it.clone());
                }
            }
            Ok(without)
        };
        let mut suspects = inner.read(without_row)?;
        suspects.retain(|it| before.as_ref().is_none_or(|before| before.contains(it)));
        if suspects.is_empty() || (before.is_some() && until.has_passed()) {
            return Ok(suspects.into_iter().next());
        }
        before = Some(suspects);
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whoever reserved `wanted` and stands in the way by that: it lives, its time is not over, and it is
/// not the row `ours`.
pub(crate) fn reserved_by_another(
    tx: &Tx<'_>,
    inner: &Inner,
    wanted: &Wanted,
    ours: Option<InstanceId>,
) -> Result<Option<Box<Obstacle>>> {
    if !marker_table::exists(tx)? {
        return Ok(None);
    }
    let reservation = reservation::of(tx, inner.boot_time(), wanted)?
        .filter(|reservation| ours != Some(reservation.instance));
    let Some(reservation) = reservation else { return Ok(None) };
    let record =
        instance::by_id(tx, reservation.instance)?.filter(|record| record.ended_at_ms.is_none());
    let Some(record) = record else { return Ok(None) };
    let judged = judge_record(inner, &record, Lease::None, &LiveCommandLine::not_read());
    if matches!(judged.verdict, Verdict::Dead(_)) {
        return Ok(None);
    }
    let holder = Box::new(Holder::reserved(wanted, &record, &judged, reservation.remaining_ms));
    let watch = Some(Watch { fence: record.id.as_i64(), record });
    Ok(Some(Box::new(Obstacle { holder, watch })))
}

/// What came of looking for anchors that stand in the way without a record.
#[derive(Debug)]
pub(crate) enum Orphans {
    None,
    Refused(Box<Holder>),
    Removed(usize),
}

/// Nobody is on record, yet an anchor without a record may refuse every claim: there is a way out of
/// that as well, if a person says so.
pub(crate) fn evict_orphans(
    tx: &Tx<'_>,
    inner: &Inner,
    wanted: &Wanted,
    force: Force,
    by: &str,
) -> Result<Orphans> {
    let sweep = sweep(tx, inner, &tx.named_anchors()?, [wanted.clone()])?;
    let Some(orphan) = sweep.orphans.first() else { return Ok(Orphans::None) };
    if force == Force::No {
        return Ok(Orphans::Refused(Box::new(Holder::orphan(wanted.clone(), orphan.pid))));
    }
    sweep.remove_orphans(&inner.location.anchors)?;
    tx.forget_lost_owners()?;
    let office = match wanted {
        Wanted::Office(office) => Some(office),
        Wanted::Lock(_) => None,
    };
    tx.record(&EventRecord {
        event: "orphans_evicted",
        office,
        detail: Some(serde_json::json!({
            "by": by,
            "anchors": sweep.orphans.iter().map(|orphan| &orphan.name).collect::<Vec<_>>(),
        })),
        ..EventRecord::default()
    })?;
    Ok(Orphans::Removed(sweep.orphans.len()))
}

/// After a grant: collects anchors that nobody uses, and ends the rows of processes without an office
/// that died. Nobody else would.
pub(crate) fn tidy(tx: &Tx<'_>, inner: &Inner, sweep: &Sweep) -> Result<()> {
    sweep.remove_garbage();
    let death = |record: &Record| match judge_record(
        inner,
        record,
        Lease::None,
        &LiveCommandLine::not_read(),
    )
    .verdict
    {
        Verdict::Dead(reason) => Some(reason),
        Verdict::Alive(_) | Verdict::Unknown(_) => None,
    };
    instance::sweep_without_office(tx, death, |anchor| is_held(inner, anchor))?;
    if tx.prunes() {
        instance::prune_without_office(tx, |anchor| is_held(inner, anchor))?;
    }
    Ok(())
}

/// Whether some process holds the anchor of this name.
pub(crate) fn is_held(inner: &Inner, anchor: &str) -> bool {
    anchor::look(&inner.location.anchors, anchor, None) == AnchorState::Held
}

/// Ends the command that a killed `run` left behind, and waits until it is gone. False when it lives
/// on: because we may not or cannot end it, or because it is the very script that asks for the office
/// now.
fn kill_child(record: &Record, trust: &Trust) -> bool {
    let Some(pid) = record.child_pid else { return false };
    let child = match record.prove_child(trust) {
        Ok(child) => child,
        Err(Unproven::Gone) => return true,
        Err(why) => {
            tracing::warn!(pid, %why, "cannot end the command that a killed run left behind");
            return false;
        }
    };
    tracing::warn!(pid, "ending the command that a killed run left behind");
    match child.kill() {
        Ok(()) => child.wait_ended(CHILD_GONE_WITHIN),
        Err(error) => {
            tracing::warn!(pid, %error, "cannot end it");
            child.has_ended()
        }
    }
}
