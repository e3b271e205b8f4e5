//! What the command tells its service manager: passed on, and heard.
//!
//! systemd listens to the main process of a service, which is the run. So the command gets a socket
//! of ours as `NOTIFY_SOCKET`, and what comes there is said again by us: with its open files, and
//! with `BARRIER=1`, whose end the manager closes when it has read all before it. Only `MAINPID` is
//! not: the run stays the main process (FIELD-BUGS row 113).
//!
//! What we say counts, whoever said it first. So we listen to those whom systemd would listen to:
//! the command, and what it has started where `NotifyAccess=all`. What the command before has left
//! says nothing of this one.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::Deadline;
use crate::forensics::unit_kill;
use crate::process::exit_code::Supervisor;
use crate::sys::notify::{self, Message, NotifySocket};
use crate::sys::{self, Pid, StartTime};
use crate::{environment, state};

/// Where a program finds the socket of its manager (`sd_notify(3)`).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// How long the end of the command waits for what it said last, and the manager takes no more.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(250);

/// Between two tries where nothing can be received for want of memory.
const PAUSE: Duration = Duration::from_millis(100);

/// A chain of parents that is longer is followed no further.
const GENERATIONS_MAX: usize = 64;

/// How long a message waits for the run to say who the command is. It does so at once, unless the
/// store is busy.
const NAMED_WITHIN: Duration = Duration::from_secs(5);

/// Whose word counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Speakers {
    command: Pid,
    start_time: Option<StartTime>,
    /// Who is the main process by the command's own word.
    main: Option<Pid>,
}

/// What the thread that hears the command knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// The first one is being started,
    NotYet,
    /// or a later one.
    Next,
    As(Speakers),
    /// The first one has ended before it was named.
    Ended,
}

/// A process that stands in the place of a manager has one command at a time.
static NAMED: Mutex<Named> = Mutex::new(Named::NotYet);
static IS_NAMED: Condvar = Condvar::new();

fn name(named: Named) {
    let mut now = NAMED.lock();
    if *now != named {
        *now = named;
        IS_NAMED.notify_all();
    }
}

/// Says who the command is, each time that it may have become another process.
pub(super) fn name_command(command: Pid, start_time: Option<StartTime>, main: Option<Pid>) {
    name(Named::As(Speakers { command, start_time, main }));
}

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
    /// Which process is the main one.
    pub(super) main_pid: Option<Pid>,
}

impl Notification {
    /// What it says, and the same as it is passed on.
    fn read(text: &[u8]) -> (Self, Vec<u8>) {
        let mut said = Self::default();
        let mut kept = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            said.hear(line);
            // As a number of the kernel, too (`MAINPIDFDID`).
            if line.starts_with(b"MAINPID") {
                tracing::debug!(line = %String::from_utf8_lossy(line), "not passed on");
            } else {
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
            Some(("MAINPID", text)) => self.main_pid = text.parse().ok(),
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

    /// What the command that is started now finds in its environment.
    pub(super) fn environment(&self) -> (&'static str, OsString) {
        let is_first = *NAMED.lock() == Named::NotYet;
        if !is_first {
            name(Named::Next);
        }
        (NOTIFY_SOCKET, self.socket.address())
    }

    /// Returns once all that was said until now has been passed on and told.
    pub(super) fn drain(&self) {
        // A later one is named before its end can be seen.
        let was_named = *NAMED.lock() != Named::NotYet;
        if !was_named {
            name(Named::Ended);
        }
        let until = Deadline::after(LAST_WORDS_WITHIN);
        while self.drained.try_recv().is_ok() {}
        match self.socket.say_to_ourselves(LAST_WORDS_WITHIN) {
            Ok(()) => drop(self.drained.recv_timeout(until.remaining())),
            Err(error) => tracing::debug!(%error, "the last words may not be passed on"),
        }
    }
}

fn serve(socket: &NotifySocket, manager: &OsStr, tell: &impl Fn(Notification), drain: &Sender<()>) {
    let mut access = Access::NotAsked;
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
        if !may_speak(pid, uid, &mut access, tell) {
            tracing::debug!(pid, uid, "has no word in what the command says");
            continue;
        }
        let said = pass_on(manager, &message);
        if said != Notification::default() {
            tell(said);
        }
    }
}

/// Returns what it says.
fn pass_on(manager: &OsStr, message: &Message) -> Notification {
    let (said, text) = Notification::read(&message.text);
    // Open files belong to what is said of them.
    let says_something = text.iter().any(|byte| *byte != b'\n');
    if says_something && let Err(error) = notify::notify(manager, &text, &message.descriptors) {
        tracing::warn!(%error, "the service manager did not hear the command");
    }
    said
}

/// Whether `pid`, of the user `uid`, is heard. Anybody on this machine may write to the socket.
fn may_speak(pid: Pid, uid: u32, access: &mut Access, tell: &impl Fn(Notification)) -> bool {
    match who_is_named(tell) {
        Named::As(it) if it.command == pid || it.main == Some(pid) => true,
        Named::As(it) => access.is_of_all() && it.have_started(pid, std::process::id()),
        Named::Next => false,
        // Hardly anybody else knows the address by then.
        Named::NotYet | Named::Ended => uid == 0 || sys::effective_uid() == Some(uid),
    }
}

fn who_is_named(tell: &impl Fn(Notification)) -> Named {
    let mut named = NAMED.lock();
    let is_to_come = |named: &mut Named| matches!(named, Named::NotYet | Named::Next);
    if is_to_come(&mut named) {
        // Whoever is told names it.
        tell(Notification::default());
        IS_NAMED.wait_while_for(&mut named, is_to_come, NAMED_WITHIN);
    }
    *named
}

impl Speakers {
    /// Whether `pid` is below the command, or was and is an orphan, which the run adopts then: what
    /// an earlier command has left is older.
    fn have_started(self, pid: Pid, run: Pid) -> bool {
        let child = std::iter::successors(Some(pid), |pid| sys::process_facts(*pid).parent)
            .take(GENERATIONS_MAX)
            .find(|pid| sys::process_facts(*pid).parent == Some(run));
        let Some(child) = child else { return false };
        let is_younger = || {
            let times = sys::process_facts(child).start_time.zip(self.start_time);
            times.is_none_or(|(theirs, of_command)| theirs.value >= of_command.value)
        };
        child == self.command || is_younger()
    }
}

/// Whom the manager listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    NotAsked,
    MainProcess,
    All,
    /// It is no systemd, or cannot be asked.
    NotKnown,
}

impl Access {
    /// Whether what the command has started may speak for it, as far as is known. Asks when that is
    /// needed first: most programs speak for themselves.
    fn is_of_all(&mut self) -> bool {
        if *self == Self::NotAsked {
            *self = Self::ask();
        }
        *self != Self::MainProcess
    }

    fn ask() -> Self {
        let is_systemd = Supervisor::of_this_process() == Supervisor::Systemd;
        match is_systemd.then(unit_kill::listens_to_all).flatten() {
            Some(true) => Self::All,
            Some(false) => Self::MainProcess,
            None => Self::NotKnown,
        }
    }
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
        let main = |pid| Notification { main_pid: Some(pid), ..Notification::default() };
        let (running, draining) = (Some(state::RUNNING), Some(state::DRAINING));
        for (text, expected, kept) in [
            ("READY=1\nSTATUS=serving", said(running, Some("serving"), false), None),
            (
                "READY=1\nMAINPID=7\nSTATUS=a=b\n",
                Notification { main_pid: Some(7), ..said(running, Some("a=b"), false) },
                Some("READY=1\nSTATUS=a=b\n"),
            ),
            ("MAINPID=7", main(7), Some("")),
            ("MAINPID=7\nMAINPIDFDID=99", main(7), Some("")),
            ("MAINPID=-7", nothing.clone(), Some("")),
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

    /// The parent of the test is the run: what that has started is heard if it is no older than the
    /// command.
    #[test]
    fn what_an_earlier_command_has_left_is_not_heard() {
        let own = std::process::id();
        let facts = sys::process_facts(own);
        let Some((run, start_time)) = facts.parent.zip(facts.start_time) else { return };
        let at = |value| Some(StartTime { value, ..start_time });
        for (command, started, is_heard) in [
            (own, at(start_time.value + 1), true),
            (run, at(start_time.value), true),
            (run, None, true),
            (run, at(start_time.value + 1), false),
        ] {
            let speakers = Speakers { command, start_time: started, main: None };
            assert_eq!(speakers.have_started(own, run), is_heard, "{speakers:?}");
        }
        let speakers = Speakers { command: own, start_time: at(0), main: None };
        assert!(!speakers.have_started(run, run) && !speakers.have_started(own, own), "not below");
    }
}
