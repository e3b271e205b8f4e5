//! Starts the command, once its pid is on record.

use std::ffi::OsString;

use crate::owner::family::Kin;
use crate::process::command_lock::LockFile;
use crate::process::helper;
use crate::process::helper::HelperProgram;
use crate::records::instances::Came;
use crate::records::{Command, CommandLock, End, EndReason, Identities};
use crate::run::beside::Beside;
use crate::run::inbox::{Inbox, Signalled};
use crate::run::plan::{Finished, Run, RunOutcome};
use crate::sys::supervise::{self, HeldCommand};
use crate::sys::{ExecFailure, Shortage};
use crate::{Error, ErrorKind, Store, Tenure, environment, sys};

/// The started command, as it is on record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child(pub(crate) Command);

/// The same, with the file that it locks.
pub(crate) struct Started {
    pub(super) child: Child,
    pub(super) lock_file: Option<LockFile>,
    pub(super) leash: Leash,
    /// By what its family is known, where it can be.
    pub(super) kin: Option<Kin>,
}

/// Ends the command when it is dropped. A run whose thread panics, be it in what hears its notices,
/// lets the office go by that: nobody may find its command still at work then.
pub(crate) struct Leash(Option<sys::Pid>);

impl Leash {
    /// The command has ended, and was collected: its pid may be another process's.
    pub(super) fn slip(&mut self) {
        self.0 = None;
    }

    /// Another process is the command now, and a child of ours.
    pub(super) fn pass_on(&mut self, successor: sys::Pid) {
        self.0 = Some(successor);
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            tracing::error!(pid, "the run ends before its command, and kills it");
            supervise::end_child(pid);
        }
    }
}

pub(crate) enum NotStarted {
    Error(Error),
    /// We were asked to end before there was anything to be ended.
    Signalled(Signalled),
    Exec(ExecFailure),
}

/// What verbs called in the command act by.
pub(super) fn environment(tenure: &Tenure, store: &Store) -> [(&'static str, OsString); 5] {
    let office = tenure.office();
    [
        (environment::DB, store.path().into()),
        (environment::PROFILE, office.profile.as_str().into()),
        (environment::KIND, office.kind.as_str().into()),
        (environment::INSTANCE, tenure.instance().to_string().into()),
        (environment::TOKEN, tenure.nonce().to_hex().into()),
    ]
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
    beside: &Beside,
) -> Result<Option<Started>, NotStarted> {
    let mut environment = Vec::from(environment(tenure, store));
    environment.extend(beside.environment());
    let anchor = store.inner.own_anchor();
    // Where it ends, a child that took its place is ours.
    if let Some(anchor) = anchor.as_deref().filter(|_| supervise::adopts_orphans()) {
        anchor.say_that_we_follow();
    }
    let lock_file = anchor.as_deref().map(LockFile::beside).transpose();
    let lock_file = lock_file.map_err(NotStarted::Error)?.flatten();
    let helper = supervise::HOLDS_BY_HELPER.then(HelperProgram::find).transpose();
    let helper = helper.map_err(NotStarted::Error)?;
    let by = helper.as_ref().map(HelperProgram::command);
    let lock_path = lock_file.as_ref().map(LockFile::path);
    let stderr = beside.stderr().map_err(NotStarted::Error)?;
    let held = HeldCommand::spawn(by, command, &environment, lock_path, stderr)
        .map_err(|error| not_spawned(error, helper.as_ref()))?;
    // One that was killed is seen to have ended; another program would be taken for the command.
    if let Some(helper) = helper.filter(|helper| !held.has_answered() && !helper.is_ours()) {
        held.end();
        let why = "is not a program for helpers, or one of another version";
        return Err(NotStarted::Error(wrong_helper(&helper, why)));
    }
    let child = Child(Command {
        pid: held.pid(),
        start_time: held.start_time(),
        lock: if held.holds_lock() { CommandLock::Held } else { CommandLock::None },
        lock_inode: lock_file.as_ref().map(LockFile::inode),
    });
    // The office is ours, and whoever else asks for it may keep the store busy for longer than one
    // wait: if we gave it back, nobody would start.
    let mut recorded = tenure.set_child(&child.0, Came::Started);
    for _ in 1..TRIES_TO_RECORD {
        let is_busy = recorded.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy);
        let Some(inbox) = inbox.filter(|_| is_busy) else { break };
        if let Some(signalled) = inbox.request_to_end() {
            held.end();
            return Err(NotStarted::Signalled(signalled));
        }
        recorded = tenure.set_child(&child.0, Came::Started);
    }
    match recorded {
        Ok(true) => {}
        Ok(false) => {
            held.end();
            return Ok(None);
        }
        Err(error) => {
            held.end();
            return Err(NotStarted::Error(error));
        }
    }
    let kin = Kin::of_command(tenure.instance(), &child.0);
    held.release().map_err(not_started)?;
    Ok(Some(Started { child, lock_file, leash: Leash(Some(child.0.pid)), kin }))
}

/// Where another program is the helper, it is that one which could not be executed, and not the
/// command.
fn not_spawned(error: std::io::Error, helper: Option<&HelperProgram>) -> NotStarted {
    match helper.filter(|helper| !helper.is_ours() && Shortage::of(&error).is_none()) {
        Some(helper) => {
            let why = format!("cannot be executed: {error}");
            NotStarted::Error(wrong_helper(helper, &why).caused_by(error))
        }
        None => not_started(ExecFailure(error)),
    }
}

fn wrong_helper(helper: &HelperProgram, why: &str) -> Error {
    let path = helper.path();
    Error::invalid(format!("{} {why}", path.display())).at(path).with_hint(helper::HINT)
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
