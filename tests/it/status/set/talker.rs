//! A gateway that links the library and holds the default office; it says what it is told to say.

use std::time::{Duration, Instant};

use incumbent::{StatusUpdate, Store};

use crate::support::{Process, Sandbox, forked, order, plays, role_db, tenure_of, test_name};

pub const ROLE_TEST: &str = test_name!(role_of_a_talker);
pub const TALKER: &str = "talker";

/// Plays a gateway that links the library and holds the default office.
#[test]
fn role_of_a_talker() {
    if !plays(TALKER) {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    let tenure = tenure_of(&store, "default");
    eprintln!("=> owns");
    let mut heart = None;
    while let Some(order) = order() {
        let words: Vec<&str> = order.split(' ').collect();
        let answer = match words.as_slice() {
            ["say", state] => {
                in_a_word(tenure.update_status(&StatusUpdate::new().state(*state)).map(drop))
            }
            ["promise", ms] => {
                let cadence = Duration::from_millis(ms.parse().unwrap());
                in_a_word(tenure.heartbeat(cadence).map(|made| heart = Some(made)))
            }
            ["beat", count] => {
                let started = Instant::now();
                for _ in 0..count.parse().unwrap() {
                    heart.as_ref().unwrap().beat();
                }
                started.elapsed().as_millis().to_string()
            }
            ["fork"] => {
                let child = forked::fork();
                if child == 0 {
                    forked::alarm(10);
                    let said = in_a_word(tenure.update_status(&StatusUpdate::new().state("child")));
                    let promised = in_a_word(tenure.heartbeat(Duration::from_secs(1)).map(drop));
                    heart.as_ref().unwrap().beat();
                    drop(heart.take());
                    eprintln!("child: {said} {promised}");
                    forked::leave();
                }
                forked::wait_for(child)
            }
            _ => panic!("{order}"),
        };
        eprintln!("=> {answer}");
    }
}

fn in_a_word(result: incumbent::Result<()>) -> String {
    match result {
        Ok(()) => "Ok".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

pub fn talker(sandbox: &Sandbox) -> Process {
    let mut talker = sandbox.role(ROLE_TEST, TALKER);
    talker.err_line_with("=> owns");
    talker
}
