//! One process, one handle; and a forked child has no part in it.

use incumbent::Verdict;

use super::ask_child;
use crate::support::{Sandbox, ask};

fn open_files(pid: u32, place: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|path| path.to_str().is_some_and(|path| path.contains(place)))
        .count()
}

/// FIELD-BUGS rows 9, 42 and 72: whoever opens the store how often, a process has one handle and
/// one office, which goes with its last claim.
#[test]
fn a_process_shares_its_handle_and_its_office() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    let first = ask(&mut gateway, "claim default");
    assert!(first.ends_with(" true"), "a second claim shares: {first}");
    let mut files = None;
    for _ in 0..10 {
        assert_eq!(ask(&mut gateway, "open"), "opened");
        assert_eq!(ask(&mut gateway, "claim default"), first);
        assert_eq!(ask(&mut gateway, "release"), "StillShared");
        // Counted from the first round on: it made the readers, and SQLite keeps a descriptor
        // aside whose closing would cost it its locks.
        let open = open_files(gateway.pid(), "/state.db");
        assert_eq!(*files.get_or_insert(open), open);
    }
    assert_eq!(open_files(gateway.pid(), "state.db.anchors/"), 1);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances"), 1);
    assert_eq!(ask(&mut gateway, "release"), "StillShared");
    sandbox.assert_held("anchor_held");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    sandbox.assert_status(3, "dead", "released");
    sandbox.assert_free();
}

/// FIELD-BUGS row 70. Nothing crosses a fork, in whatever order the child lets go of things.
#[test]
fn in_a_forked_child_every_call_is_refused_and_no_drop_does_anything() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    for (orders, expected) in [
        ("verify+claim default+status default", "Err(Forked), Err(Forked), Err(Forked)"),
        ("release", "Err(Forked)"),
        ("open", "Err(Forked)"),
        // The child is done with what it inherited; SQLite still has the parent's bookkeeping.
        ("drop+open", "dropped, Err(Forked)"),
    ] {
        let (said, end) = ask_child(&mut gateway, orders);
        assert_eq!((said.as_str(), end.as_str()), (expected, "the child ended with code 0"));
        assert_eq!(ask(&mut gateway, "verify"), "Held", "after {orders:?} in a child");
        sandbox.assert_held("anchor_held");
    }
    assert_eq!(ask(&mut gateway, "release"), "Free");
    // What the parent closed before the fork does not stand in the child's way.
    assert_eq!(ask(&mut gateway, "close"), "closed");
    let (said, end) = ask_child(&mut gateway, "open+claim default");
    assert!(said.starts_with("opened, granted"), "{said}; {end}");
}

/// Symptom: a worker forked by the gateway aborted, or hung, when it let go of its parent's watch.
/// Cause: it joined a thread that exists only in the parent.
#[test]
fn a_watch_dropped_in_a_forked_child_does_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    assert_eq!(ask(&mut gateway, "watch"), "watching");
    let (said, end) = ask_child(&mut gateway, "drop watch+drop");
    assert_eq!((said.as_str(), end.as_str()), ("dropped, dropped", "the child ended with code 0"));
    assert_eq!(ask(&mut gateway, "verify"), "Held");
    // The parent's watch goes on.
    sandbox.remove_store();
    gateway.err_line_with("the watch says: StoreReplaced");
}

/// Symptom: a guard among the locals of a thread ended the whole process when the thread ended. What
/// a transaction looks at was among them as well, and was gone before. It holds because a release
/// does without.
#[test]
fn a_guard_among_the_locals_of_a_thread_goes_with_them() {
    thread_local! {
        static HELD: std::cell::RefCell<Option<incumbent::Tenure>> = const {
            std::cell::RefCell::new(None)
        };
    }
    let sandbox = Sandbox::new();
    let store = incumbent::Store::open(sandbox.db()).unwrap();
    let holder = store.clone();
    let hold = move || {
        let Ok(incumbent::Claim::Granted(tenure)) = holder.profile("default").unwrap().claim()
        else {
            panic!("refused")
        };
        HELD.with(|held| *held.borrow_mut() = Some(tenure));
    };
    std::thread::spawn(hold).join().unwrap();
    assert_eq!(store.profile("default").unwrap().status().unwrap().verdict, Verdict::Dead);
    let end = &sandbox.history()[0];
    assert_eq!(end["end_reason"], "released", "{end:#}");
}
