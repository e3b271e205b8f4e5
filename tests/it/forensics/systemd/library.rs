//! The check by the library, and the spans of systemd.

use std::process::Command;
use std::time::Instant;

use incumbent::forensics::Span;
use incumbent::forensics::{Manager, SystemdCheck};
use incumbent::stop::StopPhases;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{LIMIT, Process, Sandbox, has, order, role, skipped, test_name};

/// A gateway that is PID 1, or written in ignorance, waits for any child, and takes the exit status
/// of ours. What `systemctl` printed counts all the same.
#[test]
fn somebody_else_may_reap_systemctl() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl("printf 'LoadState=loaded\\nTimeoutStopUSec=3min\\n'");
    let command = sandbox.role_command(ROLE_TEST, "reaper");
    let mut reaper = Process::start(sandbox.asking(command));
    assert_eq!(reaper.err_line_with("given: "), "given: Ok(Finite(180s)) by Some(\"user\")");
    reaper.finish(LIMIT).assert_code(0);

    // Nobody has the status where SIGCHLD is ignored.
    let script = "trap '' CHLD; exec incumbent --json forensics systemd --unit gw";
    let answer = Process::start(sandbox.asking(sandbox.shell(script))).finish(LIMIT);
    assert_eq!(answer.assert_code(0).json()["timeout_stop_sec"], 180);

    // The standard library waits for a child that could not be executed.
    let mut command = sandbox.role_command(ROLE_TEST, "reaper of nothing");
    command.env("PATH", sandbox.file("nothing"));
    std::fs::remove_file(sandbox.file("bin/systemctl")).unwrap();
    let mut reaper = Process::start(sandbox.among_fakes(command));
    let said = reaper.err_line_with("given: ");
    assert!(said.contains("systemctl was not found in "), "{said}");
    reaper.finish(LIMIT).assert_code(0);
}

pub const ROLE_TEST: &str = test_name!(plays);

/// The parts that this program plays.
#[test]
fn plays() {
    match role().as_deref() {
        Some("gateway") => play_gateway(),
        Some("reaper") => play_reaper(3),
        Some("reaper of nothing") => play_reaper(0),
        _ => {}
    }
}

fn play_gateway() {
    let phases = StopPhases::default();
    loop {
        let check = SystemdCheck::of_this_process(&phases);
        eprintln!("own: {}", check.warning().unwrap_or_else(|| "none".to_owned()));
        if order().is_none() {
            return;
        }
    }
}

/// Asks until the other thread has taken the status `wins` times, and 20 times at least.
fn play_reaper(wins: usize) {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let (is_over, reaped) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                if let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
                    reaped.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let mut said = Vec::new();
        let started = Instant::now();
        for round in 0.. {
            if round >= 20 && reaped.load(Ordering::SeqCst) >= wins {
                break;
            }
            assert!(started.elapsed() < LIMIT, "the other thread never came first");
            let check = SystemdCheck::of_unit("gw", &StopPhases::default());
            let manager = check.manager.map(Manager::as_str);
            said.push(format!("given: {:?} by {manager:?}", check.timeout_stop));
        }
        is_over.store(true, Ordering::SeqCst);
        said.dedup();
        eprintln!("{}", said.join(", and then "));
    });
}

/// The parser against the real tool, where there is one: what is near the grammar is read alike.
#[test]
fn random_spans_are_what_systemd_makes_of_them() {
    use proptest::prelude::*;
    if !has("systemd-analyze") {
        return skipped("needs systemd-analyze");
    }
    let number = prop_oneof![
        4 => "[0-9]{1,4}",
        2 => "[0-9]{0,3}\\.[0-9]{0,12}",
        1 => "[0-9]{12,20}",
        1 => "[+-]?[0-9.]{0,4}",
    ];
    let unit = prop_oneof![
        6 => prop::sample::select(vec![
            "us", "usec", "\u{b5}s", "\u{3bc}s", "ms", "msec", "s", "sec", "second", "seconds",
            "m", "min", "minute", "minutes", "h", "hr", "hour", "hours", "d", "day", "days", "w",
            "week", "weeks", "M", "month", "months", "y", "year", "years", "",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z.,]{0,2}",
    ];
    let blank = "[ \t]{0,2}";
    let part = (blank, number, blank, unit).prop_map(|(a, b, c, d)| [a, b, c, d].concat());
    let text = prop::collection::vec(part, 1..4).prop_map(|parts| parts.concat());
    // The one deliberate difference, should the letters come together by chance.
    let in_nanoseconds = |text: &str| text.contains("ns");
    let text = text.prop_filter("systemd knows no ns here", move |text| !in_nanoseconds(text));
    // A process of the tool for each: some 5 ms.
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let accepted = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&text, |text| {
            let expected = systemd_analyze(&text);
            let found = match text.parse::<Span>() {
                Ok(Span::Finite(duration)) => Some(duration.as_micros()),
                Ok(Span::Infinite) => Some(u128::from(u64::MAX)),
                Err(_) => None,
            };
            prop_assert_eq!(found, expected, "{:?}", text);
            accepted.set(accepted.get() + usize::from(found.is_some()));
            Ok(())
        })
        .unwrap();
    assert!(accepted.get() > 20, "of 200 only {} were spans", accepted.get());
}

fn systemd_analyze(text: &str) -> Option<u128> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["timespan", "--", text]).env("LC_ALL", "C.UTF-8").output().unwrap();
    if !output.status.success() {
        return None;
    }
    let output = String::from_utf8(output.stdout).unwrap();
    let line = output.lines().find(|line| line.trim_start().starts_with("\u{3bc}s:"));
    let us = line.unwrap_or_else(|| panic!("{text:?}: {output}")).split(':').nth(1).unwrap();
    Some(us.trim().parse().unwrap())
}
