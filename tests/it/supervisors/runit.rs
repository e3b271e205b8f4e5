//! runit: `runsv` starts again whatever ends, unless `sv down` has asked for the end.

use rustix::process::Signal;

use crate::support::{BINARY, Sandbox, ServiceDirectory, kill};

#[test]
fn a_service_is_started_again_unless_runit_stops_it() {
    let sandbox = Sandbox::new();
    let gateway = sandbox.gateway_words().join(" ");
    let run = format!("#!/bin/sh\nexec {BINARY} run --no-backoff -- {gateway}\n");
    sandbox.write_script("gw/run", run);
    let Some(runit) = ServiceDirectory::of_runit(&sandbox, "gw") else { return };
    let gateway = sandbox.wait_for_starts(1);
    kill(gateway, Signal::KILL);
    sandbox.wait_for_starts(2);

    // FIELD-BUGS row 123: for how long it is stopped is up to the supervisor.
    sandbox.let_gateways_end();
    sandbox.cli(["stop"]).assert_code(0);
    sandbox.wait_for_starts(3);
    let ends = sandbox.history();
    assert!(ends.iter().any(|end| end["end_reason"] == "planned_stop"), "{ends:#?}");

    sandbox.let_gateways_drain();
    runit.ask(&["sv", "down"]).assert_code(0);
    sandbox.wait_for_word("TERM");
    sandbox.let_gateways_end();
    runit.wait_for(&["sv", "status"], "down: ");
    assert_eq!(sandbox.heard(), ["TERM"]);
    assert_eq!(sandbox.status().0, 3);
}
