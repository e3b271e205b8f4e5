//! What a run has beside its command, made before that starts.

use std::ffi::OsString;

use crate::run::delivery::Delivery;
use crate::run::inbox::{Inbox, RunEvent};
use crate::run::notify::Proxy;
use crate::run::plan::{Extent, Run};
use crate::run::said::Said;
use crate::sys::signals::Catcher;
use crate::sys::supervise;

/// See above.
pub(super) struct Beside {
    pub(super) delivery: Delivery,
    /// In the place of the service manager's socket.
    proxy: Option<Proxy>,
    /// What came there.
    pub(super) said: Said,
    /// Hears Ctrl-Z. Before there is a command it stops this process by itself.
    _suspension: Option<Catcher>,
}

impl Beside {
    /// Call it in the thread that stays with the command. What cannot be had is done without.
    pub(super) fn prepare(run: &Run, inbox: &Inbox) -> Self {
        if run.extent == Extent::Part {
            return Self {
                delivery: Delivery::of_part(run.forward),
                proxy: None,
                said: Said::default(),
                _suspension: None,
            };
        }
        let sender = inbox.sender();
        Self {
            delivery: Delivery::of_whole(run.forward),
            proxy: Proxy::start(move |said| drop(sender.send(RunEvent::Notified(said)))),
            said: Said::new(),
            _suspension: if supervise::has_terminal() { inbox.hear_suspension() } else { None },
        }
    }

    /// What the command finds in its environment.
    pub(super) fn environment(&self) -> Option<(&'static str, OsString)> {
        self.proxy.as_ref().map(Proxy::environment)
    }

    /// Returns once all that the command said to its manager is in the inbox.
    pub(super) fn hear_last_words(&self) {
        if let Some(proxy) = &self.proxy {
            proxy.drain();
        }
    }
}
