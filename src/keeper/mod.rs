//! Records and locks for processes that do not link the library.
//!
//! Such a process cannot hold an anchor. A keeper holds one for it, and releases it when the
//! process ends. A claim starts a keeper, which makes the record itself and so creates the anchor
//! that it holds. A second record for the same process leans on the first keeper. When the store is
//! replaced the keeper goes on in the new one.
//!
//! A keeper executes the [program for helpers](crate::helper). What it was started for outlives
//! the process that started it.
//!
//! ```standalone_crate
//! // The program begins with this, or `incumbent` is installed.
//! let arguments: Vec<_> = std::env::args_os().collect();
//! if let Some(exit_code) = incumbent::helper::serve(&arguments) {
//!     std::process::exit(exit_code);
//! }
//! # #[cfg(unix)] {
//! # let directory = tempfile::tempdir()?;
//! use incumbent::keeper::{KeptClaim, KeptStanding, Whom};
//! use incumbent::lock::AcquireOptions;
//! use incumbent::marker::{MarkerName, MarkerRequest};
//! use incumbent::{Acquire, Kind, LockRequest, Office, StatusUpdate, Store};
//!
//! let store = Store::open(directory.path().join("state.db"))?;
//! let work = store.profile("work")?;
//! let mut bot = std::process::Command::new("sleep").arg("600").spawn()?;
//! let kept = store.kept(Whom::Process(bot.id())).by("the start script");
//!
//! let KeptClaim::Granted { instance, .. } = kept.claim(&work, &Kind::default())? else {
//!     panic!("nobody else runs here");
//! };
//! assert_eq!(kept.instance()?.map(|(id, _)| id), Some(instance));
//! let office = Office { profile: work.name().clone(), kind: Kind::default() };
//! kept.say(&office, &StatusUpdate::new().state("running"))?;
//! assert_eq!(work.status()?.state.as_deref(), Some("running"));
//!
//! let token = LockRequest::new("telegram-bot-token", "123456:secret")?;
//! let Acquire::Granted(grant) = kept.acquire(work.name(), &token, &AcquireOptions::new())? else {
//!     panic!("nobody else has it");
//! };
//! let standing = kept.verify_lock(token.name(), Some(grant.lock.fence))?;
//! assert!(matches!(standing, KeptStanding::Held(_)));
//! assert_eq!(kept.release_locks()?, 1);
//!
//! store.write_marker(bot.id(), &MarkerRequest::new(MarkerName::new("reload")?))?;
//! assert!(kept.consume_marker(None)?.is_some());
//!
//! // All of it ends with the process.
//! bot.kill()?;
//! bot.wait()?;
//! assert!(!work.status()?.running);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod acquire;
pub(crate) mod arrival;
pub(crate) mod caller;
pub(crate) mod exec;
pub(crate) mod keep;
pub(crate) mod kept;
pub(crate) mod known;
pub(crate) mod life;
pub(crate) mod locks;
pub(crate) mod markers;
pub(crate) mod pair;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod release;
pub(crate) mod report;
pub(crate) mod speak;
pub(crate) mod start;
pub(crate) mod target;
pub(crate) mod tenant;
pub(crate) mod unused;
pub(crate) mod words;

pub use crate::keeper::process::{
    Anchoring, KeptClaim, KeptGrant, KeptLock, KeptProcess, KeptRecord, KeptRelease, KeptStanding,
    Whom,
};
