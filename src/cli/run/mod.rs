//! `run`: claims the office, starts a command that does not outlive it, and stays with it.
//!
//! It waits for the office in the main thread, which also forks the command (see the trampoline in
//! `sys/supervise_unix.rs`). The thread that catches signals cancels the wait, and reaps meanwhile.

pub(crate) mod claim;
pub(crate) mod end;
pub(crate) mod inbox;
pub(crate) mod new_store;
mod older;
pub(crate) mod requests;
pub(crate) mod restart;
mod running;
pub(crate) mod start;

use crate::Released;
use crate::claim::older as claim_older;
use crate::cli::advice::Invocation;
use crate::cli::args::Global;
use crate::cli::output::{Answer, Format, Outcome};
use crate::cli::run::claim::Claimed;
use crate::cli::run::inbox::Inbox;
use crate::cli::run::running::{LOOK_BUDGET, Running};
use crate::cli::run::start::NotStarted;
use crate::cli::{args, identity, output};
use crate::error::{Error, ErrorKind, Result};
use crate::office::options::ClaimOptions;
use crate::process::exit_code::{ExitCause, ExitCodes, ExitRule, Supervisor};
use crate::process::older::hold;
use crate::store::busy::with_budget;
use crate::sys::supervise;

pub(super) fn run(global: &Global, arguments: &args::Run, format: Format) -> Outcome {
    if arguments.command.first().is_none_or(|program| program.is_empty()) {
        return Err(Error::invalid("the command is empty")
            .with_hint("name it after `--`, e.g. `incumbent run -- my-gateway --serve`"));
    }
    global.check()?;
    let mut options = ClaimOptions::new()
        .kind(global.kind()?)
        .stop_budget(arguments.stop_budget)
        .wait(arguments.wait.unwrap_or_default())
        .for_run(identity::requests(arguments)?);
    if arguments.replace {
        options = options.replace(claim::replace(arguments));
    }
    options.stop_budget_ms()?;
    if let Some(directory) = &arguments.legacy_home {
        let home = claim_older::home(directory, &options.kind)?;
        older::become_known(arguments, &home);
        options.legacy_home = Some(home);
    }
    let exit_codes = exit_codes(arguments);
    // A gateway that works is not ended for a command that cannot.
    if arguments.replace
        && let Some(program) = arguments.command.first()
        && let Err(failure) = supervise::find_program(program)
    {
        return Ok(start::show_not_executed(global, &failure, arguments, format).0);
    }
    if arguments.replace
        && let Some(home) = &options.legacy_home
    {
        hold::check_usable(home)?;
    }
    let inbox = Inbox::open()?;
    let store = global.options().open()?;
    let profile = global.profile(&store)?;
    if claim::is_to_stay_stopped(arguments, &profile)? {
        return Ok(claim::stays_stopped(&profile, format, &exit_codes));
    }
    if !arguments.no_backoff
        && let Some(signalled) = claim::sit_out_storm(&profile, &options, &inbox)?
    {
        return Ok(Answer::silent(signalled.exit_code(&exit_codes)));
    }
    let (tenure, hold) = match claim::claim_with_older(&profile, &options, arguments, &inbox)? {
        (Claimed::Granted(tenure), hold) => (tenure, hold),
        (Claimed::Held(holder), _) => return Ok(claim::refused(&holder, format, &exit_codes)),
        (Claimed::Signalled(signalled), _) => {
            return Ok(Answer::silent(signalled.exit_code(&exit_codes)));
        }
    };
    // A person may have said so while we waited.
    if claim::is_to_stay_stopped(arguments, &profile)? {
        drop(hold);
        drop(tenure);
        return Ok(claim::stays_stopped(&profile, format, &exit_codes));
    }
    claim::tell_whose_place_we_took(&tenure);
    // Everything that can fail comes before the command: once it runs, the office must not be
    // released under it.
    let watcher = store.inner.watcher()?;
    match start::start(&arguments.command, &tenure, &store, Some(&inbox)) {
        Ok(Some(started)) => {
            claim::warn_of_short_unit(arguments.stop_budget);
            // A store that is lost is let go of as a whole.
            drop(profile);
            let run = Running::new(global, arguments, format, options, exit_codes);
            run.supervise(&inbox, store, watcher, tenure, hold, started)
        }
        Ok(None) => {
            let error =
                Error::new(ErrorKind::NotOwner, "the office was lost before the command started")
                    .with_hint("`incumbent events` says by whom, `incumbent status` who holds it");
            let code = exit_codes.code(ExitCause::Refused, 0, None);
            Ok(Answer::failed(code, format, &Invocation::of(global), &error))
        }
        Err(NotStarted::Error(error)) => Err(error),
        Err(NotStarted::Signalled(signalled)) => {
            drop(hold);
            // The store is busy. The office is free in any case, and the next claim records that.
            with_budget(LOOK_BUDGET, || drop(tenure));
            Ok(Answer::silent(signalled.exit_code(&exit_codes)))
        }
        Err(NotStarted::Exec(failure)) => {
            drop(hold);
            Ok(start::not_executed(global, &store, tenure, &failure, arguments, format))
        }
    }
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

fn report_release(released: Result<Released>) {
    match released {
        Ok(Released::Free | Released::StillShared | Released::WasLost) => {}
        Ok(Released::Pending(error)) | Err(error) => {
            // The line before may still be waiting for a reader: nobody's end waits for that.
            output::tell_aside(&format!(
                "incumbent: run: the end could not be recorded ({error}); the office is free all \
                 the same, and the next claim records it\n"
            ));
            output::finish_telling();
        }
    }
}
