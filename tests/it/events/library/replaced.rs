//! A store that is not the same any more, and a process that is not.

use std::time::Duration;

use incumbent::{ErrorKind, Store, Wait};

use crate::events::party::ROLE_TEST;
use crate::events::take;
use crate::support::{Sandbox, forked, role_db, tenure_of, told};

/// FIELD-BUGS row 72: a reader of a deleted file must not wait for it forever, and must not take
/// another store's events for its own.
#[test]
fn a_reader_of_a_deleted_or_replaced_store_is_told_once() {
    for replaced in [false, true] {
        let sandbox = Sandbox::new();
        let store = Store::open(sandbox.db()).unwrap();
        let mut events = store.events().unwrap();
        let _tenure = tenure_of(&store, "default");
        assert_eq!(take(&mut events).event, "office_claimed");
        let (sender, answer) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            sender.send(()).unwrap();
            let first = events.next();
            (first, events.next().is_none(), events.next().is_none())
        });
        answer.recv().unwrap();
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
        }
        if replaced {
            sandbox.cli(["desired", "running"]).assert_code(0);
        }
        let (first, second, third) = reader.join().unwrap();
        let error = first.expect("it is told").expect_err("that its store is gone");
        assert_eq!(error.kind(), ErrorKind::StoreReplaced, "replaced: {replaced}");
        assert!(second && third, "and then no more, replaced: {replaced}");
    }
}

pub fn follow_in_a_child() {
    let store = Store::open(role_db()).unwrap();
    let mut events = store.events().unwrap();
    let _tenure = tenure_of(&store, "default");
    let child = forked::fork();
    if child == 0 {
        let kind = |error: incumbent::Error| error.kind().as_str();
        let next = events.next_event(Wait::UpTo(Duration::from_secs(1))).map_err(kind);
        let new = store.events().map(drop).map_err(kind);
        eprintln!("=> {next:?} {new:?}");
        drop((events, store));
        forked::leave();
    }
    let status = forked::exit_code(child);
    let event = take(&mut events);
    eprintln!("=> the child ended with {status}; the parent has {}", event.event);
}

/// FIELD-BUGS row 70: nothing crosses a fork, and the parent goes on as if there had been none.
#[test]
fn a_forked_child_is_refused() {
    let sandbox = Sandbox::new();
    let mut forker = sandbox.role(ROLE_TEST, "forker");
    assert_eq!(told(&mut forker), r#"Err("forked") Err("forked")"#);
    assert_eq!(told(&mut forker), "the child ended with 0; the parent has office_claimed");
}
