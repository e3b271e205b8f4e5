//! What can be seen at the moment in which somebody asks a process to end.

pub(crate) mod line;
pub(crate) mod process;
pub(crate) mod received;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::clock::{Clock, SystemClock, of_millis};
use crate::forensics::snapshot::line::Line;
use crate::forensics::snapshot::process::ProcessSummary;
use crate::forensics::snapshot::received::{ReceivedSignal, Sender};
use crate::forensics::{Fact, Unavailable, unavailable};
use crate::process::exit_code::ExitCause;
use crate::records::markers::Marker;
use crate::sys::{Pid, SignalOrigin, details};
use crate::{environment, sys};

/// Why a snapshot knows no markers, and is on record nowhere.
const NO_STORE: &str = "no store was asked";

/// Who asks this process to end, and what surrounds it. Each field is a value, or the reason why it
/// could not be had; taking it reads a dozen small files of `/proc`, starts no process, waits for
/// nobody and cannot fail.
///
/// ```
/// let snapshot = incumbent::forensics::snapshot(Some(15));
/// assert_eq!(snapshot.signal, "SIGTERM");
/// assert_eq!(snapshot.pid, std::process::id());
/// assert!(snapshot.to_log_line().starts_with("signal=SIGTERM under_systemd="));
/// assert_eq!(serde_json::to_value(&snapshot)?["self"]["pid"], std::process::id());
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # JSON
/// An object with sorted keys: the names of the fields, with `self` for `myself`, `ts` (seconds of
/// Unix time) and `ts_monotonic` (seconds since boot) for the two times, and `tracer_pid`. What
/// could not be read is `{"unavailable": "..."}`. Later versions may add others.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken: Unix microseconds, wall time.
    pub at_us: i64,
    /// The same on the clock that never steps and counts suspend: milliseconds since boot.
    pub at_boot_ms: i64,
    /// The signal by its name, `signal#99` for one that has none, `UNKNOWN` if there was none.
    pub signal: String,
    /// The signal by its number; `None` if there was none.
    pub signal_num: Option<i32>,
    /// Who sent it (siginfo), with what could be seen of that process.
    pub sender: Fact<Sender>,
    /// This process.
    pub pid: u32,
    /// Its parent; 0 for one that lives outside of this pid namespace.
    pub ppid: Fact<u32>,
    /// What can be seen of this process.
    pub myself: ProcessSummary,
    /// What can be seen of its parent.
    pub parent: Fact<ProcessSummary>,
    /// Whether it is the main process of a systemd service: the innermost unit of its cgroup is a
    /// service, and `SYSTEMD_EXEC_PID` names it or its parent is the manager. `INVOCATION_ID` alone
    /// proves nothing: every shell below a service has it.
    pub under_systemd: Fact<bool>,
    /// The variable `INVOCATION_ID`, where it is set.
    pub systemd_invocation_id: Option<String>,
    /// The variable `JOURNAL_STREAM`, where it is set.
    pub systemd_journal_stream: Option<String>,
    /// The innermost systemd unit of its cgroup, of whatever type.
    pub unit: Fact<Option<String>>,
    /// Its control group.
    pub cgroup: Fact<String>,
    /// The load average of the last minute.
    pub loadavg_1m: Fact<f64>,
    /// Who traces it (a debugger, strace); `None`: nobody.
    pub tracer: Fact<Option<ProcessSummary>>,
    /// Its memory, in bytes, and that of its control group; by name.
    pub memory: BTreeMap<&'static str, Fact<Value>>,
    /// What it may use, by name: `{"soft": n, "hard": n}`, "unlimited" for no limit.
    pub limits: BTreeMap<&'static str, Fact<Value>>,
    /// This boot of the machine.
    pub boot_id: Fact<String>,
    /// The open takeover of this process, or else of another incarnation of its profile.
    pub takeover_marker: Fact<Option<Marker>>,
    /// Whether that is this process'; `None` where there is none.
    pub takeover_marker_for_self: Fact<Option<bool>>,
    /// The open planned stop, alike.
    pub planned_stop_marker: Fact<Option<Marker>>,
    /// The id of its row in `shutdowns`, or why it was not written: only that of a signal is.
    pub recorded: Fact<i64>,
    /// Where the signal came from, if we caught it.
    origin: Option<SignalOrigin>,
}

/// Takes a snapshot for `signal`, which somebody else has caught: this process' own handler, or a
/// runtime. Who sent it cannot be known then; [`Tenure::on_shutdown`](crate::Tenure::on_shutdown)
/// knows it.
///
/// It asks no store: markers are unavailable, and nothing is recorded. See
/// [`Tenure::snapshot`](crate::Tenure::snapshot).
#[must_use]
pub fn snapshot(signal: Option<i32>) -> Snapshot {
    Snapshot::take(ReceivedSignal::ByOthers(signal))
}

impl Snapshot {
    /// Everything but what a store says.
    pub(crate) fn take(received: ReceivedSignal) -> Self {
        let (number, origin, sender) = match received {
            ReceivedSignal::ByUs(caught, sender) => {
                (Some(caught.number), Some(caught.origin), *sender)
            }
            ReceivedSignal::ByOthers(number) => {
                let why =
                    "the signal was not caught by incumbent, so the kernel did not name its sender";
                (number, None, unavailable(why))
            }
        };
        let pid = std::process::id();
        let (myself, seen) = ProcessSummary::look(pid);
        let parent_pid = details::own_parent().map_err(Unavailable::new);
        let parent = match &parent_pid {
            Ok(0) => unavailable("the parent lives outside of this pid namespace"),
            Ok(parent) => Ok(ProcessSummary::of(*parent)),
            Err(why) => Err(why.clone()),
        };
        let tracer = match seen.as_ref().map(|seen| seen.tracer) {
            Ok(Some(0)) => Ok(None),
            Ok(Some(tracer)) => Ok(Some(ProcessSummary::of(tracer))),
            Ok(None) => unavailable("the platform does not say"),
            Err(why) => unavailable(why.as_str()),
        };
        let cgroup = details::cgroup(pid);
        let parents_name = parent.as_ref().ok().map(|parent| parent.name.clone());
        Self {
            at_us: SystemClock.wall_us(),
            at_boot_ms: sys::boot_clock_ms(),
            signal: number.map_or_else(|| "UNKNOWN".to_owned(), sys::signal_name),
            signal_num: number,
            sender,
            pid,
            ppid: parent_pid,
            under_systemd: process::under_systemd(pid, &cgroup, parents_name.as_ref()),
            myself,
            parent,
            systemd_invocation_id: environment::text("INVOCATION_ID"),
            systemd_journal_stream: environment::text("JOURNAL_STREAM"),
            unit: cgroup.clone().map(|(_, unit)| unit).map_err(Unavailable::new),
            cgroup: cgroup.map(|(path, _)| path).map_err(Unavailable::new),
            loadavg_1m: details::load_average().map_err(Unavailable::new),
            tracer,
            memory: process::memory(pid, seen.as_ref()),
            limits: process::limits(),
            boot_id: sys::boot_id().ok_or_else(|| Unavailable::new("it cannot be read")),
            takeover_marker: unavailable(NO_STORE),
            takeover_marker_for_self: unavailable(NO_STORE),
            planned_stop_marker: unavailable(NO_STORE),
            recorded: unavailable(NO_STORE),
            origin,
        }
    }

    /// The signal's sender for people: `pid 4242 (bash deploy.sh), uid 1000`, or `a key at the
    /// terminal (/dev/pts/3)`.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn sender_in_words(&self) -> Fact<String> {
        received::in_words(&self.sender, received::is_key(self.origin, self.signal_num))
    }

    /// The same without any store: the fields that come from one are unavailable, and say `why`.
    #[must_use]
    pub fn without_store(mut self, why: impl Into<String>) -> Self {
        let why = Unavailable::new(why);
        self.takeover_marker = Err(why.clone());
        self.takeover_marker_for_self = Err(why.clone());
        self.planned_stop_marker = Err(why.clone());
        self.recorded = Err(why);
        self
    }

    /// What the signal means if nobody announced it; `None` if there was none.
    pub(crate) fn cause(&self) -> Option<ExitCause> {
        self.signal_num.map(|number| received::cause_of(self.origin, Some(number)))
    }

    /// Whether the signal may be a request to read the configuration again: SIGHUP, unless the
    /// kernel sent it for a terminal that is gone. A gateway that reloads goes on then, if by
    /// [`Shutdown::stop`](crate::forensics::Shutdown::stop) nobody wants it to end. Such a signal
    /// explains no end that comes later.
    ///
    /// ```
    /// let of_signal = |number| incumbent::forensics::snapshot(Some(number));
    /// assert_eq!(of_signal(1).may_mean_reload(), cfg!(unix));
    /// assert!(!of_signal(15).may_mean_reload());
    /// ```
    ///
    /// # Platform
    /// Windows: false. There a hang-up is the end of the console.
    #[must_use]
    pub fn may_mean_reload(&self) -> bool {
        self.signal_num.is_some_and(|signal| received::may_mean_reload(signal, self.origin))
    }

    /// Takes out of the command lines what is locked as an identity: `is_identity` knows it when it
    /// sees it.
    pub(crate) fn hide_identities(&mut self, is_identity: &dyn Fn(&str) -> bool) {
        let sender = self.sender.as_mut().ok().map(|sender| &mut sender.process);
        let tracer = self.tracer.as_mut().ok().and_then(Option::as_mut);
        let others = [self.parent.as_mut().ok(), sender, tracer].into_iter().flatten();
        for process in others.chain([&mut self.myself]) {
            process.hide_identities(is_identity);
        }
    }

    /// Everything but the id of its own row, which it gets only with that.
    pub(crate) fn to_stored_json(&self) -> Value {
        let mut document = self.document();
        if let Some(fields) = document.as_object_mut() {
            fields.shift_remove("recorded");
        }
        document
    }

    /// The pid of the sender, where the kernel named one.
    pub(crate) fn sender_pid(&self) -> Option<Pid> {
        self.sender.as_ref().ok().map(|sender| sender.process.pid)
    }

    /// One line for a log, with a fixed order of keys. What could not be had says why.
    #[must_use]
    pub fn to_log_line(&self) -> String {
        let mut line = Line::new();
        line.add("signal", &self.signal);
        line.fact("under_systemd", &self.under_systemd, |yes| {
            (if *yes { "yes" } else { "no" }).to_owned()
        });
        match &self.parent {
            Ok(parent) => {
                line.add("parent_pid", &parent.pid.to_string());
                line.fact("parent_name", &parent.name, Clone::clone);
            }
            Err(why) => line.add("parent_pid", &why.to_string()),
        }
        line.fact("loadavg_1m", &self.loadavg_1m, |load| format!("{load:.2}"));
        if let Ok(Some(for_self)) = self.takeover_marker_for_self {
            line.add("takeover_marker_present", if for_self { "self" } else { "other" });
        }
        if let Ok(Some(_)) = self.planned_stop_marker {
            line.add("planned_stop_marker_present", "yes");
        }
        if let Ok(Some(tracer)) = &self.tracer {
            line.add("tracer_pid", &tracer.pid.to_string());
        }
        if let Ok(parent) = &self.parent {
            line.fact("parent_cmdline", &parent.cmdline, Clone::clone);
        }
        match &self.sender {
            Ok(sender) => {
                line.add("sender_pid", &sender.process.pid.to_string());
                line.add("sender_uid", &sender.uid.to_string());
                line.fact("sender_cmdline", &sender.process.cmdline, Clone::clone);
            }
            Err(why) => line.add("sender", &why.to_string()),
        }
        if let Ok(Some(unit)) = &self.unit {
            line.add("unit", unit);
        }
        if let Err(why) = &self.recorded {
            line.add("recorded", &why.to_string());
        }
        line.text
    }

    /// The whole snapshot, with sorted keys: a value, or `{"unavailable": why}`.
    fn document(&self) -> Value {
        let seconds = |since: Duration| json!(since.as_secs_f64());
        let fields: BTreeMap<&str, Value> = BTreeMap::from([
            ("boot_id", line::shown(&self.boot_id)),
            ("cgroup", line::shown(&self.cgroup)),
            ("limits", line::group(&self.limits)),
            ("loadavg_1m", line::shown(&self.loadavg_1m)),
            ("memory", line::group(&self.memory)),
            ("parent", line::shown(&self.parent)),
            ("pid", json!(self.pid)),
            ("planned_stop_marker", line::shown(&self.planned_stop_marker)),
            ("ppid", line::shown(&self.ppid)),
            ("recorded", line::shown(&self.recorded)),
            ("self", json!(self.myself)),
            ("sender", line::shown(&self.sender)),
            ("signal", json!(self.signal)),
            ("signal_num", json!(self.signal_num)),
            ("systemd_invocation_id", json!(self.systemd_invocation_id)),
            ("systemd_journal_stream", json!(self.systemd_journal_stream)),
            ("takeover_marker", line::shown(&self.takeover_marker)),
            ("takeover_marker_for_self", line::shown(&self.takeover_marker_for_self)),
            ("tracer", line::shown(&self.tracer)),
            (
                "tracer_pid",
                line::shown(&self.tracer.as_ref().map(|tracer| tracer.as_ref().map(|it| it.pid))),
            ),
            ("ts", seconds(Duration::from_micros(self.at_us.unsigned_abs()))),
            ("ts_monotonic", seconds(of_millis(self.at_boot_ms))),
            ("under_systemd", line::shown(&self.under_systemd)),
            ("unit", line::shown(&self.unit)),
        ]);
        let mut document: Value =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        document.sort_all_objects();
        document
    }
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Caught;

    #[test]
    fn a_line_stays_one_line_whatever_its_values_are() {
        let mut line = Line::new();
        line.add("plain", "a/b-c,d(e)");
        line.add("empty", "");
        line.add("blank", "a b");
        line.add("forged", "x sender_pid=1");
        line.add("broken", "a\nb\u{2028}c\u{1b}[31m\"");
        line.fact("missing", &unavailable::<u32>("it has ended"), u32::to_string);
        assert_eq!(
            line.text,
            "plain=a/b-c,d(e) empty=\"\" blank=\"a b\" forged=\"x sender_pid=1\" \
             broken=\"a\\nb\\u{2028}c\\u{1b}[31m\\\"\" missing=\"unavailable: it has ended\""
        );
    }

    #[test]
    fn what_a_signal_means_by_its_sender() {
        let caught = |origin| Caught { number: 15, from_terminal: false, origin };
        let by = |pid| SignalOrigin::Process { pid, uid: 0, how: "kill" };
        let cause = |origin| Snapshot::take(ReceivedSignal::by_us(caught(origin))).cause();
        let parent = details::own_parent().unwrap();
        assert_eq!(cause(by(parent)), Some(ExitCause::SupervisorStop));
        assert_eq!(cause(by(std::process::id())), Some(ExitCause::Signalled));
        assert_eq!(cause(SignalOrigin::Elsewhere { uid: 0 }), Some(ExitCause::SupervisorStop));
        assert_eq!(cause(SignalOrigin::Kernel), Some(ExitCause::Signalled));
        // Ctrl-C in the foreground.
        let typed = Caught { number: 2, from_terminal: true, origin: SignalOrigin::Kernel };
        let typed = Snapshot::take(ReceivedSignal::by_us(typed));
        let is_key = sys::signals::is_of_a_key(2);
        assert_eq!(typed.cause() == Some(ExitCause::SupervisorStop), is_key);
        assert_eq!(typed.sender_in_words().is_ok_and(|by| by.contains("a key")), is_key);
        // Nobody knows who sent what somebody else has caught.
        assert_eq!(snapshot(Some(15)).cause(), Some(ExitCause::Signalled));
        assert_eq!(snapshot(None).cause(), None);
    }
}
