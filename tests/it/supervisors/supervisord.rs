//! supervisord: exit code 0 is expected, all others are followed by a start.

use rustix::process::Signal;

use crate::support::{BINARY, LIMIT, Sandbox, Supervisord, kill};

#[test]
fn a_program_is_started_again_unless_somebody_stops_it() {
    started_again_unless_stopped("false");
}

/// A stop is for the whole process group then, and one signal for the command.
#[test]
fn a_group_is_started_again_unless_somebody_stops_it() {
    started_again_unless_stopped("true");
}

fn started_again_unless_stopped(stopasgroup: &str) {
    let sandbox = Sandbox::new();
    let gateway = sandbox.gateway_words().join(" ");
    let program = format!(
        "command = {BINARY} run --no-backoff -- {gateway}\n\
         startsecs = 0\n\
         autorestart = unexpected\n\
         exitcodes = 0\n\
         stopasgroup = {stopasgroup}\n\
         stopwaitsecs = 90\n"
    );
    let Some(supervisord) = Supervisord::start(&sandbox, &program) else { return };
    let gateway = sandbox.wait_for_starts(1);
    kill(gateway, Signal::KILL);
    sandbox.wait_for_starts(2);

    sandbox.let_gateways_end();
    sandbox.cli(["stop"]).assert_code(0);
    supervisord.wait_for("EXITED");
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");

    sandbox.let_gateways_drain();
    supervisord.ctl(&["start", "gw"]).assert_code(0);
    sandbox.wait_for_starts(3);
    let stop = supervisord.begin_ctl(&["stop", "gw"]);
    sandbox.wait_for_word("TERM");
    sandbox.let_gateways_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(supervisord.state(), "STOPPED");
    assert_eq!(sandbox.heard(), ["TERM"]);
    let end = &sandbox.history()[0];
    let by = format!("pid {} (", supervisord.pid());
    assert!(end["ended_by"].as_str().unwrap().starts_with(&by), "{end:#}");
}
