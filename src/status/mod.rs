//! What a gateway says of itself, what is true of it, and the stream of changes.

pub(crate) mod answer;
pub(crate) mod ended;
pub(crate) mod events;
pub(crate) mod field;
pub(crate) mod history;
mod instance;
pub(crate) mod past;
pub(crate) mod platform;
pub(crate) mod ready;
pub(crate) mod recorded;
pub(crate) mod report;
pub(crate) mod slept;
mod stop_time;
pub(crate) mod summary;
pub(crate) mod update;
pub(crate) mod write;

pub use crate::owner::waiter::Waiter;
pub use crate::records::conflicts::Conflict;
pub use crate::records::counters::{Counters, EndCount};
pub use crate::records::events::Event;
pub use crate::records::profiles::Desired;
pub use crate::records::runtime::said::{PlatformStatus, RuntimeStatus};
pub use crate::records::starts::RefusedStart;
pub use crate::status::events::EventStream;
pub use crate::status::field::Field;
pub use crate::status::history::Incarnation;
pub use crate::status::instance::{Fate, Instance, InstanceEnd};
pub use crate::status::past::{EventOptions, HistoryOptions};
pub use crate::status::platform::PlatformUpdate;
pub use crate::status::ready::{Awaited, ReadyOptions};
pub use crate::status::report::LastEnd;
pub use crate::status::summary::Manner;

/// The states of a gateway that others understand; any other word is as good, for people.
pub mod state {
    pub use crate::state::{
        DEGRADED, DRAINING, RUNNING, STARTING, STARTUP_FAILED, STOPPED, is_final,
    };
}
