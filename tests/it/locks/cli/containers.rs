//! Holders inside of another pid namespace, and outside of ours.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::run::waiter;
use super::{ID, LOCK, SCOPE, acquire, code_of, holder, locks, verb, wait_for_keepers};
use crate::support::{
    LIMIT, Process, SOON, Sandbox, Stat, assert_within, bystander, kill, pid_namespace, skipped,
    tagged,
};

/// FIELD-BUGS rows 25 and 27: a holder that cannot be seen is refused for while it lives, because
/// the kernel's lock knows no namespaces, and is out of the way when its container dies.
#[test]
fn a_holder_in_another_pid_namespace() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let other = bystander(&sandbox);
    let script =
        format!("sh -c 'incumbent lock acquire {SCOPE} {ID} && echo $$; exec cat'; exit 0");
    let mut command = sandbox.within(namespace);
    command.args(["/bin/sh", "-c", &script]);
    let mut container = Process::start(command);
    container.line_with("acquired for pid");
    container.line();
    for _ in 0..3 {
        let (code, refused) = acquire(&sandbox, &other, &["--evict-stopped"]);
        assert_eq!(code, 75, "{refused:#}");
        assert_eq!(refused["holder"]["reason"], "anchor_held", "{refused:#}");
        assert_eq!(refused["holder"]["flags"], json!(["elsewhere"]), "{refused:#}");
        sandbox.cli(["run", "--no-backoff", LOCK, "--", "true"]).assert_code(75);
        sandbox.cli(["unlock", SCOPE, ID]).assert_code(75);
    }
    let held = &locks(&sandbox)[0];
    assert_eq!(held["verdict"], "alive", "{held:#}");
    assert_eq!(held["flags"], json!(["elsewhere"]), "{held:#}");
    // Its pid is another process' number out here.
    let inside = u32::try_from(held["pid"].as_i64().unwrap()).unwrap();
    assert_eq!(code_of(verb(&sandbox, "release", inside, &[])), 1);

    let waiter = waiter(&sandbox, &other, &["--wait", "--json"]);
    sandbox.wait_for_waiters(1);
    let init = tagged("IT_SANDBOX", sandbox.path())
        .into_iter()
        .find(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == container.pid()))
        .expect("PID 1 of the namespace");
    kill(init, Signal::KILL);
    let killed = Instant::now();
    let answer = waiter.finish(LIMIT).assert_code(0).json();
    assert_within(SOON, killed.elapsed(), "the grant after the kill");
    assert_eq!(answer["evicted"]["reason"], "anchor_released", "{answer:#}");
    container.wait(LIMIT);
}

#[test]
fn a_holder_outside_of_our_pid_namespace() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut script = holder(&sandbox, &[]);
    let ask = format!(
        "sh -c 'incumbent lock acquire {SCOPE} {ID} > /dev/null; echo \"acquire $?\"
                incumbent unlock {SCOPE} {ID}; echo \"unlock $?\"
                incumbent unlock --stale > /dev/null; incumbent locks --json > locks.json'; exit 0"
    );
    let inside = || {
        let mut command = sandbox.within(namespace);
        command.args(["/bin/sh", "-c", &ask]);
        Process::start(command).finish(LIMIT)
    };
    let answer = inside();
    assert_eq!(answer.out, "acquire 75\nunlock 75\n", "{answer:#?}");
    let held = std::fs::read_to_string(sandbox.file("locks.json")).unwrap();
    let held: Value = serde_json::from_str(&held).unwrap();
    assert_eq!(held[0]["flags"], json!(["elsewhere"]), "{held:#}");
    script.kill();
    wait_for_keepers(&sandbox, 0);
    let answer = inside();
    assert!(answer.out.starts_with("acquire 0\n"), "{answer:#?}");
}
