//! Runtime status under load: many processes say how they are, are killed while they do, and many
//! others read it and follow it.
//!
//! The witness is kept outside of the store: a writer acknowledges an update over a pipe, after the
//! call returned; and each update carries one number in all of its fields.

mod behind;
mod heartbeats;
mod namesakes;
mod numbers;
mod replica;
mod writers;

use std::io::Write;

use incumbent::{ErrorKind, Store, Tenure};

use self::behind::flood;
use self::heartbeats::beat_until_told;
use self::namesakes::write_one_platform;
use self::writers::{follow_until_told, read_until_told, write_until_killed};
use crate::support::{granted, role, role_db, test_name};

const ROLE_TEST: &str = test_name!(role_of_a_party);

/// What one writer talks to.
const PLATFORMS: u64 = 16;

/// Every so many updates are about all platforms, the others about one of them.
const ALL_EVERY: u64 = 16;

/// Plays a writer, a reader, a follower, or a heart.
#[test]
fn role_of_a_party() {
    match role().as_deref() {
        Some("writer") => write_until_killed(),
        Some("reader") => read_until_told(),
        Some("follower") => follow_until_told(),
        Some("namesake") => write_one_platform(),
        Some("flood") => flood(),
        Some("heart") => beat_until_told(),
        _ => {}
    }
}

/// In one write, so that a kill leaves a whole line or none.
fn tell(line: &str) {
    std::io::stderr().write_all(format!("=> {line}\n").as_bytes()).unwrap();
}

/// Writes, however long it takes: on a disk that hangs it is refused for want of time, which is
/// none of the things that are tested here. What was refused was not written.
fn patiently<T>(mut work: impl FnMut() -> incumbent::Result<T>) -> T {
    loop {
        match work() {
            Err(error) if error.kind() == ErrorKind::Busy => {}
            answer => return answer.unwrap(),
        }
    }
}

fn open() -> Store {
    patiently(|| Store::open(role_db()))
}

fn claim_patiently(store: &Store, profile: &str) -> Tenure {
    let profile = store.profile(profile).unwrap();
    granted(Ok(patiently(|| profile.claim())))
}
