//! The history is bounded, and a pending release is not the end of its process.

use incumbent::{Kind, Store};

use super::gateway::{GATEWAY, ROLE_TEST};
use crate::support::{Disk, Sandbox, ask};

#[test]
fn the_history_is_bounded_and_keeps_the_newest() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.gateway();
    assert_eq!(ask(&mut gateway, "cycle 330"), "cycled");
    let kept = sandbox.number("SELECT count(*) FROM instances");
    // One claim in eight prunes, by chance: not one of the last sixty is out of the question.
    assert!((200..=260).contains(&kept), "{kept} are kept");
    let newest = sandbox.number("SELECT max(id) FROM instances");
    let history = sandbox.history();
    assert_eq!(i64::try_from(history.len()), Ok(kept));
    assert_eq!(history[0]["instance"], newest);
    let ids: Vec<_> = history.iter().map(|row| row["instance"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first");
    assert!(sandbox.number("SELECT count(*) FROM starts") <= 216);
    let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
    let three = store.profile("default").unwrap().history(&Kind::default(), 3).unwrap();
    assert_eq!(three.len(), 3);
    assert_eq!(three[0].instance.as_i64(), newest);
}

/// FIELD-BUGS row 78, issue 16. Symptom: a release that could not be written was told as "the
/// process has ended", of a process that lived. It is told as what it is, pending, by the process
/// itself; whoever else asks sees a lock that is free and a process that goes on. `stop` leaves
/// that one alone.
#[test]
fn a_pending_release_is_not_the_end_of_its_process() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let mut owner = disk.role(ROLE_TEST, GATEWAY);
    assert_eq!(ask(&mut owner, "open"), "opened");
    assert!(ask(&mut owner, "claim default").starts_with("granted"));
    disk.fill_up();
    assert_eq!(ask(&mut owner, "release"), "Pending(CannotWrite)");
    let because = ask(&mut owner, "because default");
    assert!(because.contains("has released it, but could not record that yet"), "{because}");
    assert!(because.contains("release_pending"), "{because}");
    let goes_on = "the process still runs, but no longer holds it";
    let status = disk.cli(&["status"]).assert_code(3);
    assert!(status.out.contains(goes_on) && !status.out.contains("has ended"), "{status:#?}");
    for verb in [&["stop"][..], &["stop", "--force"]] {
        let stopped = disk.cli(verb).assert_code(0);
        assert!(stopped.out.contains("not running"), "{stopped:#?}");
        assert!(!stopped.out.contains("stopped"), "{stopped:#?}");
    }
    assert_eq!(ask(&mut owner, "pending"), "1");
    disk.shell("rm store/fill").assert_code(0);
    let doctor = disk.cli(&["doctor", "--verbose"]);
    assert!(doctor.out.contains(goes_on), "{doctor:#?}");
    assert_eq!(ask(&mut owner, "status default"), "dead released");
    assert_eq!(ask(&mut owner, "pending"), "0");
}
