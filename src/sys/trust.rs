//! Whose processes may be signalled because a store says so.
//!
//! A record is as good as the user who may write it. Root works on the store of a user, too, who
//! may put any pid there, with its true start time and a free lock: that of root's own sshd
//! (FIELD-BUGS row 105). So in a store that belongs to a user (by its directory or its file) root
//! signals only what this user could signal himself by `kill(2)` (his real or saved uid).
//!
//! With `--force` root also signals a process of its own that the kernel's list of locks names as
//! the holder of the anchor on record, or its child, or a process that has the environment which
//! this `run` gave its command. If the directory and the file belong to two users, root signals
//! nobody.

use std::path::{Path, PathBuf};

use super::{
    ListedLock, Pid, ProcessHandle, Unproven, effective_uid, environment_of, listed_lock,
    process_facts,
};
use crate::environment::{Fault, planted};

/// How far what a store says is believed, when it is about whom to signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    writer: Writer,
    /// Of a process of our own that a person wants to be ended.
    insisted: Option<Insisted>,
}

/// Who else may write to the store where we are root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Nobody,
    User(u32),
    /// Each of them may have written what would end the other's processes; or who it is cannot be
    /// seen.
    Several,
}

/// By what a process of root's is known to take part in the store of a user.
#[derive(Clone, Debug)]
struct Insisted {
    /// It has locked this itself.
    lock: PathBuf,
    /// It has this in its environment.
    word: String,
}

impl Trust {
    /// Whoever may write to the store could do himself what we can do.
    pub(crate) const FULL: Self = Self { writer: Writer::Nobody, insisted: None };

    /// In a store whose directory and file belong to `owners`; `None` of one that cannot be seen.
    pub(crate) fn of_owners(owners: impl IntoIterator<Item = Option<u32>>) -> Self {
        if effective_uid() != Some(0) {
            return Self::FULL;
        }
        let mut others = owners.into_iter().filter(|owner| *owner != Some(0));
        let writer = match others.next() {
            None => Writer::Nobody,
            Some(Some(user)) if others.all(|other| other == Some(user)) => Writer::User(user),
            Some(_) => Writer::Several,
        };
        Self { writer, insisted: None }
    }

    /// Also a process of our own: if the kernel says that it has locked the anchor at `lock`
    /// itself, what it has started, and what has `word` in its environment, which a `run` of root's
    /// leaves there. The user can have only those of root's processes do that which he starts
    /// himself (by sudo). Only where a person insists.
    pub(crate) fn and_who_takes_part(self, lock: &Path, word: String) -> Self {
        Self { insisted: Some(Insisted { lock: lock.to_owned(), word }), ..self }
    }

    /// Whether the process of a record may be signalled, which is pinned.
    pub(super) fn check(&self, pid: Pid, process: &ProcessHandle) -> Result<(), Unproven> {
        let user = match self.writer {
            _ if planted(Fault::StoreOfUserTrusted) => return Ok(()),
            Writer::Nobody => return Ok(()),
            Writer::User(user) => Some(user),
            Writer::Several => None,
        };
        match process.users() {
            // Whom kill(2) by that user would reach: a setuid program that he has started, too.
            Some(users) if user.is_some_and(|user| users.contains(&user)) => Ok(()),
            Some([0, 0]) if self.takes_part(pid, user) => Ok(()),
            Some(_) | None => Err(user.map_or(Unproven::OfSeveralUsers, Unproven::NotOfTheUser)),
        }
    }

    fn takes_part(&self, pid: Pid, user: Option<u32>) -> bool {
        let Some(Insisted { lock, word }) = &self.insisted else { return false };
        // What root makes in the store is the user's: another file is the lock of something else of
        // root's, which the user has put there.
        let is_of_store = super::facts_of_entry(lock)
            .is_ok_and(|facts| user.is_some() && facts.owner == user && facts.links == 1);
        let has_locked = || match listed_lock(lock) {
            ListedLock::Held(Some(holder)) => {
                holder == pid || process_facts(pid).parent == Some(holder)
            }
            _ => false,
        };
        (is_of_store && has_locked())
            || environment_of(pid).is_some_and(|words| words.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What user 1000 wrote beside a database of 2000's would end processes of 2000's, and the
    /// other way round.
    #[test]
    fn two_owners_are_believed_about_nobody() {
        let writer = |owners: [Option<u32>; 2]| Trust::of_owners(owners).writer;
        if effective_uid() != Some(0) {
            assert_eq!(writer([Some(1000), Some(2000)]), Writer::Nobody);
            return;
        }
        for (owners, believed) in [
            ([Some(0), Some(0)], Writer::Nobody),
            ([Some(0), Some(1000)], Writer::User(1000)),
            ([Some(1000), Some(0)], Writer::User(1000)),
            ([Some(1000), Some(1000)], Writer::User(1000)),
            ([Some(1000), Some(2000)], Writer::Several),
            ([Some(2000), Some(1000)], Writer::Several),
            ([Some(1000), None], Writer::Several),
            ([None, None], Writer::Several),
        ] {
            assert_eq!(writer(owners), believed, "{owners:?}");
        }
    }
}
