//! What a run with its command consists of.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Deadline;
use crate::owner::family::Kin;
use crate::process::command_lock::LockFile;
use crate::process::descendants::LeftOver;
use crate::process::older::hold::Hold;
use crate::records::markers::Marker;
use crate::run::beside::Beside;
use crate::run::inbox::{Signalled, Watched};
use crate::run::notice::Notice;
use crate::run::plan::Run;
use crate::run::start::{Child, Leash, Started};
use crate::status::slept::Asleep;
use crate::store::listener::Listener;
use crate::store::watcher::{Version, Watcher};
use crate::sys::{ChildEnd, Pid, StartTime};
use crate::{Error, Store, Tenure, state};

/// Between two full verifications; in between only what costs next to nothing is looked at.
pub(super) const VERIFY_EVERY: Duration = Duration::from_secs(1);

/// How long a look may wait for the store's locks; what it could not see it looks at again.
pub(super) const LOOK_BUDGET: Duration = Duration::from_millis(200);

/// A run with its command.
pub(super) struct Supervised<'a> {
    /// First, so that it is dropped before the tenure.
    pub(super) leash: Leash,
    pub(super) run: &'a Run,
    pub(super) store: Store,
    /// `None` once its files were lost: open, they would stand in the way of the next store.
    pub(super) watcher: Option<Arc<Watcher>>,
    /// Tells the inbox of commits.
    pub(super) listener: Option<Listener>,
    pub(super) seen_version: Option<Version>,
    /// The lock of the older program. It goes before the tenure: whoever gets that one next must
    /// not meet us behind it.
    pub(super) hold: Option<Hold>,
    pub(super) tenure: Tenure,
    pub(super) life: Life,
    /// What the command locks, for as long as the row says that it does.
    pub(super) lock_file: Option<LockFile>,
    pub(super) lock_watched: Watched,
    pub(super) beside: Beside,
    pub(super) verify_at: Deadline,
    /// The last signal that asked to end; it counts for as long as a stop may take.
    pub(super) asked: Option<AskedEnd>,
    pub(super) ending: Option<Ending>,
    pub(super) doubt_told: bool,
    pub(super) unseen: Option<Unseen>,
    /// The command, and those whose place it took.
    pub(super) kin: Vec<Kin>,
    /// What commands have left outside of their sessions, and was told of.
    pub(super) left_alone: Vec<LeftOver>,
    /// Who takes the place of the command when that ends, by its own word.
    pub(super) main: Option<MainProcess>,
    /// Commands that have ended, and are not collected before the row names who took their place.
    pub(super) uncollected: Vec<Pid>,
    pub(super) asleep: Asleep,
    /// How it is listened for signs of life.
    pub(super) attention: Attention,
}

/// The command.
#[derive(Debug)]
pub(super) enum Life {
    Running(Child),
    /// It was reaped: its pid may be another process's by now, and is neither signalled nor
    /// recorded.
    Ended,
    /// The same, and it is to be started again.
    Between(Box<Pause>),
}

/// The time between two commands. What cannot be recorded is tried again, less and less often: each
/// attempt forks.
#[derive(Debug)]
pub(super) struct Pause {
    pub(super) ended: ChildEnd,
    pub(super) restart: Marker,
    pub(super) retry_at: Deadline,
    pub(super) retry_after: Duration,
    pub(super) is_told: bool,
}

/// Whether a command that has ended has a successor could not be told: then its end is not put on
/// record, which would end a successor as well.
pub(super) struct Unseen {
    pub(super) before: Child,
    pub(super) error: Error,
}

/// A process that says that it is the main one of the command, as long as it is the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct MainProcess {
    pub(super) pid: Pid,
    pub(super) start_time: StartTime,
}

/// How long the run has listened for signs of life of its command, on a clock that stands still
/// while the machine is suspended.
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "each says its unit")]
pub(super) struct Attention {
    /// Without a pause that is worth the name.
    pub(super) since_ms: i64,
    pub(super) looked_at_ms: i64,
    /// When the command was first seen to be unresponsive, and was at every look since.
    pub(super) seen_at_ms: Option<i64>,
}

/// A signal that asked to end.
pub(super) struct AskedEnd {
    pub(super) signal: Signalled,
    pub(super) until: Deadline,
    /// It is nobody's wish any more; the command has it, and may still follow.
    pub(super) is_withdrawn: bool,
    /// Where our supervisor asked, and may wait for ever.
    pub(super) last_call: Option<LastCall>,
}

/// The command is killed when its time to stop is over; half of that before, it is said.
pub(super) struct LastCall {
    pub(super) tell_at: Deadline,
    pub(super) kill_at: Deadline,
    pub(super) is_told: bool,
    pub(super) is_over: bool,
}

/// The command is being ended.
pub(super) struct Ending {
    pub(super) why: Why,
    pub(super) kill_at: Deadline,
    pub(super) killed: bool,
    /// The signal of the same request is still to come: the command has been asked in its place.
    pub(super) echo: bool,
}

/// What the command is being ended for.
pub(super) enum Why {
    /// The office was lost.
    Lost,
    /// Somebody takes the office over, or stops us.
    End(Marker),
    /// To be started again.
    Restart(Marker),
}

impl Why {
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost)
    }
}

impl<'a> Supervised<'a> {
    pub(super) fn new(
        run: &'a Run,
        store: Store,
        watcher: Watcher,
        tenure: Tenure,
        hold: Option<Hold>,
        started: Started,
        beside: Beside,
    ) -> Self {
        if let Some(hold) = &hold {
            hold.say(state::RUNNING);
        }
        Self {
            asleep: Asleep::now(&store.inner),
            attention: Attention::now(&store.inner),
            leash: started.leash,
            run,
            store,
            watcher: Some(Arc::new(watcher)),
            listener: None,
            seen_version: None,
            tenure,
            hold,
            life: Life::Running(started.child),
            lock_file: started.lock_file,
            lock_watched: Watched::No,
            beside,
            verify_at: Deadline::after(VERIFY_EVERY),
            asked: None,
            ending: None,
            doubt_told: false,
            unseen: None,
            kin: started.kin.into_iter().collect(),
            left_alone: Vec::new(),
            main: None,
            uncollected: Vec::new(),
        }
    }

    pub(super) fn tell(&self, notice: &Notice<'_>) {
        (self.run.tell)(notice);
    }

    pub(super) fn child(&self) -> Option<Child> {
        match self.life {
            Life::Running(child) => Some(child),
            Life::Ended | Life::Between(_) => None,
        }
    }

    /// Whether a signal has asked for an end, not too long ago.
    pub(super) fn is_asked_to_end(&self) -> bool {
        self.asked.as_ref().is_some_and(AskedEnd::stands)
    }
}

impl AskedEnd {
    /// Whether an end is still expected of it: not for ever, and not if it was a request to reload.
    pub(super) fn stands(&self) -> bool {
        !self.is_withdrawn && self.may_be_followed()
    }

    fn may_be_followed(&self) -> bool {
        !self.signal.may_mean_reload && !self.until.has_passed()
    }

    pub(super) fn explains(&self, end: ChildEnd) -> bool {
        let is_it = end == ChildEnd::Signalled(self.signal.number);
        self.may_be_followed() || (is_it && !self.until.has_passed())
    }
}

pub(super) fn command_lock_is_held(store: &Store, file: Option<&LockFile>) -> bool {
    let (Some(file), Some(anchor)) = (file, store.inner.own_anchor()) else { return false };
    file.is_held(&anchor)
}
