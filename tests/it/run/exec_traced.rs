//! `run --exec`, looked at from the command: after the exec its calls, its descriptors and its
//! environment are what they are without us, but for the variables that verbs act by.

use std::collections::BTreeSet;

use crate::support::{BINARY, LIMIT, Process, Sandbox, has, skipped, works};

const RUN: [&str; 5] = [BINARY, "run", "--no-backoff", "--exec", "--"];

/// What a program says that is started by `before`.
fn said(sandbox: &Sandbox, before: &[&str], program: &[&str]) -> String {
    let words = [before, program].concat();
    Process::start(sandbox.within(&words)).finish(LIMIT).assert_code(0).out
}

/// What the first process of a trace calls after its last exec, in that order.
fn calls(trace: &str) -> Vec<&str> {
    let lines = || trace.lines().filter_map(|line| line.split_once(' '));
    let (first, _) = lines().next().expect("a trace");
    let own: Vec<&str> =
        lines().filter(|(pid, _)| *pid == first).map(|(_, call)| call.trim_start()).collect();
    let is_exec = |call: &&str| call.contains("execve") && call.ends_with(" = 0");
    let last_exec = own.iter().rposition(is_exec).expect("an exec");
    // How much memory the environment takes is no matter, and one call may have two lines.
    let counts = |call: &&str| !call.starts_with("brk(") && !call.starts_with("<... ");
    let after = own[last_exec + 1..].iter().copied().filter(counts);
    after.map(|call| call.split('(').next().unwrap_or(call)).collect()
}

/// DESIGN section 5, "No wrapper at all". A signal, the end of a child or a thread of ours would be
/// among them.
#[test]
fn nothing_of_ours_is_called_after_the_exec() {
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let file = sandbox.file("trace");
    let traced = |before: &[&str]| {
        let trace = ["strace", "-f", "-o", file.to_str().unwrap()];
        let program = ["/bin/sh", "-c", "read -r line; exit 7"];
        let words = [&trace[..], before, &program].concat();
        Process::start(sandbox.within(&words)).finish(LIMIT).assert_code(7);
        std::fs::read_to_string(&file).unwrap()
    };
    let (plain, ours) = (traced(&[]), traced(&RUN));
    let (plain, ours) = (calls(&plain), calls(&ours));
    assert!(plain.contains(&"exit_group"), "the test itself: {plain:?}");
    assert_eq!(ours, plain);
}

#[test]
fn no_descriptor_of_ours_is_left() {
    let sandbox = Sandbox::new();
    let list = ["/bin/sh", "-c", "for fd in /proc/self/fd/*; do echo ${fd##*/}; done"];
    assert_eq!(said(&sandbox, &RUN, &list), said(&sandbox, &[], &list));
}

#[test]
fn the_environment_has_what_verbs_act_by() {
    let sandbox = Sandbox::new();
    let names = |before: &[&str]| -> BTreeSet<String> {
        let said = said(&sandbox, before, &["env"]);
        said.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect()
    };
    let (plain, ours) = (names(&[]), names(&RUN));
    assert!(ours.is_superset(&plain), "{plain:?}, {ours:?}");
    let more: Vec<&str> = ours.difference(&plain).map(String::as_str).collect();
    // The store is named in a sandbox anyway.
    let expected = ["INSTANCE", "KIND", "PROFILE", "TOKEN"].map(|it| format!("INCUMBENT_{it}"));
    assert_eq!(more, expected);
}
