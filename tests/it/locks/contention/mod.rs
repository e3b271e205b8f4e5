//! Many processes want the same few locks while they are killed, stopped and continued.

mod contenders;
mod lockers;
mod notes;
mod races;

const SCOPE: &str = "bot-token";

const LOCKS: usize = 5;

fn identity(lock: usize) -> String {
    format!("bot{lock}:secret")
}
