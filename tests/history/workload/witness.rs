//! The witness: a file for each place at an office or a lock, which the product knows nothing of,
//! and which whoever was granted it locks for as long as it acts.
//!
//! Locked with `fcntl(2)`: such a lock is not inherited by what is forked or executed beside its
//! holder (a daemon, a forked child, a keeper), ends with its process, survives an exec of that
//! process while the file stays open, and is seen from every pid namespace. Two things follow. Any
//! close of the file by the same process gives it back, and a process never stands in its own way;
//! so this process keeps a list of what it has, and looks there first.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use super::world::World;
use crate::log::{Step, Thing, What};

/// What this process has locked.
static OURS: Mutex<Option<HashMap<PathBuf, File>>> = Mutex::new(None);

/// One thing that we were granted. It is tried once, and where that failed, with each
/// [`Witness::try_on`].
#[derive(Debug)]
#[must_use = "`out` gives it back"]
pub struct Witness {
    thing: Thing,
    incarnation: Option<i64>,
    op: Option<u64>,
    at: Option<PathBuf>,
}

/// What an attempt came to.
enum Tried {
    Locked(PathBuf),
    Taken {
        by: Option<u32>,
        exiting: bool,
    },
    /// This process is short of descriptors: that says nothing about others.
    Short,
}

impl Witness {
    /// Tries to become the witness, and says what came of it.
    pub fn take(world: &World, thing: &Thing, incarnation: Option<i64>, op: Option<u64>) -> Self {
        let mut witness = Self { thing: thing.clone(), incarnation, op, at: None };
        match attempt(world, thing) {
            Tried::Locked(at) => {
                witness.at = Some(at);
                witness.say(world, Step::In);
            }
            Tried::Taken { by, exiting } => {
                witness.say(world, Step::Refused { holder: by, exiting });
            }
            Tried::Short => {}
        }
        witness
    }

    /// After an exec: it has what it had, and has said so.
    pub fn resume(world: &World, thing: &Thing, incarnation: Option<i64>, op: Option<u64>) -> Self {
        let mut witness = Self { thing: thing.clone(), incarnation, op, at: None };
        match attempt(world, thing) {
            Tried::Locked(at) => witness.at = Some(at),
            Tried::Taken { by, exiting } => {
                witness.say(world, Step::Refused { holder: by, exiting });
            }
            Tried::Short => {}
        }
        witness
    }

    /// Where it was refused: again.
    pub fn try_on(&mut self, world: &World) {
        if self.at.is_some() {
            return;
        }
        if let Tried::Locked(at) = attempt(world, &self.thing) {
            self.at = Some(at);
            self.say(world, Step::In);
        }
    }

    pub fn thing(&self) -> &Thing {
        &self.thing
    }

    /// Gives it back.
    pub fn out(self, world: &World) {
        let Some(at) = &self.at else { return };
        self.say(world, Step::Out);
        // Its close unlocks.
        drop(OURS.lock().get_or_insert_default().remove(at));
    }

    fn say(&self, world: &World, step: Step) {
        let (thing, incarnation, op) = (self.thing.clone(), self.incarnation, self.op);
        world.log.say(What::Witness { thing, incarnation, op, step });
    }
}

/// What this process has stays locked in the program that it executes next.
pub fn keep_through_exec() {
    for file in OURS.lock().get_or_insert_default().values() {
        let _ = fcntl_setfd(file, FdFlags::empty());
    }
}

fn attempt(world: &World, thing: &Thing) -> Tried {
    let mut ours = OURS.lock();
    let ours = ours.get_or_insert_default();
    let mut taken = Tried::Short;
    for place in 0..thing.places() {
        let path = world.file("witness").join(file_name(thing, place));
        if ours.contains_key(&path) {
            taken = Tried::Taken { by: Some(std::process::id()), exiting: false };
            continue;
        }
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let Ok(file) = opened else { return Tried::Short };
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                ours.insert(path.clone(), file);
                return Tried::Locked(path);
            }
            Err(Errno::AGAIN | Errno::ACCESS) => {
                let by = holder_of(&file);
                taken = Tried::Taken { by, exiting: by.is_some_and(is_exiting) };
            }
            Err(_) => return Tried::Short,
        }
    }
    taken
}

fn file_name(thing: &Thing, place: usize) -> String {
    match thing {
        Thing::Office { store, profile, kind } => format!("{store}.{profile}.{kind}.{place}"),
        Thing::Lock { store, scope, identity, .. } => {
            format!("{store}.lock.{scope}.{identity}.{place}")
        }
    }
}

/// Makes the files, for every user.
pub fn prepare(world: &World, things: impl IntoIterator<Item = Thing>) {
    let directory = world.file("witness");
    std::fs::create_dir(&directory).unwrap();
    for thing in things {
        for place in 0..thing.places() {
            make(&directory.join(file_name(&thing, place)));
        }
    }
}

fn make(path: &Path) {
    std::fs::write(path, "").unwrap();
    crate::support::set_mode(path, 0o666);
}

/// The process that has the file locked, by `/proc/locks`: `1: POSIX  ADVISORY  WRITE 77
/// 00:2f:4711 0 EOF`. `None` where it is in a namespace that we cannot see.
fn holder_of(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "POSIX", _, "WRITE", pid, place, ..] = words[..] else { return None };
        let is_it = place.rsplit(':').next() == Some(inode.as_str());
        pid.parse().ok().filter(|pid| is_it && *pid != 0)
    })
}

/// Whether it is on its way out: its files are closed one after the other.
fn is_exiting(pid: u32) -> bool {
    const PF_EXITING: u64 = 0x4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6));
    flags.and_then(|flags| flags.parse::<u64>().ok()).is_none_or(|flags| flags & PF_EXITING != 0)
}
