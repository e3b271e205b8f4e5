//! Waits for the next event end in time.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use incumbent::{Cancel, ProfileName, Store, Wait};

use crate::events::party::ROLE_TEST;
use crate::support::{LIMIT, SOON, Sandbox, ask, assert_within, eventually, tenure_of};

#[test]
fn a_deadline_is_kept_where_nothing_happens() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut events = store.events().unwrap();
    for wait in [Wait::No, Wait::UpTo(Duration::ZERO)] {
        let began = Instant::now();
        assert!(events.next_event(wait).unwrap().is_none());
        assert_within(SOON, began.elapsed(), &format!("{wait:?}"));
    }
    for ms in [1, 30, 200, 700] {
        let limit = Duration::from_millis(ms);
        let began = Instant::now();
        assert!(events.next_event(Wait::UpTo(limit)).unwrap().is_none());
        let took = began.elapsed();
        assert!(took >= limit, "{limit:?} took {took:?}");
        assert_within(limit + SOON, took, &format!("{limit:?}"));
    }
    // What comes in time is not waited for any longer.
    let _tenure = tenure_of(&store, "default");
    let began = Instant::now();
    assert!(events.next_event(Wait::UpTo(LIMIT)).unwrap().is_some());
    assert_within(SOON, began.elapsed(), "the event");
}

/// Keeps a store busy from three processes, until it is dropped.
struct Rain {
    children: Vec<Child>,
}

impl Rain {
    fn start(sandbox: &Sandbox) -> Self {
        let children = ["r1", "r2", "r3"]
            .into_iter()
            .map(|profile| {
                let mut child = sandbox
                    .role_command(ROLE_TEST, "gateway")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                let orders = format!("claim {profile}\ndrizzle 1000000000\n");
                let stdin = child.stdin.as_mut().unwrap();
                std::io::Write::write_all(stdin, orders.as_bytes()).unwrap();
                child
            })
            .collect();
        let rain = Self { children };
        eventually("everybody writes", LIMIT, || {
            let query = "SELECT count(DISTINCT instance_id) AS n FROM platform_status";
            let (code, answer) = sandbox.json(["sql", query]);
            (code == 0 && answer[0]["n"] == 3).then_some(())
        });
        rain
    }
}

impl Drop for Rain {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A deadline holds also where each look finds something, though none of it is meant for this
/// reader; and it is not waited for the end of the rain.
#[test]
fn a_deadline_is_kept_though_others_write_all_the_time() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let rain = Rain::start(&sandbox);
    let mut events = store.events().unwrap().of_profile(ProfileName::new("quiet").unwrap());
    for wait in [Wait::No, Wait::UpTo(Duration::from_millis(100)), Wait::No] {
        let began = Instant::now();
        let (sender, ended) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let came = events.next_event(wait).unwrap();
            let _ = sender.send(());
            (events, came)
        });
        if ended.recv_timeout(LIMIT).is_err() {
            // So that the thread comes to its end as well.
            drop(rain);
            let (_, came) = thread.join().unwrap();
            panic!("{wait:?} was not over after {LIMIT:?}, but after the rain: {came:?}");
        }
        let came;
        (events, came) = thread.join().unwrap();
        assert!(came.is_none(), "{came:?}");
        eprintln!("{wait:?} took {:?}", began.elapsed());
    }
}

/// Another thread ends the wait: of one that waits in silence, and of one that always has something
/// to read.
#[test]
fn a_cancelled_reader_ends() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let cancel = Cancel::new();
    let events = store.events().unwrap().cancel(cancel.clone());
    let (sender, waiting) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        sender.send(()).unwrap();
        events.map(Result::unwrap).count()
    });
    waiting.recv().unwrap();
    let cancelled = Instant::now();
    cancel.cancel();
    assert_eq!(reader.join().unwrap(), 0);
    assert_within(SOON, cancelled.elapsed(), "the end of the reader");

    // One that was cancelled before it began.
    let mut events = store.events().unwrap().cancel(cancel);
    assert!(events.next().is_none());
    assert!(events.next().is_none());

    let rain = Rain::start(&sandbox);
    let cancel = Cancel::new();
    let events = store.events().unwrap().cancel(cancel.clone());
    let (sender, progress) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for event in events {
            sender.send(event.unwrap().id).unwrap();
        }
    });
    progress.recv_timeout(LIMIT).unwrap();
    let began = Instant::now();
    cancel.cancel();
    let has_ended = std::iter::repeat_with(|| progress.recv_timeout(LIMIT))
        .take_while(|_| began.elapsed() < LIMIT)
        .any(|received| received.is_err());
    drop(rain);
    assert!(has_ended, "it went on reading for {LIMIT:?} after it was cancelled");
    reader.join().unwrap();
}

/// Who was told to end does not first read all that there is.
#[test]
fn a_cancelled_reader_ends_though_there_is_more_to_read() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    assert_eq!(ask(&mut party, "flood 1500"), "done");
    let store = Store::open(sandbox.db()).unwrap();
    let cancel = Cancel::new();
    let mut events = store.events().unwrap().after(0).cancel(cancel.clone());
    assert!(events.next().is_some());
    cancel.cancel();
    let left = events.by_ref().count();
    assert_eq!(left, 0, "events after it was cancelled");
    assert!(events.next().is_none());
}
