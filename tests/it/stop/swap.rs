//! Races of those who end each other's tenure: supervisors that replace each other, `stop` beside
//! `run --replace`, takers that are killed in the middle, many takers at once.
//!
//! The witness is the kernel: every gateway in here takes a lock of its own, on a file that
//! incumbent does not know, and keeps it until its last instant. One that cannot have it has met
//! another gateway of its office, alive.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde_json::Value;

use super::takeover::{assert_nothing_is_left, takeovers_begun};
use crate::support::{
    LIMIT, Process, Random, SOON, Sandbox, assert_within, eventually, exit_code, role, rounds,
    test_name,
};

const ROLE: &str = test_name!(role_of_a_gateway);

/// Plays a gateway, `MS`: takes the witness' lock, says so, and ends so many milliseconds after a
/// TERM. Its working directory is the sandbox'.
#[test]
fn role_of_a_gateway() {
    let Some(role) = role() else { return };
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&asked)).unwrap();
    let drain = Duration::from_millis(role.parse().unwrap());
    let witness = File::options().create(true).append(true).open("witness").unwrap();
    let is_alone = flock(&witness, FlockOperation::NonBlockingLockExclusive).is_ok();
    let pid = std::process::id();
    let note = if is_alone { format!("begun {pid}\n") } else { format!("SECOND {pid}\n") };
    let mut notes = File::options().create(true).append(true).open("notes").unwrap();
    notes.write_all(note.as_bytes()).unwrap();
    println!("=> {}", note.trim());
    while !asked.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(drain);
    std::process::exit(0);
}

/// `before`, followed by the words that start a gateway which drains for `drain_ms`.
fn with_gateway(sandbox: &Sandbox, mut before: Command, drain_ms: u64) -> Command {
    let gateway = sandbox.role_command(ROLE, "");
    before.arg(gateway.get_program()).args(gateway.get_args());
    before.env("IT_ROLE", drain_ms.to_string());
    before
}

/// `run` of `party`, whose gateway drains for `drain_ms`.
fn run(sandbox: &Sandbox, party: &str, options: &[&str], drain_ms: u64) -> Command {
    let mut command = sandbox.incumbent([&["run", "--no-backoff"], options, &["--"]].concat());
    command.env("INCUMBENT_PARTY", party);
    with_gateway(sandbox, command, drain_ms)
}

/// Starts such a `run`, and waits until its gateway works.
#[track_caller]
fn with_gateway_begun(command: Command) -> Process {
    let mut process = Process::start(command);
    process.line_with("=> begun");
    process
}

fn notes(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.file("notes")).unwrap_or_default()
}

#[track_caller]
fn assert_never_two(sandbox: &Sandbox) {
    let notes = notes(sandbox);
    assert!(!notes.contains("SECOND"), "two gateways at once:\n{notes}");
}

/// The witness itself: it sees two gateways.
#[test]
fn the_witness_sees_a_second_gateway() {
    let sandbox = Sandbox::new();
    let mut first = with_gateway_begun(run(&sandbox, "a", &[], 0));
    let mut second = Process::start(run(&sandbox, "b", &["--kind", "other"], 0));
    second.line_with("=> SECOND");
    second.kill();
    first.kill();
    // A killed one is none.
    eventually("the first one is gone", LIMIT, || {
        let witness = File::open(sandbox.file("witness")).unwrap();
        flock(&witness, FlockOperation::NonBlockingLockExclusive).ok()
    });
    with_gateway_begun(run(&sandbox, "a", &[], 0));
}

fn grants(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM starts WHERE outcome = 'granted'")
}

/// The pid on record, of a gateway that lives.
fn living_owner(sandbox: &Sandbox) -> Option<u32> {
    let status = sandbox.status().1;
    let pid = status["pid"].as_u64().filter(|_| status["verdict"] == "alive")?;
    Some(u32::try_from(pid).unwrap())
}

/// What came of a `run` that was started: it owns, or it has ended.
#[track_caller]
fn end_or_office(sandbox: &Sandbox, run: &mut Process, context: &str) -> Option<i32> {
    eventually(&format!("{context}: the run of pid {} owns or ends", run.pid()), LIMIT, || {
        if run.has_ended() {
            return Some(Some(exit_code(run.wait(LIMIT))));
        }
        (living_owner(sandbox) == Some(run.pid())).then_some(None)
    })
}

/// R:SUP. FIELD-BUGS rows 45 and 46.
///
/// Symptom: two supervisors (a system and a user unit, a web interface and systemd) replaced each
/// other's gateway every few minutes; or the one that lost started 52,000 times. It holds because
/// the one that was replaced yields to whoever replaced it, and because starts that get nowhere are
/// delayed by a count that outlives them. A person is not kept out.
#[test]
fn two_supervisors_settle_after_one_swap() {
    const LOOP: &str = "
        echo ready
        read -r go
        while :; do
            incumbent run --replace -- \"$@\" < /dev/null > /dev/null 2>> $0
            echo \"ended $?\"
        done";
    let sandbox = Sandbox::new();
    let mut loops: Vec<Process> = (0..2)
        .map(|number| {
            let mut command = sandbox.shell(LOOP);
            command.arg(format!("supervisor-{number}"));
            let mut supervisor = Process::start(with_gateway(&sandbox, command, 20));
            assert_eq!(supervisor.line(), "ready");
            supervisor
        })
        .collect();
    for supervisor in &mut loops {
        supervisor.say("go");
    }
    // Settled: one of them waits in a storm's backoff, which needs six starts that got nowhere.
    let loser = eventually("a loser that backs off", LIMIT, || {
        (0..2).find(|number| waits(&sandbox, *number))
    });
    let winner = living_owner(&sandbox).expect("a gateway");
    let (takeovers, granted) = (takeovers_begun(&sandbox), grants(&sandbox));
    eprintln!("settled with {takeovers} takeovers, {granted} grants");
    assert!(takeovers <= 2 && granted <= 3, "{takeovers} takeovers, {granted} grants");
    // The gateway that is left is the one that stays: for longer than any swap took.
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(2) {
        assert_eq!(living_owner(&sandbox), Some(winner));
    }
    assert_eq!((takeovers_begun(&sandbox), grants(&sandbox)), (takeovers, granted));
    let refused = sandbox.number("SELECT count(*) FROM starts WHERE outcome = 'refused'");
    assert!((6..=8).contains(&refused), "{refused} starts were refused");
    assert_never_two(&sandbox);

    // A person comes in, and then the other loop is a loser as well.
    let person = with_gateway_begun(run(&sandbox, "person", &["--replace", "--force"], 0));
    let other = &mut loops[1 - loser];
    assert_eq!(other.line_with("ended"), "ended 0", "it was told that it was taken over");
    eventually("the other one backs off", LIMIT, || waits(&sandbox, 1 - loser).then_some(()));
    let began = takeovers_begun(&sandbox);
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(1) {
        assert_eq!(living_owner(&sandbox), Some(person.pid()));
    }
    assert_eq!(takeovers_begun(&sandbox), began);
    assert_eq!(began, takeovers + 1);
    assert_never_two(&sandbox);
    assert_nothing_is_left(&sandbox, "at the end");
}

/// Whether a `run` of this loop has said that it waits for the end of a storm's backoff.
fn waits(sandbox: &Sandbox, number: usize) -> bool {
    let said = std::fs::read_to_string(sandbox.file(&format!("supervisor-{number}")));
    said.is_ok_and(|said| said.contains("failed starts in a row: waiting"))
}

/// FIELD-BUGS rows 43 and 49.
///
/// Symptom: a supervisor's start fell between a stop and its end, and the newborn was killed, or
/// two ran. It holds because both reserve the office in the transaction that writes their marker:
/// one of them is first, and the other meets it.
#[test]
fn stop_and_replace_at_the_same_moment_leave_one_owner_or_none() {
    let mut random = Random::seeded();
    let sandbox = Sandbox::new();
    let mut seen = [[0_usize; 3]; 2];
    for round in 1..=rounds(25, 600) {
        let context = format!("round {round}");
        let drain = random.below(3) * 10;
        let old = with_gateway_begun(run(&sandbox, &format!("old-{round}"), &[], drain));
        // At once, or so much later that the first one is done.
        let apart = Duration::from_millis(if random.below(3) == 0 { 60 } else { 6 });
        let stop = || Process::start(sandbox.incumbent(["stop"]));
        let take = || Process::start(run(&sandbox, &format!("new-{round}"), &["--replace"], 0));
        let (stop, mut taker) = if random.below(2) == 0 {
            let stop = stop();
            random.pause_up_to(apart);
            (stop, take())
        } else {
            let taker = take();
            random.pause_up_to(apart);
            (stop(), taker)
        };
        let stop = stop.finish(LIMIT);
        let yielded = match stop.code() {
            0 => 0,
            75 => 1,
            _ => panic!("{context}: {stop:#?}"),
        };
        // Whatever it was that asked it: it was told, and it is its only end.
        let old = old.finish_with_stdin_open(LIMIT);
        assert_eq!(old.code(), 0, "{context}: {old:#?}");
        let came_of_it = end_or_office(&sandbox, &mut taker, &context);
        let came_to = match came_of_it {
            None => 0,
            // Refused, because the stop was first.
            Some(75) => 1,
            // Stopped in its turn.
            Some(0) => 2,
            Some(code) => panic!("{context}: the taker ended with {code}"),
        };
        if yielded == 1 {
            assert_eq!(came_to, 0, "{context}: the stop yielded to a taker that did not take");
        }
        seen[yielded][came_to] += 1;
        assert_eq!(living_owner(&sandbox), (came_to == 0).then_some(taker.pid()), "{context}");
        assert_nothing_is_left(&sandbox, &context);
        Process::start(sandbox.incumbent(["stop"])).finish(LIMIT).assert_code(0);
        assert_eq!(exit_code(taker.wait(LIMIT)) == 75, came_to == 1, "{context}");
        assert_eq!(sandbox.status().0, 3, "{context}");
        assert_nothing_is_left(&sandbox, &context);
        assert_never_two(&sandbox);
    }
    eprintln!("stopped, yielded x owns, refused, stopped in its turn: {seen:?}");
}

/// FIELD-BUGS rows 1, 49 and 79.
///
/// Symptom: whatever died between "the old one is asked" and "the new one runs" left a marker, a
/// lease or a lock behind that kept everybody out. It holds because a reservation counts only while
/// whoever made it lives. So the office is free or still its old owner's, and the next start has it
/// as soon as that one is gone.
#[test]
fn a_taker_or_a_stop_killed_at_any_moment_blocks_nobody() {
    let mut random = Random::seeded();
    let sandbox = Sandbox::new();
    let mut seen = [[0_usize; 3]; 2];
    for round in 1..=rounds(30, 500) {
        let drain = random.below(3) * 10;
        let mut old = with_gateway_begun(run(&sandbox, &format!("old-{round}"), &[], drain));
        let victim = if random.below(3) == 0 {
            sandbox.incumbent(if random.below(2) == 0 {
                &["stop"][..]
            } else {
                &["stop", "--force"]
            })
        } else {
            run(&sandbox, &format!("victim-{round}"), &["--replace"], 0)
        };
        let verb = if victim.get_args().any(|word| word == "stop") { "stop" } else { "replace" };
        let mut victim = Process::start(victim);
        let lived = Instant::now();
        random.pause_up_to(Duration::from_millis(40 + drain));
        victim.kill();
        let next = random.below(3);
        let context =
            format!("round {round}, {verb} killed after {:?}, next {next}", lived.elapsed());

        let holder = living_owner(&sandbox);
        assert!(
            holder.is_none_or(|pid| [old.pid(), victim.pid()].contains(&pid)),
            "{context}: {holder:?}"
        );
        let asked = sandbox.number("SELECT count(*) FROM open_markers");
        seen[usize::from(verb == "stop")][match (holder, asked) {
            (Some(_), 0) => 0,
            (Some(_), _) => 1,
            (None, _) => 2,
        }] += 1;
        let options: &[&str] = match next {
            0 => &["--replace"],
            // If the old one was not asked before the kill, it is now.
            1 => {
                if !old.has_ended() {
                    old.signal(Signal::TERM);
                }
                &["--wait"]
            }
            _ => {
                if !old.has_ended() {
                    old.signal(Signal::TERM);
                }
                old.wait(LIMIT);
                &[]
            }
        };
        let mut new = Process::start(run(&sandbox, &format!("next-{round}"), options, 0));
        let came_of_it = end_or_office(&sandbox, &mut new, &context);
        assert_eq!(came_of_it, None, "{context}: {:#?}", new.finish(LIMIT));
        new.line_with("=> begun");
        assert_eq!(exit_code(old.wait(LIMIT)), 0, "{context}");
        assert_nothing_is_left(&sandbox, &context);
        assert_never_two(&sandbox);
        Process::start(sandbox.incumbent(["stop"])).finish(LIMIT).assert_code(0);
        assert_eq!(exit_code(new.wait(LIMIT)), 0, "{context}");
        assert_nothing_is_left(&sandbox, &context);
    }
    eprintln!("replace, stop killed x held and not asked, held and asked, free: {seen:?}");
}

/// R:KILL. FIELD-BUGS row 19: an owner that dies while it is being replaced, in whatever way, is
/// replaced all the same, and nobody waits for it.
#[test]
fn an_owner_killed_at_any_moment_of_its_takeover_is_succeeded() {
    let mut random = Random::seeded();
    let sandbox = Sandbox::new();
    for round in 1..=rounds(20, 400) {
        let drain = random.below(3) * 10;
        let mut old = with_gateway_begun(run(&sandbox, &format!("old-{round}"), &[], drain));
        let mut taker = Process::start(run(&sandbox, &format!("new-{round}"), &["--replace"], 0));
        let lived = Instant::now();
        random.pause_up_to(Duration::from_millis(20 + drain));
        old.kill();
        let killed = Instant::now();
        let context =
            format!("round {round}, drains {drain} ms, killed after {:?}", lived.elapsed());
        let came_of_it = end_or_office(&sandbox, &mut taker, &context);
        assert_eq!(came_of_it, None, "{context}: {:#?}", taker.finish(LIMIT));
        taker.line_with("=> begun");
        assert_within(SOON, killed.elapsed(), &context);
        assert_never_two(&sandbox);
        assert_nothing_is_left(&sandbox, &context);
        taker.signal(Signal::TERM);
        taker.finish_with_stdin_open(LIMIT).assert_code(0);
    }
}

/// R:RACE. Ten supervisors at once: each that is granted replaces the one before, the others are
/// refused by name, and one gateway is left.
#[test]
fn of_many_takers_at_once_one_is_left() {
    const TAKERS: usize = 10;
    let both = [&["--replace"][..], &["--replace", "--wait"][..]];
    for (round, options) in (1..=rounds(2, 40)).zip(both.into_iter().cycle()) {
        let sandbox = Sandbox::new();
        let context = format!("round {round}, {options:?}");
        let old = with_gateway_begun(run(&sandbox, "old", &[], 30));
        let mut takers: Vec<Process> = (0..TAKERS)
            .map(|number| {
                let run = run(&sandbox, &format!("taker-{number}"), options, 10);
                let mut command = sandbox.shell("echo ready; read -r go; exec \"$@\"");
                command.arg("sh").arg(run.get_program()).args(run.get_args());
                for (name, value) in run.get_envs() {
                    if let Some(value) = value {
                        command.env(name, value);
                    }
                }
                let mut taker = Process::start(command);
                assert_eq!(taker.line(), "ready");
                taker
            })
            .collect();
        for taker in &mut takers {
            taker.say("go");
        }
        eventually(&format!("{context}: all but one have ended"), LIMIT, || {
            let left = takers.iter_mut().filter_map(|it| (!it.has_ended()).then_some(())).count();
            assert!(left > 0, "{context}: nobody is left");
            (left == 1).then_some(())
        });
        let at = takers.iter_mut().position(|taker| !taker.has_ended()).unwrap();
        let mut left = takers.swap_remove(at);
        assert_eq!(end_or_office(&sandbox, &mut left, &context), None);
        left.line_with("=> begun");
        assert_eq!(exit_code({ old }.wait(LIMIT)), 0, "{context}");
        let mut codes: Vec<i32> = takers.iter_mut().map(|it| exit_code(it.wait(LIMIT))).collect();
        codes.sort_unstable();
        let refused = codes.iter().filter(|code| **code == 75).count();
        let replaced = codes.iter().filter(|code| **code == 0).count();
        assert_eq!(refused + replaced, TAKERS - 1, "{context}: {codes:?}");
        if options.contains(&"--wait") {
            assert_eq!(refused, 0, "{context}: {codes:?}");
        }
        eprintln!("{context}: {replaced} were replaced in their turn, {refused} refused");
        let taken_over: usize = history_with(&sandbox, "taken_over");
        assert_eq!(taken_over, replaced + 1, "{context}");
        assert_never_two(&sandbox);
        assert_nothing_is_left(&sandbox, &context);
    }
}

fn history_with(sandbox: &Sandbox, reason: &str) -> usize {
    let history: Vec<Value> = sandbox.history();
    history.iter().filter(|end| end["end_reason"] == reason).count()
}
