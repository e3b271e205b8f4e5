//! One system call fails while the program looks: it says so, and takes it for no answer.
//!
//! Every verb is run under strace, which lets the n-th call of one kind fail with one errno, while
//! an owner lives. Whatever fails: nobody gets what that owner holds, nobody is told a wrong "no",
//! nothing panics, and the owner is judged alive by the next one who asks.
//!
//! A build tries a sample with a fixed seed. `INCUMBENT_FAULTS=all cargo test --test it
//! faults::calls -- --nocapture` walks everything and prints what it covered; a number instead of
//! `all` is how many faults to try for each verb and owner, `INCUMBENT_FAULTS_ONLY=WORDS` takes the
//! verbs with these words.

mod matrix;
mod owner;
mod strace;
mod verbs;
mod world;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use self::matrix::{Coverage, extent, jobs, walk};
use self::verbs::VERBS;
use crate::support::{another_user, has, skipped, works};

/// The calls that look at something. What a kernel or a machine has not is left out by strace.
const CALLS: &str = "openat,read,pread64,?readlink,readlinkat,statx,?newfstatat,fstat,flock,fcntl,\
                     pidfd_open,getdents64,fstatfs,?statfs,ioctl,pidfd_send_signal";

/// What a call fails with.
const ERRNOS: [&str; 8] =
    ["EMFILE", "ENFILE", "ENOMEM", "EIO", "EAGAIN", "EACCES", "ESTALE", "ENOSYS"];

/// Those that say something of us, and nothing of what was looked at.
const SHORTAGES: [&str; 5] = ["EMFILE", "ENFILE", "ENOMEM", "EIO", "EAGAIN"];

/// Each of the first calls of a kind fails once, and some of the later ones.
const CALLS_EACH: usize = 20;
const CALLS_BEYOND: usize = 4;

/// Which sample a build tries.
const SEED: u64 = 14;

/// See the head of this file.
#[test]
fn what_fails_while_somebody_looks_is_no_answer() {
    if another_user().is_none() {
        return skipped("needs root and setpriv");
    }
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let extent = extent();
    let started = Instant::now();
    let queue = Mutex::new(jobs());
    let coverage = Mutex::new(Coverage::default());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut worlds = HashMap::new();
                loop {
                    let Some(job) = queue.lock().unwrap().pop_front() else { return };
                    let began = Instant::now();
                    walk(&job, extent, &mut worlds, &coverage);
                    if began.elapsed() > Duration::from_secs(20) {
                        eprintln!("{} {:?}: {:?}", VERBS[job.index].0, job.owner, began.elapsed());
                    }
                }
            });
        }
    });
    let coverage = coverage.into_inner().unwrap();
    eprintln!("{}after {:?}", coverage.table(), started.elapsed());
    let mut wrong = String::new();
    for (what, (count, example)) in &coverage.wrong {
        let _ = writeln!(wrong, "{what}: {count} times, e.g. {example}");
    }
    assert!(wrong.is_empty(), "{wrong}");
}
