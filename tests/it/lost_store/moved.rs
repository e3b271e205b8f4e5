//! A store that is moved away under its owners (FIELD-BUGS row 96): the directory lies elsewhere,
//! locks and all, and whoever starts at the old path makes a new store there.
//!
//! Whoever makes it looks for processes that hold an anchor which was made for that path and is not
//! there any more. They refuse every claim until they end, or notice and claim again.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::claims::library::gateway::{GATEWAY, ROLE_TEST};
use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, ask, eventually, mount_namespace, skipped, wait_stopped,
};

const ORPHANED: &str = "orphaned_anchor";

impl Sandbox {
    /// Moves the whole store directory away, as `mv` does; to where.
    fn move_store(&self) -> PathBuf {
        let to = self.file("moved");
        std::fs::rename(self.file("store"), &to).unwrap();
        to
    }

    /// A start at the old path: how it ended, and who was in its way.
    fn start(&self, profile: &str) -> (i32, Value) {
        let answer =
            self.cli(["--json", "--profile", profile, "run", "--no-backoff", "--", "true"]);
        let document = serde_json::from_str::<Value>(&answer.out).unwrap_or_default();
        (answer.code(), document["holder"].clone())
    }

    #[track_caller]
    fn assert_refused_by_what_was_moved(&self, pid: u32) {
        let (code, holder) = self.start("default");
        assert_eq!((code, &holder["reason"]), (75, &json!(ORPHANED)), "{holder:#}");
        assert_eq!(holder["pid"], pid, "{holder:#}");
    }

    /// Every question and every claim gives the same answer.
    #[track_caller]
    fn assert_nobody_knows(&self, pid: u32) {
        self.assert_refused_by_what_was_moved(pid);
        // Of any other office and lock that owner may be the holder as well.
        assert_eq!(self.start("other").0, 75);
        let lock = ["lock", "acquire", "bot", "token", "--pid", &std::process::id().to_string()];
        let (code, answer) = self.json(lock);
        assert_eq!((code, &answer["holder"]["reason"]), (75, &json!(ORPHANED)), "{answer:#}");
        let status = self.assert_status(4, "unknown", ORPHANED);
        assert_eq!((&status["pid"], &status["running"]), (&json!(pid), &json!(false)));
        let (code, stop) = self.json(["stop"]);
        assert_eq!((code, &stop["stopped"]), (4, &json!(false)), "{stop:#}");
        assert_eq!(stop["holder"]["reason"], ORPHANED, "{stop:#}");
        assert_eq!(stop["was_running"], json!(true), "{stop:#}");
        let told = self.cli(["stop"]).assert_code(4);
        told.assert_complains(&["moved, deleted or replaced", "not signalled", "try:"]);
    }

    #[track_caller]
    fn assert_free_for_all(&self) {
        for profile in ["default", "other"] {
            let (code, holder) = self.start(profile);
            assert_eq!(code, 0, "{holder:#}");
        }
        self.assert_status(3, "dead", "exited");
        self.cli(["stop"]).assert_code(0);
    }
}

/// FIELD-BUGS row 96. Symptom: the state directory was moved (`mv`), and a start at the old path
/// was granted beside the gateway that was at work. Cause: the new store knew nothing of the one
/// before it. It holds because an anchor says which store it was made for.
#[test]
fn a_store_that_was_moved_under_its_owner_keeps_others_out() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.role(ROLE_TEST, GATEWAY);
    assert_eq!(ask(&mut owner, "open"), "opened");
    assert!(ask(&mut owner, "claim default").starts_with("granted "));
    sandbox.move_store();
    sandbox.assert_nobody_knows(owner.pid());
    assert_eq!(ask(&mut owner, "verify"), "StoreReplaced");
    assert_eq!(ask(&mut owner, "release"), "WasLost");
    assert_eq!(ask(&mut owner, "close"), "closed");
    sandbox.assert_free_for_all();
}

/// The same, where the moved directory was deleted later on, and where its owner was killed.
#[test]
fn what_was_moved_and_deleted_counts_until_its_owner_ends() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.hold(&[]);
    owner.process.signal(Signal::STOP);
    wait_stopped(owner.pid());
    let moved = sandbox.move_store();
    std::fs::remove_dir_all(moved).unwrap();
    sandbox.assert_nobody_knows(owner.pid());
    owner.kill();
    owner.command.wait_gone(LIMIT);
    sandbox.assert_free_for_all();
}

/// A library owner goes on in the new store, whoever made that.
#[test]
fn the_owner_of_a_moved_store_can_claim_again() {
    for others_come_first in [false, true] {
        let sandbox = Sandbox::new();
        let mut owner = sandbox.role(ROLE_TEST, GATEWAY);
        assert_eq!(ask(&mut owner, "open"), "opened");
        assert!(ask(&mut owner, "claim default").starts_with("granted "));
        sandbox.move_store();
        if others_come_first {
            sandbox.assert_refused_by_what_was_moved(owner.pid());
        }
        assert_eq!(ask(&mut owner, "open"), "opened");
        let answer = ask(&mut owner, "claim default");
        assert!(answer.starts_with("granted "), "{others_come_first}: {answer}");
        assert_eq!(ask(&mut owner, "verify"), "Held");
        sandbox.assert_status(0, "alive", "anchor_held");
        let (code, holder) = sandbox.start("default");
        assert_eq!((code, &holder["reason"]), (75, &json!("anchor_held")), "{holder:#}");
        assert_eq!(ask(&mut owner, "close"), "closed");
        sandbox.assert_free_for_all();
    }
}

/// A `run` claims again at the old path by itself, be it the first there or not, and then it is in
/// nobody's way for anything else; another `run` that was moved with it does the same.
#[test]
fn runs_of_a_moved_store_claim_again_in_every_order() {
    for others_come_first in [false, true] {
        let what = format!("others come first: {others_come_first}");
        let sandbox = Sandbox::new();
        let runs = ["default", "second"].map(|profile| sandbox.hold(&["--profile", profile]));
        if others_come_first {
            for run in &runs {
                run.process.signal(Signal::STOP);
                wait_stopped(run.pid());
            }
        }
        sandbox.move_store();
        if others_come_first {
            let (code, holder) = sandbox.start("default");
            assert_eq!((code, &holder["reason"]), (75, &json!(ORPHANED)), "{holder:#}");
            for run in &runs {
                run.process.signal(Signal::CONT);
            }
        }
        for (profile, run) in ["default", "second"].iter().zip(&runs) {
            eventually(&format!("{what}: {profile} is claimed again"), LIMIT, || {
                let (code, status) = sandbox.json(["status", "--profile", profile]);
                (code == 0 && status["pid"] == run.pid()).then_some(())
            });
            assert!(!run.command.is_gone(), "{what}");
            let (code, holder) = sandbox.start(profile);
            let reason = &holder["reason"];
            assert_eq!((code, reason), (75, &json!("anchor_held")), "{what}: {holder:#}");
        }
        let (code, holder) = sandbox.start("other");
        assert_eq!(code, 0, "{what}: {holder:#}");
        for run in runs {
            run.end().assert_code(0);
        }
        assert_eq!(sandbox.number("SELECT count(*) FROM meta WHERE key = 'lost_owners'"), 0);
        sandbox.assert_free_for_all();
    }
}

/// Symptom: the store was moved, its gateway went on at the old path, and a start at the new one
/// ended its command as one that a killed `run` had left behind. It holds because an owner that let
/// go of its lock in the moved store is looked for where that lock was made.
#[test]
fn an_owner_that_went_back_is_not_ended_from_the_new_place() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let moved = sandbox.move_store().join("state.db");
    let moved = moved.to_str().unwrap();
    eventually("it is claimed again", LIMIT, || {
        let (code, status) = sandbox.status();
        (code == 0 && status["pid"] == run.pid()).then_some(())
    });
    for options in [&[][..], &["--profile", "other"]] {
        let verb = ["run", "--no-backoff", "--", "true"];
        let answer = sandbox.cli([&["--db", moved][..], options, &verb].concat());
        let expected = if options.is_empty() { 75 } else { 0 };
        answer.assert_code(expected);
        assert!(!run.command.is_gone(), "{options:?}");
    }
    let (code, status) = sandbox.json(["--db", moved, "status"]);
    assert_eq!((code, &status["pid"]), (0, &json!(run.pid())), "{status:#}");
    sandbox.assert_status(0, "alive", "anchor_held");
    // Where it has ended it is in nobody's way there, either.
    run.kill();
    run.command.wait_gone(LIMIT);
    sandbox.cli(["--db", moved, "run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// There is a way out where its owner does not move.
#[test]
fn an_owner_whose_store_was_moved_can_be_evicted() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    owner.process.signal(Signal::STOP);
    wait_stopped(owner.pid());
    sandbox.move_store();
    sandbox.assert_nobody_knows(owner.pid());
    sandbox.cli(["evict"]).assert_code(75);
    sandbox.assert_refused_by_what_was_moved(owner.pid());
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let next = sandbox.hold(&[]);
    // It comes back, finds the office taken, and ends its command.
    owner.process.signal(Signal::CONT);
    let refused = owner.process.finish_with_stdin_open(LIMIT).assert_code(75);
    refused.assert_complains(&["deleted or replaced", "ending the command"]);
    assert!(owner.command.is_gone());
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], next.pid());
    next.end().assert_code(0);
    sandbox.assert_free_for_all();
}

/// A keeper follows, and so does what it keeps.
#[test]
fn what_a_script_recorded_follows_a_moved_store() {
    for others_come_first in [false, true] {
        let sandbox = Sandbox::new();
        let mut script = Process::start(sandbox.program("cat"));
        let pid = script.pid().to_string();
        sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
        let keepers = sandbox.keepers();
        if others_come_first {
            for keeper in &keepers {
                crate::support::kill(*keeper, Signal::STOP);
                wait_stopped(*keeper);
            }
        }
        sandbox.move_store();
        if others_come_first {
            let (code, holder) = sandbox.start("default");
            assert_eq!((code, &holder["reason"]), (75, &json!(ORPHANED)), "{holder:#}");
            for keeper in &keepers {
                crate::support::kill(*keeper, Signal::CONT);
            }
        }
        eventually("it is on record again", LIMIT, || {
            let (code, status) = sandbox.status();
            (code == 0 && status["pid"] == script.pid()).then_some(())
        });
        assert_eq!(sandbox.start("default").0, 75);
        assert_eq!(sandbox.start("other").0, 0);
        script.kill();
        eventually("its end is on record", LIMIT, || (sandbox.status().0 == 3).then_some(()));
        assert_eq!(sandbox.start("default").0, 0);
    }
}

/// A container has its host's default path, with another directory behind it: that is another
/// store, and neither keeps the other out, also where the container's was moved or deleted.
#[test]
fn a_container_with_its_hosts_default_path_has_another_store() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    for fate in ["true", "mkdir was && mv state.db* was", "rm -r state.db*"] {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.file("store")).unwrap();
        let script = "mount -t tmpfs -o mode=0700 t store &&
            exec incumbent run --no-backoff -- /bin/sh -c 'echo $$; exec cat'";
        let mut command = sandbox.within(words);
        command.args(["/bin/sh", "-c", script]);
        let mut run = Run::start(command);
        // Or it would claim again at once.
        run.process.signal(Signal::STOP);
        wait_stopped(run.pid());
        let mut inside = sandbox.program("nsenter");
        inside.args(["-m", "-t", &run.pid().to_string(), "/bin/sh", "-c"]);
        inside.arg(format!("cd '{}' && {fate}", sandbox.file("store").display()));
        Process::start(inside).finish(LIMIT).assert_code(0);
        let (code, holder) = sandbox.start("default");
        assert_eq!(code, 0, "{fate}: {holder:#}");
        sandbox.assert_status(3, "dead", "exited");
        assert!(!run.command.is_gone());
        run.kill();
    }
}

/// A service with mounts of its own that has the host's directory has the host's store.
#[test]
fn an_owner_with_mounts_of_its_own_in_the_same_directory_is_found() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let mut command = sandbox.within(words);
    command.arg(BINARY).args(["run", "--no-backoff", "--"]);
    command.args(["/bin/sh", "-c", "echo $$; exec cat"]);
    let mut run = Run::start(command);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    sandbox.move_store();
    sandbox.assert_nobody_knows(run.pid());
    run.kill();
    run.command.wait_gone(LIMIT);
    sandbox.assert_free_for_all();
}

/// What another user wrote into a file that looks like an anchor keeps nobody out.
#[test]
fn an_anchor_of_another_user_keeps_nobody_out() {
    let Some(words) = crate::support::another_user() else { return skipped("needs root") };
    let sandbox = Sandbox::new();
    std::fs::set_permissions(sandbox.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .unwrap();
    let name = format!("aa-{}-bb.lock", std::process::id());
    let script = format!(
        "umask 0; echo '{}' > {name}; exec 9< {name}; flock -x 9; echo ready; exec cat",
        sandbox.db().display()
    );
    let mut command = sandbox.within(words);
    command.args(["/bin/sh", "-c", &script]);
    let mut other = Process::start(command);
    other.line_with("ready");
    assert_eq!(sandbox.start("default").0, 0);
    // It is about whose file it is: one of ours counts.
    std::fs::remove_dir_all(sandbox.file("store")).unwrap();
    other.kill();
    let mut ours = Process::start(sandbox.shell(&script.replace("aa-", "cc-")));
    ours.line_with("ready");
    sandbox.assert_refused_by_what_was_moved(ours.pid());
    ours.kill();
    eventually("it is free", LIMIT, || (sandbox.start("default").0 == 0).then_some(()));
}
