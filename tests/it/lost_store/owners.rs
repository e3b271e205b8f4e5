//! Owners whose store was deleted or replaced a moment ago. They are at work, and claim again in
//! the new one as soon as they notice: until then nobody may take the lack of a record for a "no"
//! (FIELD-BUGS rows 98 to 100).

use incumbent::{ErrorKind, StatusUpdate, Store};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{
    Answer, LIMIT, Process, Run, Sandbox, eventually, granted, rounds, stop_between_transactions,
    wait_stopped,
};

/// What becomes of the store's files.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Deleted,
    /// Somebody has begun a new one by now.
    New,
    SidecarsDeleted,
}

const FATES: [Fate; 3] = [Fate::Deleted, Fate::New, Fate::SidecarsDeleted];

impl Sandbox {
    fn lose_files(&self, fate: Fate) {
        let suffixes: &[&str] = match fate {
            Fate::SidecarsDeleted => &["-wal", "-shm"],
            Fate::Deleted | Fate::New => &["", "-wal", "-shm"],
        };
        for suffix in suffixes {
            std::fs::remove_file(self.sidecar(suffix)).unwrap();
        }
        if matches!(fate, Fate::New) {
            self.cli(["desired", "running"]).assert_code(0);
        }
    }

    /// Asks as the command of `run` does.
    pub fn ask_in(&self, run: &Run, words: &[&str]) -> Answer {
        let environ = std::fs::read(format!("/proc/{}/environ", run.command.pid)).unwrap();
        let environ = String::from_utf8(environ).unwrap();
        let mut asked = self.incumbent(words);
        for pair in environ.split('\0').filter(|pair| pair.starts_with("INCUMBENT_")) {
            let (name, value) = pair.split_once('=').unwrap();
            asked.env(name, value);
        }
        Process::start(asked).finish(LIMIT)
    }
}

/// A program that tries again while an error is temporary would try for ever: the handle of a store
/// that is gone stays useless, and opening it again helps.
#[test]
fn a_handle_whose_store_is_gone_is_not_waited_for() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = granted(store.profile("work").unwrap().claim());
    sandbox.lose_files(Fate::Deleted);
    let error = tenure.update_status(&StatusUpdate::new().state("running")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreReplaced, "{error}");
    assert!(!error.is_temporary(), "{error}");
    let again = Store::open(sandbox.db()).unwrap();
    drop(granted(again.profile("work").unwrap().claim()));
}

/// A `run` with the lock `t one` that loses its store while it is stopped.
fn stopped_run(sandbox: &Sandbox, fate: Fate) -> Run {
    let run = sandbox.hold(&["--lock", "t=one"]);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    sandbox.lose_files(fate);
    run
}

/// Symptom: a cleaner took `-wal` and `-shm` away, and `status` said of a gateway that lives that
/// nobody had claimed the office yet. Cause: the records were read first, and the look for owners
/// without one waited until it had one.
#[test]
fn status_never_denies_an_owner_that_is_about_to_claim_again() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    for round in 0..rounds(5, 100) {
        sandbox.lose_files(Fate::SidecarsDeleted);
        eventually("claimed again", LIMIT, || {
            let (code, status) = sandbox.status();
            assert!([0, 4].contains(&code), "round {round}: {code}: {status:#}");
            (code == 0).then_some(())
        });
    }
    run.end().assert_code(0);
}

/// Symptom: a gateway asked for its own lock in the second after its store was lost, and was told
/// 1, "nobody holds it", which means that it has to end. Not knowing is no loss: 75, and 0 again
/// once the run has noticed.
#[test]
fn an_owner_is_not_told_no_because_its_store_is_lost() {
    for fate in FATES {
        let sandbox = Sandbox::new();
        let run = stopped_run(&sandbox, fate);
        let verify = ["lock", "verify", "t", "one"];
        for words in [
            &verify[..],
            &["lock", "renew", "t", "one"],
            &["lock", "release", "t", "one"],
            &["lock", "release", "--all"],
            &["release"],
            &["status-set", "--state", "running"],
            &["marker", "peek"],
            &["marker", "consume"],
        ] {
            let answer = sandbox.ask_in(&run, words);
            assert_eq!(answer.code(), 75, "{fate:?}, {words:?}: {answer:#?}");
            let pid = format!("pid {}", run.pid());
            answer.assert_complains(&[&pid, "moved, deleted or replaced", "try:", "try again"]);
        }
        let json = [&["--json"], &verify[..]].concat();
        let document: Value = sandbox.ask_in(&run, &json).json();
        assert_eq!(document["error"]["kind"], "store_replaced", "{fate:?}: {document:#}");
        run.process.signal(Signal::CONT);
        eventually("it holds its lock again", LIMIT, || {
            let answer = sandbox.ask_in(&run, &verify);
            assert!([0, 75].contains(&answer.code()), "{fate:?}: {answer:#?}");
            (answer.code() == 0).then_some(())
        });
        // Of another lock the answer is no as soon as the run is on record.
        sandbox.ask_in(&run, &["lock", "verify", "t", "other"]).assert_code(1);
        run.end().assert_code(0);
        // And where nobody is left.
        sandbox.cli(["lock", "verify", "t", "one"]).assert_code(1);
    }
}

/// A lock that somebody else has by now is lost, whoever else has lost his store.
#[test]
fn a_lock_that_somebody_else_has_is_lost_for_certain() {
    let sandbox = Sandbox::new();
    let winner = Process::start(sandbox.program("cat"));
    let loser = Process::start(sandbox.program("cat"));
    let run = stopped_run(&sandbox, Fate::New);
    // Beside the orphan nobody is granted anything: without its anchor for a moment.
    let anchors = sandbox.anchors();
    let aside = sandbox.file("aside");
    std::fs::create_dir(&aside).unwrap();
    for name in sandbox.anchor_names() {
        std::fs::rename(anchors.join(&name), aside.join(&name)).unwrap();
    }
    let pids = [winner.pid().to_string(), loser.pid().to_string()];
    sandbox.cli(["lock", "acquire", "t", "two", "--pid", &pids[0]]).assert_code(0);
    for entry in std::fs::read_dir(&aside).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), anchors.join(entry.file_name())).unwrap();
    }
    sandbox.cli(["lock", "verify", "t", "three", "--pid", &pids[1]]).assert_code(75);
    sandbox.cli(["lock", "verify", "t", "two", "--pid", &pids[1]]).assert_code(1);
    sandbox.cli(["lock", "verify", "t", "two", "--pid", &pids[0]]).assert_code(0);
    drop(run);
}

/// Symptom: `restart` said 3, "not running", where `status` and `stop` said 4 and named a process.
#[test]
fn a_restart_knows_owners_without_a_record() {
    for fate in FATES {
        let sandbox = Sandbox::new();
        let run = stopped_run(&sandbox, fate);
        let pid = format!("held by pid {}", run.pid());
        let stop = sandbox.cli(["stop", "--timeout", "0"]).assert_code(4);
        let restart = sandbox.cli(["restart"]).assert_code(4);
        for answer in [stop, restart] {
            answer.assert_complains(&[&pid, "its record is gone", "try:", "evict --force"]);
        }
        let (code, document) = sandbox.json(["restart"]);
        let holder = &document["holder"];
        assert_eq!((code, holder["pid"].as_u64()), (4, Some(run.pid().into())), "{document:#}");
        assert_eq!(
            (&holder["reason"], &holder["verdict"]),
            (&"orphaned_anchor".into(), &"unknown".into())
        );
    }
}

/// Invariant 3. Symptom: `status` advised `incumbent evict --force`, which said that there was
/// nothing to evict; nothing changed, and nobody could start. There is always a verb that gets a
/// person out of it.
#[test]
fn the_advice_beside_an_owner_without_a_record_works() {
    for fate in FATES {
        for (verb, lock) in [(&["evict"][..], false), (&["unlock", "t", "one"], true)] {
            let sandbox = Sandbox::new();
            let run = stopped_run(&sandbox, fate);
            let pid = format!("pid {}", run.pid());
            let start = ["run", "--no-backoff", "--lock", "t=one", "--", "true"];
            sandbox.assert_status(4, "unknown", "orphaned_anchor");
            let refused = sandbox.cli(verb).assert_code(75);
            assert_eq!(refused.err.matches("--force").count(), 1, "said once: {refused:#?}");
            refused.assert_complains(&[&pid, "try:", "--force"]);
            sandbox.assert_status(4, "unknown", "orphaned_anchor");
            if !lock {
                sandbox.cli(start).assert_code(75);
            }
            let done = sandbox.cli([verb, &["--force"]].concat()).assert_code(0);
            assert!(done.out.contains("no longer block"), "{fate:?}: {done:#?}");
            sandbox.assert_status(3, "dead", "never_claimed");
            sandbox.cli(start).assert_code(0);
            assert!(!run.command.is_gone(), "its process was left alone");
        }
    }
}

/// The same for what `claim` recorded, whose keepers are stopped.
#[test]
fn the_advice_works_beside_keepers_without_a_record() {
    for fate in FATES {
        let sandbox = Sandbox::new();
        let gateway = Process::start(sandbox.program("cat"));
        let pid = gateway.pid().to_string();
        sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
        let keepers = sandbox.keeper_pair();
        stop_between_transactions(&sandbox, &keepers);
        sandbox.lose_files(fate);
        sandbox.assert_status(4, "unknown", "orphaned_anchor");
        sandbox.cli(["evict"]).assert_code(75);
        sandbox.cli(["evict", "--force"]).assert_code(0);
        sandbox.assert_status(3, "dead", "never_claimed");
        sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
        // The one that goes on first may have ended the other one before that is asked to.
        for keeper in keepers {
            let keeper = Pid::from_raw(i32::try_from(keeper).unwrap()).unwrap();
            let _ = kill_process(keeper, Signal::CONT);
        }
    }
}
