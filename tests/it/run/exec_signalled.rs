//! `run --exec`, and signals that are for all processes of a service: `systemctl kill -s USR1`, the
//! abort of a watchdog. The keepers are among those.

use rustix::process::Signal;

use crate::support::{
    LIMIT, Process, START, STAY, Sandbox, kill_all, pid_namespace, wait_for_looks,
};

/// Those that end a process which does not expect them. TERM has tests of its own, see
/// `keepers/pair.rs`.
const SIGNALS: [Signal; 10] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::ABORT,
    Signal::USR1,
    Signal::USR2,
    Signal::PIPE,
    Signal::ALARM,
    Signal::VTALARM,
    Signal::PROF,
];

/// Symptom: a reload that was sent to all processes of a service (`systemctl kill -s USR1` does so
/// by default) killed both keepers at once. The command lived on without a lock, and was dead for
/// whoever does not see its processes: in another pid namespace a second owner started beside it.
/// It holds because keepers are deaf to all that is not meant for them.
#[test]
fn what_a_whole_service_gets_costs_no_keeper() {
    let sandbox = Sandbox::new();
    let words = ["run", "--no-backoff", "--exec", "--", "/bin/sh", "-c", STAY];
    let mut command = Process::start(sandbox.incumbent(words));
    assert_eq!(command.line(), command.pid().to_string());
    let pair = sandbox.keeper_pair();
    for signal in SIGNALS {
        kill_all(&pair, signal);
        assert!(command.echoes());
    }
    wait_for_looks(&pair, 2);
    assert_eq!(sandbox.keepers_on_record(), pair, "none was replaced");
    sandbox.assert_status(0, "alive", "anchor_held");
    if let Some(namespace) = pid_namespace() {
        let start = sandbox.incumbent_under(namespace, START);
        Process::start(start).finish(LIMIT).assert_code(75);
    }
    command.finish(LIMIT).assert_code(0);
    sandbox.cli(START).assert_code(0);
}
