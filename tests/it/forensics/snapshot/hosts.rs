//! Signals that the host of the library catches: a runtime, Python, a handler of the gateway's own.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;
use serde_json::json;

use super::gateway::{GATEWAY, ROLE_TEST, next_report};
use super::left::assert_complete;
use crate::support::{LIMIT, Process, Sandbox, ask, eventually, kill, told};

fn gateway(sandbox: &Sandbox) -> Process {
    let mut gateway = Process::start(sandbox.role_command(ROLE_TEST, GATEWAY));
    gateway.err_line_with("=> open");
    ask(&mut gateway, "claim default gateway");
    gateway
}

/// Python's `signal.signal` puts a handler of its own in the place of ours: the gateway waited for
/// a call that never came.
#[test]
fn a_watch_says_whether_its_handlers_are_in_place() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    assert_eq!(ask(&mut gateway, "in-place default"), "true");
    // One that is chained by signal-hook stands beside ours.
    assert_eq!(ask(&mut gateway, "handle TERM"), "handling");
    assert_eq!(ask(&mut gateway, "in-place default"), "true");
    // A signal that nobody waits for is none of ours.
    assert_eq!(ask(&mut gateway, &format!("replace {}", libc::SIGUSR1)), "replaced");
    assert_eq!(ask(&mut gateway, "in-place default"), "true");
    assert_eq!(ask(&mut gateway, &format!("replace {}", libc::SIGINT)), "replaced");
    assert_eq!(ask(&mut gateway, "in-place default"), "false");
    // To ask changes nothing: the other signals are told, and that one is the other handler's.
    gateway.signal(Signal::INT);
    gateway.signal(Signal::HUP);
    assert_eq!(next_report(&mut gateway)["snapshot"]["signal_num"], 1);
}

/// The same answer as from the handlers of ours, by the siginfo of the host's.
#[test]
fn a_handler_of_the_host_hands_signals_on_with_their_senders() {
    let sandbox = Sandbox::new();
    let mut gateway = gateway(&sandbox);
    assert_eq!(ask(&mut gateway, &format!("feed default {}", libc::SIGTERM)), "feeding");
    let mut deployer = sandbox.deployer();
    for _ in 0..3 {
        deployer.send("TERM", gateway.pid());
        let report = next_report(&mut gateway);
        assert_complete(&report["snapshot"]);
        let sender = &report["snapshot"]["sender"];
        assert_eq!((&sender["pid"], &sender["how"]), (&json!(deployer.pid()), &json!("kill")));
        assert_eq!(sender["cmdline"], "/bin/sh deploy.sh");
        assert_eq!((&report["exit_code"], &report["cause"]), (&json!(143), &json!("signalled")));
    }
    assert_eq!(sandbox.shutdown_rows(), 3);
    // A marker beside it is found, and consumed.
    let mut stop = Process::start(sandbox.incumbent(["stop", "--timeout", "60"]));
    let report = next_report(&mut gateway);
    assert_eq!(report["stop"], "planned_stop", "{report:#}");
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    assert!(stop.wait(LIMIT).success());
    // No handler of ours was ever there: the others do what they did.
    gateway.signal(Signal::HUP);
    assert_eq!(gateway.wait(LIMIT).signal(), Some(1));
}

/// A handler of SIGHUP that reads the configuration again hands it on as well. It is on record with
/// its sender, ends nothing, and a crash of later is not blamed on it. The kernel's own, for a
/// terminal that is gone, is told apart.
#[test]
fn a_hangup_that_the_host_hands_on_may_be_a_reload() {
    let sandbox = Sandbox::new();
    let mut linked = gateway(&sandbox);
    assert_eq!(ask(&mut linked, &format!("feed default {}", libc::SIGHUP)), "feeding");
    let mut deployer = sandbox.deployer();
    for _ in 0..2 {
        deployer.send("HUP", linked.pid());
        let report = next_report(&mut linked);
        let snapshot = &report["snapshot"];
        assert_complete(snapshot);
        assert_eq!((&snapshot["signal"], &snapshot["signal_num"]), (&json!("SIGHUP"), &json!(1)));
        assert_eq!(snapshot["sender"]["pid"], deployer.pid(), "{report:#}");
        assert_eq!(report["may_mean_reload"], true, "{report:#}");
        assert_eq!(report["stop"], "unplanned", "{report:#}");
        assert_eq!((&report["exit_code"], &report["cause"]), (&json!(129), &json!("signalled")));
        let row = sandbox.newest_shutdown();
        assert_eq!((&row["id"], &row["may_be_reload"]), (&snapshot["recorded"], &json!(1)));
    }
    assert_eq!(ask(&mut linked, "change default"), "changed");
    linked.kill();
    sandbox.end_settled().assert("anchor_released", None, None, None);

    let mut linked = gateway(&sandbox);
    assert_eq!(ask(&mut linked, &format!("feed default {}", libc::SIGHUP)), "feeding");
    linked.say(&format!("hand-on-of-kernel {}", libc::SIGHUP));
    let report = next_report(&mut linked);
    assert_eq!(report["may_mean_reload"], false, "{report:#}");
    assert_eq!(sandbox.newest_shutdown()["may_be_reload"], 0);
    // A marker beside one that may be a reload: somebody wants it to end, and is not heard.
    assert_eq!(ask(&mut linked, &format!("replace {}", libc::SIGTERM)), "replaced");
    let mut stop = Process::start(sandbox.incumbent(["stop", "--timeout", "60"]));
    eventually("the stop is announced", LIMIT, || {
        let open = "SELECT count(*) FROM markers WHERE name = 'planned_stop'";
        (sandbox.number(open) == 1).then_some(())
    });
    deployer.send("HUP", linked.pid());
    let report = next_report(&mut linked);
    assert_eq!(report["may_mean_reload"], true, "{report:#}");
    assert_eq!(report["stop"], "planned_stop", "{report:#}");
    assert_eq!(ask(&mut linked, "release default"), "Free");
    assert!(stop.wait(LIMIT).success());
}

/// Its handler is inherited, the thread behind it is not.
#[test]
fn a_forked_child_hands_nothing_on_to_its_parent() {
    let sandbox = Sandbox::new();
    let mut gateway = gateway(&sandbox);
    assert_eq!(ask(&mut gateway, &format!("feed default {}", libc::SIGTERM)), "feeding");
    assert_eq!(ask(&mut gateway, "feed-in-child"), "the child ended with code 0");
    gateway.say(&format!("raise {}", libc::SIGTERM));
    assert_eq!(next_report(&mut gateway)["snapshot"]["signal_num"], 15);
    assert_eq!(sandbox.shutdown_rows(), 1, "only its own");
}

#[test]
fn a_loop_of_the_host_asks_for_the_same() {
    let sandbox = Sandbox::new();
    let mut gateway = gateway(&sandbox);
    gateway.say("by-host default 15");
    let report = next_report(&mut gateway);
    assert_eq!((&report["exit_code"], &report["stop"]), (&json!(143), &json!("unplanned")));
    let why = &report["snapshot"]["sender"]["unavailable"];
    assert!(why.as_str().unwrap().contains("not caught by incumbent"), "{report:#}");
    assert_eq!(sandbox.shutdown_rows(), 1);
    for number in ["0", "-15", "128", "2147483647", "-2147483648"] {
        let said = ask(&mut gateway, &format!("by-host default {number}"));
        assert!(said.starts_with("InvalidInput: signal: "), "{said}");
    }
    assert_eq!(sandbox.shutdown_rows(), 1);
}

/// Symptom: a worker forked by a gateway that listens could not be ended but by SIGKILL. Cause: it
/// had inherited the handlers, and not the thread that waits for what they say. It holds because
/// the default applies in a process that did not catch the signals itself.
#[test]
fn a_forked_child_of_a_gateway_that_listens_is_ended_by_signals() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.listening_gateway();
        gateway.say("fork default");
        let said = told(&mut gateway);
        let (child, in_place) = said.split_once(' ').unwrap();
        assert_eq!(in_place, "Some(false)");
        kill(child.parse().unwrap(), signal);
        let ended = format!("the child ended by signal {}", signal.as_raw());
        assert_eq!(ask(&mut gateway, "waited"), ended);
        // The parent listens on, and has heard nothing of it.
        gateway.signal(signal);
        assert_eq!(next_report(&mut gateway)["snapshot"]["signal_num"], signal.as_raw());
        assert_eq!(sandbox.shutdown_rows(), 1);
    }
}

/// Symptom: a forked worker panicked when it joined a thread of its own. Cause: the C library had
/// given that thread the place of the parent's thread that waits for signals, and the drop of the
/// inherited watch let go of whoever is in that place. It holds because a child drops no thread
/// that it does not have.
#[test]
fn a_forked_child_lets_go_of_a_watch_and_of_nothing_else() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    for _ in 0..3 {
        assert_eq!(ask(&mut gateway, "drop-in-child default"), "the child ended with code 0");
    }
    gateway.signal(Signal::TERM);
    assert_eq!(next_report(&mut gateway)["snapshot"]["signal_num"], 15);
}
