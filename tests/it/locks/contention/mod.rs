//! Many processes want the same few locks while they are killed, stopped and continued: each gets
//! its turn, nobody loses one for nothing, and nothing is left.

mod contenders;
mod lockers;
mod notes;
mod races;

const SCOPE: &str = "bot-token";

const LOCKS: usize = 5;

fn identity(lock: usize) -> String {
    format!("bot{lock}:secret")
}
