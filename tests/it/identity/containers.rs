//! Containers that are restarted: nobody waits for an owner that died with its container, and
//! nobody takes a living one for dead because it is in another.

use std::time::{Duration, Instant};

use incumbent::lock::AcquireOptions;
use incumbent::{Acquire, Claim, LockRequest, Store};

use crate::support::{
    AS_ROLE, Answer, Container, Disk, LIMIT, Process, Sandbox, assert_within, container, is_root,
    mount_namespace, order, plays, role_db, set_role, skipped, test_name, works,
};

pub const ROLE_TEST: &str = test_name!(role_of_a_gateway);
pub const GATEWAY: &str = "gateway in a container";

/// What a start takes on a busy machine; far below every time-out in the program.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Whether something of it runs as another user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Users {
    One,
    Two,
}

/// Scripts for PID 1: each holds the office and the lock once it says `held`, and lives for as long
/// as its standard input is open.
const OWNERS: [(&str, Users, &str); 9] = [
    (
        "run as PID 1",
        Users::One,
        "exec incumbent run --no-backoff --lock token=one -- sh -c 'echo held; exec cat'",
    ),
    (
        "run below an init",
        Users::One,
        "incumbent run --no-backoff --lock token=one -- sh -c 'echo held; exec cat'; :",
    ),
    (
        "run of another user's command",
        Users::Two,
        "exec incumbent run --no-backoff --lock token=one -- \
         setpriv --reuid 65534 --clear-groups sh -c 'echo held; exec cat'",
    ),
    (
        "run of a start script",
        Users::One,
        "exec incumbent run --no-backoff --lock token=one -- \
         sh -c 'sh -c \"echo held; exec cat\"; :'",
    ),
    (
        "run of a start script, below an init",
        Users::One,
        "incumbent run --no-backoff --lock token=one -- \
         sh -c 'sh -c \"echo held; exec cat\"; :'; :",
    ),
    ("a program that links the library", Users::One, AS_ROLE),
    (
        "an entry script that becomes its gateway",
        Users::One,
        "incumbent claim --pid $$ && incumbent lock acquire token one --pid $$ || exit
         echo held; exec cat",
    ),
    (
        "an entry script that waits for another user's gateway",
        Users::Two,
        "incumbent claim --pid $$ && incumbent lock acquire token one --pid $$ || exit
         echo held; setpriv --reuid 65534 --clear-groups cat; :",
    ),
    (
        "an entry script below an init",
        Users::One,
        "sh -c 'incumbent claim --pid $$ && incumbent lock acquire token one --pid $$ || exit
                echo held; exec cat'; :",
    ),
];

/// Scripts for PID 1 that take both, in one attempt, and end.
const SUCCESSORS: [&str; 3] = [
    "exec incumbent run --no-backoff --lock token=one -- true",
    "incumbent claim --pid $$ && exec incumbent lock acquire token one --pid $$",
    AS_ROLE,
];

/// Holds the office and the lock until its standard input is closed; 75 where either is refused.
#[test]
fn role_of_a_gateway() {
    if !plays(GATEWAY) {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    let Claim::Granted(tenure) = store.profile("default").unwrap().claim().unwrap() else {
        std::process::exit(75);
    };
    let token = LockRequest::new("token", "one").unwrap();
    let Acquire::Granted(_lock) = tenure.acquire_all(&[token], &AcquireOptions::new()).unwrap()
    else {
        std::process::exit(75);
    };
    println!("held");
    while order().is_some() {}
}

/// Two containers that run one after the other often get the same number of their pid namespace:
/// the kernel gives it out again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    Reused,
    Another,
}

/// Where the containers and their store are.
struct Place<'a> {
    sandbox: &'a Sandbox,
    disk: Option<&'a Disk<'a>>,
}

impl Place<'_> {
    fn container(&self, script: &str) -> Container {
        let inner = self.sandbox.container_command(script);
        let mut command = match self.disk {
            None => inner,
            Some(disk) => {
                let mut command = disk.enter();
                command.arg(inner.get_program()).args(inner.get_args());
                command
            }
        };
        set_role(&mut command, ROLE_TEST, GATEWAY);
        Container::start(command)
    }

    fn owner(&self, script: &str) -> Container {
        let mut container = self.container(script);
        container.process.line_with("held");
        container
    }

    /// What a container with `script` answers, and how long that takes.
    fn answer(&self, script: &str) -> (Answer, Duration) {
        let started = Instant::now();
        (self.container(script).process.finish(LIMIT), started.elapsed())
    }

    /// One attempt of each kind of successor, after an owner of that kind whose container was
    /// killed.
    fn restart(&self, name: &str, owner: &str, between: impl Fn()) -> Duration {
        let mut longest = Duration::ZERO;
        for number in [Number::Reused, Number::Another] {
            for successor in SUCCESSORS {
                let first = self.owner(owner);
                first.kill();
                // Before anything else has a copy of the mounts.
                between();
                let _placeholder = (number == Number::Another).then(|| {
                    let mut placeholder = self.container("echo there; exec cat");
                    placeholder.process.line_with("there");
                    placeholder
                });
                let (answer, took) = self.answer(successor);
                let case = format!("{name}; {number:?} number; {successor}");
                assert_eq!(answer.code(), 0, "{case}: {answer:#?}");
                assert_within(AT_ONCE, took, &case);
                longest = longest.max(took);
            }
        }
        longest
    }
}

/// Those that can be played here.
fn owners() -> impl Iterator<Item = (&'static str, &'static str)> {
    let has_users = is_root() && works(&["setpriv", "--reuid", "65534", "--clear-groups"]);
    if !has_users {
        skipped("owners with another user: needs root and setpriv");
    }
    OWNERS
        .into_iter()
        .filter(move |(_, users, _)| has_users || *users == Users::One)
        .map(|(name, _, script)| (name, script))
}

/// FIELD-BUGS rows 24, 92 and 94, turned round: what keeps a living owner elsewhere from being
/// taken for dead must not make its successor wait. All that was in a container is dead when its
/// init is, so the kernel has released every lock that stood for it, and one attempt is enough.
#[test]
fn a_restarted_container_owns_at_once() {
    if container().is_none() {
        return skipped("needs a pid namespace");
    }
    for (name, script) in owners() {
        let sandbox = Sandbox::new();
        let place = Place { sandbox: &sandbox, disk: None };
        let longest = place.restart(name, script, || ());
        eprintln!("{name}: the longest restart took {longest:?}");
        let ends = sandbox.history();
        let killed: Vec<_> =
            ends.iter().filter(|end| end["end_reason"] == "anchor_released").collect();
        assert!(killed.len() >= 6, "{name}: {ends:#?}");
    }
}

/// The same where the store is in the container's own layer: the device number of an overlay is
/// another one each time that it is mounted, and an anchor whose file is taken for another one is
/// missing.
#[test]
fn a_restarted_container_owns_at_once_on_an_overlay_that_was_mounted_again() {
    const MOUNT: &str =
        "mount -t overlay -o lowerdir=disk/lower,upperdir=disk/upper,workdir=disk/work o store";
    let (Some(words), Some(_)) = (mount_namespace(), container()) else {
        return skipped("needs root, mounts, nsenter and a pid namespace");
    };
    for disk in ["tmpfs", "directory"] {
        let sandbox = Sandbox::new();
        let prepare = if disk == "tmpfs" { "mount -t tmpfs t disk &&" } else { "" };
        let script = format!(
            "mkdir -m 700 disk store && {prepare} mkdir -m 700 disk/lower disk/upper disk/work &&
             {MOUNT} && echo mounted && exec cat"
        );
        let keeper = |sandbox: &Sandbox| {
            let mut command = sandbox.within(words);
            command.args(["/bin/sh", "-c", &script]);
            Process::start(command)
        };
        if keeper(&Sandbox::new()).finish(LIMIT).code() != 0 {
            skipped(&format!("no overlay on a {disk} here"));
            continue;
        }
        let disk = Disk::new(&sandbox, keeper(&sandbox));
        let device = || disk.shell("stat -c %d store").assert_code(0).out;
        let place = Place { sandbox: &sandbox, disk: Some(&disk) };
        for (name, script) in owners() {
            // Another filesystem takes the device number that became free.
            let again = format!(
                "before=$(stat -c %d store); mkdir -p other
                 while umount store && {{ [ $(stat -c %d other) = $before ] ||
                           mount -t tmpfs t other; }} && {MOUNT} || exit
                       [ $(stat -c %d store) = $before ]; do :; done"
            );
            let longest = place.restart(name, script, || {
                let before = device();
                disk.shell(&again).assert_code(0);
                assert_ne!(before, device(), "the test is about a device number that changes");
            });
            eprintln!("{name}: the longest restart took {longest:?}");
        }
    }
}

/// The counterpart: the first container lives, and whatever is tried from the second, it is
/// refused.
#[test]
fn a_second_container_beside_a_living_one_is_refused() {
    if container().is_none() {
        return skipped("needs a pid namespace");
    }
    for (name, script) in owners() {
        let sandbox = Sandbox::new();
        let place = Place { sandbox: &sandbox, disk: None };
        let first = place.owner(script);
        for attempt in SUCCESSORS.into_iter().chain([
            "exec incumbent claim --pid $$",
            "exec incumbent lock acquire token one --pid $$",
            "exec incumbent run --no-backoff -- true",
            "exec incumbent --profile other run --no-backoff --lock token=one -- true",
            "exec incumbent run --no-backoff --wait=0.3 -- true",
            "exec incumbent evict",
            "exec incumbent unlock token one",
        ]) {
            let (answer, _) = place.answer(attempt);
            assert_eq!(answer.code(), 75, "{name}; {attempt}: {answer:#?}");
        }
        let (status, _) = place.answer("exec incumbent --json status");
        assert_eq!(status.code(), 0, "{name}: {status:#?}");
        let status = status.json();
        assert_eq!(status["verdict"], "alive", "{name}: {status:#}");
        assert_eq!(status["reason"], "anchor_held", "{name}: {status:#}");
        assert_eq!(status["flags"], serde_json::json!(["elsewhere"]), "{name}: {status:#}");
        assert!(first.process.finish(LIMIT).code() == 0, "{name}: the first one was disturbed");
    }
}

/// FIELD-BUGS rows 92 and 94: what holds the lock for a living process is killed, in a container
/// that lives. Nobody can look at the process from another one; its own lock, or the second keeper,
/// says that it lives. When the container ends, one attempt is enough again.
#[test]
fn what_lives_on_in_a_living_container_keeps_its_office() {
    if container().is_none() {
        return skipped("needs a pid namespace");
    }
    // The init stays; whoever is killed says its pid in there.
    let cases = [
        (
            "run",
            "incumbent run --no-backoff --lock token=one -- \
             setpriv --reuid 65534 --clear-groups sh -c 'echo held; exec sleep 1000' &
             while read -r order; do kill -KILL $!; wait $!; echo killed; done",
        ),
        (
            "a keeper",
            "sh -c 'incumbent claim --pid $$ && incumbent lock acquire token one --pid $$ || exit
                    echo held; exec sleep 1000' &
             while read -r order; do kill -KILL $(incumbent sql 'SELECT keeper_pid FROM instances
                 WHERE ended_at_ms IS NULL' | tail -1); echo killed; done",
        ),
    ];
    for (what, script) in cases {
        if what == "run" && !(is_root() && works(&["setpriv", "--reuid", "65534"])) {
            skipped("a command with another user: needs root and setpriv");
            continue;
        }
        let sandbox = Sandbox::new();
        let place = Place { sandbox: &sandbox, disk: None };
        let mut first = place.owner(script);
        first.process.say("kill it");
        first.process.line_with("killed");
        for successor in SUCCESSORS {
            let (answer, _) = place.answer(successor);
            assert_eq!(answer.code(), 75, "{what} was killed; {successor}: {answer:#?}");
        }
        let (status, _) = place.answer("exec incumbent --json status");
        assert_eq!(status.json()["verdict"], "alive", "{what} was killed: {status:#?}");
        first.kill();
        for successor in SUCCESSORS {
            let (answer, took) = place.answer(successor);
            assert_eq!(answer.code(), 0, "{what} was killed; {successor}: {answer:#?}");
            assert_within(AT_ONCE, took, &format!("{what} was killed; {successor}"));
        }
    }
}
