//! Owners that are killed in the middle of transactions, and what they had forked before: nobody is
//! locked out by what is left of them. FIELD-BUGS row 98.
//!
//! Our locks belong to open files, and a forked process has those, too. It closes them at once
//! (`sys/wal_index/`), unless it was made by a bare system call, past the C library: such a one
//! holds what was locked at that moment for as long as it lives.
//!
//! `INCUMBENT_TEST_ROUNDS=long` kills a thousand.

use std::time::{Duration, Instant};

use incumbent::{Acquire, Claim, ErrorKind, LockRequest, OpenOptions, StatusUpdate};
use rustix::process::Signal;

use crate::support::forked::{fork, fork_past_the_library, stay};
use crate::support::{
    Identity, Process, Random, Sandbox, assert_within, kill, order, role, role_db, rounds,
    test_name,
};

const ROLE_TEST: &str = test_name!(role_of_an_owner);

/// The next owner is in at once, on a busy machine. It is far below the time that a store may be
/// busy for.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Who is left of an owner that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nobody,
    /// A child by `fork`.
    Child,
    /// One by a system call of the owner's own.
    BareChild,
}

const LEFT: [Left; 3] = [Left::Nobody, Left::Child, Left::BareChild];

/// Plays an owner: claims and writes, and never stops with it. Says how long the first grant took.
#[test]
fn role_of_an_owner() {
    let Some(role) = role() else { return };
    eprintln!("=> ready");
    assert_eq!(order().as_deref(), Some("go"));
    let asked = Instant::now();
    let store = loop {
        match OpenOptions::new().path(role_db()).open() {
            Ok(store) => break store,
            Err(error) => {
                eprintln!("=> open: {error}");
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            }
        }
    };
    let profile = store.profile("default").unwrap();
    let tenure = loop {
        match profile.claim() {
            Ok(Claim::Granted(tenure)) => break tenure,
            // The process that held it is dead, and the test has seen that.
            Ok(Claim::Held(holder)) => panic!("refused: {holder}"),
            Err(error) => {
                eprintln!("=> claim: {error}");
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            }
        }
    };
    eprintln!("=> granted after {} us", asked.elapsed().as_micros());
    std::thread::scope(|scope| {
        // A process that is killed is killed in the middle of one of these, as a rule.
        scope.spawn(|| {
            loop {
                if let Err(error) = tenure.update_status(&StatusUpdate::new().heartbeat()) {
                    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                }
            }
        });
        scope.spawn(|| {
            let request = LockRequest::new("token", "one for all").unwrap();
            loop {
                match store.try_acquire(&request) {
                    Ok(Acquire::Granted(lock)) => drop(lock),
                    Ok(Acquire::Held(_)) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
                }
            }
        });
        while order().as_deref() == Some("fork") {
            let child = match role.as_str() {
                "Child" => fork(),
                _ => fork_past_the_library(),
            };
            if child == 0 {
                stay();
            }
            eprintln!("=> child {child}");
        }
    });
}

fn ready_owner(sandbox: &Sandbox, left: Left) -> Process {
    let mut owner = sandbox.role(ROLE_TEST, &format!("{left:?}"));
    owner.err_line_with("=> ready");
    owner
}

/// How long it took, by its own word.
fn grant_took(owner: &mut Process) -> Duration {
    let line = owner.err_line_with("=> granted after ");
    Duration::from_micros(line.split(' ').nth_back(1).unwrap().parse().unwrap())
}

/// Times, for people.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn report(&mut self, of: &str) {
        self.0.sort_unstable();
        if let (Some(middle), Some(longest)) = (self.0.get(self.0.len() / 2), self.0.last()) {
            eprintln!(
                "{of}: {} owners, half within {middle:?}, all within {longest:?}",
                self.0.len()
            );
        }
    }
}

/// Symptom looked for: after `kill -9` of a gateway that had forked a worker, every start said that
/// the store stays busy. It holds because the kernel frees what an open file has locked with its
/// last descriptor, and a worker has none.
#[test]
fn whoever_is_killed_in_a_transaction_locks_nobody_out_and_neither_do_its_children() {
    let mut random = Random::seeded();
    let sandbox = Sandbox::new();
    let mut times = LEFT.map(|_| Times::default());
    let mut locked_out = 0;
    let mut left = Left::Nobody;
    let mut owner = ready_owner(&sandbox, left);
    owner.say("go");
    grant_took(&mut owner);
    for round in 1..=rounds(120, 1_000) {
        let mut child = None;
        if left != Left::Nobody {
            // In the middle of whatever its threads are doing.
            random.pause_up_to(Duration::from_millis(3));
            owner.say("fork");
            let line = owner.err_line_with("=> child ");
            let pid = line.rsplit_once(' ').unwrap().1.parse().unwrap();
            child = Some(Identity::of(pid).expect("it stays"));
        }
        let drawn = LEFT[random.index(LEFT.len())];
        let mut next = ready_owner(&sandbox, drawn);
        random.pause_up_to(Duration::from_millis(3));
        owner.kill();
        let context = format!("round {round}: of the killed one is left: {left:?}");
        next.say("go");
        let (asked, mut lived) = (Instant::now(), Duration::ZERO);
        if left == Left::BareChild {
            // It may hold the lock of a writer, and then it does so until it ends.
            random.pause_up_to(Duration::from_millis(60));
            let child = child.take().unwrap();
            assert!(!child.is_gone(), "{context}");
            lived = asked.elapsed();
            kill(child.pid, Signal::KILL);
        }
        eprintln!("{context}");
        let took = grant_took(&mut next);
        assert_within(
            lived + AT_ONCE,
            took,
            &format!("{context}, and the child lived for {lived:?}"),
        );
        locked_out += usize::from(!lived.is_zero() && took > lived);
        times[LEFT.iter().position(|it| *it == left).unwrap()].0.push(took);
        if let Some(child) = child {
            assert!(!child.is_gone(), "{context}: the child has ended");
            kill(child.pid, Signal::KILL);
        }
        (owner, left) = (next, drawn);
    }
    for (left, times) in LEFT.iter().zip(&mut times) {
        times.report(&format!("of the killed one is left: {left:?}"));
    }
    eprintln!("not yet granted while a bare child lived: {locked_out}");
    owner.kill();
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    let whole: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
}
