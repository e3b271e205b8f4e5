//! A run that stays with what its command leaves behind: a server that executes itself again, a
//! start script that leaves a daemon.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use incumbent::{Claim, ErrorKind, Store};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Identity, LIMIT, Process, START, Sandbox, Stat, eventually, has, kill, rounds, skipped, tool,
    wait_ended,
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

/// Symptom: now and then a start script had left a daemon, and the run ended beside it. Cause: a
/// daemon forks, and its parent ends; the run looked too early for the child and too late for the
/// parent. Here each one forks the next one and ends, until it may settle.
#[test]
fn a_daemon_is_not_missed_between_two_forks() {
    const GENERATIONS: u64 = 500;
    let sandbox = Sandbox::new();
    let walker = "
        if [ -e settled ]; then echo $$; exec sleep 1000 > /dev/null 2>&1; fi
        echo >> generations
        /bin/sh walker.sh &
        exit 0";
    std::fs::write(sandbox.file("walker.sh"), walker).unwrap();
    let mut run = sandbox.following(&[], "/bin/sh walker.sh & exit 0");
    eventually("many generations", LIMIT, || {
        assert!(!run.has_ended(), "the office is free, and a daemon lives");
        let lines = std::fs::metadata(sandbox.file("generations")).ok()?.len();
        (lines >= GENERATIONS).then_some(())
    });
    std::fs::write(sandbox.file("settled"), "").unwrap();
    let daemon = next(&mut run);
    sandbox.wait_followed(&run, daemon.pid);
    run.signal(Signal::TERM);
    run.wait(LIMIT);
    assert!(daemon.is_gone());
}

/// Symptom: a store that was busy when the command ended was taken for one in which the command had
/// named nobody, and the row named somebody else for good. Here the one who takes the place is
/// about to commit that: what lives is followed meanwhile, and that one then.
#[test]
fn whom_the_command_named_is_followed_once_the_store_tells() {
    let sandbox = Sandbox::new();
    let script = "
        /bin/sh -c 'sleep 1000 & wait' > /dev/null 2>&1 & echo $!
        sleep 1000 > /dev/null 2>&1 & echo $!
        read -r line; exit 0";
    let mut run = sandbox.following(&[], script);
    let (other, named) = (next(&mut run), next(&mut run));
    let successor = rusqlite::Connection::open(sandbox.db()).unwrap();
    successor.busy_timeout(LIMIT).unwrap();
    successor.execute_batch("BEGIN IMMEDIATE").unwrap();
    let adopts = "UPDATE instances SET child_pid = ?1, child_start_time = ?2, \
                      child_process_inode = NULL WHERE ended_at_ms IS NULL";
    let row = (named.pid, i64::try_from(named.start_time).unwrap());
    assert_eq!(successor.execute(adopts, row).unwrap(), 1);
    run.say("end");
    run.err_line_with(&format!("is followed by pid {}", other.pid));
    successor.execute_batch("COMMIT").unwrap();
    sandbox.wait_followed(&run, named.pid);
    sandbox.cli(["stop"]).assert_code(0);
    run.wait(LIMIT);
    assert!(named.is_gone() && other.is_gone());
}

/// Gives a sign of life to its service manager, twenty times a second.
const BEATING: &str = r"
import os, socket, time
name = os.environ['NOTIFY_SOCKET']
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\0' + name[1:] if name[0] == '@' else name)
while True:
    s.send(b'WATCHDOG=1')
    time.sleep(0.05)
";

/// Symptom: after a daemon had taken the place of its start script, it was never found unresponsive
/// again. Cause: the promise of a heartbeat goes from the row with the command before, and the run
/// thought that it had made it.
#[test]
fn a_daemon_promises_its_heartbeat_anew() {
    if !has("python3") {
        return skipped("needs python3");
    }
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("daemon.py"), BEATING).unwrap();
    let manager = UnixDatagram::bind(sandbox.file("notify")).unwrap();
    std::thread::spawn(move || while manager.recv(&mut [0; 4_096]).is_ok() {});
    let script = "
        python3 daemon.py > /dev/null 2>&1 & echo $!
        read -r line; exit 0";
    let words = ["run", "--no-backoff", "--follow", "--", "/bin/sh", "-c", script];
    let mut command = sandbox.incumbent(words);
    command.env("NOTIFY_SOCKET", sandbox.file("notify")).env("WATCHDOG_USEC", "2000000");
    command.env_remove("WATCHDOG_PID");
    let mut run = Process::start(command);
    let daemon = next(&mut run);
    let is_promised = || {
        let promised = "SELECT count(*) FROM instances \
                        WHERE ended_at_ms IS NULL AND heartbeat_every_ms = 1000";
        (sandbox.number(promised) == 1).then_some(())
    };
    eventually("a promise of the start script", LIMIT, is_promised);
    run.say("end");
    sandbox.wait_followed(&run, daemon.pid);
    eventually("a promise of the daemon", LIMIT, is_promised);
    run.signal(Signal::TERM);
    run.wait(LIMIT);
    assert!(daemon.is_gone());
}

/// Starts a daemon, calls it the main process to its service manager, says its pid, and ends when
/// its input does, or at once.
const NAMES_MAIN_PROCESS: &str = r"
import os, socket, subprocess, sys
null = subprocess.DEVNULL
daemon = subprocess.Popen(['sleep', '1000'], stdin=null, stdout=null, stderr=null)
name = os.environ['NOTIFY_SOCKET']
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\0' + name[1:] if name[0] == '@' else name)
s.send(f'MAINPID={daemon.pid}\nSTATUS=named'.encode())
print(daemon.pid, flush=True)
if sys.argv[1] == 'waits':
    sys.stdin.readline()
os._exit(0)
";

impl Sandbox {
    /// A run that does not follow, whose command names a daemon; `None`, said loudly, where there
    /// is no Python.
    fn naming_main_process(&self, how: &str) -> Option<(Process, Identity)> {
        if !has("python3") {
            skipped("needs python3");
            return None;
        }
        std::fs::write(self.file("start.py"), NAMES_MAIN_PROCESS).unwrap();
        let manager = UnixDatagram::bind(self.file("notify")).unwrap();
        std::thread::spawn(move || while manager.recv(&mut [0; 4_096]).is_ok() {});
        let mut command = self.incumbent(["run", "--no-backoff", "--", "python3", "start.py", how]);
        command.env("NOTIFY_SOCKET", self.file("notify"));
        let mut run = Process::start(command);
        let daemon = next(&mut run);
        Some((run, daemon))
    }
}

/// `MAINPID=` of what the command has started: it takes the place of the command when that ends,
/// also of one that is not followed otherwise.
#[test]
fn the_main_process_takes_the_place_of_the_command_that_names_it() {
    let sandbox = Sandbox::new();
    let Some((mut run, daemon)) = sandbox.naming_main_process("waits") else { return };
    eventually("the run has heard it", LIMIT, || {
        (sandbox.status().1["runtime"]["extra"]["status"] == "named").then_some(())
    });
    run.close_stdin();
    sandbox.wait_followed(&run, daemon.pid);
    sandbox.cli(START).assert_code(75);
    sandbox.cli(["stop"]).assert_code(0);
    run.wait(LIMIT);
    assert!(daemon.is_gone());
}

/// Symptom: of a start script that named the main process and ended at once, the run ended beside
/// it. Cause: it collected the command first, and read afterwards what that had said last.
#[test]
fn the_last_word_of_a_command_names_the_main_process() {
    for _ in 0..rounds(10, 100) {
        let sandbox = Sandbox::new();
        let Some((mut run, daemon)) = sandbox.naming_main_process("ends") else { return };
        sandbox.wait_followed(&run, daemon.pid);
        run.signal(Signal::TERM);
        run.wait(LIMIT);
        assert!(daemon.is_gone());
    }
}

/// What excludes each other is said before anything is done.
#[test]
fn to_follow_and_to_leave_exclude_each_other() {
    let sandbox = Sandbox::new();
    let words = ["run", "--follow", "--leave", "--", "true"];
    let answer = sandbox.cli(words).assert_code(2);
    answer.assert_complains(&["also leave it alone", "--leave=PROGRAM"]);
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
