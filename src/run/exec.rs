//! No wrapper at all: this process becomes the command (`run --exec`).
//!
//! Everything comes first that a run does before it starts its command. Then keepers hold the
//! office for this very process, and it executes the command: same pid, same parent, so that
//! signals, sockets, watchdog, exit code and terminal are between the command and its supervisor.
//! Until then a request to end is heard as by any run that waits, up to the last moment.

use std::io;
use std::process::Command;
use std::time::Duration;

use crate::clock::Deadline;
use crate::keeper::exec::keep_this_process;
use crate::patience::with_budget;
use crate::process::older::hold;
use crate::run::inbox::{Inbox, Signalled};
use crate::run::plan::{Finished, Form, Run};
use crate::run::start;
use crate::run::supervised::LOOK_BUDGET;
use crate::sys::{ExecFailure, RequestsToEnd, Shortage, become_program, supervise};
use crate::{Error, ErrorKind, Result, Store, Tenure};

/// How long the thread that hears signals may take to have its turn.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

const LOOK_EVERY: Duration = Duration::from_millis(2);

impl Run {
    /// Nobody inside of a container can end its first process: its keepers, which are, could not
    /// when the office is lost.
    pub(super) fn check_is_not_first() -> Result<()> {
        const FIRST: u32 = 1;
        if std::process::id() != FIRST {
            return Ok(());
        }
        Err(Error::invalid("the first process of a container does not become its command")
            .with_hints(
                "run the command as a child",
                "run the command as a child: without `--exec`, or below an init \
                 (`docker run --init`)",
            ))
    }

    /// What asks this process to end from now on: noted by the handler itself, because the thread
    /// that hears signals may have no turn until this process is the command.
    pub(super) fn note_requests(&self) -> Result<Option<RequestsToEnd>> {
        let noted = (self.form == Form::Command).then(RequestsToEnd::note).transpose();
        noted.map_err(|error| cannot("catch signals", &error))
    }

    /// Becomes the command. Returns only what kept it from that: then the office is let go.
    pub(super) fn become_command(
        &self,
        store: &Store,
        tenure: Tenure,
        inbox: &Inbox,
        requests: &RequestsToEnd,
    ) -> Result<Finished> {
        Self::check_is_not_first()?;
        let secrets: Vec<_> = self.claim.locks.iter().map(|lock| &lock.identity).collect();
        let words = hold::shown_words(&self.command, &secrets);
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(Error::internal("a command without a program"));
        };
        if let Err(failure) = supervise::find_program(program) {
            return Ok(self.end_not_executed(store, tenure, &failure));
        }
        let budget = self.claim.stop_budget;
        let heard = keep_this_process(store, &tenure, &words, budget, || inbox.request_to_end())?;
        if let Some(signalled) = heard.or_else(|| inbox.request_to_end()) {
            return Ok(self.end_asked(tenure, &signalled));
        }
        let mut command = Command::new(program);
        command.args(arguments).envs(start::environment(&tenure, store));
        let error = become_program(command, requests);
        if error.kind() == io::ErrorKind::Interrupted && requests.have_come() {
            return match heard_by_now(inbox) {
                Some(signalled) => Ok(self.end_asked(tenure, &signalled)),
                None => {
                    Err(Error::new(ErrorKind::Busy, "a signal came as the command was started")
                        .with_hint("try again"))
                }
            };
        }
        if Shortage::of(&error).is_some() {
            drop(tenure);
            return Err(cannot("execute the command", &error));
        }
        Ok(self.end_not_executed(store, tenure, &ExecFailure(error)))
    }

    /// We were asked to end before we were the command.
    fn end_asked(&self, tenure: Tenure, signalled: &Signalled) -> Finished {
        with_budget(LOOK_BUDGET, || drop(tenure));
        self.not_started(signalled)
    }
}

/// The request that has come, once it was heard.
fn heard_by_now(inbox: &Inbox) -> Option<Signalled> {
    let until = Deadline::after(HEARD_WITHIN);
    loop {
        let heard = inbox.request_to_end();
        if heard.is_some() || until.has_passed() {
            return heard;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn cannot(what: &str, error: &io::Error) -> Error {
    match Shortage::of(error) {
        Some(shortage) => Error::shortage(shortage, what),
        None => Error::internal(format!("cannot {what}: {error}")),
    }
}
