//! Who is alive of those that hold something, whoever their parent is: each says so in a file of
//! its name, and a pidfd tells when it has gone.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::reaper::Reaper;
use super::world::World;
use crate::log::Pid;
use crate::support::Stat;

/// How often we look for new ones. Nothing depends on it: who dies before that is gone as well.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl World {
    fn alive(&self) -> PathBuf {
        self.file("alive")
    }

    /// Says that this process lives, what it is, and as whom it holds something. In a pid namespace
    /// of its own it does not know the pid that others know it by.
    pub fn i_live(&self, what: &str, incarnation: Option<i64>) {
        if !self.sees_pids() {
            return;
        }
        let incarnation = incarnation.map_or_else(String::new, |it| it.to_string());
        // A file of its own for each process; where there are no descriptors left, nobody looks
        // after us, and nothing is wrong.
        let at = self.alive().join(std::process::id().to_string());
        let _ = std::fs::write(at, format!("{what} {incarnation}"));
    }

    /// One that has ended; as whom it held something.
    pub fn forget(&self, pid: Pid) -> Option<i64> {
        let at = self.alive().join(pid.to_string());
        let text = std::fs::read_to_string(&at).ok()?;
        let _ = std::fs::remove_file(at);
        text.split_once(' ')?.1.parse().ok()
    }

    /// Everybody who said so and is not known to be gone, with what it is.
    pub fn all_alive(&self) -> Vec<(Pid, String, Option<i64>)> {
        let Ok(entries) = std::fs::read_dir(self.alive()) else { return Vec::new() };
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let pid = path.file_name()?.to_str()?.parse().ok()?;
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let (what, incarnation) = text.split_once(' ').unwrap_or((&text, ""));
                Some((pid, what.to_owned(), incarnation.parse().ok()))
            })
            .collect();
        found.sort_by_key(|(pid, _, _)| *pid);
        found
    }
}

/// Watches them until this process ends.
pub fn watch(world: Arc<World>, reaper: Arc<Reaper>) {
    std::thread::spawn(move || {
        let mut known: HashMap<Pid, OwnedFd> = HashMap::new();
        loop {
            let mut pids: Vec<Pid> = world.all_alive().into_iter().map(|it| it.0).collect();
            pids.retain(|pid| !known.contains_key(pid));
            for pid in pids {
                match open(pid) {
                    Some(pidfd) => {
                        reaper.is_new(pid);
                        known.insert(pid, pidfd);
                    }
                    None => bury(&world, &reaper, pid),
                }
            }
            for pid in ended(&known) {
                known.remove(&pid);
                bury(&world, &reaper, pid);
            }
        }
    });
}

fn open(pid: Pid) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Those of whom no thread is left. Waits for a moment.
fn ended(known: &HashMap<Pid, OwnedFd>) -> Vec<Pid> {
    if known.is_empty() {
        std::thread::sleep(LOOK_EVERY);
        return Vec::new();
    }
    let pids: Vec<Pid> = known.keys().copied().collect();
    let mut polled: Vec<PollFd<'_>> =
        pids.iter().map(|pid| PollFd::new(&known[pid], PollFlags::IN)).collect();
    let timeout = Timespec::try_from(LOOK_EVERY).expect("a short time");
    // A look that failed is made again.
    if poll(&mut polled, Some(&timeout)).is_err() {
        return Vec::new();
    }
    let is_ended = |(_, fd): &(Pid, PollFd<'_>)| !fd.revents().is_empty();
    pids.into_iter().zip(polled).filter(is_ended).map(|(pid, _)| pid).collect()
}

/// One that we collect ourselves is told of when it is: then we know how it ended.
fn bury(world: &World, reaper: &Reaper, pid: Pid) {
    let is_ours =
        Stat::of(pid).is_some_and(|stat| stat.state == 'Z' && stat.parent == std::process::id());
    if !is_ours && !reaper.is_running(pid) {
        reaper.is_gone(pid, world.forget(pid));
    }
}
