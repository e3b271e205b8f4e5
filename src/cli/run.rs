//! `run`: says what is to be run, and prints what the run tells.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cli::advice::Invocation;
use crate::cli::args::Global;
use crate::cli::claim::document;
use crate::cli::output::{Answer, Complaint, Outcome};
use crate::cli::progress::Progress;
use crate::cli::waiting::{Becomes, Waited};
use crate::cli::{args, identity, output};
use crate::exit::{ExitCause, ExitCodes, ExitRule, Supervisor};
use crate::run::{Finished, Notice, Run, RunOutcome};
use crate::stop::Replace;
use crate::sys::supervise;
use crate::{ClaimOptions, Error, LockName, ProfileName, Result, process, run, sys};

pub(super) fn run(global: &Global, arguments: &args::Run) -> Outcome {
    if arguments.command.first().is_none_or(|program| program.is_empty()) {
        return Err(
            Error::invalid("the command is empty").with_hint("name it: `incumbent run -- CMD`")
        );
    }
    if is_placeholder(&arguments.command) {
        let what = "CMD stands for the command of the gateway, and nothing was started";
        return Err(Error::invalid(what).with_hint("write that command in its place"));
    }
    let home = global.check()?;
    let requests = identity::requests(arguments)?;
    let names: Vec<LockName> = requests.iter().map(|request| request.name().clone()).collect();
    let mut options = ClaimOptions::new()
        .kind(global.kind()?)
        .stop_budget(arguments.stop_budget)
        .wait(arguments.wait.unwrap_or_default())
        .locks(requests);
    if arguments.replace {
        options = options.replace(replace(arguments));
    }
    options.check()?;
    if let Some(directory) = arguments.legacy_home.as_ref().or(arguments.mirror.as_ref()) {
        options = options.legacy_home(directory)?;
        options.check()?;
        become_known(arguments, directory);
    }
    let (invocation, quiet) = (Invocation::of(global), arguments.quiet);
    let profile = global.profile_name()?;
    let progress = Arc::new(Mutex::new(waiting(global, arguments, names)?));
    let of_start = Arc::clone(&progress);
    let mut run = Run::new(profile.clone(), &arguments.command)
        .store(global.options())
        .claim(options)
        .exit_codes(exit_codes(arguments))
        .forward(arguments.forward)
        .as_whole_process()
        .on_notice(move |notice| {
            if matches!(notice, Notice::Started { .. }) {
                drop(of_start.lock().take());
            }
            if !quiet || matches!(notice, Notice::Started { .. }) {
                tell(&invocation, notice);
            }
        });
    if let Some(home) = home {
        run = run.home(home);
    }
    if arguments.mirror.is_some() {
        run = run.mirror();
    }
    if arguments.respect_desired {
        run = run.respect_desired();
    }
    if arguments.no_backoff {
        run = run.without_backoff();
    }
    if arguments.exec {
        run = run.in_place();
    }
    if arguments.follow {
        run = run.follow();
    }
    run = arguments.leave.iter().fold(run, |run, program| {
        if program.is_empty() { run.leave_family() } else { run.leave_program(program) }
    });
    if let Some(file) = &arguments.pidfile {
        run = run.pid_file(file);
    }
    if let Some(lines) = arguments.keep_stderr {
        run = run.keep_stderr(lines);
    }
    if let Some(line) = &arguments.on_end {
        run = run.on_end(sys::aside::shell_words(line));
    }
    if let Some(after) = arguments.restart_unresponsive {
        run = run.restart_unresponsive(after);
    }
    let finished = run.run();
    drop(progress.lock().take());
    output::finish_telling();
    Ok(answer(global, &profile, arguments, finished?))
}

/// Whether a hint was pasted as it stands. To start it would put "command not found" on record, in
/// front of how the gateway really ended.
fn is_placeholder(command: &[OsString]) -> bool {
    command == ["CMD"] && supervise::find_program(&command[0]).is_err()
}

/// The exit code of a command that is not there, as of a shell.
const NOT_FOUND: i32 = 127;

/// What it waits for, be it that a damaged store is recovered.
fn waiting(
    global: &Global,
    arguments: &args::Run,
    locks: Vec<LockName>,
) -> Result<Option<Progress>> {
    let wait = arguments.wait.unwrap_or_default();
    if arguments.quiet {
        return Ok(None);
    }
    let becomes = if arguments.exec { Becomes::AnotherProgram } else { Becomes::Nothing };
    let (office, replaces) = (Some(global.office()?), arguments.replace);
    Ok(Some(global.free("run", Waited { office, locks, wait, replaces, becomes })))
}

fn replace(arguments: &args::Run) -> Replace {
    let mut replace = Replace::new();
    if let Some(who) = process::invoked_by() {
        replace = replace.by(who);
    }
    if arguments.force {
        replace = replace.force();
    }
    if arguments.reap {
        replace = replace.reap();
    }
    if arguments.cross_home {
        replace = replace.across_homes();
    }
    replace
}

fn exit_codes(arguments: &args::Run) -> ExitCodes {
    let supervisor = arguments.supervisor.unwrap_or_else(Supervisor::of_this_process);
    let mut codes = ExitCodes::of(supervisor);
    if let Some(code) = arguments.refused_exit_code {
        codes = codes
            .with(ExitCause::Refused, ExitRule::Code(code))
            .with(ExitCause::DesiredStopped, ExitRule::Code(code));
    }
    arguments.exit_code.iter().fold(codes, |codes, (cause, rule)| codes.with(*cause, *rule))
}

fn tell(invocation: &Invocation, notice: &Notice<'_>) {
    if matches!(notice, Notice::Started { .. }) {
        // Not told: `status` shows it.
        return output::never_wait();
    }
    // What of it this call could have said otherwise.
    let option = match notice {
        Notice::Storm { .. } => " (`--no-backoff` starts at once)",
        Notice::LeftOver { .. } => " (`--reap` ends such processes)",
        Notice::MayBeFollowed { .. } => " (`--follow` stays with a gateway among them)",
        _ => "",
    };
    let advice = match notice {
        Notice::RestartDelayed { error } => error.command_line_hint(),
        _ => notice.advice(),
    };
    let advice = advice.map(|advice| format!("; {}", invocation.complete(advice)));
    let advice = advice.unwrap_or_default();
    output::tell(&format!("incumbent: run: {notice}{option}{advice}\n"));
}

fn answer(
    global: &Global,
    name: &ProfileName,
    arguments: &args::Run,
    finished: Finished,
) -> Answer {
    let code = finished.exit_code;
    match finished.outcome {
        RunOutcome::Ended => Answer::silent(code),
        RunOutcome::Failed(error) => {
            let meant = arguments.option_without_its_value().filter(|_| code == NOT_FOUND);
            let error = match meant {
                Some(meant) => Error::invalid(error.to_string())
                    .with_hint(format!("write `{meant}`, with an equals sign")),
                None => error,
            };
            Answer::failed(code, &Invocation::of(global), &error)
        }
        RunOutcome::Refused(holder) => {
            let document = document(None, None, None, Some(&holder));
            Answer::new(code, "", document)
                .complaining(Complaint::new(holder.to_string()).advising(holder.advice()))
        }
        RunOutcome::StaysStopped => {
            let mut document = document(None, None, None, None);
            document["reason"] = ExitCause::DesiredStopped.as_str().into();
            Answer::new(code, "", document).complaining(
                Complaint::new(format!(
                    "profile {name} is set to stay stopped (`desired`), so it was not started"
                ))
                .advising(format!("`incumbent desired running --profile {name}`")),
            )
        }
    }
}

/// Executes this very program again, with words in its command line that later versions of the
/// older program look for. Nothing was opened or started yet. A user who writes that option is left
/// alone. Returns where that was not needed, or cannot be.
fn become_known(arguments: &args::Run, directory: &Path) {
    if !arguments.known_as.is_empty() {
        return;
    }
    let home = std::fs::canonicalize(directory);
    let Some(known) = home.ok().and_then(|home| run::words_known_to_older(&home)) else { return };
    let words: Vec<OsString> = std::env::args_os().collect();
    // The command is what is last, with or without `--` before it.
    let Some(at) = words.len().checked_sub(arguments.command.len()) else { return };
    let (ours, command) = words.split_at(at);
    let ours = ours.strip_suffix(&[OsString::from("--")]).unwrap_or(ours);
    let known_as = std::iter::once(OsString::from("--known-as")).chain(known);
    let argv: Vec<OsString> = ours
        .iter()
        .cloned()
        .chain(known_as)
        .chain(std::iter::once("--".into()))
        .chain(command.iter().cloned())
        .collect();
    let Err(error) = run::execute_again(&argv);
    tracing::debug!(%error, "later versions of the older gateway may not recognise this run");
}
