//! `examples/handover.rs`, as a person runs it.

use std::path::PathBuf;

use rustix::process::Signal;

use crate::support::{LIMIT, Process, Sandbox, kill, skipped, wait_ended};

/// The built example, beside the directory of this program.
fn example() -> Option<PathBuf> {
    let me = std::env::current_exe().unwrap();
    let path = me.parent()?.parent()?.join("examples/handover");
    path.exists().then_some(path)
}

/// `(instance, pid)` of the gateway that says that it is on duty.
fn on_duty(line: &str) -> (i64, u32) {
    let words: Vec<&str> = line.split([' ', ',']).collect();
    assert!(line.contains("is on duty"), "{line}");
    (words[2].parse().unwrap(), words.last().unwrap().parse().unwrap())
}

#[test]
fn the_example_upgrades_itself() {
    let Some(example) = example() else {
        return skipped("the examples are not built: `cargo test` alone builds them");
    };
    for by_exec in [false, true] {
        let sandbox = Sandbox::new();
        let mut command = sandbox.program(&example);
        command.arg(sandbox.db());
        if by_exec {
            command.arg("--exec");
        }
        let mut gateway = Process::start(command);
        let (mut instance, mut pid) = on_duty(&gateway.line());
        for _ in 0..3 {
            let of_pid = pid.to_string();
            sandbox.cli(["marker", "write", "upgrade", "--pid", &of_pid]).assert_code(0);
            let (next, by) = on_duty(&gateway.line_with("is on duty"));
            assert!(next > instance);
            assert_eq!(by == pid, by_exec);
            if !by_exec {
                assert!(wait_ended(pid, LIMIT));
            }
            (instance, pid) = (next, by);
            assert_eq!(sandbox.status().1["instance"], instance);
        }
        kill(pid, Signal::TERM);
        assert!(gateway.line_with("off duty").ends_with("off duty"));
        assert!(wait_ended(pid, LIMIT));
        sandbox.cli(crate::support::START).assert_code(0);
    }
}
