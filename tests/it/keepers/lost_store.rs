//! The store is deleted, copied back or recovered under a keeper.

use rustix::process::Signal;

use crate::store::damage::destroy_root_of;
use crate::support::{
    Identity, LIMIT, Process, STAY, Sandbox, eventually, exit_code, kill, kill_all, wait_stopped,
};

const TOKEN: &str = "123456:a-token-that-nobody-may-read";

impl Sandbox {
    /// A shell with the office `gateway` and a lock, both kept by one keeper. The lock's identity
    /// stands in its command line.
    fn owner_of_both(&self) -> (Process, Identity) {
        let script = format!(
            "incumbent claim > /dev/null && incumbent lock acquire token {TOKEN} > /dev/null || exit
             {STAY}"
        );
        let mut shell = Process::start(self.shell(&script));
        assert_eq!(shell.line(), shell.pid().to_string());
        let keepers = self.keepers();
        assert_eq!(keepers.len(), 1, "{keepers:?}");
        (shell, Identity::of(keepers[0]).unwrap())
    }

    /// A command in the place of its `run`, with a lock. Asked, it says whether it has that, by a
    /// verb.
    fn command_in_place(&self) -> Process {
        let lock = format!("token={TOKEN}");
        let script = format!(
            "echo $$
             while read -r asked; do incumbent lock verify token {TOKEN} > /dev/null; echo $?; done"
        );
        let words = ["run", "--no-backoff", "--exec", "--stop-budget", "7s", "--lock", &lock];
        let shell = ["--", "/bin/sh", "-c", &script];
        let mut process = Process::start(self.incumbent([&words[..], &shell].concat()));
        assert_eq!(process.line(), process.pid().to_string());
        process
    }

    fn lose_store(&self, loss: Loss) {
        let files =
            ["state.db", "state.db-wal", "state.db-shm"].map(|it| self.file("store").join(it));
        if loss == Loss::Directory {
            return std::fs::remove_dir_all(self.file("store")).unwrap();
        }
        for file in files {
            std::fs::remove_file(file).unwrap();
        }
        if loss == Loss::FilesAndAnchors {
            std::fs::remove_dir_all(self.anchors()).unwrap();
        }
    }

    #[track_caller]
    fn assert_refused(&self, what: &str) {
        let start = self.cli(["run", "--no-backoff", "--", "true"]);
        assert_eq!(start.code(), 75, "{what}: two owners: {start:#?}");
        let pid = std::process::id().to_string();
        let lock = self.cli(["lock", "acquire", "token", TOKEN, "--no-keeper", "--pid", &pid]);
        assert_eq!(lock.code(), 75, "{what}: two owners of the lock: {lock:#?}");
    }

    /// Waits until both are on record again for `owner`, while nobody else gets any of them.
    #[track_caller]
    fn wait_recorded_again(&self, owner: &Process, keeper: Identity, what: &str) {
        let pid = owner.pid().to_string();
        eventually(&format!("{what}: recorded again"), LIMIT, || {
            self.assert_refused(what);
            let (code, status) = self.json(["status"]);
            let lock = ["lock", "verify", "token", TOKEN, "--pid", &pid];
            let is_there = code == 0 && status["pid"] == owner.pid() && self.cli(lock).code() == 0;
            (is_there && status["reason"] == "anchor_held").then_some(())
        });
        assert!(!keeper.is_gone(), "{what}");
        assert_eq!(self.keepers().len(), 1, "{what}");
        // Whoever wants something else is kept out by nothing of it, and nothing is left over.
        eventually(&format!("{what}: other starts"), LIMIT, || {
            let other = ["run", "--no-backoff", "--kind", "other", "--", "true"];
            (self.cli(other).code() == 0).then_some(())
        });
        let leaked =
            self.number(&format!("SELECT count(*) FROM instances WHERE argv LIKE '%{TOKEN}%'"));
        assert_eq!(leaked, 0, "{what}: the store has the identity of a lock");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Files,
    FilesAndAnchors,
    Directory,
}

/// Symptom: after `doctor --fix` had recovered a damaged store, a keeper stayed in the old file. A
/// `release` that the new one noted never reached it, and it held its lock for as long as its
/// process lived: a leaked anchor. It holds because a keeper looks whether the path still names its
/// file, and goes on in the new one.
#[test]
fn a_keeper_goes_on_in_a_recovered_store() {
    for waits in [true, false] {
        let what = format!("released later: {waits}");
        let sandbox = Sandbox::new();
        let (owner, keeper) = sandbox.owner_of_both();
        let pid = owner.pid().to_string();
        destroy_root_of(&sandbox, "events");
        sandbox.cli(["doctor", "--fix"]);
        sandbox.assert_refused(&what);
        if waits {
            sandbox.wait_recorded_again(&owner, keeper, &what);
        }
        sandbox.cli(["release", "--pid", &pid]).assert_code(0);
        sandbox.cli(["lock", "release", "token", TOKEN, "--pid", &pid]).assert_code(0);
        keeper.wait_gone(LIMIT);
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        let anchors = sandbox.anchor_names();
        assert_eq!(anchors, ["recovery.lock"], "{what}");
        owner.finish(LIMIT).assert_code(0);
    }
}

/// The page that its row was on cannot be read any more: it makes another one.
#[test]
fn a_keeper_records_again_what_a_recovery_could_not_save() {
    let sandbox = Sandbox::new();
    let script = sandbox.claimant("");
    let keeper = sandbox.keeper();
    destroy_root_of(&sandbox, "instances");
    sandbox.cli(["doctor", "--fix"]);
    eventually("recorded again", LIMIT, || {
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        let (code, status) = sandbox.status();
        (code == 0 && status["pid"] == script.pid()).then_some(())
    });
    assert!(!keeper.is_gone());
    script.finish(LIMIT).assert_code(0);
    keeper.wait_gone(LIMIT);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// FIELD-BUGS rows 32 and 73, for a process that does not look itself.
///
/// Symptom: somebody deleted the store; the process' own keeper refused its next claim, and every
/// other start in that store, until the process ended. It holds because the keeper makes its
/// records again; and until then its lock keeps everybody out.
fn a_keeper_records_again_in_a_new_store(loss: Loss) {
    let what = format!("{loss:?}");
    let sandbox = Sandbox::new();
    let (mut owner, keeper) = sandbox.owner_of_both();
    let pid = owner.pid().to_string();
    sandbox.lose_store(loss);
    sandbox.assert_refused(&what);
    sandbox.wait_recorded_again(&owner, keeper, &what);
    let (code, answer) = sandbox.json(["claim", "--pid", &pid]);
    assert_eq!(code, 0, "{what}: {answer:#}");
    assert_eq!(answer["reacquired"], true, "{what}: {answer:#}");
    owner.kill();
    assert_eq!(sandbox.status().0, 3, "{what}");
    sandbox.hold(&["--lock", &format!("token={TOKEN}")]).end().assert_code(0);
    keeper.wait_gone(LIMIT);
}

#[test]
fn a_keeper_records_again_after_its_store_was_deleted() {
    a_keeper_records_again_in_a_new_store(Loss::Files);
}

#[test]
fn a_keeper_records_again_after_its_store_was_deleted_with_its_anchor() {
    a_keeper_records_again_in_a_new_store(Loss::FilesAndAnchors);
}

#[test]
fn a_keeper_records_again_after_its_directory_was_deleted() {
    a_keeper_records_again_in_a_new_store(Loss::Directory);
}

/// A copy from before the claim: the same store by its id, and the rows are not in it.
#[test]
fn a_keeper_records_again_in_an_older_copy() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let copy = sandbox.file("copy");
    std::fs::copy(sandbox.db(), &copy).unwrap();
    let (owner, keeper) = sandbox.owner_of_both();
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(sandbox.file(&format!("store/state.db{suffix}"))).unwrap();
    }
    std::fs::rename(copy, sandbox.db()).unwrap();
    sandbox.wait_recorded_again(&owner, keeper, "restored");
    owner.finish(LIMIT).assert_code(0);
    keeper.wait_gone(LIMIT);
}

/// Each of them is an orphan in the other's eyes.
#[test]
fn two_keepers_survive_the_loss_of_their_store() {
    let sandbox = Sandbox::new();
    let one = sandbox.claimant("--kind one");
    let two = sandbox.claimant("--kind two");
    sandbox.lose_store(Loss::Files);
    for (kind, owner) in [("one", &one), ("two", &two)] {
        eventually("recorded again", LIMIT, || {
            let (code, status) = sandbox.json(["status", "--kind", kind]);
            (code == 0 && status["pid"] == owner.pid()).then_some(())
        });
    }
    one.finish(LIMIT).assert_code(0);
    two.finish(LIMIT).assert_code(0);
    eventually("the keepers are gone", LIMIT, || sandbox.keepers().is_empty().then_some(()));
}

/// What somebody else has got in the new store is theirs, and a lock that keeps nothing is let go.
#[test]
fn a_keeper_gives_up_what_another_has_got_in_the_new_store() {
    let sandbox = Sandbox::new();
    let script = sandbox.claimant("");
    let keeper = sandbox.keeper();
    kill(keeper.pid, Signal::STOP);
    wait_stopped(keeper.pid);
    sandbox.lose_store(Loss::Files);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    // A person says that the process is of no account.
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let run = sandbox.hold(&[]);
    kill(keeper.pid, Signal::CONT);
    keeper.wait_gone(LIMIT);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], run.pid());
    run.end().assert_code(0);
    script.finish(LIMIT).assert_code(0);
}

/// A release that the keeper had no time to see is not undone by it.
#[test]
fn what_was_released_before_the_store_was_lost_is_not_recorded_again() {
    let sandbox = Sandbox::new();
    let (owner, keeper) = sandbox.owner_of_both();
    let pid = owner.pid().to_string();
    kill(keeper.pid, Signal::STOP);
    wait_stopped(keeper.pid);
    sandbox.cli(["release", "--pid", &pid]).assert_code(0);
    sandbox.lose_store(Loss::Files);
    kill(keeper.pid, Signal::CONT);
    let lock = ["lock", "verify", "token", TOKEN, "--pid", &pid];
    eventually("the lock is recorded again", LIMIT, || {
        (sandbox.cli(lock).code() == 0).then_some(())
    });
    assert_eq!(sandbox.status().1["reason"], "never_claimed");
    sandbox.cli(["lock", "release", "token", TOKEN, "--pid", &pid]).assert_code(0);
    keeper.wait_gone(LIMIT);
    owner.finish(LIMIT).assert_code(0);
}

/// Symptom: the store of a command in the place of its `run` was deleted. Its keepers claimed the
/// office again, but not its lock, which another one took; and what verbs in the command act by was
/// not known there. It holds because they claim all or none, with the same proof.
#[test]
fn a_command_in_place_goes_on_in_a_new_store() {
    for loss in [Loss::Files, Loss::FilesAndAnchors, Loss::Directory] {
        let what = format!("{loss:?}");
        let sandbox = Sandbox::new();
        let mut command = sandbox.command_in_place();
        let pid = command.pid().to_string();
        sandbox.lose_store(loss);
        eventually(&format!("{what}: recorded again"), LIMIT, || {
            sandbox.assert_refused(&what);
            let (code, status) = sandbox.json(["status"]);
            (code == 0 && status["reason"] == "anchor_held").then_some(())
        });
        assert_eq!(sandbox.status().1["pid"], command.pid(), "{what}");
        command.say("?");
        assert_eq!(command.line(), "0", "{what}: the lock, by the proof of before");
        sandbox.cli(["release", "--pid", &pid]).assert_code(1);
        let budget = "SELECT max(stop_budget_ms) FROM instances WHERE ended_at_ms IS NULL
                      AND kind IS NOT NULL";
        assert_eq!(sandbox.number(budget), 7_000, "{what}");
        let leaked = format!("SELECT count(*) FROM instances WHERE argv LIKE '%{TOKEN}%'");
        assert_eq!(sandbox.number(&leaked), 0, "{what}: the store has the identity of a lock");
        // Each of the two knows of it.
        let pair = sandbox.keeper_pair();
        kill(pair[0], Signal::KILL);
        eventually("another keeper", LIMIT, || {
            let now = sandbox.keepers_on_record();
            (now[0] == pair[1] && now[1] != 0).then_some(())
        });
        sandbox.cli(["unlock", "token", TOKEN, "--force"]).assert_code(0);
        assert_eq!(exit_code(command.wait(LIMIT)), 128 + 15, "{what}");
    }
}

/// Somebody else has its office by now: it does not act beside that one.
#[test]
fn a_command_in_place_ends_where_another_has_its_office_in_the_new_store() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command_in_place();
    let pair = sandbox.keeper_pair();
    kill_all(&pair, Signal::STOP);
    pair.into_iter().for_each(wait_stopped);
    sandbox.lose_store(Loss::Files);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    // A person says that the process is of no account.
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let run = sandbox.hold(&[]);
    kill_all(&pair, Signal::CONT);
    assert_eq!(exit_code(command.wait(LIMIT)), 128 + 15);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], run.pid());
    run.end().assert_code(0);
}
