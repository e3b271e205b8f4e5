//! One live owner for each gateway and for each token of the machine, decided by the kernel: an
//! embedded state engine in place of PID files, lock files and status JSON.
//!
//! ```
//! use incumbent::{Acquire, Claim, LockRequest, Standing, Store};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("state.db");
//! let store = Store::open(&path)?; // Store::open_default() for the user's own
//! let tenure = match store.profile("work")?.claim()? {
//!     Claim::Granted(tenure) => tenure, // drop it, or be killed: the office is free
//!     Claim::Held(holder) => return Err(format!("{holder}; {}", holder.advice()).into()),
//! };
//! let token = LockRequest::new("telegram-bot-token", "123456:secret")?;
//! let Acquire::Granted(lock) = tenure.try_acquire(&token)? else {
//!     return Err("another process polls with this token".into());
//! };
//! // Before an act that two owners must not both do:
//! assert_eq!(lock.verify()?, Standing::Held);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Everything lives in one `SQLite` file that many profiles and processes share. A claim is one
//! write transaction that looks at the recorded owner, judges it, ends it if it is dead and inserts
//! the new one; "alive" rests on a kernel lock (the *anchor*) that ends with its process, whatever
//! ends that. A stale record needs no cleaning: it blocks nobody.
//!
//! # The types to know
//!
//! * [`Store`] - the file; one shared handle per file and process, however often it is opened.
//! * [`Profile`] - a named configuration in it; claims, asks, evicts.
//! * [`Claim`] - the answer to a claim: a [`Tenure`] or the [`Holder`] who explains itself.
//! * [`Tenure`] - a held office. Dropping it releases; [`Tenure::verify`] and [`Tenure::watch`]
//!   tell of a loss. [`Tenure::from_environment`] adopts the one of an `incumbent run`, or of a
//!   predecessor that handed it over ([`Tenure::exec`], [`Tenure::hand_over`]).
//! * [`ScopedLock`] - an identity (a bot token, an account) that no other process of the machine
//!   has; acquired with a [`LockRequest`], from a [`Tenure`] or from the [`Store`].
//! * [`StopInquiry`](stop::StopInquiry) - asked by what handles the process' signals: why is it
//!   being stopped, and by whom? [`Replace`](stop::Replace) and
//!   [`StopOptions`](stop::StopOptions) are the other side.
//! * [`Report`] - what is true of an office, with the evidence; [`liveness`] decides it.
//! * [`StatusUpdate`] - what a gateway says of itself, beside that; [`Heartbeat`] proves that its
//!   loop turns.
//! * [`Shutdown`](forensics::Shutdown) - a signal that asks to end, with its sender, the cause and
//!   the exit code; handed out by [`Tenure::on_shutdown`]. [`forensics`] has the rest: snapshots,
//!   the check of the systemd unit ([`StopPhases`](stop::StopPhases) adds up what it must give),
//!   the detached diagnostic.
//! * [`doctor`] - what blocks a start or could let two gateways run, and what can be repaired
//!   safely.
//! * [`keeper`] - records and locks for processes that do not link this crate; [`run`] supervises a
//!   command in an office. Both, and the diagnostic, start [`helper`] processes.
//! * [`process`] - whether a process lives that is on record nowhere, and ending it, proven;
//!   [`query`] - read-only SQL; [`transfer`] - the files of an older program; [`mod@unit`] - what a
//!   supervisor is told of a gateway.
//! * [`EventStream`](status::EventStream) - every change of every process, as it is committed.
//! * [`Error`] - "could not find out"; its [`ErrorKind`] says what to do next.
//!
//! # Guarantees, each with its test
//!
//! | guarantee | test (`tests/it/`, or the module named) |
//! |---|---|
//! | of any number of contenders at once exactly one owns | `claims::contention` |
//! | of many contenders exactly one holds a lock that it can verify | `locks::contention` |
//! | of an exclusive lock one guard exists, within one process, too | `locks::library::exclusive` |
//! | of n slots never more than n are held, nor one of them twice | `locks::library::slots` |
//! | a long wait asks its caller, and is one waiter on record | `claims::library::asked` |
//! | a killed owner blocks nobody, and nothing has to be cleaned up | `kill` |
//! | a `run`'s command is gone before the next start is granted | `kill` |
//! | not being able to look evicts nobody | `liveness::tests`, `identity`, `identity::namespaces` |
//! | a recycled pid is never taken for the owner, and never blocks | `identity` |
//! | of many consumers exactly one gets a marker, and no later generation does | `markers` |
//! | an owner is never killed before the time that it published is over | `stop::takeover` |
//! | two supervisors that replace each other settle after one swap | `stop::swap` |
//! | a death during a takeover leaves one owner or none, and blocks nobody | `stop::swap` |
//! | a restart is served once, and the office is never free meanwhile | `stop::restart` |
//! | no process is signalled that is not proven to be the recorded one | `stop`, `verbs::signal` |
//! | a wait for a gateway ends when it is ready, or when that one has ended | `verbs::wait` |
//! | one that is frozen, or that its supervisor starts again, is said to be | `verbs` |
//! | a machine that slept has missed no heartbeat | `status::set` |
//! | an office that is handed over is never free, and never of two | `handover` |
//! | the command of a `run` is not refused by it | `handover::in_run` |
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
//! busy budget (5 s), but for those that wait for another process. Under tokio use
//! `spawn_blocking`; an event loop waits for a [`Readiness`]. A handle does not survive `fork`:
//! every call in the child is [`ErrorKind::Forked`], dropping it there does nothing, and what the
//! parent holds stays the parent's. The child can open that store again if the parent closed it for
//! the fork ([`Store::close_for_fork`]), if it was forked before the store was opened or after its
//! last handle was dropped, and in a program that it executes. What is held goes to another
//! program, in this process or in a child, by [`Tenure::exec`] and [`Tenure::hand_over`] alone.
//! `docs/linking.md` has more of this, and signals, panics and exits.
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
pub mod clock;
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
pub mod process;
pub mod query;
mod records;
pub mod run;
mod scoped;
mod span;
mod state;
pub mod status;
mod stop_budget;
mod store;
#[allow(unsafe_code, reason = "the home of unsafe code")]
mod sys;
pub mod transfer;
pub mod unit;
mod words;

pub use crate::background::readiness::Readiness;
pub use crate::claim::guard::{LossWatch, Lost, Standing};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::liveness::{Reason, Verdict};
pub use crate::names::{InstanceId, Kind, LockName, Nonce, Office, ProfileName, Wanted};
pub use crate::office::claim::Claim;
pub use crate::office::options::ClaimOptions;
pub use crate::office::profile::Profile;
pub use crate::office::tenure::Tenure;
pub use crate::office::tenure::status::Heartbeat;
pub use crate::owner::holder::Holder;
pub use crate::patience::{Cancel, Wait};
pub use crate::scoped::attempt::Acquire;
pub use crate::scoped::guard::ScopedLock;
pub use crate::scoped::request::LockRequest;
pub use crate::status::report::Report;
pub use crate::status::update::StatusUpdate;
pub use crate::store::Store;
pub use crate::store::fork::ClosedForFork;
pub use crate::store::held::Released;
pub use crate::store::open::{Existing, OpenOptions};
pub use crate::store::pragmas::Durability;

/// Scoped locks beyond [`LockRequest`] and [`ScopedLock`]: how to wait for them, what is known of
/// them, and how to remove one by hand.
pub mod lock {
    pub use crate::names::slot::Slot;
    pub use crate::names::{IdentityHash, Scope};
    pub use crate::owner::held_lock::HeldLock;
    pub use crate::patience::Stopped;
    pub use crate::scoped::acquire::{GrantedLock, PreviousLock};
    pub use crate::scoped::ask::LockReport;
    pub use crate::scoped::request::AcquireOptions;
    pub use crate::scoped::unlock::{Unlocked, UnlockedLock};
}

/// The end of a holder: asking it to stop or to restart, taking its place, ending its record, and
/// whether a supervisor starts it again; a signal that is no request to end; and, on the other
/// side, why one is being stopped.
pub mod stop {
    pub use crate::claim::examine::Evicted;
    pub use crate::claim::sweep::Force;
    pub use crate::forensics::starts_again::StartsAgain;
    pub use crate::marker::inquiry::{StopAnswer, StopCause, StopInquiry};
    pub use crate::office::evict::Eviction;
    pub use crate::office::options::Replace;
    pub use crate::office::signal::Signalled;
    pub use crate::office::takeover::restart::{Restart, RestartOptions};
    pub use crate::office::takeover::restarter::Restarter;
    pub use crate::office::takeover::stop::{StopOptions, StopOutcome, StopReport};
    pub use crate::office::tenure::Replaced;
    pub use crate::process::descendants::LeftOver;
    pub use crate::stop_budget::StopPhases;
}

/// Handing an office over without a gap, and going on with one that was handed over.
pub mod handover {
    pub use crate::office::handover::{HandedOver, Inherited, NotInherited, NotTaken, Successor};
}

/// Why a process ends, what it says of that, and the exit code that its supervisor understands.
pub mod exit {
    pub use crate::office::tenure::last_word::End;
    pub use crate::process::exit_code::{ExitCause, ExitCodes, ExitRule, Supervisor};
}

/// The examples of the README are run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

/// So are those of the page about linking.
#[cfg(doctest)]
#[doc = include_str!("../docs/linking.md")]
struct LinkingExamples;
