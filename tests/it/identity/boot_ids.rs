//! Services that see another boot id than their neighbours: it only looks as if there had been a
//! restart between them.

use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use super::doubt::{may_mount, views};
use super::reboot::BYSTANDER;
use crate::support::{
    Identity, LIMIT, Process, Run, Sandbox, Stat, eventually, kill, skipped,
    stop_between_transactions, wait_ended,
};

/// A service and a neighbour: how each sees `/proc`.
struct Neighbours<'a> {
    sandbox: &'a Sandbox,
    name: String,
    service: String,
    neighbour: String,
}

impl Neighbours<'_> {
    fn of(sandbox: &Sandbox) -> Vec<Neighbours<'_>> {
        let real = ("real", "true".to_owned());
        let views = views(sandbox);
        let mut all = Vec::new();
        for view in &views {
            all.push((view, &real));
            all.push((&real, view));
        }
        all.push((&views[0], &views[1]));
        all.push((&views[1], &views[0]));
        all.into_iter()
            .map(|(service, neighbour)| Neighbours {
                sandbox,
                name: format!("service: {}, neighbour: {}", service.0, neighbour.0),
                service: service.1.clone(),
                neighbour: neighbour.1.clone(),
            })
            .collect()
    }

    fn service(&self, arguments: &str) -> Command {
        self.sandbox.in_view(&self.service, arguments)
    }

    fn neighbour(&self, arguments: &str) -> Command {
        self.sandbox.in_view(&self.neighbour, arguments)
    }

    #[track_caller]
    fn ask(&self, code: i32, arguments: &str) -> String {
        let answer = Process::start(self.neighbour(arguments)).finish(LIMIT);
        assert_eq!(answer.code(), code, "{}: {arguments}: {answer:#?}", self.name);
        answer.out
    }

    /// A `run` whose command obeys: each line is a script.
    fn obedient(&self) -> Run {
        const OBEY: &str = "run --no-backoff --lock token=one -- /bin/sh -c \
            'echo $$; while read -r order; do eval \"$order\"; done'";
        Run::start(self.service(OBEY))
    }
}

/// FIELD-BUGS row 91. Symptom: a service with ProcSubset=pid, or in nspawn, "lives on another
/// machine": no verb reached it, and where its `run` was killed, a second one was granted. It holds
/// because its lock proves that this is its kernel, and because its clock is ours.
#[test]
fn neighbours_with_different_boot_ids_refuse_and_reach_each_other() {
    if !may_mount() {
        return skipped("needs root, and leave to mount");
    }
    let sandbox = Sandbox::new();
    for pair in Neighbours::of(&sandbox) {
        let mut run = pair.obedient();
        let status = pair.ask(0, "--json status");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["reason"], "anchor_held", "{}: {status:#}", pair.name);
        assert_eq!(status["flags"], json!([]), "{}: {status:#}", pair.name);
        for verb in [
            "run --no-backoff -- true",
            "run --no-backoff --wait=0.2 -- true",
            "--profile other run --no-backoff --lock token=one -- true",
            "evict",
            "unlock token one",
        ] {
            pair.ask(75, verb);
        }

        // A marker reaches it, once.
        pair.ask(0, &format!("marker write note --pid {}", run.pid()));
        run.process.say("incumbent marker peek note > /dev/null; echo \"peek $?\"");
        assert_eq!(run.process.line(), "peek 0", "{}", pair.name);
        run.process.say("incumbent marker consume note > /dev/null; echo \"consume $?\"");
        assert_eq!(run.process.line(), "consume 0", "{}", pair.name);
        run.process.say("incumbent marker consume note > /dev/null; echo \"again $?\"");
        assert_eq!(run.process.line(), "again 1", "{}", pair.name);

        // It starts its command again, in the same tenure.
        let (first, instance) = (run.command, status["instance"].clone());
        pair.ask(0, "restart --timeout 20s");
        let second: u32 = run.process.line().parse().unwrap();
        assert!(first.is_gone() && Identity::of(second).is_some(), "{}", pair.name);
        assert_eq!(sandbox.status().1["instance"], instance, "{}", pair.name);

        // The neighbour takes its place, and is itself stopped from the service's side.
        let mut taker = Process::start(
            pair.neighbour("run --no-backoff --replace -- /bin/sh -c 'echo taken; exec cat'"),
        );
        taker.line_with("taken");
        run.process.finish_with_stdin_open(LIMIT);
        let ends = sandbox.history();
        assert_eq!(ends[1]["end_reason"], "taken_over", "{}: {ends:#?}", pair.name);
        let stop = Process::start(pair.service("stop --timeout 20s")).finish(LIMIT);
        assert_eq!(stop.code(), 0, "{}: {stop:#?}", pair.name);
        taker.finish_with_stdin_open(LIMIT);
        assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop", "{}", pair.name);
    }
}

/// The same for owners without a `run`: by a keeper, and by nothing but pid and start time.
#[test]
fn neighbours_with_different_boot_ids_stop_a_recorded_process() {
    if !may_mount() {
        return skipped("needs root, and leave to mount");
    }
    let sandbox = Sandbox::new();
    for pair in Neighbours::of(&sandbox) {
        for keeper in ["", "--no-keeper"] {
            let mut service = Process::start(sandbox.program("cat"));
            let claim = format!("claim {keeper} --pid {}", service.pid());
            Process::start(pair.service(&claim)).finish(LIMIT).assert_code(0);
            pair.ask(0, "status");
            pair.ask(75, "run --no-backoff -- true");
            pair.ask(0, &format!("marker write note --pid {}", service.pid()));
            let consume = format!("marker consume note --pid {}", service.pid());
            let consumed = Process::start(pair.service(&consume)).finish(LIMIT);
            assert_eq!(consumed.code(), 0, "{} {keeper}: {consumed:#?}", pair.name);
            let mut taker = Process::start(
                pair.neighbour("run --no-backoff --replace -- /bin/sh -c 'echo taken; exec cat'"),
            );
            taker.line_with("taken");
            service.wait(LIMIT);
            Process::start(pair.service("stop --timeout 20s")).finish(LIMIT).assert_code(0);
            taker.finish_with_stdin_open(LIMIT);
        }
    }
}

/// A lease is counted on the boot clock, which neighbours share.
#[test]
fn a_lease_runs_on_between_neighbours_with_different_boot_ids() {
    if !may_mount() {
        return skipped("needs root, and leave to mount");
    }
    let sandbox = Sandbox::new();
    let service = Process::start(sandbox.program("cat"));
    for pair in Neighbours::of(&sandbox) {
        for keeper in ["", "--no-keeper"] {
            let own = |verb: &str, code| {
                let verb = format!("lock {verb} --pid {}", service.pid());
                let answer = Process::start(pair.service(&verb)).finish(LIMIT);
                assert_eq!(answer.code(), code, "{} {verb}: {answer:#?}", pair.name);
            };
            own(&format!("acquire lease one {keeper} --ttl 1h"), 0);
            let locks = pair.ask(0, "--json locks");
            let locks: serde_json::Value = serde_json::from_str(&locks).unwrap();
            let left_ms = locks[0]["lease_remaining_ms"].as_i64().unwrap();
            assert!((3_500_000..=3_600_000).contains(&left_ms), "{}: {locks:#}", pair.name);
            let other = format!("lock acquire lease one --pid {} --no-keeper", std::process::id());
            pair.ask(75, &other);
            own("verify lease one", 0);
            own("renew lease one", 0);
            own("release lease one", 0);
            // One that has run out has run out for the neighbour, too. A held anchor outlives it.
            own(&format!("acquire lease one {keeper} --ttl 200ms"), 0);
            let anchored = keeper.is_empty();
            eventually("the lease is over", LIMIT, || {
                let locks = pair.ask(0, "--json locks");
                let locks: serde_json::Value = serde_json::from_str(&locks).unwrap();
                (locks[0]["lease_remaining_ms"] == 0).then_some(())
            });
            pair.ask(if anchored { 75 } else { 0 }, &other);
            own("release --all", 0);
            let release = format!("lock release --all --pid {}", std::process::id());
            pair.ask(0, &release);
        }
    }
}

/// A reservation is counted on the boot clock, too: whoever stops or replaces an owner has its
/// office reserved for as long as he lives, also against those who see another boot id.
#[test]
fn a_reservation_counts_between_neighbours_with_different_boot_ids() {
    if !may_mount() {
        return skipped("needs root, and leave to mount");
    }
    let sandbox = Sandbox::new();
    for pair in Neighbours::of(&sandbox) {
        let mut owner = Run::start(pair.service(
            "run --no-backoff --stop-budget 1min -- /bin/sh -c 'trap : TERM; echo $$; while :; do \
             read -r end && exit; done'",
        ));
        let taker = Process::start(pair.service("run --no-backoff --replace -- true"));
        eventually("the office is reserved", LIMIT, || {
            (sandbox.number("SELECT count(*) FROM reservations") > 0).then_some(())
        });
        stop_between_transactions(&sandbox, &[taker.pid()]);
        owner.process.say("end");
        assert!(wait_ended(owner.pid(), LIMIT));
        // Nobody holds it, and it is not to be had.
        let refused = Process::start(pair.neighbour("run --no-backoff -- true")).finish(LIMIT);
        assert_eq!(refused.code(), 75, "{}: {refused:#?}", pair.name);
        assert!(refused.err.contains("reserved"), "{}: {refused:#?}", pair.name);
        taker.signal(Signal::CONT);
        taker.finish(LIMIT).assert_code(0);
        pair.ask(0, "run --no-backoff -- true");
    }
}

/// A bystander is what a test says that it is.
#[test]
fn a_bystander_tells_of_a_signal() {
    let sandbox = Sandbox::new();
    let mut bystander = Process::start(sandbox.shell(BYSTANDER));
    bystander.line();
    kill(bystander.pid(), Signal::TERM);
    assert_eq!(bystander.line(), "signalled");
    assert!(Stat::of(bystander.pid()).is_some());
}
