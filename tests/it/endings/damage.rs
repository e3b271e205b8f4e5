//! Rows that no program of ours wrote, old stores, bounds.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::last_words::killed;
use super::us;
use crate::support::{LIMIT, Sandbox, ask, assert_within};

/// R:ROW. A damaged last word crashes nobody, and says nothing that is not there.
#[test]
fn a_damaged_last_word_is_borne() {
    for (forged, expected) in [
        ("signal = NULL", &["anchor_released"][..]),
        ("signal = 0", &["anchor_released", "signalled"]),
        ("signal = -15", &["anchor_released", "signalled"]),
        ("signal = 9223372036854775807", &["anchor_released"]),
        ("at_ms = 9223372036854775807", &["signalled", "anchor_released"]),
        ("at_ms = -9223372036854775808", &["signalled", "anchor_released"]),
        ("at_ms = 0", &["signalled", "anchor_released"]),
        ("at_ms = at_ms + 86400000", &["signalled"]),
        ("at_boot_ms = -1", &["signalled"]),
        ("at_boot_ms = 9223372036854775807", &["signalled"]),
        ("at_boot_ms = NULL, boot_id = NULL", &["signalled"]),
        ("sender = NULL, sender_pid = NULL", &["signalled"]),
        ("sender = char(27) || '[31m' || char(10) || 'x'", &["signalled"]),
        ("snapshot = NULL, cause = 'nonsense'", &["signalled"]),
        ("message = '', place = NULL", &["panicked", "signalled"]),
        ("what = 'panic'", &["signalled", "panicked", "anchor_released"]),
        ("instance_id = NULL", &["anchor_released"]),
    ] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["catch"]);
        gateway.signal(Signal::TERM);
        gateway.err_line_with("caught 15");
        gateway.kill();
        assert_eq!(sandbox.forge(&format!("UPDATE shutdowns SET {forged}")), 1);
        let asked = sandbox.end_now();
        let told = sandbox.end_settled();
        for told in [&asked, &told] {
            let reason = told.text("end_reason");
            assert!(expected.contains(&reason.as_str()), "{forged}: {told:#?}");
            assert!(!told.line.contains('\u{1b}'), "{forged}: {told:#?}");
        }
        asked.assert_last();
        assert_eq!(asked.end["end_reason"], told.end["end_reason"], "{forged}");
        assert_eq!(asked.end["ended_by"], told.end["ended_by"], "{forged}");
        let text = sandbox.cli(["history"]).assert_code(0).out;
        assert_eq!(text.lines().count(), 2, "{forged}: {text}");
    }
}

/// The counters and the budget of a damaged row are borne as well.
#[test]
fn a_damaged_row_of_an_instance_is_borne() {
    for forged in [
        "memory_cgroup = '/no/such/group', oom_kills = 0",
        "memory_cgroup = '', oom_kills = -1",
        "memory_cgroup = '/etc/../proc', oom_kills = 9223372036854775807",
        "memory_cgroup = NULL, oom_kills = NULL",
        "stop_budget_ms = -1, heartbeat_at_ms = -9223372036854775808",
        "stop_budget_ms = 9223372036854775807, heartbeat_at_ms = NULL",
    ] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["catch"]);
        gateway.signal(Signal::TERM);
        gateway.err_line_with("caught 15");
        gateway.kill();
        sandbox.forge(&format!("UPDATE instances SET {forged}"));
        for told in [sandbox.end_now(), sandbox.end_settled()] {
            assert_eq!(told.end["end_reason"], "signalled", "{forged}: {told:#?}");
        }
    }
}

/// R:ROW. What a row names as its memory cgroup was opened whatever it was: a FIFO of that name
/// held everybody up for ever who asked how its holder had ended, the next claim included. It
/// holds because only a directory of the kernel's own is read.
#[test]
fn a_forged_cgroup_holds_nobody_up() {
    const BOUND: Duration = Duration::from_secs(10);
    let sandbox = Sandbox::new();
    let directory = sandbox.file("group");
    std::fs::create_dir(&directory).unwrap();
    for name in ["memory.events", "memory.oom_control"] {
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, directory.join(name), kind, mode, 0).unwrap();
    }
    let inode = std::fs::metadata(&directory).unwrap().ino();
    let directory = directory.display().to_string();
    for forged in [
        directory.clone(),
        format!("/sys/fs/cgroup/../../..{directory}"),
        format!("/sys/fs/cgroup/./../../../{directory}"),
        format!("/sys/fs/cgroup//../../../{directory}"),
    ] {
        for inode in [inode.to_string(), "NULL".to_owned()] {
            let what = format!("{forged}, inode {inode}");
            killed(sandbox.linked_gateway(&[]));
            let row =
                "WHERE id = (SELECT id FROM instances ORDER BY started_at_ms DESC, id LIMIT 1)
                AND ended_at_ms IS NULL";
            let changed = sandbox.forge(&format!(
                "UPDATE instances SET memory_cgroup = '{forged}', memory_cgroup_inode = {inode},
                 oom_kills = 0 {row}"
            ));
            assert_eq!(changed, 1, "{what}");
            for verb in
                [&["--json", "status"][..], &["history"], &["run", "--no-backoff", "--", "true"]]
            {
                let began = Instant::now();
                let answer = sandbox.begin(verb).finish(LIMIT);
                let took = began.elapsed();
                assert!(matches!(answer.code(), 0 | 3), "{what}: {verb:?}: {answer:#?}");
                assert_within(BOUND, took, &format!("{what}: {verb:?}"));
            }
            let told = sandbox.end_told(None, 1);
            told.assert("anchor_released", None, None, None);
        }
    }
}

/// A store of the version before: questions answer as they did and write nothing; the next claim
/// brings it up to date.
#[test]
fn a_store_of_before_tells_what_it_knows() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    gateway.kill();
    sandbox.age_to(4);
    // The first reader makes the log of the database anew.
    let _reader = rusqlite::Connection::open(sandbox.db()).inspect(|reader| {
        let version = reader.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        assert_eq!(version.unwrap(), 4);
    });
    let before = sandbox.picture();
    let asked = sandbox.end_now();
    asked.assert("anchor_released", None, None, None).assert_last();
    assert!(sandbox.picture() == before, "a question has written");
    assert_eq!(sandbox.number("PRAGMA user_version"), 4);

    // Who asks for a snapshot is answered, and told why it is not on record.
    let (code, snapshot) = sandbox.json(["forensics", "snapshot", "--signal", "TERM"]);
    assert_eq!(code, 0, "{snapshot:#}");
    let why = snapshot["recorded"]["unavailable"].as_str().unwrap_or_default();
    assert!(why.contains("schema is older"), "{snapshot:#}");
    assert_eq!(sandbox.number("PRAGMA user_version"), 4);

    // Also what writes, and does not claim, leaves the schema alone.
    sandbox.cli(["evict"]).assert_code(0);
    let told = sandbox.end_now();
    assert_eq!(told.end["end_reason"], "anchor_released", "{told:#?}");
    sandbox.settle_end();
    assert!(sandbox.number("PRAGMA user_version") > 4);
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    gateway.kill();
    sandbox.end_settled().assert("signalled", Some(&us()), None, Some(15));
}

/// What is kept of the past is bounded, and nothing outlives what it belongs to.
#[test]
fn last_words_go_with_their_incarnations() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.newcomer();
    assert_eq!(ask(&mut gateway, "cycle 300"), "done");
    let kept = sandbox.number("SELECT count(*) FROM instances");
    // Pruned by one transaction of eight, by chance.
    assert!((200..=280).contains(&kept), "{kept} are kept");
    assert_eq!(sandbox.last_words(), kept);
    let orphans = "SELECT count(*) FROM shutdowns WHERE instance_id IS NULL
         OR instance_id NOT IN (SELECT id FROM instances)";
    assert_eq!(sandbox.number(orphans), 0);
    assert_eq!(i64::try_from(sandbox.history().len()), Ok(kept));
    assert!(sandbox.history().iter().all(|end| end["end_reason"] == "signalled"));

    assert_eq!(ask(&mut gateway, "claim"), "granted");
    assert_eq!(ask(&mut gateway, "snapshot 50"), "done");
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM shutdowns GROUP BY instance_id)";
    assert_eq!(sandbox.number(most), 20);
    gateway.kill();

    // Of processes that are on record nowhere.
    sandbox.forge(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
         INSERT INTO shutdowns (at_ms, pid, what, signal) SELECT i, 1, 'signal', 15 FROM n",
    );
    sandbox.cli(["forensics", "snapshot", "--signal", "TERM"]).assert_code(0);
    let others = "SELECT count(*) FROM shutdowns WHERE instance_id IS NULL";
    assert_eq!(sandbox.number(others), 1_000);
}
