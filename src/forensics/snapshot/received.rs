//! The signal that was received, and who sent it.

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::forensics::snapshot::process::ProcessSummary;
use crate::forensics::{Fact, Unavailable, unavailable};
use crate::process::exit_code::ExitCause;
use crate::records::shutdowns::BY_A_KEY;
use crate::sys::{Caught, Pid, SignalOrigin, details, jobs, signals};

/// Why it cannot be known who sent a signal that somebody else has caught.
const NOT_CAUGHT: &str =
    "the signal was not caught by incumbent, so the kernel did not name its sender";

/// How we know of a signal.
#[derive(Clone, Debug)]
pub(crate) enum ReceivedSignal {
    /// We caught it, and looked at once at who sent it: whoever only sends one is about to end.
    ByUs(Caught, Box<Fact<Sender>>),
    /// Somebody else did, if there was one.
    ByOthers(Option<i32>),
}

impl ReceivedSignal {
    pub(crate) fn by_us(caught: Caught) -> Self {
        Self::ByUs(caught, Box::new(Sender::of(caught.origin, caught.number)))
    }

    fn origin(&self) -> Option<SignalOrigin> {
        match self {
            Self::ByUs(caught, _) => Some(caught.origin),
            Self::ByOthers(_) => None,
        }
    }

    /// The pid of the sender, where the kernel named one.
    pub(crate) fn sender_pid(&self) -> Option<Pid> {
        match self.origin() {
            Some(SignalOrigin::Process { pid, .. }) => Some(pid),
            _ => None,
        }
    }

    /// The sender for people, or why it is not known.
    pub(crate) fn sender_in_words(&self) -> Fact<String> {
        match self {
            Self::ByUs(caught, sender) => {
                in_words(sender, is_key(Some(caught.origin), Some(caught.number)))
            }
            Self::ByOthers(_) => unavailable(NOT_CAUGHT),
        }
    }

    /// What it means if nobody announced it.
    pub(crate) fn cause(&self) -> ExitCause {
        let number = match self {
            Self::ByUs(caught, _) => Some(caught.number),
            Self::ByOthers(number) => *number,
        };
        cause_of(self.origin(), number)
    }

    pub(crate) fn may_mean_reload(&self) -> bool {
        match self {
            Self::ByUs(Caught { number, origin, .. }, _) => may_mean_reload(*number, Some(*origin)),
            Self::ByOthers(number) => number.is_some_and(|number| may_mean_reload(number, None)),
        }
    }
}

/// Who sent a signal. In JSON the object of its process, with this `uid`, and `how`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sender {
    /// Its real user id, as the kernel gave it with the signal.
    pub uid: u32,
    /// By which call: `kill`, `tgkill`, `sigqueue`.
    pub how: &'static str,
    /// What could be seen of it. It may have ended since.
    pub process: ProcessSummary,
}

impl Sender {
    fn of(origin: SignalOrigin, signal: i32) -> Fact<Self> {
        match origin {
            SignalOrigin::Process { pid, uid, how } => {
                let (mut process, seen) = ProcessSummary::look(pid);
                // The pid may have been given to another process since.
                if seen.is_ok_and(|seen| seen.uid.is_some_and(|now| now != uid)) {
                    process = ProcessSummary::unknown(
                        pid,
                        &Unavailable::new("it has ended, and another process has its pid now"),
                    );
                }
                Ok(Self { uid, how, process })
            }
            SignalOrigin::Elsewhere { uid } => Err(Unavailable::new(format!(
                "the sender (uid {uid}) lives outside of this pid namespace, e.g. on the \
                 container's host"
            ))),
            // It sends this one when a terminal is closed, or its connection is lost.
            SignalOrigin::Kernel if signals::may_mean_reload(signal) => {
                unavailable("the terminal was closed")
            }
            SignalOrigin::Kernel => {
                unavailable("the kernel sent it, e.g. for a key that was typed at the terminal")
            }
            SignalOrigin::Unknown => unavailable("the platform does not say who sends a signal"),
        }
    }
}

/// The fields of the process, with what the kernel said of the sender.
impl Serialize for Sender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = json!(self.process);
        document["uid"] = json!(self.uid);
        document["how"] = json!(self.how);
        document.serialize(serializer)
    }
}

/// Whether somebody pressed Ctrl-C or Ctrl-\ in the foreground: whoever sits there has started it,
/// and ends it.
pub(super) fn is_key(origin: Option<SignalOrigin>, signal: Option<i32>) -> bool {
    origin == Some(SignalOrigin::Kernel) && signal.is_some_and(signals::is_of_a_key)
}

/// What a signal means if nobody announced it, by where it came from.
pub(super) fn cause_of(origin: Option<SignalOrigin>, signal: Option<i32>) -> ExitCause {
    match origin {
        _ if is_key(origin, signal) => ExitCause::SupervisorStop,
        Some(SignalOrigin::Process { pid, .. }) if details::own_parent() == Ok(pid) => {
            ExitCause::SupervisorStop
        }
        // From outside of a container, which is how `docker stop` arrives; or nobody says
        // (Windows).
        Some(SignalOrigin::Elsewhere { .. } | SignalOrigin::Unknown) => ExitCause::SupervisorStop,
        Some(SignalOrigin::Process { .. } | SignalOrigin::Kernel) | None => ExitCause::Signalled,
    }
}

/// Whether a signal may be a request to read the configuration again. What the kernel sends when a
/// terminal is closed is none.
pub(super) fn may_mean_reload(signal: i32, origin: Option<SignalOrigin>) -> bool {
    signals::may_mean_reload(signal) && origin != Some(SignalOrigin::Kernel)
}

pub(super) fn in_words(sender: &Fact<Sender>, is_key: bool) -> Fact<String> {
    if is_key {
        return Ok(match jobs::terminal() {
            Some(name) => format!("{BY_A_KEY} ({name})"),
            None => BY_A_KEY.to_owned(),
        });
    }
    let Sender { uid, process, .. } = sender.as_ref().map_err(Clone::clone)?;
    let command = match (&process.cmdline, &process.name) {
        (Ok(command), _) => command.clone(),
        (Err(_), Ok(name)) => name.clone(),
        (Err(why), Err(_)) => format!("not seen: {}", why.why()),
    };
    Ok(format!("pid {} ({command}), uid {uid}", process.pid))
}
