//! A signal for the holder of an office that is no request to end: to reload, to rotate, to dump.

use std::io;
use std::time::Duration;

use serde_json::json;

use crate::claim::aside::trust_in;
use crate::claim::sweep::Force;
use crate::liveness::{ChildState, Judgement, Lease, Ruling};
use crate::office::profile::Profile;
use crate::office::takeover::pursuit::is_of_another_store;
use crate::owner::{look, older};
use crate::patience::with_budget;
use crate::records::events::EventRecord;
use crate::records::profiles::check_home;
use crate::records::{Record, identities, instances};
use crate::status::answer;
use crate::store::Inner;
use crate::sys::{Pid, Proven, Unproven};
use crate::{Error, ErrorKind, Holder, InstanceId, Kind, Office, Reason, Result, owner, sys};

/// How long a busy store may delay the note of a signal that was sent.
const NOTE_WITHIN: Duration = Duration::from_millis(250);

/// Those that end or stop a process by design, which is a matter of [`Profile::stop`].
const ENDS_OR_STOPS: [&str; 8] =
    ["SIGTERM", "SIGINT", "SIGQUIT", "SIGKILL", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"];

/// What came of [`Profile::signal`].
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it may not have been sent"]
pub enum Signalled {
    /// It was sent. What came of it there is not known.
    Sent {
        /// The generation of the holder.
        instance: InstanceId,
        /// The process that got it: the command of a `run`, else the recorded one.
        pid: Pid,
    },
    /// Nobody is running.
    NotRunning,
    /// Nobody holds the office, but the holder of this one serves its profile: nothing was sent.
    Served(Office),
    /// The holder was not signalled; why, as a clause for people.
    NotSent(Box<Holder>, String),
    /// This process of the holder does nothing about the signal, which would have ended it: nothing
    /// was sent.
    WouldEnd(Box<Holder>, Pid),
}

impl Signalled {
    /// Whether a signal, by its number, may be sent at all.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput), as [`Profile::signal`] says it.
    pub fn check(signal: i32) -> Result<()> {
        checked_name(signal).map(drop)
    }
}

impl Profile {
    /// Sends a signal, by its number, to whoever holds the office of `kind`: of a `run` to its
    /// command alone, which gets it once. The process is pinned and proven first, as for a stop.
    /// `by` names who sends it, for the event `signal_sent`; where the store cannot be written, it
    /// is sent without.
    ///
    /// A process that does nothing about the signal would end by it: nothing is sent to that one
    /// where the kernel tells (Linux). One that was started a moment ago may not have come to that
    /// yet.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::stop::Signalled;
    /// use incumbent::{ErrorKind, Kind};
    ///
    /// let (work, kind) = (store.profile("work")?, Kind::default());
    /// const SIGHUP: i32 = 1;
    /// assert!(matches!(work.signal(&kind, SIGHUP, "alice")?, Signalled::NotRunning));
    /// const SIGTERM: i32 = 15;
    /// let error = work.signal(&kind, SIGTERM, "alice").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidInput);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Platform
    /// [`Unsupported`](ErrorKind::Unsupported) on Windows, which has no signals, once somebody
    /// holds the office. macOS, and Linux before 5.3, have no pidfd: there the start time is
    /// compared right before.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for TERM, INT, QUIT, KILL, STOP, TSTP, TTIN and
    /// TTOU, and for a number without a name;
    /// [`ProfileBelongsTo`](ErrorKind::ProfileBelongsTo) for another home; and those of
    /// [`Profile::status_of`].
    pub fn signal(&self, kind: &Kind, signal: i32, by: &str) -> Result<Signalled> {
        let inner = &self.store().inner;
        inner.check_process()?;
        let name = checked_name(signal)?;
        let office = self.office(kind);
        let on_record = inner.read(|connection| {
            check_home(connection, &office, self.home())?;
            owner::live(connection, &office)
        })?;
        let Some(record) = on_record else { return Ok(nobody(inner, &office)) };
        let judged = inner.with_clear_sight(|| Ok(look(inner, &record, Lease::None)))?;
        let proven = match judged.ruling {
            Ruling::Dead(_) => return Ok(nobody(inner, &office)),
            Ruling::Unknown(_) => {
                let why = "it is unknown whether it is alive".to_owned();
                let holder = Holder::of(&record, &office, &judged);
                return Ok(Signalled::NotSent(Box::new(holder), why));
            }
            // Never the `run` in its place: that would pass it on, or end by it.
            Ruling::Alive(_)
                if record.is_run
                    && judged.evidence.is_here()
                    && judged.evidence.child != ChildState::Alive =>
            {
                let why = "its command is not running now".to_owned();
                let holder = Holder::of(&record, &office, &judged);
                return Ok(Signalled::NotSent(Box::new(holder), why));
            }
            Ruling::Alive(_) => prove(inner, &record, &judged),
        };
        if let Ok(proven) = &proven
            && proven.ends_by(signal)
        {
            let holder = Holder::of(&record, &office, &judged);
            return Ok(Signalled::WouldEnd(Box::new(holder), proven.pid()));
        }
        let sent = proven.and_then(|proven| match proven.send(signal) {
            Ok(()) => Ok(Ok(proven.pid())),
            Err(_) if proven.has_ended() => Err(Unproven::Gone),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(Err(error)),
            Err(error) => Err(Unproven::Denied(error.to_string())),
        });
        match sent {
            Ok(Ok(pid)) => {
                note(inner, &office, &record, pid, (signal, &name), by);
                Ok(Signalled::Sent { instance: record.id, pid })
            }
            Ok(Err(_)) => {
                Err(Error::new(ErrorKind::Unsupported, "there are no signals on this platform")
                    .with_hint("leave a marker for it"))
            }
            Err(why) => Ok(not_sent(&record, &office, &judged, &why)),
        }
    }
}

/// The name of a signal that may be sent.
fn checked_name(signal: i32) -> Result<String> {
    let name = sys::signal_name(signal);
    if !name.starts_with("SIG") {
        return Err(Error::invalid(format!("there is no signal {signal} here"))
            .with_hint("use a signal that has a name: HUP, USR1, USR2, ..."));
    }
    if ENDS_OR_STOPS.contains(&name.as_str()) {
        return Err(Error::invalid(format!(
            "{name} is not sent: it ends or stops a gateway, and that would look like a crash"
        ))
        .with_hints(
            "call `Profile::stop`, which records a planned stop",
            "`incumbent stop` ends it, and records a planned stop",
        ));
    }
    Ok(name)
}

fn nobody(inner: &Inner, office: &Office) -> Signalled {
    let server = answer::server_of(inner, office);
    server.map_or(Signalled::NotRunning, |(by, _)| Signalled::Served(by))
}

/// The command of a `run`, else the process itself.
fn prove(inner: &Inner, record: &Record, judged: &Judgement) -> Result<Proven, Unproven> {
    let trust = trust_in(inner, record, Force::No);
    if older::has_let_go(record) {
        Err(Unproven::Gone)
    } else if is_of_another_store(inner, record) {
        Err(Unproven::Copied)
    } else if !judged.evidence.is_here() {
        Err(Unproven::Elsewhere)
    } else if judged.evidence.child == ChildState::Alive {
        record.prove_child(&trust)
    } else {
        record.prove_process(&trust)
    }
}

fn not_sent(record: &Record, office: &Office, judged: &Judgement, why: &Unproven) -> Signalled {
    let holder = Holder {
        reason: Reason::CannotSignal,
        is_our_ancestor: *why == Unproven::Ancestor,
        ..Holder::of(record, office, judged)
    };
    Signalled::NotSent(Box::new(holder), format!("it cannot be signalled: {why}"))
}

/// Leaves on record who sent it. It is sent already, whatever becomes of that.
fn note(
    inner: &Inner,
    office: &Office,
    record: &Record,
    pid: Pid,
    (number, signal): (i32, &str),
    by: &str,
) {
    let by = identities::presentable(inner, by);
    let noted = with_budget(NOTE_WITHIN, || {
        inner.write(|tx| {
            tx.record(&EventRecord {
                event: "signal_sent",
                office: Some(office),
                instance: Some(record.id),
                pid: Some(pid),
                detail: Some(json!({"signal": signal, "by": by})),
                ..EventRecord::default()
            })?;
            instances::name_sender(tx, record.id, number, &by)
        })
    });
    if let Err(error) = noted {
        tracing::debug!(%error, signal, "it is not on record that a signal was sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_gateway_is_not_sent() {
        // Windows has only some of them.
        let numbers = |words: &[&str]| {
            words.iter().filter_map(|word| sys::signal_number(word)).collect::<Vec<_>>()
        };
        for signal in numbers(&["TERM", "INT", "QUIT", "KILL", "STOP", "TSTP"]) {
            let error = Signalled::check(signal).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.command_line_hint().unwrap().contains("`incumbent stop`"));
        }
        for signal in [0, -1, 127, i32::MAX] {
            assert!(checked_name(signal).is_err(), "{signal}");
        }
        for signal in numbers(&["HUP", "USR1", "USR2", "WINCH", "CONT"]) {
            Signalled::check(signal).unwrap();
        }
    }
}
