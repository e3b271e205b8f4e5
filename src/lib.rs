#![doc = include_str!("../docs/crate.md")]

pub mod liveness;

mod anchor;
mod clock;
mod command_line;
mod environment;
mod error;
mod instance;
mod names;
mod observe;
mod office;
mod party;
mod status;
mod store;
mod sys;
mod wait;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use clock::{Clock, ManualClock, SystemClock};
pub use command_line::{CommandLineMatcher, DefaultMatcher};
pub use error::{Error, ErrorKind, Result};
pub use names::{InstanceId, Kind, Nonce, Office, ProfileName};
pub use office::{
    Claim, ClaimOptions, Evicted, Eviction, Force, Holder, LossWatch, Lost, Profile, Released,
    Standing, Tenure,
};
pub use status::{Incarnation, LastEnd, Report};
pub use store::{Durability, OpenOptions, Store};
pub use wait::{Cancel, Wait};

#[cfg(test)]
mod smoke {
    use super::*;
    #[test]
    fn smoke() {
        let d = tempfile::tempdir().unwrap();
        let p = d.path().join("a/b/state.db");
        assert!(Store::open_existing(&p).unwrap().is_none());
        let s = Store::open(&p).unwrap();
        let prof = s.profile("default").unwrap();
        let Claim::Granted(t) = prof.claim().unwrap() else { panic!() };
        assert_eq!(t.verify().unwrap(), Standing::Held);
        println!("{}", serde_json::to_string_pretty(&prof.status().unwrap().to_json()).unwrap());
        let Claim::Granted(t2) = prof.claim().unwrap() else { panic!() };
        assert!(t2.reacquired());
        drop(t2);
        assert!(prof.status().unwrap().running);
        drop(t);
        println!("{}", serde_json::to_string_pretty(&prof.status().unwrap().to_json()).unwrap());
        println!("{:?}", prof.history(&Kind::default(), 10).unwrap());
    }
}
