//! Who gets the office: of many at once, after a wait, from a storm of restarts, in one process
//! with many handles?

mod cli;
mod contention;
pub mod library;
mod many_rows;
