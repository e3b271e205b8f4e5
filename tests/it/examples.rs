//! The examples do what they say: each asserts it itself.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{BINARY, LIMIT, Process, Sandbox, eventually, skipped, wait_ended};

/// `cargo test` builds the examples; `cargo test --test it` alone does not.
fn example(name: &str) -> Option<PathBuf> {
    let program = Path::new(BINARY).parent()?.join("examples").join(name);
    program.exists().then_some(program)
}

#[test]
fn worker_rows() {
    let Some(program) = example("worker_rows") else {
        return skipped("needs `cargo build --examples`");
    };
    let sandbox = Sandbox::new();
    let answer = Process::start(sandbox.program(program)).finish(LIMIT).assert_code(0);
    assert!(answer.out.contains("its gateway has ended: anchor_released"), "{answer:#?}");
    assert!(answer.out.ends_with("done\n"), "{answer:#?}");
}

#[test]
fn tokio() {
    let Some(program) = example("tokio") else {
        return skipped("needs `cargo build --examples`");
    };
    let sandbox = Sandbox::new();
    let mut command = sandbox.program(program);
    command.arg(sandbox.db());
    let mut gateway = Process::start(command);
    let on_duty = |after: Option<i64>| {
        eventually("a gateway with both locks", LIMIT, || {
            let status = sandbox.status().1;
            let is_it = status["state"] == "running"
                && status["locks"].as_array().is_some_and(|locks| locks.len() == 2)
                && status["instance"].as_i64() > after;
            is_it.then_some(status)
        })
    };
    let first = on_duty(None);
    sandbox.cli(["restart"]).assert_code(0);
    assert!(gateway.line_with("starts again").contains("gateway"));
    let pid = first["pid"].to_string();
    sandbox.cli(["marker", "write", "upgrade", "--pid", &pid]).assert_code(0);
    let next = on_duty(first["instance"].as_i64());
    assert_ne!(next["pid"], first["pid"], "{next:#}");
    assert!(fences(&next) > fences(&first), "{next:#}");
    assert!(wait_ended(gateway.pid(), LIMIT));
    sandbox.cli(["stop"]).assert_code(0);
    sandbox.assert_status(3, "dead", "planned_stop");
}

fn fences(status: &Value) -> Vec<i64> {
    let locks = status["locks"].as_array().unwrap().iter();
    locks.map(|lock| lock["fence"].as_i64().unwrap()).collect()
}
