//! The claim of a `run`, and what it says about it.

use std::time::Duration;

use crate::claim::examine::ATTEMPTS;
use crate::claim::examine::changes_too_fast;
use crate::cli::keeper::document;
use crate::cli::output::{Answer, Complaint, Format};
use crate::cli::run::inbox::{Event, Inbox, LOOK_EVERY, Signalled};
use crate::cli::{args, output};
use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::forensics::systemd;
use crate::office::claim::Claim;
use crate::office::options::{ClaimOptions, Replace};
use crate::office::profile::Profile;
use crate::office::tenure::Tenure;
use crate::process::exit_code::{ExitCause, ExitCodes};
use crate::process::older::hold;
use crate::process::older::hold::Hold;
use crate::process::older::wire::Owner;
use crate::scoped::ask;
use crate::sys;
use crate::sys::supervise;
use crate::{Desired, Evicted, Holder};

/// Claims the office, and with it the lock of the older program if that is wanted. Whoever takes
/// that lock between the two is met by the next claim, which refuses us.
pub(super) fn claim_with_older(
    profile: &Profile,
    options: &ClaimOptions,
    arguments: &args::Run,
    inbox: &Inbox,
) -> Result<(Claimed, Option<Hold>)> {
    let secrets: Vec<_> = options.locks.iter().map(|lock| &lock.identity).collect();
    let argv = hold::command_words(&arguments.command, &secrets);
    for _ in 0..ATTEMPTS {
        let claimed = claim(profile, options, inbox)?;
        let (Claimed::Granted(_), Some(home)) = (&claimed, &options.legacy_home) else {
            return Ok((claimed, None));
        };
        let inner = &profile.store().inner;
        let owner = Owner {
            store: inner.store_uuid()?.to_owned(),
            db: profile.store().path().display().to_string(),
            profile: profile.name().to_string(),
        };
        if let Some(hold) = Hold::take(home, inner.observer(), argv.clone(), owner)? {
            return Ok((claimed, Some(hold)));
        }
    }
    Err(changes_too_fast(&profile.office(&options.kind)))
}

pub(super) fn replace(arguments: &args::Run) -> Replace {
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

pub(super) fn is_to_stay_stopped(arguments: &args::Run, profile: &Profile) -> Result<bool> {
    Ok(arguments.respect_desired && profile.desired()? == Some(Desired::Stopped))
}

pub(super) fn stays_stopped(profile: &Profile, format: Format, exit_codes: &ExitCodes) -> Answer {
    let mut document = document(None, None, None, None);
    document["reason"] = ExitCause::DesiredStopped.as_str().into();
    let name = profile.name();
    let code = exit_codes.code(ExitCause::DesiredStopped, 0, None);
    Answer::new(code, format, "", &document).complaining(
        Complaint::new(format!(
            "profile {name} is set to stay stopped (`desired`), so it was not started"
        ))
        .advising(format!("`incumbent desired running --profile {name}`")),
    )
}

pub(super) fn tell_whose_place_we_took(tenure: &Tenure) {
    let pid = |pid: Option<sys::Pid>| {
        pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"))
    };
    let office = tenure.office();
    if let Some(replaced) = tenure.replaced() {
        let how = if replaced.killed { ", which had to be killed" } else { "" };
        let whose = replaced.profile.as_ref().filter(|profile| **profile != office.profile);
        let whose = whose.map_or_else(String::new, |profile| format!(" (profile {profile})"));
        output::tell(&format!(
            "incumbent: run: {office}: took over from {}{whose}{how}\n",
            pid(replaced.pid)
        ));
        for process in &replaced.left_over {
            let command = process.command.as_deref().unwrap_or("its command cannot be read");
            output::tell(&format!(
                "incumbent: run: {office}: pid {} ({command}), which that one had started, still \
                 runs (`--reap` ends such processes)\n",
                process.pid
            ));
        }
    }
    if let Some(evicted) = tenure.evicted().filter(|evicted| evicted.reason != "re_executed") {
        tell_of_evicted(office, evicted);
    }
    for lock in tenure.locks() {
        // Of one that was replaced, enough has been said.
        let replaced = tenure.replaced().map(|replaced| replaced.instance);
        if let Some(evicted) =
            lock.evicted.as_ref().filter(|evicted| Some(evicted.instance) != replaced)
        {
            tell_of_evicted(&lock.name, evicted);
        }
    }
}

fn tell_of_evicted(what: &dyn std::fmt::Display, evicted: &Evicted) {
    let who = evicted.pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"));
    let reason = evicted.reason.replace('_', " ");
    output::tell(&format!(
        "incumbent: run: {what}: took the place of {who}, which is dead ({reason})\n"
    ));
    for pid in &evicted.ended {
        output::tell(&format!(
            "incumbent: run: {what}: ended pid {pid}, which that one had left behind\n"
        ));
    }
    for pid in &evicted.left_alone {
        output::tell(&format!(
            "incumbent: run: {what}: pid {pid} left the session of that one's command, and is left \
             alone\n"
        ));
    }
}

/// Says so if systemd would kill the command before its time to stop is over. Aside, because asking
/// takes up to two seconds.
pub(super) fn warn_of_short_unit(budget: Duration) {
    let ask = move || {
        if let Some(warning) = systemd::warn_if_short(budget) {
            output::tell(&format!("incumbent: run: {warning}\n"));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("incumbent-systemd".into()).spawn(ask) {
        tracing::debug!(%error, "systemd was not asked how long it waits");
    }
}

pub(crate) enum Claimed {
    Granted(Tenure),
    Held(Box<Holder>),
    Signalled(Signalled),
}

/// Claims, waiting if asked to; a signal that asks us to end ends the wait.
fn claim(profile: &Profile, options: &ClaimOptions, inbox: &Inbox) -> Result<Claimed> {
    let claim = || profile.claim_with(options);
    let (claim, signal) = if options.wait.waits() || options.replace.is_some() {
        inbox.while_waiting(&options.cancel, claim)
    } else {
        (claim(), None)
    };
    Ok(match (claim?, signal) {
        // Granted in the very moment of the signal: dropping the tenure releases it.
        (Claim::Granted(_) | Claim::Held(_), Some(signal)) => Claimed::Signalled(signal),
        (Claim::Granted(tenure), None) => Claimed::Granted(tenure),
        (Claim::Held(holder), None) => Claimed::Held(holder),
    })
}

pub(super) fn refused(holder: &Holder, format: Format, exit_codes: &ExitCodes) -> Answer {
    let code = exit_codes.code(ExitCause::Refused, 0, None);
    Answer::new(code, format, "", &document(None, None, None, Some(holder)))
        .complaining(Complaint::new(holder.to_string()).advising(holder.advice()))
}

/// Waits out the backoff of a storm that our party is in. Returns the signal that ended the wait.
pub(super) fn sit_out_storm(
    profile: &Profile,
    options: &ClaimOptions,
    inbox: &Inbox,
) -> Result<Option<Signalled>> {
    let kind = &options.kind;
    let inner = &profile.store().inner;
    let Some(storm) = profile.storm(kind, inner.myself())? else { return Ok(None) };
    let remaining_ms = storm.remaining_ms(inner.clock().boot_ms());
    if remaining_ms == 0 {
        return Ok(None);
    }
    // Nobody is kept out of a free office by a storm that was about its holder.
    let is_over = || {
        Ok::<_, Error>(
            storm.after_refusal
                && profile.status_of(kind)?.verdict == "dead"
                && !ask::any_is_held(inner, &options.locks)?,
        )
    };
    if is_over()? {
        return Ok(None);
    }
    output::tell(&format!(
        "incumbent: run: {} starts in a row failed: waiting {} before the next \
         (`--no-backoff` starts at once)\n",
        storm.starts,
        crate::clock::length(i64::try_from(remaining_ms).unwrap_or(i64::MAX)),
    ));
    let until = Deadline::after(Duration::from_millis(remaining_ms));
    while !until.has_passed() && !is_over()? {
        match inbox.received.recv_timeout(LOOK_EVERY.min(until.remaining())) {
            Ok(Event::Signal(signal)) => {
                if let Some(signalled) = Signalled::of(&signal) {
                    return Ok(Some(signalled));
                }
            }
            // As PID 1 we reap orphans meanwhile, too; nothing of ours runs yet.
            Ok(Event::ChildEnded) => drop(supervise::reap()),
            Err(_) => {}
        }
    }
    Ok(None)
}
