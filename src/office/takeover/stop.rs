//! Stopping the holder of an office, on purpose.
//!
//! A stop that times out leaves its marker until it expires: the owner may end a moment later, and
//! it was asked to.

pub use crate::office::takeover::stop_options::StopOptions;

use std::sync::Arc;
use std::time::Duration;

use crate::claim::aside::{started_by_owner, trust_in};
use crate::claim::sweep::Force;
use crate::claim::waiting_row::{WaitingAs, WaitingRow};
use crate::claim::{examine, judge_to_end, obstacle, ours};
use crate::clock::{Deadline, millis};
use crate::liveness::{Lease, Ruling};
use crate::names::MarkerName;
use crate::office::profile::Profile;
use crate::office::takeover::left_behind::LeftBehind;
use crate::office::takeover::pursuit::{Asking, Insistence, Pursued, Pursuit};
use crate::office::takeover::restarter::Restarter;
use crate::office::takeover::{TakeoverTarget, holder_of, orphan_in, write_request};
use crate::owner::{
    InProgress, LiveCommandLine, ending, judgement, look, needs_command_line, orphan,
};
use crate::patience::{PATIENCE_MIN, with_budget};
use crate::process::descendants::LeftOver;
use crate::records::profiles::Desired;
use crate::records::profiles::{check_home, set_desired};
use crate::records::reservations::{Purpose, Reservation};
use crate::records::{End, EndReason, Origin, Record, identities, instances, reservations};
use crate::status::answer;
use crate::store::{Inner, Tx};
use crate::sys::{Pid, Proven, Unproven};
use crate::{
    Error, ErrorKind, Holder, InstanceId, Kind, Nonce, Office, Reason, Result, Wanted, marker,
    owner, stop_budget, sys,
};

/// What came of [`Profile::stop`].
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it may still be running"]
pub enum StopOutcome {
    /// Nobody was running.
    NotRunning,
    /// Nobody holds the office, but somebody serves its profile together with others: nothing was
    /// done.
    Served {
        /// The office of whoever serves it: what is to be stopped.
        by: Office,
        /// The recorded pid.
        pid: Option<Pid>,
        /// Whether it is known to be alive.
        is_alive: bool,
    },
    /// Nobody holds the office, but a gateway of another profile, or of another store, holds the
    /// lock of the older program's directory that this profile stands for as well. It is left
    /// alone.
    OfAnother(Box<Holder>),
    /// The holder has ended, or has let go of the office.
    Ended {
        /// Its generation.
        instance: InstanceId,
        /// Its recorded pid.
        pid: Option<Pid>,
        /// Whether it had to be killed.
        killed: bool,
        /// Whether its process goes on without the office.
        still_runs: bool,
    },
    /// It is still there; why it could not be brought to an end, as a clause for people.
    StillRunning(Box<Holder>, String),
    /// Somebody is taking the office over just now: nothing was done.
    InProgress(Box<Holder>),
}

impl StopOutcome {
    fn unrecorded(holder: Box<Holder>) -> Self {
        let why = "its record is gone with its store, so it is not signalled".to_owned();
        Self::StillRunning(holder, why)
    }

    /// Of an owner that was on record in a store that is not there any more, see
    /// [`OpenOptions::find`](crate::OpenOptions::find).
    pub fn of_lost_owner(office: &Office, pid: Option<u32>) -> Self {
        Self::unrecorded(holder_of(&Wanted::Office(office.clone()), pid))
    }
}

/// The answer to [`Profile::stop`], where the example is.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it may still be running"]
pub struct StopReport {
    /// What came of it.
    pub outcome: StopOutcome,
    /// Why the stop could not be written down, if it could not: the owner, and its supervisor, may
    /// take it for an unplanned one.
    pub not_recorded: Option<Error>,
    /// Why the wish that it stay stopped could not be written down, if it could not.
    pub not_desired: Option<Error>,
    /// The pids of what a `run` that had been killed before had left in its session: ended.
    pub ended_left_over: Vec<Pid>,
    /// What the holder had started, and has left behind: ended, with [`StopOptions::reap`].
    pub reaped: Vec<LeftOver>,
    /// What it had started, and still runs.
    pub left_over: Vec<LeftOver>,
    /// Whether the holder was a `run`.
    pub was_run: bool,
    /// Who started it, and may start it again; see [`StopReport::starts_again`].
    pub restarter: Option<Restarter>,
}

/// What is to be done.
enum Prepared {
    NotRunning,
    /// Nobody is on record, and somebody without a record may be at work.
    Orphan(Box<Holder>),
    InProgress(Box<Holder>),
    /// Another stop has asked it already.
    Joined(Box<Record>),
    Stop(Box<Record>, InstanceId, Nonce),
}

impl Profile {
    /// Stops whoever holds the office of `kind`: leaves a marker that says so, asks it by a signal
    /// on its proven process, and waits. Nobody else gets the office meanwhile.
    ///
    /// Where the store cannot be written, the holder is stopped anyway, and the report says what
    /// could not be recorded.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::Kind;
    /// use incumbent::stop::{StopOptions, StopOutcome};
    ///
    /// let (work, kind) = (store.profile("work")?, Kind::default());
    /// let options = StopOptions::new().reason("kernel update").by("alice");
    /// assert!(matches!(work.stop(&kind, &options)?.outcome, StopOutcome::NotRunning));
    /// # // Another process, which holds the office: a record without a keeper.
    /// # let mut other = std::process::Command::new("sleep").arg("600").spawn()?;
    /// # let of_other = store.kept(incumbent::keeper::Whom::Process(other.id()));
    /// # of_other.anchoring(incumbent::keeper::Anchoring::None).claim(&work, &kind)?;
    /// # let reaper = std::thread::spawn(move || other.wait());
    /// // Once somebody holds the office:
    /// let report = work.stop(&kind, &options)?;
    /// assert!(matches!(report.outcome, StopOutcome::Ended { killed: false, .. }));
    /// # reaper.join().unwrap()?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) when this process itself holds the office, but for
    /// a [`Run`](crate::run::Run) in it, which is stopped as any other;
    /// [`ProfileBelongsTo`](ErrorKind::ProfileBelongsTo) for another home; and those of
    /// [`Profile::status_of`]: nobody knows whom to stop. [`Busy`](ErrorKind::Busy) also where the
    /// wait was cancelled before anybody was asked.
    pub fn stop(&self, kind: &Kind, options: &StopOptions) -> Result<StopReport> {
        let inner = &self.store().inner;
        inner.check_process()?;
        let office = self.office(kind);
        let deadline = options.request.timeout.map(Deadline::after);
        let on_record = inner.read(|connection| owner::live(connection, &office))?;
        let is_on_record = on_record.is_some();
        let was_run = on_record.as_ref().is_some_and(|record| record.is_run);
        // While it lives: what has ended has no parents.
        let restarter = on_record.as_ref().and_then(|record| Restarter::of(inner, record));
        // It may obey its marker, and be gone, before it is looked at again.
        let started =
            on_record.as_ref().map(|record| (record.id, started_by_owner(record, inner.trust())));
        let started_by = |of: InstanceId| {
            started.as_ref().filter(|(id, _)| *id == of).map_or_else(Vec::new, |it| it.1.clone())
        };
        let ended_left_over =
            on_record.map_or_else(Vec::new, |record| end_family(inner, &record, options));
        let command_line = inner.read(|connection| {
            check_home(connection, &office, self.home())?;
            let Some(record) = owner::live(connection, &office)? else { return Ok(None) };
            let judged = judgement(inner, &record);
            Ok(needs_command_line(&judged.evidence).then_some(record))
        })?;
        let command_line =
            command_line.as_ref().map_or_else(LiveCommandLine::not_read, LiveCommandLine::read);
        // Half of the time is the owner's, which is asked to end after this.
        let patience = options.request.timeout.map_or(Duration::MAX, |it| PATIENCE_MIN.max(it / 2));
        let prepared = options.request.cancel.patiently(patience, inner.busy_budget(), || {
            inner.write(|tx| prepare(tx, inner, &office, options, &command_line))
        });
        // The rest is not done again.
        let patience = options.request.cancel.at_once(patience);
        let (prepared, not_recorded, not_desired) = match prepared {
            Ok(prepared) => (prepared, None, None),
            // Nobody was asked yet, and nobody is.
            Err(error)
                if error.kind() == ErrorKind::Busy && options.request.cancel.is_cancelled() =>
            {
                return Err(error);
            }
            Err(error) if cannot_be_written(&error) => {
                // A store of an older version can keep the wish at least.
                let wish = options.desired.then(|| {
                    let by = identities::by_or_self(inner, options.request.by.as_deref());
                    with_budget(patience, || {
                        inner.write(|tx| set_desired(tx, &office.profile, Desired::Stopped, &by))
                    })
                });
                let not_desired = wish.and_then(Result::err);
                (without_record(inner, &office, &command_line)?, Some(error), not_desired)
            }
            Err(error) => return Err(error),
        };
        let mut options = options.clone();
        options.request.timeout = deadline.map(|deadline| deadline.remaining());
        let options = &options;
        let mut left = LeftBehind::default();
        let outcome = match prepared {
            Prepared::NotRunning => match answer::server_of(inner, &office) {
                Some((by, report)) => {
                    StopOutcome::Served { by, pid: report.pid, is_alive: report.running }
                }
                None => match ours::in_place_of(inner, &office)? {
                    Some(holder) => StopOutcome::OfAnother(holder),
                    None => StopOutcome::NotRunning,
                },
            },
            Prepared::Orphan(holder) => StopOutcome::unrecorded(holder),
            Prepared::InProgress(holder) => StopOutcome::InProgress(holder),
            Prepared::Joined(record) => {
                let asking = if not_recorded.is_some() { Asking::Ask } else { Asking::Asked };
                let started = started_by(record.id);
                finish(inner, &office, &record, options, asking, started, &mut left)
            }
            Prepared::Stop(record, instance, nonce) => {
                let row = WaitingRow::new(inner, instance, nonce);
                let (asking, started) = (Asking::Ask, started_by(record.id));
                let outcome = finish(inner, &office, &record, options, asking, started, &mut left);
                with_budget(patience, || settle(inner, row, &record, &outcome, options));
                but_for_family(inner, &office, outcome)?
            }
        };
        // Where nobody is on record, there is no end that could be taken for another one.
        let not_recorded = not_recorded.filter(|_| is_on_record);
        left.let_end(inner);
        let LeftBehind { reaped, left: left_over } = left;
        Ok(StopReport {
            outcome,
            not_recorded,
            not_desired,
            ended_left_over,
            reaped,
            left_over,
            was_run,
            restarter,
        })
    }
}

fn cannot_be_written(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Busy
            | ErrorKind::CannotWrite
            | ErrorKind::Permission
            | ErrorKind::TooNew
            | ErrorKind::TooOld
            | ErrorKind::Internal
    )
}

/// Registers, reserves and leaves the marker.
fn prepare(
    tx: &Tx<'_>,
    inner: &Arc<Inner>,
    office: &Office,
    options: &StopOptions,
    command_line: &LiveCommandLine,
) -> Result<Prepared> {
    let by = marker::by_or_self_in(tx, options.request.by.as_deref())?;
    if options.desired {
        set_desired(tx, &office.profile, Desired::Stopped, &by)?;
    }
    let wanted = Wanted::Office(office.clone());
    let reserved = match obstacle::reserved_by_another(tx, inner, &wanted, None)? {
        Some(held) => reservations::of(tx, inner.boot_time(), &wanted)?.zip(Some(held)),
        None => None,
    };
    // Also where nobody is left to be stopped: somebody is about to come.
    if let Some((Reservation { purpose: Purpose::Takeover, .. }, held)) = reserved {
        return Ok(Prepared::InProgress(held.holder));
    }
    let Some(record) = owner::live(tx, office)? else {
        return nobody_on_record(tx, inner, &wanted);
    };
    let judged = judge_to_end(inner, &record, Lease::None, command_line);
    if let Ruling::Dead(reason) = judged.ruling {
        let found_by = format!("found by pid {}", inner.observer().pid);
        let end = End::new(EndReason::Dead(reason)).detail(found_by);
        ending::end_other(tx, record.id, &end)?;
        return nobody_on_record(tx, inner, &wanted);
    }
    refuse_ourselves(inner, office, &record, &judged.evidence)?;
    if reserved.is_some() {
        return Ok(Prepared::Joined(Box::new(record)));
    }
    // Asked for with something else that it holds.
    if let Some(asked) = InProgress::of(tx, inner, record.id)? {
        let is_stop = asked.marker.name.as_str() == MarkerName::PLANNED_STOP;
        return Ok(if is_stop {
            Prepared::Joined(Box::new(record))
        } else {
            Prepared::InProgress(Box::new(asked.holder(&wanted)))
        });
    }
    let nonce = Nonce::random()?;
    let as_whom = WaitingAs {
        profile: Some(&office.profile),
        kind: Some(&office.kind),
        origin: Origin::Library,
        version: None,
        stop_budget_ms: stop_budget::DEFAULT_MS,
        argv: &inner.myself().argv,
    };
    let instance = WaitingRow::insert(tx, inner, &nonce, &wanted, &as_whom)?;
    let budget = record.stop_budget();
    let timeout = options.request.timeout.unwrap_or(budget);
    let reserved_for = stop_budget::deadline(timeout);
    reservations::make(tx, &wanted, instance, Purpose::Stop, millis(reserved_for))?;
    let (name, reason) = (MarkerName::planned_stop(), options.request.reason.as_deref());
    // At least as long as it may take to end, whether or not anybody waits that long.
    let ttl = stop_budget::marker_lives(stop_budget::deadline(timeout.max(budget)));
    write_request(tx, inner, &record, &name, &by, Some(instance), reason, ttl)?;
    Ok(Prepared::Stop(Box::new(record), instance, nonce))
}

/// A start would be refused by the same look.
fn nobody_on_record(tx: &Tx<'_>, inner: &Inner, wanted: &Wanted) -> Result<Prepared> {
    Ok(orphan_in(tx, inner, wanted)?.map_or(Prepared::NotRunning, Prepared::Orphan))
}

fn refuse_ourselves(
    inner: &Inner,
    office: &Office,
    record: &Record,
    seen: &crate::liveness::Evidence,
) -> Result<()> {
    // A `run` in this process ends its command by the marker.
    let holds_itself = !record.is_pid && !record.is_run;
    if record.pid == Some(inner.observer().pid) && seen.is_here() && holds_itself {
        return Err(Error::invalid(format!("{office} is held by this very process"))
            .with_hint("release the `Tenure` instead"));
    }
    Ok(())
}

/// Whom to stop, as far as reading goes.
fn without_record(
    inner: &Inner,
    office: &Office,
    command_line: &LiveCommandLine,
) -> Result<Prepared> {
    if let Some(on_record) = living(inner, office, command_line)? {
        return Ok(on_record);
    }
    if let Some(orphan) = orphan::orphan(inner)? {
        return Ok(Prepared::Orphan(holder_of(&Wanted::Office(office.clone()), orphan.pid)));
    }
    // An owner that lost its store may have claimed again since the look for its record.
    Ok(living(inner, office, command_line)?.unwrap_or(Prepared::NotRunning))
}

fn living(
    inner: &Inner,
    office: &Office,
    command_line: &LiveCommandLine,
) -> Result<Option<Prepared>> {
    let Some(record) = inner.read(|connection| owner::live(connection, office))? else {
        return Ok(None);
    };
    let judged = judge_to_end(inner, &record, Lease::None, command_line);
    if matches!(judged.ruling, Ruling::Dead(_)) {
        return Ok(None);
    }
    refuse_ourselves(inner, office, &record, &judged.evidence)?;
    Ok(Some(Prepared::Joined(Box::new(record))))
}

/// Asks the owner, waits, and escalates. Sees to what it had started, unless it goes on.
fn finish(
    inner: &Inner,
    office: &Office,
    record: &Record,
    options: &StopOptions,
    asking: Asking,
    started: Vec<LeftOver>,
    left: &mut LeftBehind,
) -> StopOutcome {
    let wanted = Wanted::Office(office.clone());
    let target = TakeoverTarget { record: record.clone(), wanted, children: Some(started) };
    let budget = options.request.timeout.unwrap_or_else(|| target.budget());
    let (insistence, force) =
        if options.kill { (Insistence::Kill, Force::Yes) } else { (Insistence::Ask, Force::No) };
    let pursuit = Pursuit::begin(inner, &target, budget, Duration::ZERO, asking, force);
    let mut is_our_ancestor = false;
    let why = match pursuit.finish(insistence, &options.request.cancel) {
        Pursued::Over { killed } => {
            let still_runs = pursuit.goes_on(&options.request.cancel);
            if !still_runs {
                *left = LeftBehind::of(pursuit.left_over());
                if options.reap {
                    left.reap(inner);
                }
            }
            let (instance, pid) = (record.id, record.pid);
            return StopOutcome::Ended { instance, pid, killed, still_runs };
        }
        Pursued::TimedOut => (Reason::TimedOut, "it did not end in time".to_owned()),
        Pursued::Cancelled => (Reason::TimedOut, "the wait was cancelled".to_owned()),
        Pursued::CannotSignal(Unproven::Ancestor) => {
            is_our_ancestor = true;
            let why = "it cannot be signalled, because it started this process; a marker asks it \
                       to end";
            (Reason::CannotSignal, why.to_owned())
        }
        Pursued::CannotSignal(why) => {
            (Reason::CannotSignal, format!("it cannot be signalled: {why}"))
        }
    };
    let (reason, why) = why;
    let judged = look(inner, record, Lease::None);
    let why = if judged.flags.frozen { format!("{why}, because it is frozen") } else { why };
    let holder = Holder { reason, is_our_ancestor, ..Holder::of(record, office, &judged) };
    StopOutcome::StillRunning(Box::new(holder), why)
}

fn end_family(inner: &Inner, record: &Record, options: &StopOptions) -> Vec<Pid> {
    let force = if options.kill { Force::Yes } else { Force::No };
    examine::end_family(inner, record, &trust_in(inner, record, force))
}

/// An owner that has ended is still on record while what it left behind lives, and may not be
/// ended: the next start is refused then.
fn but_for_family(inner: &Inner, office: &Office, outcome: StopOutcome) -> Result<StopOutcome> {
    let StopOutcome::Ended { instance, .. } = outcome else { return Ok(outcome) };
    let on_record = inner.read(|connection| owner::live(connection, office))?;
    let Some(record) = on_record.filter(|record| record.id == instance) else {
        return Ok(outcome);
    };
    let judged = judge_to_end(inner, &record, Lease::None, &LiveCommandLine::not_read());
    let Some(pid) = judged.left_behind else { return Ok(outcome) };
    let left = format!("its `run` has ended, but pid {pid}, which it started, still runs");
    let why = match Proven::of(pid, sys::process_facts(pid).start_time, None, inner.trust()) {
        Err(why) => format!("{left} (and cannot be signalled: {why})"),
        Ok(_) => left,
    };
    let holder = Holder::of(&record, office, &judged);
    Ok(StopOutcome::StillRunning(Box::new(holder), why))
}

/// Ends the reservation, and the record of an owner that could not end it itself.
fn settle(
    inner: &Inner,
    row: WaitingRow,
    record: &Record,
    outcome: &StopOutcome,
    options: &StopOptions,
) {
    let StopOutcome::Ended { .. } = outcome else { return };
    end_family(inner, record, options);
    let settled = row.end_with(|tx| {
        let Some(now) = instances::by_id(tx, record.id)? else { return Ok(()) };
        let judged = judge_to_end(inner, record, Lease::None, &LiveCommandLine::not_read());
        if let (None, Ruling::Dead(reason)) = (now.ended_at_ms, judged.ruling) {
            ending::end_other(tx, record.id, &End::new(EndReason::Dead(reason)))?;
        }
        Ok(())
    });
    match settled {
        Ok(()) => ending::note_seen_ends(inner),
        Err(error) => tracing::warn!(
            %error, "the end of a stopped owner is left for the next claim to record"
        ),
    }
}
