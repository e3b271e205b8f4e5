//! How a process ended that is not our child: the kernel tells whoever had it pinned (Linux 6.15).
//! The keeper of a record, a waiter and a stop put it on record.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    HOLDING, LIMIT, Process, START, Sandbox, eventually, kill, skipped, wait_ended, wait_stopped,
};

/// Whether this kernel tells it.
fn kernel_tells() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|it| it.trim().parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 15) {
        skipped("needs Linux 6.15");
    }
    version >= (6, 15)
}

impl Sandbox {
    /// A shell that claims for itself, and then does what `script` says.
    #[track_caller]
    fn recorded(&self, options: &str, script: &str) -> Process {
        let claim = format!("incumbent claim --pid $$ {options} > /dev/null || exit 99");
        let mut shell = Process::start(self.shell(&format!("{claim}; echo $$; {script}")));
        shell.line();
        shell
    }

    /// What `status` says of the last end, once its exit code or signal is known.
    #[track_caller]
    fn known_end(&self) -> Value {
        eventually("how it ended", LIMIT, || {
            let end = self.status().1["last_end"].clone();
            (end["exit_code"].is_number() || end["signal"].is_number()).then_some(end)
        })
    }
}

/// A script that claimed for itself and ended without a release was "killed, or crashed", whatever
/// it had ended with. It holds because its keeper, which waits for that end, hears the exit code.
#[test]
fn a_keeper_puts_the_exit_code_of_its_process_on_record() {
    if !kernel_tells() {
        return;
    }
    let sandbox = Sandbox::new();
    for (script, code, signal, summary) in [
        ("cat > /dev/null; exit 3", Some(3), None, "crashed: exit code 3"),
        ("cat > /dev/null; exit 0", Some(0), None, "ended: exit code 0"),
        ("cat > /dev/null; kill -9 $$", None, Some(9), "killed: SIGKILL"),
        ("cat > /dev/null; kill -SEGV $$", None, Some(11), "crashed: SIGSEGV"),
    ] {
        sandbox.recorded("", script).finish(LIMIT);
        let end = sandbox.known_end();
        assert_eq!((&end["exit_code"], &end["signal"]), (&json!(code), &json!(signal)), "{end:#}");
        assert_eq!(end["summary"], summary, "{end:#}");
        assert_eq!(sandbox.status().0, 3);
        let text = sandbox.cli(["status"]).assert_code(3).out;
        assert!(text.lines().next().unwrap().contains(summary), "{text}");
        // The next claim settles the same.
        sandbox.cli(START).assert_code(0);
        let settled = sandbox.history().swap_remove(1);
        for field in ["exit_code", "signal", "summary"] {
            assert_eq!(settled[field], end[field], "{field}: {settled:#}");
        }
    }
}

/// A claim that is faster than the keeper finds it dead, and knows no more. What the keeper hears
/// then is added to that end; it changes nothing else of it.
#[test]
fn what_a_keeper_hears_late_is_added() {
    if !kernel_tells() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut script = sandbox.recorded("", "cat > /dev/null; exit 5");
    script.close_stdin();
    // Not collected: nobody can know it yet.
    assert!(wait_ended(script.pid(), LIMIT));
    sandbox.cli(START).assert_code(0);
    let before = sandbox.history().swap_remove(1);
    script.finish(LIMIT).assert_code(5);
    eventually("the end of the keepers", LIMIT, || sandbox.keepers().is_empty().then_some(()));
    let after = sandbox.history().swap_remove(1);
    for field in ["instance", "end_reason", "ended_at", "ended_by"] {
        assert_eq!(after[field], before[field], "{field}: {after:#}");
    }
    // Unknown where the machine was too busy to collect it within the keeper's second.
    assert!(after["exit_code"] == 5 || after["exit_code"].is_null(), "{after:#}");
}

/// Whoever waits has the holder's process pinned, and puts on record how it ended: here with its
/// own release, when the test has long collected the `run` that was killed.
#[test]
fn a_waiter_puts_on_record_how_the_holder_ended() {
    if !kernel_tells() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let wait = [&["run", "--no-backoff", "--wait"], HOLDING].concat();
    let mut waiter = Process::start(sandbox.incumbent(wait));
    eventually("a waiter", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM waiters") == 1).then_some(())
    });
    run.kill();
    waiter.line();
    waiter.finish(LIMIT).assert_code(0);
    let end = sandbox.history().swap_remove(1);
    assert_eq!(end["signal"], 9, "{end:#}");
    assert_eq!(end["summary"], "killed: SIGKILL", "{end:#}");
}

/// A stop has it pinned as well. It does not wait for its parent to collect it, so not each time is
/// the exit code known; it is never another one.
#[test]
fn a_stop_puts_the_exit_code_on_record() {
    const ROUNDS: usize = 50;
    if !kernel_tells() {
        return;
    }
    let sandbox = Sandbox::new();
    let owner = "trap 'exit 7' TERM; sleep 1000 < /dev/null > /dev/null 2>&1 & echo up; wait $!";
    let is_known = (0..ROUNDS).any(|round| {
        // Its parent waits for it, as a shell does.
        let claim = "incumbent claim --pid $$ --no-keeper > /dev/null || exit 99";
        let mut command = sandbox.shell("/bin/sh -c \"$0\"; echo ended $?");
        command.arg(format!("{claim}; {owner}"));
        let mut parent = Process::start(command);
        assert_eq!(parent.line(), "up", "round {round}");
        sandbox.cli(["stop"]).assert_code(0);
        assert_eq!(parent.line(), "ended 7", "round {round}");
        let end = sandbox.history().swap_remove(0);
        assert_eq!(end["end_reason"], "planned_stop", "round {round}: {end:#}");
        assert!(end["exit_code"] == 7 || end["exit_code"].is_null(), "round {round}: {end:#}");
        end["exit_code"] == 7
    });
    assert!(is_known, "never known in {ROUNDS} rounds");
}

/// Of a process that lives nothing is noted, also where it was stopped for a while.
#[test]
fn nothing_is_on_record_of_one_that_lives() {
    let sandbox = Sandbox::new();
    let mut script = sandbox.recorded("", "exec cat");
    kill(script.pid(), Signal::STOP);
    wait_stopped(script.pid());
    sandbox.assert_status(0, "alive", "anchor_held");
    kill(script.pid(), Signal::CONT);
    assert!(script.echoes());
    let row = "SELECT count(*) FROM instances WHERE exit_code IS NOT NULL OR signal IS NOT NULL";
    assert_eq!(sandbox.number(row), 0);
    script.finish(LIMIT);
}

/// Symptom: "taken over, exit code 7", of an office that its holder had let go in good order, long
/// before it failed at something else. It holds because how a process ended is told of a row only
/// where the row ended with it.
#[test]
fn how_a_process_ends_is_not_of_an_office_that_it_let_go_before() {
    let sandbox = Sandbox::new();
    let claim = |profile| format!("incumbent --profile {profile} claim --pid $$ >/dev/null");
    let script = format!(
        "{} && {} || exit 99; trap 'incumbent --profile a release --pid $$ >/dev/null' TERM
         echo up; while read -r line; do :; done; while read -r line; do :; done; exit 7",
        claim("a"),
        claim("b")
    );
    let mut holder = Process::start(sandbox.shell(&script));
    assert_eq!(holder.line(), "up");
    let take = [&["--profile", "a", "run", "--no-backoff", "--replace"], HOLDING].concat();
    let mut taker = Process::start(sandbox.incumbent(take));
    taker.line();
    // Longer than what ends with its row takes.
    std::thread::sleep(Duration::from_millis(1_200));
    assert!(!holder.has_ended(), "it goes on with the other office");
    holder.finish(LIMIT).assert_code(7);
    taker.finish(LIMIT).assert_code(0);
    let history = sandbox.json(["--profile", "a", "history"]).1;
    let end = &history[1];
    assert_eq!((&end["exit_code"], &end["signal"]), (&json!(null), &json!(null)), "{end:#}");
    assert_eq!(end["summary"], "taken over", "{end:#}");
}

/// The other way round: who releases as the last thing that it does has ended with its row.
#[test]
fn a_script_that_releases_as_it_exits_keeps_its_exit_code() {
    if !kernel_tells() {
        return;
    }
    let sandbox = Sandbox::new();
    let script = "trap 'incumbent release --pid $$ > /dev/null' EXIT; cat > /dev/null; exit 7";
    sandbox.recorded("", script).finish(LIMIT).assert_code(7);
    let end = sandbox.known_end();
    assert_eq!((&end["reason"], &end["exit_code"]), (&json!("released"), &json!(7)), "{end:#}");
}

/// Symptom: a release, a start or a claim that was refused because how somebody else ended could
/// not be added to an earlier row. And what was not written was lost.
#[test]
fn how_others_ended_is_added_without_refusing_anybody() {
    if !kernel_tells() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    sandbox.forge(
        "CREATE TRIGGER refuses BEFORE UPDATE OF exit_code, signal ON instances
         WHEN OLD.ended_at_ms IS NOT NULL BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    let wait = [&["run", "--no-backoff", "--wait"], HOLDING].concat();
    let mut waiter = Process::start(sandbox.incumbent(wait));
    eventually("a waiter", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM waiters") == 1).then_some(())
    });
    run.kill();
    waiter.line();
    waiter.finish(LIMIT).assert_code(0);
    let history = sandbox.history();
    assert_eq!(history[0]["end_reason"], "exited", "{:#}", history[0]);
    assert!(history[1]["end_reason"].is_string(), "{:#}", history[1]);
}

/// An exit code of before and a signal of now are never the end of one process.
#[test]
fn an_end_is_told_with_its_own_exit_code_or_signal() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    sandbox.forge("UPDATE instances SET exit_code = 3 WHERE ended_at_ms IS NULL");
    kill(run.command.pid, Signal::KILL);
    run.process.finish_with_stdin_open(LIMIT).assert_code(137);
    let end = sandbox.history().swap_remove(0);
    assert_eq!((&end["exit_code"], &end["signal"]), (&json!(null), &json!(9)), "{end:#}");
}

/// Of everybody who was found dead the same is told.
#[test]
fn an_exit_is_told_of_all_who_were_found_dead() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    for reason in ["anchor_released", "no_such_process", "pid_reused", "identity_mismatch"] {
        sandbox.forge(&format!("UPDATE instances SET end_reason = '{reason}', exit_code = 3"));
        let text = sandbox.cli(["history"]).assert_code(0).out;
        let told = format!("it crashed: exit code 3 [{reason}]");
        assert!(text.contains(&told), "{text}");
        let status = sandbox.cli(["status"]).assert_code(3).out;
        assert!(status.contains("crashed: exit code 3"), "{status}");
    }
}
