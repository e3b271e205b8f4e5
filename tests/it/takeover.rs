//! Takeover: `run --replace` and the library's `ClaimOptions::replace`. The holder is asked, gets
//! the time that it said it may take, and nobody but the taker has its office after it.

use std::process::Command;
use std::time::{Duration, Instant};

use incumbent::{Claim, ClaimOptions, ErrorKind, Replace, Standing, Store};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::stop::terms;
use crate::support::{
    BINARY, HOLDING, Identity, LIMIT, Process, Run, SOON, Sandbox, Stat, another_user, ask,
    assert_within, eventually, kill, order, pid_namespace, plays, read_only_store, role_db, rounds,
    skipped, test_name, wait_ended, wait_stopped,
};

/// What a taker adds to the stop budget where it has to wait for all of it, and what a busy machine
/// adds to that.
const AFTER_BUDGET: Duration = Duration::from_secs(10);

/// A gateway that says each TERM and each USR1, and drains until its standard input is closed. Ends
/// with 7.
const DRAINS: &str = "
    trap 'echo TERM' TERM
    trap 'echo USR1' USR1
    exec 3<&0
    cat <&3 > /dev/null 2>&1 &
    drain=$!
    echo $$
    while kill -0 $drain 2> /dev/null; do wait $drain; done
    exit 7";

/// A gateway that ends when it is asked to, with 0, and takes what it had started along.
const ENDS: &str = "
    trap 'echo TERM; kill -KILL $work 2> /dev/null; exit 0' TERM
    sleep 1000 > /dev/null 2>&1 &
    work=$!
    echo $$
    while :; do wait $work; done";

const SCOPE: &str = "bot-token";

/// `run` of `party`.
fn run_of(sandbox: &Sandbox, party: &str, options: &[&str], script: &str) -> Command {
    let arguments = [&["run", "--no-backoff"], options, &["--", "/bin/sh", "-c", script]].concat();
    let mut command = sandbox.incumbent(arguments);
    command.env("INCUMBENT_PARTY", party);
    command
}

/// A gateway of `party` that drains.
#[track_caller]
fn draining(sandbox: &Sandbox, party: &str, options: &[&str]) -> Run {
    Run::start(run_of(sandbox, party, options, DRAINS))
}

/// Starts to take over; what it runs ends when asked to.
fn taking_over(sandbox: &Sandbox, party: &str, options: &[&str]) -> Process {
    Process::start(run_of(sandbox, party, &[&["--replace"], options].concat(), ENDS))
}

/// A takeover that is expected to be refused: exit code, and the holder that refuses.
fn try_to_take(sandbox: &Sandbox, party: &str, options: &[&str]) -> (i32, Value) {
    let options = [&["--json", "--replace"], options].concat();
    let answer = Process::start(run_of(sandbox, party, &options, "true")).finish(LIMIT);
    // Whoever was granted ran its command instead.
    let document = serde_json::from_str(&answer.out).unwrap_or_else(|_| json!(answer.err));
    (answer.code(), document)
}

#[track_caller]
fn assert_refused_because(answer: &(i32, Value), reason: &str) {
    let (code, document) = answer;
    let got = (*code, document["holder"]["reason"].as_str());
    assert_eq!(got, (75, Some(reason)), "{document:#}");
}

/// Waits until a takeover is written down.
#[track_caller]
fn wait_for_reservation(sandbox: &Sandbox) {
    eventually("the reservation", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM reservations") > 0).then_some(())
    });
}

pub fn takeovers_begun(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM events WHERE event = 'takeover_begun'")
}

/// The `run` of a gateway that drains has looked for requests since this was called, and has passed
/// on all that it found: what it is sent, it passes on in turn.
#[track_caller]
fn wait_until_requests_are_passed_on(old: &mut Run) {
    for _ in 0..3 {
        old.process.signal(Signal::USR1);
        assert_eq!(old.process.line(), "USR1");
    }
}

/// Nothing of a takeover, done or failed, lasts.
#[track_caller]
pub fn assert_nothing_is_left(sandbox: &Sandbox, context: &str) {
    for (what, query) in [
        ("reservations", "SELECT count(*) FROM reservations"),
        ("waiters", "SELECT count(*) FROM waiters"),
        ("open markers", "SELECT count(*) FROM open_markers"),
    ] {
        assert_eq!(sandbox.number(query), 0, "{context}: {what}");
    }
}

/// The end of the gateway that was replaced last.
#[track_caller]
fn assert_taken_over(sandbox: &Sandbox, old: u32, by: u32) -> Value {
    let history = sandbox.history();
    let end = history.iter().find(|end| end["pid"] == old && !end["end_reason"].is_null());
    let end = end.unwrap_or_else(|| panic!("no end of pid {old}: {history:#?}"));
    assert_eq!(end["end_reason"], "taken_over", "{end:#}");
    let ended_by = end["ended_by"].as_str().unwrap_or_default();
    assert!(ended_by.starts_with(&format!("pid {by} (")), "not by pid {by}: {end:#}");
    end.clone()
}

#[track_caller]
fn assert_holder(sandbox: &Sandbox, pid: u32) {
    let status = sandbox.status().1;
    assert_eq!((&status["pid"], &status["verdict"]), (&json!(pid), &json!("alive")), "{status:#}");
}

/// The command line `ps` shows of whoever has the lock now.
fn holder_of_lock(sandbox: &Sandbox, identity: &str) -> Option<u64> {
    let (_, locks) = sandbox.json(["locks"]);
    let hash = incumbent::IdentityHash::of(identity).unwrap();
    let wanted = json!(hash.as_str());
    locks.as_array().unwrap().iter().find(|lock| lock["identity_hash"] == wanted)?["pid"].as_u64()
}

const ROLE: &str = test_name!(role_of_a_gateway);

/// Plays a gateway: `claim MS`, `replace`, `ask` (why it is being stopped), `release`, `verify`,
/// and `contend`, which claims again and again until it is granted or the test is gone.
#[test]
fn role_of_a_gateway() {
    if !plays("gateway") {
        return;
    }
    let profile = Store::open(role_db()).unwrap().profile("default").unwrap();
    let mut tenure = None;
    while let Some(order) = order() {
        let words: Vec<&str> = order.split(' ').collect();
        let options = match words[..] {
            ["claim", ms] => {
                let budget = Duration::from_millis(ms.parse().unwrap());
                Some(ClaimOptions::new().stop_budget(budget))
            }
            ["replace"] => Some(ClaimOptions::new().replace(Replace::new())),
            _ => None,
        };
        let answer = match (options, words[0]) {
            (Some(options), _) => match profile.claim_with(&options).unwrap() {
                Claim::Granted(granted) => {
                    let replaced = granted.replaced().map(|it| (it.pid.unwrap(), it.killed));
                    tenure = Some(granted);
                    format!("granted {replaced:?}")
                }
                Claim::Held(holder) => format!("held {}", holder.reason),
            },
            (None, "ask") => {
                let answer = tenure.as_ref().unwrap().stop_inquiry().ask();
                let debug = format!("{:?}", answer.cause);
                let cause = debug.split(['(', ' ']).next().unwrap_or_default();
                format!("{cause} {}", answer.recorded)
            }
            (None, "release") => format!("{:?}", tenure.take().unwrap().release().unwrap()),
            (None, "verify") => match tenure.as_ref().unwrap().verify().unwrap() {
                Standing::Held => "Held".to_owned(),
                Standing::Lost(lost) => format!("Lost {lost:?}"),
            },
            (None, "contend") => {
                eprintln!("=> contending");
                std::thread::spawn(move || {
                    while crate::support::order().is_some() {}
                    std::process::exit(0);
                });
                loop {
                    match profile.claim() {
                        Ok(Claim::Granted(_)) => {
                            eprintln!("=> STOLEN");
                            std::process::exit(1);
                        }
                        Ok(Claim::Held(_)) => {}
                        Err(error) if error.kind() == ErrorKind::Busy => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            (None, _) => panic!("{order}"),
        };
        eprintln!("=> {answer}");
    }
}

/// The role, deaf to TERM.
fn deaf_gateway(sandbox: &Sandbox, words: &[&str]) -> Process {
    let inner = sandbox.role_command(ROLE, "gateway");
    let mut command = sandbox.program(words.first().unwrap_or(&"/bin/sh"));
    if let [_, rest @ ..] = words {
        command.args(rest).arg("/bin/sh");
    }
    command.args(["-c", "trap '' TERM; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).env("IT_ROLE", "gateway");
    Process::start(command)
}

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
        decoy='trap \"echo signalled\" TERM HUP INT CONT; echo $$; while read -r x; do :; done'
        reuse() { # starts the decoy under pid $1
            echo $(($1 - 1)) > /proc/sys/kernel/ns_last_pid
            sh -c \"$decoy\" < gate > decoy.txt &
        }
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

/// FIELD-BUGS row 48.
///
/// Symptom: the taker killed, after a few seconds of its own choosing, a gateway whose drain may
/// take a minute. It holds because the owner's own published budget is what the taker waits for.
#[test]
fn a_drain_within_the_budget_is_never_cut_short() {
    let (budget, drain) = if rounds(1, 2) > 1 { ("10s", "8") } else { ("4s", "3") };
    let sandbox = Sandbox::new();
    let script = format!(
        "trap 'asked=yes; echo TERM' TERM
         sleep 1000 > /dev/null 2>&1 & work=$!
         echo $$
         while [ -z \"$asked\" ]; do wait $work; done
         sleep {drain} > /dev/null 2>&1 & drain=$!
         while kill -0 $drain 2> /dev/null; do wait $drain; done
         kill -KILL $work; echo drained; exit 7"
    );
    let old = Run::start(run_of(&sandbox, "a", &["--stop-budget", budget], &script));
    let old_pid = old.pid();
    let began = Instant::now();
    let mut taker = taking_over(&sandbox, "b", &[]);
    taker.line();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(drain.parse().unwrap()), "{took:?}");
    let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    // Ten looks a second for its marker, one signal: asked once.
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    assert!(answer.out.ends_with("drained\n"), "{answer:#?}");
    let end = assert_taken_over(&sandbox, old_pid, taker.pid());
    assert_eq!(end["exit_code"], 7, "{end:#}");
    assert_nothing_is_left(&sandbox, "at the end");
}

/// Whoever does not end in its time is gone after it: the command first, so that it never runs
/// without its `run`, and the history says what it was.
#[test]
fn a_deaf_owner_is_gone_after_its_budget() {
    const BUDGET: Duration = Duration::from_secs(2);
    let sandbox = Sandbox::new();
    let old = draining(&sandbox, "a", &["--stop-budget", "2s"]);
    let old_pid = old.pid();
    let began = Instant::now();
    let mut taker = taking_over(&sandbox, "b", &[]);
    old.command.wait_gone(BUDGET + AFTER_BUDGET);
    let took = began.elapsed();
    assert!(took >= BUDGET, "killed after {took:?} of {BUDGET:?}");
    taker.line();
    let took = began.elapsed();
    assert_within(BUDGET + AFTER_BUDGET + SOON, took, "it");
    assert_taken_over(&sandbox, old_pid, taker.pid());
    // Its `run` was not killed, or not before the command: it told its supervisor.
    let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    // Taker and `run` count the same time, and either may have been first to act on it.
    taker.signal(Signal::TERM);
    let told = taker.finish_with_stdin_open(LIMIT).err;
    assert!(
        told.contains(&format!("took over from pid {old_pid}, which had to be killed"))
            || answer.err.contains("the stop budget is spent, killing the command"),
        "{told}, {answer:#?}"
    );
    assert_nothing_is_left(&sandbox, "at the end");
}

/// FIELD-BUGS row 20. The `run` itself hangs while its command drains (somebody stopped it again):
/// then it is killed too, after its command, and nothing of it acts once the taker does.
#[test]
fn an_owner_that_hangs_is_killed_with_its_command() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &["--stop-budget", "1s"]);
    let old_pid = old.pid();
    let began = Instant::now();
    let mut taker = taking_over(&sandbox, "b", &[]);
    assert_eq!(old.process.line(), "TERM");
    // Again and again: the taker's own CONT may be yet to come.
    eventually("the end of the command", LIMIT, || {
        old.process.signal(Signal::STOP);
        old.command.is_gone().then_some(())
    });
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    taker.line();
    let took = began.elapsed();
    assert_within(Duration::from_secs(1) + AFTER_BUDGET + SOON, took, "it");
    assert_eq!(crate::support::exit_code(old.process.wait(LIMIT)), 137);
    taker.err_line_with(&format!("took over from pid {old_pid}, which had to be killed"));
    assert_taken_over(&sandbox, old_pid, taker.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// A library gateway that ignores TERM is killed as well.
#[test]
fn a_deaf_library_gateway_is_killed_after_its_budget() {
    let sandbox = Sandbox::new();
    let mut old = deaf_gateway(&sandbox, &[]);
    assert_eq!(ask(&mut old, "claim 1000"), "granted None");
    let mut new = sandbox.role(ROLE, "gateway");
    let began = Instant::now();
    assert_eq!(ask(&mut new, "replace"), format!("granted Some(({}, true))", old.pid()));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert_within(Duration::from_secs(1) + AFTER_BUDGET + SOON, took, "it");
    assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 137);
    assert_taken_over(&sandbox, old.pid(), new.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// R:ROW. What a row claims is believed up to an hour; what is no time at all is the default. The
/// request lives for that time and 75 s.
#[test]
fn an_absurd_budget_is_not_believed() {
    const HOUR_MS: i64 = 3_600_000;
    for (forged, expected_ms) in [
        ("9223372036854775807", HOUR_MS),
        ("3600001", HOUR_MS),
        ("7000", 7_000),
        ("-1", 90_000),
        ("NULL", 90_000),
    ] {
        let sandbox = Sandbox::new();
        let mut old = draining(&sandbox, "a", &[]);
        let forge = format!("UPDATE instances SET stop_budget_ms = {forged}");
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sandbox.forge(&forge))).is_err()
        {
            // The schema itself refuses it.
            assert_ne!(forged, "7000");
            continue;
        }
        let taker = taking_over(&sandbox, "b", &[]);
        assert_eq!(old.process.line(), "TERM");
        let query = "SELECT expires_at_ms - written_at_ms FROM markers WHERE closed_at_ms IS NULL";
        assert_eq!(sandbox.number(query), expected_ms + 75_000, "{forged}");
        old.end().assert_code(0);
        drop(taker);
    }
}

/// FIELD-BUGS row 45.
///
/// Symptom: two supervisors replaced each other's gateway every few minutes, for ever. It holds
/// because whoever was replaced by another party yields to that one for as long as it lives; a
/// person decides with `--force`.
#[test]
fn the_superseded_yield_to_whoever_replaced_them() {
    let sandbox = Sandbox::new();
    let mut a = draining(&sandbox, "a", &[]);
    let mut b = taking_over(&sandbox, "b", &[]);
    assert_eq!(a.process.line(), "TERM");
    a.end().assert_code(0);
    b.line();
    for party in ["a", "a"] {
        assert_refused_because(&try_to_take(&sandbox, party, &[]), "superseded");
        assert_holder(&sandbox, b.pid());
    }
    let told = Process::start(run_of(&sandbox, "a", &["--replace"], "true")).finish(LIMIT);
    told.assert_code(75).assert_complains(&[
        &format!("is held by pid {}", b.pid()),
        "it took over from whoever asks",
        "--force",
    ]);
    assert_eq!(takeovers_begun(&sandbox), 1, "the owner was asked to end");

    // A third party is nobody's loser. Then both are superseded by it.
    let mut c = taking_over(&sandbox, "c", &[]);
    c.line();
    assert_eq!(b.line(), "TERM");
    assert_eq!(crate::support::exit_code(b.wait(LIMIT)), 0);
    for party in ["a", "b"] {
        assert_refused_because(&try_to_take(&sandbox, party, &[]), "superseded");
    }
    assert_holder(&sandbox, c.pid());

    // A person decides otherwise; then it is the others who yield.
    let mut forced = taking_over(&sandbox, "a", &["--force"]);
    forced.line();
    for party in ["b", "c"] {
        assert_refused_because(&try_to_take(&sandbox, party, &[]), "superseded");
    }
    // The successor is dead: nobody yields to it.
    forced.kill();
    let mut again = taking_over(&sandbox, "b", &[]);
    again.line();
    assert_holder(&sandbox, again.pid());
    // And a is not superseded by whoever did not replace it.
    let mut last = taking_over(&sandbox, "a", &[]);
    last.line();
    assert_holder(&sandbox, last.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// FIELD-BUGS row 45 once more, for a lock: two services of one profile that want one token, each
/// with `--replace`, would take it from each other for ever.
#[test]
fn the_superseded_do_not_take_a_lock_back_either() {
    let sandbox = Sandbox::new();
    let lock = format!("{SCOPE}=secret");
    let options = ["--kind", "relay", "--lock", lock.as_str()];
    let mut relay = taking_over(&sandbox, "r", &options);
    relay.line();
    let mut gateway = taking_over(&sandbox, "g", &["--lock", &lock]);
    gateway.line();
    assert_eq!(crate::support::exit_code(relay.wait(LIMIT)), 0);
    assert_refused_because(&try_to_take(&sandbox, "r", &options), "superseded");
    assert_eq!(takeovers_begun(&sandbox), 1);
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(gateway.pid().into()));
    // A person decides.
    let mut forced = taking_over(&sandbox, "r", &[&options[..], &["--force"]].concat());
    forced.line();
    assert_eq!(crate::support::exit_code(gateway.wait(LIMIT)), 0);
    assert_refused_because(&try_to_take(&sandbox, "g", &["--lock", &lock]), "superseded");
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(forced.pid().into()));
    assert_nothing_is_left(&sandbox, "at the end");
}

/// A deploy script that replaces its own gateway again and again is nobody's rival.
#[test]
fn a_party_replaces_its_own_gateway_as_often_as_it_likes() {
    let sandbox = Sandbox::new();
    let mut old = taking_over(&sandbox, "a", &[]);
    old.line();
    for _ in 0..6 {
        let mut new = taking_over(&sandbox, "a", &[]);
        new.line();
        assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 0);
        old = new;
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM superseded"), 0);
    assert_nothing_is_left(&sandbox, "at the end");
}

/// R:PIDNS. FIELD-BUGS rows 25 and 44: a container's first process has no party, and replaces, and
/// is replaced. A `run` in another pid namespace cannot be signalled, and obeys its marker.
#[test]
fn a_run_in_another_pid_namespace_obeys_its_marker() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let contained = || {
        let arguments = ["run", "--no-backoff", "--replace", "--", "/bin/sh", "-c", ENDS];
        Process::start(sandbox.incumbent_under(namespace, &arguments))
    };
    let mut old = contained();
    old.line();
    for round in 0..2 {
        let mut new = contained();
        assert_eq!(old.line(), "TERM", "round {round}");
        new.line();
        let answer = old.finish_with_stdin_open(LIMIT).assert_code(0);
        assert_eq!(terms(&answer), 1, "{answer:#?}");
        old = new;
    }
    // From outside, too.
    let mut taker = taking_over(&sandbox, "b", &[]);
    taker.line();
    old.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_holder(&sandbox, taker.pid());
    assert_eq!(takeovers_begun(&sandbox), 3);
    assert_nothing_is_left(&sandbox, "at the end");
}

/// FIELD-BUGS rows 41 and 47: the locks come with the office, from whoever of the same profile has
/// them; and nobody else's are touched.
#[test]
fn the_locks_of_the_profile_are_taken_along() {
    let lock = format!("{SCOPE}=secret");
    let options = ["--lock", lock.as_str()];

    // From the old gateway itself.
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &options);
    // Other locks of the profile, and of another one: row 41.
    let others: Vec<Process> = ["default", "other"]
        .into_iter()
        .map(|profile| {
            let script = format!(
                "incumbent lock acquire --profile {profile} {SCOPE} of-{profile} > /dev/null || exit
                 {ENDS}"
            );
            let mut other = Process::start(sandbox.shell(&script));
            other.line();
            other
        })
        .collect();
    let mut taker = taking_over(&sandbox, "b", &options);
    assert_eq!(old.process.line(), "TERM");
    old.end().assert_code(0);
    taker.line();
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(taker.pid().into()));
    for (other, identity) in others.iter().zip(["of-default", "of-other"]) {
        assert_eq!(holder_of_lock(&sandbox, identity), Some(other.pid().into()));
    }
    drop(others);

    // From a script of the same profile, while nobody holds the office.
    let sandbox = Sandbox::new();
    let script = format!("incumbent lock acquire {SCOPE} secret > /dev/null && {ENDS}");
    let mut old = Process::start(sandbox.shell(&script));
    old.line();
    let mut taker = taking_over(&sandbox, "b", &options);
    taker.line();
    assert_eq!(old.line(), "TERM");
    assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 0);
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(taker.pid().into()));
    assert_nothing_is_left(&sandbox, "at the end");

    // From a `run` of another kind, while a third process has the office: both are asked.
    let sandbox = Sandbox::new();
    let relay =
        Run::start(run_of(&sandbox, "r", &["--kind", "relay", options[0], options[1]], ENDS));
    let gateway = Run::start(run_of(&sandbox, "g", &[], ENDS));
    let mut taker = taking_over(&sandbox, "b", &options);
    taker.line();
    for old in [relay, gateway] {
        let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
        assert_eq!(terms(&answer), 1, "{answer:#?}");
    }
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(taker.pid().into()));
    assert_holder(&sandbox, taker.pid());
    let reasons = "SELECT count(*) FROM instances WHERE end_reason = 'taken_over'";
    assert_eq!(sandbox.number(reasons), 2);
    assert_nothing_is_left(&sandbox, "at the end");
}

/// FIELD-BUGS row 44.
///
/// Symptom: restarting one profile killed a sibling that shared its token. It holds because a lock
/// of another profile is refused by name before anybody is signalled.
#[test]
fn a_lock_of_another_profile_is_refused_and_nobody_is_signalled() {
    let sandbox = Sandbox::new();
    for home in ["one", "two"] {
        std::fs::create_dir(sandbox.file(home)).unwrap();
    }
    let lock = format!("{SCOPE}=secret");
    let first = draining(
        &sandbox,
        "a",
        &["--profile", "one", "--home", "one", "--replace", "--lock", &lock],
    );
    // The second has a gateway already, without the token: that one is not sacrificed either.
    let second = draining(&sandbox, "b", &["--profile", "two", "--home", "two"]);
    let options = ["--profile", "two", "--home", "two", "--lock", &lock];
    for force in [&[][..], &["--force", "--cross-home"][..]] {
        let (code, answer) = try_to_take(&sandbox, "b", &[&options, force].concat());
        assert_eq!(code, 75, "{answer:#}");
        assert_eq!(answer["holder"]["profile"], "one", "{answer:#}");
        assert_eq!(answer["holder"]["pid"], first.pid(), "{answer:#}");
    }
    assert_eq!(takeovers_begun(&sandbox), 0);
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(first.pid().into()));
    assert_nothing_is_left(&sandbox, "at the end");
    for run in [first, second] {
        let answer = run.end().assert_code(7);
        assert_eq!(terms(&answer), 0, "{answer:#?}");
    }
}

/// Others wait for the same token: between the old gateway's end and the taker's claim it is free,
/// and they are awake in an instant. It holds because the taker reserved it.
#[test]
fn a_waiter_does_not_snatch_a_lock_in_between() {
    let sandbox = Sandbox::new();
    let lock = format!("{SCOPE}=secret");
    let options = ["--lock", lock.as_str()];
    let mut old = taking_over(&sandbox, "p", &options);
    old.line();
    let script = format!(
        "incumbent lock acquire --profile w --wait {SCOPE} secret > /dev/null; echo \"lock $?\"
         {ENDS}"
    );
    let mut by_verb = Process::start(sandbox.shell(&script));
    let run = ["--profile", "x", "--wait", "--lock", &lock];
    let mut by_run = Process::start(run_of(&sandbox, "x", &run, ENDS));
    sandbox.wait_for_waiters(2);
    for round in 1..=rounds(8, 60) {
        let mut new = taking_over(&sandbox, "p", &options);
        let first = new.line();
        assert!(first.parse::<u32>().is_ok(), "round {round}: {first}");
        assert_eq!(holder_of_lock(&sandbox, "secret"), Some(new.pid().into()), "round {round}");
        assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 0);
        old = new;
    }
    assert!(!by_verb.has_ended() && !by_run.has_ended());
    // Their turn comes: when the token is let go.
    old.signal(Signal::TERM);
    eventually("a waiter gets the lock", LIMIT, || {
        let holder = holder_of_lock(&sandbox, "secret")?;
        (holder != u64::from(old.pid())).then_some(())
    });
}

/// FIELD-BUGS rows 43 and 44.
///
/// Symptom: two configurations that resolved to one profile ended each other's gateway, 97 times in
/// 15 minutes. It holds because a profile is bound to its home, and taken over from another one
/// only if somebody says so.
#[test]
fn a_gateway_of_another_home_is_not_replaced_unless_asked_for() {
    let sandbox = Sandbox::new();
    for home in ["one", "two"] {
        std::fs::create_dir(sandbox.file(home)).unwrap();
    }
    let mut first = draining(&sandbox, "a", &["--home", "one"]);
    let neighbour = draining(&sandbox, "n", &["--profile", "neighbour", "--home", "two"]);
    for options in [&["--home", "two"][..], &["--home", "two", "--force"][..]] {
        let (code, answer) = try_to_take(&sandbox, "b", options);
        assert_eq!(
            (code, &answer["error"]["kind"]),
            (78, &json!("profile_belongs_to")),
            "{answer:#}"
        );
    }
    assert_eq!(takeovers_begun(&sandbox), 0);
    assert_holder(&sandbox, first.pid());

    let mut second = taking_over(&sandbox, "b", &["--home", "two", "--cross-home"]);
    assert_eq!(first.process.line(), "TERM");
    assert_eq!(terms(&first.end().assert_code(0)), 1);
    second.line();
    assert_holder(&sandbox, second.pid());
    // It belongs to the second home now, and stays there.
    let (code, answer) = try_to_take(&sandbox, "a", &["--home", "one", "--force"]);
    assert_eq!(code, 78, "{answer:#}");
    second.signal(Signal::TERM);
    second.finish_with_stdin_open(LIMIT);
    sandbox.cli(["run", "--no-backoff", "--home", "one", "--", "true"]).assert_code(78);
    sandbox.cli(["run", "--no-backoff", "--home", "two", "--", "true"]).assert_code(0);
    assert_eq!(terms(&neighbour.end().assert_code(7)), 0, "the neighbour was signalled");
    assert_nothing_is_left(&sandbox, "at the end");
}

/// While the old one drains, nobody else gets in: not a plain start, not a second taker, which
/// meets the first and says so. The owner is asked by one of them.
#[test]
fn a_second_taker_meets_the_first() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &[]);
    let mut first = taking_over(&sandbox, "b", &[]);
    assert_eq!(old.process.line(), "TERM");
    let (code, answer) = sandbox.json(["run", "--no-backoff", "--", "true"]);
    assert_eq!(code, 75, "{answer:#}");
    let answer = try_to_take(&sandbox, "c", &[]);
    assert_refused_because(&answer, "reserved");
    assert_eq!(answer.1["holder"]["pid"], first.pid(), "{:#}", answer.1);
    assert!(answer.1["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{:#}", answer.1);
    let told = Process::start(run_of(&sandbox, "c", &["--replace"], "true")).finish(LIMIT);
    told.assert_code(75).assert_complains(&[
        &format!("is reserved for pid {} (", first.pid()),
        "a takeover or a stop is in progress",
    ]);
    // Nor does a person's `--force`: the first is under way.
    assert_refused_because(&try_to_take(&sandbox, "c", &["--force"]), "reserved");
    // One that waits, waits; and has it after the first one had it.
    let mut waiting = taking_over(&sandbox, "d", &["--wait"]);
    sandbox.wait_for_waiters(2);
    assert!(!first.has_ended() && !waiting.has_ended());
    let old_pid = old.pid();
    let answer = old.end().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    waiting.line();
    // The first may have been asked before its command could say a word.
    let first_pid = first.pid();
    assert_taken_over(&sandbox, old_pid, first_pid);
    first.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_taken_over(&sandbox, first_pid, waiting.pid());
    assert_holder(&sandbox, waiting.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// In the instant in which the old one ends its office is free, and contenders that ask again and
/// again would have it. It holds because it is reserved.
#[test]
fn contenders_never_get_the_office_between_two_gateways() {
    let sandbox = Sandbox::new();
    let mut old = taking_over(&sandbox, "p", &[]);
    old.line();
    let mut contenders: Vec<Process> = (0..2).map(|_| sandbox.role(ROLE, "gateway")).collect();
    for contender in &mut contenders {
        assert_eq!(ask(contender, "contend"), "contending");
    }
    for round in 1..=rounds(15, 200) {
        let mut new = taking_over(&sandbox, "p", &[]);
        new.line();
        assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 0, "round {round}");
        for contender in &mut contenders {
            assert!(!contender.has_ended(), "round {round}: a contender got the office, or failed");
        }
        old = new;
    }
    for contender in contenders {
        let answer = contender.finish(LIMIT).assert_code(0);
        assert!(!answer.err.contains("STOLEN"), "{answer:#?}");
    }
    assert_nothing_is_left(&sandbox, "at the end");
}

/// A person interrupts the taker, or its supervisor ends it: the office stays reserved for nobody.
#[test]
fn an_interrupted_taker_leaves_nothing() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let sandbox = Sandbox::new();
        let mut old = draining(&sandbox, "a", &[]);
        let taker = taking_over(&sandbox, "b", &[]);
        assert_eq!(old.process.line(), "TERM");
        let asked = Instant::now();
        taker.signal(signal);
        taker.finish_with_stdin_open(LIMIT).assert_code(code);
        assert_within(SOON, asked.elapsed(), &format!("the end by {signal:?}"));
        for table in ["reservations", "waiters"] {
            assert_eq!(sandbox.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
        }
        assert_holder(&sandbox, old.pid());
        let mut next = taking_over(&sandbox, "c", &[]);
        wait_for_reservation(&sandbox);
        let old_pid = old.pid();
        old.end().assert_code(0);
        next.line();
        assert_taken_over(&sandbox, old_pid, next.pid());
        assert_nothing_is_left(&sandbox, "at the end");
    }
}

/// R:STOP. A taker that is stopped in the middle keeps its reservation, for stopped is not dead,
/// but not beyond its deadline: the stop budget and 15 s. Those who wait know when that is over;
/// and the taker, when it goes on, finds that it came too late.
#[test]
fn a_stopped_taker_keeps_others_out_until_its_deadline() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &["--stop-budget", "1min"]);
    let taker = taking_over(&sandbox, "b", &[]);
    assert_eq!(old.process.line(), "TERM");
    taker.signal(Signal::STOP);
    wait_stopped(taker.pid());
    old.end().assert_code(0);
    let (code, answer) = sandbox.json(["run", "--no-backoff", "--", "true"]);
    assert_refused_because(&(code, answer), "reserved");
    let mut waiter = Process::start(run_of(&sandbox, "w", &["--wait"], ENDS));
    sandbox.wait_for_waiters(2);
    // A minute is not to be waited for here. The second that is left is.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let until_ms = (now.tv_sec + 1) * 1_000 + now.tv_nsec / 1_000_000;
    assert_eq!(sandbox.forge(&format!("UPDATE reservations SET until_boot_ms = {until_ms}")), 1);
    waiter.line();
    assert_holder(&sandbox, waiter.pid());
    taker.signal(Signal::CONT);
    let late = taker.finish_with_stdin_open(LIMIT).assert_code(75);
    assert_eq!(late.out, "", "it started its command");
    late.assert_complains(&[&format!("is held by pid {} (", waiter.pid())]);
    assert_holder(&sandbox, waiter.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// FIELD-BUGS rows 16, 17 and 25.
///
/// Whoever may not be signalled gets its marker and its time, and is never evicted: of another
/// user, in another container, or the very script that asks. All of them at once, because each
/// takes its budget and ten seconds.
#[test]
fn whoever_cannot_be_signalled_keeps_its_office() {
    std::thread::scope(|scope| {
        let cases: [fn(); 3] = [
            one_of_another_user_keeps_its_office,
            one_in_another_namespace_keeps_its_office,
            ones_own_parent_keeps_its_office,
        ];
        let running = cases.map(|case| scope.spawn(case));
        for case in running {
            if let Err(failed) = case.join() {
                std::panic::resume_unwind(failed);
            }
        }
    });
}

const ONE_SECOND: Duration = Duration::from_secs(1);

/// A refusal after the budget of `claim 1000` and the time for the markers of others.
#[track_caller]
fn assert_gave_up_in_time(began: Instant) {
    let took = began.elapsed();
    assert!(took >= ONE_SECOND, "gave up after {took:?} of {ONE_SECOND:?}");
    assert_within(ONE_SECOND + AFTER_BUDGET + SOON, took, "giving up");
}

fn one_of_another_user_keeps_its_office() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let as_nobody = |arguments: &[&str]| {
        let mut command = sandbox.within(nobody);
        command.arg(&binary).args(arguments);
        Process::start(command).finish(LIMIT)
    };
    as_nobody(&["run", "--no-backoff", "--", "true"]).assert_code(0);
    let mut roots = sandbox.role(ROLE, "gateway");
    assert_eq!(ask(&mut roots, "claim 1000"), "granted None");
    let began = Instant::now();
    let answer = as_nobody(&["--json", "run", "--no-backoff", "--replace", "--", "true"]);
    assert_gave_up_in_time(began);
    assert_refused_because(&(answer.code(), answer.json()), "cannot_signal");
    assert_eq!(ask(&mut roots, "verify"), "Held");
    assert_eq!(sandbox.number("SELECT count(*) FROM reservations"), 0);
    // It learns by whom, when it looks.
    assert_eq!(ask(&mut roots, "ask"), "TakenOver true");
    drop(roots);

    // Root's `run` looks, and obeys.
    let old = Run::start(run_of(&sandbox, "a", &[], ENDS));
    let answer = as_nobody(&["run", "--no-backoff", "--replace", "--", "echo", "taken"]);
    assert_eq!(answer.assert_code(0).out, "taken\n");
    let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    assert_nothing_is_left(&sandbox, "at the end");
}

fn one_in_another_namespace_keeps_its_office() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut inside = deaf_gateway(&sandbox, namespace);
    assert_eq!(ask(&mut inside, "claim 1000"), "granted None");
    let began = Instant::now();
    let answer = try_to_take(&sandbox, "b", &[]);
    assert_gave_up_in_time(began);
    assert_refused_because(&answer, "cannot_signal");
    assert_eq!(answer.1["holder"]["flags"], json!(["elsewhere"]), "{:#}", answer.1);
    assert_eq!(ask(&mut inside, "verify"), "Held");
    assert_eq!(sandbox.number("SELECT count(*) FROM reservations"), 0);
}

fn ones_own_parent_keeps_its_office() {
    let sandbox = Sandbox::new();
    let script = "incumbent claim > /dev/null; trap 'echo TERM' TERM; echo $$; read -r go
        incumbent --json run --replace --force --reap --no-backoff -- true > answer.json
        echo \"code $?\"; exec cat";
    let mut script = Process::start(sandbox.shell(script));
    script.line();
    sandbox.forge("UPDATE instances SET stop_budget_ms = 1000");
    script.say("go");
    // At once, or when its time is over: it cannot end while it waits for us.
    let began = Instant::now();
    assert_eq!(script.line(), "code 75");
    assert_within(ONE_SECOND + AFTER_BUDGET + SOON, began.elapsed(), "the refusal");
    let answer = std::fs::read_to_string(sandbox.file("answer.json")).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_refused_because(&(75, answer), "cannot_signal");
    assert_holder(&sandbox, script.pid());
    assert_eq!(sandbox.number("SELECT count(*) FROM reservations"), 0);
}

/// A taker inside of the command that it replaces (row 50): the `run` obeys, its command ends, and
/// the taker, which outlives its own parent, has the office.
#[test]
fn a_command_may_be_succeeded_by_its_own_child() {
    let sandbox = Sandbox::new();
    let script = format!(
        "trap 'echo TERM; exit 0' TERM; echo $$; read -r go
         incumbent run --replace --reap --no-backoff -- /bin/sh -c '{}' \
             < /dev/null > taken.txt 2>&1 &
         while :; do wait; done",
        "echo taken by $PPID; exec sleep 1000"
    );
    let mut old = Run::start(run_of(&sandbox, "a", &[], &script));
    old.process.say("go");
    let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    let taken = eventually("the successor", LIMIT, || {
        let text = std::fs::read_to_string(sandbox.file("taken.txt")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("taken by ")?.parse::<u32>().ok())
    });
    assert_holder(&sandbox, taken);
    assert_nothing_is_left(&sandbox, "at the end");
    kill(taken, Signal::TERM);
}

/// FIELD-BUGS rows 14, 18 and 71.
///
/// What the old gateway had started and what outlives it is named, and ended only when asked for:
/// known by having been its child, never by what it is called.
#[test]
fn what_a_gateway_leaves_behind_is_named_and_reaped_only_when_asked_for() {
    const LEAVES: &str = "
        setsid sleep 1000 > /dev/null 2>&1 < /dev/null & first=$!
        nohup sleep 1000 > /dev/null 2>&1 < /dev/null & second=$!
        (trap '' TERM; exec sleep 1000) > /dev/null 2>&1 < /dev/null & deaf=$!
        env -u INCUMBENT_TOKEN -u INCUMBENT_INSTANCE \\
            incumbent lock acquire --profile other bot-token secret --pid $STRANGER > /dev/null
        trap 'exit 0' TERM; echo $$; echo $first; echo $second; echo $deaf
        while :; do wait; done";
    let sandbox = Sandbox::new();
    let mut stranger = sandbox.program("sleep");
    stranger.arg("1000");
    let mut stranger = Process::start(stranger);
    let leaving = |options: &[&str], party: &str| {
        let mut command = run_of(&sandbox, party, options, LEAVES);
        command.env("STRANGER", stranger.pid().to_string());
        let mut run = Run::start(command);
        let children: Vec<Identity> =
            (0..3).map(|_| Identity::of(run.process.line().parse().unwrap()).unwrap()).collect();
        (run, children)
    };
    let (old, children) = leaving(&[], "a");
    let keepers = sandbox.keepers();
    assert_eq!(keepers.len(), 1, "the test is about a keeper that lives");
    let (new, others) = leaving(&["--replace"], "b");
    let told = {
        let mut new = new;
        let mut told = Vec::new();
        for _ in &children {
            told.push(new.process.err_line_with("still runs"));
        }
        for child in &children {
            assert!(!child.is_gone(), "nobody asked for it: {told:?}");
            let named = format!("pid {} (", child.pid);
            assert!(told.iter().any(|line| line.contains(&named)), "{named}: {told:?}");
        }
        assert!(told.iter().all(|line| line.contains("--reap")), "{told:?}");
        new
    };
    old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    let mut reaper = taking_over(&sandbox, "c", &["--reap"]);
    reaper.line();
    for other in &others {
        assert!(other.is_gone(), "{other:?}");
    }
    told.process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert!(!stranger.has_ended(), "a stranger was ended");
    for child in children {
        assert!(!child.is_gone(), "those of the one before are nobody's by now");
        kill(child.pid, Signal::KILL);
    }
    assert_eq!(sandbox.keepers(), keepers);
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(stranger.pid().into()));
}

/// The taker may be among what the old gateway had started, with those who wait for it.
#[test]
fn a_reaping_taker_does_not_saw_off_its_branch() {
    let sandbox = Sandbox::new();
    let script = "trap 'exit 0' TERM; echo $$; read -r go
        setsid sh -c '
            incumbent run --replace --reap --no-backoff -- true > /dev/null 2>&1 < /dev/null
            echo $? > code' > /dev/null 2>&1 < /dev/null &
        while :; do wait; done";
    let mut old = Run::start(run_of(&sandbox, "a", &[], script));
    old.process.say("go");
    old.process.finish_with_stdin_open(LIMIT).assert_code(0);
    let code = eventually("the shell that started the taker", LIMIT, || {
        let code = std::fs::read_to_string(sandbox.file("code")).ok()?;
        code.trim().parse::<i32>().ok()
    });
    assert_eq!(code, 0);
    assert_nothing_is_left(&sandbox, "at the end");
}

/// R:RO. FIELD-BUGS row 78: what cannot be written down is not done. Nobody is signalled.
#[test]
fn without_a_record_there_is_no_takeover() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let old = draining(&sandbox, "a", &[]);
    for force in [&[][..], &["--force", "--cross-home", "--reap"][..]] {
        let mut command = sandbox.within(words);
        command.args([BINARY, "run", "--replace"]);
        command.args(["--no-backoff"]).args(force).args(HOLDING);
        let answer = Process::start(command).finish(LIMIT);
        assert!([70, 78].contains(&answer.code()), "{answer:#?}");
        assert_eq!(answer.out, "", "it started its command");
    }
    assert_holder(&sandbox, old.pid());
    assert_eq!(takeovers_begun(&sandbox), 0);
    assert_nothing_is_left(&sandbox, "at the end");
    let answer = old.end().assert_code(7);
    assert_eq!(terms(&answer), 0, "{answer:#?}");
}

/// A taker that died leaves an office that somebody has to fill: its supervisor is not told that all
/// is well, and the history does not name a successor that there is none of.
#[test]
fn a_taker_that_died_took_nothing_over() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &["--supervisor", "systemd"]);
    let mut taker = taking_over(&sandbox, "b", &[]);
    assert_eq!(old.process.line(), "TERM");
    // The marker is obeyed as well; it is about who was signalled.
    old.process.err_line_with("signal=SIGTERM");
    taker.kill();
    wait_until_requests_are_passed_on(&mut old);
    assert!(!old.command.is_gone(), "it is not killed for a taker that is gone");
    let answer = old.end();
    // It ends with 7, and was signalled: systemd starts it again.
    assert_eq!(answer.code(), 7, "{answer:#?}");
    let end = sandbox.history().swap_remove(0);
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    let detail = end["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("takeover by pid") && detail.contains("given up"), "{end:#}");
}

/// One open intent per instance, whatever it is wanted for: who is being taken over for a lock of its
/// is neither restarted nor stopped meanwhile.
#[test]
fn whoever_is_taken_over_for_its_lock_has_one_request_only() {
    let sandbox = Sandbox::new();
    let lock = format!("{SCOPE}=token");
    let mut old = draining(&sandbox, "a", &["--kind", "worker", "--lock", &lock]);
    let mut taker = taking_over(&sandbox, "b", &["--lock", &lock]);
    assert_eq!(old.process.line(), "TERM");
    for verb in ["restart", "stop"] {
        let (code, document) = sandbox.json(["--kind", "worker", verb]);
        let holder = &document["holder"];
        assert_eq!((code, &holder["reason"]), (75, &json!("reserved")), "{verb}: {document:#}");
        assert_eq!(holder["pid"], taker.pid(), "{verb}: {document:#}");
    }
    let pid = old.pid().to_string();
    let write = ["marker", "write", "restart", "--pid", &pid];
    sandbox.cli(write).assert_code(75).assert_complains(&["takeover by pid", "in progress"]);
    wait_until_requests_are_passed_on(&mut old);
    let old_pid = old.pid();
    let answer = old.end().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    taker.line();
    assert_taken_over_as(&sandbox, "worker", old_pid);
    taker.signal(Signal::TERM);
    taker.finish_with_stdin_open(LIMIT);
}

#[track_caller]
fn assert_taken_over_as(sandbox: &Sandbox, kind: &str, pid: u32) {
    let (_, history) = sandbox.json(["history", "--kind", kind]);
    assert_eq!(
        (&history[0]["pid"], &history[0]["end_reason"]),
        (&json!(pid), &json!("taken_over"))
    );
}

/// FIELD-BUGS row 17. Symptom: the recorded pid of a gateway in another container was taken for the
/// process that has the number here, and what that one had started was ended with `--reap`.
#[test]
fn the_children_of_a_stranger_are_not_reaped() {
    let sandbox = Sandbox::new();
    let stays = "trap 'exit 0' TERM
        sleep 1000 > /dev/null 2>&1 & echo $! > child
        echo $$
        while :; do sleep 0.05; done";
    let old = Run::start(run_of(&sandbox, "a", &[], stays));
    // As if it were recorded elsewhere: its number means nothing here, and it obeys its marker.
    sandbox.forge("UPDATE instances SET pid_ns = '1' WHERE ended_at_ms IS NULL");
    let mut taker = taking_over(&sandbox, "b", &["--reap"]);
    taker.line();
    let child = std::fs::read_to_string(sandbox.file("child")).unwrap();
    let child: u32 = child.trim().parse().unwrap();
    assert!(!wait_ended(child, Duration::ZERO), "it was reaped");
    kill(child, Signal::KILL);
    taker.signal(Signal::TERM);
    taker.finish_with_stdin_open(LIMIT);
    old.process.finish_with_stdin_open(LIMIT);
}
