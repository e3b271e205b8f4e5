//! A gateway that upgrades itself: it starts the program that is installed now and gives it its
//! office. At no moment could a second gateway have it, and if the new program does not come up the
//! old one goes on.
//!
//! ```text
//! cargo run --example handover -- /tmp/handover-demo/state.db
//! incumbent --db /tmp/handover-demo/state.db marker write upgrade --pid PID
//! ```
//!
//! With `--exec` it becomes the new program itself, which keeps the pid that a supervisor knows.

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use incumbent::exit::{ExitCodes, Supervisor};
use incumbent::handover::{HandedOver, Inherited};
use incumbent::marker::MarkerName;
use incumbent::{Claim, ClaimOptions, LockRequest, Standing, Store, Tenure};

/// "Not now": what a supervisor should take as a reason to try again later (sysexits.h).
const EX_TEMPFAIL: u8 = 75;

/// How long the new program may take until it is on duty.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let store = match arguments.iter().find(|it| !it.starts_with("--")) {
        Some(path) => Store::open(path)?,
        None => Store::open_default()?,
    };
    let options = ClaimOptions::new().version(env!("CARGO_PKG_VERSION"));
    // First what somebody gave us: a predecessor, or the `incumbent run` that we are in.
    let tenure = match Tenure::from_environment_with(&store, &options)? {
        Inherited::FromPredecessor(tenure) | Inherited::FromRun(tenure) => tenure,
        _ => match store.profile("default")?.claim_with(&options)? {
            Claim::Granted(tenure) => tenure,
            Claim::Held(holder) => {
                eprintln!("gateway: {holder}; {}", holder.advice());
                return Ok(ExitCode::from(EX_TEMPFAIL));
            }
        },
    };
    // A predecessor's lock is ours by now; this is its guard.
    let token = LockRequest::new("token", "the token of a bot")?;
    let incumbent::Acquire::Granted(token) = tenure.try_acquire(&token)? else {
        return Ok(ExitCode::from(EX_TEMPFAIL));
    };
    assert_eq!((tenure.verify()?, token.verify()?), (Standing::Held, Standing::Held));
    println!("gateway: instance {} is on duty, pid {}", tenure.instance(), std::process::id());

    let (stop, stopped) = mpsc::channel();
    let codes = ExitCodes::of(Supervisor::of_this_process());
    let _signals = tenure.on_shutdown(codes, move |shutdown| {
        let _ = stop.send(shutdown.exit_code);
    })?;
    let is_lost = Arc::new(AtomicBool::new(false));
    let lost = Arc::clone(&is_lost);
    let _watch = tenure.watch(move |why| {
        eprintln!("gateway: the office was lost: {why}");
        lost.store(true, Ordering::Relaxed);
    })?;
    let upgrade = MarkerName::new("upgrade")?;
    let code = loop {
        // Where a real gateway would poll its platforms.
        match stopped.recv_timeout(Duration::from_millis(100)) {
            Ok(code) => break code,
            Err(_) if is_lost.load(Ordering::Relaxed) => break i32::from(EX_TEMPFAIL),
            Err(_) => {}
        }
        if tenure.consume_marker(Some(&upgrade))?.is_none() {
            continue;
        }
        let mut successor = Command::new(std::env::current_exe()?);
        successor.args(&arguments);
        if arguments.iter().any(|it| it == "--exec") {
            // Returns only when it has failed.
            let error = tenure.exec(successor);
            eprintln!("gateway: {error}: this one goes on");
            continue;
        }
        match tenure.hand_over(successor, STARTS_WITHIN)? {
            HandedOver::Yes(successor) => {
                assert!(successor.instance > tenure.instance(), "the fence rises");
                assert_ne!(tenure.verify()?, Standing::Held);
                println!("gateway: instance {} goes on", successor.instance);
                return Ok(ExitCode::SUCCESS);
            }
            HandedOver::No(why) => eprintln!("gateway: {why}: this one goes on"),
            _ => unreachable!("a later version of the library"),
        }
    };
    tenure.release()?;
    println!("gateway: off duty");
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
