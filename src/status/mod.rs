//! What a gateway says of itself, what is true of it, and the stream of changes.

pub(crate) mod answer;
pub(crate) mod ended;
pub(crate) mod events;
pub(crate) mod field;
pub(crate) mod history;
pub(crate) mod platform;
pub(crate) mod recorded;
pub(crate) mod report;
mod stop_time;
pub(crate) mod update;
pub(crate) mod write;
