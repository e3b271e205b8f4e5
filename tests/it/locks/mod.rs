//! Scoped locks: who holds a token, an account, a port, and may I have it?

pub mod cli;
mod contention;
mod library;
