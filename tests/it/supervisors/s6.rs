//! s6, and the service directory that `unit s6` prints.

use rustix::process::Signal;

use super::files_of;
use crate::support::{LIMIT, Process, Sandbox, ServiceDirectory, kill};

/// FIELD-BUGS rows 55 and 75: the finish script keeps a service down that somebody stopped, and no
/// other one. `s6-svc -r`, which is a stop of the supervisor's own, is followed by a start.
#[test]
fn a_service_is_started_again_unless_somebody_stops_it() {
    let sandbox = Sandbox::new();
    let gateway = sandbox.gateway_words();
    let mut unit = sandbox.incumbent(["--json", "unit", "s6", "--name", "gw", "--"]);
    unit.args(&gateway);
    let printed = Process::start(unit).finish(LIMIT).assert_code(0).json();
    for (name, contents) in files_of(&printed) {
        sandbox.write_script(&name, contents);
    }
    let Some(s6) = ServiceDirectory::of_s6(&sandbox, "gw") else { return };
    let is_down = || s6.wait_for(&["s6-svstat", "-o", "up,wantedup"], "false false");
    let gateway = sandbox.wait_for_starts(1);
    kill(gateway, Signal::KILL);
    sandbox.wait_for_starts(2);

    sandbox.let_gateways_end();
    s6.ask(&["s6-svc", "-r"]).assert_code(0);
    sandbox.wait_for_starts(3);

    sandbox.cli(["stop"]).assert_code(0);
    is_down();
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");

    sandbox.let_gateways_drain();
    s6.ask(&["s6-svc", "-u"]).assert_code(0);
    sandbox.wait_for_starts(4);
    s6.ask(&["s6-svc", "-d"]).assert_code(0);
    sandbox.wait_for_word("TERM");
    sandbox.let_gateways_end();
    is_down();
    assert_eq!(sandbox.heard(), ["TERM"]);
    assert_eq!(sandbox.status().0, 3);
}
