//! What the command tells its service manager: passed on, and heard.
//!
//! systemd listens to the main process of a service, which is the run. So the command gets a socket
//! of ours as `NOTIFY_SOCKET`, and what comes there is said again by us: with its open files, and
//! with `BARRIER=1`, whose end the manager closes when it has read all before it. Only `MAINPID` is
//! not: the run stays the main process (FIELD-BUGS row 113).

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use crate::sys::notify::{self, NotifySocket};
use crate::sys::{self, Pid};
use crate::{environment, state};

/// Where a program finds the socket of its manager (`sd_notify(3)`).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// How long the end of the command waits for what it said last, and the manager takes no more.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(250);

/// Between two tries where nothing can be received for want of memory.
const PAUSE: Duration = Duration::from_millis(100);

/// A chain of parents that is longer is followed no further.
const GENERATIONS_MAX: usize = 64;

/// What a message says of how the command is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(super) state: Option<&'static str>,
    /// Its text for people; empty to take it back.
    pub(super) status: Option<String>,
    /// A sign of life.
    pub(super) beats: bool,
    /// Within which time it gives the next one from now on.
    pub(super) watchdog: Option<Duration>,
    /// It wants so much time for what it is at.
    pub(super) extends: Option<Duration>,
}

impl Notification {
    /// What it says, and the same as it is passed on.
    fn read(text: &[u8]) -> (Self, Vec<u8>) {
        let mut said = Self::default();
        let mut kept = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            // As a number of the kernel, too (`MAINPIDFDID`).
            if line.starts_with(b"MAINPID") {
                tracing::debug!(line = %String::from_utf8_lossy(line), "not passed on");
            } else {
                said.hear(line);
                kept.push(line);
            }
        }
        (said, kept.join(&b'\n'))
    }

    fn hear(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let time = |text: &str| text.parse::<u64>().ok().map(Duration::from_micros);
        match line.split_once('=') {
            Some(("READY", "1")) => self.state = Some(state::RUNNING),
            Some(("STOPPING", "1")) => self.state = Some(state::DRAINING),
            Some(("STATUS", text)) => self.status = Some(text.to_owned()),
            Some(("WATCHDOG", "1")) => self.beats = true,
            Some(("WATCHDOG_USEC", text)) => self.watchdog = time(text),
            Some(("EXTEND_TIMEOUT_USEC", text)) => {
                self.extends = time(text);
                self.beats |= self.extends.is_some();
            }
            _ => {}
        }
    }
}

/// The socket in the place of the manager's. It works until this process ends.
#[derive(Debug)]
pub(super) struct Proxy {
    socket: Arc<NotifySocket>,
    drained: Receiver<()>,
}

impl Proxy {
    /// Tells what comes, from a thread of its own. `None` where there is no manager, or it is
    /// reached in another way: then nothing stands between it and the command.
    pub(super) fn start(tell: impl Fn(Notification) + Send + 'static) -> Option<Self> {
        let manager = environment::value(NOTIFY_SOCKET)?;
        if !notify::is_of_a_manager(&manager) {
            return None;
        }
        let (drain, drained) = mpsc::channel();
        let started = NotifySocket::open().and_then(|socket| {
            let socket = Arc::new(socket);
            let of_thread = Arc::clone(&socket);
            std::thread::Builder::new()
                .name("incumbent-notify".to_owned())
                .spawn(move || serve(&of_thread, &manager, &tell, &drain))?;
            Ok(socket)
        });
        match started {
            Ok(socket) => Some(Self { socket, drained }),
            Err(error) => {
                tracing::warn!(%error, "the service manager does not hear the command");
                None
            }
        }
    }

    /// What the command finds in its environment.
    pub(super) fn environment(&self) -> (&'static str, OsString) {
        (NOTIFY_SOCKET, self.socket.address())
    }

    /// Returns once all that was said until now has been passed on and told.
    pub(super) fn drain(&self) {
        while self.drained.try_recv().is_ok() {}
        match self.socket.say_to_ourselves() {
            Ok(()) => drop(self.drained.recv_timeout(LAST_WORDS_WITHIN)),
            Err(error) => tracing::debug!(%error, "the last words may not be passed on"),
        }
    }
}

fn serve(socket: &NotifySocket, manager: &OsStr, tell: &impl Fn(Notification), drain: &Sender<()>) {
    loop {
        let message = match socket.receive() {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "the command is not heard");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        let Some((pid, uid)) = message.sender else { continue };
        if pid == std::process::id() {
            let _ = drain.send(());
            continue;
        }
        if !is_of_the_command(pid, uid) {
            tracing::debug!(pid, uid, "a stranger has no word in what the command says");
            continue;
        }
        let (said, text) = Notification::read(&message.text);
        let says_something = text.iter().any(|byte| *byte != b'\n');
        if (says_something || !message.descriptors.is_empty())
            && let Err(error) = notify::notify(manager, &text, &message.descriptors)
        {
            tracing::warn!(%error, "the service manager did not hear the command");
        }
        if said != Notification::default() {
            tell(said);
        }
    }
}

/// Anybody on this machine may write to the socket.
fn is_of_the_command(pid: Pid, uid: u32) -> bool {
    let own = std::process::id();
    let descends_from_us = || {
        std::iter::successors(Some(pid), |pid| sys::process_facts(*pid).parent)
            .take(GENERATIONS_MAX)
            .any(|pid| pid == own)
    };
    uid == 0 || sys::effective_uid() == Some(uid) || descends_from_us()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_says_and_what_is_passed_on() {
        let said = |state, status: Option<&str>, beats| Notification {
            state,
            status: status.map(str::to_owned),
            beats,
            ..Notification::default()
        };
        let nothing = Notification::default();
        let (running, draining) = (Some(state::RUNNING), Some(state::DRAINING));
        for (text, expected, kept) in [
            ("READY=1\nSTATUS=serving", said(running, Some("serving"), false), None),
            (
                "READY=1\nMAINPID=7\nSTATUS=a=b\n",
                said(running, Some("a=b"), false),
                Some("READY=1\nSTATUS=a=b\n"),
            ),
            ("MAINPID=7", nothing.clone(), Some("")),
            ("MAINPID=7\nMAINPIDFDID=99", nothing.clone(), Some("")),
            ("STOPPING=1\nSTATUS=", said(draining, Some(""), false), None),
            ("WATCHDOG=1", said(None, None, true), None),
            ("WATCHDOG=trigger", nothing.clone(), None),
            ("BARRIER=1", nothing.clone(), None),
            ("READY=0\nX_MAINPID=1\n\nready=1", nothing.clone(), None),
            ("", nothing.clone(), None),
        ] {
            let (found, passed_on) = Notification::read(text.as_bytes());
            assert_eq!(found, expected, "{text:?}");
            assert_eq!(String::from_utf8(passed_on).unwrap(), kept.unwrap_or(text), "{text:?}");
        }
        let (found, _) = Notification::read(b"EXTEND_TIMEOUT_USEC=2500000\nWATCHDOG_USEC=10");
        assert_eq!(found.extends, Some(Duration::from_millis(2_500)));
        assert_eq!((found.watchdog, found.beats), (Some(Duration::from_micros(10)), true));
        let (found, passed_on) = Notification::read(b"EXTEND_TIMEOUT_USEC=soon\nSTATUS=\xff");
        assert_eq!((found.extends, found.beats), (None, false));
        assert_eq!(passed_on, b"EXTEND_TIMEOUT_USEC=soon\nSTATUS=\xff", "byte for byte");
    }
}
