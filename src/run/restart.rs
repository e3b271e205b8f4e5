//! Starts the command again, in the same office.
//!
//! The request is open until `set_child` records the next command, which serves it in the same
//! transaction: the new command cannot ask again before that. A store that is busy or full then is
//! tried again, with growing pauses; a store that is closed to this version ends the run. Whether
//! somebody *consumed* the marker does not matter to the `run`: the command may have wanted to know
//! why it is being stopped.

use std::time::Duration;

use crate::clock::Deadline;
use crate::environment::{Fault, planted};
use crate::error::{Error, ErrorKind as Kind};
use crate::owner::request::{Request, asked_to_end, request_to};
use crate::patience::with_budget;
use crate::records::markers::Marker;
use crate::run::inbox::Watched;
use crate::run::notice::Notice;
use crate::run::said::Said;
use crate::run::start::{NotStarted, Started, start};
use crate::run::supervised::{Ending, LOOK_BUDGET, Life, Supervised, Why};
use crate::sys::ExecFailure;

impl Supervised<'_> {
    /// The command has ended: the restart that it is to be started again for, if there is one.
    pub(super) fn restart_asked_for(&self) -> Option<Marker> {
        match &self.ending {
            _ if planted(Fault::RestartForgotten) => None,
            Some(Ending { why: Why::Restart(marker), .. }) => Some(marker.clone()),
            Some(_) => None,
            // It may have ended before we looked.
            None => match with_budget(LOOK_BUDGET, || {
                request_to(&self.store.inner, self.tenure.instance())
            }) {
                Ok(Some(Request::Restart(marker))) => Some(marker),
                Ok(Some(Request::End(_)) | None) | Err(_) => None,
            },
        }
    }

    /// Starts the command again, within the same tenure, unless somebody asked for an end
    /// meanwhile. What cannot be recorded or found out now is tried again: the office is ours.
    pub(super) fn start_again(&mut self) -> Again {
        let is_lost = self.ending.as_ref().is_some_and(|ending| ending.why.is_lost());
        if self.is_asked_to_end() || is_lost {
            return Again::No;
        }
        let Life::Between(pause) = &self.life else { return Again::Started };
        if !pause.retry_at.has_passed() {
            return Again::Later;
        }
        let (ended, restart) = (pause.ended, pause.restart.clone());
        match with_budget(LOOK_BUDGET, || self.has_unseen_successor()) {
            // It is asked to end, and comes to be started again in its turn.
            Ok(true) => return Again::Later,
            // Left until it was known that nobody among them is a successor.
            Ok(false) => self.end_family(ended, Some(&restart)),
            Err(error) => return self.try_later(error),
        }
        let started = with_budget(LOOK_BUDGET, || {
            match asked_to_end(&self.store.inner, self.tenure.instance()) {
                // The last word counts.
                Ok(Some(end)) if end.id > restart.id => return Ok(None),
                Ok(Some(_) | None) => {}
                Err(error) => return Err(NotStarted::Error(error)),
            }
            start(&self.run.command, &self.tenure, &self.store, None, &self.beside).map(Some)
        });
        match started {
            Ok(Some(Some(Started { child, lock_file, leash, kin }))) => {
                self.leash = leash;
                self.kin = kin.into_iter().collect();
                self.tell(&Notice::Restarted {
                    office: self.tenure.office(),
                    pid: child.0.pid,
                    by: &restart.by,
                    before: ended,
                });
                self.life = Life::Running(child);
                self.beside.said = Said::new();
                self.lock_file = lock_file;
                self.lock_watched = Watched::No;
                self.ending = None;
                self.asked = None;
                self.survive();
                Again::Started
            }
            Ok(Some(None)) => {
                self.lose("it was ended while the command was being restarted");
                Again::No
            }
            Ok(None) => Again::No,
            Err(NotStarted::Error(error)) => self.try_later(error),
            // Nothing was read of the inbox; what is in it is heard before the next try.
            Err(NotStarted::Signalled(_)) => Again::Later,
            Err(NotStarted::Exec(failure)) => Again::Failed(failure),
        }
    }

    /// The command could not be recorded. What passes by itself is waited for.
    fn try_later(&mut self, error: Error) -> Again {
        const PAUSE_MAX: Duration = Duration::from_secs(1);
        let passes = matches!(
            error.kind(),
            Kind::Busy | Kind::CannotWrite | Kind::CannotRead | Kind::StoreReplaced
        );
        let Life::Between(pause) = &mut self.life else { return Again::Later };
        if !passes {
            return Again::Never(error);
        }
        pause.retry_at = Deadline::after(pause.retry_after);
        pause.retry_after = (pause.retry_after * 2).min(PAUSE_MAX);
        if !std::mem::replace(&mut pause.is_told, true) {
            self.tell(&Notice::RestartDelayed { error: &error });
        }
        Again::Later
    }
}

/// What became of a restart.
pub(crate) enum Again {
    Started,
    /// Not yet.
    Later,
    /// Nobody wants it any more.
    No,
    /// The command cannot be executed any more.
    Failed(ExecFailure),
    /// Nothing can be recorded any more: by this program, in this store.
    Never(Error),
}
