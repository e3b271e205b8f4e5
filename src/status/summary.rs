//! An end in a few words, so that a crash is told from a success wherever an end is shown.

use crate::environment::{Fault, planted};
use crate::sys::signals;
use crate::words::words;
use crate::{Reason, sys};

/// SIGKILL, and what stands for it elsewhere.
const KILL: i32 = 9;

words! {
    /// The kinds of ends that a person acts on in different ways. In JSON its word.
    #[non_exhaustive]
    pub enum Manner {
        /// It failed by itself.
        Crashed = "crashed",
        /// SIGKILL ended it, and nobody said why.
        Killed = "killed",
        /// The kernel killed it, because memory had run out.
        OutOfMemory = "out_of_memory",
        /// Nobody saw how: it was killed, or it crashed.
        Unseen = "unseen",
        /// Somebody asked for it.
        Asked = "asked",
        /// It ended by itself with success, or by a signal that asks to end.
        Ended = "ended",
    }
}

/// How an end of this reason, exit code and signal is to be taken.
pub(super) fn manner(reason: &Reason, exit_code: Option<i32>, signal: Option<i32>) -> Manner {
    match reason {
        Reason::Crashed | Reason::Panicked => Manner::Crashed,
        Reason::OomSuspected => Manner::OutOfMemory,
        Reason::PlannedStop
        | Reason::TakenOver
        | Reason::Evicted
        | Reason::ReExecuted
        | Reason::HandedOver => Manner::Asked,
        Reason::Signalled if signal == Some(KILL) => Manner::Killed,
        Reason::Exited | Reason::Released => match exit_code {
            Some(code) if code != 0 => Manner::Crashed,
            Some(_) | None => Manner::Ended,
        },
        _ if reason.is_found_dead() => match (exit_code, signal) {
            (Some(0), _) => Manner::Ended,
            (Some(_), _) => Manner::Crashed,
            (None, Some(KILL)) => Manner::Killed,
            (None, Some(signal)) if signals::is_fault(signal) => Manner::Crashed,
            (None, Some(_)) => Manner::Ended,
            (None, None) => Manner::Unseen,
        },
        _ => Manner::Ended,
    }
}

/// Whether the time of such an end is only that at which it was noticed. `is_seen`: somebody else
/// has noted when he saw it. What then explains it does not say when it was; whoever was asked to
/// end was waited for; and where the kernel told how it ended, that was to somebody who waited.
pub(super) fn was_found(reason: &Reason, manner: Manner, is_seen: bool) -> bool {
    let is_explained =
        matches!(reason, Reason::Signalled | Reason::Panicked | Reason::OomSuspected);
    manner == Manner::Unseen || *reason == Reason::Rebooted || (is_seen && is_explained)
}

/// The end in a few words: `crashed: exit code 1`, `killed: SIGKILL, out of memory`.
pub(crate) fn summary(reason: &Reason, exit_code: Option<i32>, signal: Option<i32>) -> String {
    let with_code = |text: &str| match exit_code {
        Some(code) if code != 0 => format!("{text}, {}", code_in_words(code)),
        Some(_) | None => text.to_owned(),
    };
    let asked = |text: &str| match signal {
        Some(KILL) => format!("{text}, with SIGKILL"),
        Some(_) | None => with_code(text),
    };
    match reason {
        Reason::OomSuspected => {
            format!("killed: {}, out of memory", sys::signal_name(signal.unwrap_or(KILL)))
        }
        Reason::Panicked => with_code("crashed: panic"),
        Reason::Crashed => match (signal, exit_code) {
            (Some(signal), _) => format!("crashed: {}", sys::signal_name(signal)),
            (None, Some(code)) => format!("crashed: {}", code_in_words(code)),
            (None, None) => "crashed".to_owned(),
        },
        Reason::PlannedStop => asked("stopped on purpose"),
        Reason::TakenOver => asked("taken over"),
        // It let go in its `trap`, and its exit code came after that.
        Reason::Released => match exit_code {
            Some(code) if code != 0 => format!("crashed: {}", code_in_words(code)),
            Some(_) | None => "released".to_owned(),
        },
        Reason::Evicted => "its record was ended by hand".to_owned(),
        Reason::ReExecuted => "became another program".to_owned(),
        Reason::HandedOver => "handed over to its successor".to_owned(),
        Reason::StoreReplaced => "its store was deleted or replaced".to_owned(),
        Reason::Rebooted => "the machine was restarted".to_owned(),
        Reason::Signalled => match (signal, exit_code) {
            (Some(KILL), None) => "killed: SIGKILL".to_owned(),
            (Some(signal), Some(code)) => {
                format!("ended by {}, {}", sys::signal_name(signal), code_in_words(code))
            }
            (Some(signal), None) => format!("ended by {}", sys::signal_name(signal)),
            (None, _) => with_code("ended by a signal"),
        },
        Reason::Exited => by_how(exit_code, signal, "ended"),
        _ if reason.is_found_dead() => by_how(exit_code, signal, "killed or crashed"),
        _ => reason.in_words(),
    }
}

/// What the kernel says of an end, else `unknown`.
fn by_how(exit_code: Option<i32>, signal: Option<i32>, unknown: &str) -> String {
    match (exit_code, signal) {
        (Some(0), _) => "ended: exit code 0".to_owned(),
        (Some(_), _) if planted(Fault::CrashIsSuccess) => "ended: exit code 0".to_owned(),
        (Some(code), _) => format!("crashed: {}", code_in_words(code)),
        (None, Some(KILL)) => "killed: SIGKILL".to_owned(),
        (None, Some(signal)) if signals::is_fault(signal) => {
            format!("crashed: {}", sys::signal_name(signal))
        }
        (None, Some(signal)) => format!("ended by {}", sys::signal_name(signal)),
        (None, None) => unknown.to_owned(),
    }
}

/// What a shell says by some codes is said in words.
fn code_in_words(code: i32) -> String {
    match code {
        126 => "exit code 126 (the command cannot be executed)".to_owned(),
        127 => "exit code 127 (command not found)".to_owned(),
        129..=159 => format!("exit code {code} (as after {})", sys::signal_name(code - 128)),
        _ => format!("exit code {code}"),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::store::migrate::{SCHEMA_VERSION, in_memory};

    /// Those that have the same number on every system.
    const SIGNALS: [i32; 12] = [1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 14, 15];

    /// The view `incarnations` has these words in SQL. They stay the same.
    #[test]
    fn the_view_says_the_same() {
        let connection = in_memory(SCHEMA_VERSION).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let codes = [0, 1, 2, 64, 77, 125, 126, 127, 128, 255].into_iter();
        let codes = codes.chain(SIGNALS.map(|signal| 128 + signal)).map(Some).chain([None]);
        let signals = || SIGNALS.into_iter().chain([64, 99]).map(Some).chain([None]);
        let mut reasons: Vec<Reason> = Reason::ALL.to_vec();
        reasons.push(Reason::from("of_a_later_version".to_owned()));
        let sql = "REPLACE INTO instances (id, profile, kind, origin, pid, nonce_hash, \
                   stop_budget_ms, started_at_ms, ended_at_ms, end_reason, exit_code, signal) \
                   VALUES (1, 'p', 'k', 'run', 1, '', 1, 1, 2, ?1, ?2, ?3)";
        let mut end = connection.prepare(sql).unwrap();
        let mut told = connection.prepare("SELECT summary FROM incarnations").unwrap();
        for reason in reasons {
            for exit_code in codes.clone() {
                for signal in signals() {
                    end.execute((reason.as_str(), exit_code, signal)).unwrap();
                    let said: String = told.query_row([], |row| row.get(0)).unwrap();
                    let expected = summary(&reason, exit_code, signal);
                    assert_eq!(said, expected, "{reason}, {exit_code:?}, {signal:?}");
                }
            }
        }
    }

    #[test]
    fn a_crash_is_told_from_a_success() {
        for (reason, exit_code, signal, text, how) in [
            (Reason::Exited, Some(0), None, "ended: exit code 0", Manner::Ended),
            (Reason::Exited, Some(1), None, "crashed: exit code 1", Manner::Crashed),
            (
                Reason::Exited,
                Some(127),
                None,
                "crashed: exit code 127 (command not found)",
                Manner::Crashed,
            ),
            (
                Reason::Exited,
                Some(137),
                None,
                "crashed: exit code 137 (as after SIGKILL)",
                Manner::Crashed,
            ),
            (Reason::Crashed, None, Some(11), "crashed: SIGSEGV", Manner::Crashed),
            (Reason::Signalled, None, Some(9), "killed: SIGKILL", Manner::Killed),
            (Reason::Signalled, None, Some(15), "ended by SIGTERM", Manner::Ended),
            (Reason::Signalled, Some(0), Some(15), "ended by SIGTERM, exit code 0", Manner::Ended),
            (
                Reason::OomSuspected,
                None,
                None,
                "killed: SIGKILL, out of memory",
                Manner::OutOfMemory,
            ),
            (Reason::Panicked, Some(101), None, "crashed: panic, exit code 101", Manner::Crashed),
            (Reason::AnchorReleased, None, None, "killed or crashed", Manner::Unseen),
            (Reason::AnchorReleased, Some(3), None, "crashed: exit code 3", Manner::Crashed),
            (Reason::AnchorReleased, Some(0), None, "ended: exit code 0", Manner::Ended),
            (Reason::NoSuchProcess, None, Some(9), "killed: SIGKILL", Manner::Killed),
            (Reason::Zombie, None, Some(6), "crashed: SIGABRT", Manner::Crashed),
            (Reason::PlannedStop, Some(0), Some(15), "stopped on purpose", Manner::Asked),
            (Reason::PlannedStop, None, Some(9), "stopped on purpose, with SIGKILL", Manner::Asked),
            (Reason::TakenOver, Some(3), None, "taken over, exit code 3", Manner::Asked),
            (Reason::Released, None, None, "released", Manner::Ended),
            (Reason::Released, Some(0), None, "released", Manner::Ended),
            (Reason::Released, Some(3), None, "crashed: exit code 3", Manner::Crashed),
            (Reason::Rebooted, None, None, "the machine was restarted", Manner::Ended),
        ] {
            assert_eq!(summary(&reason, exit_code, signal), text, "{reason}");
            assert_eq!(manner(&reason, exit_code, signal), how, "{reason}: {text}");
        }
    }
}
