//! A server that executes itself again under a run that was not told to follow it: the run ends
//! with the command that it has started, as it always did, and says what would be different. With
//! `--follow` see `follow.rs`.

use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{
    Identity, LIMIT, Process, START, Sandbox, eventually, kill, skipped, tool, wait_ended,
};

const APPLICATION: &str = "
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'served']
";

/// The pid in a file of gunicorn's, once there is one of a living process.
#[track_caller]
fn pid_in(file: &Path) -> Identity {
    eventually(&file.display().to_string(), LIMIT, || {
        Identity::of(std::fs::read_to_string(file).ok()?.trim().parse().ok()?)
    })
}

#[test]
fn gunicorn_is_upgraded_and_its_run_ends_with_the_old_one() {
    let Some(gunicorn) = tool("gunicorn") else {
        return skipped("needs gunicorn: `.ci/tool --install gunicorn`");
    };
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("served.py"), APPLICATION).unwrap();
    let bind = format!("unix:{}", sandbox.file("socket").display());
    let mut command = sandbox.incumbent(["run", "--no-backoff", "--"]);
    command.arg(gunicorn).args(["--bind", &bind, "--workers", "1", "--pid", "gunicorn.pid"]);
    command.args(["--graceful-timeout", "10", "served:application"]);
    let mut run = Process::start(command);
    // Only then it knows what a signal means.
    eventually("a server", LIMIT, || UnixStream::connect(sandbox.file("socket")).ok());
    let old = pid_in(&sandbox.file("gunicorn.pid"));
    run.signal(Signal::USR2);
    // So its manual calls the file of the new one, for as long as the old one lives.
    let new = pid_in(&sandbox.file("gunicorn.pid.2"));
    kill(old.pid, Signal::TERM);
    let ended = format!("which the command (pid {}) had left behind", old.pid);
    let line = run.err_line_with(&ended);
    assert!(line.contains(&new.pid.to_string()), "{line}");
    run.err_line_with("`--follow` stays with a gateway among them");
    run.wait(LIMIT);
    assert!(wait_ended(new.pid, LIMIT));
    assert_eq!(sandbox.history().len(), 1);
    sandbox.cli(START).assert_code(0);
}
