//! `stop`, `restart` and `desired`.
//!
//! `desired` and `stop --desired`, like `marker write`, make a store that is not there, and migrate
//! none.

use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::context::by_us;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::cli::{args, output};
use crate::clock::millis;
use crate::forensics::starts_again::LeftTo;
use crate::status::Desired;
use crate::stop::{
    LeftOver, Restart, RestartOptions, StartsAgain, StopOptions, StopOutcome, StopReport,
};
use crate::{Error, Existing, Holder, InstanceId, Kind, Office, ProfileName, Verdict};

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
    let report = match global.options().find()? {
        Existing::Store(store) => {
            global.profile(&store)?.stop(&office.kind, &stop_options(arguments))?
        }
        // What is wished for has to be kept somewhere.
        Existing::LostOwner { .. } | Existing::Nothing if arguments.desired => {
            let store = global.options().open()?;
            global.profile(&store)?.stop(&office.kind, &stop_options(arguments))?
        }
        Existing::LostOwner { pid, .. } => without_store(StopOutcome::of_lost_owner(&office, pid)),
        Existing::Nothing => without_store(StopOutcome::NotRunning),
    };
    let One { code, text, document, complaints } = stopped(&office, &report, arguments);
    Ok(Answer::new(code, text, document).complaining(complaints))
}

fn stop_all(global: &Global, arguments: &args::Stop) -> Outcome {
    let (profile, kind) = named_in(global)?;
    let answers = match global.existing()? {
        Some(store) => store.stop_all(profile.as_ref(), kind.as_ref(), &stop_options(arguments))?,
        None => Vec::new(),
    };
    let all = answers.into_iter().map(|(office, report)| match report {
        Ok(report) => stopped(&office, &report, arguments),
        Err(error) => One::failed(&office, &error),
    });
    Ok(One::of_all(all.collect(), exit::OK))
}

/// The profile and the kind that `--all` is limited to.
fn named_in(global: &Global) -> crate::Result<(Option<ProfileName>, Option<Kind>)> {
    let profile = global.profile.as_deref().map(ProfileName::new).transpose()?;
    let kind = global.kind.as_deref().map(Kind::new).transpose()?;
    Ok((profile, kind))
}

/// What there is to say of one office.
struct One {
    code: i32,
    text: String,
    document: Value,
    complaints: Vec<Complaint>,
}

impl One {
    /// What could not be asked for.
    fn failed(office: &Office, error: &Error) -> Self {
        let mut document = output::error_document(error);
        document["profile"] = json!(office.profile);
        document["kind"] = json!(office.kind);
        let mut complaint = Complaint::new(format!("{office}: {error}"));
        if let Some(hint) = error.command_line_hint() {
            complaint = complaint.advising(hint);
        }
        let (code, complaints) = (output::exit_code(error), vec![complaint]);
        Self { code, text: String::new(), document, complaints }
    }

    /// What came of it, in a few words.
    fn result(&self) -> String {
        let (_, said) = self.text.trim_end().split_once(": ").unwrap_or_default();
        let refused = match self.code {
            exit::NO => "no: see below",
            exit::UNKNOWN => "unknown",
            exit::NOT_NOW => "not now",
            _ => "failed",
        };
        if said.is_empty() { refused.to_owned() } else { said.to_owned() }
    }

    /// A table of all, or an array. `none` is the code where there is nobody.
    fn of_all(all: Vec<Self>, none: i32) -> Answer {
        /// The worst first, as the help says it.
        const FROM_WORST: [i32; 7] = [
            exit::FAILED,
            exit::CONFIGURATION,
            exit::UNKNOWN,
            exit::NO,
            exit::NOT_NOW,
            exit::NOT_RUNNING,
            exit::OK,
        ];
        if all.is_empty() {
            return Answer::new(none, "nobody runs\n", json!([]));
        }
        let has = |code: &i32| all.iter().any(|one| one.code == *code);
        // One that is not on the list is a fault of this very program.
        let code = FROM_WORST.into_iter().find(has).unwrap_or(exit::FAILED);
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header(["PROFILE", "KIND", "RESULT"]);
        for one in &all {
            let named = |name: &str| one.document[name].as_str().unwrap_or_default().to_owned();
            table.add_row([named("profile"), named("kind"), output::one_line(&one.result())]);
        }
        let table = table.to_string();
        let text: String = table.lines().map(|line| line.trim().to_owned() + "\n").collect();
        let (mut documents, mut complaints) = (Vec::new(), Vec::new());
        for one in all {
            documents.push(one.document);
            complaints.extend(one.complaints);
        }
        Answer::new(code, text, Value::Array(documents)).complaining(complaints)
    }
}

fn stopped(office: &Office, report: &StopReport, arguments: &args::Stop) -> One {
    let Told { text, complaint, holder, code } = told(office, &report.outcome, arguments);
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
    complaints.extend(of_left_over(office, report, arguments));
    complaints.extend(starts_again.map(|it| again(office, &it, arguments)));
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
        "`incumbent stop --desired`, where it is started with `incumbent run --respect-desired`",
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
fn of_left_over(office: &Office, report: &StopReport, arguments: &args::Stop) -> Vec<Complaint> {
    let told = |process: &LeftOver| {
        let command = process.command.as_deref().unwrap_or("its command cannot be read");
        format!("pid {} ({command}), which the holder had started", process.pid)
    };
    let option = if arguments.reap { "" } else { " (`--reap` ends such processes)" };
    let reaped = report.reaped.iter().map(|it| format!("{office}: ended {}", told(it)));
    let left = report.left_over.iter();
    let left = left.map(|it| format!("{office}: {}, still runs{option}", told(it)));
    reaped.chain(left).map(Complaint::new).collect()
}

fn processes(all: &[LeftOver]) -> Value {
    all.iter().map(|it| json!({"pid": it.pid, "command": it.command})).collect()
}

fn stop_options(arguments: &args::Stop) -> StopOptions {
    let mut options = StopOptions::new().by(by_us("stop"));
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

fn named(pid: Option<u32>) -> String {
    pid.map_or_else(|| "its holder".to_owned(), |pid| format!("pid {pid}"))
}

/// What to say in order to reach a server of several profiles.
fn instead(verb: &str, server: &Office) -> String {
    format!(
        "`incumbent --profile {} --kind {} {verb}`, if all that it serves is meant",
        server.profile, server.kind
    )
}

fn document(office: &Office) -> Value {
    json!({"profile": office.profile.as_str(), "kind": office.kind.as_str()})
}

/// What came of it.
struct Told<'a> {
    text: String,
    complaint: Option<Complaint>,
    /// Whoever is left.
    holder: Option<&'a Holder>,
    code: i32,
}

impl<'a> Told<'a> {
    fn saying(text: String, code: i32) -> Self {
        Self { text, complaint: None, holder: None, code }
    }

    fn refusing(complaint: Complaint, holder: Option<&'a Holder>, code: i32) -> Self {
        Self { text: String::new(), complaint: Some(complaint), holder, code }
    }
}

fn told<'a>(office: &Office, outcome: &'a StopOutcome, arguments: &args::Stop) -> Told<'a> {
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
        StopOutcome::Ended { pid, still_runs: true, .. } => done(format!(
            "{office}: stopped: {} has released it; its process still runs\n",
            named(*pid)
        )),
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
            let advice = if arguments.force || is_frozen || holder.cannot_be_signalled() {
                holder.advice()
            } else {
                "`incumbent stop --force` kills it; `incumbent stop --timeout DUR` waits longer"
                    .to_owned()
            };
            let what = format!("{office}: still running: {why} ({})", named(holder.pid));
            refused(Complaint::new(what).advising(advice), Some(holder), exit::NO)
        }
        StopOutcome::InProgress(holder) => {
            let complaint = Complaint::new(holder.to_string()).advising(holder.advice());
            refused(complaint, Some(holder), exit::NOT_NOW)
        }
    }
}

pub(super) fn restart(global: &Global, arguments: &args::Restart) -> Outcome {
    let mut options = RestartOptions::new().by(by_us("restart"));
    if let Some(timeout) = arguments.timeout {
        options = options.timeout(timeout);
    }
    if let Some(reason) = &arguments.reason {
        options = options.reason(reason.as_str());
    }
    if arguments.all {
        return restart_all(global, &options);
    }
    let office = global.office()?;
    let answer = match global.options().find()? {
        Existing::Store(store) => global.profile(&store)?.restart(&office.kind, &options)?,
        Existing::LostOwner { pid, .. } => Restart::of_lost_owner(&office, pid),
        Existing::Nothing => Restart::NotRunning,
    };
    let One { code, text, document, complaints } = restarted(&office, &answer);
    Ok(Answer::new(code, text, document).complaining(complaints))
}

fn restart_all(global: &Global, options: &RestartOptions) -> Outcome {
    let (profile, kind) = named_in(global)?;
    let answers = match global.existing()? {
        Some(store) => store.restart_all(profile.as_ref(), kind.as_ref(), options)?,
        None => Vec::new(),
    };
    let all = answers.into_iter().map(|(office, answer)| match answer {
        Ok(answer) => restarted(&office, &answer),
        Err(error) => One::failed(&office, &error),
    });
    Ok(One::of_all(all.collect(), exit::NOT_RUNNING))
}

fn restarted(office: &Office, answer: &Restart) -> One {
    let left_to = LeftTo::of(answer);
    let Told { text, complaint, holder, code } = told_of_restart(office, answer, left_to.as_ref());
    let instance = if let Restart::Done(instance) = answer { Some(*instance) } else { None };
    let served_by = if let Restart::Served(by) = answer { Some(document(by)) } else { None };
    let document = json!({
        "profile": office.profile.as_str(),
        "kind": office.kind.as_str(),
        "served_by": served_by,
        "restarted": code == exit::OK,
        "instance": instance.map(InstanceId::as_i64),
        "holder": holder,
        "retry_after_ms": holder.and_then(|holder| holder.retry_after).map(millis),
        "left_to": left_to,
    });
    One { code, text, document, complaints: complaint.into_iter().collect() }
}

fn told_of_restart<'a>(office: &Office, answer: &'a Restart, left_to: Option<&LeftTo>) -> Told<'a> {
    let about = |holder: &Holder, what: &str| {
        Complaint::new(format!("{office}: {what} ({})", named(holder.pid)))
    };
    match answer {
        Restart::Done(_) => Told::saying(format!("{office}: restarted\n"), exit::OK),
        Restart::NotRunning => Told::saying(format!("{office}: not running\n"), exit::NOT_RUNNING),
        Restart::Orphaned(holder) => {
            let what = format!("{holder}; its record is gone with its store, so it is not asked");
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
        Restart::NotServed(holder) => {
            let what = "not restarted in time; the request stands until it expires";
            let complaint = about(holder, what).advising(
                "wait longer (`--timeout DUR`), or `incumbent stop --force` and start it again; a \
                 holder that is no `run` has to look for the marker `restart` itself",
            );
            Told::refusing(complaint, Some(holder), exit::NOT_NOW)
        }
        Restart::Withdrawn(holder) => {
            let what = "the request was withdrawn, or a stop came in its place";
            let complaint = about(holder, what).advising("look at `incumbent events`");
            Told::refusing(complaint, Some(holder), exit::NOT_NOW)
        }
        Restart::LeftToSupervisor { holder, .. } => {
            let what = "it was started with `run --exec`, so only its supervisor can restart it";
            let (by, advice) = match left_to {
                Some(LeftTo { by, restart_with }) => {
                    let command = restart_with.as_ref().map(|command| format!("`{command}`"));
                    (by.as_str(), command.unwrap_or_else(|| format!("restart it by {by}")))
                }
                None => ("which is not known", "`incumbent stop`, and start it again".to_owned()),
            };
            let complaint = about(holder, &format!("{what}, {by}")).advising(advice);
            Told::refusing(complaint, Some(holder), exit::NOT_NOW)
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
        None => format!("{name}: nobody has said whether it should run\n"),
    };
    let document = json!({"profile": name, "desired": desired});
    Ok(Answer::new(exit::OK, text, document))
}
