//! A gateway that is the first process of its container, as most are that run in one.

use crate::support::{
    Answer, BINARY, Container, LIMIT, Process, Sandbox, container, has, is_root,
    nobody_with_hidepid, skipped, works,
};

impl Sandbox {
    /// `script` as the first process of a container, which has said `up`; `None`, said loudly,
    /// where there can be none that one can be put into.
    fn first_process(&self, script: &str) -> Option<Container> {
        if !is_root() || !works(&["unshare", "-pf", "--mount-proc"]) || !has("nsenter") {
            skipped("needs root, unshare and nsenter");
            return None;
        }
        let mut command = self.program("unshare");
        command.args(["-pf", "--mount-proc", "--kill-child", "/bin/sh", "-c", script]);
        let mut container = Container::start(command);
        assert_eq!(container.process.line(), "up");
        Some(container)
    }

    /// As `docker exec` does it.
    fn inside(&self, container: &Container, words: &[&str]) -> Answer {
        let init = container.init().to_string();
        let mut command = self.program("nsenter");
        command.args(["-t", &init, "-p", "-m", BINARY]).args(words);
        Process::start(command).finish(LIMIT)
    }
}

/// Whoever ends it from inside may end with it.
fn assert_done(answer: &Answer) {
    assert!([0, 128 + 9].contains(&answer.code()), "{answer:#?}");
}

/// FIELD-BUGS row 122.
///
/// Symptom: recorded by `claim --pid 1`, and then `stop` and `--replace` from inside of the same
/// container refused for ever ("its pid is that of init"), with the advice to go where it runs. It
/// holds because the first process of a container may be asked, by whoever does not descend from
/// it.
#[test]
fn the_first_process_of_a_container_is_stopped_from_inside() {
    for verb in [&["stop"][..], &["run", "--no-backoff", "--replace", "--", "true"]] {
        let sandbox = Sandbox::new();
        let script = "trap 'echo drained; exit 0' TERM; echo up; while :; do sleep 0.02; done";
        let Some(mut container) = sandbox.first_process(script) else { return };
        sandbox.inside(&container, &["claim", "--pid", "1"]).assert_code(0);
        assert_done(&sandbox.inside(&container, verb));
        assert_eq!(container.process.line(), "drained");
        container.process.wait(LIMIT);
    }
}

/// The kernel gives it no signal that it has no handler for, not even SIGKILL from inside.
#[test]
fn one_that_hears_nothing_is_said_to_be_that() {
    let sandbox = Sandbox::new();
    let Some(container) = sandbox.first_process("echo up; exec sleep 1000") else { return };
    sandbox.inside(&container, &["claim", "--pid", "1"]).assert_code(0);
    let answer = sandbox.inside(&container, &["stop", "--force", "--timeout", "200ms"]);
    answer
        .assert_code(1)
        .assert_complains(&["did not end in time", "stop the container from outside"]);
    container.kill();
}

/// What the gateway has started is in the same place, and does not end what it depends on.
#[test]
fn what_descends_from_it_does_not_signal_it() {
    let sandbox = Sandbox::new();
    let script = "
        trap 'echo TERM' TERM
        echo up; read -r go
        incumbent claim --pid 1 > /dev/null; echo \"claim $?\"
        incumbent stop --force --timeout 200ms 2> stop.txt; echo \"stop $?\"
        read -r end";
    let Some(mut container) = sandbox.first_process(script) else { return };
    container.process.say("go");
    assert_eq!(container.process.line(), "claim 0");
    assert_eq!(container.process.line(), "stop 1");
    let said = std::fs::read_to_string(sandbox.file("stop.txt")).unwrap();
    assert!(said.contains("cannot be signalled"), "{said}");
    container.kill();
}

/// Symptom: where the parents of a process are hidden (`hidepid`), what the gateway had started was
/// not seen to descend from it, and ended what it depended on. It holds because only whoever is
/// seen to come from outside may signal it.
#[test]
fn what_may_descend_from_it_does_not_signal_it() {
    const AS_NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    if nobody_with_hidepid().is_none() {
        return skipped("needs root, unshare, setpriv and leave to mount");
    }
    let sandbox = Sandbox::new();
    sandbox.open_to_nobody();
    // Its parent is root's, and hidden.
    let stops = format!(
        "while [ ! -e claimed ]; do sleep 0.02; done
         {AS_NOBODY} ./incumbent stop --force --timeout 200ms 2> stop.txt; echo \"stop $?\""
    );
    let gateway = "
        trap 'echo TERM' TERM
        ./incumbent claim --pid 1 > /dev/null; echo \"claim $?\"; : > claimed
        read -r end";
    std::fs::write(sandbox.file("stops"), stops).unwrap();
    std::fs::write(sandbox.file("gateway"), gateway).unwrap();
    let script = format!(
        "mount -t proc -o hidepid=2 proc /proc || exit
         echo up
         sh stops < /dev/null &
         exec {AS_NOBODY} sh gateway"
    );
    let Some(mut container) = sandbox.first_process(&script) else { return };
    assert_eq!(container.process.line(), "claim 0");
    assert_eq!(container.process.line(), "stop 1");
    let said = std::fs::read_to_string(sandbox.file("stop.txt")).unwrap();
    assert!(said.contains("cannot be signalled"), "{said}");
    container.kill();
}

/// Symptom: `run --exec` as the first process, and its office was lost. Its keepers, which nobody
/// inside of a container lets end that, left, and it went on beside the next one. It holds because
/// a process that they could not end does not become its command.
#[test]
fn the_first_process_does_not_become_its_command() {
    let Some(words) = container() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let verb = ["run", "--no-backoff", "--exec", "--", "true"];
    let answer = Process::start(sandbox.incumbent_under(words, &verb)).finish(LIMIT);
    answer.assert_code(2).assert_complains(&["the first process of a container", "--exec"]);
    assert_eq!(sandbox.status().0, 3);
}
