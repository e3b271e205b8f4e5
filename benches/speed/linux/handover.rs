//! How long it takes from the end of a holder to the ownership of who waits for it.
//!
//! Holder and waiter are processes of their own. The waiter stamps the system's monotonic clock
//! when it is granted; the end is stamped just before the kill, or by the holder just before it
//! releases.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::library::SCOPE;
use super::measure::{Spread, now};
use super::roles::{IDENTITY, LIMIT, Role, now_ns, text};
use super::stores::Places;
use super::table::{Row, Table, Target, spread};

/// How the holder ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    Released,
}

/// What is handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Lock,
    Office,
    /// A lock, waited for by `lock acquire --wait`: to the end of that process.
    Verb,
}

pub fn rows(table: &mut Table, places: &Places, rounds: usize) {
    for (name, what, end) in [
        ("lock, released -> owner", What::Lock, End::Released),
        ("office, released -> owner", What::Office, End::Released),
        ("lock, holder killed -> owner", What::Lock, End::Killed),
        ("office, holder killed -> owner", What::Office, End::Killed),
        ("lock, holder killed -> `lock acquire --wait` ends", What::Verb, End::Killed),
    ] {
        if !table.wants(name) {
            continue;
        }
        let path = places.store(name);
        let took = (0..rounds).map(|_| hand_over(&path, what, end) / 1_000.0).collect();
        let took = Spread::of(took);
        let targets = match end {
            End::Released => vec![
                Target::at_most("at p50", 0.3, Some(took.p50() / 1_000.0), " ms"),
                Target::at_most("at p99", 1.0, Some(took.p99() / 1_000.0), " ms"),
            ],
            End::Killed => Vec::new(),
        };
        table.push(Row { name: name.to_owned(), ours: spread(&took), targets, ..Row::default() });
    }
}

/// The whole call of a takeover, of an office whose holder ends as soon as it is asked.
pub fn takeover(path: &Path) -> Duration {
    let holder = Role::holding("office", path);
    let mut taker = Role::start(&["take", text(path)]);
    let took = Duration::from_nanos(taker.number());
    drop(holder);
    took
}

/// One hand-over, in nanoseconds.
#[allow(clippy::cast_precision_loss, reason = "some seconds at most")]
fn hand_over(path: &Path, what: What, end: End) -> f64 {
    let wanted = if what == What::Office { "office" } else { "lock" };
    let mut holder = Role::holding(wanted, path);
    if what == What::Verb {
        return hand_over_to_verb(path, holder);
    }
    let mut waiter = Role::start(&["wait", wanted, text(path)]);
    assert_eq!(waiter.line(), "waits");
    until_somebody_waits(path);
    let ended_ns = match end {
        End::Killed => {
            let at_ns = now_ns();
            holder.child.kill().expect("a kill");
            at_ns
        }
        End::Released => {
            holder.say("release");
            holder.number()
        }
    };
    waiter.number().saturating_sub(ended_ns) as f64
}

#[allow(clippy::cast_precision_loss, reason = "some seconds at most")]
fn hand_over_to_verb(path: &Path, mut holder: Role) -> f64 {
    // Whom the lock is for: a process that knows nothing of all this.
    let mut owner = Command::new("sleep").arg("60").spawn().expect("sleep");
    let mut verb = Command::new(env!("CARGO_BIN_EXE_incumbent"))
        .args(["lock", "acquire", SCOPE, IDENTITY, "--wait=9s", "--pid"])
        .arg(owner.id().to_string())
        .arg("--db")
        .arg(path)
        .stdout(Stdio::null())
        .spawn()
        .expect("a verb");
    until_somebody_waits(path);
    let killed_ns = now_ns();
    holder.child.kill().expect("a kill");
    assert!(verb.wait().expect("an end").success(), "it was not granted");
    let took_ns = now_ns() - killed_ns;
    owner.kill().expect("a kill");
    owner.wait().expect("an end");
    took_ns as f64
}

/// Until somebody waits on record, and had the time to begin with it.
pub fn until_somebody_waits(path: &Path) {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(path, flags).expect("a reader");
    let started = now();
    // Rows of killed holders and waiters before it are still there.
    let waits = "SELECT count(*) FROM waiters JOIN instances ON id = instance_id
                 WHERE ended_at_ms IS NULL";
    while connection.query_row(waits, [], |row| row.get::<_, i64>(0)).expect("a count") == 0 {
        assert!(started.elapsed() < LIMIT, "nobody waits");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(10));
}
