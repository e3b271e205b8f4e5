//! A process that acts only while it has its office: the command of `run --exec`.
//!
//! It has no `run` around it, so its keeper ends it when the office is lost, and says how it ended
//! where the kernel tells.

use std::time::Duration;

use crate::clock::Deadline;
use crate::keeper::kept::KeptRow;
use crate::keeper::target::Target;
use crate::owner::ending;
use crate::records::{End, EndReason};
use crate::store::Inner;
use crate::sys::{ChildEnd, ProcessState, signals};
use crate::{Result, sys};

/// How long a killed process may take to be gone: one that hangs in the kernel is nobody's to end.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// How long its supervisor may take to collect it: before that the kernel does not tell.
const COLLECTED_WITHIN: Duration = Duration::from_secs(1);

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Asks the process to end, and kills it when its time is over. It was proven when it was pinned.
pub(super) fn end(target: &Target, budget: Duration) {
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
    if process.wait_ended(budget) {
        return;
    }
    if let Err(error) = process.kill() {
        tracing::debug!(pid, %error, "it cannot be killed");
    }
    process.wait_ended(KILLED_WITHIN);
}

/// Records how the process of these rows ended, if that can be known. Where it cannot, whoever
/// claims next finds out what there is.
pub(super) fn record_end(inner: &Inner, target: &Target, rows: &[KeptRow]) {
    let until = Deadline::after(COLLECTED_WITHIN);
    let ended = loop {
        match target.handle().end() {
            Some(ended) => break ended,
            None if until.has_passed() => return,
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    let how = how_it_ended(ended);
    let recorded: Result<()> = inner.write(|tx| {
        for row in rows.iter().filter(|row| row.record.office().is_some()) {
            ending::end_other(tx, row.record.id, &how)?;
        }
        Ok(())
    });
    if let Err(error) = recorded {
        tracing::debug!(%error, "how it ended is left for the next claim to find out");
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
