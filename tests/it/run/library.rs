//! A command that is supervised by a program which links the library, and has a life of its own
//! beside that.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use incumbent::helper::HelperProgram;
use incumbent::run::{Notice, Run, RunOutcome};
use incumbent::{ClaimOptions, LockRequest, ProfileName};
use rustix::process::Signal;

use crate::support::{
    LIMIT, Process, Sandbox, ask, exit_code, obey_orders, plays, test_name, told,
};

const SUPERVISOR: &str = "supervisor";

fn run(script: &str) -> Run {
    let options = ClaimOptions::new().lock(LockRequest::new("port", "8443").unwrap());
    Run::new(ProfileName::default(), ["/bin/sh", "-c", script])
        .claim(options)
        .without_backoff()
        .on_notice(|notice| {
            if let Notice::Started { pid, .. } = notice {
                eprintln!("=> started {pid}");
            }
        })
}

/// Plays a program with a child of its own: `run SCRIPT` (blanks as `~`), `child`, `helper PROGRAM`.
#[test]
fn role_of_a_supervisor() {
    if !plays(SUPERVISOR) {
        return;
    }
    let mut other = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
    obey_orders(|order| match order.split_once(' ') {
        Some(("run", script)) => match run(&script.replace('~', " ")).run() {
            Ok(finished) => {
                let outcome = match finished.outcome {
                    RunOutcome::Ended => "ended".to_owned(),
                    RunOutcome::Refused(holder) => format!("refused: {}", holder.wanted),
                    outcome => format!("{outcome:?}"),
                };
                format!("{outcome} {}", finished.exit_code)
            }
            Err(error) => format!("{:?}: {error}", error.kind()),
        },
        Some(("helper", program)) => {
            HelperProgram::new(program).use_from_now_on();
            "chosen".to_owned()
        }
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
    assert_eq!(ask(&mut supervisor, "helper /bin/true"), "chosen");
    let answer = ask(&mut supervisor, "run true");
    assert!(answer.starts_with("InvalidInput: /bin/true"), "{answer}");
    assert_eq!(sandbox.status().1["running"], false, "the office is free");
    assert_eq!(ask(&mut supervisor, "child"), "7");
}
