//! Which owners are taken over, and how they end.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use super::gateway::{ROLE, deaf_gateway};
use super::{
    DRAINS, ENDS, assert_holder, assert_nothing_is_left, assert_taken_over, draining, run_of,
    takeovers_begun, taking_over, wait_for_reservation, wait_until_requests_are_passed_on,
};
use crate::stop::terms;
use crate::support::{
    LIMIT, Process, Run, SOON, Sandbox, Stat, ask, assert_within, eventually, kill, wait_ended,
    wait_stopped,
};

/// FIELD-BUGS rows 45, 48 and 53.
///
/// Symptom: the old gateway was killed in the middle of its work, and its supervisor took that for
/// a crash and started it again. It holds because the request is written down before anybody is
/// signalled: the `run` and its command find it, the end is told as what it was (exit code 0), and
/// the office changes hands when the old one is done, not before.
#[test]
fn a_run_is_asked_drains_and_is_succeeded() {
    let sandbox = Sandbox::new();
    let script = format!(
        "trap 'echo TERM
             incumbent --json marker peek > peeked.json; echo \"peek $?\"
             incumbent --json marker consume takeover > consumed.json; echo \"consume $?\"
             incumbent marker consume takeover > /dev/null; echo \"consume $?\"' TERM{}",
        DRAINS.split_once("' TERM").unwrap().1
    );
    let mut old = Run::start(run_of(&sandbox, "a", &[], &script));
    let mut taker = taking_over(&sandbox, "b", &[]);
    for expected in ["TERM", "peek 0", "consume 0", "consume 1"] {
        assert_eq!(old.process.line(), expected);
    }
    for file in ["peeked.json", "consumed.json"] {
        let marker = std::fs::read_to_string(sandbox.file(file)).unwrap();
        let marker: Value = serde_json::from_str(&marker).unwrap();
        assert_eq!(marker["name"], "takeover", "{file}: {marker:#}");
        assert_eq!(marker["by_pid"], taker.pid(), "{file}: {marker:#}");
    }
    wait_until_requests_are_passed_on(&mut old);
    // It drains, and the office is its own until it is done.
    assert_holder(&sandbox, old.pid());
    assert!(!old.command.is_gone() && !taker.has_ended());
    let old_pid = old.pid();
    let answer = old.end().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    taker.err_line_with(&format!("took over from pid {old_pid}"));
    taker.line();
    assert_holder(&sandbox, taker.pid());
    let end = assert_taken_over(&sandbox, old_pid, taker.pid());
    assert_eq!(end["exit_code"], 7, "{end:#}");
    assert_nothing_is_left(&sandbox, "at the end");
    taker.signal(Signal::TERM);
    taker.finish_with_stdin_open(LIMIT);
}

/// A library gateway that has no handler ends by the signal; the library's taker says whom it
/// replaced.
#[test]
fn a_linked_gateway_is_taken_over_by_another_one() {
    let sandbox = Sandbox::new();
    let mut old = sandbox.role(ROLE, "gateway");
    assert_eq!(ask(&mut old, "replace"), "granted None", "nobody was there to be replaced");
    assert_eq!(takeovers_begun(&sandbox), 0);
    let mut new = sandbox.role(ROLE, "gateway");
    let replaced = format!("granted Some(({}, false))", old.pid());
    assert_eq!(ask(&mut new, "replace"), replaced);
    assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 143);
    assert_taken_over(&sandbox, old.pid(), new.pid());
    assert_eq!(ask(&mut new, "verify"), "Held");
    assert_nothing_is_left(&sandbox, "at the end");
}

/// One that lets go without ending (it serves another office, or is slow to leave) is done with.
#[test]
fn a_linked_gateway_that_releases_is_done() {
    let sandbox = Sandbox::new();
    let mut old = deaf_gateway(&sandbox, &[]);
    assert_eq!(ask(&mut old, "claim 60000"), "granted None");
    let mut taker = taking_over(&sandbox, "b", &[]);
    wait_for_reservation(&sandbox);
    assert_eq!(ask(&mut old, "ask"), "TakenOver true");
    assert_eq!(ask(&mut old, "release"), "Free");
    taker.line();
    assert_holder(&sandbox, taker.pid());
    assert_taken_over(&sandbox, old.pid(), taker.pid());
    assert!(!old.has_ended(), "it was not killed");
    assert_nothing_is_left(&sandbox, "at the end");
}

/// A script that recorded itself is an owner like any other.
#[test]
fn a_script_that_recorded_itself_is_taken_over() {
    let sandbox = Sandbox::new();
    for options in ["", "--no-keeper"] {
        let script = format!("incumbent claim {options} > /dev/null || exit 9; {ENDS}");
        let mut old = Process::start(sandbox.shell(&script));
        old.line();
        let mut taker = taking_over(&sandbox, "b", &[]);
        taker.line();
        assert_eq!(old.line(), "TERM");
        assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 0);
        assert_holder(&sandbox, taker.pid());
        assert_taken_over(&sandbox, old.pid(), taker.pid());
        assert_nothing_is_left(&sandbox, "at the end");
        taker.signal(Signal::TERM);
        taker.finish_with_stdin_open(LIMIT);
    }
    eventually("the keeper goes with its process", LIMIT, || {
        sandbox.keepers().is_empty().then_some(())
    });
}

/// R:STOP. FIELD-BUGS row 20.
///
/// Symptom: a gateway stopped by Ctrl-Z kept its token, and `--replace` did not help; or its lock
/// was deleted under it, and both acted once it went on. It holds because a stopped owner gets its
/// TERM and is let go on to see it: what takes its office is its end, not its silence.
#[test]
fn a_stopped_owner_is_continued_asked_and_succeeded() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &[]);
    old.process.signal(Signal::STOP);
    wait_stopped(old.pid());
    let mut taker = taking_over(&sandbox, "b", &[]);
    // Signal and marker were both there when it woke.
    assert_eq!(old.process.line(), "TERM");
    wait_until_requests_are_passed_on(&mut old);
    assert_holder(&sandbox, old.pid());
    let command = old.command;
    let answer = old.end().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    taker.line();
    assert!(command.is_gone(), "two gateways at once");
    assert_holder(&sandbox, taker.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// The same where the command is stopped too, as Ctrl-Z does with the whole job: its `run` passes
/// the CONT on as well.
#[test]
fn a_stopped_owner_lets_its_stopped_command_go_on_too() {
    let sandbox = Sandbox::new();
    let old = Run::start(run_of(&sandbox, "a", &[], ENDS));
    for pid in [old.command.pid, old.pid()] {
        kill(pid, Signal::STOP);
        wait_stopped(pid);
    }
    let began = Instant::now();
    let mut taker = taking_over(&sandbox, "b", &[]);
    taker.line();
    assert_within(SOON, began.elapsed(), "the takeover");
    assert!(old.command.is_gone(), "two gateways at once");
    let old_pid = old.pid();
    let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    assert_holder(&sandbox, taker.pid());
    assert_taken_over(&sandbox, old_pid, taker.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// R:ZOMBIE, R:KILL. FIELD-BUGS row 19: a takeover waited for a defunct pid that never went. The
/// dead are not asked, and nobody waits for them.
#[test]
fn the_dead_are_succeeded_at_once() {
    let sandbox = Sandbox::new();
    let old = draining(&sandbox, "a", &[]);
    kill(old.pid(), Signal::KILL);
    assert!(wait_ended(old.pid(), LIMIT));
    old.command.wait_gone(LIMIT);
    assert_eq!(Stat::of(old.pid()).unwrap().state, 'Z', "nobody collected it");
    let began = Instant::now();
    let mut taker = taking_over(&sandbox, "b", &[]);
    taker.line();
    assert_within(SOON, began.elapsed(), "the start");
    assert_eq!(sandbox.history()[1]["end_reason"], "anchor_released");
    // Killed and collected.
    taker.kill();
    let mut next = taking_over(&sandbox, "a", &[]);
    next.line();
    assert_holder(&sandbox, next.pid());
    assert_eq!(takeovers_begun(&sandbox), 0, "nobody was there to be asked");
    assert_nothing_is_left(&sandbox, "at the end");
    next.signal(Signal::TERM);
    next.finish_with_stdin_open(LIMIT);
    // A free office is simply claimed.
    taking_over(&sandbox, "b", &[]).line();
    assert_eq!(takeovers_begun(&sandbox), 0);
}

/// R:REUSE. FIELD-BUGS row 17.
///
/// Symptom: Firefox was ended every few minutes, because a stored pid was signalled without looking
/// whose it was by now. It holds because nobody is signalled but a pinned process with the recorded
/// start time: the taker has the office at once, and the pid's new user sees nothing.
#[test]
fn the_next_user_of_a_dead_owners_pid_sees_nothing() {
    const SCRIPT: &str = "
        mkfifo gate pids
        exec 8<> gate
        for made in run command 'claim --no-keeper' claim lock; do
            sh -c 'echo $$ > pids; exec sleep 1000' &
            owner=$!
            read -r same < pids
            locks=
            case $made in
            run|command)
                kill -KILL $owner; wait $owner
                incumbent run --no-backoff -- sh -c 'echo $$ > pids; exec sleep 1000' &
                owner=$!
                read -r command < pids
                kill -KILL $owner; wait $owner
                [ $made = command ] && owner=$command ;;
            claim*)
                incumbent $made --pid $owner > /dev/null
                kill -KILL $owner; wait $owner ;;
            lock)
                incumbent lock acquire --no-keeper bot-token secret --pid $owner > /dev/null
                locks='--lock bot-token=secret'
                kill -KILL $owner; wait $owner ;;
            esac
            # One tick of the clock that start times are counted in has to pass: 10 ms.
            sleep 0.05
            reuse $owner; echo \"$made: same pid $(($! - owner))\"
            incumbent run --replace --reap $locks --no-backoff -- true 2> told.txt; echo \"run $?\"
            kill -KILL $!; wait $!; grep -c signalled decoy.txt
        done
        exit 0";
    let sandbox = Sandbox::new();
    let began = Instant::now();
    let Some(answer) = sandbox.choosing_pids(SCRIPT) else { return };
    assert_within(5 * SOON, began.elapsed(), "somebody was waited for: the script");
    let mut lines = answer.out.lines();
    for made in ["run", "command", "claim --no-keeper", "claim", "lock"] {
        let expected = [format!("{made}: same pid 0"), "run 0".to_owned(), "0".to_owned()];
        let got: Vec<&str> = lines.by_ref().take(3).collect();
        assert_eq!(got, expected, "{answer:#?}");
    }
    assert_eq!(takeovers_begun(&sandbox), 0);
    assert_nothing_is_left(&sandbox, "at the end");
}
