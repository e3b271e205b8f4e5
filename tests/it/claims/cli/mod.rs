//! `run` that waits for the office, or is started again and again.

mod storm;
mod wait;
