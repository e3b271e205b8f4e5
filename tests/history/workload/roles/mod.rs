//! The parts that this program plays: each is a process of its own.

pub mod command;
mod inmate;
mod kept;
mod owner;
mod owner_acts;
mod owner_ends;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::workload::answers::NOTE;
use crate::workload::harness;
use crate::workload::world::{PLACE, complaints};

/// The parent of all.
pub const HARNESS: &str = "harness of the soak";
/// The command of a `run`.
pub const COMMAND: &str = "command of a run";
/// It links the library.
pub const OWNER: &str = "owner";
/// The verbs record it.
pub const KEPT: &str = "kept process";
/// It works in a pid namespace.
pub const INMATE: &str = "inmate of a container";

/// The pace of a loop that watches over something. No answer waits for it.
const TICK: Duration = Duration::from_millis(5);

/// A part that panics is a fault of the soak: it is told where the test looks, whatever has become
/// of our standard error.
fn complain_of_panics(part: &str) {
    let (part, before) = (part.to_owned(), std::panic::take_hook());
    let complaints = std::env::var_os(PLACE).map(|place| complaints(Path::new(&place)));
    std::panic::set_hook(Box::new(move |panic| {
        let file = complaints.as_ref().map(|at| OpenOptions::new().append(true).open(at));
        if let Some(Ok(mut file)) = file {
            let _ = writeln!(file, "{part}: {panic}");
        }
        before(panic);
    }));
}

/// Whoever started us may be short of descriptors, for a while: we are not to be.
fn have_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Plays it to its end. Ends the process where it has something to tell by its exit code.
pub fn play(part: &str) {
    if part != HARNESS {
        have_descriptors();
        complain_of_panics(part);
    }
    let code = match part {
        HARNESS => harness::play(),
        COMMAND => command::play(),
        OWNER => owner::play(),
        KEPT => kept::play(),
        INMATE => inmate::play(),
        other => panic!("{other}: a part that nobody wrote"),
    };
    if code != 0 {
        std::process::exit(code);
    }
}

/// Whether somebody asked this process to end, from now on.
fn heed_signals() -> Arc<AtomicBool> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&asked)).expect("a signal to be caught");
    }
    asked
}

fn in_ms(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// A word that nobody has used before.
pub fn new_word(rng: &mut fastrand::Rng) -> String {
    format!("w{:x}", crate::log::now() ^ rng.u64(..))
}

/// A name for a marker with this token. One of the same name would take the place of another.
fn name_of_note(token: &str) -> String {
    format!("{NOTE}{token}")
}
