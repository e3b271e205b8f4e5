//! The program of version 0.1 beside this one, on one store. `INCUMBENT_OLD_BINARY` names it;
//! without that, nothing here is tested. To build it, in a clone with its history:
//!
//! ```text
//! mkdir -p target/old/src && git archive 793eb76 | tar -x -C target/old/src
//! (cd target/old/src && cargo build --locked --target-dir ..)
//! INCUMBENT_OLD_BINARY=$PWD/target/old/debug/incumbent cargo test --test it old_binary::
//! ```

use std::path::PathBuf;
use std::process::Command;

use incumbent::{Acquire, LockRequest, Standing, Store};
use rustix::process::Signal;

use crate::support::{
    Answer, Identity, LIMIT, Process, Random, Run, Sandbox, another_user, eventually, exit_code,
    kill, rounds, skipped, wait_ended,
};

/// The first schema that closes the store to writers of version 0.1.
const CLOSED_TO_OLD: i64 = 7;

const TOO_NEW: &str = "newer incumbent";

/// The older program, if there is one here.
fn old_binary() -> Option<PathBuf> {
    let path: PathBuf = std::env::var_os("INCUMBENT_OLD_BINARY")?.into();
    assert!(path.is_file(), "INCUMBENT_OLD_BINARY: {} is not a file", path.display());
    Some(path)
}

macro_rules! old_or_skip {
    () => {
        match old_binary() {
            Some(path) => path,
            None => return skipped("needs INCUMBENT_OLD_BINARY, a program of version 0.1"),
        }
    };
}

/// A store, and both programs.
struct Both {
    sandbox: Sandbox,
    old: PathBuf,
}

impl Both {
    /// A store that the older one made.
    fn new(old: PathBuf) -> Self {
        let both = Self { sandbox: Sandbox::new(), old };
        both.old(&["--profile", "first", "run", "--no-backoff", "--", "true"]).assert_code(0);
        assert!(both.schema() < CLOSED_TO_OLD, "INCUMBENT_OLD_BINARY is not of version 0.1");
        both
    }

    fn old_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.program(&self.old);
        command.args(arguments);
        command
    }

    fn old(&self, arguments: &[&str]) -> Answer {
        Process::start(self.old_command(arguments)).finish(LIMIT)
    }

    fn schema(&self) -> i64 {
        self.sandbox.number("PRAGMA user_version")
    }

    /// A `run` of the older program, whose command says its pid.
    fn old_run(&self, command: &[&str]) -> Run {
        let run = ["run", "--no-backoff", "--lock", "token=one", "--"];
        Run::start(self.old_command(&[&run[..], command].concat()))
    }

    /// A start of the newer one, which is refused, and brings the store up to date.
    #[track_caller]
    fn migrate_by_a_refused_start(&self) {
        self.sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        assert!(self.schema() >= CLOSED_TO_OLD);
        let min_writer = "SELECT value FROM meta WHERE key = 'min_writer'";
        assert_eq!(self.sandbox.number(min_writer), CLOSED_TO_OLD);
    }

    /// What the older one can no longer do, and what it still can.
    #[track_caller]
    fn assert_old_reads_and_does_not_write(&self) {
        let pid = std::process::id().to_string();
        for verb in [
            &["run", "--no-backoff", "--", "true"][..],
            &["run", "--no-backoff", "--replace", "--", "true"],
            &["--profile", "other", "run", "--no-backoff", "--", "true"],
            &["--profile", "other", "claim", "--no-keeper", "--pid", &pid],
            &["lock", "acquire", "a", "b", "--no-keeper", "--pid", &pid],
            &["desired", "stopped"],
        ] {
            let answer = self.old(verb).assert_code(78);
            assert!(answer.err.contains(TOO_NEW), "{verb:?}: {answer:#?}");
        }
        for verb in [
            &["status", "--all"][..],
            &["locks"],
            &["history"],
            &["events"],
            &["sql", "SELECT * FROM gateways"],
        ] {
            self.old(verb).assert_code(0);
        }
    }

    #[track_caller]
    fn assert_the_next_start_owns(&self) {
        let start = ["run", "--no-backoff", "--lock", "token=one", "--", "true"];
        self.sandbox.cli(start).assert_code(0);
    }
}

/// An update while the gateway runs: it goes on, under the eyes of both. Neither its end nor a stop
/// of the older program can be recorded; both take place.
#[test]
fn a_run_of_version_0_1_goes_on_under_the_migration_until_it_is_stopped_by_the_old_program() {
    let both = Both::new(old_or_skip!());
    let run = both.old_run(&["/bin/sh", "-c", "echo $$; exec cat"]);
    both.migrate_by_a_refused_start();
    both.assert_old_reads_and_does_not_write();
    let status = both.sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], run.pid(), "{status:#}");
    assert_eq!(both.old(&["status"]).code(), 0);
    assert!(!run.command.is_gone());

    let stop = both.old(&["stop", "--timeout", "20s"]).assert_code(0);
    assert!(stop.err.contains("could not be recorded"), "{stop:#?}");
    assert!(run.command.is_gone());
    let ended = run.process.finish_with_stdin_open(LIMIT);
    assert!(ended.err.contains("could not be recorded"), "{ended:#?}");
    assert_eq!(both.old(&["status"]).code(), 3);
    both.sandbox.assert_status(3, "dead", "anchor_released");
    both.assert_the_next_start_owns();
    assert_eq!(both.sandbox.history()[1]["end_reason"], "anchor_released");
}

/// The same where its command ends by itself: the exit code is passed on.
#[test]
fn the_end_of_a_run_of_version_0_1_is_found_by_the_next_start() {
    let both = Both::new(old_or_skip!());
    let run = both.old_run(&["/bin/sh", "-c", "echo $$; cat; exit 7"]);
    both.migrate_by_a_refused_start();
    let ended = run.end().assert_code(7);
    assert!(ended.err.contains("could not be recorded"), "{ended:#?}");
    both.sandbox.assert_status(3, "dead", "anchor_released");
    both.assert_the_next_start_owns();
}

/// The newer program stops and replaces it like one of its own.
#[test]
fn the_new_program_stops_and_replaces_a_run_of_version_0_1() {
    let old = old_or_skip!();
    let both = Both::new(old.clone());
    let run = both.old_run(&["/bin/sh", "-c", "echo $$; exec cat"]);
    both.migrate_by_a_refused_start();
    both.sandbox.cli(["stop", "--timeout", "20s"]).assert_code(0);
    assert!(run.command.is_gone());
    run.process.finish_with_stdin_open(LIMIT);
    both.assert_the_next_start_owns();

    let both = Both::new(old);
    let run = both.old_run(&["/bin/sh", "-c", "echo $$; exec cat"]);
    let start = ["run", "--no-backoff", "--replace", "--lock", "token=one", "--", "true"];
    both.sandbox.cli(start).assert_code(0);
    assert!(run.command.is_gone());
    run.process.finish_with_stdin_open(LIMIT);
}

/// It is killed, and its command lives under another user id: nothing but the process table says
/// so, and by a row that does not say which file the anchor is, nobody is ended.
#[test]
fn the_command_that_a_killed_run_of_version_0_1_left_keeps_its_office() {
    let old = old_or_skip!();
    let Some(user) = another_user() else { return skipped("needs root and setpriv") };
    let both = Both::new(old);
    let mut run = both.old_run(&[user, &["/bin/sh", "-c", "echo $$; exec cat"]].concat());
    both.migrate_by_a_refused_start();
    run.process.signal(Signal::KILL);
    run.process.wait(LIMIT);
    both.sandbox.assert_status(0, "alive", "child_lives");
    for options in [&["--wait=0.2"][..], &[]] {
        let start = [&["run", "--no-backoff"], options, &["--", "true"]].concat();
        both.sandbox.cli(start).assert_code(75);
    }
    assert!(!run.command.is_gone());
    kill(run.command.pid, Signal::KILL);
    run.command.wait_gone(LIMIT);
    both.assert_the_next_start_owns();
}

/// A record by `--pid` of version 0.1, with its one keeper: as long as the process lives, also when
/// the keeper is killed.
#[test]
fn a_record_and_its_keeper_of_version_0_1_hold_until_the_process_ends() {
    let old = old_or_skip!();
    for keeper_dies in [false, true] {
        let both = Both::new(old.clone());
        let mut owner = Process::start(both.sandbox.program("cat"));
        let pid = owner.pid().to_string();
        both.old(&["claim", "--pid", &pid]).assert_code(0);
        both.old(&["lock", "acquire", "token", "one", "--pid", &pid]).assert_code(0);
        both.migrate_by_a_refused_start();
        if keeper_dies {
            let query = "SELECT keeper_pid FROM instances WHERE ended_at_ms IS NULL";
            let keeper = u32::try_from(both.sandbox.number(query)).unwrap();
            let keeper = Identity::of(keeper).unwrap();
            kill(keeper.pid, Signal::KILL);
            keeper.wait_gone(LIMIT);
            both.sandbox.assert_status(0, "alive", "start_time_matches");
        } else {
            both.sandbox.assert_status(0, "alive", "anchor_held");
        }
        both.sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        let lock =
            ["--profile", "other", "run", "--no-backoff", "--lock", "token=one", "--", "true"];
        both.sandbox.cli(lock).assert_code(75);
        // The older one cannot record that it gives back.
        let release = both.old(&["release", "--pid", &pid]);
        assert_ne!(release.code(), 0, "{release:#?}");
        owner.kill();
        assert!(wait_ended(owner.pid(), LIMIT));
        both.assert_the_next_start_owns();
    }
}

/// It would take a lock without slots that is held in slots: it knows nothing of those, and the
/// first of them, which stands where the lock itself does, is free. It cannot write at all.
#[test]
fn version_0_1_gets_no_lock_that_is_held_in_slots() {
    let both = Both::new(old_or_skip!());
    let store = Store::open(both.sandbox.db()).unwrap();
    let request = LockRequest::new("token", "one").unwrap().slots(2).unwrap();
    let slot = || match store.try_acquire(&request).unwrap() {
        Acquire::Granted(lock) => lock,
        Acquire::Held(holder) => panic!("{holder}"),
    };
    let (first, second) = (slot(), slot());
    let pid = std::process::id().to_string();
    let acquire = ["lock", "acquire", "token", "one", "--no-keeper", "--pid", &pid];
    let run = ["run", "--no-backoff", "--lock", "token=one", "--", "true"];
    for verb in [&acquire[..], &run] {
        let answer = both.old(verb).assert_code(78);
        assert!(answer.err.contains(TOO_NEW), "{answer:#?}");
    }
    drop(first);
    for verb in [&acquire[..], &run] {
        both.old(verb).assert_code(78);
        assert_eq!(both.sandbox.cli(verb).code(), 75);
    }
    both.old(&["locks"]).assert_code(0);
    assert_eq!(second.verify().unwrap(), Standing::Held);
    assert_eq!(both.sandbox.number("SELECT count(*) FROM scoped_locks"), 1);
}

/// Twelve starts of both programs at once, on a store that one of them has to migrate: one owner,
/// and everybody else is told why not.
#[test]
fn of_twelve_mixed_starts_one_wins() {
    let old = old_or_skip!();
    let mut random = Random::seeded();
    let mut won_by_old = 0;
    let rounds = rounds(12, 200);
    for round in 1..=rounds {
        let both = Both::new(old.clone());
        let mut starters: Vec<(bool, Process)> = (0..12)
            .map(|number| {
                let is_old = number % 2 == 0;
                let program = if is_old { both.old.to_str().unwrap() } else { "incumbent" };
                let script = format!(
                    "read -r go; exec {program} run --no-backoff -- sh -c 'echo won; exec cat'"
                );
                (is_old, Process::start(both.sandbox.shell(&script)))
            })
            .collect();
        // In an order of chance, or the newer ones first: they have to migrate before they own.
        for left in (2..=starters.len()).rev() {
            starters.swap(random.index(left), left - 1);
        }
        if round % 2 == 0 {
            starters.sort_by_key(|(is_old, _)| *is_old);
        }
        for (_, start) in &mut starters {
            start.say("go");
        }
        eventually("all but one have ended", LIMIT, || {
            let running =
                starters.iter_mut().filter_map(|(_, start)| (!start.has_ended()).then_some(()));
            (running.count() <= 1).then_some(())
        });
        let mut winners = Vec::new();
        for (is_old, mut start) in starters {
            if start.has_ended() {
                let answer = start.finish(LIMIT);
                let refused = answer.code() == 75 || (is_old && answer.code() == 78);
                assert!(refused, "round {round}, old {is_old}: {answer:#?}");
                assert!(!answer.out.contains("won"), "round {round}, old {is_old}: {answer:#?}");
            } else {
                winners.push((is_old, start));
            }
        }
        let (is_old, mut winner) = winners.pop().expect("one that runs");
        assert_eq!(winner.line(), "won", "round {round}");
        won_by_old += usize::from(is_old);
        let status = both.sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["pid"], winner.pid(), "round {round}: {status:#}");
        winner.close_stdin();
        assert_eq!(exit_code(winner.wait(LIMIT)), 0, "round {round}");
        both.sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }
    eprintln!("{rounds} rounds, {won_by_old} of them won by version 0.1");
}
