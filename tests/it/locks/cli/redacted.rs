//! What else people write is kept, and shown, without the identities of locks.

use crate::support::{LIMIT, Process, Sandbox, eventually, sleeper};

/// What looks like a secret, and what does not, but is locked here.
const KEY: &str = "ghp_0123456789abcdefghij";
const IDENTITY: &str = "correct-horse";

/// Everything that the store has kept, also what is free again.
fn store_contains(sandbox: &Sandbox, text: &str) -> bool {
    sandbox
        .picture()
        .values()
        .any(|(contents, ..)| contents.windows(text.len()).any(|part| part == text.as_bytes()))
}

/// FIELD-BUGS row 87, and invariant 8: whatever people write as a reason goes into a file that is
/// kept for months. It held for command lines and error messages only.
#[test]
fn reasons_are_kept_without_what_is_secret() {
    let sandbox = Sandbox::new();
    let mut holder = sleeper(&sandbox);
    let pid = holder.pid().to_string();
    let mut acquire = sandbox.incumbent(["lock", "acquire", "token", "-", "--pid", &pid]);
    acquire.args(["--metadata", &format!(r#"{{"bot": "the bot {IDENTITY}"}}"#)]);
    let mut acquire = Process::start(acquire);
    acquire.say(IDENTITY);
    acquire.finish(LIMIT).assert_code(0);
    let run = sandbox.hold(&["--profile", "a"]);
    let reason = format!("the token {IDENTITY}, and key={KEY}");
    let run_pid = run.pid().to_string();
    sandbox.cli(["marker", "write", "note", "--pid", &run_pid, "--reason", &reason]).assert_code(0);
    let peeked = sandbox.cli(["marker", "peek", "note", "--pid", &run_pid]).assert_code(0);
    assert!(peeked.out.contains("the token <redacted>, and key=<redacted>"), "{peeked:#?}");
    sandbox.cli(["stop", "--profile", "a", "--reason", &reason]).assert_code(0);
    drop(run);
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    let address = format!("https://api.invalid/bot{IDENTITY}/getMe");
    let extra = format!(r#"{{"said": "{IDENTITY} was refused", "by": "{address}"}}"#);
    // Words and paths are kept as well.
    let state = format!("refused {IDENTITY}");
    let program = format!("/nonexistent/{IDENTITY}/gateway");
    let lock = format!("other={IDENTITY}");
    let run = ["--profile", "b", "run", "--no-backoff", "--lock", &lock, "--", &program];
    sandbox.cli(run).assert_code(127);
    let says = [
        "status-set",
        "--pid",
        &pid,
        "--state",
        &state,
        "--exit-reason",
        &reason,
        "--extra",
        &extra,
        "--platform",
        "p",
        "--platform-state",
        &state,
        "--error-code",
        &state,
        "--error-message",
        &reason,
        "--platform-extra",
        &extra,
    ];
    sandbox.cli(says).assert_code(0);
    let store = incumbent::Store::open(sandbox.db()).unwrap();
    let by = format!("somebody with {IDENTITY}");
    let profile = store.profile("a").unwrap();
    profile.set_desired(incumbent::status::Desired::Stopped, &by).unwrap();
    let _ = profile.evict(&incumbent::Kind::default(), incumbent::stop::Force::No, &by).unwrap();
    drop((profile, store));
    let (_, status) = sandbox.status();
    let status = status.to_string();
    assert!(status.contains("the token <redacted>, and key=<redacted>"), "{status}");
    for secret in [IDENTITY, KEY] {
        assert!(!store_contains(&sandbox, secret), "{secret}");
    }
    holder.kill();
}

/// What is locked is shown by no look at the machine's processes, whatever it looks like: neither
/// where the process that has it in its command line was never on record, nor in a script or a
/// sentence.
#[test]
fn a_diagnostic_shows_no_locked_identity() {
    let sandbox = Sandbox::new();
    let mut holder = sleeper(&sandbox);
    let pid = holder.pid().to_string();
    let mut acquire =
        Process::start(sandbox.incumbent(["lock", "acquire", "token", "-", "--pid", &pid]));
    acquire.say(IDENTITY);
    acquire.finish(LIMIT).assert_code(0);
    // The subject of a diagnostic is always shown with its descendants.
    let mut subject = Process::start(sandbox.shell(&format!(
        "/bin/sh -c 'echo ready; exec cat' worker {IDENTITY} --bot={IDENTITY} \
         '(as {IDENTITY}).'; true"
    )));
    assert_eq!(subject.line(), "ready");
    let log = sandbox.file("diagnostic.log");
    let subject_pid = subject.pid().to_string();
    let path = log.display().to_string();
    let words = ["forensics", "diagnose", "--log", &path, "--timeout", "20", "--pid", &subject_pid];
    sandbox.cli(words).assert_code(0);
    let written = eventually("the end of the diagnostic", LIMIT, || {
        std::fs::read_to_string(&log).ok().filter(|text| text.contains("=== end ==="))
    });
    assert!(!written.contains(IDENTITY), "{written}");
    assert!(written.contains("--bot=<redacted>"), "{written}");
    // What is locked cannot be found out: then nobody's command line is shown.
    std::fs::write(sandbox.db(), vec![0x55; 8192]).unwrap();
    std::fs::remove_file(&log).unwrap();
    sandbox.cli(words).assert_code(0);
    let written = eventually("the end of the diagnostic", LIMIT, || {
        std::fs::read_to_string(&log).ok().filter(|text| text.contains("=== end ==="))
    });
    assert!(!written.contains(IDENTITY) && written.contains("cannot be read"), "{written}");
    subject.kill();
    holder.kill();
}
