//! A gateway with tokio: an office, two locks, a heartbeat. It stops when it is told to, starts its
//! work again when it is asked to (`incumbent restart`), and gives its office to the program that is
//! installed now when somebody leaves it the marker `upgrade`.
//!
//! Calls of this crate block, most of them for tens of microseconds. Those that may wait longer are
//! made in `spawn_blocking`, and what others do comes by a channel.

use std::error::Error;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use incumbent::exit::{ExitCodes, Supervisor};
use incumbent::handover::{HandedOver, Inherited};
use incumbent::lock::AcquireOptions;
use incumbent::marker::MarkerName;
use incumbent::status::{EventStream, state};
use incumbent::{Acquire, Claim, LockRequest, StatusUpdate, Store, Tenure, Wait};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// "Not now": what a supervisor should take as a reason to try again later (sysexits.h).
const EX_TEMPFAIL: u8 = 75;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Failure> {
    let path = std::env::args_os().nth(1);
    let store = match path {
        Some(path) => Store::open(path)?,
        None => Store::open_default()?,
    };
    let begun = spawn_blocking(move || begin(&store)).await??;
    let Some((store, tenure)) = begun else { return Ok(ExitCode::from(EX_TEMPFAIL)) };
    serve(&store, tenure).await
}

/// What somebody gave us, or a claim; with both locks, or not at all.
fn begin(store: &Store) -> Result<Option<(Store, Tenure)>, Failure> {
    let tenure = match Tenure::from_environment(store)? {
        Inherited::FromPredecessor(tenure) | Inherited::FromRun(tenure) => tenure,
        _ => match store.profile("default")?.claim()? {
            Claim::Granted(tenure) => tenure,
            Claim::Held(holder) => {
                eprintln!("gateway: {holder}; {}", holder.advice());
                return Ok(None);
            }
        },
    };
    Ok(Some((store.clone(), tenure)))
}

async fn serve(store: &Store, tenure: Tenure) -> Result<ExitCode, Failure> {
    // Both or none; they end with the office, and go with it.
    let wanted = [LockRequest::new("bot-token", "123:ABC")?, LockRequest::new("port", "8443")?];
    let _locks = match tenure.acquire_all(&wanted, &AcquireOptions::new())? {
        Acquire::Granted(locks) => locks,
        Acquire::Held(holder) => {
            eprintln!("gateway: {holder}");
            return Ok(ExitCode::from(EX_TEMPFAIL));
        }
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    let stop = tell.clone();
    let codes = ExitCodes::of(Supervisor::of_this_process());
    let _signals = tenure.on_shutdown(codes, move |shutdown| {
        let _ = stop.send(shutdown.exit_code);
    })?;
    let _loss = tenure.watch(move |how| {
        eprintln!("gateway: lost: {how}");
        let _ = tell.send(i32::from(EX_TEMPFAIL));
    })?;
    let mut changes = changes(store.events()?.of_profile(tenure.office().profile.clone()));
    let heart = tenure.heartbeat(Duration::from_secs(5))?;
    let tenure = Arc::new(tenure);
    let upgrade = MarkerName::new("upgrade")?;
    loop {
        tenure.update_status(&StatusUpdate::new().state(state::RUNNING))?;
        tokio::select! {
            Some(code) = told.recv() => return Ok(ExitCode::from(u8::try_from(code)?)),
            () = tokio::time::sleep(Duration::from_secs(1)) => heart.beat(),
            Some(()) = changes.recv() => {
                if tenure.consume_marker(Some(&MarkerName::restart()))?.is_some() {
                    println!("gateway: starts again");
                }
                if tenure.consume_marker(Some(&upgrade))?.is_some() {
                    let (tenure, mut next) = (Arc::clone(&tenure), Command::new(std::env::current_exe()?));
                    next.args(std::env::args_os().skip(1));
                    let limit = Duration::from_secs(30);
                    match spawn_blocking(move || tenure.hand_over(next, limit)).await?? {
                        HandedOver::Yes(successor) => {
                            println!("gateway: instance {} goes on", successor.instance);
                            return Ok(ExitCode::SUCCESS);
                        }
                        HandedOver::No(why) => eprintln!("gateway: {why}"),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Says when something has changed, from a thread of its own.
fn changes(mut events: EventStream) -> mpsc::UnboundedReceiver<()> {
    let (tell, told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while events.next_event(Wait::Forever).is_ok_and(|it| it.is_some()) && tell.send(()).is_ok()
        {
        }
    });
    told
}
