//! A small gateway: claims its office, works, and lets go when it is told to stop.
//!
//! Try it twice at once, kill it with `kill -9`, and start it again:
//!
//! ```text
//! cargo run --example gateway -- /tmp/gateway-demo/state.db
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use incumbent::{Claim, ClaimOptions, Store};

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

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // Told within a second when a person evicts us or the store is replaced.
    let lost = Arc::clone(&stop);
    let _watch = tenure.watch(move |why| {
        eprintln!("gateway: the office was lost: {why}");
        lost.store(true, Ordering::Release);
    })?;

    println!("gateway: instance {} is on duty, pid {}", tenure.instance(), std::process::id());
    while !stop.load(Ordering::Acquire) {
        serve_one_round();
    }
    tenure.release()?;
    println!("gateway: off duty");
    Ok(ExitCode::SUCCESS)
}

/// Where a real gateway would poll its platforms.
fn serve_one_round() {
    std::thread::sleep(Duration::from_millis(100));
}
