//! Heartbeats of many processes keep the log small, and none is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use incumbent::status::Event;
use incumbent::{ErrorKind, Standing, StatusUpdate, Store, Wait};
use rustix::process::Signal;
use serde_json::json;

use super::{ROLE_TEST, claim_patiently, open, patiently, tell};
use crate::support::{LIMIT, Process, Sandbox, eventually, order, rounds, told_json};

/// Two hearts beat at about 100 Hz each, one of them by the crate's thread, until told to stop.
pub fn beat_until_told() {
    let profile = order().unwrap();
    let store = open();
    let tenure = claim_patiently(&store, &profile);
    let heart = patiently(|| tenure.heartbeat(Duration::from_millis(10)));
    let is_over = Arc::new(AtomicBool::new(false));
    let (mut beats, mut longest, mut failed) = (0_u64, Duration::ZERO, Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(order().as_deref(), Some("stop"));
            is_over.store(true, Ordering::Relaxed);
        });
        tell("\"ready\"");
        while !is_over.load(Ordering::Relaxed) {
            heart.beat();
            let began = Instant::now();
            if let Err(error) = tenure.update_status(&StatusUpdate::new().heartbeat()) {
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                failed.push(error.to_string());
            }
            longest = longest.max(began.elapsed());
            beats += 1;
            std::thread::sleep(Duration::from_millis(10).saturating_sub(began.elapsed()));
        }
    });
    drop(heart);
    let standing = tenure.verify().unwrap() == Standing::Held;
    let answer = json!({
        "beats": beats,
        "longest_ms": longest.as_millis(),
        "failed": failed,
        "holds": standing,
    });
    tell(&answer.to_string());
    assert_eq!(order(), None);
}

/// FIELD-BUGS row 77.
///
/// Symptom: freezes of 15 to 33 s, and a WAL of 294 MB to 2.8 GB. Cause: a convoy in a busy handler
/// that sleeps in step, and readers that stood in the way of every checkpoint. It holds because
/// waits are short and jittered, writers checkpoint as they go, and neither a reader nor a follower
/// ever leaves a read transaction open.
#[test]
fn heartbeats_of_ten_processes_keep_the_wal_small_and_nobody_loses_anything() {
    // It is reset whenever nobody is in the middle of a transaction. On an idle machine that keeps
    // it below 5 MiB all the time; on a busy one somebody may be put aside in one for a while.
    const WAL_MAX: u64 = 64 << 20;
    const WAL_AFTERWARDS: u64 = 5 << 20;
    let sandbox = Sandbox::new();
    let mut hearts: Vec<Process> = (0..10).map(|_| sandbox.role(ROLE_TEST, "heart")).collect();
    for (number, heart) in hearts.iter_mut().enumerate() {
        heart.say(&format!("p{number}"));
    }
    for heart in &mut hearts {
        assert_eq!(told_json(heart), "ready");
    }
    // Beside them: somebody who follows, and somebody who asks.
    let mut follower = Process::start(sandbox.incumbent(["events", "--follow"]));
    follower.line();
    let events = sandbox.number("SELECT max(id) FROM events");
    let wal = sandbox.file("store/state.db-wal");
    let size = || std::fs::metadata(&wal).unwrap().len();
    let mut largest = 0;
    let started = Instant::now();
    let duration = Duration::from_secs(rounds(3, 30).try_into().unwrap());
    while started.elapsed() < duration {
        sandbox.cli(["status", "--all"]).assert_code(0);
        largest = largest.max(size());
    }
    for heart in &mut hearts {
        heart.say("stop");
    }
    let mut beats = 0;
    for (number, heart) in hearts.iter_mut().enumerate() {
        let answer = told_json(heart);
        assert_eq!(answer["holds"], true, "p{number}: {answer}");
        // A disk may hang; nobody starves beside the others.
        let (own, failed) =
            (answer["beats"].as_u64().unwrap(), answer["failed"].as_array().unwrap());
        assert!(own > 0 && failed.len() as u64 <= 1 + own / 100, "p{number}: {answer}");
        beats += own;
    }
    largest = largest.max(size());
    eprintln!("{beats} beats, WAL up to {} KiB", largest >> 10);
    assert!(largest <= WAL_MAX, "after {beats} beats the WAL had {largest} bytes");
    let beating =
        "SELECT count(*) FROM instances AS i JOIN runtime_status AS r ON r.instance_id = i.id
        WHERE i.heartbeat_every_ms = 10 AND i.heartbeat_at_ms IS NOT NULL
            AND r.heartbeat_boot_ms IS NOT NULL AND i.ended_at_ms IS NULL";
    assert_eq!(sandbox.number(beating), 10);
    assert_eq!(sandbox.number("SELECT max(id) FROM events"), events, "a heartbeat is no event");
    // All are still there, and none of them keeps the next writers from emptying it.
    let mut desires = ["stopped", "running"].into_iter().cycle();
    eventually("a short WAL", LIMIT, || {
        sandbox.cli(["desired", desires.next().unwrap()]).assert_code(0);
        (size() <= WAL_AFTERWARDS).then_some(())
    });
    follower.signal(Signal::TERM);
    follower.finish_with_stdin_open(LIMIT).assert_code(0);
}

/// The event stream is `Send + Sync`, as all handles are: the thread that follows need not be the
/// one that opened.
#[test]
fn a_stream_may_move_to_another_thread() {
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut stream = store.events().unwrap();
    is_send_and_sync(&stream);
    let thread = std::thread::spawn(move || -> Event {
        stream.next_event(Wait::UpTo(LIMIT)).unwrap().unwrap()
    });
    let tenure = claim_patiently(&store, "default");
    assert_eq!(thread.join().unwrap().instance, Some(tenure.instance()));
}
