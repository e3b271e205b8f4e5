//! What `doctor --fix` says that it has done, it has done: a second look shows nothing of it any
//! more (FIELD-BUGS row 131).

use incumbent::doctor::{Outcome, Repair, repair};
use incumbent::{Acquire, LockRequest, OpenOptions, Store};
use rusqlite::Connection;
use serde_json::json;

use crate::locks::cli::many::leave_locks;
use crate::support::{LIMIT, Sandbox, set_mode};

type Spoil = fn(&Sandbox);

/// By the check that finds it: all that is repaired.
const SPOILT: &[(&str, &str, Spoil)] = &[
    ("path", "the directory is open to all", |it| set_mode(&it.file("store"), 0o777)),
    ("path", "the directory is open to its group", |it| set_mode(&it.file("store"), 0o2770)),
    ("modes", "all may read the database", |it| set_mode(&it.db(), 0o644)),
    ("modes", "all may read the WAL", |it| {
        // An empty one SQLite closes itself.
        std::mem::forget(batch(it, "CREATE TABLE junk (b); DROP TABLE junk"));
        set_mode(&it.file("store/state.db-wal"), 0o644);
    }),
    ("modes", "all may look among the anchors", |it| set_mode(&it.anchors(), 0o755)),
    ("modes", "all may read an anchor", |it| {
        let run = it.hold(&[]);
        set_mode(&it.anchors().join(&it.anchor_names()[0]), 0o664);
        std::mem::forget(run);
    }),
    ("schema", "an older schema", |it| it.age_to(5)),
    ("integrity", "rows of nobody", |it| {
        batch(it, "INSERT INTO serves (instance_id, profile, since_at_ms) VALUES (12, 'a', 1)");
    }),
    ("integrity", "a damaged page", |it| flip_bytes(it, 4096 * 3 + 5)),
    ("open", "a damaged beginning", |it| flip_bytes(it, 0)),
    ("stale_rows", "a killed run", |it| {
        let mut run = it.hold(&[]);
        run.kill();
        run.command.wait_gone(LIMIT);
    }),
    ("orphan_anchors", "an anchor of nobody", |it| {
        std::fs::write(it.anchors().join("aa-4000000-bb.lock"), "").unwrap();
        set_mode(&it.anchors().join("aa-4000000-bb.lock"), 0o600);
    }),
    ("wal_size", "a long WAL", |it| {
        // It stays open: the last one to close it would empty the WAL.
        std::mem::forget(batch(
            it,
            "PRAGMA wal_autocheckpoint = 0; CREATE TABLE junk (b);
             INSERT INTO junk VALUES (zeroblob(20 << 20)); DROP TABLE junk",
        ));
    }),
];

fn batch(sandbox: &Sandbox, statements: &str) -> Connection {
    let connection = Connection::open(sandbox.db()).unwrap();
    connection.busy_timeout(LIMIT).unwrap();
    connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {statements}")).unwrap();
    connection
}

fn flip_bytes(sandbox: &Sandbox, offset: usize) {
    batch(sandbox, "PRAGMA wal_checkpoint(TRUNCATE)");
    let mut bytes = std::fs::read(sandbox.db()).unwrap();
    bytes[offset..offset + 20].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(sandbox.db(), &bytes).unwrap();
}

#[test]
fn what_doctor_fix_has_done_a_second_look_does_not_find() {
    for (check, what, spoil) in SPOILT {
        let sandbox = Sandbox::new();
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        // A connection that is not one of ours may have taken the sidecars away.
        sandbox.cli(["doctor"]);
        spoil(&sandbox);
        let found = |arguments: &[&str]| {
            let (_, findings) = sandbox.json([&["doctor"], arguments].concat());
            let findings = findings.as_array().unwrap_or_else(|| panic!("{what}: {findings:#}"));
            let about = findings.iter().filter(|it| it["id"] == *check);
            about.cloned().collect::<Vec<_>>()
        };
        let is_ok = |about: &[serde_json::Value]| about.iter().all(|it| it["severity"] == "ok");
        let before = found(&[]);
        assert!(!is_ok(&before), "{what}: {before:#?}");
        let fixed = found(&["--fix"]);
        let is_done =
            fixed.iter().any(|it| it["act"].as_str().is_some_and(|act| act.starts_with("done")));
        assert!(is_done, "{what}: {fixed:#?}");
        let after = found(&[]);
        assert!(is_ok(&after), "{what}: {after:#?}");
        assert!(!found(&["--fix"]).iter().any(|it| it["act"].is_string()), "{what}: again");
    }
}

/// Symptom: where it could not be looked at who else can get at the store, `doctor --fix` said
/// nothing of it, as if nobody could. It holds because a look that failed is a repair that failed.
#[test]
fn a_look_at_the_modes_that_fails_is_said() {
    if !crate::support::has("strace") {
        return crate::support::skipped("needs strace");
    }
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let anchors = sandbox.anchors().canonicalize().unwrap();
    // One of the times that the directory is opened is the listing after it was pinned.
    let answers = (1..12).map(|nth| {
        let mut command = sandbox.program("strace");
        command.args(["-f", "-o", "trace", "-e", "trace=openat", "-P"]).arg(&anchors);
        command.arg("-e").arg(format!("inject=openat:error=EACCES:when={nth}"));
        command.arg(crate::support::BINARY).args(["doctor", "--fix"]);
        crate::support::Process::start(command).finish(LIMIT)
    });
    let said = answers.into_iter().find(|answer| answer.out.contains("whether others can access"));
    let said = said.expect("a listing that fails");
    assert!(said.out.contains("modes: could not check whether others"), "{said:#?}");
    said.assert_code(1);
}

/// Records that end are named: profile, kind, pid and the locks that end with them, in text, in
/// JSON and in the events.
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

/// Who repairs may say of himself what is locked: it is not stored with his name.
#[test]
fn what_is_locked_is_not_stored_with_who_repaired() {
    const IDENTITY: &str = "123456:secret-of-the-bot";
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    let store = Store::open(sandbox.db()).unwrap();
    let request = LockRequest::new("token", IDENTITY).unwrap();
    let Acquire::Granted(_lock) = store.try_acquire(&request).unwrap() else { panic!("held") };
    let options = OpenOptions::new().path(sandbox.db());
    let acts = repair(&options, &format!("bot --token {IDENTITY}"), Repair::Do);
    assert!(acts.iter().any(|act| act.outcome == Outcome::Done), "{acts:?}");
    for table in ["events", "instances"] {
        let told = format!("SELECT count(*) FROM {table} WHERE detail LIKE '%secret-of-the-bot%'");
        assert_eq!(sandbox.number(&told), 0, "{table}");
    }
}
