//! Watches catch signals and give them back.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::AT_ONCE;
use super::gateway::{GATEWAY, ROLE_TEST, micros, next_report};
use super::left::{assert_complete, listening, why};
use crate::support::{LIMIT, Process, Sandbox, ask, assert_within};

/// Who listens no more can be ended again, and who listens again is called again.
#[test]
fn a_dropped_watch_gives_the_signals_back() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.listening_gateway();
        let once = |gateway: &mut Process| {
            gateway.signal(signal);
            let number = next_report(gateway)["snapshot"]["signal_num"].clone();
            assert_eq!(number, signal.as_raw());
        };
        once(&mut gateway);
        for _ in 0..2 {
            assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
            assert_eq!(ask(&mut gateway, "listen default none"), "listening");
            once(&mut gateway);
        }
        assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
        gateway.signal(signal);
        assert_eq!(gateway.wait(LIMIT).signal(), Some(signal.as_raw()));
    }
}

/// A gateway that has heard enough lets go from within the call: nothing waits for itself, and the
/// next signal ends it.
#[test]
fn a_watch_may_be_dropped_by_the_call_itself() {
    let sandbox = Sandbox::new();
    let mut gateway = Process::start(sandbox.role_command(ROLE_TEST, GATEWAY));
    gateway.err_line_with("=> open");
    ask(&mut gateway, "claim default gateway");
    assert_eq!(ask(&mut gateway, "listen-once default"), "listening");
    gateway.signal(Signal::TERM);
    gateway.err_line_with("?? dropped");
    assert_eq!(ask(&mut gateway, "change default"), "changed");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(LIMIT).signal(), Some(15));
}

/// Where no descriptor is left, the signals cannot be caught. Those that were made ready for it
/// until then had no effect any more: the gateway went on without a watch, and no SIGTERM could
/// end it. It holds because whatever fails gives back what it has taken.
#[test]
fn a_watch_that_fails_leaves_the_signals_as_they_were() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.role(ROLE_TEST, GATEWAY);
        gateway.err_line_with("=> open");
        ask(&mut gateway, "claim default gateway");
        assert_eq!(ask(&mut gateway, "listen-without-descriptors default"), "Busy");
        if signal == Signal::HUP {
            // A second attempt is as good as the first.
            assert_eq!(ask(&mut gateway, "listen default none"), "listening");
            gateway.signal(signal);
            assert_eq!(next_report(&mut gateway)["snapshot"]["signal_num"], 1);
            assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
        }
        gateway.signal(signal);
        assert_eq!(gateway.wait(LIMIT).signal(), Some(signal.as_raw()));
    }
}

/// A handler of the gateway's own is called beside ours, and stays when ours goes.
#[test]
fn a_handler_of_the_gateways_own_stays() {
    let sandbox = Sandbox::new();
    let mut gateway = Process::start(sandbox.role_command(ROLE_TEST, GATEWAY));
    gateway.err_line_with("=> open");
    ask(&mut gateway, "claim default gateway");
    assert_eq!(ask(&mut gateway, "handle TERM"), "handling");
    for order in ["listen default none", "unlisten default"] {
        ask(&mut gateway, order);
    }
    gateway.signal(Signal::TERM);
    gateway.err_line_with("?? handled");
    assert_eq!(ask(&mut gateway, "change default"), "changed");
}

/// `nohup`: what was ignored when the gateway started stays ignored.
#[test]
fn what_was_ignored_stays_ignored() {
    for (name, ignored, heard) in
        [("HUP", Signal::HUP, Signal::TERM), ("TERM", Signal::TERM, Signal::INT)]
    {
        let sandbox = Sandbox::new();
        let inner = sandbox.role_command(ROLE_TEST, GATEWAY);
        let mut command = sandbox.shell(&format!("trap '' {name}; exec \"$0\" \"$@\""));
        command.arg(inner.get_program()).args(inner.get_args()).env("IT_ROLE", GATEWAY);
        let mut gateway = listening(Process::start(command));
        gateway.signal(ignored);
        gateway.signal(heard);
        let report = next_report(&mut gateway);
        assert_eq!(report["snapshot"]["signal_num"], heard.as_raw(), "{report:#}");
        // Nor does the end of the watch bring its default back.
        assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
        gateway.signal(ignored);
        assert_eq!(ask(&mut gateway, "change default"), "changed");
        assert_eq!(sandbox.shutdown_rows(), 1);
    }
}

/// One process, two offices: each is told, each has its row, and one that goes takes nothing from
/// the other.
#[test]
fn two_tenures_of_one_process_are_both_told() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    ask(&mut gateway, "claim work gateway");
    assert_eq!(ask(&mut gateway, "listen work none"), "listening");
    let mut deployer = sandbox.deployer();
    deployer.send("TERM", gateway.pid());
    let mut told = Vec::new();
    for _ in 0..2 {
        let line = gateway.err_line_with("!! ");
        let report: Value = serde_json::from_str(line.split_once("!! ").unwrap().1).unwrap();
        assert_eq!(report["snapshot"]["sender"]["pid"], deployer.pid(), "{report:#}");
        told.push(report["profile"].as_str().unwrap().to_owned());
    }
    told.sort();
    assert_eq!(told, ["default", "work"]);
    let per_profile = "SELECT count(DISTINCT profile) FROM shutdowns";
    assert_eq!((sandbox.shutdown_rows(), sandbox.number(per_profile)), (2, 2));
    assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
    deployer.send("TERM", gateway.pid());
    assert_eq!(next_report(&mut gateway)["profile"], "work");
    assert_eq!(ask(&mut gateway, "unlisten work"), "unlistened");
    deployer.send("TERM", gateway.pid());
    assert_eq!(gateway.wait(LIMIT).signal(), Some(15));
}

/// The snapshot alone asks no store, and takes no time.
#[test]
fn a_snapshot_without_a_store_takes_no_time() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let taken: Value = serde_json::from_str(&ask(&mut gateway, "snapshot")).unwrap();
        best = best.min(micros(&taken));
        assert_complete(&taken["snapshot"]);
        assert_eq!(taken["snapshot"]["pid"], gateway.pid(), "{taken:#}");
        assert_eq!(taken["snapshot"]["signal"], "UNKNOWN", "{taken:#}");
        assert!(why(&taken["snapshot"]["recorded"]).contains("no store"), "{taken:#}");
    }
    assert_within(AT_ONCE, best, "it");
    assert_eq!(sandbox.shutdown_rows(), 0);
}
