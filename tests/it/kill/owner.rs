//! `kill -9` of an owner, its command or its zombie.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    HOLDING, Identity, LIMIT, Process, Random, Run, Sandbox, Stat, another_user, assert_within,
    eventually, kill, rounds, skipped, tagged, wait_ended,
};

/// The next owner is in at once. A second and a half would do on an idle machine; this bound is
/// for a busy one, and far below every time-out in the program.
const AT_ONCE: Duration = Duration::from_secs(4);

/// R:KILL. FIELD-BUGS rows 1, 2, 27, 38, 39, 60 and 84.
///
/// Symptom: after a crash every start died of the stale record; or `status` "cleaned it up" and
/// took a live owner's lock with it. Cause: a record's existence meant "alive", and a question
/// wrote. It holds because a dead holder's row blocks nobody and so needs no cleaning: the question
/// changes not a byte, and the next claim ends the row in the transaction that replaces it.
#[test]
fn after_a_kill_a_thousand_questions_write_nothing_and_the_next_run_owns_at_once() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.hold(&[]);
    let (owner_pid, command) = (owner.pid(), owner.command);
    owner.kill();
    command.wait_gone(LIMIT);
    sandbox.assert_status(3, "dead", "anchor_released");
    let rows = ["sql", "SELECT * FROM instances"];
    let row = sandbox.json(rows);
    let before = sandbox.picture();
    assert!(before.keys().any(|path| path.ends_with("state.db")), "{before:#?}");

    let asking = "
        n=0
        while [ $n -lt 500 ]; do
            incumbent status > /dev/null; [ $? = 3 ] || echo \"no 3 in round $n\"
            incumbent status --json > /dev/null; [ $? = 3 ] || echo \"no 3 in round $n\"
            n=$((n + 1))
        done";
    let answer = Process::start(sandbox.shell(asking)).finish(4 * LIMIT).assert_code(0);
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("", ""));

    let after = sandbox.picture();
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (path, facts) in &before {
        assert!(*facts == after[path], "a question wrote to {}", path.display());
    }
    assert_eq!(sandbox.json(rows), row);

    let started = Instant::now();
    let next = sandbox.hold(&[]);
    assert_within(AT_ONCE, started.elapsed(), "the start");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], next.pid());
    let history = sandbox.history();
    assert_eq!(history[1]["pid"], owner_pid);
    assert_eq!(history[1]["end_reason"], "anchor_released");
    let told = next.end().assert_code(0);
    assert!(told.err.contains(&format!("took the place of pid {owner_pid}")), "{told:#?}");
}

/// A command that first says whether the one before it (pid, start time) is still there.
const LOOK_BACK: &str = r#"
    before=gone
    if [ -n "$1" ] && read -r stat < "/proc/$1/stat"; then
        pid=$1 start=$2
        # The fields after the name, which is in parentheses: state is the first.
        set -- ${stat##*) }
        case $1 in
            Z | X) ;;
            *) [ "${20}" = "$start" ] && before="alive: $pid $stat" ;;
        esac
    fi 2> /dev/null
    echo "$$ $before"
    exec cat"#;

/// Starts a run whose command looks back at `before`; `wrapper` starts that command.
fn start_looking_back(
    sandbox: &Sandbox,
    options: &[&str],
    wrapper: &[&str],
    before: Option<Identity>,
) -> Process {
    let (pid, start) =
        before.map_or_else(Default::default, |it| (it.pid.to_string(), it.start_time.to_string()));
    let command = ["/bin/sh", "-c", LOOK_BACK, "sh", &pid, &start];
    Process::start(
        sandbox.incumbent([&["run", "--no-backoff"], options, &["--"], wrapper, &command].concat()),
    )
}

/// Kills run after run. Every other successor waits for the office already, which is the worst
/// case: it is granted in the instant of the death.
fn no_two_commands_at_once(wrapper: &[&str], rounds: usize) {
    let sandbox = Sandbox::new();
    let mut run = start_looking_back(&sandbox, &[], wrapper, None);
    let mut line = run.line();
    for round in 1..=rounds {
        let (pid, before) = line.split_once(' ').unwrap();
        assert_eq!(before, "gone", "round {round}: two commands at once");
        let command = Identity::of(pid.parse().unwrap()).unwrap();
        let mut next;
        if round % 2 == 0 {
            next = start_looking_back(&sandbox, &["--wait"], wrapper, Some(command));
            sandbox.wait_for_waiters(1);
            kill(run.pid(), Signal::KILL);
        } else {
            kill(run.pid(), Signal::KILL);
            next = start_looking_back(&sandbox, &["--wait"], wrapper, Some(command));
        }
        line = next.line();
        run = next;
    }
    run.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS rows 20, 52 and 69.
///
/// Symptom: the killed supervisor's command ran on beside its successor's. It holds because the
/// command is killed with its `run` (PDEATHSIG), and a claimant that is faster finds it on record
/// and waits for its end.
#[test]
fn the_command_of_a_killed_run_is_gone_before_the_next_start_is_granted() {
    no_two_commands_at_once(&[], rounds(200, 2_000));
}

/// The same for a command that changed its user: the kernel then clears its PDEATHSIG, so that only
/// the record is left to find it by.
#[test]
fn a_command_that_changed_its_user_is_gone_before_the_next_start_is_granted() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    no_two_commands_at_once(nobody, rounds(200, 2_000));
}

/// Where the claimant may not end that command, it is refused like by any live owner: two commands
/// at once would be worse than none.
#[test]
fn a_command_that_we_may_not_end_keeps_the_office() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let daemon =
        ["setpriv", "--reuid", "1", "--clear-groups", "/bin/sh", "-c", "echo $$; exec cat"];
    let mut run = sandbox.hold_with(&daemon);
    let command = run.command;
    kill(run.pid(), Signal::KILL);
    assert!(wait_ended(run.pid(), LIMIT));
    let status = sandbox.assert_status(0, "alive", "child_lives");
    assert_eq!(status["child_pid"], command.pid);
    let mut as_nobody = sandbox.within(nobody);
    as_nobody.arg(&binary).args(["run", "--no-backoff", "--", "true"]);
    let refused = Process::start(as_nobody).finish(LIMIT).assert_code(75);
    refused.assert_complains(&["is held by", "the command it started"]);
    assert!(!command.is_gone());
    // Root could, but not because a store says so into which a user may write.
    let refused = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    let advice = format!("kill -KILL {}", command.pid);
    refused.assert_complains(&["is held by", "the command it started", &advice]);
    assert!(!command.is_gone());
    Process::start(sandbox.shell(&advice)).finish(LIMIT).assert_code(0);
    command.wait_gone(LIMIT);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    run.kill();
}

/// FIELD-BUGS rows 16 and 18: what is left of the killed run may be the very script that starts the
/// next one. A claimant never signals itself or its own ancestors: it is refused, or takes over,
/// but does not saw off its branch.
#[test]
fn a_claim_from_inside_a_surviving_command_does_not_kill_that_command() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let inner = format!("'{}' run --no-backoff -- true", binary.display());
    for (script, end) in [
        (format!("echo $$; read -r go; {inner}; echo \"code $?\""), "its parent"),
        (format!("echo $$; read -r go; exec {inner}"), "itself"),
    ] {
        let command = [nobody, &["/bin/sh", "-c", &script]].concat();
        let run = sandbox.hold_with(&command);
        let survivor = run.command;
        let (pid, mut process) = (run.pid(), run.process);
        kill(pid, Signal::KILL);
        assert!(wait_ended(pid, LIMIT));
        assert!(!survivor.is_gone(), "the test is about a command that survives");
        process.say("go");
        if end == "its parent" {
            let code = process.line();
            assert!(matches!(code.as_str(), "code 0" | "code 75"), "{code}");
        } else {
            // Its parent is gone, so its exit code is lost; what it says is not.
            process.err_line_with("incumbent: run: ");
        }
        survivor.wait_gone(LIMIT);
        drop(process);
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }
}

/// A run killed at any instant of its start leaves no command: it may not run before its pid is on
/// record, and dies with its parent from its first instruction on.
#[test]
fn a_run_killed_while_it_starts_leaves_no_command_behind() {
    let sandbox = Sandbox::new();
    let mut random = Random::seeded();
    for round in 1..=rounds(150, 3_000) {
        // Any spread over the first 25 ms will do, in which a start takes place.
        let instant = Instant::now() + Duration::from_micros(random.below(25_000));
        let mut killed =
            Process::start(sandbox.incumbent([&["run", "--no-backoff"], HOLDING].concat()));
        // Not a synchronisation: the blind shot is the test.
        std::thread::sleep(instant.saturating_duration_since(Instant::now()));
        killed.kill();
        let next = sandbox.hold(&[]);
        for pid in tagged("IT_SANDBOX", sandbox.path()) {
            let Ok(arguments) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let words: Vec<_> = arguments.split(|byte| *byte == 0).collect();
            // A trampoline without its parent goes on to its own end, never to a command.
            // On a terminal each run has a witness of its group, which ends with it.
            let helpers = [&b"__trampoline"[..], b"__group-witness"];
            let is_ours = words.iter().any(|word| helpers.contains(word))
                || [next.pid(), next.command.pid].contains(&pid);
            // What is just being forked still has the name of the run, and becomes a trampoline.
            let is_forked = words.get(1) == Some(&b"run".as_slice());
            let is_dead = Stat::of(pid).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'));
            assert!(
                is_ours || is_dead || (is_forked && wait_ended(pid, LIMIT)),
                "round {round}: pid {pid} runs on: {}",
                String::from_utf8_lossy(&arguments)
            );
        }
        next.end().assert_code(0);
    }
}

/// Symptom: a start was killed while it made the store, and every start after it failed: "attempt
/// to write a readonly database". Cause: SQLite had a change to take back, and the first look at
/// the file was one that may not write.
#[test]
fn what_a_killed_first_start_left_of_the_store_is_taken_back() {
    let sandbox = Sandbox::new();
    let made = sandbox.file("made.db");
    let connection = rusqlite::Connection::open(&made).unwrap();
    connection
        .execute_batch(
            "PRAGMA cache_size = 1; BEGIN IMMEDIATE; CREATE TABLE t (x);
             INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500)
                 SELECT randomblob(500) FROM n",
        )
        .unwrap();
    std::fs::create_dir_all(sandbox.file("store")).unwrap();
    std::fs::copy(&made, sandbox.db()).unwrap();
    let journal = sandbox.file("store/state.db-journal");
    std::fs::copy(sandbox.file("made.db-journal"), &journal).unwrap();
    drop(connection);
    sandbox
        .cli(["status"])
        .assert_code(78)
        .assert_complains(&["left in the middle of a change", "the next start undoes"]);
    assert!(journal.exists(), "questions change nothing");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    assert_eq!(sandbox.status().0, 3);
}

/// R:FD. FIELD-BUGS rows 3, 69 and 71.
///
/// Symptom: daemon dead, lock still held by something it had started. Cause: the descriptor was
/// inherited. It holds because anchors are close-on-exec, and a command's descendants hold nothing.
/// One that left the command's session is left alone; what stayed in it is ended (row 107,
/// `verdict`).
#[test]
fn a_descendant_that_outlives_a_killed_run_keeps_nothing() {
    let sandbox = Sandbox::new();
    let script =
        "trap '' TERM HUP; setsid sleep 1000 > /dev/null 2>&1 & echo $! >&2; echo $$; exec cat";
    let mut owner = sandbox.hold_with(&["/bin/sh", "-c", script]);
    let descendant = Identity::of(owner.process.err_line().parse().unwrap()).unwrap();
    let session = || Stat::of(descendant.pid).map(|stat| stat.session);
    eventually("it has left the session", LIMIT, || {
        (session() == Some(descendant.pid)).then_some(())
    });
    owner.kill();
    let next = sandbox.hold(&[]);
    assert!(!descendant.is_gone(), "the test is about a descendant that lives");
    next.end().assert_code(0);
    kill(descendant.pid, Signal::KILL);
}

/// The same when the run ends in the regular way, and leaves it alone.
#[test]
fn a_descendant_that_outlives_its_run_keeps_nothing() {
    let sandbox = Sandbox::new();
    let script = "sleep 1000 > /dev/null 2>&1 & echo $!";
    let answer = sandbox.cli(["run", "--leave", "--", "/bin/sh", "-c", script]).assert_code(0);
    let descendant = Identity::of(answer.out.trim().parse().unwrap()).unwrap();
    sandbox.assert_status(3, "dead", "exited");
    sandbox.hold(&[]).end().assert_code(0);
    assert!(!descendant.is_gone(), "the test is about a descendant that lives");
    kill(descendant.pid, Signal::KILL);
}

/// R:ZOMBIE. FIELD-BUGS row 19.
///
/// Symptom: a takeover waited on a defunct pid that never went. It holds because a zombie holds no
/// lock, and with no lock to look at its pidfd says that all threads have ended.
#[test]
fn a_zombie_holds_nothing() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    kill(owner.pid(), Signal::KILL);
    assert!(wait_ended(owner.pid(), LIMIT));
    owner.command.wait_gone(LIMIT);
    assert_eq!(Stat::of(owner.pid()).unwrap().state, 'Z', "nobody collected it");
    let status = sandbox.assert_status(3, "dead", "anchor_released");
    assert_eq!(status["evidence"]["process"], "gone", "{status:#}");
    assert_eq!(status["evidence"]["process_state"], "zombie", "{status:#}");
    // The same without an anchor to look at.
    sandbox.forge("UPDATE instances SET anchor = NULL, child_pid = NULL");
    sandbox.assert_status(3, "dead", "zombie");
    sandbox.hold(&[]).end().assert_code(0);
    assert_eq!(Stat::of(owner.pid()).unwrap().state, 'Z', "nobody collected it");
    assert_eq!(sandbox.history()[1]["end_reason"], "zombie");
}

/// FIELD-BUGS row 40: a loser that exits, however it does, leaves the winner's record alone.
#[test]
fn a_refused_start_changes_nothing_for_the_owner() {
    let sandbox = Sandbox::new();
    let owner: Run = sandbox.hold(&[]);
    let before = sandbox.status().1;
    for _ in 0..3 {
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    }
    let mut after = sandbox.status().1;
    after["conflicts"] = before["conflicts"].clone();
    assert_eq!(before, after);
    owner.end().assert_code(0);
}
