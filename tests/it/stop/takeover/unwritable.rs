//! A store that cannot be written, a taker that died, a lock that is taken for.

use rustix::process::Signal;
use serde_json::json;

use super::left_over::assert_taken_over_as;
use super::{
    SCOPE, assert_holder, assert_nothing_is_left, draining, takeovers_begun, taking_over,
    wait_until_requests_are_passed_on,
};
use crate::stop::terms;
use crate::support::{BINARY, HOLDING, LIMIT, Process, Sandbox, read_only_store, skipped};

/// R:RO. FIELD-BUGS row 78: what cannot be written down is not done. Nobody is signalled.
#[test]
fn without_a_record_there_is_no_takeover() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let old = draining(&sandbox, "a", &[]);
    for force in [&[][..], &["--force", "--cross-home", "--reap"][..]] {
        let mut command = sandbox.within(words);
        command.args([BINARY, "run", "--replace"]);
        command.args(["--no-backoff"]).args(force).args(HOLDING);
        let answer = Process::start(command).finish(LIMIT);
        assert!([70, 78].contains(&answer.code()), "{answer:#?}");
        assert_eq!(answer.out, "", "it started its command");
    }
    assert_holder(&sandbox, old.pid());
    assert_eq!(takeovers_begun(&sandbox), 0);
    assert_nothing_is_left(&sandbox, "at the end");
    let answer = old.end().assert_code(7);
    assert_eq!(terms(&answer), 0, "{answer:#?}");
}

/// A taker that died leaves an office that somebody has to fill: its supervisor is not told that
/// all is well, and the history does not name a successor that there is none of.
#[test]
fn a_taker_that_died_took_nothing_over() {
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &["--supervisor", "systemd"]);
    let mut taker = taking_over(&sandbox, "b", &[]);
    assert_eq!(old.process.line(), "TERM");
    // The marker is obeyed as well; it is about who was signalled.
    old.process.err_line_with("signal=SIGTERM");
    taker.kill();
    wait_until_requests_are_passed_on(&mut old);
    assert!(!old.command.is_gone(), "it is not killed for a taker that is gone");
    let answer = old.end();
    // It ends with 7, and was signalled: systemd starts it again.
    assert_eq!(answer.code(), 7, "{answer:#?}");
    let end = sandbox.history().swap_remove(0);
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    let detail = end["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("takeover by pid") && detail.contains("was abandoned"), "{end:#}");
}

/// One open intent per instance, whatever it is wanted for: who is being taken over for a lock of
/// its is neither restarted nor stopped meanwhile.
#[test]
fn whoever_is_taken_over_for_its_lock_has_one_request_only() {
    let sandbox = Sandbox::new();
    let lock = format!("{SCOPE}=token");
    let mut old = draining(&sandbox, "a", &["--kind", "worker", "--lock", &lock]);
    let mut taker = taking_over(&sandbox, "b", &["--lock", &lock]);
    assert_eq!(old.process.line(), "TERM");
    for verb in ["restart", "stop"] {
        let (code, document) = sandbox.json(["--kind", "worker", verb]);
        let holder = &document["holder"];
        assert_eq!((code, &holder["reason"]), (75, &json!("reserved")), "{verb}: {document:#}");
        assert_eq!(holder["pid"], taker.pid(), "{verb}: {document:#}");
    }
    let pid = old.pid().to_string();
    let write = ["marker", "write", "restart", "--pid", &pid];
    sandbox.cli(write).assert_code(75).assert_complains(&["takeover by pid", "in progress"]);
    wait_until_requests_are_passed_on(&mut old);
    let old_pid = old.pid();
    let answer = old.end().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    taker.line();
    assert_taken_over_as(&sandbox, "worker", old_pid);
    taker.signal(Signal::TERM);
    taker.finish_with_stdin_open(LIMIT);
}
