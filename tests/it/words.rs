//! What is said is true, and says what, where and what to do.

use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{LIMIT, Process, Sandbox, eventually};

/// Somebody to record, who does nothing.
fn sleeper(sandbox: &Sandbox) -> Process {
    let mut sleep: Command = sandbox.program("sleep");
    sleep.arg("1000");
    Process::start(sleep)
}

/// A process with this many locks of scope `s`, killed and on record as if it lived.
fn leave_locks(sandbox: &Sandbox, count: usize) {
    let mut owner = sleeper(sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["lock", "acquire", "first", "id", "--pid", &pid]).assert_code(0);
    sandbox.forge(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms)
         SELECT 's', printf('%016x', i), (SELECT max(id) FROM instances), i, 1 FROM n"
    ));
    owner.kill();
    let keepers = || sandbox.keepers().is_empty().then_some(());
    eventually("the keepers have ended", LIMIT, keepers);
}

fn locks_left(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM scoped_locks")
}

/// Issue 16: `unlock --stale` with 100,000 locks kept every start waiting for 7.5 s, because all of them
/// ended in one transaction. It holds because there are many: others can write in between, and what was done
/// stays done when it is killed.
#[test]
fn others_can_write_while_many_locks_are_removed() {
    const LOCKS: usize = 20_000;
    /// As many as one transaction may end.
    const BATCH: usize = 500;
    let sandbox = Sandbox::new();
    leave_locks(&sandbox, LOCKS);
    // An empty log, and a reader that stays: what is written to it is not taken out again.
    let reader = rusqlite::Connection::open(sandbox.db()).unwrap();
    let begin = "PRAGMA wal_checkpoint(TRUNCATE); BEGIN; SELECT * FROM meta";
    reader.execute_batch(begin).unwrap();
    let answer = sandbox.cli(["unlock", "--stale"]).assert_code(0);
    let commits = commits(&sandbox);
    assert!(commits >= LOCKS / BATCH, "{LOCKS} locks in {commits} transactions");
    assert_eq!(answer.out.lines().count(), LOCKS + 1);
    assert_eq!(locks_left(&sandbox), 0);
}

/// How many transactions the log holds: the frame at the end of each has the size of the database after it.
fn commits(sandbox: &Sandbox) -> usize {
    const HEADER: usize = 32;
    const FRAME: usize = 24 + 4096;
    let log = std::fs::read(sandbox.file("store/state.db-wal")).unwrap();
    let salts = &log[16..24];
    let frames = log[HEADER..].chunks_exact(FRAME).take_while(|frame| &frame[8..16] == salts);
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

/// The same kind: a process that takes one lock of a dead process with many does not wait for the end of all
/// of them. The others are free at once, whether or not they are deleted yet.
#[test]
fn one_lock_of_a_dead_owner_with_many_is_granted_without_waiting_for_all() {
    const LOCKS: usize = 20_000;
    let sandbox = Sandbox::new();
    leave_locks(&sandbox, LOCKS);
    let mut mine = sleeper(&sandbox);
    let pid = mine.pid().to_string();
    let acquire = |scope: &str, id: &str| {
        let (code, answer) = sandbox.json(["lock", "acquire", scope, id, "--pid", &pid]);
        assert_eq!((code, &answer["granted"]), (0, &true.into()), "{answer:#}");
        answer["fence"].as_i64().unwrap()
    };
    let fence = acquire("first", "id");
    assert!(locks_left(&sandbox) > 1_000, "it did not wait for all of them");
    let (_, locks) = sandbox.json(["locks"]);
    assert_eq!(locks.as_array().unwrap().len(), 1, "the others are nobody's");
    assert!(acquire("other", "id") > fence);
    sandbox.cli(["unlock", "--stale"]).assert_code(0);
    assert_eq!(locks_left(&sandbox), 2);
    mine.signal(Signal::KILL);
    mine.wait(LIMIT);
}

/// A second intent takes the place of the first one, which its writer believes to be open: it is said
/// which, by whom and why, in text and in JSON.
#[test]
fn a_marker_that_replaces_an_open_intent_says_so() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let pid = run.pid().to_string();
    let write = |name: &str, more: &[&str]| {
        let words = [&["marker", "write", name, "--pid", &pid], more].concat();
        sandbox.json(words)
    };
    let (code, first) = write("planned_stop", &["--reason", "an upgrade"]);
    assert_eq!((code, &first["replaced"]), (0, &json!([])), "{first:#}");
    // Of another name, but a request as well.
    let (_, second) = write("restart", &[]);
    let replaced = &second["replaced"][0];
    assert_eq!(replaced["id"], first["id"], "{second:#}");
    assert_eq!(
        (&replaced["name"], &replaced["reason"]),
        (&json!("planned_stop"), &json!("an upgrade"))
    );
    assert!(replaced["by"].as_str().unwrap().starts_with("incumbent marker write"), "{second:#}");
    // A note is no intent.
    assert_eq!(write("note", &[]).1["replaced"], json!([]));
    sandbox.cli(["marker", "write", "note", "--pid", &pid]).assert_code(0);
    let told = sandbox.cli(["marker", "write", "note", "--pid", &pid]).assert_code(0);
    assert!(told.out.contains("took the place of note by incumbent marker write"), "{told:#?}");
    drop(run);
}

/// A process that has just ended does not run (3), which is not a mistake of the caller (2): scripts race
/// with it. A number that names no process is one.
#[test]
fn a_process_that_has_just_ended_does_not_run() {
    let sandbox = Sandbox::new();
    let mut gone = sleeper(&sandbox);
    let pid = gone.pid().to_string();
    gone.kill();
    for verb in ["marker write note", "claim", "lock acquire scope id"] {
        let words = || verb.split(' ').chain(["--pid"]);
        let (code, answer) = sandbox.json(words().chain([pid.as_str()]));
        assert_eq!(
            (code, &answer["error"]["kind"]),
            (3, &json!("not_running")),
            "{verb}: {answer:#}"
        );
        sandbox
            .cli(words().chain([pid.as_str()]))
            .assert_code(3)
            .assert_complains(&[&format!("no process has pid {pid}"), "try:"]);
        for wrong in ["0", "-1", "4711x"] {
            sandbox.cli(words().chain([wrong])).assert_code(2);
        }
    }
    // A caller who asks about it is told what was asked: nobody, nothing, not the holder.
    sandbox.cli(["claim", "--pid", &std::process::id().to_string()]).assert_code(0);
    for (verb, code) in [("release", 1), ("marker peek", 1), ("status-set --state x", 1)] {
        sandbox.cli(verb.split(' ').chain(["--pid", &pid])).assert_code(code);
    }
}

/// What looks like a secret, and what does not, but is locked here.
const KEY: &str = "ghp_0123456789abcdefghij";
const IDENTITY: &str = "correct-horse";

/// Everything that the store has kept, also what is free again.
fn store_contains(sandbox: &Sandbox, text: &str) -> bool {
    sandbox
        .picture()
        .values()
        .any(|(contents, ..)| contents.windows(text.len()).any(|part| part == text.as_bytes()))
}

/// FIELD-BUGS row 87, and invariant 8: whatever people write as a reason goes into a file that is kept for
/// months. It held for command lines and error messages only.
#[test]
fn reasons_are_kept_without_what_is_secret() {
    let sandbox = Sandbox::new();
    let mut holder = sleeper(&sandbox);
    let pid = holder.pid().to_string();
    let mut acquire = sandbox.incumbent(["lock", "acquire", "token", "-", "--pid", &pid]);
    acquire.args(["--metadata", &format!(r#"{{"bot": "the bot {IDENTITY}"}}"#)]);
    let mut acquire = Process::start(acquire);
    acquire.say(IDENTITY);
    acquire.finish(LIMIT).assert_code(0);
    let run = sandbox.hold(&["--profile", "a"]);
    let reason = format!("the token {IDENTITY}, and key={KEY}");
    let run_pid = run.pid().to_string();
    sandbox.cli(["marker", "write", "note", "--pid", &run_pid, "--reason", &reason]).assert_code(0);
    let peeked = sandbox.cli(["marker", "peek", "note", "--pid", &run_pid]).assert_code(0);
    assert!(peeked.out.contains("the token <redacted>, and key=<redacted>"), "{peeked:#?}");
    sandbox.cli(["stop", "--profile", "a", "--reason", &reason]).assert_code(0);
    drop(run);
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    let address = format!("https://api.invalid/bot{IDENTITY}/getMe");
    let extra = format!(r#"{{"said": "{IDENTITY} was refused", "by": "{address}"}}"#);
    // Words and paths are kept as well.
    let state = format!("refused {IDENTITY}");
    let program = format!("/nonexistent/{IDENTITY}/gateway");
    let lock = format!("other={IDENTITY}");
    let run = ["--profile", "b", "run", "--no-backoff", "--lock", &lock, "--", &program];
    sandbox.cli(run).assert_code(127);
    let says = [
        "status-set",
        "--pid",
        &pid,
        "--state",
        &state,
        "--exit-reason",
        &reason,
        "--extra",
        &extra,
        "--platform",
        "p",
        "--platform-state",
        &state,
        "--error-code",
        &state,
        "--error-message",
        &reason,
        "--platform-extra",
        &extra,
    ];
    sandbox.cli(says).assert_code(0);
    let store = incumbent::Store::open(sandbox.db()).unwrap();
    let by = format!("somebody with {IDENTITY}");
    let profile = store.profile("a").unwrap();
    profile.set_desired(incumbent::Desired::Stopped, &by).unwrap();
    let _ = profile.evict(&incumbent::Kind::default(), incumbent::Force::No, &by).unwrap();
    drop((profile, store));
    let (_, status) = sandbox.status();
    let status = status.to_string();
    assert!(status.contains("the token <redacted>, and key=<redacted>"), "{status}");
    for secret in [IDENTITY, KEY] {
        assert!(!store_contains(&sandbox, secret), "{secret}");
    }
    holder.kill();
}

/// What is locked is shown by no look at the machine's processes, whatever it looks like: neither where
/// the process that has it in its command line was never on record, nor in a script or a sentence.
#[test]
fn a_diagnostic_shows_no_locked_identity() {
    let sandbox = Sandbox::new();
    let mut holder = sleeper(&sandbox);
    let pid = holder.pid().to_string();
    let mut acquire =
        Process::start(sandbox.incumbent(["lock", "acquire", "token", "-", "--pid", &pid]));
    acquire.say(IDENTITY);
    acquire.finish(LIMIT).assert_code(0);
    // The subject of a diagnostic is always shown with its descendants.
    let mut subject = Process::start(sandbox.shell(&format!(
        "/bin/sh -c 'echo ready; exec cat' worker {IDENTITY} --bot={IDENTITY} '(as {IDENTITY}).'; true"
    )));
    assert_eq!(subject.line(), "ready");
    let log = sandbox.file("diagnostic.log");
    let subject_pid = subject.pid().to_string();
    let path = log.display().to_string();
    let words = ["forensics", "diagnose", "--log", &path, "--timeout", "20", "--pid", &subject_pid];
    sandbox.cli(words).assert_code(0);
    let written = eventually("the end of the diagnostic", LIMIT, || {
        std::fs::read_to_string(&log).ok().filter(|text| text.contains("=== end ==="))
    });
    assert!(!written.contains(IDENTITY), "{written}");
    assert!(written.contains("--bot=<redacted>"), "{written}");
    // What is locked cannot be found out: then nobody's command line is shown.
    std::fs::write(sandbox.db(), vec![0x55; 8192]).unwrap();
    std::fs::remove_file(&log).unwrap();
    sandbox.cli(words).assert_code(0);
    let written = eventually("the end of the diagnostic", LIMIT, || {
        std::fs::read_to_string(&log).ok().filter(|text| text.contains("=== end ==="))
    });
    assert!(!written.contains(IDENTITY) && written.contains("cannot be read"), "{written}");
    subject.kill();
    holder.kill();
}

/// A later program may close a store to older writers without changing its schema: that is no damage, and
/// no reason to move the store aside.
#[test]
fn a_store_that_a_later_program_closed_is_not_damaged() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    let later = sandbox.number("PRAGMA user_version") + 2;
    sandbox.forge(&format!("UPDATE meta SET value = {later} WHERE key = 'min_writer'"));
    let (code, answer) = sandbox.json(["claim", "--pid", &std::process::id().to_string()]);
    assert_eq!((code, &answer["error"]["kind"]), (78, &json!("too_new")), "{answer:#}");
    assert!(answer["error"]["hint"].as_str().unwrap().contains("upgrade"), "{answer:#}");
    let told = sandbox.cli(["doctor"]).assert_code(1);
    assert!(
        told.out.contains("closed it to writers") && !told.out.contains("damaged"),
        "{told:#?}"
    );
    sandbox.cli(["doctor", "--fix"]);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances"), 1, "nothing was moved aside");
    sandbox.cli(["status"]).assert_code(3);
}

/// Invariant 7: never a signal to what we descend from. The advice was for another container: a process
/// that stops its own gateway is told that it is its own, and that the request stands.
#[test]
fn a_stop_by_what_the_owner_has_started_says_so() {
    let sandbox = Sandbox::new();
    let mut script = Process::start(sandbox.shell(
        "incumbent claim --pid $$ > claimed && incumbent stop --timeout 1; echo code $?
         incumbent stop --force --timeout 1; echo code $?
         incumbent marker peek --pid $$ planned_stop; exec cat",
    ));
    for _ in 0..2 {
        assert_eq!(script.line(), "code 1");
    }
    assert!(script.line().starts_with("planned_stop by incumbent stop"), "the request stands");
    let answer = script.finish(LIMIT).assert_code(0);
    for words in ["it started this process", "asked by a marker", "run this outside of it"] {
        assert!(answer.err.contains(words), "{words}: {answer:#?}");
    }
    assert!(!answer.err.contains("another container"), "{answer:#?}");
}

/// Of an owner that releases when it is asked, and lives on, nobody says that its process has ended.
#[test]
fn an_owner_that_releases_and_lives_on_is_said_to_run() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo asked; incumbent release --pid $$ > released' TERM
        incumbent claim --pid $$ > claimed; echo ready
        while [ ! -e over ]; do sleep 0.05; done";
    let mut owner = Process::start(sandbox.shell(script));
    assert_eq!(owner.line(), "ready");
    let told = sandbox.cli(["stop"]).assert_code(0);
    let words = format!("stopped: pid {} has released it; its process still runs", owner.pid());
    assert!(told.out.contains(&words), "{told:#?}");
    assert!(!owner.has_ended());
    let (code, again) = sandbox.json(["stop"]);
    assert_eq!((code, &again["was_running"]), (0, &json!(false)), "{again:#}");
    std::fs::write(sandbox.file("over"), "").unwrap();
    let answer = owner.finish(LIMIT).assert_code(0);
    assert_eq!(answer.out, "ready\nasked\n", "nobody signals it any more");
}

/// Records that end are named: profile, kind, pid and the locks that end with them, in text, in JSON and in
/// the events.
#[test]
fn a_repair_names_the_records_that_it_ends() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--profile", "work", "--lock", "token=an-identity"]);
    let pid = run.pid();
    run.kill();
    run.command.wait_gone(LIMIT);
    leave_locks(&sandbox, 30);
    let (_, locks) = sandbox.json(["locks"]);
    let token = locks.as_array().unwrap().iter().find(|lock| lock["scope"] == "token").unwrap();
    let hash = token["identity_hash"].as_str().unwrap().to_owned();
    let of_run =
        format!("end the record of work/gateway, pid {pid}, with its 1 lock token/{hash} (");
    let dry = sandbox.cli(["doctor", "--fix", "--dry-run"]);
    assert!(dry.out.contains(&format!("would {of_run}")), "{dry:#?}");
    let (_, fixed) = sandbox.json(["doctor", "--fix"]);
    let findings = fixed.as_array().unwrap();
    let stale = findings.iter().find(|finding| finding["id"] == "stale_rows").unwrap();
    let acts = stale["acts"].as_array().unwrap();
    assert_eq!(acts.len(), 2, "{fixed:#}");
    let act = acts.iter().find(|act| act["record"]["profile"] == "work").unwrap();
    let record = &act["record"];
    assert_eq!((&record["kind"], &record["pid"]), (&json!("gateway"), &json!(pid)), "{act:#}");
    assert_eq!(record["locks"], json!([{"scope": "token", "identity_hash": hash}]), "{act:#}");
    let other = acts.iter().find(|act| act["record"]["kind"].is_null()).unwrap();
    assert_eq!(other["record"]["lock_count"], 31, "{other:#}");
    let text = other["act"].as_str().unwrap();
    assert!(text.contains("with its 31 locks") && text.contains("and 11 more"), "{text}");
    let events = sandbox.cli(["--json", "events"]).assert_code(0);
    assert!(events.out.contains(&of_run) && events.out.contains(&hash), "{events:#?}");
}
