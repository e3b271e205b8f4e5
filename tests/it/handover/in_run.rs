//! A gateway that links the library, as the command of a `run`.

use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use crate::handover::Owns;
use crate::handover::child::both;
use crate::handover::gateway::{GATEWAY, ROLE_TEST};
use crate::support::{
    AS_ROLE, LIMIT, Process, START, Sandbox, ask, kill, set_role, told, wait_ended,
};

impl Sandbox {
    /// `run`, with the gateway as its command.
    pub fn run_of_gateway(&self, options: &[&str]) -> Process {
        let part = self.role_command(ROLE_TEST, GATEWAY);
        let mut run = self.incumbent([&["run", "--no-backoff"], options, &["--"]].concat());
        run.arg(part.get_program()).args(part.get_args());
        play(&mut run, &part);
        Process::start(run)
    }
}

/// The environment of a part.
fn play(command: &mut Command, part: &Command) {
    for (name, value) in part.get_envs() {
        if let Some(value) = value
            && name.to_string_lossy().starts_with("IT_")
        {
            command.env(name, value);
        }
    }
}

/// Symptom: a bot that links the library was refused by its own wrapper. Cause: to a claim, the
/// `run` around it is another process. It holds because the bot adopts the tenure that the
/// environment names, and claims nothing.
#[test]
fn a_linked_gateway_acts_for_its_run() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&["--lock", "token=chat"]);
    let owns = Owns::parse(&told(&mut run));
    assert_eq!(owns.how, "run");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["instance"], owns.instance, "{status:#}");
    assert_eq!((&status["pid"], &status["child_pid"]), (&json!(run.pid()), &json!(owns.pid)));
    let anchors = sandbox.anchor_names();

    assert_eq!(ask(&mut run, "verify"), "Held");
    assert_eq!(ask(&mut run, "status running"), "said");
    assert_eq!(sandbox.status().1["runtime"]["state"], "running");
    let pid = run.pid().to_string();
    let write = ["marker", "write", "reload", "--pid", &pid, "--reason", "why"];
    sandbox.cli(write).assert_code(0);
    assert_eq!(ask(&mut run, "consume reload"), "Some(Some(\"why\"))");
    assert_eq!(ask(&mut run, "consume reload"), "None");

    // The run's own lock, and one more.
    assert!(ask(&mut run, "lock chat").ends_with(" true"));
    assert!(ask(&mut run, "lock mail").ends_with(" false"));
    assert_eq!(ask(&mut run, "verify locks"), "[Ok(Held), Ok(Held)]");
    for identity in ["chat", "mail"] {
        assert_eq!(sandbox.holder_of(identity), Some(owns.instance));
    }
    assert_eq!(sandbox.anchor_names(), anchors, "it needs none of its own");

    // The tenure is not its own to end.
    assert_eq!(ask(&mut run, "drop"), "dropped");
    sandbox.assert_status(0, "alive", "anchor_held");
    run.finish(LIMIT).assert_code(0);
    let ended = sandbox.end_of(owns.instance);
    assert_eq!((&ended["end_reason"], &ended["exit_code"]), (&json!("exited"), &json!(0)));
}

#[test]
fn its_exception_stands_in_the_history() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&[]);
    let owns = Owns::parse(&told(&mut run));
    assert_eq!(ask(&mut run, "end 7"), "StillShared");
    run.finish(LIMIT).assert_code(7);
    let ended = sandbox.end_of(owns.instance);
    assert_eq!((&ended["end_reason"], &ended["exit_code"]), (&json!("exited"), &json!(7)));
    assert_eq!(ended["detail"], "KeyError: 'chat' in bot.py:31", "{ended:#}");
}

/// And of one without a `run`.
#[test]
fn an_exception_is_told_of_with_a_release() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let owns = Owns::parse(&told(&mut gateway));
    assert_eq!(ask(&mut gateway, "end 7"), "Free");
    gateway.finish(LIMIT).assert_code(7);
    let ended = sandbox.end_of(owns.instance);
    assert_eq!((&ended["end_reason"], &ended["exit_code"]), (&json!("crashed"), &json!(7)));
    assert_eq!(ended["detail"], "KeyError: 'chat' in bot.py:31", "{ended:#}");
}

/// What the last command said is not said of the next one.
#[test]
fn a_restart_forgets_the_last_word() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&[]);
    let owns = Owns::parse(&told(&mut run));
    let forged = format!("UPDATE instances SET detail = 'a word' WHERE id = {}", owns.instance);
    assert_eq!(sandbox.forge(&forged), 1);
    let restart = Process::start(sandbox.incumbent(["restart"]));
    let again = Owns::parse(&told(&mut run));
    assert_eq!((again.how.as_str(), again.instance), ("run", owns.instance));
    assert_ne!(again.pid, owns.pid);
    restart.finish(LIMIT).assert_code(0);
    run.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.end_of(owns.instance)["detail"], json!(null));
}

#[test]
fn it_consumes_its_stop_marker() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&[]);
    let owns = Owns::parse(&told(&mut run));
    assert_eq!(ask(&mut run, "heed stop"), "heeds");
    sandbox.cli(["stop", "--reason", "an upgrade"]).assert_code(0);
    assert_eq!(told(&mut run), "stopped: Some(\"an upgrade\")");
    run.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.end_of(owns.instance)["end_reason"], "planned_stop");
}

/// The command of a `run` that becomes another program stays its command.
#[test]
fn the_command_of_a_run_becomes_another_program() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&[]);
    let owns = Owns::parse(&told(&mut run));
    let again = Owns::parse(&ask(&mut run, "exec adopts"));
    assert_eq!(again, owns);
    sandbox.assert_status(0, "alive", "anchor_held");
    run.finish(LIMIT).assert_code(0);
}

/// Symptom: after `restart` the new command was refused the exclusive lock of the one before, by its
/// own `run`, for as long as that lived. Cause: each lock belonged to the row of the run, and one
/// that has a single guard is not shared. It holds because such a lock is taken from a row of the
/// process itself, and ends with it.
#[test]
fn what_a_command_has_for_itself_ends_with_it() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&[]);
    let owns = Owns::parse(&told(&mut run));
    assert!(ask(&mut run, "lock mail").ends_with(" false"));
    let has_all = |run: &mut Process| {
        for (order, answer) in [
            ("slot 1 chat", "slot 0 false"),
            ("slot 1 chat", "held by us: true"),
            ("slot 2 pool", "slot 0 false"),
            ("slot 2 pool", "slot 1 false"),
        ] {
            assert_eq!(ask(run, order), answer, "{order}");
        }
        assert_ne!(sandbox.holder_of("chat"), Some(owns.instance));
        assert_eq!(sandbox.holder_of("mail"), Some(owns.instance));
        assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 4);
    };
    has_all(&mut run);
    // It is shown as the command's.
    let locks = sandbox.json(["locks"]).1;
    let of_chat = locks.as_array().unwrap().iter().find(|it| it["slot"]["of"] == 1).unwrap();
    assert_eq!((&of_chat["pid"], &of_chat["profile"]), (&json!(owns.pid), &json!("default")));

    assert_eq!(Owns::parse(&ask(&mut run, "exec adopts")), owns);
    has_all(&mut run);
    let restart = Process::start(sandbox.incumbent(["restart"]));
    assert_ne!(Owns::parse(&told(&mut run)).pid, owns.pid);
    restart.finish(LIMIT).assert_code(0);
    has_all(&mut run);
    run.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 0);
}

impl Sandbox {
    /// Asserts that `run` acts in the default office by this process, and who may not.
    #[track_caller]
    fn assert_run_by(&self, run: &Process, owns: &Owns) {
        let status = self.assert_status(0, "alive", "anchor_held");
        assert_eq!((&status["pid"], &status["child_pid"]), (&json!(run.pid()), &json!(owns.pid)));
        assert_eq!(status["instance"], owns.instance, "{status:#}");
        self.cli(START).assert_code(75);
    }
}

/// The run goes on with whom its command handed over to: the same incarnation and fences, its
/// signals, its exit code.
#[cfg(target_os = "linux")]
#[test]
fn the_command_of_a_run_hands_over_to_a_child() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&["--lock", "token=chat"]);
    let first = Owns::parse(&told(&mut run));
    ask(&mut run, "lock mail");
    ask(&mut run, "status running");
    run.say("hand over 60000 adopts");
    let (said, second) = both(&mut run);
    assert_eq!(said, format!("handed over {} {}", first.instance, second.pid));
    assert_eq!((second.how.as_str(), second.instance), ("run", first.instance));
    assert_ne!(second.pid, first.pid);
    assert!(wait_ended(first.pid, LIMIT));
    sandbox.assert_run_by(&run, &second);
    assert_eq!(sandbox.status().1["runtime"]["state"], json!(null), "its status is fresh");
    assert_eq!(ask(&mut run, "verify"), "Held");
    for identity in ["chat", "mail"] {
        assert!(ask(&mut run, &format!("lock {identity}")).ends_with(" true"), "{identity}");
        assert_eq!(sandbox.holder_of(identity), Some(first.instance));
    }
    // And it hands over in its turn.
    run.say("hand over 60000 adopts");
    let (_, third) = both(&mut run);
    assert!(wait_ended(second.pid, LIMIT));
    sandbox.assert_run_by(&run, &third);
    // A stop reaches it, and its exit code is the run's.
    ask(&mut run, "heed stop");
    sandbox.cli(["stop", "--reason", "an upgrade"]).assert_code(0);
    assert_eq!(told(&mut run), "stopped: Some(\"an upgrade\")");
    run.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.end_of(first.instance)["end_reason"], "planned_stop");
    assert_eq!(sandbox.history().len(), 1, "nobody else was ever there");
}

#[cfg(target_os = "linux")]
#[test]
fn the_exit_code_of_a_run_is_that_of_its_last_command() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&[]);
    let first = Owns::parse(&told(&mut run));
    run.say("hand over 60000 adopts");
    both(&mut run);
    assert_eq!(ask(&mut run, "end 7"), "StillShared");
    run.finish(LIMIT).assert_code(7);
    let ended = sandbox.end_of(first.instance);
    assert_eq!((&ended["end_reason"], &ended["exit_code"]), (&json!("exited"), &json!(7)));
    assert_eq!(ended["detail"], "KeyError: 'chat' in bot.py:31", "{ended:#}");
}

/// It starts what it was given at first.
#[cfg(target_os = "linux")]
#[test]
fn a_run_restarts_its_command_after_a_handover() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&[]);
    let first = Owns::parse(&told(&mut run));
    run.say("hand over 60000 adopts");
    let (_, second) = both(&mut run);
    assert!(wait_ended(first.pid, LIMIT));
    let restart = Process::start(sandbox.incumbent(["restart"]));
    let third = Owns::parse(&told(&mut run));
    restart.finish(LIMIT).assert_code(0);
    assert_eq!((third.how.as_str(), third.instance), ("run", first.instance));
    assert!(wait_ended(second.pid, LIMIT), "one at a time");
    sandbox.assert_run_by(&run, &third);
    run.finish(LIMIT).assert_code(0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_whose_successor_does_not_take_over_stays_the_command() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&["--lock", "token=chat"]);
    let first = Owns::parse(&told(&mut run));
    ask(&mut run, "lock chat");
    for (order, why) in [
        ("hand over 60000 ends", "kept: the successor did not take over (exit status: 3)"),
        ("hand over 300 sleeps", "kept: the successor did not take over in time"),
    ] {
        assert_eq!(ask(&mut run, order), why);
        assert_eq!(ask(&mut run, "verify"), "Held");
        assert_eq!(ask(&mut run, "verify locks"), "[Ok(Held)]");
        sandbox.assert_run_by(&run, &first);
    }
    run.finish(LIMIT).assert_code(0);
}

/// A command that does not end after it has handed over acts for nobody.
#[cfg(target_os = "linux")]
#[test]
fn a_command_that_stays_after_it_handed_over_has_lost_everything() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&["--lock", "token=chat"]);
    let first = Owns::parse(&told(&mut run));
    ask(&mut run, "lock chat");
    run.say("hand over aside 60000 stays");
    let (_, second) = both(&mut run);
    for (order, lost) in [("verify", 1), ("verify locks", 1)] {
        let said = ask(&mut run, order);
        assert_eq!(said.matches("HandedOver").count(), lost, "{order}: {said}");
    }
    // It lets all go that it still has.
    assert_eq!(ask(&mut run, "unlock"), "unlocked");
    assert_eq!(ask(&mut run, "drop"), "dropped");
    sandbox.assert_run_by(&run, &second);
    assert_eq!(sandbox.holder_of("chat"), Some(first.instance));
    run.close_stdin();
    assert!(wait_ended(first.pid, LIMIT));
    sandbox.assert_run_by(&run, &second);
    kill(second.pid, Signal::KILL);
    assert_eq!(run.wait(LIMIT).code(), Some(128 + 9));
    sandbox.cli(START).assert_code(0);
}

/// Who dies while its successor is about to adopt ends the run, and the successor gets nothing, if
/// it is left alone at all.
#[cfg(target_os = "linux")]
#[test]
fn a_command_that_dies_before_it_is_followed_leaves_nothing() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&["--leave"]);
    let first = Owns::parse(&told(&mut run));
    run.say("hand over 60000 waits");
    let waits = told(&mut run);
    let pid: u32 = waits.strip_prefix("waits ").unwrap().parse().unwrap();
    kill(first.pid, Signal::KILL);
    assert_eq!(run.wait(LIMIT).code(), Some(128 + 9));
    sandbox.cli(START).assert_code(0);
    let said = ask(&mut run, "go");
    assert!(said.starts_with("nothing "), "{said}");
    assert!(wait_ended(pid, LIMIT));
}

/// A successor is nobody's child who would end with the run; it counts as the command all the same.
#[cfg(target_os = "linux")]
#[test]
fn a_successor_that_a_killed_run_leaves_holds_the_office() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.run_of_gateway(&[]);
    let first = Owns::parse(&told(&mut run));
    run.say("hand over 60000 adopts");
    let (_, second) = both(&mut run);
    assert!(wait_ended(first.pid, LIMIT));
    kill(run.pid(), Signal::KILL);
    run.wait(LIMIT);
    sandbox.assert_status(0, "alive", "child_lives");
    assert_eq!(ask(&mut run, "verify"), "Held");
    // Whoever comes next ends it first, as it does every command that a killed `run` left.
    sandbox.cli(START).assert_code(0);
    assert!(wait_ended(second.pid, LIMIT));
}

/// Somebody in between would have to end first.
#[cfg(target_os = "linux")]
#[test]
fn a_command_is_told_where_its_run_does_not_follow() {
    let sandbox = Sandbox::new();
    let script = format!("({AS_ROLE}); true");
    let mut run = sandbox.incumbent(["run", "--no-backoff", "--", "sh", "-c", &script]);
    set_role(&mut run, ROLE_TEST, GATEWAY);
    let mut run = Process::start(run);
    told(&mut run);
    let said = ask(&mut run, "hand over 60000 adopts");
    assert!(said.starts_with("Unsupported"), "{said}");
    assert!(said.contains("whose command is another process"), "{said}");
    assert_eq!(ask(&mut run, "verify"), "Held");
    run.finish(LIMIT).assert_code(0);
}

/// `INCUMBENT_*` of a run that did not start us, as a terminal multiplexer keeps it.
#[test]
fn the_environment_of_another_run_is_ignored() {
    let sandbox = Sandbox::new();
    let say = "echo $$; echo $INCUMBENT_INSTANCE $INCUMBENT_TOKEN; exec cat";
    let mut run = sandbox.hold_with(&["sh", "-c", say]);
    let said = run.process.line();
    let (instance, token) = said.split_once(' ').unwrap();
    let start = |change: &dyn Fn(&mut Command)| {
        let mut part = sandbox.role_command(ROLE_TEST, GATEWAY);
        part.env("INCUMBENT_INSTANCE", instance).env("INCUMBENT_TOKEN", token);
        change(&mut part);
        told(&mut Process::start(part))
    };
    assert_eq!(start(&|_| {}), "nothing other_run");
    let elsewhere = |part: &mut Command| {
        part.env("INCUMBENT_DB", sandbox.file("elsewhere.db"));
    };
    assert_eq!(start(&elsewhere), "nothing other_store");
    run.end().assert_code(0);
    assert_eq!(start(&|_| {}), "nothing other_run", "also of one that has ended");
    let outside = |part: &mut Command| {
        part.env_remove("INCUMBENT_TOKEN");
    };
    assert_eq!(start(&outside), "nothing not_given");
}
