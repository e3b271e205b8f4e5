//! The `lock` verbs, `locks` and `unlock`, and the locks of a `run`: what scripts and gateways in
//! other languages hold, learn and lose.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::Digest;

use crate::support::{
    Answer, HOLDING, Identity, LIMIT, Process, Run, SOON, Sandbox, Stat, another_user, assert_time,
    assert_untouched, assert_within, bystander, eventually, fingerprint, keys, kill, pid_namespace,
    rounds, skipped, tagged, wait_ended, wait_stopped,
};

const SCOPE: &str = "telegram-bot-token";
const ID: &str = "123456:AAbb-cc_dd";
/// The same as an argument of `run`.
const LOCK: &str = "--lock=telegram-bot-token=123456:AAbb-cc_dd";

/// The keys of the document of `lock acquire`, in their order.
const GRANT: [&str; 8] = [
    "granted",
    "fence",
    "instance",
    "reacquired",
    "previous",
    "evicted",
    "holder",
    "retry_after_ms",
];

fn hash_of(identity: &str) -> String {
    let digest = sha2::Sha256::digest(identity.as_bytes());
    let hex = digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    hex[..16].to_owned()
}

/// A lock's verb for a process.
fn verb(sandbox: &Sandbox, verb: &str, process: u32, options: &[&str]) -> Command {
    let pid = process.to_string();
    sandbox.incumbent([&["lock", verb, SCOPE, ID, "--pid", &pid], options].concat())
}

#[track_caller]
fn answer_of(mut command: Command) -> (i32, Value) {
    command.arg("--json");
    let answer = Process::start(command).finish(LIMIT);
    (answer.code(), answer.json())
}

#[track_caller]
fn acquire(sandbox: &Sandbox, process: &Process, options: &[&str]) -> (i32, Value) {
    answer_of(verb(sandbox, "acquire", process.pid(), options))
}

/// A process that holds the lock.
#[track_caller]
fn holder(sandbox: &Sandbox, options: &[&str]) -> Process {
    let process = bystander(sandbox);
    let (code, answer) = acquire(sandbox, &process, options);
    assert_eq!(code, 0, "{answer:#}");
    process
}

/// The exit code of a verb.
#[track_caller]
fn code_of(command: Command) -> i32 {
    Process::start(command).finish(LIMIT).code()
}

#[track_caller]
fn assert_has(document: &Value, expected: &[&str]) {
    let keys = keys(document);
    for key in expected {
        assert!(keys.contains(key), "no {key}: {document:#}");
    }
}

#[track_caller]
fn locks(sandbox: &Sandbox) -> Vec<Value> {
    let (code, document) = sandbox.json(["locks"]);
    assert_eq!(code, 0, "{document:#}");
    document.as_array().unwrap().clone()
}

#[track_caller]
fn wait_for_keepers(sandbox: &Sandbox, count: usize) {
    eventually(&format!("{count} keepers"), LIMIT, || {
        (sandbox.keepers().len() == count).then_some(())
    });
}

fn waiters(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM waiters")
}

/// The newest event of that name.
#[track_caller]
fn last_event(sandbox: &Sandbox, name: &str) -> Value {
    let (code, events) = sandbox.json(["events"]);
    assert_eq!(code, 0, "{events:#}");
    let mut events = events.as_array().unwrap().iter();
    events.rfind(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

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

/// FIELD-BUGS rows 7 and 79.
///
/// Symptom: a killed gateway's token stayed locked, for minutes or for ever. It holds because the
/// keeper's lock goes with the process, and a held lock whose process is proven gone keeps nobody
/// out: the next one asks at once, without waiting for the keeper.
#[test]
fn a_lock_dies_with_its_process() {
    let sandbox = Sandbox::new();
    let mut last_fence = 0;
    for round in 1..=rounds(40, 1_000) {
        let mut script = holder(&sandbox, &[]);
        let next = bystander(&sandbox);
        let asking = verb(&sandbox, "acquire", next.pid(), &[]);
        if round % 2 == 0 {
            script.kill();
        } else {
            // Not collected: a zombie.
            kill(script.pid(), Signal::KILL);
            assert!(wait_ended(script.pid(), LIMIT));
            assert_eq!(Stat::of(script.pid()).unwrap().state, 'Z');
        }
        let (code, answer) = answer_of(asking);
        assert_eq!(code, 0, "round {round}: {answer:#}");
        let evicted = &answer["evicted"];
        assert_eq!(keys(evicted), ["pid", "profile", "reason"], "round {round}: {answer:#}");
        assert_eq!(evicted["pid"], script.pid(), "round {round}: {answer:#}");
        assert_eq!(evicted["profile"], "default", "round {round}: {answer:#}");
        let reason = evicted["reason"].as_str().unwrap();
        let reasons = ["anchor_released", "no_such_process", "zombie"];
        assert!(reasons.contains(&reason), "round {round}: {answer:#}");
        let fence = answer["fence"].as_i64().unwrap();
        assert!(fence > last_fence, "round {round}: the fence fell: {answer:#}");
        last_fence = fence;
        next.finish(LIMIT).assert_code(0);
    }
    wait_for_keepers(&sandbox, 0);
}

/// A script that ends without `release` leaves nothing either, and `lock` in its own name is the
/// default: the parent of the verb.
#[test]
fn a_script_holds_what_it_asked_for_in_its_own_name() {
    let sandbox = Sandbox::new();
    let script = format!(
        "incumbent lock acquire {SCOPE} {ID} > /dev/null || exit
         incumbent lock verify {SCOPE} {ID} > /dev/null || exit
         echo $$; exec cat"
    );
    let mut shell = Process::start(sandbox.shell(&script));
    assert_eq!(shell.line(), shell.pid().to_string());
    assert_eq!(locks(&sandbox)[0]["pid"], shell.pid());
    let other = bystander(&sandbox);
    assert_eq!(acquire(&sandbox, &other, &[]).0, 75);
    shell.finish(LIMIT).assert_code(0);
    assert_eq!(acquire(&sandbox, &other, &[]).0, 0);
}

/// One keeper for a process, whatever it holds, in whatever order it was asked for; it goes with
/// the last of it, though the process lives on.
#[test]
fn one_keeper_keeps_office_and_locks_and_goes_with_the_last() {
    let sandbox = Sandbox::new();
    for order in [["claim", "one", "two"], ["one", "claim", "two"], ["one", "two", "claim"]] {
        let mut script = bystander(&sandbox);
        let pid = script.pid().to_string();
        let run = |words: &[&str]| sandbox.cli([words, &["--pid", &pid]].concat()).assert_code(0);
        for what in order {
            match what {
                "claim" => run(&["claim"]),
                "two" => run(&["lock", "acquire", SCOPE, what, "--profile", "work"]),
                _ => run(&["lock", "acquire", SCOPE, what]),
            };
            wait_for_keepers(&sandbox, 1);
        }
        let keeper = Identity::of(sandbox.keepers()[0]).unwrap();
        let anchors = "SELECT count(DISTINCT anchor) FROM instances WHERE ended_at_ms IS NULL";
        assert_eq!(sandbox.number(anchors), 1, "{order:?}");
        assert_eq!(locks(&sandbox).len(), 2, "{order:?}");
        for what in order {
            assert!(!keeper.is_gone(), "{order:?}: gone before {what}");
            match what {
                "claim" => run(&["release"]),
                "two" => run(&["lock", "release", SCOPE, what, "--profile", "work"]),
                _ => run(&["lock", "release", SCOPE, what]),
            };
        }
        keeper.wait_gone(LIMIT);
        assert!(!script.has_ended(), "{order:?}");
        assert_eq!(locks(&sandbox), [] as [Value; 0], "{order:?}");
    }
}

/// Two verbs for one process in one instant: one keeper, and both locks are held.
#[test]
fn two_locks_at_once_for_one_process_share_a_keeper() {
    let sandbox = Sandbox::new();
    for round in 1..=rounds(10, 300) {
        let mut script = bystander(&sandbox);
        let pid = script.pid().to_string();
        let start = |identity: &str| {
            Process::start(sandbox.incumbent(["lock", "acquire", SCOPE, identity, "--pid", &pid]))
        };
        let both = [start("one"), start("two"), start("one")];
        for process in both {
            process.finish(LIMIT).assert_code(0);
        }
        assert_eq!(locks(&sandbox).len(), 2, "round {round}");
        wait_for_keepers(&sandbox, 1);
        script.kill();
        wait_for_keepers(&sandbox, 0);
    }
}

/// Without a keeper only pid and start time tell; that is enough on the same machine.
#[test]
fn without_a_keeper_the_process_itself_is_looked_at() {
    let sandbox = Sandbox::new();
    let mut script = holder(&sandbox, &["--no-keeper"]);
    assert_eq!(sandbox.keepers(), [] as [u32; 0]);
    let held = &locks(&sandbox)[0];
    assert_eq!(held["reason"], "start_time_matches", "{held:#}");
    let other = bystander(&sandbox);
    let (code, refused) = acquire(&sandbox, &other, &[]);
    assert_eq!(code, 75, "{refused:#}");
    assert_eq!(refused["holder"]["pid"], script.pid(), "{refused:#}");
    assert_eq!(code_of(verb(&sandbox, "verify", script.pid(), &[])), 0);
    script.kill();
    let (code, answer) = acquire(&sandbox, &other, &["--no-keeper"]);
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(answer["evicted"]["reason"], "no_such_process", "{answer:#}");
    wait_for_keepers(&sandbox, 0);
}

/// The fence tells a holder of today from one of yesterday, who has the same pid or the same name.
#[test]
fn the_verbs_answer_with_their_exit_code() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let other = bystander(&sandbox);
    let (_, granted) = acquire(&sandbox, &script, &["--ttl", "1h"]);
    let fence = granted["fence"].to_string();
    let wrong = (granted["fence"].as_i64().unwrap() - 1).to_string();
    let ask = |what: &str, process: &Process, options: &[&str]| {
        answer_of(verb(&sandbox, what, process.pid(), options))
    };
    for (what, done) in [("verify", "held"), ("renew", "renewed")] {
        for options in [&[][..], &["--fence", &fence]] {
            let (code, answer) = ask(what, &script, options);
            assert_eq!(code, 0, "{what} {options:?}: {answer:#}");
            assert_eq!(answer[done], true, "{what}: {answer:#}");
            assert_eq!(answer["fence"], granted["fence"], "{what}: {answer:#}");
        }
    }
    for (what, done) in [("verify", "held"), ("renew", "renewed"), ("release", "released")] {
        for (process, options) in
            [(&other, &[][..]), (&script, &["--fence", &wrong]), (&other, &["--fence", &fence])]
        {
            let (code, answer) = ask(what, process, options);
            assert_eq!(code, 1, "{what} {options:?}: {answer:#}");
            assert_eq!(answer[done], false, "{what}: {answer:#}");
            assert!(answer["reason"].as_str().is_some_and(|why| !why.is_empty()), "{answer:#}");
            let told = verb(&sandbox, what, process.pid(), options);
            let told = Process::start(told).finish(LIMIT).assert_code(1);
            assert_eq!(told.out, "", "{told:#?}");
            told.assert_complains(&[&format!("incumbent: lock {what}: {SCOPE}/")]);
        }
    }
    assert_eq!(ask("release", &script, &["--fence", &fence]).0, 0);
    // Lost: nobody holds it, then another one does.
    for what in ["verify", "renew", "release"] {
        assert_eq!(ask(what, &script, &[]).0, 1, "{what}");
    }
    let (code, next) = acquire(&sandbox, &other, &[]);
    assert_eq!(code, 0, "{next:#}");
    assert!(next["fence"].as_i64() > granted["fence"].as_i64(), "{next:#}");
    for what in ["verify", "renew", "release"] {
        let (code, answer) = ask(what, &script, &[]);
        assert_eq!(code, 1, "{what}: {answer:#}");
        let why = answer["reason"].as_str().unwrap();
        assert!(why.contains(&format!("pid {}", other.pid())), "{answer:#}");
    }
    assert_eq!(ask("verify", &other, &[]).0, 0);
}

/// A lease is renewed, and one that ran out costs nothing while the kernel sees the holder.
#[test]
fn a_lease_that_ran_out_is_a_flag_and_is_renewed_late() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &["--ttl", "1ms"]);
    let (_, before) = answer_of(verb(&sandbox, "verify", script.pid(), &[]));
    let held = eventually("the lease is over", LIMIT, || {
        Some(locks(&sandbox).remove(0)).filter(|held| held["lease_remaining_ms"] == 0)
    });
    assert_eq!(held["verdict"], "alive", "{held:#}");
    assert_eq!(held["flags"], json!(["lease_overdue"]), "{held:#}");
    let other = bystander(&sandbox);
    assert_eq!(acquire(&sandbox, &other, &[]).0, 75);
    assert_eq!(code_of(verb(&sandbox, "renew", script.pid(), &[])), 0);
    let (code, after) = answer_of(verb(&sandbox, "verify", script.pid(), &[]));
    assert_eq!((code, &after["fence"]), (0, &before["fence"]));
    // A longer one, by acquiring it again.
    assert_eq!(acquire(&sandbox, &script, &["--ttl", "1h"]).0, 0);
    let left = locks(&sandbox)[0]["lease_remaining_ms"].as_i64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&left), "{left}");
}

/// FIELD-BUGS row 41: a bulk release is of one process, and says how many it released.
#[test]
fn release_all_is_of_one_process_and_counts() {
    let sandbox = Sandbox::new();
    let (script, other) = (bystander(&sandbox), bystander(&sandbox));
    let take = |process: &Process, identity: &str| {
        let pid = process.pid().to_string();
        sandbox.cli(["lock", "acquire", SCOPE, identity, "--pid", &pid]).assert_code(0);
    };
    for identity in ["a", "b", "c"] {
        take(&script, identity);
    }
    take(&other, "d");
    let run = sandbox.hold(&[LOCK]);
    let all = |process: u32, options: &[&str]| {
        let pid = process.to_string();
        sandbox.cli([&["lock", "release", "--all", "--pid", &pid], options].concat())
    };
    assert_eq!(all(run.pid(), &[]).assert_code(0).out, "0\n");
    assert_eq!(all(script.pid(), &[]).assert_code(0).out, "3\n");
    assert_eq!(all(script.pid(), &[]).assert_code(0).out, "0\n");
    assert_eq!(locks(&sandbox).len(), 2);
    assert_eq!(all(other.pid(), &["--json"]).assert_code(0).json(), json!({"released": 1}));
    assert_eq!(locks(&sandbox).len(), 1);
    wait_for_keepers(&sandbox, 0);
    run.end().assert_code(0);
}

/// `--pid` verbs touch only what `--pid` recorded: a lock that its owner holds by itself is its
/// own.
#[test]
fn what_a_process_holds_by_itself_no_pid_verb_releases() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[LOCK]);
    for process in [run.pid(), run.command.pid] {
        for what in ["verify", "renew", "release"] {
            let told = Process::start(verb(&sandbox, what, process, &[])).finish(LIMIT);
            told.assert_code(1).assert_complains(&["held by pid", &run.pid().to_string()]);
        }
    }
    assert_eq!(locks(&sandbox)[0]["verdict"], "alive");
    run.end().assert_code(0);
    assert_eq!(locks(&sandbox).len(), 0);
}

/// Inside a `run` the verbs act for it, and what they acquire ends with it.
#[test]
fn verbs_in_the_command_act_for_the_run() {
    let sandbox = Sandbox::new();
    let script = format!(
        "incumbent lock verify {SCOPE} {ID} > /dev/null; echo \"verify $?\"
         incumbent lock renew {SCOPE} {ID} > /dev/null; echo \"renew $?\"
         incumbent lock acquire {SCOPE} more > /dev/null; echo \"acquire $?\"
         (incumbent lock verify {SCOPE} more > /dev/null); echo \"verify $?\"
         exec cat"
    );
    let arguments = ["run", "--no-backoff", LOCK, "--", "/bin/sh", "-c", &script];
    let mut run = Process::start(sandbox.incumbent(arguments));
    assert_eq!(run.line(), "verify 0");
    assert_eq!(run.line(), "renew 0");
    assert_eq!(run.line(), "acquire 0");
    assert_eq!(run.line(), "verify 0");
    let held = locks(&sandbox);
    assert_eq!(held.len(), 2, "{held:#?}");
    let instance = sandbox.status().1["instance"].clone();
    for lock in &held {
        assert_eq!(lock["pid"], run.pid(), "{lock:#}");
        assert_eq!(lock["instance"], instance, "{lock:#}");
    }
    assert_eq!(sandbox.status().1["locks"].as_array().unwrap().len(), 2);
    assert_eq!(sandbox.keepers(), [] as [u32; 0]);
    run.finish(LIMIT).assert_code(0);
    assert_eq!(locks(&sandbox).len(), 0);
}

/// A lock that the command lets go is let go: the run goes on without it.
#[test]
fn a_lock_released_by_the_command_does_not_end_it() {
    let sandbox = Sandbox::new();
    // Not a synchronisation: the time in which a run that took this for a loss would end it.
    let script = format!(
        "incumbent lock release {SCOPE} {ID} > /dev/null; echo \"released $?\"
         sleep 1.5
         incumbent lock release --all; echo \"still here\""
    );
    let arguments = ["run", "--no-backoff", LOCK, "--lock", "port=80", "--", "sh", "-c", &script];
    let answer = sandbox.cli(arguments).assert_code(0);
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("released 0\n1\nstill here\n", ""));
}

/// All or none: with one lock held by another one, the command never starts, and nothing of it is
/// held: not the office, not the other locks.
#[test]
fn a_run_has_all_its_locks_or_does_not_start() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let start = |options: &[&str]| {
        let mut command = sandbox.incumbent(["run", "--no-backoff"]);
        command.args(options).args(["--", "touch", "started"]).env("IT_BOT_TOKEN", ID);
        Process::start(command).finish(LIMIT)
    };
    let by_env = format!("--lock-env={SCOPE}=IT_BOT_TOKEN");
    let named =
        format!("{SCOPE}/{} is held by profile default, pid {} (", hash_of(ID), script.pid());
    for lock in [LOCK, &by_env] {
        for locks_of_run in [&[lock][..], &["--lock=port=80", lock], &[lock, "--lock=port=80"]] {
            let answer = start(locks_of_run).assert_code(75);
            assert_eq!(answer.out, "");
            answer.assert_complains(&["incumbent: run: ", &named, "try:"]);
            let told = start(&[locks_of_run, &["-E", "99", "--json"]].concat()).assert_code(99);
            let document = told.json();
            assert_eq!(document["granted"], false, "{document:#}");
            assert_eq!(document["holder"]["pid"], script.pid(), "{document:#}");
        }
    }
    assert!(!sandbox.file("started").exists());
    assert_eq!(sandbox.status().1["reason"], "never_claimed");
    assert_eq!(locks(&sandbox).len(), 1);
    let pid = script.pid();
    assert_eq!(code_of(verb(&sandbox, "release", pid, &[])), 0);
    start(&["--lock=port=80", &by_env]).assert_code(0);
    assert!(sandbox.file("started").exists());
    assert_eq!(locks(&sandbox).len(), 0);
}

#[test]
fn a_runs_locks_are_visible_and_free_after_a_kill() {
    let sandbox = Sandbox::new();
    let other = bystander(&sandbox);
    let mut last_fence = 0;
    for round in 1..=rounds(20, 500) {
        let metadata = r#"{"bot":"@weather"}"#;
        let mut run = sandbox.hold(&[LOCK, "--lock", "port=80", "--metadata", metadata]);
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        let of_run = status["locks"].as_array().unwrap();
        let held = locks(&sandbox);
        for (at, scope, identity) in [(0, "port", "80"), (1, SCOPE, ID)] {
            let lock = &of_run[at];
            assert_has(lock, &["scope", "identity_hash", "fence", "acquired_at", "metadata"]);
            assert_eq!(lock["scope"], scope, "{status:#}");
            assert_eq!(lock["identity_hash"], hash_of(identity), "{status:#}");
            assert_eq!(lock["metadata"], json!({"bot": "@weather"}), "{status:#}");
            assert_eq!(held[at]["scope"], scope, "{held:#?}");
            assert_eq!(held[at]["fence"], lock["fence"], "{held:#?}");
            assert_eq!(held[at]["pid"], run.pid(), "{held:#?}");
            assert_eq!(held[at]["instance"], status["instance"], "{held:#?}");
            assert_eq!(held[at]["metadata"], json!({"bot": "@weather"}), "{held:#?}");
        }
        run.kill();
        let (code, answer) = acquire(&sandbox, &other, &[]);
        assert_eq!(code, 0, "round {round}: {answer:#}");
        assert_eq!(answer["evicted"]["pid"], run.pid(), "round {round}: {answer:#}");
        let fence = answer["fence"].as_i64().unwrap();
        assert!(fence > of_run[1]["fence"].as_i64().unwrap().max(last_fence), "{answer:#}");
        last_fence = fence;
        assert!(run.command.is_gone(), "round {round}: the command still acts");
        assert_eq!(code_of(verb(&sandbox, "release", other.pid(), &[])), 0);
    }
}

#[test]
fn a_run_waits_for_its_locks_and_then_owns_all() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let options = ["run", "--no-backoff", "--wait", LOCK, "--lock=port=80"];
    let mut run = Process::start(sandbox.incumbent([&options[..], HOLDING].concat()));
    sandbox.wait_for_waiters(1);
    let waiting = locks(&sandbox);
    assert_eq!(waiting.len(), 1, "it holds nothing while it waits: {waiting:#?}");
    assert_eq!(waiting[0]["waiters"][0]["pid"], run.pid(), "{waiting:#?}");
    assert_eq!(sandbox.status().1["reason"], "never_claimed");
    assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 0);
    let released = Instant::now();
    run.line();
    assert_within(SOON, released.elapsed(), "the grant after the release");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], run.pid());
    let held = locks(&sandbox);
    assert_eq!(held.len(), 2, "{held:#?}");
    assert!(held.iter().all(|lock| lock["pid"] == run.pid()), "{held:#?}");
    assert_eq!(waiters(&sandbox), 0);
    run.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS rows 44 and 67: a cloned profile carries the same token. The second one is refused,
/// by name, and the first one lives.
#[test]
fn of_two_profiles_with_one_token_the_second_is_refused() {
    let sandbox = Sandbox::new();
    let first = sandbox.hold(&[LOCK, "--profile", "home"]);
    for _ in 0..3 {
        let options = ["run", "--no-backoff", LOCK, "--profile", "work", "--", "true"];
        let refused = sandbox.cli(options).assert_code(75);
        let named = format!("is held by profile home, pid {} (", first.pid());
        refused.assert_complains(&[&named, "which is alive"]);
    }
    assert_eq!(sandbox.json(["status", "--profile", "work"]).0, 3);
    assert_eq!(sandbox.json(["status", "--profile", "home"]).0, 0);
    let held = &locks(&sandbox)[0];
    assert_eq!(held["conflicts"].as_array().unwrap().len(), 1, "{held:#}");
    assert_eq!(held["conflicts"][0]["profile"], "work", "{held:#}");
    assert_eq!(held["conflicts"][0]["count"], 3, "{held:#}");
    first.end().assert_code(0);
}

/// Without its lock a run is not wanted: it ends its command and says why.
#[test]
fn a_run_whose_lock_is_taken_away_ends_its_command() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[LOCK, "--lock=port=80"]);
    let command = run.command;
    let unlocked = sandbox.cli(["unlock", "port", "80", "--force"]).assert_code(0);
    assert_eq!(unlocked.err, "");
    let unlocked = Instant::now();
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    assert_within(SOON, unlocked.elapsed(), "the end of the run");
    assert!(command.is_gone());
    answer.assert_complains(&[
        "was lost",
        &format!("port/{}", hash_of("80")),
        "evicted by",
        "unlock --force",
        "ending the command",
    ]);
    assert_eq!(locks(&sandbox).len(), 0);
    assert_eq!(sandbox.status().0, 3);
}

fn run_of_party(sandbox: &Sandbox, party: &str) -> Process {
    let mut command = sandbox.incumbent([&["run", LOCK], HOLDING].concat());
    command.env("INCUMBENT_PARTY", party);
    Process::start(command)
}

/// FIELD-BUGS row 46: whoever is refused for the sake of a lock, again and again, is slowed down;
/// and nobody is kept out of a lock that is free.
#[test]
fn a_storm_for_a_lock_is_slowed_down_until_the_lock_is_free() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    for number in 1..=6 {
        let answer = run_of_party(&sandbox, "red").finish(LIMIT).assert_code(75);
        assert!(!answer.err.contains("waiting"), "start {number}: {answer:#?}");
    }
    let began = Instant::now();
    let mut seventh = run_of_party(&sandbox, "red");
    let told = seventh.err_line_with("starts in a row failed");
    assert!(told.contains("6 starts in a row"), "{told}");
    let blue = run_of_party(&sandbox, "blue").finish(LIMIT).assert_code(75);
    assert!(!blue.err.contains("waiting"), "{blue:#?}");
    assert_eq!(sandbox.status().0, 3, "it holds no office while it waits");
    assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 0);
    seventh.line();
    // The backoff lasts 5 s.
    let took = began.elapsed();
    assert_within(Duration::from_millis(4_500), took, "the start");
    assert_eq!(locks(&sandbox)[0]["pid"], seventh.pid());
    seventh.finish(LIMIT).assert_code(0);
}

fn waiter(sandbox: &Sandbox, process: &Process, options: &[&str]) -> Process {
    Process::start(verb(sandbox, "acquire", process.pid(), options))
}

#[test]
fn the_deadline_of_a_wait_is_kept() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let other = bystander(&sandbox);
    let started = Instant::now();
    let answer = waiter(&sandbox, &other, &["--wait=300ms"]).finish(LIMIT).assert_code(75);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300), "gave up after {took:?}");
    assert_within(Duration::from_millis(300) + SOON, took, "giving up");
    answer.assert_complains(&["is held by profile default", &format!("pid {} (", script.pid())]);
    assert_eq!(waiters(&sandbox), 0);
    // 0 is to try once, as without it.
    for options in [&["--wait=0"][..], &[]] {
        assert_eq!(acquire(&sandbox, &other, options).0, 75);
    }
    wait_for_keepers(&sandbox, 1);
}

/// By the holder's release, by its end, and by a person.
#[test]
fn a_waiter_is_woken_and_owns() {
    let sandbox = Sandbox::new();
    for how in ["release", "kill", "zombie", "end", "unlock"] {
        let mut script = holder(&sandbox, &[]);
        let other = bystander(&sandbox);
        let waiter = waiter(&sandbox, &other, &["--wait", "--json"]);
        sandbox.wait_for_waiters(1);
        let seen = &locks(&sandbox)[0]["waiters"];
        assert_eq!(seen.as_array().unwrap().len(), 1, "{how}: {seen:#}");
        assert_eq!(keys(&seen[0]), ["profile", "pid", "instance", "since"], "{how}: {seen:#}");
        assert_eq!(seen[0]["pid"], waiter.pid(), "{how}: {seen:#}");
        assert_eq!(seen[0]["profile"], "default", "{how}: {seen:#}");
        assert_time(&seen[0]["since"]);
        match how {
            "release" => assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 0),
            "kill" => script.kill(),
            "zombie" => kill(script.pid(), Signal::KILL),
            "end" => script.close_stdin(),
            _ => drop(sandbox.cli(["unlock", SCOPE, ID, "--force"]).assert_code(0)),
        }
        let woken = Instant::now();
        let answer = waiter.finish_with_stdin_open(LIMIT).assert_code(0).json();
        assert_within(SOON, woken.elapsed(), &format!("{how}: the grant"));
        assert_eq!(answer["granted"], true, "{how}: {answer:#}");
        let held = &locks(&sandbox)[0];
        assert_eq!(held["pid"], other.pid(), "{how}: {held:#}");
        assert_eq!(held["fence"], answer["fence"], "{how}: {held:#}");
        assert_eq!(held["waiters"], json!([]), "{how}: {held:#}");
        assert_eq!(waiters(&sandbox), 0, "{how}");
    }
}

/// A waiter has no rights: one that is killed or stopped blocks nobody, is not shown once it is
/// dead, and is gone from the store with the next grant.
#[test]
fn killed_and_stopped_waiters_block_nobody() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let (one, two, next) = (bystander(&sandbox), bystander(&sandbox), bystander(&sandbox));
    let mut killed = waiter(&sandbox, &one, &["--wait"]);
    sandbox.wait_for_waiters(1);
    let stopped = waiter(&sandbox, &two, &["--wait"]);
    sandbox.wait_for_waiters(2);
    killed.kill();
    kill(stopped.pid(), Signal::STOP);
    wait_stopped(stopped.pid());
    let seen = &locks(&sandbox)[0]["waiters"];
    let pids: Vec<&Value> = seen.as_array().unwrap().iter().map(|it| &it["pid"]).collect();
    assert_eq!(pids, [&json!(stopped.pid())], "{seen:#}");
    assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 0);
    let (code, answer) = acquire(&sandbox, &next, &[]);
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(waiters(&sandbox), 1, "the killed one's row went with the grant");
    // It may go on: it is too late, and gets it when it is free again.
    kill(stopped.pid(), Signal::CONT);
    assert_eq!(code_of(verb(&sandbox, "release", next.pid(), &[])), 0);
    stopped.finish(LIMIT).assert_code(0);
    assert_eq!(locks(&sandbox)[0]["pid"], two.pid());
    assert_eq!(waiters(&sandbox), 0);
}

/// A stopped owner keeps its lock, unless a contender asks not to respect that.
#[test]
fn an_owner_that_is_stopped_is_evicted_only_where_asked_for() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &[]);
    let other = bystander(&sandbox);
    assert_eq!(acquire(&sandbox, &other, &["--evict-stopped"]).0, 75, "it runs");
    let (_, before) = answer_of(verb(&sandbox, "verify", script.pid(), &[]));
    kill(script.pid(), Signal::STOP);
    wait_stopped(script.pid());
    let (code, refused) = acquire(&sandbox, &other, &[]);
    assert_eq!(code, 75, "{refused:#}");
    assert_eq!(refused["holder"]["flags"], json!(["stopped"]), "{refused:#}");
    let started = Instant::now();
    let (code, answer) = acquire(&sandbox, &other, &["--evict-stopped"]);
    assert_eq!(code, 0, "{answer:#}");
    assert!(started.elapsed() >= Duration::from_millis(200), "looked at only once");
    let expected = json!({"pid": script.pid(), "profile": "default", "reason": "evicted"});
    assert_eq!(answer["evicted"], expected, "{answer:#}");
    assert!(answer["fence"].as_i64() > before["fence"].as_i64(), "{answer:#}");
    // On SIGCONT the old owner learns it.
    kill(script.pid(), Signal::CONT);
    let fence = before["fence"].to_string();
    assert_eq!(code_of(verb(&sandbox, "verify", script.pid(), &["--fence", &fence])), 1);
    assert_eq!(code_of(verb(&sandbox, "renew", script.pid(), &[])), 1);
    assert_eq!(code_of(verb(&sandbox, "release", script.pid(), &[])), 1);
    assert_eq!(code_of(verb(&sandbox, "verify", other.pid(), &[])), 0);

    // Somebody who waits already takes it as well.
    let waiter = waiter(&sandbox, &script, &["--wait", "--evict-stopped", "--json"]);
    sandbox.wait_for_waiters(1);
    kill(other.pid(), Signal::STOP);
    let answer = waiter.finish(LIMIT).assert_code(0).json();
    assert_eq!(answer["evicted"]["reason"], "evicted", "{answer:#}");
    assert_eq!(answer["evicted"]["pid"], other.pid(), "{answer:#}");
}

/// A stopped `run` does not stop what it started: while the command acts, the lock is its own.
#[test]
fn a_stopped_run_with_a_command_that_runs_is_not_evicted() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[LOCK]);
    let other = bystander(&sandbox);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    let (code, refused) = acquire(&sandbox, &other, &["--evict-stopped"]);
    assert_eq!(code, 75, "{refused:#}");
    kill(run.command.pid, Signal::STOP);
    wait_stopped(run.command.pid);
    let (code, answer) = acquire(&sandbox, &other, &["--evict-stopped"]);
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(answer["evicted"]["reason"], "evicted", "{answer:#}");
    // It learns it, and ends its command.
    kill(run.command.pid, Signal::CONT);
    run.process.signal(Signal::CONT);
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    answer.assert_complains(&["was lost", "found it stopped"]);
}

/// FIELD-BUGS row 67: who holds what, whether it lives, who waits, and who was refused how often.
#[test]
fn locks_says_who_holds_waits_and_was_refused() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &["--metadata", r#"{"bot":"@weather"}"#, "--ttl", "10min"]);
    let fence = sandbox.number("SELECT fence FROM scoped_locks");
    let other = bystander(&sandbox);
    let mut refused = Vec::new();
    for _ in 0..4 {
        let mut command = verb(&sandbox, "acquire", other.pid(), &["--profile", "work"]);
        command.env("INCUMBENT_PARTY", "red");
        refused.push(code_of(command));
    }
    assert_eq!(refused, [75; 4]);
    let mut waiter = waiter(&sandbox, &other, &["--wait", "--profile", "work"]);
    sandbox.wait_for_waiters(1);

    let held = locks(&sandbox);
    assert_eq!(held.len(), 1, "{held:#?}");
    let lock = &held[0];
    assert_has(
        lock,
        &[
            "scope",
            "identity_hash",
            "profile",
            "pid",
            "instance",
            "fence",
            "verdict",
            "reason",
            "flags",
            "acquired_at",
            "lease_remaining_ms",
            "metadata",
            "waiters",
            "conflicts",
        ],
    );
    assert_eq!(lock["scope"], SCOPE, "{lock:#}");
    assert_eq!(lock["identity_hash"], hash_of(ID), "{lock:#}");
    assert_eq!(lock["profile"], "default", "{lock:#}");
    assert_eq!(lock["pid"], script.pid(), "{lock:#}");
    assert_eq!(lock["fence"], fence, "{lock:#}");
    assert_eq!(lock["verdict"], "alive", "{lock:#}");
    assert_eq!(lock["reason"], "anchor_held", "{lock:#}");
    assert_eq!(lock["flags"], json!([]), "{lock:#}");
    assert_time(&lock["acquired_at"]);
    assert!((1..=600_000).contains(&lock["lease_remaining_ms"].as_i64().unwrap()), "{lock:#}");
    assert_eq!(lock["metadata"], json!({"bot": "@weather"}), "{lock:#}");
    assert_eq!(lock["waiters"][0]["pid"], waiter.pid(), "{lock:#}");
    assert_eq!(lock["waiters"][0]["profile"], "work", "{lock:#}");
    let conflicts = lock["conflicts"].as_array().unwrap();
    let of_red = conflicts.iter().find(|conflict| conflict["count"] == 4);
    let of_red = of_red.unwrap_or_else(|| panic!("no conflict with count 4: {lock:#}"));
    assert_eq!(keys(of_red), ["profile", "pid", "first_at", "last_at", "count"], "{lock:#}");
    assert_eq!(of_red["profile"], "work", "{lock:#}");
    assert_time(&of_red["first_at"]);
    assert_time(&of_red["last_at"]);

    let text = sandbox.cli(["locks"]).assert_code(0);
    assert_eq!(text.err, "");
    for words in [
        format!("{SCOPE}/{}: held by profile default, pid {}, since", hash_of(ID), script.pid()),
        "the kernel holds its lock".to_owned(),
        fence.to_string(),
        r#"{"bot":"@weather"}"#.to_owned(),
        format!("profile work, pid {}", waiter.pid()),
        "4 times".to_owned(),
    ] {
        assert!(text.out.contains(&words), "no {words:?}: {}", text.out);
    }
    waiter.kill();
}

/// Of a dead holder: its lock is shown as free, and is not cleaned away by the question. FIELD-BUGS
/// row 60: whoever only asks changes nothing.
#[test]
fn questions_about_locks_write_nothing() {
    let sandbox = Sandbox::new();
    let mut dead = holder(&sandbox, &["--no-keeper"]);
    let other = bystander(&sandbox);
    let pid = other.pid().to_string();
    sandbox.cli(["lock", "acquire", "port", "80", "--pid", &pid]).assert_code(0);
    dead.kill();
    // A keeper looks twice a second whether its records stand; it reads as well.
    let before = sandbox.picture();
    for _ in 0..25 {
        let held = locks(&sandbox);
        assert_eq!(held[1]["verdict"], "dead", "{held:#?}");
        assert_eq!(held[1]["reason"], "no_such_process", "{held:#?}");
        assert!(sandbox.cli(["locks"]).assert_code(0).out.contains("free"));
        assert_eq!(code_of(verb(&sandbox, "verify", dead.pid(), &[])), 1);
        assert_eq!(code_of(verb(&sandbox, "verify", other.pid(), &[])), 1);
        sandbox.cli(["lock", "verify", "port", "80", "--pid", &pid]).assert_code(0);
    }
    let after = sandbox.picture();
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (path, facts) in &before {
        assert!(*facts == after[path], "a question wrote to {}", path.display());
    }
}

#[test]
fn questions_of_no_store_make_none() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let before = fingerprint(sandbox.path());
    assert_eq!(sandbox.json(["locks"]), (0, json!([])));
    sandbox.cli(["locks"]).assert_code(0);
    for what in ["verify", "renew", "release"] {
        assert_eq!(code_of(verb(&sandbox, what, script.pid(), &[])), 1, "{what}");
        let (code, answer) = answer_of(verb(&sandbox, what, script.pid(), &[]));
        assert_eq!(code, 1, "{what}: {answer:#}");
    }
    assert_eq!(sandbox.cli(["lock", "release", "--all"]).assert_code(0).out, "0\n");
    sandbox.cli(["unlock", SCOPE, ID]).assert_code(0);
    assert_eq!(sandbox.json(["unlock", SCOPE, ID, "--force"]).0, 0);
    assert_eq!(sandbox.json(["unlock", "--stale"]), (0, json!({"unlocked": []})));
    assert_untouched(&before, sandbox.path(), "questions");
    // A store without a lock in it.
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    assert_eq!(sandbox.json(["locks"]), (0, json!([])));
}

#[test]
fn unlock_removes_what_the_dead_left_and_the_rest_by_force() {
    let sandbox = Sandbox::new();
    let hash = hash_of(ID);
    let by_identity = ["unlock", SCOPE, ID];
    let by_hash = ["unlock", SCOPE, "--hash", &hash];
    for name in [&by_identity[..], &by_hash] {
        // Of a live one.
        let script = holder(&sandbox, &[]);
        let (code, document) = sandbox.json(name);
        assert_eq!(code, 75, "{document:#}");
        assert!(document["unlocked"].is_null(), "{document:#}");
        assert_eq!(document["holder"]["pid"], script.pid(), "{document:#}");
        let told = sandbox.cli(name).assert_code(75);
        assert_eq!(told.out, "");
        let force = format!("incumbent unlock {SCOPE} --hash {hash} --force");
        told.assert_complains(&["is held by", "try:", &force]);
        assert_eq!(code_of(verb(&sandbox, "verify", script.pid(), &[])), 0);
        let (code, document) = sandbox.json([name, &["--force"]].concat());
        assert_eq!(code, 0, "{document:#}");
        let unlocked = &document["unlocked"];
        assert_eq!(unlocked["pid"], script.pid(), "{document:#}");
        assert_eq!(unlocked["verdict"], "alive", "{document:#}");
        assert_eq!(unlocked["identity_hash"], hash, "{document:#}");
        assert!(document["holder"].is_null(), "{document:#}");
        // Its holder learns it, and the record says who did it.
        assert_eq!(code_of(verb(&sandbox, "verify", script.pid(), &[])), 1);
        let event = last_event(&sandbox, "lock_ended");
        assert_eq!(event["detail"]["reason"], "evicted", "{event:#}");
        assert_eq!(event["detail"]["fence"], unlocked["fence"], "{event:#}");
        let by = event["detail"]["by"].as_str().unwrap();
        assert!(by.starts_with("incumbent unlock --force (pid "), "{event:#}");
        // Nobody holds it.
        let (code, document) = sandbox.json(name);
        assert_eq!(code, 0, "{document:#}");
        assert!(document["unlocked"].is_null() && document["holder"].is_null(), "{document:#}");
        // Of a dead one.
        let mut script = holder(&sandbox, &[]);
        script.kill();
        wait_for_keepers(&sandbox, 0);
        let (code, document) = sandbox.json(name);
        assert_eq!(code, 0, "{document:#}");
        assert_eq!(document["unlocked"]["verdict"], "dead", "{document:#}");
        assert_eq!(document["unlocked"]["pid"], script.pid(), "{document:#}");
    }
    assert_eq!(locks(&sandbox).len(), 0);
}

#[test]
fn unlock_stale_sweeps_the_dead_only() {
    let sandbox = Sandbox::new();
    let (mut dead, live) = (bystander(&sandbox), bystander(&sandbox));
    for (process, identity) in [(&dead, "a"), (&live, "b"), (&dead, "c")] {
        let pid = process.pid().to_string();
        sandbox.cli(["lock", "acquire", SCOPE, identity, "--pid", &pid]).assert_code(0);
    }
    let mut run = sandbox.hold(&["--lock=port=80"]);
    assert_eq!(sandbox.json(["unlock", "--stale"]), (0, json!({"unlocked": []})));
    dead.kill();
    run.kill();
    run.command.wait_gone(LIMIT);
    wait_for_keepers(&sandbox, 1);
    let (code, document) = sandbox.json(["unlock", "--stale"]);
    assert_eq!(code, 0, "{document:#}");
    let mut removed: Vec<&str> = document["unlocked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lock| lock["identity_hash"].as_str().unwrap())
        .collect();
    removed.sort_unstable();
    let mut expected = [hash_of("a"), hash_of("c"), hash_of("80")];
    expected.sort_unstable();
    assert_eq!(removed, expected, "{document:#}");
    let held = locks(&sandbox);
    assert_eq!(held.len(), 1, "{held:#?}");
    assert_eq!(held[0]["pid"], live.pid(), "{held:#?}");
    assert_eq!(held[0]["verdict"], "alive", "{held:#?}");
}

/// FIELD-BUGS rows 25 and 27: a holder that cannot be seen is refused for while it lives, because
/// the kernel's lock knows no namespaces, and is out of the way when its container dies.
#[test]
fn a_holder_in_another_pid_namespace() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let other = bystander(&sandbox);
    let script =
        format!("sh -c 'incumbent lock acquire {SCOPE} {ID} && echo $$; exec cat'; exit 0");
    let mut command = sandbox.within(namespace);
    command.args(["/bin/sh", "-c", &script]);
    let mut container = Process::start(command);
    container.line_with("acquired for pid");
    container.line();
    for _ in 0..3 {
        let (code, refused) = acquire(&sandbox, &other, &["--evict-stopped"]);
        assert_eq!(code, 75, "{refused:#}");
        assert_eq!(refused["holder"]["reason"], "anchor_held", "{refused:#}");
        assert_eq!(refused["holder"]["flags"], json!(["elsewhere"]), "{refused:#}");
        sandbox.cli(["run", "--no-backoff", LOCK, "--", "true"]).assert_code(75);
        sandbox.cli(["unlock", SCOPE, ID]).assert_code(75);
    }
    let held = &locks(&sandbox)[0];
    assert_eq!(held["verdict"], "alive", "{held:#}");
    assert_eq!(held["flags"], json!(["elsewhere"]), "{held:#}");
    // Its pid is another process' number out here.
    let inside = u32::try_from(held["pid"].as_i64().unwrap()).unwrap();
    assert_eq!(code_of(verb(&sandbox, "release", inside, &[])), 1);

    let waiter = waiter(&sandbox, &other, &["--wait", "--json"]);
    sandbox.wait_for_waiters(1);
    let init = tagged("IT_SANDBOX", sandbox.path())
        .into_iter()
        .find(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == container.pid()))
        .expect("PID 1 of the namespace");
    kill(init, Signal::KILL);
    let killed = Instant::now();
    let answer = waiter.finish(LIMIT).assert_code(0).json();
    assert_within(SOON, killed.elapsed(), "the grant after the kill");
    assert_eq!(answer["evicted"]["reason"], "anchor_released", "{answer:#}");
    container.wait(LIMIT);
}

#[test]
fn a_holder_outside_of_our_pid_namespace() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut script = holder(&sandbox, &[]);
    let ask = format!(
        "sh -c 'incumbent lock acquire {SCOPE} {ID} > /dev/null; echo \"acquire $?\"
                incumbent unlock {SCOPE} {ID}; echo \"unlock $?\"
                incumbent unlock --stale > /dev/null; incumbent locks --json > locks.json'; exit 0"
    );
    let inside = || {
        let mut command = sandbox.within(namespace);
        command.args(["/bin/sh", "-c", &ask]);
        Process::start(command).finish(LIMIT)
    };
    let answer = inside();
    assert_eq!(answer.out, "acquire 75\nunlock 75\n", "{answer:#?}");
    let held = std::fs::read_to_string(sandbox.file("locks.json")).unwrap();
    let held: Value = serde_json::from_str(&held).unwrap();
    assert_eq!(held[0]["flags"], json!(["elsewhere"]), "{held:#}");
    script.kill();
    wait_for_keepers(&sandbox, 0);
    let answer = inside();
    assert!(answer.out.starts_with("acquire 0\n"), "{answer:#?}");
}

/// A store as the version before locks left it, with the history of a run and the live office of a
/// script.
fn store_without_locks(sandbox: &Sandbox) -> Process {
    sandbox.cli(["run", "--kind", "relay", "--", "true"]).assert_code(0);
    let script = bystander(sandbox);
    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    sandbox.age_to(1);
    script
}

fn schema_version(sandbox: &Sandbox) -> i64 {
    sandbox.number("PRAGMA user_version")
}

/// An older program may go on beside this one: what does not need locks does not migrate.
#[test]
fn a_store_of_the_version_before_is_migrated_only_for_owning() {
    let sandbox = Sandbox::new();
    let script = store_without_locks(&sandbox);
    let pid = script.pid().to_string();
    assert_eq!(schema_version(&sandbox), 1);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["locks"], json!([]));
    assert_eq!(sandbox.json(["locks"]), (0, json!([])));
    assert!(sandbox.cli(["locks"]).assert_code(0).err.is_empty());
    assert_eq!(sandbox.json(["history", "--kind", "relay"]).1[0]["end_reason"], "exited");
    sandbox.cli(["events"]).assert_code(0);
    for what in ["verify", "renew", "release"] {
        assert_eq!(code_of(verb(&sandbox, what, script.pid(), &[])), 1, "{what}");
    }
    let all = ["lock", "release", "--all", "--pid", &pid];
    assert_eq!(sandbox.cli(all).assert_code(0).out, "0\n");
    sandbox.cli(["unlock", SCOPE, ID]).assert_code(0);
    sandbox.cli(["unlock", "--stale"]).assert_code(0);
    sandbox.cli(["evict"]).assert_code(75);
    sandbox.cli(["release", "--pid", &pid]).assert_code(0);
    sandbox.assert_status(3, "dead", "released");
    sandbox.cli(["evict"]).assert_code(0);
    assert_eq!(schema_version(&sandbox), 1);
    assert_eq!(acquire(&sandbox, &script, &[]).0, 0);
    assert!(schema_version(&sandbox) > 1);
    assert_eq!(locks(&sandbox)[0]["pid"], script.pid());

    let sandbox = Sandbox::new();
    let script = store_without_locks(&sandbox);
    sandbox.cli(["run", "--no-backoff", LOCK, "--kind", "other", "--", "true"]).assert_code(0);
    assert!(schema_version(&sandbox) > 1);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], script.pid());

    // A live office is evicted without it.
    let sandbox = Sandbox::new();
    let _script = store_without_locks(&sandbox);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    sandbox.assert_status(3, "dead", "evicted");
    assert_eq!(schema_version(&sandbox), 1);
}

/// Refused as text and as JSON, with exit code 2, and nothing is made.
#[track_caller]
fn assert_usage_error(sandbox: &Sandbox, arguments: &[&str], stdin: &str, words: &str) {
    let before = fingerprint(sandbox.path());
    let what = format!("{arguments:?}").chars().take(200).collect::<String>();
    let ask = |first: &[&str]| -> Answer {
        let mut command = sandbox.incumbent(first);
        command.args(arguments).env("IT_EMPTY", "").env("IT_BLANK", " \n").env("IT_BOT_TOKEN", ID);
        let mut process = Process::start(command);
        if !stdin.is_empty() {
            process.write(stdin);
        }
        process.finish(LIMIT)
    };
    let text = ask(&[]);
    assert_eq!(text.code(), 2, "{what}: {text:#?}");
    assert_eq!(text.out, "", "{what}");
    assert!(text.err.contains(words), "{what}: no {words:?}: {text:#?}");
    assert!(!text.err.contains("panicked"), "{what}: {text:#?}");
    // One message: what clap says ends with the usage, what we say with a hint.
    let complaints = text
        .err
        .lines()
        .filter(|line| line.starts_with("incumbent:") || line.starts_with("error:"));
    assert_eq!(complaints.count(), 1, "{what}: {text:#?}");
    let json = ask(&["--json"]);
    assert_eq!(json.code(), 2, "{what}: {json:#?}");
    assert_eq!(json.err, "", "{what}");
    let document = json.json();
    assert_eq!(keys(&document), ["error"], "{what}: {document:#}");
    let error = &document["error"];
    assert_eq!(keys(error), ["kind", "message", "path", "hint", "retry_after_ms"], "{what}");
    assert_eq!(error["kind"], "invalid_input", "{what}: {document:#}");
    assert!(error["message"].as_str().unwrap().contains(words), "{what}: {document:#}");
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{what}: {document:#}");
    assert_untouched(&before, sandbox.path(), &what);
}

/// FIELD-BUGS row 66: no identity is no lock, loudly; and so with whatever cannot be meant.
#[test]
fn what_cannot_be_meant_is_refused_and_makes_nothing() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    let long = "x".repeat(65);
    let take = |words: &[&'static str]| [&["lock", "acquire", "--pid", "PID"], words].concat();
    let run = |words: &[&'static str]| [&["run"], words, &["--", "touch", "started"]].concat();
    let empty = "identity to lock is empty";
    let unset = "is not set, or empty";
    let cases: Vec<(Vec<&str>, &str, &str)> = vec![
        (take(&["", ID]), "", "scope"),
        (take(&["a b", ID]), "", "scope"),
        (take(&["a/b", ID]), "", "scope"),
        (take(&["a\nb", ID]), "", "scope"),
        (take(&[".a", ID]), "", "scope"),
        (take(&["\u{e9}", ID]), "", "scope"),
        (take(&["a=b", ID]), "", "scope"),
        (vec!["lock", "acquire", &long, ID], "", "scope"),
        (take(&[SCOPE]), "", "ID"),
        (take(&[SCOPE, ""]), "", empty),
        (take(&[SCOPE, "  \t\n"]), "", empty),
        (take(&[SCOPE, "-"]), "", empty),
        (take(&[SCOPE, "-"]), "\n", empty),
        (take(&[SCOPE, "--identity-env", "IT_EMPTY"]), "", unset),
        (take(&[SCOPE, "--identity-env", "IT_UNSET"]), "", unset),
        (take(&[SCOPE, "--identity-env", "IT_BLANK"]), "", empty),
        (take(&[SCOPE, "--identity-env", ""]), "", "variable"),
        (take(&[SCOPE, "--identity-env", "A=B"]), "", "variable"),
        (take(&[SCOPE, ID, "--identity-env", "IT_BOT_TOKEN"]), "", "cannot be used with"),
        (take(&[SCOPE, ID, "--metadata", "{bot: 1}"]), "", "not JSON"),
        (take(&[SCOPE, ID, "--metadata", ""]), "", "not JSON"),
        (take(&[SCOPE, ID, "--metadata", "{} {}"]), "", "not JSON"),
        (take(&[SCOPE, ID, "--ttl", "0"]), "", "0 s"),
        (take(&[SCOPE, ID, "--ttl=-1"]), "", "-1"),
        (take(&[SCOPE, ID, "--ttl", "-1"]), "", "-1"),
        (take(&[SCOPE, ID, "--ttl", "31d"]), "", "2678400 s"),
        (take(&[SCOPE, ID, "--ttl", "999999999999999999d"]), "", "999999999999999999d"),
        (take(&[SCOPE, ID, "--ttl", "infinity"]), "", "infinity"),
        (take(&[SCOPE, ID, "--ttl", "soon"]), "", "soon"),
        (take(&[SCOPE, ID, "--ttl", "1us"]), "", "time to live"),
        (take(&[SCOPE, ID, "--wait=later"]), "", "later"),
        (vec!["lock", "acquire", SCOPE, ID, "--pid", "0"], "", "above 0"),
        (vec!["lock", "acquire", SCOPE, ID, "--pid", "-1"], "", "-1"),
        (vec!["lock", "acquire", SCOPE, ID, "--pid=-1"], "", "above 0"),
        (vec!["lock", "verify", SCOPE, ID, "--fence", "x"], "", "fence"),
        (vec!["lock", "verify", "", ID], "", "scope"),
        (vec!["lock", "release", SCOPE], "", "ID"),
        (vec!["lock", "release", "--all", SCOPE, ID], "", "--all"),
        (vec!["unlock", SCOPE], "", "ID"),
        (vec!["unlock", SCOPE, "--hash", "12"], "", "hash"),
        (vec!["unlock", SCOPE, "--hash", "zzzzzzzzzzzzzzzz"], "", "hash"),
        (vec!["unlock", SCOPE, ""], "", empty),
        (vec!["unlock", "--stale", "--force"], "", "--stale"),
        (run(&["--lock", SCOPE]), "", "SCOPE=IDENTITY"),
        (run(&["--lock", "telegram-bot-token="]), "", empty),
        (run(&["--lock", "=x"]), "", "scope"),
        (run(&["--lock", "a b=x"]), "", "scope"),
        (run(&["--lock-env", SCOPE]), "", "SCOPE=VAR"),
        (run(&["--lock-env", "s=IT_UNSET"]), "", unset),
        (run(&["--lock-env", "s=IT_EMPTY"]), "", unset),
        (run(&["--lock-env", "s="]), "", "variable"),
        (run(&["--lock=s=x", "--lock=s=x"]), "", "named twice"),
        (run(&["--lock-env=s=IT_BOT_TOKEN", "--lock=s=123456:AAbb-cc_dd"]), "", "named twice"),
        (run(&["--metadata", "{}"]), "", "no lock is named"),
        (run(&["--lock=s=x", "--metadata", "{"]), "", "not JSON"),
    ];
    for (arguments, stdin, words) in cases {
        let arguments: Vec<&str> =
            arguments.into_iter().map(|word| if word == "PID" { &pid } else { word }).collect();
        assert_usage_error(&sandbox, &arguments, stdin, words);
    }
    assert_eq!(sandbox.keepers(), [] as [u32; 0]);
}

/// 64 KiB of metadata exactly, and one byte more.
#[test]
fn metadata_has_a_limit() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    let too_long = text(64 * 1024 + 1);
    let pid = script.pid().to_string();
    let words = ["lock", "acquire", SCOPE, ID, "--pid", &pid, "--metadata", &too_long];
    assert_usage_error(&sandbox, &words, "", "65537 bytes");
    let words = ["run", "--metadata", &too_long, LOCK, "--", "true"];
    assert_usage_error(&sandbox, &words, "", "65537 bytes");
    let fits = text(64 * 1024);
    let (code, answer) = acquire(&sandbox, &script, &["--metadata", &fits]);
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(locks(&sandbox)[0]["metadata"].as_str().unwrap().len(), 64 * 1024 - 2);
    // Whitespace does not count: it is not stored.
    let spaced = format!("[{}]", " ".repeat(100_000));
    assert_eq!(acquire(&sandbox, &script, &["--metadata", &spaced]).0, 0);
    assert_eq!(locks(&sandbox)[0]["metadata"], json!([]));
    let run = sandbox.hold(&["--lock=port=80", "--metadata", &fits]);
    assert_eq!(sandbox.status().1["locks"][0]["metadata"], fits.trim_matches('"'));
    run.end().assert_code(0);
}

/// A pid that has just ended, and that of a zombie: nobody is recorded for them.
#[test]
fn a_dead_process_holds_nothing() {
    let sandbox = Sandbox::new();
    let mut gone = bystander(&sandbox);
    let zombie = bystander(&sandbox);
    gone.kill();
    kill(zombie.pid(), Signal::KILL);
    assert!(wait_ended(zombie.pid(), LIMIT));
    for process in [&gone, &zombie] {
        let pid = process.pid().to_string();
        let words = ["lock", "acquire", SCOPE, ID, "--pid", &pid];
        sandbox.cli(words).assert_code(3).assert_complains(&[&format!("no process has pid {pid}")]);
    }
}

/// A process of another user's is not ours to record, and not ours to look into.
#[test]
fn a_process_of_another_user_is_refused() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    let before = fingerprint(sandbox.path());
    let words = ["lock", "acquire", SCOPE, ID, "--pid", &pid];
    let told = Process::start(sandbox.under(nobody, &binary, &words)).finish(LIMIT);
    let told = told.assert_code(78);
    told.assert_complains(&[&format!("pid {pid} belongs to another user"), "try:"]);
    let json = [&words[..], &["--json"]].concat();
    let told = Process::start(sandbox.under(nobody, &binary, &json)).finish(LIMIT);
    assert_eq!(told.assert_code(78).json()["error"]["kind"], "permission");
    assert_untouched(&before, sandbox.path(), "another user's process");
    // Root may record anybody's.
    let mut command = sandbox.within(nobody);
    command.args(["/bin/sh", "-c", "echo $$; exec cat"]);
    let theirs = Run::start(command);
    let theirs_pid = theirs.command.pid.to_string();
    sandbox.cli(["lock", "acquire", SCOPE, ID, "--pid", &theirs_pid]).assert_code(0);
    assert_eq!(locks(&sandbox)[0]["pid"], theirs.command.pid);
    theirs.end().assert_code(0);
}
