//! The diagnostic by the library.

use std::path::Path;
use std::time::Duration;

use incumbent::ErrorKind;
use incumbent::forensics::Diagnostic;

use super::{assert_holds, is_gone};
use crate::support::{
    BINARY, Identity, LIMIT, Process, Sandbox, Stat, eventually, order, plays, test_name,
};

/// Plays a gateway that links the library.
#[test]
fn role_of_a_stopping_gateway() {
    if !plays("gateway") {
        return;
    }
    while let Some(order) = order() {
        let diagnostic = Diagnostic::new("log").signal(15).timeout(Duration::from_secs(50));
        let started = match order.as_str() {
            "named" => diagnostic.program(BINARY).start(),
            "missing" => diagnostic.program("/nowhere/incumbent").start(),
            _ => diagnostic.start(),
        };
        match started {
            Ok(pid) => eprintln!("=> {pid}"),
            Err(error) => eprintln!("=> {:?} {error}; {:?}", error.kind(), error.hint()),
        }
    }
}

fn gateway(sandbox: &Sandbox, path: &Path, program: Option<&str>) -> Process {
    let mut command = sandbox.role_command(test_name!(role_of_a_stopping_gateway), "gateway");
    command.env("PATH", path);
    if let Some(program) = program {
        command.env("INCUMBENT_PROGRAM", program);
    }
    Process::start(sandbox.among_fakes(command))
}

/// A gateway that lives on keeps no zombie of it; one that is killed does not take it along.
#[test]
fn a_gateway_that_links_the_crate_starts_one() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_ps_behind_gate();
    let mut gateway = gateway(&sandbox, &sandbox.file("bin"), None);
    let mut ask = |order: &str| crate::support::ask(&mut gateway, order);
    let answer = ask("named");
    // The answer is here, and what it looks at hangs.
    let pid: u32 = answer.parse().unwrap();
    assert!(!is_gone(pid));
    sandbox.open_gate();
    assert_holds(&sandbox.diagnostic(pid), &["@ SIGTERM === #", "ps: the gate is open"]);
    eventually("no zombie", LIMIT, || Stat::of(pid).is_none().then_some(()));

    let answer = ask("missing");
    assert_holds(&answer, &["InvalidInput cannot start /nowhere/incumbent", "Diagnostic::program"]);
    let answer = ask("found");
    assert_holds(
        &answer,
        &["InvalidInput", "neither next to this program nor in PATH", "INCUMBENT_PROGRAM"],
    );

    let second: u32 = ask("named").parse().unwrap();
    let identity = Identity::of(second).unwrap();
    gateway.kill();
    assert!(!identity.is_gone());
    sandbox.open_gate();
    sandbox.diagnostic(second);
}

/// The program is found by name: in the environment, or in PATH.
#[test]
fn the_program_is_found() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake("ps", "").fake("dmesg", "");
    let mut named = gateway(&sandbox, &sandbox.file("bin"), Some(BINARY));
    let answer = crate::support::ask(&mut named, "found");
    sandbox.diagnostic(answer.parse().unwrap());
    std::os::unix::fs::symlink(BINARY, sandbox.file("bin/incumbent")).unwrap();
    let mut in_path = gateway(&sandbox, &sandbox.file("bin"), None);
    let answer = crate::support::ask(&mut in_path, "found");
    let log = sandbox.diagnostic(answer.parse().unwrap());
    assert_holds(
        &log,
        &[&format!("of pid {},", named.pid()), &format!("of pid {},", in_path.pid())],
    );
}

/// What is wrong with the request is told before anything is started.
#[test]
fn the_crate_refuses_what_cannot_be() {
    let sandbox = Sandbox::new();
    let diagnostic = Diagnostic::new(sandbox.log()).program(BINARY);
    for timeout in [Duration::ZERO, Duration::from_secs(61), Duration::MAX] {
        let error = diagnostic.clone().timeout(timeout).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let error = Diagnostic::new("").program(BINARY).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!sandbox.log().exists());
}
