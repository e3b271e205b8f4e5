//! The parent of all: starts programs, collects every child, its own and the orphans that are left
//! to it, and writes down how each ended.
//!
//! Nobody else in this process may wait for a child: that is why the harness is a process of its
//! own, and why nothing here keeps a `std::process::Child`.

use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::world::World;
use crate::log::{Death, Killer, Pid, What};

/// What a process that we started is: whom the nemesis may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// `incumbent run`.
    Run,
    /// A part of this program, which holds something by itself.
    Holder,
    /// A pid namespace.
    Container,
    /// Another verb.
    Verb,
    /// Not the product's: left alone.
    Tool,
}

#[derive(Debug, Default)]
struct Table {
    running: HashMap<Pid, Sort>,
    ended: HashMap<Pid, Death>,
    /// Which fault it was that they were killed by.
    blame: HashMap<Pid, u64>,
    /// Whose death is in the log.
    told: HashSet<Pid>,
}

#[derive(Debug)]
pub struct Reaper {
    world: Arc<World>,
    table: Mutex<Table>,
    changed: Condvar,
}

impl Reaper {
    /// Begins to collect, until this process ends.
    pub fn start(world: Arc<World>) -> Arc<Self> {
        let subreaper = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        subreaper.expect("Linux 3.4 or later");
        let reaper = Arc::new(Self { world, table: Mutex::default(), changed: Condvar::new() });
        let collector = Arc::clone(&reaper);
        std::thread::spawn(move || {
            loop {
                collector.collect();
            }
        });
        reaper
    }

    fn collect(&self) {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                self.has_ended(pid, death(status));
            }
            // Nobody is there just now: the pace at which we look, nothing waits for it.
            Ok(None) | Err(Errno::CHILD) => std::thread::sleep(Duration::from_millis(2)),
            Err(Errno::INTR) => {}
            Err(error) => panic!("wait: {error}"),
        }
    }

    fn has_ended(&self, pid: Pid, how: Death) {
        // Whoever starts a child holds this for as long, so it is known by now.
        let mut table = self.table.lock();
        if table.running.remove(&pid).is_some() {
            table.ended.insert(pid, how);
        }
        let incarnation = self.world.forget(pid);
        self.tell(&mut table, pid, incarnation, how);
        self.changed.notify_all();
    }

    /// Writes down that it has ended, once.
    fn tell(&self, table: &mut Table, pid: Pid, incarnation: Option<i64>, how: Death) {
        if !table.told.insert(pid) || !self.world.sees_pids() {
            return;
        }
        let by = match (table.blame.remove(&pid), how) {
            (Some(fault), Death::Signal { .. } | Death::Gone) => Killer::Nemesis { fault },
            (_, Death::Exit { .. }) => Killer::Itself,
            (None, Death::Signal { signal: libc::SIGKILL | libc::SIGTERM }) => Killer::Product,
            (None, Death::Signal { .. } | Death::Gone) => Killer::Unknown,
        };
        self.world.log.say(What::Died { pid, incarnation, how, by });
    }

    /// A process that is perhaps none of our children was seen to be gone.
    pub fn is_gone(&self, pid: Pid, incarnation: Option<i64>) {
        self.tell(&mut self.table.lock(), pid, incarnation, Death::Gone);
    }

    /// It lives: what was told of this pid was told of an earlier process.
    pub fn is_new(&self, pid: Pid) {
        self.table.lock().told.remove(&pid);
    }

    /// This fault kills it.
    pub fn blame(&self, pid: Pid, fault: u64) {
        self.table.lock().blame.insert(pid, fault);
    }

    /// Starts it; without standard input. What it says is the caller's choice.
    #[allow(clippy::zombie_processes, reason = "`collect` waits for all children")]
    pub fn spawn(&self, command: &mut Command, sort: Sort) -> std::io::Result<Pid> {
        let mut table = self.table.lock();
        let child = command.stdin(Stdio::null()).spawn()?;
        let pid = child.id();
        table.told.remove(&pid);
        table.blame.remove(&pid);
        table.running.insert(pid, sort);
        Ok(pid)
    }

    /// Waits until a child that we started has ended.
    ///
    /// # Panics
    /// When it has not within `limit`: that is a hang.
    pub fn wait(&self, pid: Pid, limit: Duration, what: &str) -> Death {
        let until = Instant::now() + limit;
        let mut table = self.table.lock();
        loop {
            if let Some(how) = table.ended.remove(&pid) {
                return how;
            }
            if self.changed.wait_until(&mut table, until).timed_out() {
                let how = table.ended.remove(&pid);
                return how.unwrap_or_else(|| panic!("{what}: pid {pid} hangs since {limit:?}"));
            }
        }
    }

    pub fn running(&self) -> Vec<(Pid, Sort)> {
        let mut running: Vec<_> =
            self.table.lock().running.iter().map(|(pid, sort)| (*pid, *sort)).collect();
        running.sort_by_key(|(pid, _)| *pid);
        running
    }

    pub fn is_running(&self, pid: Pid) -> bool {
        self.table.lock().running.contains_key(&pid)
    }
}

fn death(status: WaitStatus) -> Death {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Death::Exit { code },
        (None, Some(signal)) => Death::Signal { signal },
        (None, None) => Death::Gone,
    }
}

/// As a shell says it.
pub fn exit_code(how: Death) -> i32 {
    match how {
        Death::Exit { code } => code,
        Death::Signal { signal } => 128 + signal,
        Death::Gone => 255,
    }
}
