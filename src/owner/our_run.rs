//! The `run` that this process is in, as its environment says.
//!
//! An environment outlives its run: a terminal multiplexer that the command opened keeps it for
//! ever, and each shell of it (FIELD-BUGS row 126). So a run that is over counts only for what
//! descends from it, or from its command. While it lives, the nonce is the proof.

use crate::liveness::Ruling;
use crate::owner::judge::judgement;
use crate::records::{Record, instances};
use crate::store::Inner;
use crate::sys::{Existence, Pid, StartTime};
use crate::{Error, InstanceId, Nonce, Result, environment, sys};

/// Whom this process acts for, and the proof that it may.
pub(crate) struct OurRun {
    pub(crate) instance: InstanceId,
    pub(crate) nonce: Nonce,
}

impl OurRun {
    /// `None` outside of a `run`.
    pub(crate) fn of_environment() -> Result<Option<Self>> {
        let (Some(id), Some(token)) =
            (environment::text(environment::INSTANCE), environment::text(environment::TOKEN))
        else {
            return Ok(None);
        };
        let of_run = |error: Error, name| {
            error.of_variable(name, "leave it as the `run` that we are in has set it", None)
        };
        let id = id.parse().map_err(|_| {
            let error = Error::invalid(format!("{id:?} is not the number of an instance"));
            of_run(error, environment::INSTANCE)
        })?;
        let nonce = Nonce::from_hex(&token).map_err(|error| of_run(error, environment::TOKEN))?;
        Ok(Some(Self { instance: InstanceId(id), nonce }))
    }

    /// Whether `record` is that of the run that our environment names.
    pub(crate) fn is(record: &Record) -> bool {
        let ours = Self::of_environment().ok().flatten();
        ours.is_some_and(|run| run.instance == record.id && record.belongs_to(&run.nonce))
    }

    /// Whether `record`, of the run that our environment names, is over, and none that we descend
    /// from. Where that cannot be seen it is not.
    pub(crate) fn is_left_behind(inner: &Inner, record: &Record) -> bool {
        let pid_ns = inner.observer().pid_ns.as_ref();
        if record.pid_ns.as_ref() != pid_ns || (sys::HAS_PID_NAMESPACES && pid_ns.is_none()) {
            return false;
        }
        let is_gone = |pid: Pid| sys::process_facts(pid).existence == Existence::Gone;
        let is_dead = || {
            record.pid.is_some_and(is_gone)
                && matches!(judgement(inner, record).ruling, Ruling::Dead(_))
        };
        if record.is_live() && !is_dead() {
            return false;
        }
        let is_same = |(pid, start_time): &(Pid, Option<StartTime>)| {
            let live = sys::process_facts(*pid).start_time;
            live.zip(*start_time).is_none_or(|(live, recorded)| live == recorded)
        };
        let recorded = [
            record.pid.map(|pid| (pid, record.start_time)),
            record.child_pid.map(|pid| (pid, record.child_start_time)),
        ];
        let pids: Vec<Pid> =
            recorded.into_iter().flatten().filter(is_same).map(|(pid, _)| pid).collect();
        sys::descends_from(&pids) == Some(false)
    }

    /// Its row, live or ended; `None` in a store that does not have it.
    pub(crate) fn record(&self, inner: &Inner) -> Result<Option<Record>> {
        inner.read(|connection| {
            let recorded = instances::by_id(connection, self.instance)?;
            match recorded.filter(|record| record.belongs_to(&self.nonce)) {
                Some(record) if record.is_live() => Ok(Some(record)),
                // In a store that replaced the one it began in, the run has another generation.
                ended => Ok(instances::live_of_nonce(connection, &self.nonce)?.or(ended)),
            }
        })
    }
}
