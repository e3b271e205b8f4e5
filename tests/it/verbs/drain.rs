//! `docs/draining.md`: draining by a marker of one's own.

use std::path::Path;

use crate::support::{LIMIT, Process, Sandbox};

/// The blocks of shell in the page, in their order.
fn recipes() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/draining.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// The page, as it is written: the gateway's part in the command of a run, the operator's in a
/// script.
#[test]
fn the_recipe_works() {
    let recipes = recipes();
    let [gateway, operator] = recipes.as_slice() else { panic!("two blocks: {recipes:#?}") };
    let sandbox = Sandbox::new();
    let run = sandbox.hold_with(&["/bin/sh", "-c", &format!("echo $$\n{gateway}")]);
    let answer = Process::start(sandbox.shell(operator)).finish(LIMIT).assert_code(0);
    assert!(answer.out.contains("says drained"), "{answer:#?}");
    assert!(answer.out.contains("stopped, pid "), "{answer:#?}");
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
    sandbox.assert_status(3, "dead", "planned_stop");
    let (_, events) = sandbox.json(["events"]);
    let states: Vec<&str> = events
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["event"] == "status_changed")
        .filter_map(|event| event["detail"]["state"].as_str())
        .collect();
    assert_eq!(states, ["running", "draining", "drained"], "{events:#}");
}
