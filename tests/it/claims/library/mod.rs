//! Processes that link the library: shared handles, forks, waits, homes, evictions.

mod asked;
mod forks;
pub mod gateway;
mod history;
mod homes;
mod process;
mod readers;
mod waits;
mod with_locks;

use crate::support::Process;

/// `"=> answers"` of the child, and how it ended.
#[track_caller]
fn ask_child(gateway: &mut Process, orders: &str) -> (String, String) {
    gateway.say(&format!("fork {orders}"));
    let mut said = String::new();
    loop {
        let line = gateway.err_line();
        if let Some((_, answers)) = line.split_once("child: ") {
            answers.clone_into(&mut said);
        } else if let Some((_, end)) = line.split_once("=> ") {
            return (said, end.to_owned());
        }
    }
}
