//! What does the real program say in each situation? Errors with their hints, refusals, and what
//! the doctor finds: sections of `tests/fixtures/messages.txt`, which a reviewer reads.
//!
//! A kind without an example fails: of errors in `tests/texts.rs`, of the doctor's ids here. A
//! situation that cannot be made here (it needs root, or mounts) keeps what it said elsewhere.

mod doctor;
mod errors;
#[path = "../../golden/mod.rs"]
mod golden;
mod masks;

use crate::support::Sandbox;

/// Two sections of one file: so it is one test.
#[test]
fn what_is_said_is_what_is_kept() {
    let kept = golden::page();
    let examples_of = |name: &str| golden::examples(&golden::section(&kept, name));
    let errors = errors::said();
    let findings = doctor::said(&examples_of(golden::DOCTOR));
    doctor::assert_complete(&findings);
    let update = std::env::var(golden::UPDATE).is_ok_and(|value| value == "1");
    let said =
        [(golden::ERRORS, golden::written(&errors)), (golden::DOCTOR, golden::written(&findings))];
    golden::check(update, &said);
}

/// What a sandbox' program said, without what is another one each time.
fn plain(sandbox: &Sandbox, text: &str) -> String {
    let real = sandbox.path().canonicalize().unwrap();
    let text = text.replace(real.to_str().unwrap(), "DIR");
    masks::masked(&text.replace(sandbox.path().to_str().unwrap(), "DIR"))
}
