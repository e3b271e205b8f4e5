//! The gateway that links the library: one order a line, one answer a line.

use std::time::Duration;

use incumbent::stop::Replace;
use incumbent::{Claim, ClaimOptions, ErrorKind, Standing, Store};

use crate::support::{Process, Sandbox, order, plays, role_db, test_name};

pub const ROLE: &str = test_name!(role_of_a_gateway);

/// Plays a gateway: `claim MS`, `replace`, `ask` (why it is being stopped), `release`, `verify`,
/// and `contend`, which claims again and again until it is granted or the test is gone.
#[test]
fn role_of_a_gateway() {
    if !plays("gateway") {
        return;
    }
    let profile = Store::open(role_db()).unwrap().profile("default").unwrap();
    let mut tenure = None;
    while let Some(order) = order() {
        let words: Vec<&str> = order.split(' ').collect();
        let options = match words[..] {
            ["claim", ms] => {
                let budget = Duration::from_millis(ms.parse().unwrap());
                Some(ClaimOptions::new().stop_budget(budget))
            }
            ["replace"] => Some(ClaimOptions::new().replace(Replace::new())),
            _ => None,
        };
        let answer = match (options, words[0]) {
            (Some(options), _) => match profile.claim_with(&options).unwrap() {
                Claim::Granted(granted) => {
                    let replaced = granted.replaced().map(|it| (it.pid.unwrap(), it.killed));
                    tenure = Some(granted);
                    format!("granted {replaced:?}")
                }
                Claim::Held(holder) => format!("held {}", holder.reason),
            },
            (None, "ask") => {
                let answer = tenure.as_ref().unwrap().stop_inquiry().ask();
                let debug = format!("{:?}", answer.cause);
                let cause = debug.split(['(', ' ']).next().unwrap_or_default();
                format!("{cause} {}", answer.recorded)
            }
            (None, "release") => format!("{:?}", tenure.take().unwrap().release().unwrap()),
            (None, "verify") => match tenure.as_ref().unwrap().verify().unwrap() {
                Standing::Held => "Held".to_owned(),
                Standing::Lost(lost) => format!("Lost {lost:?}"),
            },
            (None, "contend") => {
                eprintln!("=> contending");
                std::thread::spawn(move || {
                    while crate::support::order().is_some() {}
                    std::process::exit(0);
                });
                loop {
                    match profile.claim() {
                        Ok(Claim::Granted(_)) => {
                            eprintln!("=> STOLEN");
                            std::process::exit(1);
                        }
                        Ok(Claim::Held(_)) => {}
                        Err(error) if error.kind() == ErrorKind::Busy => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            (None, _) => panic!("{order}"),
        };
        eprintln!("=> {answer}");
    }
}

/// The role, deaf to TERM.
pub fn deaf_gateway(sandbox: &Sandbox, words: &[&str]) -> Process {
    let inner = sandbox.role_command(ROLE, "gateway");
    let mut command = sandbox.program(words.first().unwrap_or(&"/bin/sh"));
    if let [_, rest @ ..] = words {
        command.args(rest).arg("/bin/sh");
    }
    command.args(["-c", "trap '' TERM; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).env("IT_ROLE", "gateway");
    Process::start(command)
}
