//! The command line: parses, asks the library, prints. Not part of the library's interface.

mod advice;
mod after_end;
mod answer;
mod args;
mod backup;
pub(crate) mod claim;
pub(crate) mod context;
mod doctor;
mod each;
mod events;
mod evict;
mod forensics;
mod history;
pub(crate) mod identity;
mod interrupt;
mod legacy;
pub(crate) mod lock;
mod locks;
pub(crate) mod lost_store;
mod marker;
mod metrics;
mod missing;
mod nature;
pub(crate) mod output;
mod printable;
mod process_status;
mod progress;
mod restart;
mod run;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod sentences;
mod signal;
mod sql;
mod statements;
mod status;
mod status_set;
mod stop;
mod style;
mod to_do;
mod unit;
mod usage;
mod wait;
mod waiting;
mod words;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};
use serde_json::json;

use crate::cli::advice::Invocation;
use crate::cli::answer::{Answer, Outcome};
use crate::cli::args::{Cli, Global, Verb};
use crate::cli::output::{Format, exit};
use crate::sys::signals;
use crate::{Error, helper, path_text};

/// Runs the command line `arguments`, the program's name first; returns the exit code.
#[must_use]
pub fn main(arguments: &[OsString]) -> i32 {
    if let Some(exit_code) = helper::serve(arguments) {
        return exit_code;
    }
    signals::survive_file_size_limit();
    match parse(arguments) {
        Ok(cli) => {
            let exit_code = dispatch(&cli, arguments);
            // The process ends.
            std::mem::forget(cli);
            exit_code
        }
        Err(error) => usage::show(error, arguments),
    }
}

/// As `Parser::try_parse_from`; but what all verbs and options are described by is not taken apart
/// again piece by piece, for a process that ends.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let parsed = command.try_get_matches_from_mut(arguments).and_then(|mut matches| {
        Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    });
    std::mem::forget(command);
    parsed
}

fn dispatch(cli: &Cli, arguments: &[OsString]) -> i32 {
    let format = if cli.global.json { Format::Json } else { Format::Text };
    let before = missing::store_at(cli);
    let (name, outcome): (_, Outcome) = match &cli.verb {
        Verb::Run(arguments) => ("run", run::run(&cli.global, arguments)),
        Verb::Status(arguments) => ("status", status::status(&cli.global, arguments, format)),
        Verb::Wait(arguments) => ("wait", wait::wait(&cli.global, arguments)),
        Verb::StatusSet(arguments) => {
            ("status-set", status_set::status_set(&cli.global, arguments))
        }
        Verb::Claim(arguments) => ("claim", claim::claim(&cli.global, arguments)),
        Verb::Release(arguments) => ("release", claim::release(&cli.global, arguments)),
        Verb::Evict(arguments) => ("evict", evict::evict(&cli.global, arguments)),
        Verb::Stop(arguments) => ("stop", stop::stop(&cli.global, arguments)),
        Verb::Restart(arguments) => ("restart", restart::restart(&cli.global, arguments)),
        Verb::Signal(arguments) => ("signal", signal::signal(&cli.global, arguments)),
        Verb::Desired { desired } => ("desired", stop::desired(&cli.global, *desired)),
        Verb::Marker(args::Marker::Write(arguments)) => {
            ("marker write", marker::write(&cli.global, arguments))
        }
        Verb::Marker(args::Marker::Peek(arguments)) => {
            ("marker peek", marker::peek(&cli.global, arguments))
        }
        Verb::Marker(args::Marker::Consume(arguments)) => {
            ("marker consume", marker::consume(&cli.global, arguments))
        }
        Verb::Marker(args::Marker::Clear(arguments)) => {
            ("marker clear", marker::clear(&cli.global, arguments))
        }
        Verb::Lock(args::Lock::Acquire(arguments)) => {
            ("lock acquire", lock::acquire(&cli.global, arguments))
        }
        Verb::Lock(args::Lock::Renew(arguments)) => {
            ("lock renew", lock::renew(&cli.global, arguments))
        }
        Verb::Lock(args::Lock::Verify(arguments)) => {
            ("lock verify", lock::verify(&cli.global, arguments))
        }
        Verb::Lock(args::Lock::Release(arguments)) => {
            ("lock release", lock::release(&cli.global, arguments))
        }
        Verb::Locks(arguments) => ("locks", locks::locks(&cli.global, arguments)),
        Verb::Unlock(arguments) => ("unlock", locks::unlock(&cli.global, arguments)),
        Verb::History(arguments) => ("history", history::history(&cli.global, arguments)),
        Verb::Events(arguments) => ("events", events::events(&cli.global, arguments, format)),
        Verb::Unit(arguments) => ("unit", unit::unit(&cli.global, arguments)),
        Verb::Forensics(args::Forensics::Snapshot(arguments)) => {
            ("forensics snapshot", forensics::snapshot(&cli.global, arguments))
        }
        Verb::Forensics(args::Forensics::Systemd(arguments)) => {
            ("forensics systemd", forensics::systemd(&cli.global, arguments))
        }
        Verb::Forensics(args::Forensics::Diagnose(arguments)) => {
            ("forensics diagnose", forensics::diagnose(&cli.global, arguments))
        }
        Verb::Doctor(arguments) => ("doctor", doctor::doctor(&cli.global, arguments)),
        Verb::Import(arguments) => ("import", legacy::import(&cli.global, arguments)),
        Verb::Export(arguments) => ("export", legacy::export(&cli.global, arguments)),
        Verb::Backup(arguments) => ("backup", backup::backup(&cli.global, arguments)),
        Verb::Path => ("path", path(&cli.global)),
        Verb::Sql(arguments) => ("sql", sql::sql(&cli.global, arguments, format)),
        Verb::Completions { shell } => ("completions", Ok(completions(*shell))),
        Verb::Man => ("man", man()),
        Verb::Help { topic } => ("help", words::help(topic)),
    };
    // `wait` may have waited for it.
    let misplaced = before.filter(|_| missing::store_at(cli).is_some());
    let invocation = Invocation::of_call(&cli.global, &cli.verb, arguments);
    if let Some(complaint) = misplaced {
        complaint.tell(&invocation, name);
    }
    let answer = outcome.unwrap_or_else(|error| Answer::error(&invocation, &error));
    let code = answer.deliver(format, &invocation, name, cli.verb.nature());
    interrupt::end_by_it(code);
    code
}

fn path(global: &Global) -> Outcome {
    let path = global.options().resolved_path()?;
    let mut document = json!({});
    path_text::put(&mut document, "path", &path);
    // For `$(incumbent path)`.
    let line = [path.as_os_str().as_encoded_bytes(), b"\n"].concat();
    Ok(Answer::data(exit::OK, line).or_document(document))
}

fn completions(shell: clap_complete::Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "incumbent", &mut script);
    Answer::bytes(exit::OK, script)
}

/// One page: the program, then each verb.
fn man() -> Outcome {
    let mut page = Vec::new();
    let command = Cli::command();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .and_then(|()| render_verbs(&command, "incumbent", &mut page))
        .map_err(|error| Error::internal(format!("cannot make the manual page: {error}")))?;
    Ok(Answer::bytes(exit::OK, page))
}

fn render_verbs(command: &clap::Command, prefix: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    for verb in command.get_subcommands() {
        let name = format!("{prefix}-{}", verb.get_name());
        let section = clap_mangen::Man::new(verb.clone().name(name.clone()).bin_name(&name));
        section.render_synopsis_section(page)?;
        section.render_description_section(page)?;
        section.render_options_section(page)?;
        // What a verb has below it is made when it is met, or by this.
        let mut verb = verb.clone();
        verb.build();
        render_verbs(&verb, &name, page)?;
    }
    Ok(())
}
