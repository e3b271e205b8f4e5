//! A stream of the library.

mod cost;
mod order;
pub mod replaced;
mod waiting;
