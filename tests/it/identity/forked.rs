//! Owners that fork or execute themselves again.

use rustix::process::Signal;
use serde_json::json;

use super::assert_office_refused;
use crate::support::forked::fork;
use crate::support::{
    Identity, LIMIT, Process, Sandbox, kill, order, plays, role, role_db, test_name,
};

pub const FORKING_OWNER: &str = test_name!(role_of_a_forking_owner);
pub const RE_EXECUTING_OWNER: &str = test_name!(role_of_a_re_executing_owner);

/// The part of a gateway that links the library, claims, and forks without executing anything.
#[test]
fn role_of_a_forking_owner() {
    if !plays("forking owner") {
        return;
    }
    let store = incumbent::Store::open(role_db()).unwrap();
    let profile = store.profile("default").unwrap();
    let incumbent::Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
    let order_to_fork = order().unwrap();
    let child = fork();
    if child == 0 {
        // Everything here is refused, nothing here gives the parent's office away.
        let verify = tenure.verify().map_err(|error| error.kind());
        let claim = profile.claim().map(drop).map_err(|error| error.kind());
        let status = profile.status().map(drop).map_err(|error| error.kind());
        let open = incumbent::Store::open(role_db()).map(drop).map_err(|error| error.kind());
        match order_to_fork.as_str() {
            "fork and drop" => drop((tenure, profile, store)),
            "fork and keep" => std::mem::forget((tenure, profile, store)),
            other => panic!("{other}"),
        }
        eprintln!("child {}: {verify:?} {claim:?} {status:?} {open:?}", std::process::id());
        // Stays until the test is done with it; no destructor, no exit handler.
        loop {
            std::thread::park();
        }
    }
    while let Some(order) = order() {
        assert_eq!(order, "verify");
        eprintln!("parent: {:?}", tenure.verify());
    }
}

struct ForkedOwner {
    parent: Process,
    child: Identity,
}

impl ForkedOwner {
    fn new(sandbox: &Sandbox, order: &str) -> Self {
        let mut parent = sandbox.role(FORKING_OWNER, "forking owner");
        parent.say(order);
        let said = parent.err_line_with("child ");
        let pid = said.split([' ', ':']).nth(1).unwrap().parse().unwrap();
        assert_eq!(said.matches("Err(Forked)").count(), 4, "in the child: {said}");
        Self { parent, child: Identity::of(pid).unwrap() }
    }

    fn verify(&mut self) -> String {
        self.parent.say("verify");
        self.parent.err_line_with("parent: ")
    }
}

/// FIELD-BUGS row 70.
///
/// Symptom: a forked child's cleanup let go of its parent's lock. Cause: a flock belongs to the
/// open file, which a fork shares. It holds because every handle knows the process that made it: in
/// any other one its calls are errors and its drop does nothing.
#[test]
fn a_forked_child_gives_nothing_away() {
    for order in ["fork and drop", "fork and keep"] {
        let sandbox = Sandbox::new();
        let mut owner = ForkedOwner::new(&sandbox, order);
        assert!(owner.verify().contains("Ok(Held)"));
        assert_office_refused(&sandbox, 0, "alive", "anchor_held");
        kill(owner.child.pid, Signal::KILL);
        owner.child.wait_gone(LIMIT);
        assert!(owner.verify().contains("Ok(Held)"));
        assert_office_refused(&sandbox, 0, "alive", "anchor_held");
        owner.parent.finish(LIMIT).assert_code(0);
        sandbox.assert_status(3, "dead", "released");
    }
}

/// R:FD. FIELD-BUGS rows 3, 69 and 71.
///
/// Symptom: "locked by another instance", and nobody runs. Cause: a forked child shares the lock
/// and outlives its owner. It holds because a held lock whose recorded process is proven gone keeps
/// nobody out.
#[test]
fn a_forked_child_that_outlives_the_owner_keeps_nobody_out() {
    for (order, anchor, reason, flags) in [
        ("fork and drop", "free", "anchor_released", json!([])),
        ("fork and keep", "held", "no_such_process", json!(["anchor_leaked"])),
    ] {
        let sandbox = Sandbox::new();
        let mut owner = ForkedOwner::new(&sandbox, order);
        owner.parent.kill();
        assert!(!owner.child.is_gone(), "the test is about a child that lives");
        let status = sandbox.assert_status(3, "dead", reason);
        assert_eq!(status["evidence"]["anchor"], anchor, "{order}: {status:#}");
        assert_eq!(status["flags"], flags, "{order}: {status:#}");
        let holders = if anchor == "held" { json!([owner.child.pid]) } else { json!([]) };
        assert_eq!(status["evidence"]["anchor_holders"], holders, "{order}: {status:#}");
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        sandbox.hold(&[]).end().assert_code(0);
        assert!(!owner.child.is_gone(), "nobody but its owner may end it");
        kill(owner.child.pid, Signal::KILL);
    }
}

/// An owner that executes itself anew (an upgrade in place) is the same process, and gets its
/// office back although its lock went with the exec.
#[test]
fn role_of_a_re_executing_owner() {
    let role = role();
    let (Some("first life" | "second life"), Some(now)) = (role.as_deref(), &role) else { return };
    let store = incumbent::Store::open(role_db()).unwrap();
    let claim = store.profile("default").unwrap().claim().unwrap();
    let incumbent::Claim::Granted(tenure) = claim else { panic!("{claim:?}") };
    eprintln!("{now}: {} {}", std::process::id(), tenure.instance());
    if now == "first life" {
        assert_eq!(order().as_deref(), Some("execute"));
        let mut arguments = std::env::args_os();
        let error = std::os::unix::process::CommandExt::exec(
            std::process::Command::new(arguments.next().unwrap())
                .args(arguments)
                .env("IT_ROLE", "second life"),
        );
        panic!("{error}");
    }
    assert_eq!(order(), None);
}

#[test]
fn a_re_executed_owner_gets_its_office_back() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.role(RE_EXECUTING_OWNER, "first life");
    let first = owner.err_line_with("first life: ");
    owner.say("execute");
    let second = owner.err_line_with("second life: ");
    let pid = owner.pid().to_string();
    assert!(first.contains(&pid) && second.contains(&pid), "{first}; {second}");
    let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
    assert_eq!(status["pid"], owner.pid());
    let history = sandbox.history();
    assert_eq!(history.len(), 2, "{history:#?}");
    assert_eq!(history[1]["end_reason"], "re_executed", "{history:#?}");
    owner.finish(LIMIT).assert_code(0);
}
