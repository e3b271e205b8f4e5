//! The owner itself: a call that fails while it asks is no loss.

use std::collections::BTreeMap;

use rustix::process::Signal;

use super::matrix::{Extent, extent, faults};
use super::strace::Fault;
use super::world::{OWNING, ROLE_TEST};
use super::{CALLS, SEED};
use crate::support::{LIMIT, Process, Random, Sandbox, has, skipped, works};

/// Gives `order` to an owner whose calls strace sees; the answer, and what was seen.
fn ask_traced(
    sandbox: &Sandbox,
    owner: &mut Process,
    options: &[&str],
    order: &str,
) -> (String, String) {
    let trace = sandbox.file("trace");
    let _ = std::fs::remove_file(&trace);
    let mut strace = sandbox.program("strace");
    strace.args(["-f", "-y", "-o"]).arg(&trace).args(options);
    strace.args(["-p", &owner.pid().to_string()]);
    let mut strace = Process::start(strace);
    strace.err_line_with("attached");
    owner.say(order);
    let line = owner.err_line_with("=> ");
    strace.signal(Signal::INT);
    strace.wait(LIMIT);
    let trace = std::fs::read_to_string(trace).unwrap_or_default();
    (line.split_once("=> ").unwrap().1.to_owned(), trace)
}

/// An owner that links the library asks for what it holds: it is told that it cannot be found out,
/// and never that it is lost.
#[test]
fn what_fails_while_an_owner_asks_is_no_loss() {
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let mut owner = sandbox.role(ROLE_TEST, OWNING);
    owner.err_line_with("=> owning");
    let mut random = Random::new(SEED);
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for order in ["verify", "verify the lock", "renew", "status", "claim again"] {
        let all = format!("trace={CALLS}");
        let (answer, trace) = ask_traced(&sandbox, &mut owner, &["-e", &all], order);
        assert_eq!(answer, "Held", "{order}");
        // Of the thread that has made most calls: the others wait.
        let mut threads: BTreeMap<&str, BTreeMap<String, (usize, usize)>> = BTreeMap::new();
        for line in trace.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
            if !call.contains(' ') {
                threads.entry(thread).or_default().entry(call.to_owned()).or_default().1 += 1;
            }
        }
        let sum = |calls: &BTreeMap<String, (usize, usize)>| -> usize {
            calls.values().map(|(_, after)| after).sum()
        };
        let mut calls = threads.into_values().max_by_key(sum).unwrap_or_default();
        // SQLite's locks: where an unlock fails, which none does, it waits for itself for 10 s.
        calls.remove("fcntl");
        let extent = match extent() {
            Extent::Sample(count) => Extent::Sample(count * 4),
            Extent::All => Extent::All,
        };
        for Fault { call, errno, n, .. } in faults(&calls, extent, &mut random) {
            let trace = format!("trace={call}");
            let inject = format!("inject={call}:error={errno}:when={n}");
            let options = ["-e", &trace, "-e", &inject];
            let (answer, trace) = ask_traced(&sandbox, &mut owner, &options, order);
            let about = format!("{order}: {call} {errno} {n}: {answer}\n{trace}");
            let is_held = answer == "Held";
            let is_unknown = answer.starts_with("Err(")
                && !["NotOwner", "StoreReplaced", "InvalidInput"]
                    .iter()
                    .any(|kind| answer.starts_with(&format!("Err({kind})")));
            assert!(is_held || is_unknown, "{about}");
            let kind = answer.split(':').next().unwrap_or_default().to_owned();
            *answers.entry(format!("{order}: {kind}")).or_default() += 1;
            owner.say("verify");
            assert!(owner.err_line_with("=> ").ends_with("=> Held"), "{about}");
        }
    }
    eprintln!("{answers:#?}");
    sandbox.assert_status(0, "alive", "anchor_held");
}
