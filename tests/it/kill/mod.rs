//! What does a death leave behind? A record that blocks nobody, and no command that runs on.

mod claimant;
mod command_lock;
mod left_behind;
mod owner;
mod random;
mod writers;
