//! Whose processes may be signalled because a store says so.
//!
//! A record is as good as whoever may write it. Root works on the store of a user, too, who may put any pid
//! there, with its true start time and a free lock: that of root's own sshd (FIELD-BUGS row 105). So root
//! believes such a store about the processes that this user could signal himself, and about no others.

use std::path::{Path, PathBuf};

use super::{
    ListedLock, Pid, ProcessHandle, Unproven, effective_uid, environment_of, listed_lock,
    process_facts,
};

/// How far what a store says is believed, when it is about whom to signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// We are root, and this user may write to the store.
    user: Option<u32>,
    /// Of a process of our own that a person wants to be ended.
    insisted: Option<Insisted>,
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
    pub(crate) const FULL: Self = Self { user: None, insisted: None };

    /// In a store whose directory and file belong to `owners`; `None` of one that cannot be seen.
    pub(crate) fn of_owners(owners: impl IntoIterator<Item = Option<u32>>) -> Self {
        /// What cannot be seen is nobody whom a process belongs to (`chown(2)` takes it for no user).
        const NOBODY: u32 = u32::MAX;
        if effective_uid() != Some(0) {
            return Self::FULL;
        }
        let owners = owners.into_iter().map(|owner| owner.unwrap_or(NOBODY));
        let mut others = owners.filter(|owner| *owner != 0);
        let user = others.next();
        // Of two users each may have written what would end the other's processes.
        let user = user.map(|user| if others.all(|other| other == user) { user } else { NOBODY });
        Self { user, insisted: None }
    }

    /// Also a process of our own: if the kernel says that it has locked the anchor at `lock` itself, what it has
    /// started, and what has `word` in its environment, which a `run` of root's leaves there. The user can have
    /// only those of root's processes do that which he starts himself (by sudo). Only where a person insists.
    pub(crate) fn and_who_takes_part(self, lock: &Path, word: String) -> Self {
        Self { insisted: Some(Insisted { lock: lock.to_owned(), word }), ..self }
    }

    /// Whether the process of a record may be signalled, which is pinned.
    pub(super) fn check(&self, pid: Pid, process: &ProcessHandle) -> Result<(), Unproven> {
        let Some(user) = self.user else { return Ok(()) };
        match process.users() {
            // Whom kill(2) by that user would reach: a setuid program that he has started, too.
            Some(users) if users.contains(&user) => Ok(()),
            Some([0, 0]) if self.takes_part(pid, user) => Ok(()),
            Some(_) | None => Err(Unproven::NotOfTheUser(user)),
        }
    }

    fn takes_part(&self, pid: Pid, user: u32) -> bool {
        let Some(Insisted { lock, word }) = &self.insisted else { return false };
        // What root makes in the store is the user's: another file is the lock of something else of root's, which
        // the user has put there.
        let is_of_store = super::facts_of_entry(lock)
            .is_ok_and(|facts| facts.owner == Some(user) && facts.links == 1);
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

    /// What user 1000 wrote beside a database of 2000's would end processes of 2000's, and the other way round.
    #[test]
    fn two_owners_are_believed_about_nobody() {
        let user = |owners: [Option<u32>; 2]| Trust::of_owners(owners).user;
        if effective_uid() != Some(0) {
            assert_eq!(user([Some(1000), Some(2000)]), None);
            return;
        }
        for (owners, believed) in [
            ([Some(0), Some(0)], None),
            ([Some(0), Some(1000)], Some(1000)),
            ([Some(1000), Some(0)], Some(1000)),
            ([Some(1000), Some(1000)], Some(1000)),
            ([Some(1000), Some(2000)], Some(u32::MAX)),
            ([Some(2000), Some(1000)], Some(u32::MAX)),
            ([Some(1000), None], Some(u32::MAX)),
        ] {
            assert_eq!(user(owners), believed, "{owners:?}");
        }
    }
}
