//! How long a run that is with its command sleeps when nothing happens.
//!
//! It is woken by what is sent to it: signals, the end of a child, a word of the command, a commit
//! (`store/listener.rs`). What nobody tells it looks at once a second, and more often while
//! something has an end of its own that comes sooner, or cannot be told.

use std::time::Duration;

use crate::records::CommandLock;
use crate::run::inbox::{Inbox, LOOK_EVERY, RunEvent, Watched};
use crate::run::start::Child;
use crate::run::supervised::{Life, Supervised};
use crate::store::listener::Listener;

impl Supervised<'_> {
    /// Has the inbox told of commits, if it is not yet.
    pub(super) fn listen(&mut self, inbox: &Inbox) {
        if let (None, Some(watcher)) = (&self.listener, &self.watcher) {
            let sender = inbox.sender();
            let tell = move || drop(sender.send(RunEvent::Committed));
            self.listener = Listener::start(watcher, || LOOK_EVERY, tell);
        }
        let Life::Running(Child(command)) = &self.life else { return };
        if command.lock == CommandLock::Held
            && self.lock_watched == Watched::No
            && let Some(file) = &self.lock_file
        {
            let sender = inbox.sender();
            let is_watched = file.watch(move |is_free| {
                let next = if is_free { Watched::No } else { Watched::Cannot };
                let _ = sender.send(RunEvent::CommandLock(next));
            });
            self.lock_watched = if is_watched { Watched::Yes } else { Watched::Cannot };
        }
    }

    /// Until when there is nothing to do, unless something is heard.
    pub(super) fn pause(&self) -> Duration {
        if self.looks_often() { LOOK_EVERY } else { self.verify_at.remaining() }
    }

    fn looks_often(&self) -> bool {
        let is_told = self.listener.as_ref().is_some_and(Listener::hears);
        let Life::Running(Child(command)) = &self.life else { return true };
        // The row says that it holds its lock until we have seen that it does not, and a claimant
        // who cannot look it up believes the row.
        let may_lose_lock = command.lock == CommandLock::Held && self.lock_watched != Watched::Yes;
        let may_be_killed = self.asked.as_ref().is_some_and(|asked| {
            asked.stands() || asked.last_call.as_ref().is_some_and(|call| !call.is_over)
        });
        !is_told
            || may_lose_lock
            || may_be_killed
            || self.ending.is_some()
            || self.unseen.is_some()
            || self.stays_with_descendants()
            || self.beside.said.is_something()
            // Older programs tell nobody.
            || self.hold.is_some()
    }
}
