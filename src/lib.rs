//! An embedded state engine for long-running gateway processes: it answers *who holds this office
//! or token, is it really alive, and may I take it?*, in place of PID files, lock files and status
//! JSON.
//!
//! Everything lives in one `SQLite` file that many profiles and processes share. A claim is one
//! write transaction that looks at the recorded owner, judges it, ends it if it is dead and inserts
//! the new one; "alive" rests on a kernel lock (the *anchor*) that ends with its process, whatever
//! ends that. A stale record needs no cleaning: it blocks nobody.
//!
//! ```
//! use incumbent::{Claim, ClaimOptions, Standing, Store};
//! use std::time::Duration;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("state.db");
//! let store = Store::open(&path)?; // Store::open_default() for the user's own
//! let profile = store.profile("work")?;
//! let options = ClaimOptions::new().version("1.4.2").stop_budget(Duration::from_secs(30));
//!
//! match profile.claim_with(&options)? {
//!     Claim::Granted(tenure) => {
//!         // On duty. Other processes see it at once:
//!         assert_eq!(profile.status()?.pid, Some(std::process::id()));
//!         // Before an act that two owners must not both do:
//!         assert_eq!(tenure.verify()?, Standing::Held);
//!         tenure.release()?; // or drop it, or be killed: the office is free
//!     }
//!     Claim::Held(holder) => {
//!         eprintln!("{holder}; {}", holder.advice());
//!         # unreachable!("nobody else knows this store");
//!     }
//! }
//! assert!(!profile.status()?.running);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The types to know
//!
//! * [`Store`] - the file; one shared handle per file and process, however often it is opened.
//! * [`Profile`] - a named configuration in it; claims, asks, evicts.
//! * [`Claim`] - the answer to a claim: a [`Tenure`] or the [`Holder`] who explains itself.
//! * [`Tenure`] - a held office. Dropping it releases; [`Tenure::verify`] and [`Tenure::watch`]
//!   tell of a loss.
//! * [`ScopedLock`] - an identity (a bot token, an account) that no other process of the machine
//!   has; acquired with a [`LockRequest`], from a [`Tenure`] or from the [`Store`].
//! * [`StopInquiry`] - asked by whatever handles the process' signals: why is it being stopped, and
//!   by whom? [`Replace`] and [`StopOptions`] are the other side.
//! * [`Report`] - what is true of an office, with the evidence; [`liveness`] decides it.
//! * [`StatusUpdate`] - what a gateway says of itself, beside that; [`Heartbeat`] proves that its
//!   loop turns.
//! * [`Shutdown`](forensics::Shutdown) - a signal that asks to end, with its sender, the cause and
//!   the exit code; handed out by [`Tenure::on_shutdown`]. [`forensics`] has the rest: snapshots,
//!   the check of the systemd unit ([`StopPhases`] adds up what it must give), the detached
//!   diagnostic.
//! * [`doctor`] - what keeps gateways from starting, or makes two of one, and what can be repaired
//!   safely.
//! * [`keeper`] - records and locks for processes that do not link this crate; [`run`] supervises a
//!   command in an office. Both, and the diagnostic, start [`helper`] processes.
//! * [`EventStream`] - every change of every process, as it is committed.
//! * [`Error`] - "could not find out"; its [`ErrorKind`] says what to do next.
//!
//! # Guarantees, each with its test
//!
//! | guarantee | test (`tests/it/`, or the module named) |
//! |---|---|
//! | of any number of contenders at once exactly one owns | `claims::contention` |
//! | of many contenders exactly one holds a lock that it can verify | `locks::contention` |
//! | a killed owner blocks nobody, and nothing has to be cleaned up | `kill` |
//! | a `run`'s command is gone before the next start is granted | `kill` |
//! | not being able to look evicts nobody | `liveness::tests`, `identity`, `identity::namespaces` |
//! | a recycled pid is never taken for the owner, and never blocks | `identity` |
//! | of many consumers exactly one gets a marker, and no later generation does | `markers` |
//! | an owner is never killed before the time that it published is over | `stop::takeover` |
//! | two supervisors that replace each other settle after one swap | `stop::swap` |
//! | a death during a takeover leaves one owner or none, and blocks nobody | `stop::swap` |
//! | a restart is served once, and the office is never free meanwhile | `stop::restart` |
//! | no process is signalled that is not proven to be the recorded one | `stop`, `stop::takeover` |
//! | the dead are never shown running, and nobody dies of an old status | `status` |
//! | an acknowledged status is not lost, and nobody reads half of one | `status::contention` |
//! | who follows the events ends with the state of the store | `status::contention`, `events` |
//! | who sent the signal is known, or why it is not | `forensics::snapshot` |
//! | every incarnation has an end; a question shows what the next writer records | `endings` |
//! | nothing of this waits for a stuck store | `forensics::snapshot` |
//! | nor for a hanging `systemctl` or a missing `ps` | `forensics` |
//! | no secret of a command line is stored or shown | `forensics::snapshot`, `locks::cli` |
//! | nor is it in a diagnostic | `forensics::diagnose` |
//! | questions write nothing and make nothing | `kill`, `store` |
//! | the identity of a lock is in no file, message or `ps` | `locks::cli::secrets` |
//! | what cannot be recorded is not held | `store` |
//! | of many threads that read none is refused for the others | `claims::library::readers` |
//! | a limit (tasks, open files, file size, path) is named, and ends nobody | `faults::limits` |
//! | no wall clock deletes history or makes a fence fall | `identity::clocks` |
//! | nothing crosses a fork | `claims::library::process` |
//! | a store deleted or replaced under its owner is noticed within a second | `lost_store::fates` |
//! | opening, deleting, replacing files loses nothing unnoticed | `lost_store` |
//! | nothing but a lost store makes its lock refuse others | `lost_store::orphans` |
//! | a damaged store is never a crash, a hang or a second owner; its bytes stay | `store::damage` |
//! | what the doctor calls a problem is one, and it writes nothing | `doctor` |
//! | an older gateway and a new one never have one office at once | `legacy` |
//! | an older program works on beside a newer one, or says why not | `versions` |
//!
//! # What it does not guarantee
//!
//! * A whole directory of a store that is *moved* away (not deleted) under its owner hides it from
//!   whoever begins a new store in its place, until the owner looks (100 ms to 1 s).
//! * Nothing reaches across machines: two hosts that share a token do not see each other.
//! * A resource that ignores the fence ([`Tenure::instance`], [`ScopedLock::fence`]) can be touched
//!   by an owner that was evicted while it was stopped, until its next verification.
//! * Processes of the same user can forge anything; the store is not a security boundary
//!   against its own user.
//! * `kill -9` of a `run` on macOS leaves its command alive until the next claimant ends it; so
//!   does a command on Linux that changed its user id, and a claimant in another pid namespace
//!   cannot find that one.
//!
//! # Threads, async, fork
//!
//! All types are `Send + Sync`; calls block, usually for tens of microseconds and at most for the
//! busy budget (5 s). Under tokio use `spawn_blocking`. A handle does not survive `fork`: every
//! call in the child is [`ErrorKind::Forked`], dropping it there does nothing, and what the parent
//! holds stays the parent's. The child cannot open that store again, but it can open another one.
//! The store works in a child that was forked before it was opened or after its last handle was
//! dropped, and in the program that a child executes.
//!
//! A process that uses this crate reads the store through it. On Linux it does no harm if it opens
//! and closes the files itself, or with another `SQLite`; elsewhere such a close cancels `SQLite`'s
//! locks.
//!
//! # Assumptions
//!
//! * `flock` (Windows: `LockFileEx`) is honoured between all processes that see the directory; it
//!   is tried out when an anchor is made, and filesystems known to break it are refused.
//! * POSIX record locks and shared memory work, as `SQLite`'s WAL needs them; on Linux 3.15 or
//!   later also locks of an open file (`F_OFD_SETLK`).
//! * The kernel releases the locks of a process that ends, and boot ids do not repeat.
//!
//! # Platforms
//!
//! Linux is complete and tested. Windows is tested under wine, without what wine lacks (console
//! groups, services, boot ids). macOS is compiled and type-checked only.

mod background;
mod claim;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod clock;
pub mod doctor;
mod environment;
mod error;
pub mod forensics;
pub mod helper;
pub mod keeper;
pub mod liveness;
pub mod marker;
mod names;
mod office;
mod owner;
mod path_text;
mod patience;
mod process;
mod records;
pub mod run;
mod scoped;
mod span;
pub mod state;
mod status;
mod stop_budget;
mod store;
#[allow(unsafe_code, reason = "the home of unsafe code")]
mod sys;
pub mod transfer;

/// Scoped locks.
pub mod lock {
    pub use crate::scoped::acquire::GrantedLock;
}

pub use crate::claim::examine::Evicted;
pub use crate::claim::guard::{LossWatch, Lost, Standing};
pub use crate::claim::sweep::Force;
pub use crate::clock::{Clock, ManualClock, SystemClock};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::marker::Consumed;
pub use crate::marker::inquiry::{StopAnswer, StopCause, StopInquiry};
pub use crate::marker::request::MarkerRequest;
pub use crate::names::{
    IdentityHash, InstanceId, Kind, LockName, MarkerName, Nonce, Office, ProfileName, Scope, Wanted,
};
pub use crate::office::claim::Claim;
pub use crate::office::evict::Eviction;
pub use crate::office::options::{ClaimOptions, Replace};
pub use crate::office::profile::Profile;
pub use crate::office::takeover::restart::{Restart, RestartOptions};
pub use crate::office::takeover::stop::{StopOptions, StopOutcome, StopReport};
pub use crate::office::tenure::status::Heartbeat;
pub use crate::office::tenure::{Replaced, Tenure};
pub use crate::owner::held_lock::HeldLock;
pub use crate::owner::holder::Holder;
pub use crate::patience::{Cancel, Stopped, Wait};
pub use crate::process::command_line::matcher::{CommandLineMatcher, DefaultMatcher};
pub use crate::process::descendants::LeftOver;
pub use crate::process::exit_code::{ExitCause, ExitCodes, ExitRule, Supervisor};
pub use crate::records::conflicts::Conflict;
pub use crate::records::events::Event;
pub use crate::records::markers::{Marker, Written};
pub use crate::records::profiles::Desired;
pub use crate::records::runtime::said::{PlatformStatus, RuntimeStatus};
pub use crate::scoped::acquire::PreviousLock;
pub use crate::scoped::ask::{LockReport, LockWaiter};
pub use crate::scoped::attempt::Acquire;
pub use crate::scoped::guard::ScopedLock;
pub use crate::scoped::request::{AcquireOptions, LockRequest};
pub use crate::scoped::unlock::{Unlocked, UnlockedLock};
pub use crate::span::Span;
pub use crate::status::events::EventStream;
pub use crate::status::field::Field;
pub use crate::status::history::Incarnation;
pub use crate::status::platform::PlatformUpdate;
pub use crate::status::report::{LastEnd, Report};
pub use crate::status::update::StatusUpdate;
pub use crate::stop_budget::StopPhases;
pub use crate::store::Store;
pub use crate::store::held::Released;
pub use crate::store::open::{Existing, OpenOptions};
pub use crate::store::pragmas::Durability;

/// The examples of the README are run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
