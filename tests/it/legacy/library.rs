//! A gateway that links the library, beside an older program: each respects the other.

use std::io::{Read, Write};

use incumbent::stop::StopCause;
use incumbent::{Claim, ClaimOptions, Standing, Store, Tenure};
use rustix::process::Signal;

use crate::support::older::Older;
use crate::support::{
    Identity, LIMIT, Process, Sandbox, ask, eventually, forked, kill, obey_orders, plays, role_db,
    test_name,
};

const GATEWAY: &str = "beside-older";

/// Plays a gateway: `claim DIR`, `verify`, `pass` (hands it over, or executes a program),
/// `release`, `fork` (a worker that stays, and has its own view of the store), `why` (catches
/// SIGTERM, says why it came).
#[test]
fn role_of_a_gateway_beside_an_older_one() {
    if !plays(GATEWAY) {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    let profile = store.profile("default").unwrap();
    let mut held: Vec<Tenure> = Vec::new();
    let mut signals = signal_hook::iterator::Signals::new([15]).unwrap();
    obey_orders(|order| match order.split_once(' ') {
        Some(("claim", home)) => {
            let options = ClaimOptions::new().legacy_home(home).unwrap();
            match profile.claim_with(&options).unwrap() {
                Claim::Granted(tenure) => {
                    held.push(tenure);
                    "granted".to_owned()
                }
                Claim::Held(holder) => format!("held by {:?}", holder.pid),
            }
        }
        None if order == "verify" => match held[0].verify().unwrap() {
            Standing::Held => "held".to_owned(),
            Standing::Lost(lost) => format!("{lost}"),
        },
        None if order == "pass" => {
            let program = || std::process::Command::new("/bin/true");
            let handed_over = held[0].hand_over(program(), LIMIT).unwrap_err();
            format!("{:?} {:?}", handed_over.kind(), held[0].exec(program()).kind())
        }
        None if order == "fork" => {
            let (mut hear, mut tell) = std::io::pipe().unwrap();
            let closed = Store::close_for_fork().unwrap();
            let worker = forked::fork();
            drop(closed);
            if worker == 0 {
                tell.write_all(&[1]).unwrap();
                forked::stay();
            }
            hear.read_exact(&mut [0]).unwrap();
            worker.to_string()
        }
        None if order == "release" => {
            let count = held.len();
            held.pop();
            format!("{count}")
        }
        None if order == "why" => {
            signals.forever().next();
            match held[0].stop_inquiry().ask().cause {
                StopCause::PlannedStop(marker) => format!("planned stop by {}", marker.by),
                cause => format!("{cause:?}"),
            }
        }
        _ => panic!("{order}"),
    });
}

impl Older<'_> {
    fn linked(&self) -> Process {
        self.sandbox.role(test_name!(role_of_a_gateway_beside_an_older_one), GATEWAY)
    }

    fn claim(&self) -> String {
        format!("claim {}", self.home())
    }
}

/// A successor would hold the office without the lock that keeps older gateways out.
#[test]
fn the_lock_of_an_older_program_is_not_handed_over() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut linked = older.linked();
    assert_eq!(ask(&mut linked, &older.claim()), "granted");
    assert_eq!(ask(&mut linked, "pass"), "Unsupported Unsupported");
    assert_eq!(ask(&mut linked, "verify"), "held");
    linked.finish(LIMIT).assert_code(0);
}

/// Symptom: a bot was ported to the library, and its old unit still started the old gateway: both
/// polled. It holds because the library holds the lock that the old one takes anyway.
#[test]
fn neither_starts_beside_the_other() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut linked = older.linked();
    let mut first = older.gateway();
    assert_eq!(ask(&mut linked, &older.claim()), format!("held by Some({})", first.pid()));
    first.kill();

    assert_eq!(ask(&mut linked, &older.claim()), "granted");
    assert_eq!(older.start("gateway").line(), "refused");
    assert_eq!(older.running(), linked.pid().to_string());
    let (code, _) = sandbox.json(["run", "--no-backoff", "--", "true"]);
    assert_eq!(code, 75, "the office is held as well");
    assert_eq!(ask(&mut linked, "verify"), "held");

    linked.kill();
    // The kernel let its lock go, and the older program cleans up after it.
    assert_eq!(older.running(), "None");
    older.gateway().kill();
}

/// Symptom: a gateway was killed, and neither it nor the older one started again: the lock of the
/// older program stayed held for as long as a worker lived that had been forked from it. Cause: the
/// worker had inherited the open file, and the lock is that of the file. It holds because a worker
/// closes it, which lets nothing of its parent's go.
#[test]
fn the_lock_of_a_killed_gateway_is_free_although_its_workers_live() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut linked = older.linked();
    assert_eq!(ask(&mut linked, &older.claim()), "granted");
    let worker: u32 = ask(&mut linked, "fork").parse().unwrap();
    let described = Identity::of(worker).unwrap();
    assert_eq!(older.start("gateway").line(), "refused");
    assert_eq!(ask(&mut linked, "verify"), "held");

    linked.kill();
    let mut next = older.linked();
    assert_eq!(ask(&mut next, &older.claim()), "granted");
    next.kill();
    assert_eq!(older.running(), "None");
    older.gateway().kill();
    assert!(!described.is_gone(), "the worker lived all the while");
    kill(worker, Signal::KILL);
}

/// Row 138. What a later version of the older program removes is put back, and the lock stays: no
/// second gateway starts meanwhile. A release leaves nothing behind that names us.
#[test]
fn what_the_older_program_removes_is_put_back() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut linked = older.linked();
    assert_eq!(ask(&mut linked, &older.claim()), "granted");
    let before = older.id("gateway.lock");
    std::fs::remove_file(older.file("gateway.lock")).unwrap();
    eventually("the lock is made again", LIMIT, || {
        let made = std::fs::metadata(older.file("gateway.lock")).is_ok();
        (made && older.id("gateway.lock") != before).then_some(())
    });
    eventually("it is locked", LIMIT, || {
        (older.start("gateway").line() == "refused").then_some(())
    });
    assert_eq!(ask(&mut linked, "verify"), "held");

    assert_eq!(ask(&mut linked, "release"), "1");
    assert!(!older.file("gateway.pid").exists());
    assert_eq!(older.read("gateway_state.json")["gateway_state"], "stopped");
    let mut next = older.gateway();
    next.kill();
}

/// A second claim of the process shares the lock as it shares the office.
#[test]
fn the_lock_stays_for_as_long_as_one_of_two_claims() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut linked = older.linked();
    for _ in 0..2 {
        assert_eq!(ask(&mut linked, &older.claim()), "granted");
    }
    assert_eq!(ask(&mut linked, "release"), "2");
    assert_eq!(older.start("gateway").line(), "refused");
    assert_eq!(ask(&mut linked, "release"), "1");
    older.gateway().kill();
}

/// Row 138's other half: an older program announces a stop by a file, and signals then. The gateway
/// learns from its inquiry who stops it.
#[test]
fn an_announced_stop_is_told_for_what_it_is() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut linked = older.linked();
    assert_eq!(ask(&mut linked, &older.claim()), "granted");
    let mut asking = sandbox.program("python3");
    asking.args(["older.py", "stops", older.home(), &linked.pid().to_string()]);
    let asked = Process::start(asking).finish(LIMIT).assert_code(0);
    let why = ask(&mut linked, "why");
    assert_eq!(why, format!("planned stop by an older program (pid {})", asked.out.trim()));
    assert!(!older.file(".gateway-planned-stop.json").exists());
}
