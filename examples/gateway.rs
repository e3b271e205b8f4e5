//! A small gateway: claims its office, works, and lets go when it is told to stop.
//!
//! Try it twice at once, kill it with `kill -9`, and start it again:
//!
//! ```text
//! cargo run --example gateway -- /tmp/gateway-demo/state.db
//! ```

use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use incumbent::exit::{ExitCodes, Supervisor};
use incumbent::status::{PlatformUpdate, state};
use incumbent::stop::StopCause;
use incumbent::{Claim, ClaimOptions, StatusUpdate, Store};

/// "Not now": what a supervisor should take as a reason to try again later (sysexits.h).
const EX_TEMPFAIL: u8 = 75;

fn main() -> ExitCode {
    match gateway() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn gateway() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let store = match std::env::args_os().nth(1) {
        Some(path) => Store::open(path)?,
        None => Store::open_default()?,
    };
    let options =
        ClaimOptions::new().version(env!("CARGO_PKG_VERSION")).stop_budget(Duration::from_secs(10));
    let tenure = match store.profile("default")?.claim_with(&options)? {
        Claim::Granted(tenure) => tenure,
        Claim::Held(holder) => {
            eprintln!("gateway: {holder}; {}", holder.advice());
            return Ok(ExitCode::from(EX_TEMPFAIL));
        }
    };
    if let Some(evicted) = tenure.evicted() {
        println!("gateway: took the place of a dead one ({})", evicted.reason);
    }

    let (stop, stopped) = mpsc::channel();
    // Told within a second when a person evicts us or the store is replaced.
    let lost = stop.clone();
    let _watch = tenure.watch(move |why| {
        eprintln!("gateway: the office was lost: {why}");
        let _ = lost.send(i32::from(EX_TEMPFAIL));
    })?;
    // A panic of any thread is in the history afterwards, with its place.
    tenure.record_panics();
    // Who sent the signal, what the marker beside it says, and what to exit with.
    let codes = ExitCodes::of(Supervisor::of_this_process());
    let _signals = tenure.on_shutdown(codes, move |shutdown| {
        eprintln!("gateway: {}", shutdown.snapshot.to_log_line());
        match shutdown.stop.cause {
            StopCause::TakenOver(marker) => println!("gateway: taken over by {}", marker.by),
            StopCause::PlannedStop(marker) => println!("gateway: stopped by {}", marker.by),
            _ => {}
        }
        let _ = stop.send(shutdown.exit_code);
    })?;

    // What `incumbent status` shows beside what is true of us.
    let chat = PlatformUpdate::new("chat").state("connected");
    tenure.update_status(&StatusUpdate::new().state(state::RUNNING).platform(chat))?;
    let heart = tenure.heartbeat(Duration::from_secs(5))?;
    println!("gateway: instance {} is on duty, pid {}", tenure.instance(), std::process::id());
    let code = loop {
        // The loop whose life the heartbeats prove.
        heart.beat();
        // Where a real gateway would poll its platforms.
        match stopped.recv_timeout(Duration::from_millis(100)) {
            Ok(code) => break code,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    };
    drop(heart);
    // Nobody dies of a status that could not be written, least of all while it ends.
    if let Err(error) = tenure.update_status(&StatusUpdate::new().state(state::STOPPED)) {
        eprintln!("gateway: {error}");
    }
    tenure.release()?;
    println!("gateway: off duty");
    // What the supervisor is to make of it: 0 for an end that somebody wanted.
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
