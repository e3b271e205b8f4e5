//! `run` alone: waits and restarts.

mod storm;
mod wait;
