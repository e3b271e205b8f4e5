//! What `unit systemd --type notify` and `--listen` print: `run --exec`, so that systemd deals with
//! the gateway itself (FIELD-BUGS rows 113, 114, 115 and 121).

use std::io::Read;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    LIMIT, START, Sandbox, UserManager, eventually, kernel_tells_ends, kill, python_with, skipped,
};

/// A gateway that talks to systemd by a library for that, and says its pid to whoever connects. It
/// hangs for as long as there is a file `hang` beside it.
const GATEWAY: &str = r"
import os, select, socket, time
import sdnotify
place = os.path.dirname(os.path.abspath(__file__))
is_ours = lambda variable: os.environ.get(variable) == str(os.getpid())
count = int(os.environ['LISTEN_FDS']) if is_ours('LISTEN_PID') else 0
listeners = [socket.socket(fileno=3 + n) for n in range(count)]
manager = sdnotify.SystemdNotifier()
watched = 'watched' if is_ours('WATCHDOG_PID') else 'not watched'
manager.notify('READY=1\nSTATUS=serving, ' + watched)
while True:
    while os.path.exists(os.path.join(place, 'hang')):
        time.sleep(0.05)
    manager.notify('WATCHDOG=1')
    for listener in select.select(listeners, [], [], 0.5)[0]:
        connection, _ = listener.accept()
        connection.send(str(os.getpid()).encode())
        connection.close()
";

/// Installs the files that `unit systemd` prints for `gw` with these words.
#[track_caller]
fn install(sandbox: &Sandbox, manager: &UserManager<'_>, words: &[&str]) {
    let words = [&["systemd", "--name", "gw"][..], words].concat();
    for (name, contents) in sandbox.unit(&words) {
        manager.install(&name, contents);
    }
}

/// The socket that `--listen` names in these tests.
fn socket(sandbox: &Sandbox) -> String {
    sandbox.file("listen").to_str().unwrap().to_owned()
}

/// Who serves a connection.
#[track_caller]
fn served_by(socket: &str) -> u32 {
    let mut connection = UnixStream::connect(socket).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    let mut pid = String::new();
    connection.read_to_string(&mut pid).unwrap();
    pid.parse().unwrap()
}

/// The gateway in Python, as `gw.service`: its interpreter and its script. `None`, and said, where
/// there is no library for it.
fn gateway(sandbox: &Sandbox) -> Option<[String; 2]> {
    let Some(python) = python_with("sdnotify") else {
        skipped("needs python3 with sdnotify: `.ci/tool --install sdnotify`");
        return None;
    };
    let script = sandbox.file("gateway.py");
    std::fs::write(&script, GATEWAY).unwrap();
    Some([python, script].map(|path| path.to_str().unwrap().to_owned()))
}

/// READY, STATUS and the watchdog are between systemd and the gateway, which is the main process. A
/// gateway that hangs is started again.
#[test]
fn systemd_hears_a_gateway_in_the_place_of_its_run() {
    let sandbox = Sandbox::new();
    let Some([python, script]) = gateway(&sandbox) else { return };
    let Some(manager) = UserManager::start(&sandbox) else { return };
    install(&sandbox, &manager, &["--type", "notify", "--", &python, &script]);
    std::fs::create_dir_all(sandbox.file("home/.config/systemd/user/gw.service.d")).unwrap();
    // A hang ends with an abort.
    manager.install("gw.service.d/watchdog.conf", "[Service]\nWatchdogSec=2\nLimitCORE=0\n");
    manager.systemctl(["start", "gw"]).assert_code(0);
    // `start` has waited for READY.
    assert_eq!(manager.property("gw", "ActiveState"), "active");
    assert_eq!(manager.property("gw", "StatusText"), "serving, watched");
    let first = manager.main_pid("gw");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!((&status["pid"], &status["child_pid"]), (&json!(first), &json!(null)));

    std::fs::write(sandbox.file("hang"), "").unwrap();
    eventually("a watchdog that bites", LIMIT, || {
        (manager.property("gw", "NRestarts") != "0").then_some(())
    });
    std::fs::remove_file(sandbox.file("hang")).unwrap();
    eventually("the next gateway", LIMIT, || {
        let next = sandbox.status().1["pid"].as_u64()?;
        let is_active = manager.property("gw", "ActiveState") == "active";
        (is_active && next != u64::from(first)).then_some(())
    });
    // All processes of the service got that SIGABRT, its keepers too, which are deaf to it.
    if kernel_tells_ends() {
        let ends = sandbox.history();
        let is_abort = |end: &serde_json::Value| end["pid"] == first && end["signal"] == 6;
        assert!(ends.iter().any(is_abort), "{ends:#?}");
    }
}

/// A connection is served, and one more after a restart and after a crash.
#[test]
fn systemd_hands_sockets_to_a_gateway_in_the_place_of_its_run() {
    let sandbox = Sandbox::new();
    let Some([python, script]) = gateway(&sandbox) else { return };
    let Some(manager) = UserManager::start(&sandbox) else { return };
    let socket = socket(&sandbox);
    let words = ["--type", "notify", "--listen", &socket, "--", &python, &script];
    install(&sandbox, &manager, &words);
    manager.systemctl(["start", "gw.socket"]).assert_code(0);
    let first = served_by(&socket);
    assert_eq!((manager.main_pid("gw"), &sandbox.status().1["pid"]), (first, &json!(first)));
    manager.systemctl(["restart", "gw.service"]).assert_code(0);
    let second = served_by(&socket);
    assert_ne!(second, first);
    kill(second, Signal::KILL);
    let third = served_by(&socket);
    assert_ne!(third, second);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], third);
}

/// A stop is one TERM for the gateway. Its keepers are in the same control group: they are deaf to
/// the TERM that each process of that gets, have recorded the end when the stop is over, and hold
/// it up for nobody.
#[test]
fn a_stop_is_one_request_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start(&sandbox) else { return };
    let [shell, script, said] = sandbox.gateway_words();
    let socket = socket(&sandbox);
    install(&sandbox, &manager, &["--listen", &socket, "--", &shell, &script, &said]);
    manager.systemctl(["start", "gw.service"]).assert_code(0);
    let gateway = sandbox.wait_for_starts(1);
    assert_eq!(manager.main_pid("gw"), gateway);
    for keeper in sandbox.keeper_pair() {
        let group = std::fs::read_to_string(format!("/proc/{keeper}/cgroup")).unwrap();
        assert!(group.contains("gw.service"), "{group}");
    }
    kill(gateway, Signal::KILL);
    let gateway = sandbox.wait_for_starts(2);
    assert_eq!(manager.property("gw", "NRestarts"), "1");

    let stop = manager.begin_systemctl(["stop", "gw.service"]);
    sandbox.wait_for_word("TERM");
    // Nobody gets in while it drains, whatever became of its keepers.
    let status = sandbox.status().1;
    assert_eq!((&status["verdict"], &status["pid"]), (&json!("alive"), &json!(gateway)));
    sandbox.cli(START).assert_code(75);
    sandbox.let_gateways_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.heard(), ["TERM"]);
    assert_eq!(manager.property("gw", "Result"), "success");
    assert_eq!(sandbox.status().0, 3);
    eventually("the end of the keepers", LIMIT, || {
        (sandbox.keepers().is_empty() && sandbox.second_keepers().is_empty()).then_some(())
    });
    if kernel_tells_ends() {
        let end = &sandbox.history()[0];
        assert_eq!((&end["pid"], &end["exit_code"]), (&json!(gateway), &json!(0)), "{end:#}");
    }
}
