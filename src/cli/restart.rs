//! `restart`.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::cli::advice::twice;
use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::context::by_us;
use crate::cli::each::{One, Told, document, instead, named, named_in};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::clock::{millis, rfc3339};
use crate::stop::{Restart, RestartOptions};
use crate::{Existing, Holder, InstanceId, Office, Store};

/// What a holder is asked to.
const START_AGAIN: &str = "start again";

/// What comes after the time of the holder, unless the time of the whole was given.
fn starts_within(timeout: Option<Duration>) -> Duration {
    if timeout.is_some() { Duration::ZERO } else { Duration::from_secs(15) }
}

pub(super) fn restart(global: &Global, arguments: &args::Restart) -> Outcome {
    let interrupt = Interrupt::caught();
    let mut options = RestartOptions::new().by(by_us("restart")).cancel(interrupt.cancel());
    if let Some(timeout) = arguments.timeout {
        options = options.timeout(timeout);
    }
    if let Some(reason) = &arguments.reason {
        options = options.reason(reason.as_str());
    }
    if arguments.all {
        return restart_all(global, &options, arguments.timeout, &interrupt);
    }
    let office = global.office()?;
    let timeout = arguments.timeout;
    let progress =
        global.holder_is_to("restart", &office, START_AGAIN, timeout, starts_within(timeout));
    let mut command = Command::default();
    let answer = match global.options().find()? {
        Existing::Store(store) => {
            let answer = global.profile(&store)?.restart(&office.kind, &options);
            let answer = answer.map_err(|error| interrupt.explained(error, NOBODY_WAS_ASKED))?;
            command = Command::of(&store, &office, &answer);
            answer
        }
        Existing::LostOwner { pid, .. } => Restart::of_lost_owner(&office, pid),
        Existing::Nothing => Restart::NotRunning,
    };
    drop(progress);
    let One { code, text, document, complaints } =
        restarted(&office, &answer, &command, Waited::of(arguments.timeout, &interrupt));
    Ok(Answer::new(code, text, document).complaining(complaints))
}

/// What stands where the wait ended before anything was done.
const NOBODY_WAS_ASKED: &str = "nobody was asked to restart";

/// How long was waited, and whether Ctrl-C ended that.
#[derive(Clone, Copy)]
struct Waited {
    timeout: Option<Duration>,
    is_interrupted: bool,
}

impl Waited {
    fn of(timeout: Option<Duration>, interrupt: &Interrupt) -> Self {
        Self { timeout, is_interrupted: interrupt.came() }
    }
}

fn restart_all(
    global: &Global,
    options: &RestartOptions,
    timeout: Option<Duration>,
    interrupt: &Interrupt,
) -> Outcome {
    let (profile, kind) = named_in(global)?;
    let progress = global.all_are_to("restart", START_AGAIN, timeout, starts_within(timeout));
    let mut all = Vec::new();
    if let Some(store) = global.existing()? {
        for (office, answer) in store.restart_all(profile.as_ref(), kind.as_ref(), options)? {
            all.push(match answer {
                Ok(answer) => {
                    let command = Command::of(&store, &office, &answer);
                    restarted(&office, &answer, &command, Waited::of(timeout, interrupt))
                }
                Err(error) => One::failed(&office, &interrupt.explained(error, NOBODY_WAS_ASKED)),
            });
        }
    }
    drop(progress);
    Ok(One::of_all(global, all, exit::NOT_RUNNING))
}

/// The command that a `run` has started again; nothing is known of another owner's.
#[derive(Default)]
struct Command {
    pid: Option<u32>,
    since_ms: Option<i64>,
    restarts: Option<u32>,
}

impl Command {
    /// It is done, whatever comes of this question.
    fn of(store: &Store, office: &Office, answer: &Restart) -> Self {
        let Restart::Done(instance) = answer else { return Self::default() };
        let profile = store.profile(&office.profile);
        let report = profile.and_then(|profile| profile.status_of(&office.kind)).ok();
        let report = report.filter(|report| report.instance == Some(*instance));
        report.map_or_else(Self::default, |report| Self {
            pid: report.child_pid,
            since_ms: report.command_since_ms,
            restarts: report.restarts,
        })
    }

    /// As the end of a sentence.
    fn told(&self) -> String {
        let pid = self.pid.map(|pid| format!(", its command is pid {pid}")).unwrap_or_default();
        let since = self.since_ms.and_then(rfc3339).filter(|_| self.pid.is_some());
        pid + &since.map(|since| format!(", started {since}")).unwrap_or_default()
    }
}

fn restarted(office: &Office, answer: &Restart, command: &Command, waited: Waited) -> One {
    let left_to = LeftTo::of(answer);
    let Told { text, complaint, holder, code } =
        told_of_restart(office, answer, command, left_to.as_ref(), waited);
    let (instance, end) = match answer {
        Restart::Done(instance) => (Some(*instance), None),
        Restart::Ended(instance, end) => (Some(*instance), Some(end)),
        _ => (None, None),
    };
    let served_by = if let Restart::Served(by) = answer { Some(document(by)) } else { None };
    let document = json!({
        "profile": office.profile.as_str(),
        "kind": office.kind.as_str(),
        "served_by": served_by,
        "restarted": code == exit::OK,
        "instance": instance.map(InstanceId::as_i64),
        "child_pid": command.pid,
        "command_since": command.since_ms.and_then(rfc3339),
        "restarts": command.restarts,
        "end": end,
        "holder": holder,
        "retry_after_ms": holder.and_then(|holder| holder.retry_after).map(millis),
        "left_to": left_to,
    });
    One { code, text, document, complaints: complaint.into_iter().collect() }
}

/// Who restarts a command that has no `run` beside it. In JSON an object with these fields.
#[derive(Debug, Serialize)]
struct LeftTo {
    by: String,
    restart_with: Option<String>,
}

impl LeftTo {
    /// `None` where it is not known, or the answer is another one. May ask systemd.
    fn of(answer: &Restart) -> Option<Self> {
        let Restart::LeftToSupervisor { restarter, .. } = answer else { return None };
        let restarter = restarter.as_ref()?;
        Some(Self { by: restarter.by(), restart_with: restarter.restart_with() })
    }
}

fn told_of_restart<'a>(
    office: &Office,
    answer: &'a Restart,
    command: &Command,
    left_to: Option<&LeftTo>,
    waited: Waited,
) -> Told<'a> {
    // The office in full in each: with `--all` the options of this call do not name it.
    let about = |holder: &Holder, what: &str| {
        Complaint::new(format!("{office}: {what} ({})", named(holder.pid)))
    };
    match answer {
        Restart::Done(_) => {
            Told::saying(format!("{office}: restarted{}\n", command.told()), exit::OK)
        }
        Restart::Ended(_, end) => {
            let complaint =
                Complaint::new(format!("{office}: restarted, and {}", end.summary)).advising(
                    format!("`incumbent {}` shows more, and what to do", office.verb("status")),
                );
            Told::refusing(complaint, None, exit::NO)
        }
        Restart::NotRunning => Told::saying(format!("{office}: not running\n"), exit::NOT_RUNNING),
        Restart::Orphaned(holder) => {
            let what = format!(
                "{holder}; its record is gone with its store, so it cannot be asked to restart"
            );
            let complaint = Complaint::new(what).advising(holder.advice());
            Told::refusing(complaint, Some(holder), exit::UNKNOWN)
        }
        Restart::Served(by) => {
            let what = format!("{office} is served by {by}, together with other profiles");
            Told::refusing(Complaint::new(what).advising(instead("restart", by)), None, exit::NO)
        }
        Restart::InProgress(holder) => {
            let complaint = Complaint::new(holder.to_string()).advising(holder.advice());
            Told::refusing(complaint, Some(holder), exit::NOT_NOW)
        }
        Restart::NotServed(holder) if waited.is_interrupted => {
            let who = named(holder.pid);
            let what = format!(
                "{office}: interrupted: {who} was asked to restart and has not yet; the request \
                 stands until it expires"
            );
            let again = office.verb("restart");
            let complaint =
                Complaint::new(what).advising(format!("`incumbent {again}` waits for it again"));
            Told::refusing(complaint, Some(holder), exit::NOT_NOW)
        }
        Restart::NotServed(holder) => {
            let what = "not restarted in time; the request stands until it expires";
            let longer = twice(waited.timeout);
            let complaint = about(holder, what)
                .advising(format!(
                    "`incumbent {}` waits longer",
                    office.verb(&format!("restart --timeout {longer}"))
                ))
                .advising(format!(
                    "`incumbent {}`, and start it again; a holder that is not a `run` has to look \
                     for the marker `restart` itself",
                    office.verb("stop")
                ));
            Told::refusing(complaint, Some(holder), exit::NOT_NOW)
        }
        Restart::Withdrawn(holder) => {
            let what = "the request was withdrawn, or a stop replaced it";
            let complaint = about(holder, what).advising("`incumbent events` says by whom");
            Told::refusing(complaint, Some(holder), exit::NOT_NOW)
        }
        Restart::LeftToSupervisor { holder, .. } => {
            let what = "it was started with `run --exec`, so only its supervisor can restart it";
            let (by, advice) = if let Some(LeftTo { by, restart_with }) = left_to {
                let command = restart_with.as_ref().map(|command| format!("`{command}`"));
                (by.as_str(), command.unwrap_or_else(|| format!("restart it by {by}")))
            } else {
                let stop = office.verb("stop");
                ("which is not known", format!("`incumbent {stop}`, and start it again"))
            };
            let complaint = about(holder, &format!("{what}, {by}")).advising(advice);
            Told::refusing(complaint, Some(holder), exit::NOT_NOW)
        }
    }
}
