//! `stop` and `desired`.
//!
//! `desired` and `stop --desired`, like `marker write`, make a store that is not there, and migrate
//! none.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::advice::twice;
use crate::cli::args::Global;
use crate::cli::context::by_us;
use crate::cli::each::{One, Told, document, instead, named, named_in};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::cli::waiting::KILL_GRACE;
use crate::cli::{args, output};
use crate::clock::millis;
use crate::status::Desired;
use crate::stop::{LeftOver, StartsAgain, StopOptions, StopOutcome, StopReport};
use crate::{Error, Existing, InstanceId, Office, Reason, Store, Verdict, sys};

pub(super) fn stop(global: &Global, arguments: &args::Stop) -> Outcome {
    if arguments.all {
        return stop_all(global, arguments);
    }
    let office = global.office()?;
    let without_store = |outcome| StopReport {
        outcome,
        not_recorded: None,
        not_desired: None,
        ended_left_over: Vec::new(),
        reaped: Vec::new(),
        left_over: Vec::new(),
        was_run: false,
        restarter: None,
    };
    let interrupt = Interrupt::caught();
    let progress =
        global.holder_is_to("stop", &office, "stop", arguments.timeout, grace(arguments));
    let stop_in = |store: &Store| {
        let options = stop_options(arguments, &interrupt);
        let report = global.profile(store)?.stop(&office.kind, &options);
        report.map_err(|error| interrupt.explained(error, NOBODY_WAS_ASKED))
    };
    let mut around = Around::default();
    let report = match global.options().find()? {
        Existing::Store(store) => {
            let report = stop_in(&store)?;
            around = Around::of(&store, &office, &report);
            report
        }
        // What is wished for has to be kept somewhere.
        Existing::LostOwner { .. } | Existing::Nothing if arguments.desired => {
            stop_in(&global.options().open()?)?
        }
        Existing::LostOwner { pid, .. } => without_store(StopOutcome::of_lost_owner(&office, pid)),
        Existing::Nothing => without_store(StopOutcome::NotRunning),
    };
    drop(progress);
    let asked = Asked { arguments, interrupt: &interrupt };
    let One { code, text, document, complaints } = stopped(&office, &report, &around, asked);
    Ok(Answer::new(code, text, document).complaining(complaints))
}

/// What stands where the wait ended before anything was done.
const NOBODY_WAS_ASKED: &str = "nobody was asked to stop";

/// A call of `stop`.
#[derive(Clone, Copy)]
struct Asked<'a> {
    arguments: &'a args::Stop,
    interrupt: &'a Interrupt,
}

/// What else there is once it has ended. It is done, whatever comes of these questions.
#[derive(Default)]
struct Around {
    /// Who has taken the office by now, and who waits for it.
    next: Vec<Next>,
    /// Of what the holder has left behind: what is of another gateway, and of which.
    of_others: Vec<(u32, Office)>,
}

impl Around {
    fn of(store: &Store, office: &Office, report: &StopReport) -> Self {
        let StopOutcome::Ended { instance, .. } = report.outcome else { return Self::default() };
        let profile = store.profile(&office.profile);
        let now = profile.and_then(|profile| profile.status_of(&office.kind)).ok();
        let mut next = Vec::new();
        if let Some(now) = now {
            let has_taken = now.running && now.instance != Some(instance);
            if has_taken && now.served_by.is_none() {
                next.push(Next { pid: now.pid, waits: false });
            }
            next.extend(now.waiters.iter().map(|it| Next { pid: it.pid, waits: true }));
        }
        let mut of_others = Vec::new();
        if !report.left_over.is_empty() {
            let all = store.status_of_all().unwrap_or_default();
            let owners = all.into_iter().filter(|it| it.verdict != Verdict::Dead);
            for (pid, owner) in owners.filter_map(|it| Some((it.pid?, it.office))) {
                let family = std::iter::once(pid).chain(sys::descendants(pid));
                of_others.extend(family.map(|member| (member, owner.clone())));
            }
        }
        Self { next, of_others }
    }

    fn owner_of(&self, pid: u32) -> Option<&Office> {
        self.of_others.iter().find(|(member, _)| *member == pid).map(|(_, owner)| owner)
    }
}

/// Who comes after the one that was stopped.
#[derive(Clone, Copy)]
struct Next {
    pid: Option<u32>,
    waits: bool,
}

/// A stop that is followed by a start at once is not what most people mean.
fn of_next(office: &Office, next: &[Next], arguments: &args::Stop) -> Vec<Complaint> {
    let told = |next: &Next| {
        let who = next.pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));
        let what = match next.waits {
            true if arguments.desired => {
                "waits for it and will take over, unless it was started with `--respect-desired`"
            }
            true => "waits for it and will take over",
            false => "has taken over",
        };
        Complaint::new(format!("{office}: {who} {what}"))
            .advising(format!("`incumbent {}` again, to stop that one", office.verb("stop")))
    };
    next.iter().map(told).collect()
}

/// What the kill may take after the time of the holder.
fn grace(arguments: &args::Stop) -> Duration {
    if arguments.force { KILL_GRACE } else { Duration::ZERO }
}

fn stop_all(global: &Global, arguments: &args::Stop) -> Outcome {
    let (profile, kind) = named_in(global)?;
    let progress = global.all_are_to("stop", "stop", arguments.timeout, grace(arguments));
    let interrupt = Interrupt::caught();
    let asked = Asked { arguments, interrupt: &interrupt };
    let mut all = Vec::new();
    if let Some(store) = global.existing()? {
        let options = stop_options(arguments, &interrupt);
        for (office, report) in store.stop_all(profile.as_ref(), kind.as_ref(), &options)? {
            all.push(match report {
                Ok(report) => {
                    let around = Around::of(&store, &office, &report);
                    stopped(&office, &report, &around, asked)
                }
                Err(error) => One::failed(&office, &interrupt.explained(error, NOBODY_WAS_ASKED)),
            });
        }
    }
    drop(progress);
    Ok(One::of_all(global, all, exit::OK))
}

fn stopped(office: &Office, report: &StopReport, around: &Around, asked: Asked<'_>) -> One {
    let arguments = asked.arguments;
    let Told { text, complaint, holder, code } = told(office, &report.outcome, asked);
    let code = match &report.not_desired {
        Some(error) if code == exit::OK => output::exit_code(error),
        Some(_) | None => code,
    };
    let starts_again = report.starts_again();
    let (pid, instance, killed) = match &report.outcome {
        StopOutcome::Ended { instance, pid, killed, .. } => (*pid, Some(*instance), *killed),
        StopOutcome::StillRunning(holder, _) | StopOutcome::OfAnother(holder) => {
            (holder.pid, holder.instance, false)
        }
        StopOutcome::Served { pid, .. } => (*pid, None, false),
        StopOutcome::NotRunning | StopOutcome::InProgress(_) => (None, None, false),
    };
    let served_by = match &report.outcome {
        StopOutcome::Served { by, .. } => Some(by),
        _ => None,
    };
    let mut document = json!({
        "profile": office.profile.as_str(),
        "kind": office.kind.as_str(),
        "stopped": matches!(
            report.outcome,
            StopOutcome::NotRunning | StopOutcome::Ended { .. }
        ),
        "was_running": !matches!(
            report.outcome,
            StopOutcome::NotRunning | StopOutcome::OfAnother(_)
        ),
        "pid": pid,
        "instance": instance.map(InstanceId::as_i64),
        "killed": killed,
        "still_runs": match report.outcome {
            StopOutcome::Ended { still_runs, .. } => still_runs,
            StopOutcome::StillRunning(..)
            | StopOutcome::Served { .. }
            | StopOutcome::OfAnother(_) => true,
            StopOutcome::NotRunning | StopOutcome::InProgress(_) => false,
        },
        "served_by": served_by.map(document),
        "recorded": report.not_recorded.is_none(),
        "not_recorded": report.not_recorded.as_ref().map(Error::to_string),
        "not_desired": report.not_desired.as_ref().map(Error::to_string),
        "holder": holder,
        "retry_after_ms": holder.and_then(|holder| holder.retry_after).map(millis),
        "starts_again": starts_again,
        "reaped": processes(&report.reaped),
        "left_over": processes(&report.left_over),
    });
    if !report.ended_left_over.is_empty() {
        document["ended_left_over"] = json!(report.ended_left_over);
    }
    let mut complaints = beside(office, report);
    complaints.extend(of_left_over(office, report, around, arguments));
    complaints.extend(starts_again.map(|it| again(office, &it, arguments)));
    complaints.extend(of_next(office, &around.next, arguments));
    complaints.extend(complaint);
    One { code, text, document, complaints }
}

/// Nobody is to wonder why it is up again a second later (FIELD-BUGS row 123).
fn again(office: &Office, starts: &StartsAgain, arguments: &args::Stop) -> Complaint {
    let StartsAgain { by, is_certain, because, stop_with, .. } = starts;
    let verb = if *is_certain { "will be" } else { "may be" };
    let complaint = Complaint::new(format!("{office} {verb} started again by {by}: {because}"))
        .advising(format!("`{stop_with}` stops it for good"));
    if arguments.desired {
        return complaint;
    }
    complaint.advising(
        "`incumbent stop --desired`, if it is started with the option `--respect-desired`",
    )
}

/// What went wrong, or was done, beside what was asked for.
fn beside(office: &Office, report: &StopReport) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if let Some(error) = &report.not_recorded {
        complaints.push(Complaint::new(format!(
            "this stop could not be recorded ({error}): the gateway and its supervisor may take it \
             for a crash"
        )));
    }
    complaints.extend(report.ended_left_over.iter().map(|pid| {
        Complaint::new(format!(
            "{office}: ended pid {pid}, which a run that was killed had left behind"
        ))
    }));
    if let Some(error) = &report.not_desired {
        complaints.push(
            Complaint::new(format!(
                "it could not be recorded that {office} is to stay stopped ({error})"
            ))
            .advising("`incumbent desired stopped`, as soon as the store can be written"),
        );
    }
    complaints
}

/// What the holder had started, and what became of that.
fn of_left_over(
    office: &Office,
    report: &StopReport,
    around: &Around,
    arguments: &args::Stop,
) -> Vec<Complaint> {
    let told = |process: &LeftOver| {
        let command = process.command.as_deref().unwrap_or("its command cannot be read");
        format!("pid {} ({command}), which the holder had started", process.pid)
    };
    let reaped = report.reaped.iter();
    let reaped = reaped.map(|it| Complaint::new(format!("{office}: ended {}", told(it))));
    let left = report.left_over.iter().map(|it| {
        let what = format!("{office}: {}, still runs", told(it));
        match around.owner_of(it.pid) {
            // Never by a kill: that would look like a crash.
            Some(owner) => Complaint::new(format!("{what}: it is of {owner}"))
                .advising(format!("`incumbent {}` stops that one", owner.verb("stop"))),
            None if arguments.reap => Complaint::new(what),
            None => {
                let pid = it.pid;
                Complaint::new(format!("{what}: `kill {pid}` ends it (`--reap` would have)"))
            }
        }
    });
    reaped.chain(left).collect()
}

fn processes(all: &[LeftOver]) -> Value {
    all.iter().map(|it| json!({"pid": it.pid, "command": it.command})).collect()
}

fn stop_options(arguments: &args::Stop, interrupt: &Interrupt) -> StopOptions {
    let mut options = StopOptions::new().by(by_us("stop")).cancel(interrupt.cancel());
    if let Some(timeout) = arguments.timeout {
        options = options.timeout(timeout);
    }
    if arguments.force {
        options = options.kill();
    }
    if arguments.desired {
        options = options.desired_stopped();
    }
    if arguments.reap {
        options = options.reap();
    }
    if let Some(reason) = &arguments.reason {
        options = options.reason(reason.as_str());
    }
    options
}

fn told<'a>(office: &Office, outcome: &'a StopOutcome, asked: Asked<'_>) -> Told<'a> {
    let Asked { arguments, interrupt } = asked;
    let done = |text| Told::saying(text, exit::OK);
    let refused = Told::refusing;
    match outcome {
        StopOutcome::NotRunning => done(format!("{office}: not running\n")),
        StopOutcome::Served { by, pid, is_alive } => {
            let complaint = Complaint::new(format!(
                "{office} is served by {by} ({}), together with other profiles{}",
                named(*pid),
                if arguments.desired { "; its desired state, stopped, is recorded" } else { "" }
            ));
            let code = if *is_alive { exit::NO } else { exit::UNKNOWN };
            refused(complaint.advising(instead("stop", by)), None, code)
        }
        StopOutcome::OfAnother(holder) => {
            let complaint = Complaint::new(format!(
                "{office} is not running, and nothing was stopped: {holder}"
            ));
            refused(complaint.advising(holder.advice()), Some(holder), exit::NO)
        }
        StopOutcome::Ended { pid, still_runs: true, .. } => {
            done(format!("{office}: stopped: {} released it and keeps running\n", named(*pid)))
        }
        StopOutcome::Ended { pid, killed: false, .. } => {
            done(format!("{office}: stopped, {} has ended\n", named(*pid)))
        }
        StopOutcome::Ended { pid, killed: true, .. } => {
            done(format!("{office}: stopped, {} had to be killed\n", named(*pid)))
        }
        StopOutcome::StillRunning(holder, why) if holder.verdict == Verdict::Unknown => {
            let complaint = Complaint::new(format!("{holder}; {why}")).advising(holder.advice());
            refused(complaint, Some(holder), exit::UNKNOWN)
        }
        StopOutcome::StillRunning(holder, why) => {
            let is_frozen = holder.flags.frozen;
            let who = named(holder.pid);
            // Else something kept it from being asked.
            if interrupt.came() && holder.reason == Reason::TimedOut {
                let what = format!("{office}: interrupted: {who} was asked to stop and still runs");
                let complaint = Complaint::new(what)
                    .advising(format!("`incumbent {}` waits for it again", office.verb("stop")))
                    .advising(format!("`incumbent {}` says how it is", office.verb("status")));
                return refused(complaint, Some(holder), exit::NO);
            }
            let complaint = Complaint::new(format!("{office}: still running: {why} ({who})"));
            let complaint = if arguments.force || is_frozen || holder.cannot_be_signalled() {
                complaint.advising(holder.advice())
            } else {
                // The same options, or the answer with `--all` would be about all others as well.
                let longer = twice(arguments.timeout);
                complaint
                    .advising(format!(
                        "`incumbent {}` waits longer",
                        office.verb(&format!("stop --timeout {longer}"))
                    ))
                    .advising(format!(
                        "`incumbent {}` kills it after the timeout",
                        office.verb("stop --force")
                    ))
            };
            refused(complaint, Some(holder), exit::NO)
        }
        StopOutcome::InProgress(holder) => {
            let complaint = Complaint::new(holder.to_string()).advising(holder.advice());
            refused(complaint, Some(holder), exit::NOT_NOW)
        }
    }
}

pub(super) fn desired(global: &Global, wanted: Option<Desired>) -> Outcome {
    let name = global.profile_name()?;
    let desired = match wanted {
        Some(wanted) => {
            // What an older version made can keep it as it is.
            let store = match global.existing()? {
                Some(store) => store,
                None => global.options().open()?,
            };
            let profile = store.profile(&name)?;
            profile.set_desired(wanted, &by_us("desired"))?;
            Some(wanted)
        }
        None => match global.existing()? {
            Some(store) => store.profile(&name)?.desired()?,
            None => None,
        },
    };
    let text = match desired {
        Some(desired) => format!("{name}: {desired}\n"),
        None => format!("{name}: no desired state is set\n"),
    };
    let document = json!({"profile": name, "desired": desired});
    Ok(Answer::new(exit::OK, text, document))
}
