//! The command of a `run` hands over to a child, within the tenure of that `run`: row, fence and
//! locks stay, and the row names another command.
//!
//! The `run` adopts orphans. So its command may end, and the successor is its child then, and its
//! command: it forwards signals to it and passes its exit code on. A command may hand over only if
//! it is a child of the `run`, and only to a child of its own. Otherwise somebody in between would
//! have to end first.
//!
//! # Why the run cannot end the tenure under a successor
//!
//! Both decide in a write transaction. The adoption finds the command on record to be its parent:
//! that lives, because a child whose parent has ended has another one. The `run` looks for a
//! successor in a transaction that begins once it has collected its command; whoever has not
//! committed by then does not have that parent any more, and adopts nothing.
//!
//! A successor that a killed `run` leaves behind lives on: the signal that ends a command with its
//! `run` is for children. It counts as the command of a killed `run` always does, `child_lives`.

use std::fs::File;

use crate::office::handover::NotInherited;
use crate::office::handover::adopt::Secret;
use crate::office::tenure::Tenure;
use crate::owner::OurRun;
use crate::owner::request::Request;
use crate::process::command_lock;
use crate::process::handover::Given;
use crate::records::instances::Came;
use crate::records::{Command, CommandLock, Record, instances};
use crate::store::Inner;
use crate::sys::handover::Inherited;
use crate::sys::{Shortage, supervise};
use crate::{Error, ErrorKind, InstanceId, Result, sys};

impl Tenure {
    /// The number by which the environment knows the `run` that we are the command of, and its
    /// anchor, open and not locked: a successor knows by it that it was meant.
    ///
    /// # Errors
    /// `Unsupported` where that `run` would not follow.
    pub(super) fn anchor_of_run(&self) -> Result<(InstanceId, File)> {
        let inner = &self.footing.inner;
        let refused = |why: &str, hint: &str| {
            let what = format!("{} is held by the `run` that this process is in, ", self.office());
            Error::new(ErrorKind::Unsupported, what + why).with_hint(hint)
        };
        let Some(run) = OurRun::of_environment()?.map(|run| run.instance) else {
            return Err(Error::internal("the tenure of a `run` outside of it"));
        };
        let record = inner.read(|connection| instances::by_id(connection, self.instance()))?;
        let (observer, record) = (inner.observer(), record.filter(Record::is_live));
        let Some(record) = record else { return Err(Error::internal("a held office is gone")) };
        if record.child_pid != Some(observer.pid) || record.pid_ns != observer.pid_ns {
            return Err(refused(
                "whose command is another process",
                "let the start script of the command `exec` this program, or execute the \
                 successor in this process (`Tenure::exec`)",
            ));
        }
        let Some(name) = &record.anchor else {
            return Err(Error::internal("a `run` holds an office without an anchor"));
        };
        let path = inner.location.anchors.join(name);
        let opened = sys::open_anchor_file(&path).map_err(|error| match Shortage::of(&error) {
            Some(shortage) => Error::shortage(shortage, &format!("open {}", path.display())),
            None => Error::new(
                ErrorKind::CannotRead,
                format!("{} cannot be opened: {error}", path.display()),
            )
            .at(&path),
        })?;
        if !sys::owner_follows(&opened) {
            return Err(refused(
                "which cannot continue with another process",
                "execute the successor in this process (`Tenure::exec`), or end: the run can \
                 start it again",
            ));
        }
        inner.may_be_followed();
        Ok((run, opened))
    }
}

/// Becomes the command of the `run` with this row, in the place of our parent, if that left it to
/// us. `Err` within says why not, `None` that it did not.
pub(super) fn take_place(
    inner: &Inner,
    record: &Record,
    given: &Given,
) -> Result<Option<std::result::Result<(), NotInherited>>> {
    let Some(key) = record.identity.anchor else { return Ok(None) };
    let Some(Inherited { anchor: proof, will }) = Inherited::find(&given.descriptors, &key) else {
        return Ok(None);
    };
    drop(proof);
    let secret = Secret::new(&will);
    let observer = inner.observer();
    let came = Came::otherwise(inner, observer.pid);
    let taken = inner.write(|tx| {
        let Some(row) = instances::by_id(tx, record.id)?.filter(Record::is_live) else {
            return Ok(Err(NotInherited::Lost));
        };
        // What was rolled back may have been looked at since: the predecessor goes on.
        let is_late = secret.was_read();
        let Some(nonce) = secret.nonce()?.filter(|nonce| !is_late && row.belongs_to(nonce)) else {
            return Ok(Err(NotInherited::TakenBack));
        };
        if Request::to(tx, inner, row.id)?.is_some() {
            return Ok(Err(NotInherited::AskedToEnd));
        }
        let is_child = supervise::own_parent().is_some_and(|it| row.child_pid == Some(it));
        if !is_child || row.pid_ns != observer.pid_ns {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the command of a `run` can hand over only to its own child",
            )
            .with_hint("let the start script of the successor `exec` it"));
        }
        let command = Command {
            pid: observer.pid,
            start_time: observer.start_time,
            // Not before it is certain: it cannot be given back.
            lock: hold_command_lock(inner, &row),
            lock_inode: row.identity.command_lock_inode,
        };
        Ok(if instances::set_child(tx, row.id, nonce, &command, came)? {
            Ok(())
        } else {
            Err(NotInherited::Lost)
        })
    })?;
    if taken.is_ok() {
        will.say_adopted();
    }
    Ok(Some(taken))
}

/// Takes the lock that commands of this `run` hold, where there is one.
fn hold_command_lock(inner: &Inner, row: &Record) -> CommandLock {
    let (Some(anchor), Some(_)) = (&row.anchor, row.identity.command_lock_inode) else {
        return CommandLock::None;
    };
    match sys::hold_command_lock(&command_lock::path_of(&inner.location.anchors, anchor)) {
        Ok(()) => CommandLock::Held,
        Err(error) => {
            tracing::debug!(%error, "no lock of the command's own");
            CommandLock::None
        }
    }
}
