//! The small inits of containers, as PID 1 of a pid namespace: a signal from outside comes once,
//! and the exit code is the command's.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{BINARY, Container, LIMIT, Sandbox, container, has, kill, skipped};

/// Says each TERM, and ends with code 7 when it gets USR1: the second TERM would come before that.
const EARS: &str = "
    trap 'echo TERM' TERM
    trap 'kill -KILL $sleeper; exit 7' USR1
    sleep 1000 > /dev/null 2>&1 &
    sleeper=$!
    echo up
    while :; do wait $sleeper; done";

/// tini signals the group of its child where it is told to, dumb-init unless it is told not to: the
/// command is in another one.
#[test]
fn a_stop_from_outside_comes_once_and_the_exit_code_goes_out() {
    for init in [
        &["tini", "--"][..],
        &["tini", "-g", "--"],
        &["dumb-init", "--single-child", "--"],
        &["dumb-init", "--"],
    ] {
        if !has(init[0]) {
            skipped(&format!("needs {}", init[0]));
            continue;
        }
        let Some(words) = container() else { return skipped("needs a pid namespace") };
        let sandbox = Sandbox::new();
        let mut command = sandbox.within(words);
        command.args(init).args([BINARY, "run", "--no-backoff", "--", "/bin/sh", "-c", EARS]);
        let mut container = Container::start(command);
        assert_eq!(container.process.line(), "up");
        let pid_1 = container.init();
        kill(pid_1, Signal::TERM);
        assert_eq!(container.process.line(), "TERM");
        kill(pid_1, Signal::USR1);
        let answer = container.process.finish_with_stdin_open(LIMIT).assert_code(7);
        assert_eq!(answer.out, "up\nTERM\n", "{init:?}: {answer:#?}");
        let end = &sandbox.history()[0];
        assert_eq!((&end["end_reason"], &end["signal"]), (&json!("signalled"), &json!(15)));
    }
}
