//! A command that says it needs more time to end (`EXTEND_TIMEOUT_USEC=` of `sd_notify(3)`) is
//! given it, as its service manager gives it.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::support::{LIMIT, Process, Sandbox, has, skipped, wait_for_looks};

/// Asked to end, it says that it needs ten minutes, and takes as long as its input is open.
const DRAINS: &str = r"
import os, signal, socket, sys
name = os.environ['NOTIFY_SOCKET']
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\0' + name[1:] if name[0] == '@' else name)
def asked(number, frame):
    s.send(b'EXTEND_TIMEOUT_USEC=600000000')
    os.write(1, b'asked\n')
signal.signal(signal.SIGTERM, asked)
print(os.getpid(), flush=True)
sys.stdin.readline()
print('drained', flush=True)
";

/// Without it the command would be killed when its stop budget is spent.
#[test]
fn a_command_that_needs_more_time_gets_it() {
    const BUDGET: Duration = Duration::from_secs(2);
    if !has("python3") {
        return skipped("needs python3");
    }
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("drains.py"), DRAINS).unwrap();
    let manager = UnixDatagram::bind(sandbox.file("notify")).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = sandbox.incumbent(["run", "--no-backoff", "--stop-budget", "2s", "--"]);
    command.args(["python3", "drains.py"]).env("NOTIFY_SOCKET", sandbox.file("notify"));
    let mut run = Process::start(command);
    let first = run.line();
    let restart = Process::start(sandbox.incumbent(["restart", "--timeout", "10min"]));
    assert_eq!(run.line(), "asked");
    let asked = Instant::now();
    while asked.elapsed() < 2 * BUDGET {
        wait_for_looks(&[run.pid()], 1);
    }
    run.say("end");
    assert_eq!(run.line(), "drained", "it was killed");
    restart.finish(LIMIT).assert_code(0);
    assert_ne!(run.line(), first, "the pid of the next command");
    let mut buffer = [0; 1_024];
    let length = manager.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"EXTEND_TIMEOUT_USEC=600000000", "the manager hears it, too");
    run.finish(LIMIT).assert_code(0);
}
