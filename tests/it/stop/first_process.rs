//! A gateway that is the first process of its container, as most are that run in one.

use crate::support::{
    Answer, BINARY, Container, LIMIT, Process, Sandbox, has, is_root, skipped, works,
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
    answer.assert_code(1).assert_complains(&["has not ended", "stop the container from outside"]);
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
