//! Records for processes that do not link the library: do the small processes that keep them hold
//! and let go in time?

mod caller;
mod exits;
mod library;
mod lost_store;
mod pair;
mod records;

use crate::support::{Identity, Process, STAY, Sandbox};

impl Sandbox {
    /// A shell that claims (with `options`) for itself and then stays.
    fn claimant(&self, options: &str) -> Process {
        let script = format!("incumbent claim {options} > /dev/null || exit; {STAY}");
        let mut shell = Process::start(self.shell(&script));
        assert_eq!(shell.line(), shell.pid().to_string());
        shell
    }

    fn keeper(&self) -> Identity {
        let query = "SELECT keeper_pid FROM instances WHERE ended_at_ms IS NULL";
        let pid = u32::try_from(self.number(query)).unwrap();
        Identity::of(pid).expect("the keeper on record runs")
    }
}
