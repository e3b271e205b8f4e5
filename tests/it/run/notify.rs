//! A command that talks to its service manager (FIELD-BUGS rows 113 and 114): to a socket of the
//! test's own in the place of a manager, and to systemd itself.

use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixStream};

use rustix::process::Signal;
use serde_json::Value;

use super::manager::Manager;
use crate::support::{BINARY, LIMIT, Process, Sandbox, eventually, has, kill, skipped, works};

/// Says to the manager what each line of its input says, with `|` for the end of a line.
const SPEAKER: &str = r"
import array, os, socket, sys
name = os.environ['NOTIFY_SOCKET']
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\0' + name[1:] if name[0] == '@' else name)
def say(text, *files):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', files))] if files else []
    s.sendmsg([text.encode()], rights)
print(os.getpid(), flush=True)
for line in sys.stdin:
    line = line.rstrip('\n')
    if line == 'barrier':
        r, w = os.pipe()
        say('BARRIER=1', w)
        os.close(w)
        os.read(r, 1)
    elif line == 'end':
        say('STOPPING=1\nSTATUS=last words')
        break
    else:
        say(line.replace('|', '\n'))
    print('said', flush=True)
";

/// A gateway that listens where it was told to, says so, and gives a sign of life twice a second
/// unless there is a file `hang`.
const GATEWAY: &str = r"
import os, select, socket, sys, time
name = os.environ['NOTIFY_SOCKET']
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\0' + name[1:] if name[0] == '@' else name)
place = os.path.dirname(os.path.abspath(__file__))
is_ours = lambda variable: os.environ.get(variable) == str(os.getpid())
listeners = []
if is_ours('LISTEN_PID'):
    count = int(os.environ['LISTEN_FDS'])
    listeners = [socket.socket(fileno=3 + n) for n in range(count)]
print('gateway', os.getpid(), 'watchdog', is_ours('WATCHDOG_PID'), 'sockets', len(listeners),
      flush=True)
s.send(b'READY=1\nSTATUS=serving')
while True:
    while os.path.exists(os.path.join(place, 'hang')):
        time.sleep(0.05)
    s.send(b'WATCHDOG=1')
    for listener in select.select(listeners, [], [], 0.5)[0]:
        connection, _ = listener.accept()
        connection.send(str(os.getpid()).encode())
        connection.close()
";

impl Sandbox {
    /// A socket in the place of a manager's, and a run whose command speaks to it.
    fn speaker(&self, words: &[&str]) -> Option<(UnixDatagram, Process)> {
        if !has("python3") {
            skipped("needs python3");
            return None;
        }
        std::fs::write(self.file("speaker.py"), SPEAKER).unwrap();
        let manager = UnixDatagram::bind(self.file("notify")).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        let mut command = self.incumbent(["run", "--no-backoff", "--"]);
        command.args(words).args(["python3", "speaker.py"]);
        command.env("NOTIFY_SOCKET", self.file("notify"));
        let mut run = Process::start(command);
        run.line();
        Some((manager, run))
    }

    /// What the command is on record with, once that is `wanted`.
    #[track_caller]
    fn wait_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, LIMIT, || {
            let status = self.status().1;
            wanted(&status).then_some(status)
        })
    }
}

fn heard(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 8_192];
    let length = manager.recv(&mut buffer).expect("a message");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn say(run: &mut Process, line: &str) {
    run.say(line);
    assert_eq!(run.line(), "said");
}

/// Every message arrives as it was said, but for the line that would make another process the main
/// one; a barrier ends when the manager has read it.
#[test]
fn messages_are_passed_on() {
    let sandbox = Sandbox::new();
    let Some((manager, mut run)) = sandbox.speaker(&[]) else { return };
    for (said, expected) in [
        ("READY=1|STATUS=serving", "READY=1\nSTATUS=serving"),
        ("MAINPID=1|STATUS=still", "STATUS=still"),
        ("WATCHDOG=1", "WATCHDOG=1"),
        ("X_OWN=word", "X_OWN=word"),
    ] {
        say(&mut run, said);
        assert_eq!(heard(&manager), expected);
    }
    // Nothing is left of this one, and nothing is said.
    say(&mut run, "MAINPID=1");
    run.say("barrier");
    assert_eq!(heard(&manager), "BARRIER=1");
    assert_eq!(run.line(), "said");
    // What it says last is passed on before we end.
    run.say("end");
    run.finish(LIMIT).assert_code(0);
    manager.set_nonblocking(true).unwrap();
    assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=last words");
}

/// READY, STATUS, STOPPING and WATCHDOG of a command that says nothing to us.
#[test]
fn what_is_said_to_the_manager_is_on_record() {
    let sandbox = Sandbox::new();
    let Some((_manager, mut run)) = sandbox.speaker(&[]) else { return };
    say(&mut run, "STATUS=warming up");
    let status = sandbox.wait_status("a text", |it| !it["runtime"]["extra"].is_null());
    assert_eq!(status["runtime"]["extra"]["status"], "warming up", "{status:#}");
    assert!(status["state"].is_null(), "{status:#}");
    say(&mut run, "READY=1|STATUS=serving bot123456:AAEhBP0av28xKq91mZ7ttyQwe42Lp0");
    let status = sandbox.wait_status("a state", |it| it["state"] == "running");
    assert!(!status.to_string().contains("AAEhBP0av28"), "a secret: {status:#}");
    say(&mut run, "WATCHDOG=1");
    let status = sandbox.wait_status("a heartbeat", |it| !it["heartbeat_at"].is_null());
    assert!(status["unresponsive_ms"].is_null(), "nothing was promised: {status:#}");
    say(&mut run, "WATCHDOG_USEC=3600000000|WATCHDOG=1");
    let every = "SELECT coalesce(max(heartbeat_every_ms), 0) FROM instances
                 WHERE ended_at_ms IS NULL";
    eventually("a promise", LIMIT, || (sandbox.number(every) == 1_800_000).then_some(()));
    say(&mut run, "STATUS=");
    sandbox.wait_status("no text", |it| it["runtime"]["extra"].is_null());
    run.say("end");
    run.finish(LIMIT).assert_code(0);
    let ended = sandbox.status().1;
    assert_eq!(ended["runtime"]["last_state"], "draining", "{ended:#}");
    assert_eq!(ended["runtime"]["extra"]["status"], "last words", "{ended:#}");
}

/// What the command says to us is its word: the manager's is not put in its place.
#[test]
fn its_own_word_comes_first() {
    let sandbox = Sandbox::new();
    let own = "incumbent status-set --state degraded --extra '{\"own\": 1}'; exec \"$@\"";
    let Some((manager, mut run)) = sandbox.speaker(&["/bin/sh", "-c", own, "sh"]) else { return };
    say(&mut run, "READY=1|STATUS=serving");
    heard(&manager);
    // Heard after it.
    say(&mut run, "WATCHDOG=1");
    let status = sandbox.wait_status("a heartbeat", |it| !it["heartbeat_at"].is_null());
    assert_eq!(status["state"], "degraded", "{status:#}");
    assert_eq!(status["runtime"]["extra"]["own"], 1, "{status:#}");
    run.finish(LIMIT).assert_code(0);
}

/// A stranger knows the address (`/proc/net/unix`), and has no word in it.
#[test]
fn strangers_are_not_heard() {
    let Some(another_user) = crate::support::another_user() else {
        return skipped("needs to become another user");
    };
    // The one that comes first on the path may be root's alone.
    let python = "/usr/bin/python3";
    if !works(&[another_user, &[python, "-c", ""]].concat()) {
        return skipped("needs a python3 for everybody");
    }
    let sandbox = Sandbox::new();
    let show = "echo $NOTIFY_SOCKET > address; exec \"$@\"";
    let Some((manager, mut run)) = sandbox.speaker(&["/bin/sh", "-c", show, "sh"]) else { return };
    let address = std::fs::read_to_string(sandbox.file("address")).unwrap();
    let stranger = "import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'STATUS=a lie', '\\0' + sys.argv[1][1:])";
    let mut command = sandbox.within(another_user);
    command.args([python, "-c", stranger, address.trim()]).current_dir("/");
    Process::start(command).finish(LIMIT).assert_code(0);
    say(&mut run, "STATUS=true");
    assert_eq!(heard(&manager), "STATUS=true");
    run.finish(LIMIT).assert_code(0);
}

/// The same of a process of our own user, which the command has not started.
#[test]
fn nobody_else_is_heard() {
    let sandbox = Sandbox::new();
    let show = "echo $NOTIFY_SOCKET > address; exec \"$@\"";
    let Some((manager, mut run)) = sandbox.speaker(&["/bin/sh", "-c", show, "sh"]) else { return };
    let address = std::fs::read_to_string(sandbox.file("address")).unwrap();
    let mut stranger = sandbox.program("python3");
    stranger.arg("speaker.py").env("NOTIFY_SOCKET", address.trim());
    let mut stranger = Process::start(stranger);
    stranger.line();
    // It is there while it is looked at.
    for line in ["READY=1|STATUS=a lie", "barrier"] {
        say(&mut stranger, line);
    }
    say(&mut run, "STATUS=true");
    assert_eq!(heard(&manager), "STATUS=true");
    stranger.finish(LIMIT).assert_code(0);
    run.finish(LIMIT).assert_code(0);
}

/// Symptom: a helper of the command before, which a restart leaves alone, said READY for the next
/// one. It holds because it is older than that; what the command itself has started is heard.
#[test]
fn what_the_command_before_has_left_is_not_heard() {
    const SCRIPT: &str = "
        if [ ! -e late ]; then
            setsid python3 late.py a-lie > /dev/null &
        else
            : > go; until [ -e spoken ]; do sleep 0.01; done; rm spoken
            setsid python3 late.py true > /dev/null &
            until [ -e spoken ]; do sleep 0.01; done
        fi
        until [ -e late ]; do sleep 0.01; done
        exec python3 speaker.py";
    /// Says it once it is told to, and ends when that was read.
    const LATE: &str = "
import os, sys, time
exec(open('speaker.py').read().split('print', 1)[0])
open('late', 'w')
while not os.path.exists('go'):
    time.sleep(0.01)
say('STATUS=' + sys.argv[1])
r, w = os.pipe()
say('BARRIER=1', w)
os.close(w)
os.read(r, 1)
open('spoken', 'w')";
    if !has("setsid") {
        return skipped("needs setsid");
    }
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("late.py"), LATE).unwrap();
    std::fs::write(sandbox.file("script"), SCRIPT).unwrap();
    let Some((manager, mut run)) = sandbox.speaker(&["/bin/sh", "script"]) else { return };
    // The test reads what is said meanwhile: a barrier ends when it has been read.
    let hears = std::thread::spawn(move || {
        let mut all: Vec<String> = Vec::new();
        while all.last().is_none_or(|last| last != "STATUS=end") {
            all.push(heard(&manager));
        }
        all
    });
    sandbox.cli(["restart"]).assert_code(0);
    run.line();
    say(&mut run, "STATUS=end");
    let mut all = hears.join().unwrap();
    all.retain(|said| said != "BARRIER=1");
    assert_eq!(all, ["STATUS=true", "STATUS=end"]);
    run.finish(LIMIT).assert_code(0);
}

/// `MAINPID=`: whoever that names is the command when the one that says so has ended.
#[test]
fn the_main_process_that_the_command_names_is_followed() {
    const NAMES: &str = "
import os, signal, sys
exec(open('speaker.py').read().split('print', 1)[0])
print('first', flush=True)
daemon = os.fork()
if daemon == 0:
    os.setsid()
    while True: signal.pause()
say('MAINPID=%d' % daemon)
r, w = os.pipe()
say('BARRIER=1', w)
os.close(w)
os.read(r, 1)
print(daemon, flush=True)
sys.stdin.readline()";
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("names.py"), NAMES).unwrap();
    let script = "exec python3 names.py";
    let Some((manager, mut run)) = sandbox.speaker(&["/bin/sh", "-c", script]) else { return };
    assert_eq!(heard(&manager), "BARRIER=1", "the run stays the main process");
    let daemon: u32 = run.line().parse().unwrap();
    run.say("end");
    eventually("a daemon in the place of the command", LIMIT, || {
        (sandbox.status().1["child_pid"] == daemon).then_some(())
    });
    run.signal(Signal::TERM);
    run.finish(LIMIT).assert_code(143);
}

/// Without a manager there is nothing between it and the command, nor with one of another kind.
#[test]
fn no_socket_where_there_is_none() {
    let sandbox = Sandbox::new();
    for address in [None, Some("vsock:2:1234")] {
        let mut command =
            sandbox.incumbent(["run", "--no-backoff", "--", "sh", "-c", "echo $NOTIFY_SOCKET"]);
        command.env_remove("NOTIFY_SOCKET");
        if let Some(address) = address {
            command.env("NOTIFY_SOCKET", address);
        }
        let answer = Process::start(command).finish(LIMIT).assert_code(0);
        assert_eq!(answer.out.trim(), address.unwrap_or_default());
    }
}

/// `Type=notify` and `WatchdogSec=`, with the settings that systemd has for all: active by its own
/// READY, its text in `status` of both, and started again when its loop hangs.
#[test]
fn systemd_hears_the_gateway() {
    let sandbox = Sandbox::new();
    let Some(manager) = Manager::start(&sandbox) else { return };
    if !has("python3") {
        return skipped("needs python3");
    }
    let gateway = sandbox.file("gateway.py").display().to_string();
    std::fs::write(&gateway, GATEWAY).unwrap();
    let settings = ["Type=notify", "WatchdogSec=2", "Restart=always", "RestartSec=100ms"];
    let command = [BINARY, "run", "--no-backoff", "--", "python3", &gateway];
    manager.start_unit("gw", &settings, &command).assert_code(0);
    let said = manager.said("gw");
    assert!(said.contains("watchdog True sockets 0"), "{said}");
    assert_eq!(manager.property("gw", "StatusText"), "serving");
    let status = sandbox.wait_status("a state and a heartbeat", |it| {
        it["state"] == "running" && !it["heartbeat_at"].is_null()
    });
    assert_eq!(status["runtime"]["extra"]["status"], "serving", "{status:#}");
    assert_eq!(manager.property("gw", "MainPID"), status["pid"].to_string());

    std::fs::write(sandbox.file("hang"), "").unwrap();
    eventually("a watchdog that bites", LIMIT, || {
        (manager.property("gw", "NRestarts") != "0").then_some(())
    });
    std::fs::remove_file(sandbox.file("hang")).unwrap();
    eventually("the next gateway", LIMIT, || {
        let is_next = sandbox.status().1["pid"] != status["pid"];
        (is_next && manager.property("gw", "ActiveState") == "active").then_some(())
    });
}

/// `NotifyAccess=`: what the command has started is heard where systemd would hear it without us.
#[test]
fn systemd_hears_whom_it_would_hear() {
    const SPEAKS: &str = r"
import os, socket, time
name = os.environ['NOTIFY_SOCKET']
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\0' + name[1:] if name[0] == '@' else name)
r, w = os.pipe()
if os.fork() == 0:
    s.send(b'ERRNO=5')
    os.write(w, b'.')
    time.sleep(1000)
os.read(r, 1)
s.send(b'STATUS=told')
time.sleep(1000)
";
    let sandbox = Sandbox::new();
    let Some(manager) = Manager::start(&sandbox) else { return };
    if !has("python3") {
        return skipped("needs python3");
    }
    let program = sandbox.file("speaks.py").display().to_string();
    std::fs::write(&program, SPEAKS).unwrap();
    for (access, status) in [("main", "0"), ("all", "5")] {
        let setting = format!("NotifyAccess={access}");
        let command = [BINARY, "run", "--no-backoff", "--", "python3", &program];
        manager.start_unit(access, &[&setting], &command).assert_code(0);
        eventually("its own word", LIMIT, || {
            (manager.property(access, "StatusText") == "told").then_some(())
        });
        assert_eq!(manager.property(access, "StatusErrno"), status, "{access}");
        manager.systemctl(["stop", access]).assert_code(0);
    }
}

/// Socket activation: a connection is served, and one more after each kind of restart.
#[test]
fn systemd_passes_sockets_to_the_gateway() {
    let sandbox = Sandbox::new();
    let Some(manager) = Manager::start(&sandbox) else { return };
    if !has("python3") {
        return skipped("needs python3");
    }
    let place = sandbox.path().display();
    std::fs::write(sandbox.file("gateway.py"), GATEWAY).unwrap();
    let units = sandbox.file("home/.config/systemd/user");
    let socket = format!("[Socket]\nListenStream={place}/listen\n");
    std::fs::write(units.join("gw.socket"), socket).unwrap();
    let service = format!(
        "[Service]\nType=notify\nEnvironment=INCUMBENT_DB={}\n\
         ExecStart={BINARY} run --no-backoff -- python3 {place}/gateway.py\n",
        sandbox.db().display()
    );
    std::fs::write(units.join("gw.service"), service).unwrap();
    manager.systemctl(["daemon-reload"]).assert_code(0);
    manager.systemctl(["start", "gw.socket"]).assert_code(0);
    let served_by = || {
        let mut connection = UnixStream::connect(sandbox.file("listen")).unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        let mut pid = String::new();
        connection.read_to_string(&mut pid).unwrap();
        pid
    };
    let command = || sandbox.status().1["child_pid"].to_string();
    let first = served_by();
    assert_eq!(first, command());
    sandbox.cli(["restart"]).assert_code(0);
    let second = served_by();
    assert!(second != first && second == command(), "{first}, then {second}");
    manager.systemctl(["restart", "gw.service"]).assert_code(0);
    let third = served_by();
    assert!(third != second && third == command(), "{second}, then {third}");
    // A crash: the socket stays with systemd, and the next connection starts the service again.
    kill(third.parse().unwrap(), Signal::KILL);
    eventually("the end of the service", LIMIT, || {
        (manager.property("gw", "ActiveState") == "failed").then_some(())
    });
    assert_eq!(served_by(), command());
}
