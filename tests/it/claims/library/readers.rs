//! Many threads of one process on one store.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::{Acquire, Claim, Kind, LockRequest, Standing, Store};

use crate::support::{LIMIT, Process, Sandbox, plays, role_db, rounds, test_name};

const ROLE_TEST: &str = test_name!(role_of_many_threads);
const THREADS: usize = 64;

/// Again where the write lock of the store was not had in time: on a busy machine the turn of one
/// of 64 writers may come later than that. It is about the readers.
fn patient<T>(mut ask: impl FnMut() -> incumbent::Result<T>) -> incumbent::Result<T> {
    loop {
        match ask() {
            Err(error) if error.to_string().contains("stayed busy") => {}
            answer => return answer,
        }
    }
}

/// What each thread does, again and again.
fn mixed(store: &Store, thread: usize) -> incumbent::Result<()> {
    let name = format!("p{thread}");
    let profile = store.profile(&name)?;
    patient(|| profile.status())?;
    patient(|| store.locks())?;
    let Claim::Granted(tenure) = patient(|| profile.claim())? else { panic!("{name} is held") };
    assert!(matches!(patient(|| tenure.verify())?, Standing::Held));
    let request = LockRequest::new("scope", &name)?;
    let Acquire::Granted(lock) = patient(|| tenure.try_acquire(&request))? else {
        panic!("{name} is locked")
    };
    assert!(matches!(patient(|| lock.verify())?, Standing::Held));
    let marker = MarkerName::new("note")?;
    patient(|| tenure.peek_marker(Some(&marker)))?;
    let note = MarkerRequest::new(marker);
    patient(|| store.write_marker(std::process::id(), &note))?;
    patient(|| store.consume_marker(std::process::id(), None))?;
    patient(|| profile.history(&Kind::default(), 10))?;
    patient(|| store.status_of_all())?;
    patient(|| store.recent_events(None, 10))?;
    lock.release()?;
    tenure.release()?;
    Ok(())
}

/// Plays a gateway with many threads; says how many rounds were done, or what went wrong.
#[test]
fn role_of_many_threads() {
    if !plays("threads") {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    let rounds = rounds(2, 200);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, failed) = (&store, &failed);
            scope.spawn(move || {
                for _ in 0..rounds {
                    if let Err(error) = mixed(store, thread) {
                        eprintln!("{:?}: {error} {:?}", error.kind(), error.hint());
                        failed.store(true, Ordering::Relaxed);
                    }
                    // Whoever waits for us sees that it goes on.
                    eprintln!("a round of thread {thread}");
                }
            });
        }
    });
    eprintln!("=> {}", if failed.into_inner() { "failed" } else { "done" });
}

/// FIELD-BUGS row 140.
///
/// Symptom: with more than four threads that read, one of them heard after 250 ms that all readers
/// of its process were in use. It holds because a reader is waited for as long as a lock of
/// SQLite's. Whether all readers are lent at once is chance here;
/// `whoever_finds_all_readers_lent_waits_for_one` in `src/store/pool.rs` lends them.
#[test]
fn readers_never_run_out() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut gateway = sandbox.role(ROLE_TEST, "threads");
    // Beside it, somebody else writes all the time; where the store stayed busy, again.
    let writing =
        "while incumbent --profile writer run --no-backoff -- true || [ $? = 75 ]; do :; done";
    let mut command: Command = sandbox.shell(writing);
    command.env("INCUMBENT_PARTY", "writer");
    let mut writer = Process::start(command);
    let mut said = Vec::new();
    let answer = loop {
        match gateway.err_line_with_or_end("") {
            Some(line) if line.starts_with("=> ") => break line,
            Some(line) => said.push(line),
            None => break "it ended".to_owned(),
        }
    };
    assert!(!writer.has_ended(), "the writer was refused");
    writer.kill();
    assert_eq!(answer, "=> done", "{said:#?}");
    gateway.finish(LIMIT).assert_code(0);
    run.end().assert_code(0);
}
