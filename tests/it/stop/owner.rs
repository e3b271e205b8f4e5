//! An owner that links the library: it asks why, whenever it gets a TERM.

use std::process::Command;
use std::time::Duration;

use incumbent::marker::MarkerName;
use incumbent::stop::StopCause;
use incumbent::{Claim, ClaimOptions, Store};

use crate::support::{order, plays, role_db, test_name};

pub const ROLE_TEST: &str = test_name!(role_of_an_owner);
pub const OWNER: &str = "owner";
/// The stop budget that it publishes.
pub const BUDGET_MS: &str = "IT_BUDGET_MS";

/// Plays a gateway: asks why, whenever it gets a TERM, and lets go only when it is told to.
#[test]
fn role_of_an_owner() {
    if !plays(OWNER) {
        return;
    }
    let budget: u64 = std::env::var(BUDGET_MS).map_or(90_000, |ms| ms.parse().unwrap());
    let profile = Store::open(role_db()).unwrap().profile("default").unwrap();
    let options = ClaimOptions::new().stop_budget(Duration::from_millis(budget));
    let Claim::Granted(tenure) = profile.claim_with(&options).unwrap() else { panic!("held") };
    let inquiry = tenure.stop_inquiry();
    let mut signals = signal_hook::iterator::Signals::new([15]).unwrap();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let answer = inquiry.ask();
            let cause = match answer.cause {
                StopCause::PlannedStop(marker) => format!("planned_stop by {}", marker.by),
                StopCause::TakenOver(marker) => format!("takeover by {}", marker.by),
                StopCause::Unplanned => "unplanned".to_owned(),
                other => format!("{other:?}"),
            };
            eprintln!("=> TERM: {cause}; recorded: {}", answer.recorded);
        }
    });
    eprintln!("=> owns {}", tenure.instance());
    while let Some(order) = order() {
        match order.as_str() {
            "look" => {
                let name = MarkerName::restart();
                let found = tenure.consume_marker(Some(&name)).unwrap();
                eprintln!("=> {}", found.map_or_else(|| "none".to_owned(), |it| it.marker.by));
            }
            "again" => {
                use std::os::unix::process::CommandExt;
                let error = Command::new(std::env::current_exe().unwrap())
                    .args(std::env::args_os().skip(1))
                    .exec();
                panic!("{error}");
            }
            "release" => break,
            other => panic!("{other}"),
        }
    }
    tenure.release().unwrap();
    eprintln!("=> released");
}
