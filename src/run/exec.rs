//! No wrapper at all: this process becomes the command (`run --exec`).
//!
//! Everything comes first that a run does before it starts its command. Then keepers hold the
//! office for this very process, and it executes the command: same pid, same parent, so that
//! signals, sockets, watchdog, exit code and terminal are between the command and its supervisor.

use std::process::Command;

use crate::keeper::exec::keep_this_process;
use crate::patience::with_budget;
use crate::process::older::hold;
use crate::run::inbox::Inbox;
use crate::run::plan::{Finished, Run};
use crate::run::start;
use crate::run::supervised::LOOK_BUDGET;
use crate::sys::{ExecFailure, Shortage, handover, supervise};
use crate::{Error, Result, Store, Tenure};

impl Run {
    /// Becomes the command. Returns only what kept it from that: then the office is let go.
    pub(super) fn become_command(
        &self,
        store: &Store,
        tenure: Tenure,
        inbox: &Inbox,
    ) -> Result<Finished> {
        let secrets: Vec<_> = self.claim.locks.iter().map(|lock| &lock.identity).collect();
        let words = hold::shown_words(&self.command, &secrets);
        if let Some(program) = self.command.first()
            && let Err(failure) = supervise::find_program(program)
        {
            return Ok(self.end_not_executed(store, tenure, &failure));
        }
        keep_this_process(store, &tenure, &words, self.claim.stop_budget)?;
        if let Some(signalled) = inbox.request_to_end() {
            with_budget(LOOK_BUDGET, || drop(tenure));
            return Ok(self.not_started(&signalled));
        }
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(Error::internal("a command without a program"));
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(start::environment(&tenure, store));
        let error = handover::exec(command);
        if let Some(shortage) = Shortage::of(&error) {
            drop(tenure);
            return Err(Error::shortage(shortage, "execute the command"));
        }
        Ok(self.end_not_executed(store, tenure, &ExecFailure(error)))
    }
}
