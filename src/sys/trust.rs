//! Whose processes may be signalled because a store says so.
//!
//! A record is as good as whoever may write it. Root works on the store of a user, too, who may put any pid
//! there, with its true start time and a free lock: that of root's own sshd (FIELD-BUGS row 105). So root
//! believes such a store about the processes that this user could signal himself, and about no others.

use std::path::{Path, PathBuf};

use super::{ListedLock, Pid, ProcessHandle, Unproven, effective_uid, listed_lock, process_facts};

/// How far what a store says is believed, when it is about whom to signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// We are root, and this user may write to the store.
    user: Option<u32>,
    /// Of a process of our own that a person wants to be ended: the lock that it holds.
    lock: Option<PathBuf>,
}

impl Trust {
    /// Whoever may write to the store could do himself what we can do.
    pub(crate) const FULL: Self = Self { user: None, lock: None };

    /// In a store whose directory and file belong to `owners`; `None` of one that cannot be seen.
    pub(crate) fn of_owners(owners: impl IntoIterator<Item = Option<u32>>) -> Self {
        /// What cannot be seen is nobody whom a process belongs to (`chown(2)` takes it for no user).
        const NOBODY: u32 = u32::MAX;
        if effective_uid() != Some(0) {
            return Self::FULL;
        }
        let others = owners.into_iter().map(|owner| owner.unwrap_or(NOBODY));
        Self { user: others.max().filter(|owner| *owner != 0), lock: None }
    }

    /// Also a process of our own, and what it has started, if the kernel says that it has locked the anchor at
    /// `path` itself: nobody else can make a process do that. Only where a person insists.
    pub(crate) fn and_who_locked(self, path: &Path) -> Self {
        Self { lock: Some(path.to_owned()), ..self }
    }

    /// Whether the process of a record may be signalled, which is pinned.
    pub(super) fn check(&self, pid: Pid, process: &ProcessHandle) -> Result<(), Unproven> {
        let Some(user) = self.user else { return Ok(()) };
        match process.users() {
            // Whom kill(2) by that user would reach: a setuid program that he has started, too.
            Some(users) if users.contains(&user) => Ok(()),
            Some([0, 0]) if self.takes_part(pid) => Ok(()),
            Some(_) | None => Err(Unproven::NotOfTheUser(user)),
        }
    }

    fn takes_part(&self, pid: Pid) -> bool {
        let Some(lock) = &self.lock else { return false };
        let ListedLock::Held(Some(holder)) = listed_lock(lock) else { return false };
        holder == pid || process_facts(pid).parent == Some(holder)
    }
}
