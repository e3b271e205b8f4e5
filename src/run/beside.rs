//! What a run has beside its command, made before that starts.

use std::ffi::OsString;
use std::io::PipeWriter;

use crate::run::delivery::Delivery;
use crate::run::inbox::{Inbox, RunEvent};
use crate::run::notify::Proxy;
use crate::run::pid_file::PidFile;
use crate::run::plan::{Extent, Run};
use crate::run::said::Said;
use crate::run::stderr::KeptStderr;
use crate::sys::signals::Catcher;
use crate::sys::{Shortage, supervise};
use crate::{Error, Result};

/// See above.
pub(super) struct Beside {
    pub(super) delivery: Delivery,
    /// In the place of the service manager's socket.
    proxy: Option<Proxy>,
    /// What came there.
    pub(super) said: Said,
    /// What the command wrote last, where that is kept.
    pub(super) stderr: Option<KeptStderr>,
    pub(super) pid_file: Option<PidFile>,
    /// Hears Ctrl-Z. Before there is a command it stops this process by itself.
    _suspension: Option<Catcher>,
}

impl Beside {
    /// Call it in the thread that stays with the command.
    ///
    /// # Errors
    /// Of the pid file; what else cannot be had is done without.
    pub(super) fn prepare(run: &Run, inbox: &Inbox) -> Result<Self> {
        let pid_file = run.pid_file.as_deref().map(PidFile::write).transpose()?;
        let stderr = run.kept_stderr.map(KeptStderr::new);
        if run.extent == Extent::Part {
            return Ok(Self {
                delivery: Delivery::of_part(run.forward),
                proxy: None,
                said: Said::default(),
                stderr,
                pid_file,
                _suspension: None,
            });
        }
        let sender = inbox.sender();
        Ok(Self {
            delivery: Delivery::of_whole(run.forward),
            proxy: Proxy::start(move |said| drop(sender.send(RunEvent::Notified(said)))),
            said: Said::new(),
            stderr,
            pid_file,
            _suspension: if supervise::has_terminal() { inbox.hear_suspension() } else { None },
        })
    }

    /// The standard error of a command that starts now, where that is not ours.
    pub(super) fn stderr(&self) -> Result<Option<PipeWriter>> {
        let pipe = self.stderr.as_ref().map(KeptStderr::pipe).transpose();
        pipe.map_err(|error| match Shortage::of(&error) {
            Some(shortage) => Error::shortage(shortage, "keep standard error"),
            None => Error::internal(format!("cannot keep standard error: {error}")),
        })
    }

    /// What the command finds in its environment.
    pub(super) fn environment(&self) -> Option<(&'static str, OsString)> {
        self.proxy.as_ref().map(Proxy::environment)
    }

    /// Whether we stand between the command and its manager.
    pub(super) fn hears_command(&self) -> bool {
        self.proxy.is_some()
    }

    /// Returns once all that the command said to its manager is in the inbox.
    pub(super) fn hear_last_words(&self) {
        if let Some(proxy) = &self.proxy {
            proxy.drain();
        }
    }
}
