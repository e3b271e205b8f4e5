//! A gateway around one loop that polls: an office, two locks, a heartbeat. It starts again when it
//! is asked to, and stops when it is told to (`incumbent restart`, `incumbent stop`). `asyncio` and
//! tokio wait for the same descriptors: see `docs/linking.md`.

#![cfg_attr(not(unix), allow(unused, reason = "there is nothing to poll"))]

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use incumbent::exit::{ExitCodes, Supervisor};
use incumbent::lock::AcquireOptions;
use incumbent::marker::MarkerName;
use incumbent::status::state;
use incumbent::{Acquire, Claim, LockRequest, StatusUpdate, Store, Wait};
#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// "Not now": what a supervisor should take as a reason to try again later (sysexits.h).
const EX_TEMPFAIL: i32 = 75;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let store = match std::env::args_os().nth(1) {
        Some(path) => Store::open(path)?,
        None => Store::open_default()?,
    };
    Ok(ExitCode::from(u8::try_from(serve(&store)?).unwrap_or(u8::MAX)))
}

#[cfg(not(unix))]
fn serve(_store: &Store) -> Result<i32, Box<dyn Error>> {
    Err("there is nothing to poll here: see gateway.rs".into())
}

/// Works until it is told to stop; what to exit with.
#[cfg(unix)]
fn serve(store: &Store) -> Result<i32, Box<dyn Error>> {
    let profile = store.profile("default")?;
    let tenure = match profile.claim()? {
        Claim::Granted(tenure) => tenure,
        Claim::Held(holder) => {
            eprintln!("gateway: {holder}; {}", holder.advice());
            return Ok(EX_TEMPFAIL);
        }
    };
    // Both or none; they end with the office.
    let wanted = [LockRequest::new("bot-token", "123:ABC")?, LockRequest::new("port", "8443")?];
    let _locks = match tenure.acquire_all(&wanted, &AcquireOptions::new())? {
        Acquire::Granted(locks) => locks,
        Acquire::Held(holder) => {
            eprintln!("gateway: {holder}");
            return Ok(EX_TEMPFAIL);
        }
    };

    // What the loop waits for: a signal, the loss of what it holds, a change of its profile.
    let (signals, wake) = std::io::pipe()?;
    let (stop, stopped) = mpsc::channel();
    let codes = ExitCodes::of(Supervisor::of_this_process());
    let _watch = tenure.on_shutdown(codes, move |shutdown| {
        eprintln!("gateway: {}", shutdown.snapshot.to_log_line());
        let _ = stop.send(shutdown.exit_code);
        let _ = (&wake).write(&[1]);
    })?;
    let watch = tenure.watch(|_| ())?;
    let mut events = store.events()?.of_profile(profile.name().clone());
    let (lost, changed) = (watch.readiness()?, events.readiness()?);

    let heart = tenure.heartbeat(Duration::from_secs(5))?;
    tenure.update_status(&StatusUpdate::new().state(state::RUNNING))?;
    let code = loop {
        heart.beat();
        let mut ready = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&lost, PollFlags::IN),
            PollFd::new(&changed, PollFlags::IN),
        ];
        match poll(&mut ready, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Ok(code) = stopped.try_recv() {
            break code;
        }
        if let Some(how) = watch.lost()? {
            eprintln!("gateway: lost: {how}");
            return Ok(EX_TEMPFAIL);
        }
        while let Some(event) = events.next_event(Wait::No)? {
            println!("gateway: {}", event.event);
        }
        // A request to start again. The office stays ours meanwhile.
        if let Some(asked) = tenure.consume_marker(Some(&MarkerName::restart()))? {
            println!("gateway: starts again for {}", asked.marker.by);
        }
    };
    tenure.release()?;
    Ok(code)
}

#[cfg(unix)]
#[test]
fn it_holds_two_locks_starts_again_and_stops() -> Result<(), Box<dyn Error>> {
    use incumbent::Kind;
    use incumbent::stop::{Restart, RestartOptions};
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path().join("state.db"))?;
    let (kind, profile) = (Kind::default(), store.profile("default")?);
    let operator = std::thread::spawn(move || {
        while profile.status().is_ok_and(|it| it.runtime.is_none()) {}
        assert_eq!(profile.status().map(|it| it.locks.len()).ok(), Some(2));
        let restart = profile.restart(&kind, &RestartOptions::new());
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
            .is_ok_and(|()| matches!(restart, Ok(Restart::Done(_))))
    });
    serve(&store)?;
    assert!(operator.join().is_ok_and(|restarted| restarted));
    assert!(!store.profile("default")?.status()?.running);
    Ok(())
}
