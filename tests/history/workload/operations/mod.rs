//! The operations, by what they are about. Each does one thing to its end, and writes it down.

pub mod asks;
pub mod containers;
pub mod kept;
pub mod owners;
pub mod runs;
pub mod stores;
pub mod verbs;

use std::sync::OnceLock;
use std::time::Duration;

use fastrand::Rng;

use super::caller::How;
use super::draw::{chance, one_of};
use super::world::{LOCKS, LOCKS_OF_VERBS, OFFICES, World, office};
use crate::log::{Origin, Thing, Wait};
use crate::support::{another_user, container, has, works};

fn any_office(rng: &mut Rng) -> Thing {
    office(rng.usize(..OFFICES.len()))
}

/// One that a verb can ask for.
fn any_lock(rng: &mut Rng) -> Thing {
    LOCKS[rng.usize(..LOCKS_OF_VERBS)].thing()
}

/// How long to wait, and the option that says so.
pub fn any_wait(rng: &mut Rng) -> (Wait, Option<String>) {
    if chance(rng, 2) {
        return (Wait::Once, None);
    }
    let ms = rng.u64(50..2_500);
    (Wait::AtMost { ms }, Some(format!("--wait={ms}ms")))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The words of a lock on the command line.
pub fn lock_words(thing: &Thing) -> [&str; 2] {
    match thing {
        Thing::Lock { scope, identity, .. } => [scope.as_str(), identity.as_str()],
        Thing::Office { profile, kind, .. } => [profile.as_str(), kind.as_str()],
    }
}

/// How a verb is started: as a rule as it is, sometimes with clocks of its own.
fn any_how(world: &World, rng: &mut Rng) -> How {
    if !chance(rng, 8) {
        return How::default();
    }
    if chance(rng, 2) {
        return How { words: other_time(rng), ..How::default() };
    }
    another_date(world, rng)
}

/// Its wall clock is a day or years off; as it is where that cannot be done.
pub fn another_date(world: &World, rng: &mut Rng) -> How {
    let Some(library) = faketime() else { return How::default() };
    let days = one_of(rng, &["-4000d", "-1d", "+1d", "+4000d"]);
    let environment =
        [("LD_PRELOAD", library), ("FAKETIME", *days), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    How {
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        from: Some(Origin { faked_clock: true, ..world.from.clone() }),
        ..How::default()
    }
}

/// A time namespace, whose clocks since the boot are hours ahead.
fn other_time(rng: &mut Rng) -> Vec<String> {
    if !has_time_namespaces() {
        return Vec::new();
    }
    let ahead_s = rng.u32(1_000..100_000).to_string();
    ["unshare", "-Tf", "--kill-child", "--boottime", &ahead_s, "--monotonic", &ahead_s]
        .map(str::to_owned)
        .to_vec()
}

/// The library that makes a program see another time.
fn faketime() -> Option<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        let mut entries = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
        let library = entries.find_map(|entry| {
            let library = entry.path().join("faketime/libfaketimeMT.so.1");
            library.exists().then_some(library)
        })?;
        Some(library.to_string_lossy().into_owned())
    };
    FOUND.get_or_init(find).as_deref()
}

/// Asked first by [`missing`]: it starts a program.
fn has_time_namespaces() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| works(&["unshare", "-Tf", "--boottime", "100"]))
}

/// What is missing here, for the figures. Asked before a [`Reaper`](super::reaper::Reaper) collects
/// children: to find it out takes some.
pub fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if another_user().is_none() {
        missing.push("commands of another user: needs root");
    }
    if container().is_none() {
        missing.push("pid namespaces: none can be made");
    }
    if !has("sqlite3") {
        missing.push("a foreign sqlite3, backup and restore: needs sqlite3");
    }
    if faketime().is_none() {
        missing.push("steps of the clock: needs libfaketime");
    }
    if !has_time_namespaces() {
        missing.push("time namespaces: none can be made");
    }
    missing
}
