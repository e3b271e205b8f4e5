//! `stop` of a process of another user.

use super::terms;
use crate::support::{LIMIT, Process, Run, Sandbox, another_user, skipped};

/// FIELD-BUGS rows 33 to 36: what root did once could not be read by the user any more. The user's
/// gateway reads root's marker, and consumes it.
#[test]
fn root_stops_a_users_gateway_which_learns_of_it() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let script = format!(
        "trap \"'{0}' marker consume planned_stop > told.txt; echo \\\"consume \\$?\\\";
             kill -KILL \\$sleeper; exit 7\" TERM
         sleep 1000 > /dev/null 2>&1 &
         sleeper=$!
         echo $$
         while :; do wait $sleeper; done",
        binary.display()
    );
    let mut command = sandbox.within(nobody);
    command.arg(&binary).args(["run", "--", "/bin/sh", "-c", &script]);
    let run = Run::start(command);
    let stop = sandbox.begin(&["stop"]);
    let stopper = stop.pid();
    stop.finish(LIMIT).assert_code(0);
    let answer = run.ended().assert_code(0);
    assert!(answer.out.ends_with("consume 0\n"), "{answer:#?}");
    let told = std::fs::read_to_string(sandbox.file("told.txt")).unwrap();
    assert!(told.contains("planned_stop by") && told.contains(&format!("pid {stopper}")), "{told}");
    sandbox.assert_planned(stopper);
}

/// Whoever may write to the store may ask, and a `run` obeys; nobody is signalled who may not be,
/// and who may not even see the store learns nothing of it.
#[test]
fn another_user_stops_only_who_obeys() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let stop_as = |words: &[&str], timeout: &str| {
        let mut command = sandbox.within(words);
        command.arg(&binary).args(["stop", "--force", "--timeout", timeout]);
        Process::start(command)
    };
    // The store is nobody's, the gateways are root's.
    let mut command = sandbox.within(nobody);
    command.arg(&binary).args(["run", "--", "true"]);
    Process::start(command).finish(LIMIT).assert_code(0);

    let owner = sandbox.linked_owner(500);
    let stranger = ["setpriv", "--reuid", "1", "--regid", "1", "--clear-groups"];
    let answer = stop_as(&stranger, "0").finish(LIMIT);
    assert!(matches!(answer.code(), 70 | 78), "{answer:#?}");
    let answer = stop_as(nobody, "0").finish(LIMIT).assert_code(1);
    answer.assert_complains(&["still running", "cannot be signalled", "not let us"]);
    sandbox.assert_status(0, "alive", "anchor_held");
    let answer = owner.finish(LIMIT).assert_code(0);
    assert!(!answer.err.contains("TERM"), "{answer:#?}");

    let mut run = sandbox.patient(&[]);
    let stop = stop_as(nobody, "30s");
    let stopper = stop.pid();
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(terms(&run.ended().assert_code(0)), 1);
    sandbox.assert_planned(stopper);
}
