//! `stop --all` and `restart --all`: each by its own rules, the exit code of the worst.

use serde_json::{Value, json};

use crate::support::{HOLDING, LIMIT, Run, Sandbox};

fn hold(sandbox: &Sandbox, profile: &str, kind: &str) -> Run {
    let office = ["--profile", profile, "--kind", kind, "run", "--no-backoff"];
    Run::start(sandbox.incumbent([&office[..], HOLDING].concat()))
}

#[test]
fn all_are_stopped_and_each_is_told_of() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.cli(["stop", "--all"]).assert_code(0).out, "no gateway is running\n");
    assert!(!sandbox.db().exists());
    let bots = ["a", "b", "c"].map(|profile| hold(&sandbox, profile, "bot"));
    // It does not follow a TERM.
    let deaf = sandbox.hold_with(&["/bin/sh", "-c", "trap '' TERM; echo $$; exec cat"]);
    let (code, all) = sandbox.json(["--kind", "bot", "stop", "--all"]);
    assert_eq!(code, 0, "{all:#}");
    let of = |key: &str| -> Vec<Value> {
        all.as_array().unwrap().iter().map(|it| it[key].clone()).collect()
    };
    assert_eq!(json!(of("profile")), json!(["a", "b", "c"]));
    assert_eq!(json!(of("stopped")), json!([true, true, true]));
    for bot in bots {
        bot.process.finish_with_stdin_open(LIMIT).assert_code(0);
    }
    let (code, all) = sandbox.json(["stop", "--all", "--timeout", "0"]);
    assert_eq!((code, &all[0]["stopped"]), (1, &json!(false)), "{all:#}");
    assert_eq!(all.as_array().unwrap().len(), 1, "{all:#}");
    let answer = sandbox.cli(["stop", "--all", "--timeout", "0"]).assert_code(1);
    assert!(answer.out.starts_with("PROFILE  KIND"), "{answer:#?}");
    assert!(answer.out.contains("not done"), "{answer:#?}");
    answer.assert_complains(&["default/gateway: still running"]);
    sandbox.cli(["stop", "--all", "--force", "--timeout", "0"]).assert_code(0);
    drop(deaf);
    assert_eq!(sandbox.json(["stop", "--all"]), (0, json!([])));
}

/// The wish also reaches those who do not run.
#[test]
fn all_are_to_stay_stopped() {
    let sandbox = Sandbox::new();
    let run = hold(&sandbox, "a", "gateway");
    sandbox.cli(["--profile", "b", "desired", "running"]).assert_code(0);
    sandbox.cli(["stop", "--all", "--desired"]).assert_code(0);
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
    for profile in ["a", "b"] {
        let (_, document) = sandbox.json(["--profile", profile, "desired"]);
        assert_eq!(document["desired"], "stopped", "{document:#}");
    }
}

#[test]
fn all_are_restarted() {
    let sandbox = Sandbox::new();
    sandbox.cli(["restart", "--all"]).assert_code(3);
    let mut runs = ["a", "b", "c"].map(|profile| hold(&sandbox, profile, "gateway"));
    let (code, all) = sandbox.json(["restart", "--all"]);
    assert_eq!(code, 0, "{all:#}");
    for (answer, profile) in all.as_array().unwrap().iter().zip(["a", "b", "c"]) {
        assert_eq!((&answer["profile"], &answer["restarted"]), (&json!(profile), &json!(true)));
    }
    for run in &mut runs {
        let next: u32 = run.process.line().parse().unwrap();
        assert_ne!(next, run.command.pid);
    }
    let table = sandbox.cli(["restart", "--all"]).assert_code(0).out;
    assert_eq!(
        table.lines().filter(|line| line.contains(" restarted, its command is pid ")).count(),
        3,
        "{table}"
    );
    for run in runs {
        run.end().assert_code(0);
    }
}
