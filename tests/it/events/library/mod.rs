//! A stream of events, as the library gives it.

mod cost;
mod order;
mod polled;
pub mod replaced;
mod waiting;
