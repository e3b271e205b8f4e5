//! The examples do what they say: each asserts it itself.

use std::path::{Path, PathBuf};

use crate::support::{BINARY, LIMIT, Process, Sandbox, skipped};

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
