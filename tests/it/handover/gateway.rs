//! The gateway that is handed over, ordered about by the tests: one order a line, one answer a
//! line. Its successor inherits its standard streams, and obeys in its place.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use incumbent::exit::End;
use incumbent::exit::{ExitCodes, Supervisor};
use incumbent::handover::{HandedOver, Inherited};
use incumbent::marker::MarkerName;
use incumbent::stop::StopCause;
use incumbent::{
    Acquire, Claim, ClaimOptions, LockRequest, ScopedLock, StatusUpdate, Store, Tenure, Wait,
};
use rustix::process::{Signal, getpid, kill_process};

use crate::support::{LIMIT, Process, Sandbox, order, plays, role_db, test_name};

pub const ROLE_TEST: &str = test_name!(role_of_a_gateway);
pub const GATEWAY: &str = "gateway that is handed over";

/// What a successor does.
const CONDUCT: &str = "IT_CONDUCT";

/// One answer, in one piece: predecessor and successor may speak at once.
macro_rules! say {
    ($($words:tt)*) => {
        std::io::stderr().write_all(format!("=> {}\n", format_args!($($words)*)).as_bytes()).unwrap()
    };
}

impl Sandbox {
    pub fn predecessor(&self) -> Process {
        self.role(ROLE_TEST, GATEWAY)
    }
}

/// Plays a gateway, or its successor.
#[test]
fn role_of_a_gateway() {
    if !plays(GATEWAY) {
        return;
    }
    let conduct = std::env::var(CONDUCT).unwrap_or_default();
    let store = Store::open(role_db()).unwrap();
    let (conduct, argument) = match conduct.strip_prefix("executes once ") {
        Some(file) => ("executes once", file),
        None => conduct.split_once(' ').unwrap_or((&conduct, "")),
    };
    match conduct {
        "ends" => std::process::exit(3),
        "sleeps" => loop {
            std::thread::park();
        },
        // In the middle of whatever it does then.
        "dies" => {
            let after = Duration::from_micros(argument.parse().unwrap());
            std::thread::spawn(move || {
                std::thread::sleep(after);
                kill_process(getpid(), Signal::KILL).unwrap();
            });
        }
        "waits" => {
            say!("waits {}", std::process::id());
            assert_eq!(order().as_deref(), Some("go"));
        }
        "claims" => return obey(&store, claim(&store), "claim"),
        // Takes no orders before.
        "executes once" => {
            say!("waits {}", std::process::id());
            wait_for(argument);
            let inherited = Tenure::from_environment(&store).unwrap();
            let error = inherited.tenure().unwrap().exec(successor("stays"));
            panic!("{error}");
        }
        _ => {}
    }
    let (tenure, how) = match Tenure::from_environment(&store).unwrap() {
        Inherited::FromPredecessor(tenure) => (tenure, "predecessor"),
        Inherited::FromRun(tenure) => (tenure, "run"),
        Inherited::Nothing(why) => {
            // Who was started by the test alone is given nothing, and that is nothing to be told.
            if !conduct.is_empty() || std::env::var_os("INCUMBENT_INSTANCE").is_some() {
                say!("nothing {}", why.as_str());
            }
            // A successor that gets nothing ends, or claims; whoever was started by the test claims.
            if !conduct.is_empty() && argument != "or claims" {
                std::process::exit(4);
            }
            (claim(&store), "claim")
        }
        inherited => panic!("{inherited:?}"),
    };
    obey(&store, tenure, how);
}

fn wait_for(file: &str) {
    while !Path::new(file).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whoever has it lets it go, or is about to.
fn claim(store: &Store) -> Tenure {
    let options = ClaimOptions::new().version("1").wait(Wait::UpTo(LIMIT));
    match store.profile("default").unwrap().claim_with(&options).unwrap() {
        Claim::Granted(tenure) => tenure,
        Claim::Held(holder) => {
            say!("held {holder}");
            std::process::exit(75);
        }
    }
}

fn request(identity: &str) -> LockRequest {
    LockRequest::new("token", identity).unwrap()
}

/// This program again, as a successor that does `conduct`.
fn successor(conduct: &str) -> Command {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(arguments.next().unwrap());
    command.args(arguments).env(CONDUCT, conduct);
    command
}

/// One of the slots of a lock.
fn slot(tenure: &Tenure, of: u32, identity: &str) -> Option<ScopedLock> {
    match tenure.try_acquire(&request(identity).slots(of).unwrap()).unwrap() {
        Acquire::Granted(lock) => {
            say!("slot {} {}", lock.slot().unwrap().number, lock.reacquired());
            Some(lock)
        }
        Acquire::Held(holder) => {
            say!("held by us: {}", holder.is_this_process);
            None
        }
    }
}

#[allow(clippy::too_many_lines, reason = "an arm for each order")]
fn obey(store: &Store, tenure: Tenure, how: &str) {
    let mut locks: Vec<ScopedLock> = Vec::new();
    let (claimed, mut other) = (std::sync::mpsc::channel(), None);
    let mut watches = Vec::new();
    say!("owns {how} {} {}", tenure.instance(), std::process::id());
    if std::env::var(CONDUCT).as_deref() == Ok("stays") {
        loop {
            std::thread::park();
        }
    }
    let mut tenure = Some(tenure);
    while let Some(order) = order() {
        let ours = tenure.as_ref();
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["verify"] => say!("{:?}", ours.unwrap().verify().unwrap()),
            ["status", word] => {
                ours.unwrap().update_status(&StatusUpdate::new().state(word)).unwrap();
                say!("said");
            }
            ["lock", identity] => match ours.unwrap().try_acquire(&request(identity)).unwrap() {
                Acquire::Granted(lock) => {
                    say!("fence {} {}", lock.fence(), lock.reacquired());
                    locks.push(lock);
                }
                Acquire::Held(holder) => say!("held {holder}"),
            },
            ["slot", of, identity] => {
                locks.extend(slot(ours.unwrap(), of.parse().unwrap(), identity));
            }
            // From a thread, while the main one hands over.
            ["claim", "other", "once", file] => {
                let (store, file, sender) = (store.clone(), file.to_owned(), claimed.0.clone());
                std::thread::spawn(move || {
                    wait_for(&file);
                    let claim = store.profile("other").unwrap().claim().unwrap();
                    let Claim::Granted(tenure) = claim else { panic!("held") };
                    sender.send(tenure).unwrap();
                    say!("claimed");
                });
                say!("waits for it");
            }
            ["verify", "other"] => {
                let tenure = other.get_or_insert_with(|| claimed.1.recv().unwrap());
                say!("{:?}", tenure.verify().unwrap());
            }
            ["verify", "locks"] => {
                let all: Vec<_> = locks.iter().map(ScopedLock::verify).collect();
                say!("{all:?}");
            }
            ["lock", "without", "office", identity] => {
                let Acquire::Granted(lock) = store.try_acquire(&request(identity)).unwrap() else {
                    panic!("held");
                };
                locks.push(lock);
                say!("locked");
            }
            ["unlock"] => {
                locks.clear();
                say!("unlocked");
            }
            ["consume", name] => {
                let name = MarkerName::new(name).unwrap();
                let consumed = ours.unwrap().consume_marker(Some(&name)).unwrap();
                say!("{:?}", consumed.map(|it| it.marker.reason));
            }
            ["heed", "stop"] => {
                let codes = ExitCodes::of(Supervisor::None);
                let heeds = ours.unwrap().on_shutdown(codes, |shutdown| {
                    let StopCause::PlannedStop(marker) = &shutdown.stop.cause else {
                        panic!("{:?}", shutdown.stop)
                    };
                    say!("stopped: {:?}", marker.reason);
                    std::process::exit(0);
                });
                watches.push(heeds.unwrap());
                say!("heeds");
            }
            ["drop"] => {
                drop(tenure.take());
                say!("dropped");
            }
            ["end", code] => {
                let code: i32 = code.parse().unwrap();
                let end = End::crashed().exit_code(code).detail("KeyError: 'chat' in bot.py:31");
                say!("{:?}", tenure.take().unwrap().release_with(end).unwrap());
                std::process::exit(code);
            }
            ["exec", "run"] => {
                let part = successor("adopts");
                let mut run = Command::new(env!("CARGO_BIN_EXE_incumbent"));
                run.arg("--db").arg(role_db()).args(["run", "--no-backoff", "--"]);
                run.arg(part.get_program()).args(part.get_args()).env(CONDUCT, "adopts");
                let error = ours.unwrap().exec(run);
                say!("{:?} {error}", error.kind());
            }
            ["exec", "missing"] => {
                let error = ours.unwrap().exec(Command::new("/no/such/program"));
                say!("{:?} {error}", error.kind());
            }
            ["exec", ..] => {
                let error = ours.unwrap().exec(successor(&words[1..].join(" ")));
                say!("{:?} {error}", error.kind());
            }
            // The successor has no part in our orders, nor in our answers if it is not to.
            ["hand", "over", "aside", within_ms, ..] => {
                let mut aside = successor(&words[4..].join(" "));
                aside.stdin(Stdio::null());
                say!("{}", hand_over(ours.unwrap(), aside, within_ms));
            }
            ["hand", "over", "missing", within_ms] => {
                let missing = Command::new("/no/such/program");
                say!("{}", hand_over(ours.unwrap(), missing, within_ms));
            }
            ["hand", "over", within_ms, ..] => {
                let answer = hand_over(ours.unwrap(), successor(&words[3..].join(" ")), within_ms);
                say!("{answer}");
                if answer.starts_with("handed over") {
                    // Its orders are the successor's now.
                    std::process::exit(0);
                }
            }
            _ => panic!("{order}"),
        }
    }
    drop(tenure.take());
}

fn hand_over(tenure: &Tenure, command: Command, within_ms: &str) -> String {
    let within = Duration::from_millis(within_ms.parse().unwrap());
    match tenure.hand_over(command, within) {
        Ok(HandedOver::Yes(successor)) => {
            format!("handed over {} {}", successor.instance, successor.child.id())
        }
        Ok(HandedOver::No(why)) => format!("kept: {why}"),
        Ok(handed_over) => panic!("{handed_over:?}"),
        Err(error) => format!("{:?} {error}", error.kind()),
    }
}
