//! A process that acts only while it has its office: the command of `run --exec`.
//!
//! It has no `run` around it. So its keepers end it when it has lost the office, or a lock that was
//! claimed together with that, and say how it ended where the kernel tells. A program that claims
//! by itself goes on under a row of its own, and is its own affair from then on.

use std::time::Duration;

use rusqlite::Connection;

use crate::clock::Deadline;
use crate::keeper::kept::KeptRow;
use crate::keeper::target::Target;
use crate::owner::ending;
use crate::process::Observer;
use crate::records::{End, EndReason, LockRow, Record, instances, locks};
use crate::store::{Inner, SeenEnd};
use crate::sys::{ChildEnd, ExitInfo, ProcessNumber, ProcessState, StartTime, signals};
use crate::{InstanceId, Reason, Result, sys};

/// How long its supervisor may take to collect it: before that the kernel does not tell.
const COLLECTED_WITHIN: Duration = Duration::from_secs(1);

/// Until the first look for that; then twice as long each time.
const LOOK_FIRST: Duration = Duration::from_millis(5);

/// What keepers have to know of such a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tenant {
    /// Its row.
    pub(super) instance: InstanceId,
    /// How long it may take to stop.
    pub(super) budget: Duration,
    /// The fences of the locks without which the office is not wanted.
    pub(super) locks: Vec<i64>,
    /// The kernel's own number of it.
    pub(super) number: Option<ProcessNumber>,
}

/// What became of its tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Held,
    /// It goes on under a row of its own, or was released before the process became the command.
    NotOurs,
    Lost,
    /// This store does not have its row.
    NotOnRecord,
}

impl Tenant {
    /// Whether `target` is the process that was meant, with this start time; `None` where that
    /// cannot be told. Then it is not to be signalled.
    pub(super) fn is(&self, target: &Target, start_time: Option<StartTime>) -> Option<bool> {
        match (self.number, target.handle().number()) {
            (Some(recorded), Some(live)) => Some(recorded == live),
            _ => start_time.map(|recorded| target.start_time == Some(recorded)),
        }
    }

    /// Looks at row and locks, in one snapshot. A lock that it has let go itself is not needed any
    /// more.
    pub(super) fn standing(
        &mut self,
        connection: &Connection,
        observer: &Observer,
        target: &Target,
    ) -> Result<Standing> {
        let Some(record) = instances::by_id(connection, self.instance)? else {
            return Ok(Standing::NotOnRecord);
        };
        if !record.is_live() {
            return Ok(match record.end_reason {
                // By the `run`, which could not become it: nobody else may end such a row so.
                Some(Reason::Released | Reason::Exited) => Standing::NotOurs,
                _ if goes_on_by_itself(connection, observer, target, &record)? => Standing::NotOurs,
                _ => Standing::Lost,
            });
        }
        let held = locks::of_instance(connection, self.instance)?;
        let is_held = |fence: i64| held.iter().any(|row| row.fence == fence);
        let gone: Vec<i64> = self.locks.iter().copied().filter(|it| !is_held(*it)).collect();
        for fence in gone {
            match locks::how_it_ended(connection, self.instance, fence)? {
                // Released for it, or by it to a row of its own. Of what nobody remembers the same
                // is believed: a keeper that saw it happen has acted then.
                Some((Reason::Released | Reason::ReExecuted, _)) | None => {
                    self.locks.retain(|needed| *needed != fence);
                }
                Some(_) => return Ok(Standing::Lost),
            }
        }
        Ok(Standing::Held)
    }

    /// Its row in the store that took the place of the one where it had `before`.
    pub(super) fn go_on_as(&mut self, before: &KeptRow, now: &KeptRow) {
        let is_needed = |row: &&LockRow| {
            before.locks.iter().any(|it| self.locks.contains(&it.fence) && it.name == row.name)
        };
        self.locks = now.locks.iter().filter(is_needed).map(|row| row.fence).collect();
        self.instance = now.record.id;
    }
}

/// Whether the process holds the office of a row that has ended by another one. It claims in the
/// transaction that ends the old row: whoever sees that end sees the new row, too.
pub(super) fn goes_on_by_itself(
    connection: &Connection,
    observer: &Observer,
    target: &Target,
    ended: &Record,
) -> Result<bool> {
    if ended.end_reason == Some(Reason::ReExecuted) {
        return Ok(true);
    }
    let rows = instances::live_of_process(connection, target.pid, target.start_time, observer)?;
    let office = ended.office();
    Ok(office.is_some()
        && rows.iter().any(|row| row.pid == Some(target.pid) && row.office() == office))
}

/// The process is being ended. Others may have its office by now, so nothing makes its keepers
/// leave before it has ended.
pub(super) struct Ending {
    kill_at: Deadline,
}

impl Ending {
    /// Asks the process to end. It was proven when it was pinned.
    pub(super) fn begin(target: &Target, budget: Duration) -> Self {
        let process = target.handle();
        let pid = target.pid;
        tracing::warn!(pid, "the office is lost, and its process is ended");
        if let Err(error) = process.ask_to_end() {
            tracing::debug!(pid, %error, "it cannot be asked to end");
        }
        if sys::process_facts(pid).state == ProcessState::Stopped
            && let Err(error) = process.resume()
        {
            tracing::debug!(pid, %error, "it cannot be let go on");
        }
        Self { kill_at: Deadline::after(budget) }
    }

    /// Kills it when its time is over, and again with each look: whom we may not signal now, we may
    /// later.
    pub(super) fn go_on(&self, target: &Target) {
        if self.kill_at.has_passed()
            && let Err(error) = target.handle().kill()
        {
            tracing::debug!(pid = target.pid, %error, "it cannot be killed");
        }
    }

    /// When to look again, at most after `most`.
    pub(super) fn look_after(&self, most: Duration) -> Duration {
        if self.kill_at.has_passed() { most } else { most.min(self.kill_at.remaining()) }
    }
}

/// The process has ended.
pub(super) struct Gone<'a> {
    pub(super) target: &'a Target,
    /// When that was seen: Unix milliseconds.
    pub(super) seen_at_ms: i64,
}

impl Gone<'_> {
    /// How it ended, once it is collected; `None` where nobody does, or the kernel does not tell.
    fn wait_collected(&self) -> Option<ChildEnd> {
        let until = Deadline::after(COLLECTED_WITHIN);
        let mut step = LOOK_FIRST;
        loop {
            match self.target.handle().end() {
                ExitInfo::Known(ended) => return Some(ended),
                ExitInfo::Never => return None,
                ExitInfo::NotYet if until.has_passed() => return None,
                ExitInfo::NotYet => std::thread::sleep(step.min(until.remaining())),
            }
            step = step.saturating_mul(2);
        }
    }

    fn seen(&self, id: InstanceId, ended: ChildEnd) -> SeenEnd {
        SeenEnd { id, ended, at_ms: self.seen_at_ms }
    }

    /// Notes in its rows how it ended: whoever claims next, or asks, finds it dead, and tells this
    /// as well.
    pub(super) fn note_end(&self, inner: &Inner, rows: &[KeptRow]) {
        let mut offices = rows.iter().filter(|row| row.record.office().is_some()).peekable();
        if offices.peek().is_none() {
            return;
        }
        let Some(ended) = self.wait_collected() else { return };
        let seen: Vec<_> = offices.map(|row| self.seen(row.record.id, ended)).collect();
        let noted: Result<()> =
            inner.write(|tx| seen.iter().try_for_each(|it| instances::note_exit(tx, it)));
        if let Err(error) = noted {
            tracing::debug!(%error, "how it ended is not on record");
        }
    }

    /// Records in its rows how it ended, if that can be known. Where it cannot, whoever claims next
    /// finds out what there is.
    pub(super) fn record_end(&self, inner: &Inner, rows: &[KeptRow]) {
        let Some(ended) = self.wait_collected() else { return };
        let how = how_it_ended(ended);
        let recorded: Result<()> = inner.write(|tx| {
            for row in rows.iter().filter(|row| row.record.office().is_some()) {
                let id = row.record.id;
                if ending::end_other(tx, id, &how)?.is_none() {
                    // Somebody was faster, and could not know it.
                    instances::note_exit(tx, &self.seen(id, ended))?;
                }
            }
            Ok(())
        });
        if let Err(error) = recorded {
            tracing::debug!(%error, "how it ended is left for the next claim to find out");
        }
    }
}

fn how_it_ended(ended: ChildEnd) -> End {
    match ended {
        ChildEnd::Exited(code) => {
            let mut how = End::new(EndReason::Exited);
            how.exit_code = Some(code);
            how
        }
        ChildEnd::Signalled(signal) => {
            let is_fault = signals::is_fault(signal);
            let reason = if is_fault { EndReason::Crashed } else { EndReason::Signalled };
            let mut how = End::new(reason);
            how.signal = Some(signal);
            how
        }
    }
}
