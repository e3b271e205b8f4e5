//! Starts the command, once its pid is on record.

use std::ffi::OsString;

use crate::process::command_lock::LockFile;
use crate::process::handover::Given;
use crate::process::helper;
use crate::process::helper::HelperProgram;
use crate::records::{Command, CommandLock, End, EndReason, Identities};
use crate::run::inbox::{Inbox, Signalled};
use crate::run::plan::{Finished, Run, RunOutcome};
use crate::sys::supervise::{self, HeldCommand};
use crate::sys::{ExecFailure, Shortage};
use crate::{Error, ErrorKind, Store, Tenure, environment};

/// The started command, as it is on record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child(pub(crate) Command);

/// The same, with the file that it locks.
pub(crate) struct Started {
    pub(super) child: Child,
    pub(super) lock_file: Option<LockFile>,
}

pub(crate) enum NotStarted {
    Error(Error),
    /// We were asked to end before there was anything to be ended.
    Signalled(Signalled),
    Exec(ExecFailure),
}

/// Each waits as long as the store may be busy, 5 s: 20 s together at a first start. A later one
/// has less, and is tried again as a whole.
const TRIES_TO_RECORD: usize = 4;

/// Starts the command once its pid is on record: from then on a claimant can find it, whatever
/// happens to us. `None`: the office was lost meanwhile, and nothing was started. A request to end
/// that is in `inbox` is heard between two tries; without one there is one try.
pub(super) fn start(
    command: &[OsString],
    tenure: &Tenure,
    store: &Store,
    inbox: Option<&Inbox>,
) -> Result<Option<Started>, NotStarted> {
    let office = tenure.office();
    let mut environment: Vec<(&str, OsString)> = vec![
        (environment::DB, store.path().into()),
        (environment::PROFILE, office.profile.as_str().into()),
        (environment::KIND, office.kind.as_str().into()),
        (environment::INSTANCE, tenure.instance().to_string().into()),
        (environment::TOKEN, tenure.nonce().to_hex().into()),
    ];
    // Where it ends, a child that took its place is ours.
    if supervise::adopts_orphans() {
        let follows = Given::for_command(tenure.instance());
        environment.push((environment::HANDOVER, follows.into()));
    }
    let anchor = store.inner.own_anchor();
    let lock_file = anchor.as_deref().map(LockFile::beside).transpose();
    let lock_file = lock_file.map_err(NotStarted::Error)?.flatten();
    let helper = supervise::HOLDS_BY_HELPER.then(HelperProgram::find).transpose();
    let helper = helper.map_err(NotStarted::Error)?;
    let by = helper.as_ref().map(HelperProgram::command);
    let lock_path = lock_file.as_ref().map(LockFile::path);
    let held = HeldCommand::spawn(by, command, &environment, lock_path)
        .map_err(|error| not_started(ExecFailure(error)))?;
    // One that was killed is seen to have ended; another program would be taken for the command.
    if let Some(helper) = helper.filter(|helper| !held.has_answered() && !helper.is_ours()) {
        held.end();
        let path = helper.path();
        let error = Error::invalid(format!(
            "{} is not a program for helpers, or one of another version",
            path.display()
        ));
        return Err(NotStarted::Error(error.at(path).with_hint(helper::HINT)));
    }
    let child = Child(Command {
        pid: held.pid(),
        start_time: held.start_time(),
        lock: if held.holds_lock() { CommandLock::Held } else { CommandLock::None },
        lock_inode: lock_file.as_ref().map(LockFile::inode),
    });
    // The office is ours, and whoever else asks for it may keep the store busy for longer than one
    // wait: if we gave it back, nobody would start.
    let mut recorded = tenure.set_child(&child.0);
    for _ in 1..TRIES_TO_RECORD {
        let is_busy = recorded.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy);
        let Some(inbox) = inbox.filter(|_| is_busy) else { break };
        if let Some(signalled) = inbox.request_to_end() {
            return Err(NotStarted::Signalled(signalled));
        }
        recorded = tenure.set_child(&child.0);
    }
    match recorded {
        Ok(true) => {}
        // Dropping the held command lets the trampoline go without the command.
        Ok(false) => return Ok(None),
        Err(error) => return Err(NotStarted::Error(error)),
    }
    held.release().map_err(not_started)?;
    Ok(Some(Started { child, lock_file }))
}

/// What cannot be started for want of something now may be later.
fn not_started(failure: ExecFailure) -> NotStarted {
    match Shortage::of(&failure.0) {
        Some(shortage) => NotStarted::Error(Error::shortage(shortage, "start the command")),
        None => NotStarted::Exec(failure),
    }
}

/// The answer to a command that cannot be executed.
pub(super) fn not_executed(command: &[OsString], failure: &ExecFailure) -> (i32, Error) {
    let program = command.first().map(|program| program.to_string_lossy().into_owned());
    let error =
        Error::invalid(format!("cannot execute {:?}: {}", program.unwrap_or_default(), failure.0))
            .with_hint("look at the path, the mode and the interpreter of the command");
    (failure.exit_code(), error)
}

impl Run {
    /// The same, once the office is ours: it ends with that.
    pub(super) fn end_not_executed(
        &self,
        store: &Store,
        tenure: Tenure,
        failure: &ExecFailure,
    ) -> Finished {
        let (exit_code, error) = not_executed(&self.command, failure);
        // The program may be below a directory that is named after what is locked.
        let message = Identities::known_to(&store.inner).text(&error.to_string());
        let mut end = End::new(EndReason::Exited).detail(message);
        end.exit_code = Some(exit_code);
        self.report_release(tenure.end(&end));
        Finished::new(exit_code, RunOutcome::Failed(error))
    }
}
