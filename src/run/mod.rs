//! A command in an office: claims it, starts the command, which does not outlive the run, and stays
//! with it.
//!
//! It waits for the office in the calling thread, which also starts the command, by a
//! [helper](crate::helper) that becomes it. A thread that catches signals cancels the wait. What
//! people should know is told by a [`Notice`]: nothing is printed here.

pub(crate) mod beside;
pub(crate) mod claim;
pub(crate) mod delivery;
pub(crate) mod descendant;
pub(crate) mod end;
pub(crate) mod exec;
pub(crate) mod family;
pub(crate) mod follow;
pub(crate) mod forward;
pub(crate) mod inbox;
pub(crate) mod known;
pub(crate) mod last_call;
pub(crate) mod leaves;
pub(crate) mod mirror;
pub(crate) mod new_store;
pub(crate) mod notice;
pub(crate) mod notified;
pub(crate) mod notify;
pub(crate) mod older;
pub(crate) mod on_end;
mod pause;
pub(crate) mod pid_file;
pub(crate) mod plan;
pub(crate) mod requests;
pub(crate) mod restart;
pub(crate) mod running;
pub(crate) mod said;
pub(crate) mod start;
pub(crate) mod stderr;
pub(crate) mod supervised;
pub(crate) mod suspension;
pub(crate) mod unresponsive;

pub use crate::office::backoff::Backoff;
pub use crate::run::forward::Forward;
pub use crate::run::known::{execute_again, words_known_to_older};
pub use crate::run::notice::Notice;
pub use crate::run::plan::{Finished, Run, RunOutcome};
pub use crate::sys::ChildEnd;

use crate::patience::with_budget;
use crate::process::exit_code::ExitCause;
use crate::process::older::hold;
use crate::run::beside::Beside;
use crate::run::claim::Claimed;
use crate::run::inbox::{Inbox, Signalled};
use crate::run::plan::Extent;
use crate::run::start::NotStarted;
use crate::run::supervised::{LOOK_BUDGET, Supervised};
use crate::store::watcher::Watcher;
use crate::sys::supervise;
use crate::{Error, ErrorKind, Result, sys};

impl Run {
    /// Claims, starts the command and stays with it until it has ended for good. The calling thread
    /// must live as long: on Linux the command is killed when the thread that started it ends. The
    /// office is free for others when this returns, and how the command ended is on record. An
    /// example is at [`Run`].
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an empty command, for options that contradict
    /// each other, or where there is no
    /// [program for helpers](crate::helper::HelperProgram::find);
    /// [`Unsupported`](ErrorKind::Unsupported) for [`Run::follow`] where orphans cannot be adopted
    /// (macOS, Windows); [`Busy`](ErrorKind::Busy) when
    /// there may be no more processes, threads or descriptors, or the backoff of a storm was
    /// [cancelled](crate::ClaimOptions::cancel); those of writing the
    /// [pid file](Run::pid_file); and those of
    /// [`OpenOptions::open`](crate::OpenOptions::open) and
    /// [`Profile::claim_with`](crate::Profile::claim_with). Nothing is held then, and no command
    /// runs.
    pub fn run(&self) -> Result<Finished> {
        self.check()?;
        // A gateway that works is not ended for a command that cannot.
        if self.claim.replace.is_some()
            && let Some(program) = self.command.first()
            && let Err(failure) = supervise::find_program(program)
        {
            let (exit_code, error) = start::not_executed(&self.command, &failure);
            return Ok(Finished::new(exit_code, RunOutcome::Failed(error)));
        }
        if self.claim.replace.is_some()
            && let Some(home) = &self.claim.legacy_home
        {
            hold::check_usable(home)?;
        }
        if self.extent == Extent::Whole {
            sys::take_over_process();
        }
        let inbox = Inbox::open(self.extent)?;
        let requests = self.note_requests()?;
        let store = self.store.open()?;
        let profile = self.profile(&store)?;
        if self.is_to_stay_stopped(&profile)? {
            return Ok(self.stays_stopped());
        }
        if self.backs_off
            && let Some(signalled) = self.sit_out_storm(&profile, &inbox)?
        {
            return Ok(self.not_started(&signalled));
        }
        self.tell_of_own_run(&profile);
        let (tenure, hold) = match self.claim_with_older(&profile, &inbox)? {
            (Claimed::Granted(tenure), hold) => (tenure, hold),
            (Claimed::Held(holder), _) => {
                let exit_code = self.exit_codes.code(ExitCause::Refused, 0, None);
                return Ok(Finished::new(exit_code, RunOutcome::Refused(holder)));
            }
            (Claimed::Signalled(signalled), _) => return Ok(self.not_started(&signalled)),
        };
        // A person may have said so while we waited.
        if self.is_to_stay_stopped(&profile)? {
            drop(hold);
            drop(tenure);
            return Ok(self.stays_stopped());
        }
        self.tell_whose_place_we_took(&tenure);
        if let Some(requests) = &requests {
            return self.become_command(&store, tenure, &inbox, requests);
        }
        // Everything that can fail comes before the command: once it runs, the office must not be
        // released under it.
        let watcher = Watcher::new(&store.inner)?;
        self.adopt_orphans();
        let beside = Beside::prepare(self, &inbox)?;
        match start::start(&self.command, &tenure, &store, Some(&inbox), &beside) {
            Ok(Some(started)) => {
                (self.tell)(&Notice::Started { office: tenure.office(), pid: started.child.0.pid });
                self.warn_of_short_unit();
                // A store that is lost is let go of as a whole.
                drop(profile);
                Supervised::new(self, store, watcher, tenure, hold, started, beside)
                    .supervise(&inbox)
            }
            Ok(None) => {
                let why = "the office was lost before the command started";
                let error = Error::new(ErrorKind::NotOwner, why)
                    .with_hint("`incumbent events` says by whom, `incumbent status` who holds it");
                let exit_code = self.exit_codes.code(ExitCause::Refused, 0, None);
                Ok(Finished::new(exit_code, RunOutcome::Failed(error)))
            }
            Err(NotStarted::Error(error)) => Err(error),
            Err(NotStarted::Signalled(signalled)) => {
                drop(hold);
                // The store is busy. The office is free in any case, and the next claim records
                // that.
                with_budget(LOOK_BUDGET, || drop(tenure));
                Ok(self.not_started(&signalled))
            }
            Err(NotStarted::Exec(failure)) => {
                drop(hold);
                Ok(self.end_not_executed(&store, tenure, &failure))
            }
        }
    }

    /// A process that does more than this keeps whom it adopts to itself.
    fn adopt_orphans(&self) {
        if self.extent == Extent::Whole
            && let Err(error) = supervise::adopt_orphans()
        {
            tracing::debug!(%error, "the command cannot hand over to a child of its own");
        }
    }

    /// A signal came before there was a command.
    pub(super) fn not_started(&self, signalled: &Signalled) -> Finished {
        Finished::ended(signalled.exit_code(&self.exit_codes))
    }
}
