//! A stream of events, as the library gives it.

mod cost;
mod order;
pub mod replaced;
mod waiting;
