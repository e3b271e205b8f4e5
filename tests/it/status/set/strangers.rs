//! Only the holder of the office may speak for it.

use std::time::Duration;

use incumbent::status::PlatformUpdate;
use incumbent::{Claim, ClaimOptions, ErrorKind, StatusUpdate, Store};
use serde_json::json;

use super::{claimed, in_run, obey, obeying, say, set_for, write_for};
use crate::support::{LIMIT, Process, Run, Sandbox, bystander, tenure_of};

/// Asserts that this is refused with `NotOwner`, in text and in JSON, and that the message holds
/// all of `words`.
#[track_caller]
pub fn assert_not_owner(
    sandbox: &Sandbox,
    options: &[&str],
    environment: &[(&str, &str)],
    words: &[&str],
) {
    let command = |json: &[&'static str]| {
        let mut command = sandbox.incumbent(json);
        command.args(["status-set", "--state", "stolen"]).args(options);
        command.envs(environment.iter().copied());
        Process::start(command).finish(LIMIT)
    };
    let answer = command(&["--json"]);
    assert_eq!(answer.code(), 1, "{options:?}: {answer:#?}");
    let error = answer.json()["error"].clone();
    assert_eq!(error["kind"], "not_owner", "{options:?}: {error:#}");
    let message = error["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{options:?}: no {word:?} in {message:?}");
    }
    assert!(answer.err.is_empty(), "{answer:#?}");
    let answer = command(&[]).assert_code(1);
    assert_eq!(answer.out, "", "{answer:#?}");
    let answer = answer.assert_complains(&["status-set: ", words[0]]);
    for secret in ["INCUMBENT_TOKEN", "nonce"] {
        assert!(!answer.err.contains(secret), "{answer:#?}");
    }
}

/// Symptom: whoever wrote the status file last was believed. It holds because
/// only the holder of the office is listened to, and nobody else changes a byte.
#[test]
fn only_the_holder_is_listened_to() {
    let sandbox = Sandbox::new();
    let here = std::process::id().to_string();
    let nobody = bystander(&sandbox);
    let stranger_pid = nobody.pid().to_string();
    // There is no store, and none is made for that.
    let place = sandbox.db().display().to_string();
    for options in [&[][..], &["--pid", &stranger_pid]] {
        assert_not_owner(&sandbox, options, &[], &["nobody holds default/gateway", &place]);
    }
    assert!(!sandbox.file("store").exists());

    // Nobody holds it any more.
    let script = claimed(&sandbox, &[]);
    let pid = script.pid().to_string();
    write_for(&sandbox, script.pid(), &["--state", "running"]);
    sandbox.cli(["release", "--pid", &pid]).assert_code(0);
    assert_not_owner(&sandbox, &["--pid", &pid], &[], &[&pid, "default/gateway", "nobody does"]);
    assert_eq!(sandbox.status().1["runtime"]["last_state"], "running");

    // Somebody else does.
    let holder = claimed(&sandbox, &[]);
    let holder_pid = holder.pid().to_string();
    write_for(&sandbox, holder.pid(), &["--state", "mine"]);
    let both = [stranger_pid.as_str(), "default/gateway", &holder_pid];
    assert_not_owner(&sandbox, &["--pid", &stranger_pid], &[], &both);
    let (_, answer) = set_for(&sandbox, nobody.pid(), &["--state", "stolen"]);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.ends_with(&format!(" pid {holder_pid} does")), "no sentence: {message}");
    assert_not_owner(&sandbox, &["--pid", &pid], &[], &[&pid, &holder_pid]);
    assert_not_owner(&sandbox, &[], &[], &[&here, &holder_pid]);
    // A pid that is nobody's.
    assert_not_owner(&sandbox, &["--pid", "4194303"], &[], &["4194303", &holder_pid]);
    // Another office than its own.
    assert_not_owner(&sandbox, &["--pid", &holder_pid, "--kind", "relay"], &[], &["/relay"]);
    assert_not_owner(&sandbox, &["--pid", &holder_pid, "--profile", "x"], &[], &["x/gateway"]);
    // Platforms are no back door.
    let (code, answer) =
        set_for(&sandbox, nobody.pid(), &["--platform", "telegram", "--platform-state", "up"]);
    assert_eq!((code, &answer["error"]["kind"]), (1, &json!("not_owner")), "{answer:#}");
    let status = sandbox.status().1;
    assert_eq!((&status["state"], &status["platforms"]), (&json!("mine"), &json!({})));
    // And the hint leads somewhere.
    let hint = answer["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("incumbent claim --pid"), "{hint}");
}

/// Who is a `run`, or links the library, speaks for itself: its pid is no password.
#[test]
fn a_pid_is_no_password() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let owner = Store::open(sandbox.db()).unwrap();
    let relay = ClaimOptions::new().kind(incumbent::Kind::new("relay").unwrap());
    let Claim::Granted(tenure) = owner.profile("default").unwrap().claim_with(&relay).unwrap()
    else {
        panic!("held")
    };
    let here = std::process::id().to_string();
    for (pid, kind) in [(run.pid().to_string(), "gateway"), (here.clone(), "relay")] {
        let options = ["--pid", &pid, "--kind", kind];
        assert_not_owner(&sandbox, &options, &[], &[&pid, "so only it sets its status"]);
    }
    // We are the parent of what we start.
    assert_not_owner(&sandbox, &["--kind", "relay"], &[], &[&here, "so only it sets its status"]);
    let command = run.command.pid.to_string();
    assert_not_owner(&sandbox, &["--pid", &command], &[], &[&command]);
    assert_eq!(sandbox.number("SELECT count(*) FROM runtime_status"), 0);
    tenure.release().unwrap();
    run.end().assert_code(0);
}

/// What a run's command was given is worth something for as long as that run holds the office.
#[test]
fn a_stale_token_is_worth_nothing() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    obey(&mut run, "echo $INCUMBENT_INSTANCE > instance; echo $INCUMBENT_TOKEN > token");
    let read = |name: &str| std::fs::read_to_string(sandbox.file(name)).unwrap().trim().to_owned();
    let (instance, token) = (read("instance"), read("token"));
    let proof = [("INCUMBENT_INSTANCE", instance.as_str()), ("INCUMBENT_TOKEN", token.as_str())];
    // It is the proof, whoever shows it.
    let mut command = sandbox.incumbent(["status-set", "--state", "running"]);
    Process::start({
        command.envs(proof);
        command
    })
    .finish(LIMIT)
    .assert_code(0);
    assert_eq!(sandbox.status().1["state"], "running");
    let other = "0123456789abcdef0123456789abcdef";
    let forged = [("INCUMBENT_INSTANCE", instance.as_str()), ("INCUMBENT_TOKEN", other)];
    assert_not_owner(&sandbox, &[], &forged, &["does not hold"]);
    // Another kind, another profile: not what this run is.
    for options in [["--kind", "relay"], ["--profile", "other"]] {
        assert_not_owner(&sandbox, &options, &proof, &["default/gateway"]);
    }
    run.end().assert_code(0);
    // It is over, and was none of ours: what it left in an environment is said and ignored.
    let shown = || {
        let mut command = sandbox.incumbent(["status-set", "--state", "stolen"]);
        command.envs(proof);
        let answer = Process::start(command).finish(LIMIT).assert_code(1);
        answer.assert_complains(&["INCUMBENT_INSTANCE is ignored", "does not hold"]);
    };
    shown();
    let next = claimed(&sandbox, &[]);
    write_for(&sandbox, next.pid(), &["--state", "mine"]);
    shown();
    assert_not_owner(&sandbox, &[], &forged, &["does not hold"]);
    assert_eq!(sandbox.status().1["state"], "mine");
}

/// FIELD-BUGS row 20. An owner that was evicted, or whose place was taken, is told so, and does not
/// write over what its successor says.
#[test]
fn who_lost_the_office_is_told_so() {
    let sandbox = Sandbox::new();
    // Deaf: it outlives the loss long enough to speak.
    let deaf = [
        "--stop-budget",
        "1min",
        "--",
        "/bin/sh",
        "-c",
        "trap '' TERM; echo $$; while read -r line; do eval \"$line\"; echo \"=> $?\"; done",
    ];
    let mut run = Run::start(sandbox.incumbent([&["run", "--no-backoff"], &deaf[..]].concat()));
    say(&sandbox, &mut run, &["--state", "running"]);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let (code, answer) = in_run(&sandbox, &mut run, &["status-set", "--state", "mine again"]);
    assert_eq!((code, &answer["error"]["kind"]), (1, &json!("not_owner")), "{answer:#}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("lost its office: evicted"), "{message}");
    assert_eq!(sandbox.status().1["runtime"]["last_state"], "running");
    drop(run);

    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let heart = tenure.heartbeat(Duration::from_millis(20)).unwrap();
    let update = StatusUpdate::new().state("mine").platform(PlatformUpdate::new("a").state("up"));
    tenure.update_status(&update).unwrap();
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let next = claimed(&sandbox, &[]);
    write_for(&sandbox, next.pid(), &["--state", "theirs"]);
    let before = sandbox.status().1;
    for update in [
        update,
        StatusUpdate::new().heartbeat(),
        StatusUpdate::new().forget_platforms(None),
        StatusUpdate::new().serves(Vec::new()),
        StatusUpdate::new(),
    ] {
        let refused = tenure.update_status(&update).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotOwner, "{update:?}");
        assert!(refused.to_string().contains("evicted"), "{refused}");
        assert!(refused.hint().unwrap().contains("incumbent status"), "{refused:?}");
    }
    assert_eq!(tenure.heartbeat(Duration::from_secs(1)).unwrap_err().kind(), ErrorKind::NotOwner);
    for _ in 0..100 {
        heart.beat();
    }
    let after = sandbox.status().1;
    for key in ["instance", "state", "runtime", "platforms", "heartbeat_at"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    drop((heart, tenure));
    assert_eq!(sandbox.status().1["state"], "theirs");
}
