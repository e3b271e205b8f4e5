//! FIELD-BUGS row 107 wherever one looks from: `run` was killed, its start script died with it, and
//! the gateway behind the script lives. The next start ends it first, or is refused; it is never
//! beside it.

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use crate::support::{
    Answer, Container, Identity, LIMIT, Process, Sandbox, Stat, container, eventually, has, kill,
    skipped, tagged,
};

/// A `run` of a start script that does not execute its gateway.
const RUN: &str = "incumbent run --no-backoff -- sh -c 'perl -e \"sleep 1000\"; :'";
const START: &str = "incumbent run --no-backoff -- true";

impl Sandbox {
    /// The gateway behind the script, once it runs.
    #[track_caller]
    fn gateway_behind(&self) -> Identity {
        eventually("the gateway behind the script", LIMIT, || {
            tagged("IT_SANDBOX", self.path()).into_iter().find_map(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                line.starts_with(b"perl\0").then(|| Identity::of(pid)).flatten()
            })
        })
    }

    /// Kills the `run`, and waits until its script is dead too: only the gateway is left.
    #[track_caller]
    fn kill_run(&self) {
        eventually("only the gateway is left", LIMIT, || {
            let mut left = tagged("IT_SANDBOX", self.path());
            left.retain(|pid| {
                std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                    line.starts_with(b"incumbent\0") || line.starts_with(b"sh\0-c\0perl")
                })
            });
            let is_run = |pid: &&u32| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with(b"incumbent\0run\0"))
            };
            if let Some(run) = left.iter().find(is_run) {
                kill(*run, Signal::KILL);
            }
            left.is_empty().then_some(())
        });
    }
}

#[track_caller]
fn assert_never_beside(case: &str, start: &Answer, gateway: Identity) {
    let is_gone = gateway.is_gone();
    assert!(
        is_gone || start.code() == 75,
        "{case}: granted beside pid {}: {start:#?}",
        gateway.pid
    );
}

/// Its session was made outside of the pid namespace (`unshare`, `bwrap` without `--new-session`):
/// there it has no number.
#[test]
fn in_a_session_from_outside_of_the_pid_namespace() {
    if container().is_none() || !has("perl") {
        return skipped("needs a pid namespace and perl");
    }
    let sandbox = Sandbox::new();
    let words = container().unwrap();
    let mut command = sandbox.program(words[0]);
    let script = format!("{RUN} & read -r go; {START}; echo \"start $?\"; read -r end");
    command.args(&words[1..]).args(["/bin/sh", "-c", &script]);
    let mut container = Container::start(command);
    let gateway = sandbox.gateway_behind();
    sandbox.kill_run();
    container.process.say("go");
    let start = container.process.line_with("start ");
    assert!(gateway.is_gone() || start == "start 75", "{start}, and the gateway lives");
}

/// From another pid namespace none of its processes can be seen.
#[test]
fn in_another_pid_namespace() {
    if container().is_none() || !has("perl") {
        return skipped("needs a pid namespace and perl");
    }
    let sandbox = Sandbox::new();
    let command = sandbox.container_command(&format!("{RUN} & while read -r go; do :; done"));
    let first = Container::start(command);
    let gateway = sandbox.gateway_behind();
    sandbox.kill_run();
    let start =
        || Process::start(sandbox.container_command(&format!("exec {START}"))).finish(LIMIT);
    assert_never_beside("from another container", &start(), gateway);
    assert!(!gateway.is_gone(), "nobody may end what he cannot see");
    first.kill();
    start().assert_code(0);
}

/// Whatever became of the anchor: nobody is ended by a file that is not on record.
#[test]
fn with_an_anchor_that_was_removed_or_replaced() {
    if !has("perl") {
        return skipped("needs perl");
    }
    for what in ["removed", "replaced"] {
        let sandbox = Sandbox::new();
        let _shell = Process::start(sandbox.shell(RUN));
        let gateway = sandbox.gateway_behind();
        sandbox.kill_run();
        for name in sandbox.anchor_names() {
            let anchor = sandbox.anchors().join(name);
            std::fs::rename(&anchor, sandbox.file("taken-away")).unwrap();
            if what == "replaced" {
                std::fs::write(&anchor, "").unwrap();
            }
        }
        let start = Process::start(sandbox.shell(START)).finish(LIMIT);
        assert_never_beside(what, &start, gateway);
        assert!(!gateway.is_gone(), "{what}: nobody may be ended");
    }
}

/// Symptom: under random kills, now and then two. Cause: the start looked at the anchor while the
/// `run` still held it, and at the process when that was gone; an owner of whom the lock outlives
/// the process counts as dead, and nobody looked for what its command had left. Here the lock is
/// held on, so that it happens each time.
#[test]
fn with_an_anchor_that_is_still_held() {
    if !has("perl") {
        return skipped("needs perl");
    }
    let sandbox = Sandbox::new();
    let _shell = Process::start(sandbox.shell(RUN));
    let gateway = sandbox.gateway_behind();
    sandbox.kill_run();
    let anchors: Vec<_> = sandbox
        .anchor_names()
        .into_iter()
        .map(|name| {
            let anchor = std::fs::File::open(sandbox.anchors().join(name)).unwrap();
            flock(&anchor, FlockOperation::LockExclusive).unwrap();
            anchor
        })
        .collect();
    let start = Process::start(sandbox.shell(START)).finish(LIMIT);
    assert_never_beside("held by another", &start, gateway);
    drop(anchors);
    let start = Process::start(sandbox.shell(START)).finish(LIMIT);
    assert_never_beside("free again", &start, gateway);
}

/// Symptom: `evict`, `unlock`, `doctor --fix` and `stop` ended the record of a `run` that was
/// killed, and the next start, which has nothing to look for a family by then, met the gateway. It
/// holds because they look for it first: `stop` ends it, and the others leave the record to the
/// next claim.
#[test]
fn verbs_that_end_a_dead_record_leave_no_gateway_behind() {
    for verb in ["evict", "doctor --fix", "stop", "stop --force", "unlock tok s", "unlock --stale"]
    {
        let sandbox = Sandbox::new();
        let script = "sleep 600 > /dev/null & echo $!; wait";
        let arguments = ["run", "--no-backoff", "--lock", "tok=s", "--", "/bin/sh", "-c", script];
        let mut run = Process::start(sandbox.incumbent(arguments));
        let gateway = Identity::of(run.line().parse().unwrap()).unwrap();
        run.kill();
        eventually("the run is dead", LIMIT, || (sandbox.status().0 == 3).then_some(()));
        assert!(!gateway.is_gone(), "{verb}");
        let words: Vec<&str> = verb.split(' ').collect();
        let said = sandbox.cli(&words);
        if verb.starts_with("stop") {
            said.assert_code(0).assert_complains(&[&format!("ended pid {}", gateway.pid)]);
        } else {
            assert!(!gateway.is_gone(), "{verb} ends nobody");
        }
        let start = sandbox.cli(["run", "--no-backoff", "--lock", "tok=s", "--", "true"]);
        assert_eq!(start.code(), 0, "{verb}: {start:#?}");
        assert!(gateway.is_gone(), "{verb}: two at once");
    }
}

/// DESIGN section 3: whom a start ends is said, and what left the session is named and left alone.
#[test]
fn whom_a_start_ends_and_whom_it_leaves_alone_is_said() {
    let sandbox = Sandbox::new();
    let script = "sleep 600 > /dev/null & echo $!; setsid sleep 600 > /dev/null & echo $!; wait";
    let arguments = ["run", "--no-backoff", "--", "/bin/sh", "-c", script];
    let mut run = Process::start(sandbox.incumbent(arguments));
    let mut next = || Identity::of(run.line().parse().unwrap()).unwrap();
    let (gateway, agent) = (next(), next());
    let session = || Stat::of(agent.pid).map(|stat| stat.session);
    eventually("it has left", LIMIT, || (session() == Some(agent.pid)).then_some(()));
    run.kill();
    let start = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    start.assert_complains(&[
        &format!("ended pid {}, which", gateway.pid),
        &format!("pid {} left the session", agent.pid),
    ]);
    assert!(gateway.is_gone() && !agent.is_gone());
}

/// Symptom: a `run` of another office, started by the command under another program name, was ended
/// with the family. It holds because an owner is known by its anchor.
#[test]
fn another_run_in_the_session_is_none_of_the_family() {
    let sandbox = Sandbox::new();
    let renamed = sandbox.copy_program("gatewayctl");
    let script = format!(
        "{} --profile inner run -- sleep 600 > /dev/null & echo ready; wait",
        renamed.display()
    );
    let arguments = ["--profile", "outer", "run", "--no-backoff", "--", "/bin/sh", "-c", &script];
    let mut outer = Process::start(sandbox.incumbent(arguments));
    assert_eq!(outer.line(), "ready");
    let inner = || sandbox.json(["--profile", "inner", "status"]).1;
    eventually("the inner one runs", LIMIT, || (inner()["running"] == true).then_some(()));
    outer.kill();
    sandbox.cli(["--profile", "outer", "run", "--no-backoff", "--", "true"]).assert_code(0);
    assert_eq!(inner()["reason"], "anchor_held");
}

/// What a container on a terminal runs: a `run` whose start script leaves its gateway is killed,
/// and another one started, which must not meet that one. The exit code of that is in `answer`.
const KILLED_AND_STARTED: &str = "
    unset INCUMBENT_INSTANCE INCUMBENT_TOKEN INCUMBENT_PROFILE INCUMBENT_KIND
    incumbent --profile b run --no-backoff -- sh -c 'sleep 600 & echo $! > gateway; wait' &
    while [ ! -s gateway ]; do sleep 0.02; done
    kill -KILL $!; wait $!; gateway=$(cat gateway)
    lives=\"grep -q '^State:[[:space:]]*[^ZX[:space:]]' /proc/$gateway/status\"
    sh -c \"$lives\" || { echo nothing was left > answer; exit; }
    incumbent --profile b run --no-backoff -- sh -c \"! $lives || exit 9\"
    echo $? > answer";

/// The pid namespace has its session, and its terminal, from outside, or its first process is a
/// `run` that adopts what others leave. Symptom: nobody was found, because a session without a
/// number here was recorded as none, and because everything below another `run` was taken for that
/// one's.
#[test]
fn on_a_terminal_in_a_container() {
    if container().is_none() || !has("script") {
        return skipped("needs a pid namespace and script(1)");
    }
    let words = container().unwrap().join(" ");
    for first in ["/bin/bash in.sh", "setsid -c incumbent --profile a run -- /bin/bash in.sh"] {
        let sandbox = Sandbox::new();
        std::fs::write(sandbox.file("in.sh"), KILLED_AND_STARTED).unwrap();
        let mut command = sandbox.program("script");
        command.args(["-qec", &format!("{words} {first}"), "/dev/null"]);
        let said = Process::start(command).finish(LIMIT);
        let answer = std::fs::read_to_string(sandbox.file("answer"));
        assert_eq!(answer.as_deref().map(str::trim).ok(), Some("0"), "{first}: {said:#?}");
    }
}

/// Symptom: `claim --pid` of what a killed `run` had left ended it, and said that it was granted.
/// It holds because whom a claim is for is none of the family any more.
#[test]
fn whom_a_claim_is_for_is_not_ended_by_it() {
    let sandbox = Sandbox::new();
    let script = "sleep 600 > /dev/null & echo $!; wait";
    let arguments = ["run", "--no-backoff", "--", "/bin/sh", "-c", script];
    let mut run = Process::start(sandbox.incumbent(arguments));
    let gateway = Identity::of(run.line().parse().unwrap()).unwrap();
    run.kill();
    eventually("the run is dead", LIMIT, || (sandbox.status().0 == 3).then_some(()));
    sandbox.cli(["claim", "--pid", &gateway.pid.to_string()]).assert_code(0);
    assert!(!gateway.is_gone());
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], gateway.pid);
}
