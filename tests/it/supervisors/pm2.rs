//! pm2: what ends is started again, unless its exit code is among `stop_exit_codes`.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{BINARY, LIMIT, Pm2, Sandbox, kill};

/// With `treekill`, its default, pm2 signals the command as well as the run, which then passes
/// nothing on.
#[test]
fn an_app_is_started_again_unless_somebody_stops_it() {
    started_again_unless_stopped(true);
}

#[test]
fn an_app_that_is_signalled_alone_is_started_again_unless_somebody_stops_it() {
    started_again_unless_stopped(false);
}

fn started_again_unless_stopped(treekill: bool) {
    let sandbox = Sandbox::new();
    let [shell, script, said] = sandbox.gateway_words();
    let app = json!({
        "name": "gw",
        "script": BINARY,
        "args": ["run", "--no-backoff", "--", shell, script, said],
        "interpreter": "none",
        "exec_mode": "fork",
        "stop_exit_codes": [0],
        "kill_timeout": 90_000,
        "treekill": treekill,
        "vizion": false,
    });
    let Some(pm2) = Pm2::start(&sandbox, &app) else { return };
    let gateway = sandbox.wait_for_starts(1);
    kill(gateway, Signal::KILL);
    sandbox.wait_for_starts(2);

    sandbox.let_gateways_end();
    sandbox.cli(["stop"]).assert_code(0);
    pm2.wait_for("stopped");
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");

    sandbox.let_gateways_drain();
    pm2.ask(&["start", "gw"]).assert_code(0);
    sandbox.wait_for_starts(3);
    let stop = pm2.begin(&["stop", "gw"]);
    // Its signal, unless it is told another one.
    sandbox.wait_for_word("INT");
    sandbox.let_gateways_end();
    stop.finish(LIMIT).assert_code(0);
    pm2.wait_for("stopped");
    assert_eq!(sandbox.heard(), ["INT"]);
}
