//! What `lock acquire` says.

use serde_json::json;

use super::{GRANT, ID, SCOPE, acquire, assert_has, hash_of, locks, verb, wait_for_keepers};
use crate::support::{LIMIT, Process, Sandbox, assert_time, bystander, keys};

#[test]
fn a_grant_is_told_in_full() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let (code, granted) = acquire(&sandbox, &script, &["--metadata", r#"{"bot":"@weather"}"#]);
    assert_eq!(code, 0, "{granted:#}");
    assert_eq!(keys(&granted), GRANT, "{granted:#}");
    assert_eq!(granted["granted"], true, "{granted:#}");
    assert_eq!(granted["reacquired"], false, "{granted:#}");
    for empty in ["previous", "evicted", "holder", "retry_after_ms"] {
        assert!(granted[empty].is_null(), "{empty}: {granted:#}");
    }
    assert!(granted["instance"].is_i64(), "{granted:#}");
    // Drawn by the clock, in microseconds: 2020 was over long ago.
    assert!(granted["fence"].as_i64().unwrap() > 1_600_000_000_000_000, "{granted:#}");

    // Again, by the same process: it keeps the lock and its fence, and gets its old record.
    let (code, again) = acquire(&sandbox, &script, &["--metadata", r#"{"bot":"@news"}"#]);
    assert_eq!(code, 0, "{again:#}");
    assert_eq!(keys(&again), GRANT, "{again:#}");
    assert_eq!(again["granted"], true, "{again:#}");
    assert_eq!(again["reacquired"], true, "{again:#}");
    assert_eq!(again["fence"], granted["fence"], "{again:#}");
    assert_eq!(again["instance"], granted["instance"], "{again:#}");
    assert_eq!(again["previous"]["metadata"], json!({"bot": "@weather"}), "{again:#}");
    assert_eq!(again["previous"]["pid"], script.pid(), "{again:#}");
    assert_time(&again["previous"]["since"]);
    assert!(again["evicted"].is_null() && again["holder"].is_null(), "{again:#}");
    assert_eq!(locks(&sandbox)[0]["metadata"], json!({"bot": "@news"}));

    // As text: which lock, for whom, and the fence; nothing on standard error.
    let told = Process::start(verb(&sandbox, "acquire", script.pid(), &[])).finish(LIMIT);
    let expected = format!(
        "{SCOPE}/{}: pid {} holds it already, fence {}\n",
        hash_of(ID),
        script.pid(),
        granted["fence"]
    );
    assert_eq!((told.out.as_str(), told.err.as_str()), (expected.as_str(), ""));
    let other = bystander(&sandbox);
    let pid = other.pid().to_string();
    let told = sandbox.cli(["lock", "acquire", SCOPE, "other", "--pid", &pid]).assert_code(0);
    let expected = format!("{SCOPE}/{}: acquired for pid {pid}, fence ", hash_of("other"));
    assert!(told.out.starts_with(&expected), "{told:#?}");
    assert_eq!(told.err, "");
}

/// FIELD-BUGS row 47: a refusal says who, since when, why that counts as alive, and what to do.
#[test]
fn a_refusal_explains_itself() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    let metadata = r#"{"bot":"@weather","n":[1,2]}"#;
    let first = ["lock", "acquire", SCOPE, ID, "--profile", "work", "--pid", &pid, "--metadata"];
    let (code, granted) = sandbox.json([&first[..], &[metadata]].concat());
    assert_eq!(code, 0, "{granted:#}");

    let other = bystander(&sandbox);
    let (code, refused) = acquire(&sandbox, &other, &[]);
    assert_eq!(code, 75, "{refused:#}");
    assert_eq!(keys(&refused), GRANT, "{refused:#}");
    assert_eq!(refused["granted"], false, "{refused:#}");
    assert_eq!(refused["reacquired"], false, "{refused:#}");
    for empty in ["fence", "instance", "previous", "evicted", "retry_after_ms"] {
        assert!(refused[empty].is_null(), "{empty}: {refused:#}");
    }
    let holder = &refused["holder"];
    assert_has(
        holder,
        &["profile", "kind", "pid", "instance", "since", "verdict", "reason", "flags", "metadata"],
    );
    assert_eq!(holder["profile"], "work", "{refused:#}");
    assert!(holder["kind"].is_null(), "it has no office: {refused:#}");
    assert_eq!(holder["pid"], script.pid(), "{refused:#}");
    assert_eq!(holder["instance"], granted["instance"], "{refused:#}");
    assert_time(&holder["since"]);
    assert_eq!(holder["verdict"], "alive", "{refused:#}");
    assert_eq!(holder["reason"], "anchor_held", "{refused:#}");
    assert_eq!(holder["flags"], json!([]), "{refused:#}");
    assert_eq!(holder["metadata"], json!({"bot": "@weather", "n": [1, 2]}), "{refused:#}");

    let told = Process::start(verb(&sandbox, "acquire", other.pid(), &[])).finish(LIMIT);
    let told = told.assert_code(75).assert_complains(&[
        "incumbent: lock acquire: ",
        &format!("{SCOPE}/{} is held by profile work, pid {pid} (", hash_of(ID)),
        ") since 20",
        "which is alive: the kernel holds its lock",
        "try:",
        &format!("stop it first (`kill {pid}`)"),
    ]);
    assert_eq!(told.out, "");
    // Nobody was recorded, and no keeper stays for whoever was refused.
    wait_for_keepers(&sandbox, 1);
    assert_eq!(locks(&sandbox).len(), 1);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL"), 1);
}

/// However an identity is given, it is the same lock, and what is stored is its hash.
#[test]
fn an_identity_is_the_same_however_it_is_given() {
    for identity in [ID, "a", "two words", "-7", "-dash", "=a=b", "caf\u{e9}", "\"'`$x"] {
        let sandbox = Sandbox::new();
        let script = bystander(&sandbox);
        let pid = script.pid().to_string();
        let ways: [(&[&str], Option<String>); 5] = [
            (&["--", SCOPE, identity], None),
            (&[SCOPE, "-"], Some(identity.to_owned())),
            (&[SCOPE, "-"], Some(format!("{identity}\n"))),
            (&[SCOPE, "-"], Some(format!("{identity}\r\n"))),
            (&[SCOPE, "--identity-env", "IT_BOT_TOKEN"], None),
        ];
        let ask = |verb: &str, way: &[&str], stdin: &Option<String>| {
            let mut command = sandbox.incumbent(["--json", "lock", verb, "--pid", &pid]);
            command.args(way).env("IT_BOT_TOKEN", identity);
            let mut process = Process::start(command);
            if let Some(text) = stdin {
                process.write(text);
            }
            let answer = process.finish(LIMIT);
            (answer.code(), answer.json())
        };
        let mut fences = Vec::new();
        for (way, stdin) in &ways {
            let (code, answer) = ask("acquire", way, stdin);
            assert_eq!(code, 0, "{identity:?} {way:?} {stdin:?}: {answer:#}");
            assert_eq!(answer["reacquired"], !fences.is_empty(), "{way:?}: {answer:#}");
            fences.push(answer["fence"].clone());
            let held = locks(&sandbox);
            assert_eq!(held.len(), 1, "{identity:?} {way:?} {stdin:?}: {held:#?}");
            assert_eq!(held[0]["identity_hash"], hash_of(identity), "{identity:?} {way:?}");
        }
        assert!(fences.iter().all(|fence| *fence == fences[0]), "{fences:?}");
        for (way, stdin) in &ways {
            assert_eq!(ask("verify", way, stdin).0, 0, "{identity:?} {way:?} {stdin:?}");
        }
        let (way, stdin) = &ways[3];
        assert_eq!(ask("release", way, stdin).0, 0, "{identity:?}");
        assert_eq!(locks(&sandbox).len(), 0);
    }
}
