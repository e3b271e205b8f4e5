//! A run that stays with what its command leaves behind: a server that executes itself again, a
//! start script that leaves a daemon.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use incumbent::{Claim, ErrorKind, Store};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Identity, LIMIT, Process, START, Sandbox, Stat, eventually, kill, skipped, tool, wait_ended,
};

impl Sandbox {
    fn following(&self, options: &[&str], script: &str) -> Process {
        let shell = ["--", "/bin/sh", "-c", script];
        let words = [&["run", "--no-backoff", "--follow"], options, &shell].concat();
        Process::start(self.incumbent(words))
    }

    /// Waits until the row names this process as the command.
    #[track_caller]
    fn wait_followed(&self, run: &Process, pid: u32) {
        eventually(&format!("pid {pid} is the command"), LIMIT, || {
            let status = self.status().1;
            (status["child_pid"] == pid && status["pid"] == run.pid()).then_some(())
        });
    }
}

#[track_caller]
fn next(run: &mut Process) -> Identity {
    Identity::of(run.line().trim().parse().unwrap()).expect("it has just been started")
}

/// Claims the default office again and again while `during` goes on, and asserts that it is never
/// free.
fn beside_a_contender<T>(sandbox: &Sandbox, during: impl FnOnce() -> T) -> T {
    let profile = Store::open(sandbox.db()).unwrap().profile("default").unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let contender = scope.spawn(|| {
            let mut refused = 0_usize;
            while !is_over.load(Ordering::Acquire) {
                match profile.claim() {
                    Ok(Claim::Held(_)) => refused += 1,
                    Ok(Claim::Granted(_)) => panic!("granted after {refused} refusals"),
                    // Beside a disk with much to do; nobody got in by that.
                    Err(error) if error.kind() == ErrorKind::Busy => {}
                    Err(error) => panic!("{error}"),
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            refused
        });
        // A panic would wait for the contender for ever.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        is_over.store(true, Ordering::Release);
        let refused = contender.join().expect("nobody gets in");
        assert!(refused > 0, "nobody contended");
        done.unwrap_or_else(|why| std::panic::resume_unwind(why))
    })
}

/// A server that starts the next one of its kind on SIGUSR2, and ends on SIGTERM. Its helper
/// outlives it.
const SERVER: &str = "
    trap '/bin/sh server.sh &' USR2
    trap 'exit 0' TERM
    sleep 1000 > /dev/null 2>&1 &
    echo $$
    while :; do sleep 0.02; done";

/// FIELD-BUGS row 108.
///
/// Symptom: gunicorn, unicorn or nginx was upgraded on the fly, the old master ended, and the run
/// with it: the office was free beside a server that worked. Cause: the run knew its command alone.
/// It holds because the run adopts what its command leaves, and names one of those in the row
/// before the old one is collected.
#[test]
fn a_server_that_executes_itself_again_keeps_its_office() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("server.sh"), SERVER).unwrap();
    let mut run = sandbox.following(&[], "exec /bin/sh server.sh");
    let mut server = next(&mut run);
    let instance = sandbox.status().1["instance"].clone();
    beside_a_contender(&sandbox, || {
        for _ in 0..3 {
            run.signal(Signal::USR2);
            let new = next(&mut run);
            kill(server.pid, Signal::TERM);
            sandbox.wait_followed(&run, new.pid);
            assert!(server.is_gone() && !new.is_gone());
            let told = format!("the command (pid {}) has ended, and is followed by", server.pid);
            run.err_line_with(&told);
            server = new;
        }
    });
    assert_eq!(sandbox.status().1["instance"], instance);
    // A stop asks the last server, and its helpers after it.
    sandbox.cli(["stop"]).assert_code(0);
    run.wait(LIMIT);
    assert!(server.is_gone());
    assert_eq!(sandbox.history().len(), 1);
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");
    sandbox.cli(START).assert_code(0);
}

/// A start script that leaves a daemon, whose exit code is the run's.
#[test]
fn a_daemon_is_the_command_of_its_start_script() {
    let sandbox = Sandbox::new();
    let script = "
        exec 3<&0
        setsid /bin/sh -c 'cat <&3 > /dev/null; exit 7' > /dev/null 2>&1 & echo $!
        exit 0";
    let mut run = sandbox.following(&[], script);
    let daemon = next(&mut run);
    sandbox.wait_followed(&run, daemon.pid);
    sandbox.cli(START).assert_code(75);
    let answer = run.finish(LIMIT).assert_code(7);
    assert!(daemon.is_gone(), "{answer:#?}");
    let end = &sandbox.history()[0];
    assert_eq!((&end["end_reason"], &end["exit_code"]), (&json!("exited"), &json!(7)), "{end:#}");
}

/// A restart ends the daemon and executes the script again; a signal reaches the daemon.
#[test]
fn a_daemon_is_restarted_and_stopped() {
    let sandbox = Sandbox::new();
    let script = "setsid sleep 1000 > /dev/null 2>&1 & echo $!; exit 0";
    let mut run = sandbox.following(&[], script);
    let first = next(&mut run);
    sandbox.wait_followed(&run, first.pid);
    sandbox.cli(["restart"]).assert_code(0);
    assert!(first.is_gone(), "two at once");
    let second = next(&mut run);
    sandbox.wait_followed(&run, second.pid);
    run.signal(Signal::TERM);
    assert_eq!(run.wait(LIMIT).code(), Some(128 + 15));
    assert!(second.is_gone());
}

/// A daemon that a killed run leaves is the command of a killed run like any other.
#[test]
fn a_daemon_that_a_killed_run_leaves_holds_the_office() {
    let sandbox = Sandbox::new();
    let script = "setsid sleep 1000 > /dev/null 2>&1 & echo $!; exit 0";
    let mut run = sandbox.following(&[], script);
    let daemon = next(&mut run);
    sandbox.wait_followed(&run, daemon.pid);
    run.kill();
    sandbox.assert_status(0, "alive", "child_lives");
    sandbox.cli(START).assert_code(0);
    assert!(daemon.is_gone(), "two at once");
}

/// Nobody stays for what is left on purpose, or is ours.
#[test]
fn agents_and_keepers_hold_no_office() {
    let sandbox = Sandbox::new();
    let script = "
        setsid sleep 1000 > /dev/null 2>&1 & echo $!
        env -u INCUMBENT_TOKEN -u INCUMBENT_INSTANCE \\
            incumbent --profile other claim --pid $! > /dev/null
        read -r line; exit 3";
    let mut run = sandbox.following(&["--leave=sleep"], script);
    let agent = next(&mut run);
    let keepers = eventually("the keepers", LIMIT, || {
        let keepers = [sandbox.keepers(), sandbox.second_keepers()].concat();
        (keepers.len() == 2).then_some(keepers)
    });
    run.finish(LIMIT).assert_code(3);
    assert!(!agent.is_gone());
    for keeper in keepers {
        assert!(!wait_ended(keeper, Duration::ZERO), "a keeper keeps");
    }
    kill(agent.pid, Signal::KILL);
}

/// A store that cannot be written leaves the old one a zombie, and what goes on is followed.
#[test]
fn a_busy_store_does_not_lose_a_daemon() {
    let sandbox = Sandbox::new();
    let script = "
        setsid sleep 1000 > /dev/null 2>&1 & echo $!
        read -r line; exit 0";
    let mut run = sandbox.following(&[], script);
    let daemon = next(&mut run);
    let before: u32 = sandbox.status().1["child_pid"].as_u64().unwrap().try_into().unwrap();
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.busy_timeout(LIMIT).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    run.say("end");
    run.err_line_with("is followed by");
    let stat = Stat::of(before).expect("it is not collected");
    assert_eq!(stat.state, 'Z');
    blocker.execute_batch("ROLLBACK").unwrap();
    sandbox.wait_followed(&run, daemon.pid);
    eventually("the end of the start script", LIMIT, || Stat::of(before).is_none().then_some(()));
    run.signal(Signal::TERM);
    run.wait(LIMIT);
    assert!(daemon.is_gone());
}

/// What excludes each other is said before anything is done.
#[test]
fn to_follow_and_to_leave_exclude_each_other() {
    let sandbox = Sandbox::new();
    let words = ["run", "--follow", "--leave", "--", "true"];
    let answer = sandbox.cli(words).assert_code(2);
    answer.assert_complains(&["cannot leave it alone", "--leave=PROGRAM"]);
    assert!(!sandbox.db().exists());
}

/// The application of a server in Python: says the pid of its master.
const APPLICATION: &str = "
import os
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [str(os.getppid()).encode()]
";

/// The pid of the master that answers at `socket`, if one does.
fn answering_master(socket: &Path) -> Option<u32> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.rsplit("\r\n").next()?.parse().ok()
}

/// The real one: gunicorn, upgraded three times as its manual says, beside a contender.
#[test]
fn gunicorn_is_upgraded_and_keeps_its_office() {
    let Some(gunicorn) = tool("gunicorn") else { return skipped("needs gunicorn") };
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("served.py"), APPLICATION).unwrap();
    let socket = sandbox.file("socket");
    let bind = format!("unix:{}", socket.display());
    let mut command = sandbox.incumbent(["run", "--no-backoff", "--follow", "--"]);
    command.arg(gunicorn).args(["--bind", &bind, "--workers", "2", "--pid", "gunicorn.pid"]);
    command.args(["--graceful-timeout", "10", "served:application"]);
    let mut run = Process::start(command);
    let answers = |expected: &dyn Fn(u32) -> bool| {
        eventually("a master that answers", LIMIT, || {
            answering_master(&socket).filter(|pid| expected(*pid))
        })
    };
    let mut master = answers(&|_| true);
    let instance = sandbox.status().1["instance"].clone();
    assert_eq!(sandbox.status().1["child_pid"], master);
    beside_a_contender(&sandbox, || {
        for _ in 0..3 {
            run.signal(Signal::USR2);
            // Both answer at the socket until the old one has ended.
            let new = answers(&|pid| pid != master);
            kill(master, Signal::TERM);
            sandbox.wait_followed(&run, new);
            assert!(wait_ended(master, LIMIT));
            // It knows that it is the only one only now, and can be upgraded in its turn.
            eventually("its PID file", LIMIT, || {
                let pid = std::fs::read_to_string(sandbox.file("gunicorn.pid")).ok()?;
                (pid.trim().parse() == Ok(new)).then_some(())
            });
            assert_eq!(answers(&|_| true), new);
            master = new;
        }
    });
    assert_eq!(sandbox.status().1["instance"], instance);
    sandbox.cli(["stop"]).assert_code(0);
    run.wait(LIMIT);
    assert!(wait_ended(master, LIMIT), "the last master");
    assert_eq!(sandbox.history().len(), 1);
    sandbox.cli(START).assert_code(0);
}
