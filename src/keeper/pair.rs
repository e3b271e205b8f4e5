//! The two processes of a keeper.
//!
//! A keeper alone can be killed (by the OOM killer, by a person who does not know it), and from
//! another pid namespace a free anchor is all that can be seen of a process that lives (FIELD-BUGS
//! row 94). So there are two, which share one open file of the anchor: the lock is free only when
//! both have ended, and the one that is left starts another one at once. The first does the work.
//! The second opens no store and never unlocks: it holds the lock and waits, for the end of the
//! process, which is its own, or for the end of the first. Then it starts another second one, and
//! only after that looks for the store and goes on with the work.
//!
//! A keeper that ends the pair on purpose (the last record is released, or TERM comes from a
//! manager in whose cgroup the process is not) kills the second first, or with itself. A panic
//! aborts a keeper: an orderly end would unlock the anchor for both.

use std::ffi::OsString;
use std::fs::File;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::keeper::tenant::Tenant;
use crate::keeper::words::{VERB_OF_SECOND, Words};
use crate::process::Anchor;
use crate::process::helper::HelperProgram;
use crate::records::instances;
use crate::records::instances::Keepers;
use crate::store::{Inner, Tx};
use crate::sys;
use crate::sys::{ProcessHandle, StartTime, supervise};

/// How often each of them looks whether its process was moved to another cgroup.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// What wakes a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeeperEvent {
    /// The process that it stands for has ended.
    ProcessEnded,
    /// The other one of the pair has ended.
    PartnerEnded,
    /// Its service manager ends it.
    AskedToEnd,
    /// Something was committed to the store.
    Committed,
}

/// What reaches a keeper, and who sends it.
pub(crate) struct KeeperInbox {
    sender: Sender<KeeperEvent>,
    events: Receiver<KeeperEvent>,
    /// The signal thread, for as long as we live.
    _catcher: Option<sys::signals::Catcher>,
}

impl KeeperInbox {
    /// Hears of the end of `process`, and of requests to end.
    pub(crate) fn new(process: &Arc<ProcessHandle>) -> Self {
        let (sender, events) = mpsc::channel();
        let on_signal = sender.clone();
        let catcher = supervise::catch_request_to_end(move || {
            let _ = on_signal.send(KeeperEvent::AskedToEnd);
        });
        let inbox = Self { sender, events, _catcher: catcher.ok() };
        inbox.tell_of_end(Arc::clone(process), KeeperEvent::ProcessEnded);
        inbox
    }

    /// What tells it of commits.
    pub(crate) fn on_commit(&self) -> impl FnMut() + Send + 'static {
        let sender = self.sender.clone();
        move || {
            let _ = sender.send(KeeperEvent::Committed);
        }
    }

    /// The next event, within `timeout`.
    pub(crate) fn next(&self, timeout: Duration) -> Option<KeeperEvent> {
        match self.events.recv_timeout(timeout) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // We hold a sender ourselves.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(timeout);
                None
            }
        }
    }

    /// Sends `event` once `process` has ended. Where no thread can be had the keeper looks by
    /// itself, only less often.
    fn tell_of_end(&self, process: Arc<ProcessHandle>, event: KeeperEvent) {
        const WAIT: Duration = Duration::from_hours(1);
        let sender = self.sender.clone();
        let wait = move || {
            while !process.wait_ended(WAIT) {}
            let _ = sender.send(event);
        };
        let named = std::thread::Builder::new().name("incumbent-end".to_owned());
        if let Err(error) = named.spawn(wait) {
            tracing::debug!(%error, "the end of a process is noticed a little later");
        }
    }
}

/// The pair, as its first process sees it.
pub(crate) struct Pair {
    pub(crate) inbox: KeeperInbox,
    /// As the second one is started.
    arguments: Vec<OsString>,
    /// The file that both hold: of one that has to be made again, another second one has to be
    /// started.
    anchor: Option<Shared>,
    second: Option<Second>,
    follow_at: Deadline,
}

struct Shared {
    name: String,
    file: File,
}

struct Second {
    child: std::process::Child,
    handle: Option<Arc<ProcessHandle>>,
    start_time: Option<StartTime>,
}

impl Pair {
    /// `arguments` are those of the keeper, without its verb.
    pub(crate) fn new(inbox: KeeperInbox, arguments: Vec<OsString>) -> Self {
        Self {
            inbox,
            arguments,
            anchor: None,
            second: None,
            follow_at: Deadline::after(Duration::ZERO),
        }
    }

    /// The pair of which the first was killed; `file` is the anchor `name`, which we hold.
    pub(crate) fn left_alone(
        inbox: KeeperInbox,
        arguments: Vec<OsString>,
        name: &str,
        file: File,
    ) -> Self {
        let mut pair = Self::new(inbox, arguments);
        pair.anchor = Some(Shared { name: name.to_owned(), file });
        pair.start_second();
        pair
    }

    /// Sees to it that there are two, which hold `anchor`. True when that has changed.
    pub(crate) fn complete(&mut self, anchor: &Anchor) -> bool {
        let has_anchor = self.anchor.as_ref().is_some_and(|it| it.name == anchor.name());
        if !has_anchor {
            self.end_second();
            self.anchor = anchor
                .share()
                .map(|file| Shared { name: anchor.name().to_owned(), file })
                .map_err(|error| tracing::debug!(%error, "the anchor cannot be shared"))
                .ok();
        }
        if self.has_second() {
            return false;
        }
        self.start_second();
        true
    }

    /// The second one is to know this of their process, too: where it does not, another one has to
    /// be started.
    pub(crate) fn pass_on(&mut self, tenant: &Tenant) {
        let Some((mut words, None)) = Words::parse(&self.arguments) else { return };
        words.tenant = Some(tenant.clone());
        let arguments = words.to_arguments();
        if arguments != self.arguments {
            self.arguments = arguments;
            self.end_second();
        }
    }

    /// Sees to it that there are two while the store cannot be opened.
    pub(crate) fn complete_again(&mut self) {
        if !self.has_second() {
            self.start_second();
        }
    }

    /// Whether the second one lives; the status of one that has ended is collected.
    fn has_second(&mut self) -> bool {
        let Some(second) = &mut self.second else { return false };
        if matches!(second.child.try_wait(), Ok(None)) {
            return true;
        }
        self.second = None;
        false
    }

    fn start_second(&mut self) {
        if planted(Fault::KeeperAlone) {
            return;
        }
        let Some(Shared { name, file }) = &self.anchor else { return };
        let mut arguments: Vec<OsString> = vec![VERB_OF_SECOND.into()];
        arguments.extend(self.arguments.iter().cloned());
        arguments.extend(["--anchor".into(), name.into()]);
        arguments.extend(["--first".into(), std::process::id().to_string().into()]);
        let program = HelperProgram::find().map_err(std::io::Error::other);
        let spawned = program.and_then(|program| {
            supervise::spawn_second_keeper(program.command(), &arguments, file)
        });
        match spawned {
            Ok(child) => {
                let pid = child.id();
                // Ours, and not collected: nobody else has this pid.
                let handle = ProcessHandle::open(pid).ok().map(Arc::new);
                if let Some(handle) = &handle {
                    self.inbox.tell_of_end(Arc::clone(handle), KeeperEvent::PartnerEnded);
                }
                let start_time = sys::process_facts(pid).start_time;
                self.second = Some(Second { child, handle, start_time });
            }
            // One is better than none, and the next look tries again.
            Err(error) => tracing::debug!(%error, "there is one keeper only"),
        }
    }

    /// Writes the two down in all rows that lean on our anchor.
    pub(crate) fn record(&self, inner: &Inner, tx: &Tx<'_>) -> crate::error::Result<()> {
        let Some(anchor) = &self.anchor else { return Ok(()) };
        let observer = inner.observer();
        let keepers = Keepers {
            first: (observer.pid, observer.start_time, observer.number),
            second: self.second.as_ref().map(|second| (second.child.id(), second.start_time)),
        };
        instances::set_keepers(tx, &anchor.name, &keepers)
    }

    /// The pid of the second one.
    pub(crate) fn second_pid(&self) -> Option<sys::Pid> {
        self.second.as_ref().map(|second| second.child.id())
    }

    /// Moves to the cgroup of `process`, if it is time for that.
    pub(crate) fn follow(&mut self, process: sys::Pid) {
        if self.follow_at.has_passed() {
            self.follow_at = Deadline::after(FOLLOW_EVERY);
            let _ = supervise::follow_to_cgroup(process);
        }
    }

    /// Ends the second one, because there is nothing to keep any more.
    pub(crate) fn end_second(&mut self) {
        if let Some(mut second) = self.second.take() {
            let _ = match &second.handle {
                Some(handle) => handle.kill(),
                None => second.child.kill(),
            };
            let _ = second.child.wait();
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.end_second();
    }
}

/// What the second one waits for; true when it is to take the place of the first.
pub(crate) fn wait_as_second(
    inbox: &KeeperInbox,
    process: (sys::Pid, &ProcessHandle),
    first: &Arc<ProcessHandle>,
) -> bool {
    inbox.tell_of_end(Arc::clone(first), KeeperEvent::PartnerEnded);
    loop {
        if process.1.has_ended() {
            return false;
        }
        if first.has_ended() {
            return true;
        }
        let _ = supervise::follow_to_cgroup(process.0);
        // A request to end is the first one's affair: it is asked as well, or goes on.
        let _ = inbox.next(FOLLOW_EVERY);
    }
}
