//! A `run` whose store was replaced goes on in the new one.
//!
//! It claims again with the same nonce, so that verbs of the command that goes on (`current_run`)
//! still find it, and with those of its locks that were not released since. Locks that its command
//! took by verbs are not among them: `lock verify` tells the command.

use std::sync::Arc;

use crate::records::CommandLock;
use crate::records::instances::Came;
use crate::run::notice::Notice;
use crate::run::start::Child;
use crate::run::supervised::{Life, Supervised, command_lock_is_held};
use crate::store::watcher::Watcher;
use crate::{Claim, Error, Holder, Result, Wait};

impl Supervised<'_> {
    /// The store was deleted or replaced under us: go on in the new one, with the same anchor.
    /// `Err` says why not, where somebody else holds the office there.
    pub(super) fn claim_in_new_store(&mut self) -> std::result::Result<(), String> {
        self.listener = None;
        self.watcher = None;
        let lost = match self.store.inner.how_lost() {
            Some(how) => format!("the store was deleted or replaced ({how})"),
            None => "the store was deleted or replaced".to_owned(),
        };
        match self.try_new_store() {
            Ok(None) => {
                self.tell(&Notice::NewStore { office: self.tenure.office(), lost: &lost });
            }
            Ok(Some(holder)) => return Err(format!("{lost}, and in the new one {holder}")),
            Err(error) => {
                self.doubt(&format!("{lost}, and the new one cannot be claimed yet: {error}"));
            }
        }
        Ok(())
    }

    fn try_new_store(&mut self) -> Result<Option<Box<Holder>>> {
        let store = self.run.store.clone().path(self.store.path()).open()?;
        let profile = self.run.profile(&store)?;
        let mut options = self.run.claim.clone().wait(Wait::No);
        // Whoever holds it there was faster.
        options.replace = None;
        // Not what was let go since; and with the same proof, so that verbs of the command that
        // runs still act for us.
        let held = self.tenure.locks();
        options.locks.retain(|lock| held.iter().any(|held| held.name == *lock.name()));
        options.nonce = Some(self.tenure.nonce().clone());
        match profile.claim_for_run(&options)? {
            Claim::Held(holder) => Ok(Some(holder)),
            Claim::Granted(tenure) => {
                if let Life::Running(Child(command)) = &mut self.life {
                    // With an anchor that had to be made anew, that file is out of reach.
                    let is_held = command_lock_is_held(&store, self.lock_file.as_ref());
                    if command.lock == CommandLock::Held && !is_held {
                        command.lock = CommandLock::Lost;
                    }
                    if !tenure.set_child(command, Came::otherwise(&store.inner, command.pid))? {
                        return Err(Error::internal("the office was lost again"));
                    }
                }
                self.watcher = Some(Arc::new(Watcher::new(&store.inner)?));
                self.seen_version = None;
                std::mem::replace(&mut self.tenure, tenure).abandon();
                self.store = store;
                Ok(None)
            }
        }
    }
}
