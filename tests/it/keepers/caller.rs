//! Who is recorded where nobody was named: never a service or session manager, nor a launcher that
//! ends at once.

use std::process::Command;

use crate::support::{BINARY, LIMIT, Process, STAY, Sandbox, eventually, has, skipped, works};

/// The verbs that make a record.
const RECORDING: [&[&str]; 3] =
    [&["claim"], &["claim", "--no-keeper"], &["lock", "acquire", "bot", "token"]];

impl Sandbox {
    #[track_caller]
    fn assert_nobody_recorded(&self, what: &str) {
        let live = "SELECT count(*) FROM instances WHERE ended_at_ms IS NULL";
        assert_eq!(self.number(live), 0, "{what}");
        assert_eq!(self.keepers(), [0; 0], "{what}");
    }
}

/// FIELD-BUGS row 120.
///
/// Symptom: `incumbent claim` as a line of a unit recorded the user's service manager, and the
/// advice to `incumbent stop` ended all services of the user; a multiplexer, cron or sshd in the
/// same way. Cause: they are the parent of what they start. It holds because they are known by
/// their names, and are recorded only by `--pid`.
#[test]
fn no_manager_is_recorded_unless_it_is_named() {
    let sandbox = Sandbox::new();
    for name in ["systemd", "cron", "sshd", "tmux", "supervisord", "runsv", "s6-supervise"] {
        let shell = sandbox.file(name);
        let copied = Command::new("cp").arg("-L").arg("/bin/sh").arg(&shell).status().unwrap();
        assert!(copied.success());
        if !works(&[shell.to_str().unwrap(), "-c", "exec \"$0\""]) {
            return skipped("needs a /bin/sh that does not depend on its name");
        }
        for verb in RECORDING {
            let script = format!("incumbent {}; echo $?", verb.join(" "));
            let mut manager = sandbox.program(&shell);
            manager.args(["-c", &script]);
            let manager = Process::start(manager);
            let pid = manager.pid();
            let answer = manager.finish(LIMIT);
            assert_eq!(answer.out, "2\n", "{answer:#?}");
            let named = format!("pid {pid} ({name})");
            answer.assert_complains(&[&named, "manager", "--pid"]);
        }
        sandbox.assert_nobody_recorded(name);
        let mut manager = sandbox.program(&shell);
        manager.args(["-c", &format!("incumbent claim --pid $$ > /dev/null; {STAY}")]);
        let mut manager = Process::start(manager);
        manager.line();
        assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], manager.pid());
        manager.kill();
        eventually("the record can be ended", LIMIT, || {
            (sandbox.cli(["evict"]).code() == 0).then_some(())
        });
    }
}

/// A launcher or a subshell is gone when anybody asks.
#[test]
fn no_launcher_is_recorded_unless_it_is_named() {
    let sandbox = Sandbox::new();
    for launcher in [&["timeout", "60"][..], &["flock", "gate"], &["xargs", "-a", "/dev/null"]] {
        if !has(launcher[0]) {
            skipped(&format!("needs {}", launcher[0]));
            continue;
        }
        for verb in RECORDING {
            let mut command = sandbox.program(launcher[0]);
            command.args(&launcher[1..]).arg(BINARY).args(verb);
            let answer = Process::start(command).finish(LIMIT);
            // xargs has a code of its own for a command that failed.
            assert!([2, 123].contains(&answer.code()), "{launcher:?} {verb:?}: {answer:#?}");
            answer.assert_complains(&["launcher", "--pid"]);
        }
    }
    for script in ["(incumbent claim; echo $?); :", "x=$(incumbent claim; echo $?); echo $x"] {
        let answer = Process::start(sandbox.shell(script)).finish(LIMIT);
        assert_eq!(answer.out, "2\n", "{script}: {answer:#?}");
        answer.assert_complains(&["subshell", "--pid $$"]);
    }
    sandbox.assert_nobody_recorded("at the end");
}

/// Inside of a `run` they act for the run, whoever starts them.
#[test]
fn in_a_run_a_launcher_acts_for_the_run() {
    let sandbox = Sandbox::new();
    let script = "(incumbent claim; incumbent lock acquire bot token) > /dev/null; echo $?";
    let answer = sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", script]);
    assert_eq!(answer.assert_code(0).out, "0\n");
}
