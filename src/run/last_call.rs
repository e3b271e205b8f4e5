//! A supervisor stops its run, and the command does not follow.
//!
//! runit and s6 wait for ever. The stop budget is how long the command may take, so it is killed
//! when that is over. Nobody else's signal has it killed: a person who sends one may send another.

use std::time::Duration;

use crate::clock::Deadline;
use crate::process::exit_code::ExitCause;
use crate::run::delivery::is_supervised;
use crate::run::inbox::Signalled;
use crate::run::notice::Notice;
use crate::run::supervised::{AskedEnd, LastCall, Supervised};
use crate::stop_budget;
use crate::sys::supervise;

impl Supervised<'_> {
    /// A signal has asked for an end.
    pub(super) fn ask_to_end(&mut self, signal: Signalled) {
        let budget = self.run.claim.stop_budget;
        let mut last_call = self.asked.take().and_then(|asked| asked.last_call);
        let is_stop = signal.cause == ExitCause::SupervisorStop && !signal.may_mean_reload;
        if last_call.is_none() && is_stop && is_supervised() {
            last_call = Some(LastCall {
                tell_at: Deadline::after(budget / 2),
                kill_at: Deadline::after(budget),
                is_told: false,
                is_over: false,
            });
        }
        // What we kill for it still ends for it.
        let grace = if last_call.is_some() { stop_budget::KILL_GRACE } else { Duration::ZERO };
        let until = Deadline::after(budget.saturating_add(grace));
        self.asked = Some(AskedEnd { signal, until, is_withdrawn: false, last_call });
    }

    pub(super) fn look_at_last_call(&mut self) {
        let (Some(child), Some(asked)) = (self.child(), &mut self.asked) else { return };
        let Some(call) = asked.last_call.as_mut().filter(|call| !call.is_over) else { return };
        if call.kill_at.has_passed() {
            call.is_over = true;
            self.tell(&Notice::Killing);
            let _ = self.signal(supervise::KILL);
        } else if call.tell_at.has_passed() && !call.is_told {
            call.is_told = true;
            let killed_in = call.kill_at.remaining();
            let office = self.tenure.office();
            self.tell(&Notice::NotEnding { office, pid: child.0.pid, killed_in });
        }
    }
}
