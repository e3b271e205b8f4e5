//! Signals, and only with proof: a pinned process whose start time is the recorded one.
//!
//! `Proven` is the only way to signal a process that is not our own child. The process is pinned
//! first, and its number or start time compared then. Never ourselves or what we descend from, nor
//! init, unless that is an owner in a container. A `Trust` is needed as well. An anchor on record
//! is looked for only under a name that an anchor can have.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Looks, OpenProcessError, Pid, ProcessHandle, ProcessNumber, ProcessState, StartTime, Trust,
    Unproven, is_first_pid_namespace, pid_namespace, process_facts, process_table_is_ours,
};
use crate::environment::{Fault, planted};

/// The first process of the machine, or of a container.
const FIRST: Pid = 1;

/// A process that is pinned, and proven to be the recorded one. The only way to signal a process
/// that is not our own child.
#[derive(Debug)]
pub(crate) struct Proven {
    pid: Pid,
    handle: Arc<ProcessHandle>,
}

impl Proven {
    /// Pins `pid`, and compares then what the kernel says of it with what is on record: its own
    /// number of the process where both have it, else the start time. That counts as far as `trust`
    /// goes in whoever may have written the record.
    pub(crate) fn of(
        pid: Pid,
        start_time: Option<StartTime>,
        number: Option<ProcessNumber>,
        trust: &Trust,
    ) -> Result<Self, Unproven> {
        if pid <= FIRST || i32::try_from(pid).is_err() {
            return Err(Unproven::Reserved);
        }
        Self::pin(pid, start_time, number, trust)
    }

    /// The same for the owner on record, which may be the first process of a container that we were
    /// put into from outside (`docker exec`, nsenter(1)): gateways often are. It gets what it has a
    /// handler for, and takes the container along with its end. Whatever descends from it does not
    /// signal it, nor what may do so, because its parents are hidden; nor does anybody the first
    /// process of the machine.
    pub(crate) fn of_owner(
        pid: Pid,
        start_time: Option<StartTime>,
        number: Option<ProcessNumber>,
        trust: &Trust,
    ) -> Result<Self, Unproven> {
        if pid == FIRST && is_in_container() && descends_from(&[FIRST]) == Some(false) {
            return Self::pin(pid, start_time, number, trust);
        }
        Self::of(pid, start_time, number, trust)
    }

    fn pin(
        pid: Pid,
        start_time: Option<StartTime>,
        number: Option<ProcessNumber>,
        trust: &Trust,
    ) -> Result<Self, Unproven> {
        if pid == std::process::id() {
            return Err(Unproven::Ourselves);
        }
        let looks = Looks::begin();
        let handle = ProcessHandle::open(pid).map_err(|error| match error {
            OpenProcessError::Gone => Unproven::Gone,
            OpenProcessError::Denied => {
                Unproven::Denied(io::Error::from(io::ErrorKind::PermissionDenied).to_string())
            }
            OpenProcessError::Other(error) => Unproven::Denied(error.to_string()),
        })?;
        let is_it = match (handle.number(), number, handle.start_time(), start_time) {
            (Some(live), Some(recorded), _, _) => Some(live == recorded),
            (_, _, Some(live), Some(recorded)) if live.unit == recorded.unit => {
                Some(live == recorded)
            }
            _ => None,
        };
        match is_it {
            _ if handle.has_ended() => return Err(Unproven::Gone),
            Some(true) => {}
            Some(false) if planted(Fault::SignalByNumber) => {}
            Some(false) => return Err(Unproven::Gone),
            None => return Err(Unproven::Unknown),
        }
        if is_ancestor(pid) && !planted(Fault::AncestorSignalled) {
            return Err(Unproven::Ancestor);
        }
        // Whoever runs short of descriptors does not see whom it descends from.
        if let Some(shortage) = looks.shortage() {
            return Err(Unproven::Denied(shortage.to_string()));
        }
        trust.check(pid, &handle)?;
        Ok(Self { pid, handle: Arc::new(handle) })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The pinned process, for whoever wants to know later how it ended.
    pub(crate) fn handle(&self) -> Arc<ProcessHandle> {
        Arc::clone(&self.handle)
    }

    /// SIGTERM; one that is stopped gets it, and is let go on to see it.
    pub(crate) fn ask_to_end(&self) -> io::Result<()> {
        self.handle.ask_to_end()?;
        if process_facts(self.pid).state == ProcessState::Stopped {
            self.handle.resume()?;
        }
        Ok(())
    }

    /// Any signal that has a name.
    pub(crate) fn send(&self, number: i32) -> io::Result<()> {
        self.handle.send(number)
    }

    /// Whether it is known that this signal would end it.
    pub(crate) fn ends_by(&self, number: i32) -> bool {
        self.handle.ends_by(number)
    }

    /// SIGKILL, `TerminateProcess`. A process that has ended meanwhile is no error.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match self.handle.kill() {
            Err(_) if self.handle.has_ended() => Ok(()),
            result => result,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.handle.has_ended()
    }

    /// Waits up to `timeout` for its end; true when it has ended. Woken by the kernel.
    pub(crate) fn wait_ended(&self, timeout: Duration) -> bool {
        self.handle.wait_ended(timeout)
    }
}

/// Whether our pid namespace, as we see it, is that of a container, which ends with its first
/// process.
fn is_in_container() -> bool {
    // Whose ancestors cannot be seen may descend from it.
    process_table_is_ours() && pid_namespace().is_some_and(|name| !is_first_pid_namespace(&name))
}

/// Whether `pid` is this process or one that it descends from.
fn is_ancestor(pid: Pid) -> bool {
    ancestors().any(|ancestor| ancestor == pid)
}

/// This process, its parent, and so on, as far as can be seen.
fn ancestors() -> impl Iterator<Item = Pid> {
    /// No real chain of parents is longer; a loop in a racing process table is.
    const GENERATIONS_MAX: usize = 1_024;
    std::iter::successors(Some(std::process::id()), |pid| process_facts(*pid).parent)
        .take(GENERATIONS_MAX)
}

/// Whether one of those that this process descends from, as far as can be seen, is such a one.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line asks"))]
pub(crate) fn is_below(is_it: impl Fn(Pid) -> bool) -> bool {
    ancestors().skip(1).any(is_it)
}

/// Whether this process is one of `pids`, or descends from it; `None` where the chain of parents
/// cannot be followed to its end: the first process, or one that was put into our pid namespace
/// from outside, whose parent has no number here.
pub(crate) fn descends_from(pids: &[Pid]) -> Option<bool> {
    let mut last = None;
    for pid in ancestors() {
        if pids.contains(&pid) {
            return Some(true);
        }
        last = Some(pid);
    }
    let was_put_in = |pid| {
        let facts = process_facts(pid);
        facts.start_time.is_some() && facts.parent.is_none()
    };
    last.is_some_and(|pid| pid == FIRST || was_put_in(pid)).then_some(false)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests talk to themselves by the environment")]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::sys::{StartTimeUnit, descendants};

    const HELPER: &str = "INCUMBENT_TEST_PROVEN_HELPER";

    /// No test by itself: a process that lives until its input ends. As `parent` it starts one of
    /// its kind, and says its pid.
    #[test]
    fn helper() {
        match std::env::var(HELPER).as_deref() {
            Ok("parent") => {
                let mut child = spawn("child");
                println!("\nstarted {}", child.0.id());
                let _ = io::stdin().read_to_end(&mut Vec::new());
                let _ = child.0.kill();
            }
            Ok(_) => drop(io::stdin().read_to_end(&mut Vec::new())),
            Err(_) => {}
        }
    }

    struct Guard(Child);

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn spawn(role: &str) -> Guard {
        let helper = concat!(module_path!(), "::helper").split_once("::").unwrap().1;
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", helper, "--nocapture"])
            .env(HELPER, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Guard(child.unwrap())
    }

    fn start_time(pid: Pid) -> Option<StartTime> {
        process_facts(pid).start_time
    }

    /// FIELD-BUGS row 17: a signal to a stored number went to whoever had it by then.
    #[test]
    fn nobody_is_signalled_without_proof() {
        let own = std::process::id();
        let some_time = start_time(own);
        assert_eq!(
            Proven::of(own, some_time, None, &Trust::FULL).unwrap_err(),
            Unproven::Ourselves
        );
        let negative_one = u32::MAX;
        for pid in [0, 1, negative_one, i32::MIN.cast_unsigned()] {
            assert_eq!(
                Proven::of(pid, some_time, None, &Trust::FULL).unwrap_err(),
                Unproven::Reserved,
                "{pid}"
            );
        }
        let child = spawn("child");
        let pid = child.0.id();
        let live = start_time(pid).unwrap();
        let another = StartTime { value: live.value + 1, ..live };
        assert_eq!(Proven::of(pid, Some(another), None, &Trust::FULL).unwrap_err(), Unproven::Gone);
        assert_eq!(Proven::of(pid, None, None, &Trust::FULL).unwrap_err(), Unproven::Unknown);
        let units = [StartTimeUnit::Ticks, StartTimeUnit::Microseconds, StartTimeUnit::Filetime];
        for unit in units.into_iter().filter(|unit| *unit != live.unit) {
            let of_another_source = StartTime { unit, ..live };
            assert_eq!(
                Proven::of(pid, Some(of_another_source), None, &Trust::FULL).unwrap_err(),
                Unproven::Unknown
            );
        }
        assert!(!Proven::of(pid, Some(live), None, &Trust::FULL).unwrap().has_ended());
        if let Some(number) = process_facts(pid).number {
            // Where the process table is hidden, there is no start time.
            Proven::of(pid, None, Some(number), &Trust::FULL).unwrap();
            let younger = ProcessNumber(number.0 + 1);
            assert_eq!(
                Proven::of(pid, Some(live), Some(younger), &Trust::FULL).unwrap_err(),
                Unproven::Gone
            );
        }
        if let Some(parent) = process_facts(own).parent.filter(|pid| *pid > 1) {
            let proven = Proven::of(parent, start_time(parent), None, &Trust::FULL);
            assert_eq!(proven.unwrap_err(), Unproven::Ancestor);
        }
    }

    #[test]
    fn the_proven_process_ends_and_is_gone_then() {
        let child = spawn("child");
        let pid = child.0.id();
        let recorded = start_time(pid);
        let proven = Proven::of(pid, recorded, None, &Trust::FULL).unwrap();
        proven.kill().unwrap();
        assert!(proven.wait_ended(Duration::from_secs(20)));
        // Twice is no fault: it had ended.
        proven.kill().unwrap();
        assert_eq!(Proven::of(pid, recorded, None, &Trust::FULL).unwrap_err(), Unproven::Gone);
    }

    /// A process and what it has started, each proven on its own.
    #[test]
    fn a_tree_is_seen_from_its_root() {
        let parent = spawn("parent");
        let mut parent = parent;
        let mut lines = BufReader::new(parent.0.stdout.take().unwrap()).lines();
        let grandchild: Pid = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some(pid) = line.strip_prefix("started ") {
                break pid.trim().parse().unwrap();
            }
        };
        let tree = descendants(parent.0.id());
        assert!(tree.contains(&grandchild), "{tree:?} lacks {grandchild}");
        assert!(descendants(std::process::id()).contains(&grandchild));
        assert!(!descendants(grandchild).contains(&parent.0.id()));
        let proven: Vec<Proven> = tree
            .iter()
            .filter_map(|pid| Proven::of(*pid, start_time(*pid), None, &Trust::FULL).ok())
            .collect();
        for process in proven.iter().filter(|process| process.pid() == grandchild) {
            process.kill().unwrap();
            assert!(process.wait_ended(Duration::from_secs(20)));
        }
        assert_eq!(Proven::of(grandchild, None, None, &Trust::FULL).unwrap_err(), Unproven::Gone);
    }
}
