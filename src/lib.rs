#![doc = include_str!("../docs/crate.md")]

pub mod liveness;

mod anchor;
mod clock;
mod command_line;
mod environment;
mod error;
mod events;
mod instance;
mod names;
mod observe;
mod office;
mod party;
#[cfg(feature = "cli")]
mod span;
mod status;
mod store;
#[allow(unsafe_code, reason = "the home of unsafe code")]
mod sys;
mod wait;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use clock::{Clock, ManualClock, SystemClock};
pub use command_line::{CommandLineMatcher, DefaultMatcher};
pub use events::Event;
pub use error::{Error, ErrorKind, Result};
pub use names::{InstanceId, Kind, Nonce, Office, ProfileName};
pub use office::{
    Claim, ClaimOptions, Evicted, Eviction, Force, Holder, LossWatch, Lost, Profile, Released,
    Standing, Tenure,
};
pub use status::{Incarnation, LastEnd, Report};
pub use store::{Durability, OpenOptions, Store};
pub use wait::{Cancel, Wait};
