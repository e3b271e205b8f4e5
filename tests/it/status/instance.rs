//! An instance id in a table of the application's own: does its owner still act, and how did it
//! end?

use incumbent::liveness::AnchorState;
use incumbent::status::{Fate, Instance, InstanceEnd};
use incumbent::stop::Force;
use incumbent::{Claim, InstanceId, Kind, LockRequest, Reason, Store, Verdict};
use rustix::process::Signal;

use crate::support::{
    BINARY, LIMIT, Process, Sandbox, Stat, assert_untouched, fingerprint, kill, pid_namespace,
    skipped, tagged, wait_stopped,
};

impl Sandbox {
    /// As a process asks that owns nothing here.
    #[track_caller]
    fn instance(&self, id: i64) -> Option<Instance> {
        let store = Store::open_existing(self.db()).unwrap().unwrap();
        store.instance(InstanceId::from_i64(id).unwrap()).unwrap()
    }

    fn newest_instance(&self) -> i64 {
        self.number("SELECT max(id) FROM instances")
    }
}

#[track_caller]
fn ended(instance: Option<Instance>) -> InstanceEnd {
    let instance = instance.expect("it is on record");
    assert!(instance.has_ended());
    match instance.fate {
        Fate::Ended(end) => end,
        Fate::Live(judged) => panic!("{judged:?}"),
    }
}

#[track_caller]
fn live(instance: Option<Instance>) -> (Verdict, Reason) {
    let instance = instance.expect("it is on record");
    assert!(!instance.has_ended());
    match instance.fate {
        Fate::Live(judged) => (judged.ruling.verdict(), judged.ruling.reason()),
        Fate::Ended(end) => panic!("{end:?}"),
    }
}

#[test]
fn an_instance_is_live_until_its_owner_ends() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--profile", "work"]);
    let id = sandbox.newest_instance();
    let instance = sandbox.instance(id).unwrap();
    assert_eq!(instance.id.as_i64(), id);
    assert_eq!(instance.office.as_ref().unwrap().to_string(), "work/gateway");
    assert_eq!((instance.pid, instance.child_pid), (Some(run.pid()), Some(run.command.pid)));
    let started = sandbox.number("SELECT started_at_ms FROM instances");
    assert_eq!(instance.started_at_ms, started);
    let Fate::Live(judged) = &instance.fate else { panic!("{instance:?}") };
    assert_eq!(judged.evidence.anchor, AnchorState::Held);
    assert_eq!(live(Some(instance)), (Verdict::Alive, Reason::AnchorHeld));

    // Killed, and nobody has written that down yet.
    run.kill();
    run.command.wait_gone(LIMIT);
    let before = fingerprint(&sandbox.file("store"));
    let end = ended(sandbox.instance(id));
    assert_eq!((end.reason.as_str(), end.at_ms), ("anchor_released", None));
    assert_eq!(end.judgement.unwrap().evidence.anchor, AnchorState::Free);
    assert_untouched(&before, &sandbox.file("store"), "a question writes nothing");

    // The next one writes it down, and is another instance.
    sandbox.cli(["--profile", "work", "run", "--no-backoff", "--", "sh", "-c", "exit 7"]);
    let end = ended(sandbox.instance(id));
    assert_eq!(end.reason, Reason::AnchorReleased);
    assert!(end.at_ms.is_some_and(|at| at >= started) && end.judgement.is_none(), "{end:?}");
    let end = ended(sandbox.instance(sandbox.newest_instance()));
    assert_eq!((end.reason.as_str(), end.exit_code, end.signal), ("exited", Some(7), None));
}

/// The fence of a lock leads to its owner as well, which has no office.
#[test]
fn an_instance_without_an_office_is_known_too() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let request = LockRequest::new("scope", "identity").unwrap();
    let incumbent::Acquire::Granted(lock) = store.try_acquire(&request).unwrap() else {
        panic!("nobody else")
    };
    let id = lock.instance().as_i64();
    let instance = sandbox.instance(id).unwrap();
    assert_eq!((instance.office.as_ref(), instance.pid), (None, Some(std::process::id())));
    assert_eq!(live(Some(instance)), (Verdict::Alive, Reason::AnchorHeld));
    lock.release().unwrap();
    assert_eq!(ended(sandbox.instance(id)).reason, Reason::Released);
}

/// An id that the store does not know is nobody's; a number that no store draws is an error.
#[test]
fn an_unknown_id_is_nobodys() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let id = sandbox.newest_instance();
    for other in [1, id - 1, id + 1, i64::MAX] {
        assert!(sandbox.instance(other).is_none(), "{other}");
    }
    for number in [0, -1, i64::MIN] {
        let error = InstanceId::from_i64(number).unwrap_err();
        assert_eq!(error.kind(), incumbent::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&number.to_string()), "{error}");
        assert_eq!(InstanceId::try_from(number).unwrap_err().kind(), error.kind());
    }
    assert_eq!(i64::from(InstanceId::try_from(id).unwrap()), id);
    run.end().assert_code(0);
}

/// What cannot be told is not dead: the rows of that owner stay its own.
#[test]
fn an_owner_that_cannot_be_seen_has_not_ended() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut command = sandbox.within(namespace);
    command.args([BINARY, "run", "--no-backoff", "--", "sh", "-c", "echo; exec cat"]);
    let mut run = Process::start(command);
    run.line();
    let id = sandbox.newest_instance();
    assert_eq!(live(sandbox.instance(id)), (Verdict::Alive, Reason::AnchorHeld));
    // The run itself, which would make its record good again; `unshare` is only its parent.
    let is_its_child = |pid: &u32| Stat::of(*pid).is_some_and(|stat| stat.parent == run.pid());
    let inside = tagged("IT_SANDBOX", sandbox.path()).into_iter().find(is_its_child).unwrap();
    kill(inside, Signal::STOP);
    wait_stopped(inside);
    let forged = sandbox.forge("UPDATE instances SET anchor = NULL, command_lock = 'none'");
    assert_eq!(forged, 1);
    assert_eq!(live(sandbox.instance(id)), (Verdict::Unknown, Reason::ForeignNamespace));
    run.kill();
}

/// FIELD-BUGS row 20: an evicted owner lives, and holds nothing any more.
#[test]
fn an_evicted_owner_has_ended() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let profile = store.profile("work").unwrap();
    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("nobody else") };
    let id = tenure.instance().as_i64();
    profile.evict(&Kind::default(), Force::Yes, "a test").unwrap();
    let end = ended(sandbox.instance(id));
    assert_eq!((end.reason.as_str(), end.by.as_deref()), ("evicted", Some("a test")));
}
