//! What a script claims and releases by its keeper.

use std::os::fd::AsRawFd;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::{
    Answer, BINARY, Identity, LIMIT, Process, SOON, STAY, Sandbox, Stat, another_user,
    assert_within, eventually, is_root, kill, pid_namespace, rounds, skipped, tagged, wait_ended,
    wait_stopped,
};

/// FIELD-BUGS rows 1, 7 and 79.
///
/// Symptom: a script's lock outlived the script, or its pid's next user inherited it. It holds
/// because the keeper's lock goes with the process, and the claim does not even wait for that: a
/// held lock whose process is proven gone keeps nobody out.
#[test]
fn a_script_that_claims_and_dies_leaves_the_office_free_at_once() {
    let sandbox = Sandbox::new();
    for round in 1..=rounds(60, 1_000) {
        let mut script = sandbox.claimant("");
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["pid"], script.pid());
        let next = sandbox.incumbent(["run", "--no-backoff", "--", "true"]);
        if round % 2 == 0 {
            script.kill();
        } else {
            // Not collected: a zombie.
            kill(script.pid(), Signal::KILL);
            assert!(wait_ended(script.pid(), LIMIT));
        }
        let answer = Process::start(next).finish(LIMIT);
        assert_eq!(answer.code(), 0, "round {round}: {answer:#?}");
        let took = format!("took the place of pid {}", script.pid());
        assert!(answer.err.contains(&took), "round {round}: {answer:#?}");
    }
    let ended = Instant::now();
    eventually("the keepers go with their processes", LIMIT, || {
        sandbox.keepers().is_empty().then_some(())
    });
    assert_within(SOON, ended.elapsed(), "the end of the keepers");
}

/// The same where the keeper has not noticed yet: it still holds the lock, for a process that is
/// proven gone.
#[test]
fn a_keeper_that_is_slow_keeps_nobody_out() {
    let sandbox = Sandbox::new();
    let mut script = sandbox.claimant("");
    let keeper = sandbox.keeper();
    kill(keeper.pid, Signal::STOP);
    wait_stopped(keeper.pid);
    sandbox.assert_status(0, "alive", "anchor_held");
    kill(script.pid(), Signal::KILL);
    assert!(wait_ended(script.pid(), LIMIT));
    let status = sandbox.assert_status(3, "dead", "zombie");
    assert_eq!(status["evidence"]["anchor"], "held", "{status:#}");
    script.kill();
    sandbox.assert_status(3, "dead", "no_such_process");
    let next = sandbox.hold(&[]);
    kill(keeper.pid, Signal::CONT);
    keeper.wait_gone(LIMIT);
    // It takes nothing of its successor's along.
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], next.pid());
    next.end().assert_code(0);
}

/// An end without `release` is told from one with it.
#[test]
fn a_script_that_ends_leaves_the_office_free() {
    let sandbox = Sandbox::new();
    sandbox.claimant("").finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.status().0, 3);
    sandbox.hold(&[]).end().assert_code(0);
}

#[test]
fn the_office_of_a_script_is_refused_to_others() {
    let sandbox = Sandbox::new();
    let script = sandbox.claimant("");
    let named = format!("default/gateway is held by pid {} (", script.pid());
    let run = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    run.assert_complains(&[&named]);
    let claim = Process::start(sandbox.shell("incumbent claim; echo $?")).finish(LIMIT);
    assert_eq!(claim.out, "75\n", "{claim:#?}");
    claim.assert_complains(&[&named]);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], script.pid());
}

/// FIELD-BUGS row 24. A container that is stopped takes script and keeper along in one blow: then
/// the kernel's lock is free, wherever one looks from.
#[test]
fn a_script_killed_together_with_its_pid_namespace_leaves_the_office_free_at_once() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    for round in 1..=rounds(10, 100) {
        // The first shell is PID 1, which no record can name by default.
        let script = format!("sh -c 'incumbent claim && {STAY}'; echo never; exit 0");
        let mut command = sandbox.within(namespace);
        command.args(["/bin/sh", "-c", &script]);
        let mut container = Process::start(command);
        container.line_with("claimed for pid");
        container.line();
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["flags"], serde_json::json!(["elsewhere"]), "{status:#}");
        let init = tagged("IT_SANDBOX", sandbox.path())
            .into_iter()
            .find(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == container.pid()))
            .expect("PID 1 of the namespace");
        kill(init, Signal::KILL);
        container.wait(LIMIT);
        let answer = sandbox.cli(["run", "--no-backoff", "--", "true"]);
        assert_eq!(answer.code(), 0, "round {round}: {answer:#?}");
    }
}

/// Both keepers may be killed at once: then the recorded process itself is looked at.
#[test]
fn a_killed_keeper_costs_nobody_the_office() {
    let sandbox = Sandbox::new();
    let mut script = sandbox.claimant("");
    sandbox.kill_keepers();
    let status = sandbox.assert_status(0, "alive", "start_time_matches");
    let flags = status["flags"].as_array().unwrap();
    assert!(flags.contains(&"keeper_lost".into()), "{status:#}");
    sandbox
        .cli(["run", "--no-backoff", "--", "true"])
        .assert_code(75)
        .assert_complains(&[&format!("is held by pid {} (", script.pid())]);
    sandbox.cli(["evict"]).assert_code(75);
    // The anchor is nobody's now, and yet it is not swept away under the record.
    sandbox.cli(["run", "--kind", "other", "--", "true"]).assert_code(0);
    sandbox.assert_status(0, "alive", "start_time_matches");
    script.kill();
    assert_eq!(sandbox.status().0, 3);
    sandbox.hold(&[]).end().assert_code(0);
}

/// `$(incumbent claim)` waits for the end of the pipe, not of the process: a keeper that kept it
/// open would hang every script that looks at the answer.
#[test]
fn a_command_substitution_returns() {
    let sandbox = Sandbox::new();
    let script = format!(
        "answer=$(incumbent claim 2>&1); echo \"$? $answer\"
         json=$(incumbent --json claim 2>&1); echo \"$?\" $json
         {STAY}"
    );
    let started = Instant::now();
    let mut shell = Process::start(sandbox.shell(&script));
    let line = shell.line();
    assert_eq!(line, format!("0 default/gateway: claimed for pid {}", shell.pid()));
    let again = shell.line();
    let json = again.strip_prefix("0 ").unwrap_or_else(|| panic!("{again}"));
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["reacquired"], true, "{json:#}");
    assert_within(SOON, started.elapsed(), "both");
    shell.line();
    let pid = shell.pid();
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], pid);
    // The test's own pipes end with the script as well: nobody else has them.
    shell.finish(LIMIT).assert_code(0);
}

/// A keeper belongs to nobody: no terminal, no directory, no pipe, no signal of its claimant's.
#[test]
fn a_keeper_holds_nothing_of_its_claimants() {
    let sandbox = Sandbox::new();
    let script = format!("exec 7< /etc/passwd; incumbent claim > /dev/null; {STAY}");
    let mut shell = Process::start(sandbox.shell(&script));
    shell.line();
    let keeper = sandbox.keeper();
    let at = |name: &str| std::fs::read_link(format!("/proc/{}/{name}", keeper.pid)).unwrap();
    assert_eq!(at("cwd").to_str(), Some("/"));
    let stat = Stat::of(keeper.pid).unwrap();
    assert_eq!(stat.session, keeper.pid, "a session of its own");
    assert_ne!(stat.parent, shell.pid());
    let store = sandbox.file("store").canonicalize().unwrap();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", keeper.pid)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let target = at(&format!("fd/{name}"));
        let text = target.display().to_string();
        // Above the standard ones /dev/null may be open for the instant in which it takes their
        // place.
        let harmless = matches!(text.as_str(), "/dev/null" | "/dev/urandom");
        let is_its_own = match name.parse::<i32>().unwrap() {
            0..=2 => text == "/dev/null",
            // The sockets are those by which its signal handler wakes it.
            _ => {
                harmless
                    || target.starts_with(&store)
                    || text.starts_with("anon_inode:")
                    || text.starts_with("socket:")
            }
        };
        assert!(is_its_own, "descriptor {name} is {text}");
    }
    assert_eq!(std::io::stdin().as_raw_fd(), 0);
    shell.finish(LIMIT).assert_code(0);
}

#[test]
fn a_keeper_is_deaf_to_what_ends_its_claimants_session() {
    let sandbox = Sandbox::new();
    let script = sandbox.claimant("");
    let keeper = sandbox.keeper();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        kill(keeper.pid, signal);
    }
    sandbox.assert_status(0, "alive", "anchor_held");
    assert!(!keeper.is_gone());
    script.finish(LIMIT).assert_code(0);
    keeper.wait_gone(LIMIT);
}

/// One keeper for each process, however many offices it holds; it goes when the last one is
/// released, though the process lives on.
#[test]
fn one_keeper_keeps_two_offices_and_goes_with_the_last() {
    let sandbox = Sandbox::new();
    let script = format!(
        "incumbent claim --kind one > /dev/null && incumbent claim --kind two > /dev/null; {STAY}
         "
    );
    let mut shell = Process::start(sandbox.shell(&script));
    shell.line();
    let keepers = sandbox.keepers();
    assert_eq!(keepers.len(), 1, "{keepers:?}");
    let keeper = Identity::of(keepers[0]).unwrap();
    let same = "SELECT count(DISTINCT keeper_pid) + count(DISTINCT anchor) FROM instances";
    assert_eq!(sandbox.number(same), 2);
    let pid = shell.pid().to_string();
    sandbox.cli(["release", "--kind", "one", "--pid", &pid]).assert_code(0);
    assert_eq!(sandbox.json(["status", "--kind", "one"]).1["reason"], "released");
    assert_eq!(sandbox.json(["status", "--kind", "two"]).1["reason"], "anchor_held");
    assert!(!keeper.is_gone());
    sandbox.cli(["release", "--kind", "two", "--pid", &pid]).assert_code(0);
    keeper.wait_gone(LIMIT);
    assert!(!shell.has_ended());
    // Everything begins anew when it claims again.
    sandbox.cli(["claim", "--kind", "one", "--pid", &pid]).assert_code(0);
    assert_eq!(sandbox.json(["status", "--kind", "one"]).1["reason"], "anchor_held");
    shell.finish(LIMIT).assert_code(0);
}

/// The same when both claims come in one instant: the slower keeper finds the faster one's.
#[test]
fn two_claims_at_once_for_one_process_share_a_keeper() {
    let sandbox = Sandbox::new();
    let script = format!(
        "incumbent claim --kind one > /dev/null & incumbent claim --kind two > /dev/null &
         wait; {STAY}"
    );
    for round in 1..=rounds(25, 500) {
        let mut shell = Process::start(sandbox.shell(&script));
        shell.line();
        let held = |kind| sandbox.json(["status", "--kind", kind]).1["pid"].clone();
        assert_eq!(held("one"), shell.pid(), "round {round}");
        assert_eq!(held("two"), shell.pid(), "round {round}");
        let live = "SELECT count(DISTINCT keeper_pid) FROM instances WHERE ended_at_ms IS NULL";
        assert_eq!(sandbox.number(live), 1, "round {round}");
        eventually("one keeper is left", LIMIT, || (sandbox.keepers().len() == 1).then_some(()));
        shell.kill();
        eventually("no keeper is left", LIMIT, || sandbox.keepers().is_empty().then_some(()));
    }
}

#[test]
fn a_claim_is_repeated_without_harm() {
    let sandbox = Sandbox::new();
    let script = sandbox.claimant("");
    let instance = sandbox.status().1["instance"].clone();
    let pid = script.pid().to_string();
    for _ in 0..3 {
        let (code, answer) = sandbox.json(["claim", "--pid", &pid]);
        assert_eq!(code, 0, "{answer:#}");
        assert_eq!(answer["granted"], true, "{answer:#}");
        assert_eq!(answer["reacquired"], true, "{answer:#}");
        assert_eq!(answer["instance"], instance, "{answer:#}");
    }
    assert_eq!(sandbox.history().len(), 1);
    assert_eq!(sandbox.keepers().len(), 1);
}

#[test]
fn a_claim_for_a_named_process() {
    let sandbox = Sandbox::new();
    let mut sleeper = Process::start(sandbox.program("cat"));
    let pid = sleeper.pid().to_string();
    let (code, answer) = sandbox.json(["claim", "--pid", &pid]);
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(answer["granted"], true);
    assert_eq!(answer["fence"], answer["instance"]);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], sleeper.pid());
    assert_eq!(status["instance"], answer["instance"]);
    sleeper.kill();
    assert_eq!(sandbox.status().0, 3);
}

/// A process that executes something else stays the same process, under another name: row 15.
#[test]
fn a_claimant_that_executes_something_else_keeps_its_office() {
    let sandbox = Sandbox::new();
    let script = sandbox.claimant("");
    // It was a shell when it claimed, and is `cat` by now.
    eventually("the exec", LIMIT, || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", script.pid())).unwrap();
        (name == "cat\n").then_some(())
    });
    sandbox.assert_status(0, "alive", "anchor_held");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    // The same where only pid and start time are left to go by.
    sandbox.forge("UPDATE instances SET anchor = NULL");
    sandbox.assert_status(0, "alive", "start_time_matches");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
}

#[test]
fn a_record_without_keeper_rests_on_the_process_alone() {
    let sandbox = Sandbox::new();
    let mut script = sandbox.claimant("--no-keeper");
    assert_eq!(sandbox.keepers(), Vec::<u32>::new());
    let status = sandbox.assert_status(0, "alive", "start_time_matches");
    assert_eq!(status["evidence"]["anchor"], "none", "{status:#}");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    kill(script.pid(), Signal::KILL);
    assert!(wait_ended(script.pid(), LIMIT));
    sandbox.assert_status(3, "dead", "zombie");
    script.kill();
    sandbox.assert_status(3, "dead", "no_such_process");
    sandbox.hold(&[]).end().assert_code(0);
}

#[test]
fn the_wrong_pid_releases_nothing() {
    let sandbox = Sandbox::new();
    let nobody_yet = sandbox.cli(["release"]).assert_code(1);
    assert_eq!(nobody_yet.out, "");
    let script = sandbox.claimant("");
    let before = sandbox.status().1;
    let other = Process::start(sandbox.program("cat"));
    let pid = other.pid().to_string();
    sandbox.cli(["release", "--pid", &pid]).assert_code(1).assert_complains(&[
        "is not held by pid",
        &pid,
        &script.pid().to_string(),
    ]);
    // Without --pid it is the caller's parent: this test.
    sandbox.cli(["release"]).assert_code(1);
    assert_eq!(sandbox.status().1, before);
    // The script's own child releases for it, by default.
    sandbox.cli(["release", "--pid", &script.pid().to_string()]).assert_code(0);
    sandbox.assert_status(3, "dead", "released");
    sandbox.cli(["release", "--pid", &script.pid().to_string()]).assert_code(1);
}

#[test]
fn a_script_claims_and_releases_by_default_for_itself() {
    let sandbox = Sandbox::new();
    let script = "incumbent claim && incumbent release && incumbent claim && incumbent release
        incumbent release; echo $?";
    let answer = Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(0);
    assert_eq!(answer.out.matches("claimed for pid").count(), 2, "{answer:#?}");
    assert!(answer.out.ends_with("\n1\n"), "{answer:#?}");
    assert_eq!(sandbox.history().len(), 2);
    eventually("the keepers are gone", LIMIT, || sandbox.keepers().is_empty().then_some(()));
}

/// FIELD-BUGS row 51: who is on record is proven, not passed in.
#[test]
fn what_is_no_process_is_not_recorded() {
    let sandbox = Sandbox::new();
    let mut gone = Process::start(sandbox.program("true"));
    gone.wait(LIMIT);
    let gone = gone.pid().to_string();
    for (pid, code) in
        [("0", 2), ("-1", 2), ("x", 2), ("99999999999", 2), ("4294967295", 2), (&gone, 3)]
    {
        let answer = sandbox.cli(["claim", &format!("--pid={pid}")]).assert_code(code);
        assert_eq!(answer.out, "", "{pid}");
    }
    // A thread is no process, though the kernel has a directory in /proc for its id.
    let (sender, receiver) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        sender.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let _ = ended.recv();
    });
    let id = receiver.recv().unwrap().to_string();
    sandbox.cli(["claim", "--pid", &id]).assert_code(3);
    drop(end);
    thread.join().unwrap();
    assert_eq!(sandbox.status().0, 3);
    assert_eq!(sandbox.keepers(), Vec::<u32>::new());
}

/// By default nothing is recorded for init, nor for what is outside of the namespace.
#[test]
fn init_is_nobodys_claimant() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let outside = [namespace, &[BINARY, "claim"]].concat();
    let inside = [namespace, &["/bin/sh", "-c", "incumbent claim; exit $?"]].concat();
    for words in [outside, inside] {
        let command = sandbox.within(&words);
        let answer: Answer = Process::start(command).finish(LIMIT).assert_code(2);
        answer.assert_complains(&["no parent process", "--pid"]);
    }
    assert_eq!(sandbox.status().1["reason"], "never_claimed");
}

/// Only root may record for other users: FIELD-BUGS row 11, from the other side.
#[test]
fn another_users_process_is_not_recorded() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let ours = Process::start(sandbox.program("cat"));
    let pid = ours.pid().to_string();
    let claim = |options: &[&str]| {
        let mut command = sandbox.within(nobody);
        command.arg(&binary).args(["claim", "--pid", &pid]).args(options);
        Process::start(command).finish(LIMIT)
    };
    for options in [&[][..], &["--no-keeper"]] {
        claim(options).assert_code(78).assert_complains(&["belongs to another user"]);
    }
    assert_eq!(sandbox.status().1["reason"], "never_claimed");
    // Root may.
    assert!(is_root());
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
}
