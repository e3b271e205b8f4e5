//! The claim of a run, with what comes before it (a storm is waited out) and what is said of it.

use crate::claim::examine::Evicted;
use crate::claim::{ATTEMPTS, changes_too_fast};
use crate::clock::Deadline;
use crate::forensics::systemd;
use crate::keeper::release::current_run;
use crate::process::older::hold;
use crate::process::older::hold::Hold;
use crate::process::older::wire::HoldingRun;
use crate::records::profiles::Desired;
use crate::run::inbox::{Inbox, LOOK_EVERY, RunEvent, Signalled};
use crate::run::notice::Notice;
use crate::run::plan::{Extent, Run};
use crate::scoped::ask;
use crate::sys::supervise;
use crate::{Claim, Error, ErrorKind, Holder, Profile, Reason, Result, Tenure, Verdict};

pub(crate) enum Claimed {
    Granted(Tenure),
    Held(Box<Holder>),
    Signalled(Signalled),
}

impl Run {
    /// Claims the office, and with it the lock of the older program if that is wanted. Whoever
    /// takes that lock between the two is met by the next claim, which refuses us.
    pub(super) fn claim_with_older(
        &self,
        profile: &Profile,
        inbox: &Inbox,
    ) -> Result<(Claimed, Option<Hold>)> {
        let secrets: Vec<_> = self.claim.locks.iter().map(|lock| &lock.identity).collect();
        let argv = hold::command_words(&self.command, &secrets);
        for _ in 0..ATTEMPTS {
            let claimed = self.claim_office(profile, inbox)?;
            let (Claimed::Granted(_), Some(home)) = (&claimed, &self.claim.legacy_home) else {
                return Ok((claimed, None));
            };
            let inner = &profile.store().inner;
            let owner = HoldingRun {
                store: inner.store_uuid()?.to_owned(),
                db: profile.store().path().display().to_string(),
                profile: profile.name().to_string(),
            };
            if let Some(hold) = Hold::take(home, inner.observer(), argv.clone(), owner)? {
                return Ok((claimed, Some(hold)));
            }
        }
        Err(changes_too_fast(&profile.office(&self.claim.kind)))
    }

    /// Claims, waiting if asked to; a signal that asks us to end ends the wait.
    fn claim_office(&self, profile: &Profile, inbox: &Inbox) -> Result<Claimed> {
        // This plan may be run again: a signal ends this wait, and no other one.
        let cancel = self.claim.cancel.for_one_wait();
        let options = &self.claim.clone().cancel(cancel.clone());
        let claim = || profile.claim_for_run(options);
        let (claim, signal) = if options.wait.waits() || options.replace.is_some() {
            inbox.while_waiting(&cancel, claim)
        } else {
            (claim(), None)
        };
        Ok(match (claim?, signal) {
            // Granted in the very moment of the signal: dropping the tenure releases it.
            (Claim::Granted(_), Some(signal)) => {
                self.tell_of_no_start(profile, &signal, None);
                Claimed::Signalled(signal)
            }
            (Claim::Held(holder), Some(signal)) => {
                self.tell_of_no_start(profile, &signal, Some(&holder));
                Claimed::Signalled(signal)
            }
            (Claim::Granted(tenure), None) => Claimed::Granted(tenure),
            (Claim::Held(holder), None) => Claimed::Held(holder),
        })
    }

    /// Whoever waited is told how things stand.
    fn tell_of_no_start(&self, profile: &Profile, signal: &Signalled, holder: Option<&Holder>) {
        let office = &profile.office(&self.claim.kind);
        let asked = self.claim.replace.is_some()
            && holder.is_some_and(|holder| holder.reason == Reason::TimedOut);
        (self.tell)(&Notice::NotStarted { office, signal: signal.number, holder, asked });
    }

    /// Whoever waits for the end of what it is in waits for its own.
    pub(super) fn tell_of_own_run(&self, profile: &Profile) {
        if !self.claim.wait.waits() && self.claim.replace.is_none() {
            return;
        }
        let office = profile.office(&self.claim.kind);
        if let Ok(Some(run)) = current_run(profile.store())
            && run.office().as_ref() == Some(&office)
            && let Some(pid) = run.pid
        {
            (self.tell)(&Notice::InOwnRun { office: &office, pid });
        }
    }

    pub(super) fn is_to_stay_stopped(&self, profile: &Profile) -> Result<bool> {
        Ok(self.respects_desired && profile.desired()? == Some(Desired::Stopped))
    }

    pub(super) fn tell_whose_place_we_took(&self, tenure: &Tenure) {
        let office = tenure.office();
        if let Some(from) = tenure.replaced() {
            (self.tell)(&Notice::TookOver { office, from });
            for process in &from.left_over {
                (self.tell)(&Notice::LeftOver { office, process });
            }
        }
        if let Some(evicted) =
            tenure.evicted().filter(|evicted| evicted.reason != Reason::ReExecuted)
        {
            self.tell_of_evicted(&office.to_string(), evicted);
        }
        // Of one that was replaced, enough has been said.
        let replaced = tenure.replaced().map(|replaced| replaced.instance);
        for lock in tenure.locks() {
            let evicted = lock.evicted.as_ref();
            if let Some(evicted) = evicted.filter(|evicted| Some(evicted.instance) != replaced) {
                self.tell_of_evicted(&lock.name.to_string(), evicted);
            }
        }
    }

    fn tell_of_evicted(&self, what: &str, evicted: &Evicted) {
        (self.tell)(&Notice::Evicted { what, evicted });
        for &pid in &evicted.ended {
            (self.tell)(&Notice::EndedRemains { what, pid });
        }
        for &pid in &evicted.left_alone {
            (self.tell)(&Notice::LeftAlone { what, pid });
        }
    }

    /// Says so if systemd would kill the command before its time to stop is over. Aside, because
    /// asking takes up to two seconds.
    pub(super) fn warn_of_short_unit(&self) {
        let (budget, tell) = (self.claim.stop_budget, self.tell.clone());
        let ask = move || {
            if let Some(warning) = systemd::warn_if_short(budget) {
                tell(&Notice::ShortUnit { warning });
            }
        };
        if let Err(error) = std::thread::Builder::new().name("incumbent-systemd".into()).spawn(ask)
        {
            tracing::debug!(%error, "systemd was not asked how long it waits");
        }
    }

    /// Waits out the backoff of a storm that our party is in. Returns the signal that ended the
    /// wait.
    pub(super) fn sit_out_storm(
        &self,
        profile: &Profile,
        inbox: &Inbox,
    ) -> Result<Option<Signalled>> {
        let kind = &self.claim.kind;
        let inner = &profile.store().inner;
        let Some(backoff) = profile.backoff(kind)? else { return Ok(None) };
        if backoff.pause.is_zero() {
            return Ok(None);
        }
        // Nobody is kept out of a free office by a storm that was about its holder.
        let is_over = || {
            Ok::<_, Error>(
                backoff.after_refusal
                    && profile.status_of(kind)?.verdict == Verdict::Dead
                    && !ask::any_is_held(inner, &self.claim.locks)?,
            )
        };
        if is_over()? {
            return Ok(None);
        }
        (self.tell)(&Notice::Storm { starts: backoff.starts, wait: backoff.pause });
        let until = Deadline::after(backoff.pause);
        while !until.has_passed() && !is_over()? {
            if self.claim.cancel.ends_wait() {
                let why = "the wait after failed starts was cancelled";
                return Err(Error::new(ErrorKind::Busy, why)
                    .with_hint("`Run::without_backoff` starts at once")
                    .with_retry_after(until.remaining()));
            }
            match inbox.received.recv_timeout(LOOK_EVERY.min(until.remaining())) {
                Ok(RunEvent::Signal(signal)) => {
                    if let Some(signalled) = Signalled::of(&signal) {
                        self.tell_of_no_start(profile, &signalled, None);
                        return Ok(Some(signalled));
                    }
                }
                // As PID 1 we reap orphans meanwhile, too; nothing of ours runs yet.
                Ok(RunEvent::ChildEnded) if self.extent == Extent::Whole => drop(supervise::reap()),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }
}
