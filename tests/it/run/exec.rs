//! `run --exec`: no wrapper at all. The command is the process that the supervisor started, and
//! keepers hold the office for it.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Identity, LIMIT, Process, START, Sandbox, Stat, eventually, is_running, kill, wait_ended,
};

/// Says its pid, and ends with 7 once its standard input is closed.
const COMMAND: &str = "echo $$; cat; exit 7";

impl Sandbox {
    /// A command in the place of its run, which has said its pid.
    #[track_caller]
    fn in_place(&self, options: &[&str], script: &str) -> Process {
        let shell = ["--", "/bin/sh", "-c", script];
        let words = [&["run", "--no-backoff", "--exec"], options, &shell].concat();
        let mut process = Process::start(self.incumbent(words));
        assert_eq!(process.line(), process.pid().to_string(), "it is this very process");
        process
    }

    /// How the last one ended, once that is on record.
    #[track_caller]
    fn recorded_end(&self) -> serde_json::Value {
        // A question finds out what there is; the keeper knows more, and needs a moment.
        eventually("its end", LIMIT, || {
            let end = self.history().swap_remove(0);
            (!end["ended_at"].is_null()).then_some(end)
        })
    }
}

/// Whether the kernel tells how a process ended that somebody else has collected (Linux 6.15).
fn kernel_tells() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// The pid, the environment, the exit code and the children are the command's own; office and locks
/// are held by two keepers, which are nobody's children.
#[test]
fn the_command_is_the_process_that_was_started() {
    let sandbox = Sandbox::new();
    let script = "echo $$; echo $INCUMBENT_PROFILE; cat /proc/$$/task/$$/children; echo
        incumbent claim; cat; exit 7";
    let mut command = sandbox.in_place(&["--lock", "bot=token"], script);
    assert_eq!(command.line(), "default");
    let children = command.line();
    // The `cat` itself.
    assert_eq!(children.split_whitespace().count(), 1, "{children}");
    assert!(command.line().contains(&format!("pid {} holds it already", command.pid())));
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], command.pid(), "{status:#}");
    assert!(status["child_pid"].is_null(), "{status:#}");
    assert_eq!(status["locks"].as_array().map(Vec::len), Some(1), "{status:#}");
    for keeper in sandbox.keeper_pair() {
        assert_ne!(Stat::of(keeper).unwrap().parent, command.pid());
    }
    sandbox.cli(START).assert_code(75);
    let locked = ["run", "--no-backoff", "--profile", "b", "--lock", "bot=token", "--", "true"];
    sandbox.cli(locked).assert_code(75);
    command.finish(LIMIT).assert_code(7);
    if kernel_tells() {
        let end = sandbox.recorded_end();
        let got = (&end["end_reason"], &end["exit_code"]);
        assert_eq!(got, (&json!("exited"), &json!(7)), "{end:#}");
    }
    sandbox.cli(START).assert_code(0);
    sandbox.cli(locked).assert_code(0);
}

/// One of the keepers that is killed is replaced; without both the command still counts.
#[test]
fn killed_keepers_cost_the_command_nothing() {
    let sandbox = Sandbox::new();
    let command = sandbox.in_place(&[], COMMAND);
    for nth in [0, 1] {
        let pair = sandbox.keeper_pair();
        kill(pair[nth], Signal::KILL);
        eventually("another keeper", LIMIT, || {
            let now = sandbox.keepers_on_record();
            let is_new = now != pair && now.iter().all(|pid| *pid != 0 && is_running(*pid));
            is_new.then_some(())
        });
        sandbox.assert_status(0, "alive", "anchor_held");
        sandbox.cli(START).assert_code(75);
    }
    sandbox.kill_keepers();
    sandbox.assert_status(0, "alive", "start_time_matches");
    sandbox.cli(START).assert_code(75);
    command.finish(LIMIT).assert_code(7);
    sandbox.cli(START).assert_code(0);
}

/// By the rules of a `run`: asked, given its time, killed; nobody else acts before that.
#[test]
fn a_command_whose_office_is_lost_is_ended() {
    for deaf in [false, true] {
        let sandbox = Sandbox::new();
        let trap = if deaf { "trap '' TERM; " } else { "" };
        let script = format!("{trap}{COMMAND}");
        let mut command = sandbox.in_place(&["--stop-budget", "500ms"], &script);
        sandbox.cli(["evict", "--force"]).assert_code(0);
        let code = crate::support::exit_code(command.wait(LIMIT));
        assert_eq!(code, if deaf { 128 + 9 } else { 128 + 15 });
        assert_eq!(sandbox.history()[0]["end_reason"], "evicted");
        // Its keeper has kept everybody out until it had ended.
        eventually("a start", LIMIT, || (sandbox.cli(START).code() == 0).then_some(()));
    }
}

/// A stop and a takeover reach the command itself, and are told for what they are.
#[test]
fn it_is_stopped_and_replaced() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo TERM; exit 3' TERM; echo $$; while :; do sleep 0.02; done";
    let mut command = sandbox.in_place(&[], script);
    sandbox.cli(["stop"]).assert_code(0);
    assert_eq!(command.line(), "TERM");
    assert_eq!(command.wait(LIMIT).code(), Some(3));
    assert_eq!(sandbox.recorded_end()["end_reason"], "planned_stop");

    let mut first = sandbox.in_place(&[], script);
    let second = sandbox.in_place(&["--replace"], COMMAND);
    assert_eq!(first.line(), "TERM");
    assert_eq!(first.wait(LIMIT).code(), Some(3));
    assert_eq!(sandbox.status().1["pid"], second.pid());
    let reasons = sandbox.history();
    assert_eq!(reasons[1]["end_reason"], "taken_over", "{reasons:#?}");
    second.finish(LIMIT).assert_code(7);
}

/// `kill -9` of the command ends its keepers, and the office is free.
#[test]
fn a_killed_command_leaves_nothing() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.in_place(&[], COMMAND);
    let keepers = sandbox.keeper_pair();
    command.kill();
    for keeper in keepers {
        assert!(wait_ended(keeper, LIMIT));
    }
    if kernel_tells() {
        let end = sandbox.recorded_end();
        assert_eq!((&end["end_reason"], &end["signal"]), (&json!("signalled"), &json!(9)));
    }
    sandbox.cli(START).assert_code(0);
}

/// What cannot be executed leaves nothing behind: no office, no keepers.
#[test]
fn what_cannot_be_executed_holds_nothing() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("text"), "no program").unwrap();
    for (program, code) in [("./nothing", 127), ("./text", 126)] {
        let answer = sandbox.cli(["run", "--no-backoff", "--exec", "--", program]);
        answer.assert_code(code).assert_complains(&["cannot execute", program]);
        eventually("the end of the keepers", LIMIT, || {
            let left = [sandbox.keepers(), sandbox.second_keepers()].concat();
            left.is_empty().then_some(())
        });
        assert_eq!(sandbox.status().0, 3, "{program}");
        let end = &sandbox.history()[0];
        assert_eq!(end["exit_code"], code, "{end:#}");
    }
}

/// What takes a parent is said to, and nothing is done.
#[test]
fn what_takes_a_parent_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for with in ["--follow", "--leave", "--legacy-home=old", "--exit-code=exited=1"] {
        let answer = sandbox.cli(["run", "--exec", with, "--", "true"]);
        answer.assert_code(2).assert_complains(&["--exec"]);
    }
    assert!(!sandbox.db().exists());
}

/// Many starts, each of which is this very process, beside each other: one has the office.
#[test]
fn one_of_many_has_the_office() {
    let sandbox = Sandbox::new();
    let start = || {
        let words = ["run", "--no-backoff", "--exec", "--", "/bin/sh", "-c", COMMAND];
        Process::start(sandbox.incumbent(words))
    };
    let mut starts: Vec<Process> = (0..6).map(|_| start()).collect();
    let holder = eventually("a holder", LIMIT, || {
        let pid = sandbox.status().1["pid"].as_u64()?;
        u32::try_from(pid).ok()
    });
    let at = starts.iter().position(|it| it.pid() == holder).expect("one of them");
    let mut winner = starts.swap_remove(at);
    assert_eq!(winner.line(), holder.to_string());
    for refused in starts {
        refused.finish(LIMIT).assert_code(75);
    }
    let identity = Identity::of(holder).unwrap();
    assert!(!identity.is_gone());
    winner.finish(LIMIT).assert_code(7);
}
