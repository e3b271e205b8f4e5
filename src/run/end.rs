//! How a command ended, and what the `run` makes of it.

use crate::environment::{Fault, planted};
use crate::names::MarkerName;
use crate::owner::autopsy;
use crate::patience::with_budget;
use crate::process::exit_code::ExitCause;
use crate::records::{End, EndReason, Identities, instances, runtime};
use crate::run::inbox::Signalled;
use crate::run::notice::Notice;
use crate::run::on_end::{Account, Next};
use crate::run::plan::Run;
use crate::run::supervised::{Ending, LOOK_BUDGET, Supervised, Unseen, Why};
use crate::sys::{ChildEnd, signals};
use crate::{Released, Result, sys};

impl Supervised<'_> {
    /// Records how the command ended; the exit code that tells our supervisor.
    pub(super) fn finish(mut self, end: ChildEnd) -> i32 {
        self.take_older_marker();
        with_budget(LOOK_BUDGET, || self.mirror());
        drop(self.hold.take());
        let own = match end {
            ChildEnd::Exited(code) => code,
            ChildEnd::Signalled(_) if planted(Fault::KilledIsZero) => 0,
            ChildEnd::Signalled(signal) => 128 + signal,
        };
        let asked = self.asked.as_ref().filter(|asked| asked.explains(end));
        let asked = asked.map(|asked| asked.signal.clone());
        let how = how_it_ended(end, asked.as_ref());
        let stderr = self.last_words();
        if self.ending.as_ref().is_some_and(|ending| ending.why.is_lost()) {
            let account = self.account(&how, stderr, Next::Nothing);
            drop(self.tenure);
            if let Some(account) = account {
                account.tell(self.run, &self.store.inner);
            }
            return self.run.exit_codes.code(ExitCause::Refused, own, None);
        }
        // Lost in this very second: the end goes on record where others look. Not in a store that
        // somebody took away with us in it.
        if !self.store.inner.is_in_place() && sys::file_facts(self.store.path()).is_ok() {
            // Whoever waits for our exit does not wait for a busy store.
            if let Err(why) = with_budget(LOOK_BUDGET, || self.claim_in_new_store()) {
                self.tell_lost(&why);
            }
        }
        self.record_last_words(stderr.as_deref());
        let cause = self.cause(&how, asked.as_ref());
        let account = self.account(&how, stderr, Next::Nothing);
        // Before the office: whoever has that next may write his own.
        drop(self.beside.pid_file.take());
        match self.unseen.take() {
            Some(Unseen { error, .. }) => {
                self.tenure.abandon();
                self.run.report_release(Ok(Released::Pending(error)));
            }
            None => self.run.report_release(self.tenure.end(&how)),
        }
        if let Some(account) = account {
            account.tell(self.run, &self.store.inner);
        }
        self.run.exit_codes.code(cause, own, asked.map(|signal| signal.number))
    }

    /// The command has ended, and is started again.
    pub(super) fn tell_end_before_restart(&self, end: ChildEnd) {
        let asked = self.asked.as_ref().filter(|asked| asked.explains(end));
        let how = how_it_ended(end, asked.map(|asked| &asked.signal));
        let account = self.account(&how, self.last_words(), Next::Restart);
        if let Some(account) = account {
            account.tell(self.run, &self.store.inner);
        }
    }

    /// What is told of an end, if somebody is told.
    fn account(&self, how: &End, stderr: Option<String>, next: Next) -> Option<Account> {
        self.run.on_end.as_ref()?;
        let db = self.store.path().to_owned();
        Some(Account::new(&self.tenure, db, how.clone(), stderr, next))
    }

    /// What the command last wrote to its standard error, without secrets.
    fn last_words(&self) -> Option<String> {
        let kept = self.beside.stderr.as_ref()?;
        kept.take_with(|words| Identities::known_to(&self.store.inner).text(words))
    }

    /// They go on record with the end.
    fn record_last_words(&self, words: Option<&str>) {
        let Some(words) = words else { return };
        let row = &self.tenure.footing;
        let noted = with_budget(LOOK_BUDGET, || {
            row.inner.write(|tx| instances::add_stderr(tx, row.instance, &row.nonce_hash, words))
        });
        if let Err(error) = noted {
            tracing::debug!(%error, "what the command wrote last is not on record");
        }
    }

    /// Why the command ended: what the history will say of it. Where the store does not tell, what
    /// it told last.
    fn cause(&self, how: &End, asked: Option<&Signalled>) -> ExitCause {
        let (inner, id) = (&self.store.inner, self.tenure.instance());
        let told = with_budget(LOOK_BUDGET, || {
            inner.read(|connection| {
                let end = autopsy::explain(connection, inner, id, how)?;
                Ok((end, runtime::is_starting(connection, id)?))
            })
        });
        let was_starting = matches!(told, Ok((_, true)));
        let reason = match (told, &self.ending) {
            (Ok((end, _)), _) => end.reason,
            (Err(_), Some(Ending { why: Why::End(marker), .. })) => {
                if marker.name.as_str() == MarkerName::TAKEOVER {
                    EndReason::TakenOver
                } else {
                    EndReason::PlannedStop
                }
            }
            (Err(_), _) => how.reason,
        };
        match reason {
            EndReason::PlannedStop => ExitCause::PlannedStop,
            EndReason::TakenOver => ExitCause::TakenOver,
            EndReason::Signalled => {
                let cause = asked.map_or(ExitCause::Exited, |asked| asked.cause);
                if was_starting { self.run.exit_codes.cause_while_starting(cause) } else { cause }
            }
            _ => ExitCause::Exited,
        }
    }
}

impl Run {
    pub(super) fn report_release(&self, released: Result<Released>) {
        match released {
            Ok(Released::Free | Released::StillShared | Released::WasLost) => {}
            Ok(Released::Pending(error)) | Err(error) => {
                (self.tell)(&Notice::EndNotRecorded { error: &error });
            }
        }
    }
}

pub(super) fn how_it_ended(end: ChildEnd, asked: Option<&Signalled>) -> End {
    let mut how = match (end, asked) {
        (ChildEnd::Signalled(signal), _) if signals::is_fault(signal) => {
            let mut how = End::new(EndReason::Crashed);
            how.signal = Some(signal);
            how
        }
        (_, Some(Signalled { number, by, .. })) => {
            let mut how = End::new(EndReason::Signalled);
            // What the kernel says of its end, where it says something.
            how.signal = Some(match end {
                ChildEnd::Signalled(actual) => actual,
                ChildEnd::Exited(_) => *number,
            });
            match by {
                Ok(sender) => how.by = Some(sender.clone()),
                Err(why) => how.detail = Some(why.why().to_owned()),
            }
            how
        }
        (ChildEnd::Signalled(signal), None) => {
            let mut how = End::new(EndReason::Signalled);
            how.signal = Some(signal);
            how
        }
        (ChildEnd::Exited(_), None) => End::new(EndReason::Exited),
    };
    how.exit_code = match end {
        ChildEnd::Exited(code) => Some(code),
        ChildEnd::Signalled(_) => None,
    };
    how
}
