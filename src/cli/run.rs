//! `run`: says what is to be run, and prints what the run tells.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use crate::cli::advice::Invocation;
use crate::cli::args::Global;
use crate::cli::keeper::document;
use crate::cli::output::{Answer, Complaint, Outcome};
use crate::cli::{args, identity, output};
use crate::exit::{ExitCause, ExitCodes, ExitRule, Supervisor};
use crate::process::older::wire;
use crate::run::notice::Notice;
use crate::run::{Finished, How, Run};
use crate::stop::Replace;
use crate::sys::supervise;
use crate::{ClaimOptions, Error};

pub(super) fn run(global: &Global, arguments: &args::Run) -> Outcome {
    if arguments.command.first().is_none_or(|program| program.is_empty()) {
        return Err(Error::invalid("the command is empty")
            .with_hint("name it after `--`, e.g. `incumbent run -- my-gateway --serve`"));
    }
    let home = global.check()?;
    let mut options = ClaimOptions::new()
        .kind(global.kind()?)
        .stop_budget(arguments.stop_budget)
        .wait(arguments.wait.unwrap_or_default())
        .for_run(identity::requests(arguments)?);
    if arguments.replace {
        options = options.replace(replace(arguments));
    }
    options.stop_budget_ms()?;
    if let Some(directory) = &arguments.legacy_home {
        options = options.beside_older_program(directory)?;
        if let Some(home) = &options.legacy_home {
            become_known(arguments, home);
        }
    }
    let invocation = Invocation::of(global);
    let run = Run {
        command: arguments.command.clone(),
        store: global.options(),
        profile: global.profile_name()?,
        home,
        claim: options,
        respects_desired: arguments.respect_desired,
        backs_off: !arguments.no_backoff,
        exit_codes: exit_codes(arguments),
        tell: Arc::new(move |notice| tell(&invocation, notice)),
    };
    let finished = run.run();
    output::finish_telling();
    Ok(answer(global, &run, finished?))
}

fn replace(arguments: &args::Run) -> Replace {
    let mut replace = Replace::new();
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
    let advice = notice.advice().map(|advice| format!("; {}", invocation.complete(advice)));
    let advice = advice.unwrap_or_default();
    output::tell(&format!("incumbent: run: {notice}{advice}\n"));
}

fn answer(global: &Global, run: &Run, finished: Finished) -> Answer {
    let code = finished.exit_code;
    match finished.how {
        How::Ended => Answer::silent(code),
        How::Failed(error) => Answer::failed(code, &Invocation::of(global), &error),
        How::Refused(holder) => {
            let document = document(None, None, None, Some(&holder));
            Answer::new(code, "", document)
                .complaining(Complaint::new(holder.to_string()).advising(holder.advice()))
        }
        How::StaysStopped => {
            let mut document = document(None, None, None, None);
            document["reason"] = ExitCause::DesiredStopped.as_str().into();
            let name = &run.profile;
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
/// older program look for: they believe the command line of a live process before its record, and
/// remove the files of one that they do not know (FIELD-BUGS row 138). Nothing was opened or
/// started yet; the pid, the environment, the descriptors and the parent stay as they are. A user
/// who writes that option is left alone. Returns where that was not needed, or cannot be.
fn become_known(arguments: &args::Run, home: &Path) {
    let words: Vec<OsString> = std::env::args_os().collect();
    if !arguments.known_as.is_empty() || wire::is_known_line(&words) {
        return;
    }
    let Some(at) = words.iter().position(|word| word == "--") else { return };
    let known_as = std::iter::once(OsString::from("--known-as")).chain(wire::known_words(home));
    let argv: Vec<OsString> =
        words[..at].iter().cloned().chain(known_as).chain(words[at..].iter().cloned()).collect();
    let error = supervise::execute_again(&argv);
    tracing::debug!(%error, "later versions of the older gateway may not recognise this run");
}
