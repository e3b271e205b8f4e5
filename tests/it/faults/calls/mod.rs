//! One system call fails, or is the last one: whoever made it says so, and nobody loses by it.
//!
//! Three walks, each over all that it asks (`verbs.rs`, `acts.rs`, `orders.rs`):
//!
//! - `living.rs`: every verb beside a living owner of each kind. Nobody gets what that one holds,
//!   nobody is told a wrong "no", and the next contender is refused.
//! - `acts.rs`: every verb that writes. What it said to have done is there, and when all that lived
//!   is gone the next start goes well: nothing that was half done is in the way.
//! - `owner.rs`: a process that links the library claims, verifies, locks, renews, says how it is,
//!   writes and consumes markers, and releases. It is never told a loss, others find what it said,
//!   and the same call goes well the next time.
//!
//! Each is observed once without a fault (`observe.rs`). Every call that it made then, up to the
//! twentieth of a kind and some beyond, fails with every errno that its manual page has for such
//! a call (`errnos.rs`), or is the moment at which the process is killed. The answer is a typed
//! error that names what failed, or a success that holds; no panic, no signal, and not more than
//! 15 s beyond the time that was asked for (`answers.rs`).
//!
//! A build tries a sample with a seed that it prints, for a minute or so. `just faults`
//! walks everything; it takes many hours, so it can be done in parts, each spread over all:
//!
//! - `INCUMBENT_FAULTS=all`: everything; a number instead: so many faults of each row.
//! - `INCUMBENT_FAULTS_PART=3/8`: the third of eight parts.
//! - `INCUMBENT_FAULTS_MINUTES=30`: no fault is begun after that, in each of the three walks.
//! - `INCUMBENT_FAULTS_ONLY=WORDS`: the rows with these words.
//! - `INCUMBENT_TEST_SEED=N`: which sample, and in which order.
//!
//! Why strace, which stops a process at each call? `SQLite` and Rust's library call the C library,
//! which a preloaded shim could replace; but rustix enters the kernel by itself, and the locks,
//! pidfds and directories that decide who lives go through it. A filter of seccomp alone cannot
//! count. `strace --seccomp-bpf` would stop fewer calls, but the filter outlives strace: where a
//! keeper stays behind, each of the calls then fails with ENOSYS (`SECCOMP_RET_TRACE` without
//! a tracer), and a process that runs already (`-p`) gets no filter. Most of the time goes into the
//! owners, contenders and next starts anyway.

mod acts;
mod answers;
mod coverage;
mod errnos;
mod extent;
mod fault;
mod living;
mod observe;
mod orders;
mod owner;
mod scene;
mod strace;
mod turns;
mod verbs;
mod world;

use std::sync::Mutex;
use std::time::Duration;

use self::acts::Acts;
use self::coverage::Coverage;
use self::extent::Wanted;
use self::living::Living;
use self::owner::Owners;
use self::turns::{Walk, take_turns};
use crate::support::{another_user, has, skipped, works};

/// What a build tries of each walk: so many faults of each row, for no longer than this. Together
/// that is two minutes where two processors have nothing else to do.
const OF_LIVING: (usize, Duration) = (1, Duration::from_secs(90));
const OF_ACTS: (usize, Duration) = (3, Duration::from_secs(45));
const OF_OWNERS: (usize, Duration) = (8, Duration::from_secs(30));

fn is_possible() -> bool {
    let is_possible = has("strace") && works(&["strace", "-f", "-o", "/dev/null"]);
    if !is_possible {
        skipped("needs strace, and leave to trace");
    }
    is_possible
}

/// Walks, prints what was covered, and fails with what went wrong.
fn walk<W: Walk>(
    what: &str,
    sample: (usize, Duration),
    threads: usize,
    keys: impl FnOnce(&str) -> Vec<W::Key>,
    walk: &W,
    coverage: &Mutex<Coverage>,
) {
    let wanted = Wanted::from_environment(sample);
    let keys = keys(&wanted.only);
    if keys.is_empty() {
        return eprintln!("{what}: nothing of it is asked for");
    }
    take_turns(walk, keys, threads, &wanted, coverage);
    let coverage = coverage.lock().unwrap();
    eprintln!("{}\nafter {:?}", coverage.table(what), wanted.took());
    let complaints = coverage.complaints();
    assert!(complaints.is_empty(), "{complaints}");
    assert!(coverage.met() > 0, "no call has met its fault");
}

#[test]
fn what_fails_while_somebody_looks_is_no_answer() {
    if another_user().is_none() {
        return skipped("needs root and setpriv");
    }
    if !is_possible() {
        return;
    }
    let coverage = Mutex::default();
    let living = Living { coverage: &coverage };
    walk("Verbs beside a living owner", OF_LIVING, 3, living::rows, &living, &coverage);
}

#[test]
fn what_was_acknowledged_is_there_and_nothing_is_left_in_the_way() {
    if !is_possible() {
        return;
    }
    let coverage = Mutex::default();
    let acts = Acts { coverage: &coverage };
    walk("Verbs that write", OF_ACTS, 2, acts::rows, &acts, &coverage);
}

#[test]
fn what_fails_while_an_owner_asks_is_no_loss() {
    if !is_possible() {
        return;
    }
    let coverage = Mutex::default();
    let owners = Owners { coverage: &coverage };
    walk("An owner that links the library", OF_OWNERS, 1, owner::rows, &owners, &coverage);
}
