//! A program that links the library asks for the backoff that a `run` would wait for.

use std::time::Duration;

use incumbent::{Claim, Kind, Store};

use crate::support::{LIMIT, Process, Sandbox, obey_orders, plays, role_db, test_name, told};

const STARTER: &str = "starter";

/// Plays a gateway that crashes after its claim, or only asks.
#[test]
fn role_of_a_starter() {
    if !plays(STARTER) {
        return;
    }
    let profile = Store::open(role_db()).unwrap().profile("default").unwrap();
    obey_orders(|order| match order {
        "crash" => {
            let Claim::Granted(_tenure) = profile.claim().unwrap() else { panic!("held") };
            std::process::abort();
        }
        "ask" => match profile.backoff(&Kind::default()).unwrap() {
            Some(backoff) => format!("{} ms after {}", backoff.pause.as_millis(), backoff.starts),
            None => "none".to_owned(),
        },
        _ => panic!("{order}"),
    });
}

fn starter(sandbox: &Sandbox, party: &str) -> Process {
    let mut command = sandbox.role_command(test_name!(role_of_a_starter), STARTER);
    command.env("INCUMBENT_PARTY", party);
    Process::start(command)
}

fn asked(sandbox: &Sandbox, party: &str) -> String {
    let mut starter = starter(sandbox, party);
    starter.say("ask");
    told(&mut starter)
}

/// FIELD-BUGS row 46: a crash loop of a gateway without `run`. Its own party is to wait, and that
/// one alone.
#[test]
fn the_party_of_a_crash_loop_is_told_to_wait() {
    let sandbox = Sandbox::new();
    assert_eq!(asked(&sandbox, "red"), "none");
    for _ in 0..7 {
        let mut crashing = starter(&sandbox, "red");
        crashing.say("crash");
        crashing.wait(LIMIT);
    }
    let answer = asked(&sandbox, "red");
    let (pause, starts) = answer.split_once(" ms after ").unwrap_or_else(|| panic!("{answer}"));
    let pause = Duration::from_millis(pause.parse().unwrap());
    assert!(pause <= Duration::from_secs(5), "{answer}");
    assert_eq!(starts, "6", "the first one came after no crash");
    assert_eq!(asked(&sandbox, "blue"), "none");
}
