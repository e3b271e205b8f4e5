//! A command that is supervised by a program which links the library, and has a life of its own
//! beside that.

use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::mpsc;

use incumbent::helper::HelperProgram;
use incumbent::run::{Notice, Run, RunOutcome};
use incumbent::stop::{Replace, StopOptions, StopOutcome};
use incumbent::{
    Acquire, Cancel, Claim, ClaimOptions, Kind, LockRequest, ProfileName, Store, Wait,
};
use rustix::process::Signal;

use crate::support::{
    LIMIT, Process, Sandbox, Stat, ask, eventually, exit_code, ignore_children, ignores_children,
    obey_orders, plays, role_db, test_name, told,
};

const SUPERVISOR: &str = "supervisor";

fn options() -> ClaimOptions {
    ClaimOptions::new().lock(LockRequest::new("port", "8443").unwrap())
}

fn execute(profile: &str, command: &[&str]) -> Run {
    Run::new(profile.parse().unwrap(), command).claim(options()).without_backoff().on_notice(
        |notice| {
            if let Notice::Started { pid, .. } = notice {
                eprintln!("=> started {pid}");
            }
        },
    )
}

/// Blanks are written as `~`.
fn run(script: &str) -> Run {
    execute("default", &["/bin/sh", "-c", &script.replace('~', " ")])
}

/// How it ended.
fn end_of(run: &Run) -> String {
    match run.run() {
        Ok(finished) => {
            let outcome = match finished.outcome {
                RunOutcome::Ended => "ended".to_owned(),
                RunOutcome::Refused(holder) if holder.is_this_process => {
                    "refused by itself".to_owned()
                }
                RunOutcome::Refused(holder) => format!("refused: {}", holder.wanted),
                outcome => format!("{outcome:?}"),
            };
            format!("{outcome} {}", finished.exit_code)
        }
        Err(error) => format!("{:?}: {error}", error.kind()),
    }
}

/// Whoever hears that the command has started panics.
fn panic_beside(script: &str) -> String {
    let run = run(script).on_notice(|notice| {
        if let Notice::Started { pid, .. } = notice {
            eprintln!("=> started {pid}");
            panic!("nobody hears this");
        }
    });
    let ended = catch_unwind(AssertUnwindSafe(|| end_of(&run)));
    ended.unwrap_or_else(|_| "panicked".to_owned())
}

/// Plays a program with a child of its own: `run SCRIPT` (blanks as `~`), `aside SCRIPT` in another
/// thread, whose end `end` tells, `replace SCRIPT`, `panic SCRIPT`, `execute PROGRAM`, `other
/// PROGRAM` in another office, `wait` for the office, always with the same plan, `cautious` (a run
/// that is cancelled as soon as it waits), `claim`, `lock`, `release` (both), `stop`, `child`,
/// `helper PROGRAM`, `ignore` (children), `ignores`.
#[test]
fn role_of_a_supervisor() {
    if !plays(SUPERVISOR) {
        return;
    }
    let mut other = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
    let patient = run("exec~sleep~600").claim(options().wait(Wait::Forever));
    let (mut aside, mut tenures, mut locks) = (Vec::new(), Vec::new(), Vec::new());
    obey_orders(|order| match order.split_once(' ') {
        Some(("run", script)) => end_of(&run(script)),
        Some(("replace", script)) => end_of(&run(script).claim(options().replace(Replace::new()))),
        Some(("panic", script)) => panic_beside(script),
        Some(("execute", program)) => end_of(&execute("default", &[program])),
        Some(("other", program)) => end_of(&execute("other", &[program])),
        Some(("aside", script)) => {
            let (tell, started) = mpsc::channel();
            let run = run(script).on_notice(move |notice| {
                if let Notice::Started { .. } = notice {
                    tell.send(()).unwrap();
                }
            });
            let thread = std::thread::spawn(move || end_of(&run));
            match started.recv() {
                Ok(()) => {
                    aside.push(thread);
                    "started".to_owned()
                }
                Err(_) => thread.join().unwrap(),
            }
        }
        Some(("helper", program)) => {
            HelperProgram::new(program).use_from_now_on();
            "chosen".to_owned()
        }
        None if order == "end" => aside.pop().unwrap().join().unwrap(),
        None if order == "wait" => end_of(&patient),
        None if order == "cautious" => {
            let cancel = Cancel::polling(|| ControlFlow::Break(()));
            end_of(&Run::new(ProfileName::default(), ["true"]).claim(options().cancel(cancel)))
        }
        None if order == "claim" => {
            let store = Store::open(role_db()).unwrap();
            match store.profile("default").unwrap().claim().unwrap() {
                Claim::Granted(tenure) => {
                    tenures.push(tenure);
                    "granted".to_owned()
                }
                Claim::Held(holder) if holder.is_this_process => "held by itself".to_owned(),
                Claim::Held(holder) => format!("held by {:?}", holder.pid),
            }
        }
        None if order == "lock" => {
            let request = LockRequest::new("port", "8443").unwrap();
            match Store::open(role_db()).unwrap().try_acquire(&request).unwrap() {
                Acquire::Granted(lock) => {
                    locks.push(lock);
                    "granted".to_owned()
                }
                Acquire::Held(holder) if holder.is_this_process => "held by itself".to_owned(),
                Acquire::Held(holder) => format!("held by {:?}", holder.pid),
            }
        }
        None if order == "stop" => {
            let profile = Store::open(role_db()).unwrap().profile("default").unwrap();
            match profile.stop(&Kind::default(), &StopOptions::new()).unwrap().outcome {
                StopOutcome::Ended { killed: false, .. } => "stopped".to_owned(),
                outcome => format!("{outcome:?}"),
            }
        }
        None if order == "release" => {
            tenures.clear();
            locks.clear();
            "released".to_owned()
        }
        None if order == "ignore" => {
            ignore_children();
            "ignored".to_owned()
        }
        None if order == "ignores" => ignores_children().to_string(),
        None if order == "child" => exit_code(other.wait().unwrap()).to_string(),
        _ => panic!("{order}"),
    });
}

fn supervisor(sandbox: &Sandbox) -> Process {
    sandbox.role(test_name!(role_of_a_supervisor), SUPERVISOR)
}

/// The command's end is the run's; that of another child is its parent's own to collect.
#[test]
fn only_the_command_is_collected() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    assert!(ask(&mut supervisor, "run exit~3").starts_with("started"));
    assert_eq!(told(&mut supervisor), "ended 3");
    assert_eq!(ask(&mut supervisor, "child"), "7");
    let end = &sandbox.history()[0];
    assert_eq!((&end["end_reason"], &end["exit_code"]), (&"exited".into(), &3.into()), "{end:#}");
    assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 0);
}

/// While it runs, signals are the command's; afterwards they have their old effect.
#[test]
fn signals_are_forwarded_for_as_long_as_it_runs() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    for _ in 0..2 {
        assert!(ask(&mut supervisor, "run exec~sleep~600").starts_with("started"));
        assert_eq!(sandbox.status().1["running"], true);
        supervisor.signal(Signal::TERM);
        assert_eq!(told(&mut supervisor), "ended 143");
    }
    assert_eq!(ask(&mut supervisor, "child"), "7");
    supervisor.signal(Signal::TERM);
    let status = supervisor.wait(LIMIT);
    assert_eq!(status.signal(), Some(15), "{status}");
}

/// A program that lets the kernel collect its children does so again afterwards: else each of them
/// would stay a zombie. The command's exit code is known meanwhile.
#[test]
fn children_that_are_ignored_are_ignored_again() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    assert_eq!(ask(&mut supervisor, "ignore"), "ignored");
    for _ in 0..2 {
        assert!(ask(&mut supervisor, "run exit~3").starts_with("started"));
        assert_eq!(told(&mut supervisor), "ended 3");
        assert_eq!(ask(&mut supervisor, "ignores"), "true");
    }
}

/// Symptom: two threads of one supervisor ran a command each in one office. Cause: claims of one
/// process share an office. Nobody shares it with a command.
#[test]
fn one_office_has_one_command() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    assert_eq!(ask(&mut supervisor, "aside exec~sleep~600"), "started");
    assert_eq!(ask(&mut supervisor, "run true"), "refused by itself 75");
    assert_eq!(ask(&mut supervisor, "claim"), "held by itself");
    supervisor.signal(Signal::TERM);
    assert_eq!(ask(&mut supervisor, "end"), "ended 143");

    // Nor is there one beside whoever holds it himself.
    assert_eq!(ask(&mut supervisor, "claim"), "granted");
    assert_eq!(ask(&mut supervisor, "run true"), "refused by itself 75");
    assert_eq!(ask(&mut supervisor, "release"), "released");
    assert!(ask(&mut supervisor, "run exit~3").starts_with("started"));
    assert_eq!(told(&mut supervisor), "ended 3");
}

/// Symptom: the commands of two offices had one token. Cause: so do locks.
#[test]
fn one_lock_has_one_command() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    assert_eq!(ask(&mut supervisor, "aside exec~sleep~600"), "started");
    assert_eq!(ask(&mut supervisor, "other true"), "refused by itself 75");
    assert_eq!(ask(&mut supervisor, "lock"), "held by itself");
    supervisor.signal(Signal::TERM);
    assert_eq!(ask(&mut supervisor, "end"), "ended 143");

    assert_eq!(ask(&mut supervisor, "lock"), "granted");
    assert_eq!(ask(&mut supervisor, "other true"), "refused by itself 75");
    assert_eq!(ask(&mut supervisor, "release"), "released");
    assert!(ask(&mut supervisor, "other true").starts_with("started"));
    assert_eq!(told(&mut supervisor), "ended 0");
}

/// Another thread may stop what this one runs: there is no tenure that it could release.
#[test]
fn a_run_is_stopped_from_its_own_process() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    assert_eq!(ask(&mut supervisor, "aside exec~sleep~600"), "started");
    assert_eq!(ask(&mut supervisor, "stop"), "stopped");
    assert!(ask(&mut supervisor, "end").starts_with("ended"));
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");
}

/// Symptom: a notice was printed to a closed pipe, and that panicked; the office was free, and the
/// command at work. It is ended first.
#[test]
fn a_panic_ends_the_command_before_the_office() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    let started = ask(&mut supervisor, "panic exec~sleep~600");
    let pid: u32 = started.trim_start_matches("started ").parse().unwrap();
    assert_eq!(told(&mut supervisor), "panicked");
    assert!(Stat::of(pid).is_none(), "it was ended, and collected");
    assert_eq!(sandbox.status().1["running"], false);
    assert!(ask(&mut supervisor, "run exit~3").starts_with("started"));
    assert_eq!(told(&mut supervisor), "ended 3");
}

/// The signal ended that wait; the next one of the same plan goes on until the office is free.
#[test]
fn a_wait_that_was_ended_by_a_signal_can_be_begun_again() {
    let sandbox = Sandbox::new();
    let holder = sandbox.hold(&[]);
    let mut supervisor = supervisor(&sandbox);
    let waits = || sandbox.number("SELECT count(*) FROM waiters") == 1;
    supervisor.say("wait");
    eventually("it waits", LIMIT, || waits().then_some(()));
    supervisor.signal(Signal::TERM);
    assert_eq!(told(&mut supervisor), "ended 143");

    supervisor.say("wait");
    eventually("it waits again", LIMIT, || waits().then_some(()));
    holder.end().assert_code(0);
    assert!(told(&mut supervisor).starts_with("started"));
    supervisor.signal(Signal::TERM);
    assert_eq!(told(&mut supervisor), "ended 143");
}

/// The wait for the end of a storm is one that its caller can end, as any other.
#[test]
fn the_backoff_of_a_storm_can_be_cancelled() {
    let sandbox = Sandbox::new();
    let mut supervisor = sandbox.role_command(test_name!(role_of_a_supervisor), SUPERVISOR);
    supervisor.env("INCUMBENT_PARTY", "red");
    let mut supervisor = Process::start(supervisor);
    for _ in 0..7 {
        assert!(ask(&mut supervisor, "run exit~1").starts_with("started"));
        assert_eq!(told(&mut supervisor), "ended 1");
    }
    let answer = ask(&mut supervisor, "cautious");
    assert!(answer.starts_with("Busy") && answer.contains("failed starts"), "{answer}");
}

/// A command does not outlive the program that supervises it.
#[test]
fn a_killed_program_takes_its_command_along() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    let started = ask(&mut supervisor, "run exec~sleep~600");
    let pid: u32 = started.trim_start_matches("started ").parse().unwrap();
    supervisor.kill();
    assert!(crate::support::wait_ended(pid, LIMIT));
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

#[test]
fn a_refused_run_names_what_is_held() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox.hold(&[]);
    let mut supervisor = supervisor(&sandbox);
    assert_eq!(ask(&mut supervisor, "run true"), "refused: default/gateway 75");
    holder.kill();
}

/// Another program in the place of the helper would be taken for the command: its end would be the
/// gateway's end on record.
#[test]
fn what_is_no_helper_starts_nothing() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    for (helper, words) in [("/bin/true", "not a program for helpers"), ("/etc/passwd", "executed")]
    {
        assert_eq!(ask(&mut supervisor, &format!("helper {helper}")), "chosen");
        let answer = ask(&mut supervisor, "run true");
        assert!(answer.starts_with(&format!("InvalidInput: {helper}")), "{answer}");
        assert!(answer.contains(words), "{answer}");
        assert_eq!(sandbox.status().1["running"], false, "the office is free");
    }
    assert_eq!(ask(&mut supervisor, "child"), "7");
}

/// Symptom: a takeover ended the gateway, and then there was no program to hold the next command.
#[test]
fn nobody_is_ended_for_a_command_that_cannot_be_held() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox.hold(&[]);
    let mut lonely = sandbox.role_command(test_name!(role_of_a_supervisor), SUPERVISOR);
    lonely.env("PATH", sandbox.path());
    let mut lonely = Process::start(lonely);
    let answer = ask(&mut lonely, "replace true");
    assert!(answer.starts_with("InvalidInput") && answer.contains("helper::serve"), "{answer}");
    assert_eq!(ask(&mut lonely, "helper /nowhere"), "chosen");
    let answer = ask(&mut lonely, "replace true");
    assert!(answer.starts_with("InvalidInput") && answer.contains("/nowhere"), "{answer}");
    assert_eq!(sandbox.status().1["pid"], holder.pid());
    assert_eq!(sandbox.number("SELECT count(*) FROM markers"), 0, "nobody was asked");
    holder.kill();
}

/// What was started to become the command is collected also where it did not.
#[test]
fn a_command_that_cannot_be_executed_leaves_no_zombie() {
    let sandbox = Sandbox::new();
    let mut supervisor = supervisor(&sandbox);
    assert_eq!(ask(&mut supervisor, "child"), "7");
    let answer = ask(&mut supervisor, "execute /no/such/gateway");
    assert!(answer.starts_with("Failed") && answer.ends_with(" 127"), "{answer}");
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = supervisor.pid();
    let children = pids.filter(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == parent));
    assert_eq!(children.count(), 0);
}
