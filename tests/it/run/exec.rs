//! `run --exec`: no wrapper at all. The command is the process that the supervisor started, and
//! keepers hold the office for it.

use std::time::Duration;

use incumbent::Store;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    AS_ROLE, BINARY, Identity, LIMIT, Process, Random, START, Sandbox, Stat, ask, eventually,
    exit_code, granted, is_running, kill, obey_orders, plays, role_db, rounds, set_role, skipped,
    test_name, wait_ended, wait_for_looks, works,
};

const RUN: [&str; 4] = ["run", "--no-backoff", "--exec", "--"];

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

    /// They have seen that they are not needed any more, and done what they do then.
    #[track_caller]
    pub fn wait_for_the_end_of_keepers(&self) {
        eventually("the end of the keepers", LIMIT, || {
            [self.keepers(), self.second_keepers()].concat().is_empty().then_some(())
        });
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

/// By the rules of a `run`: asked, given its time, killed.
#[test]
fn a_command_whose_office_is_lost_is_ended() {
    for deaf in [false, true] {
        let sandbox = Sandbox::new();
        let trap = if deaf { "trap '' TERM; " } else { "" };
        let script = format!("{trap}{COMMAND}");
        let mut command = sandbox.in_place(&["--stop-budget", "500ms"], &script);
        sandbox.cli(["evict", "--force"]).assert_code(0);
        let code = exit_code(command.wait(LIMIT));
        assert_eq!(code, if deaf { 128 + 9 } else { 128 + 15 });
        assert_eq!(sandbox.history()[0]["end_reason"], "evicted");
        eventually("a start", LIMIT, || (sandbox.cli(START).code() == 0).then_some(()));
    }
}

/// Symptom: the office was lost, and the command went on, because its keepers kept another record
/// of the same process. It holds because they look at the row of the command itself.
#[test]
fn another_record_does_not_keep_a_command_whose_office_is_lost() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.in_place(&[], COMMAND);
    let pid = command.pid().to_string();
    sandbox.cli(["claim", "--pid", &pid, "--kind", "other"]).assert_code(0);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    assert_eq!(exit_code(command.wait(LIMIT)), 128 + 15);
}

/// Symptom: a person took the token of a command away (`unlock --force`), somebody else took it,
/// and both used it. It holds because a lock that was claimed with the office ends the command when
/// it is lost, as under any `run`; not when the command lets it go.
#[test]
fn a_command_whose_lock_is_lost_is_ended() {
    let sandbox = Sandbox::new();
    let script = "echo $$; incumbent lock release bot one > /dev/null; echo $?; cat";
    let mut command = sandbox.in_place(&["--lock", "bot=one", "--lock", "bot=two"], script);
    assert_eq!(command.line(), "0");
    wait_for_looks(&sandbox.keeper_pair()[..1], 3);
    sandbox.assert_status(0, "alive", "anchor_held");
    sandbox.cli(["unlock", "bot", "two", "--force"]).assert_code(0);
    assert_eq!(exit_code(command.wait(LIMIT)), 128 + 15);
}

/// A gateway that links the library.
#[test]
fn role_of_a_gateway() {
    if !plays("gateway") {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    let mut tenure = None;
    obey_orders(|order| {
        if order == "claim" {
            tenure = Some(granted(store.profile("default").unwrap().claim()));
        }
        format!("{:?}", tenure.as_ref().unwrap().verify().unwrap())
    });
}

/// Symptom: a gateway that links the library claimed by itself, which ended the row of its `run` as
/// re-executed, and half a second later the keepers of that row killed the rightful owner. It holds
/// because they look who has the office: then they only leave.
#[test]
fn a_command_that_claims_by_itself_goes_on() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.incumbent([&RUN[..], &["/bin/sh", "-c", AS_ROLE]].concat());
    set_role(&mut command, test_name!(role_of_a_gateway), "gateway");
    let mut gateway = Process::start(command);
    assert_eq!(ask(&mut gateway, "claim"), "Held");
    sandbox.wait_for_the_end_of_keepers();
    assert_eq!(ask(&mut gateway, "verify"), "Held");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], gateway.pid());
    assert_eq!(sandbox.history()[1]["end_reason"], "re_executed");
    sandbox.cli(START).assert_code(75);
    gateway.finish(LIMIT).assert_code(0);
    sandbox.cli(START).assert_code(0);
}

/// Symptom: `release --pid` freed the office while the command lived, and another one started
/// beside it. It holds because no verb made that row: what `--pid` may end is what `--pid` made.
#[test]
fn nobody_releases_what_a_command_acts_by() {
    let sandbox = Sandbox::new();
    let command = sandbox.in_place(&["--lock", "bot=token"], COMMAND);
    let pid = command.pid().to_string();
    let answer = sandbox.cli(["release", "--pid", &pid]);
    answer.assert_code(1).assert_complains(&["only its owner releases it", "incumbent stop"]);
    sandbox.cli(["lock", "release", "bot", "token", "--pid", &pid]).assert_code(1);
    sandbox.cli(["lock", "release", "--all", "--pid", &pid]);
    sandbox.cli(["status-set", "--pid", &pid, "--state", "stopped"]).assert_code(1);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["locks"].as_array().map(Vec::len), Some(1), "{status:#}");
    sandbox.cli(START).assert_code(75);
    command.finish(LIMIT).assert_code(7);
}

/// Symptom: while it started its keepers it heard nothing, for 20 s, and then said that the store
/// was busy. It holds because it looks for a request between two looks at them.
#[test]
fn it_can_be_ended_while_it_starts_its_keepers() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    // They never are on record.
    sandbox.forge(
        "CREATE TRIGGER unkept BEFORE UPDATE OF keeper_pid ON instances
         BEGIN SELECT RAISE(ABORT, 'not now'); END",
    );
    let mut run = Process::start(sandbox.incumbent([&RUN[..], &["true"]].concat()));
    let left = "SELECT count(*) FROM instances WHERE origin = 'pid' AND ended_at_ms IS NULL";
    eventually("it waits for them", LIMIT, || (sandbox.number(left) == 1).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(exit_code(run.wait(LIMIT)), 128 + 15);
    sandbox.wait_for_the_end_of_keepers();
    assert_eq!(sandbox.status().0, 3);
}

/// A signal that comes between the last look and the exec was heard by a program that was not there
/// any more. Whenever it comes, it ends the run or the command.
#[test]
fn a_request_to_end_is_never_lost() {
    let sandbox = Sandbox::new();
    let mut random = Random::seeded();
    // Whoever was before may be about to leave.
    let words = ["run", "--no-backoff", "--exec", "--wait", "--", "cat"];
    for round in 0..rounds(20, 300) {
        let mut run = Process::start(sandbox.incumbent(words));
        random.pause_up_to(Duration::from_millis(100));
        run.signal(Signal::TERM);
        assert_eq!(exit_code(run.wait(LIMIT)), 128 + 15, "round {round}");
    }
}

/// FIELD-BUGS rows 117 to 119. Symptom: the command ignored TTIN and TTOU as its run did, and was
/// killed by SIGPIPE although it had been started with that ignored. It holds because the last act
/// before the exec puts all of it back.
#[test]
fn signals_come_as_they_came() {
    const SHOW: [&str; 4] = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    /// The signals of libc (32 and 33) are nobody's to set.
    const OF_LIBC: u64 = 0b11 << 31;
    if !works(&["env", "--ignore-signal=PIPE", "--block-signal=TERM"]) {
        return skipped("needs an env that can ignore and block signals");
    }
    let sandbox = Sandbox::new();
    let set = |said: &str, name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).expect("both sets");
        u64::from_str_radix(line.trim(), 16).unwrap() & !OF_LIBC
    };
    for names in ["PIPE", "CHLD", "TTIN,TTOU", "HUP,INT,XFSZ", "USR2"] {
        let option = format!("--ignore-signal={names}");
        let words = ["env", "--default-signal", &option, "--block-signal=TERM,CHLD,USR1"];
        let said = |between: &[&str]| {
            let command = sandbox.within(&[&words[..], between, &SHOW].concat());
            Process::start(command).finish(LIMIT).assert_code(0).out
        };
        let (plain, ours) = (said(&[]), said(&[&[BINARY], &RUN[..]].concat()));
        assert_ne!(set(&plain, "SigIgn:"), 0, "the test itself: {plain}");
        assert_eq!(set(&ours, "SigIgn:"), set(&plain, "SigIgn:"), "{names}: {ours}");
        assert_ne!(set(&plain, "SigBlk:"), 0, "the test itself: {plain}");
        assert_eq!(set(&ours, "SigBlk:"), 0, "{names}: {ours}");
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
        sandbox.wait_for_the_end_of_keepers();
        assert_eq!(sandbox.status().0, 3, "{program}");
        let end = &sandbox.history()[0];
        assert_eq!(end["exit_code"], code, "{end:#}");
    }
}

/// What takes a parent is said to, and nothing is done.
#[test]
fn what_takes_a_parent_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for with in [
        "--follow",
        "--leave",
        "--legacy-home=old",
        "--exit-code=exited=1",
        "--forward=never",
        "--pidfile=x",
        "--keep-stderr",
        "--on-end=true",
        "--restart-unresponsive",
    ] {
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
