//! A profile that is served is answered through its server, and is as alive as that.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Gateway, OBEY, assert_same, by, first_line, profiles};
use crate::support::{LIMIT, Process, Sandbox, pid_namespace, skipped, wait_stopped};

/// FIELD-BUGS row 65.
///
/// Symptom: one gateway served two profiles, and `status` of the second one said "stopped". Cause:
/// it looked for a holder of that profile only. It holds because who serves whom is on record: the
/// question goes to the server, and the answer says so.
#[test]
fn a_served_profile_is_answered_through_its_server() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --state running --active-agents 2");
    server.says("--profile b --platform telegram --platform-state connected");

    let a = sandbox.assert_report_of("a", 0, "anchor_held");
    assert_eq!((&a["serves"], &a["served_by"]), (&json!(["b"]), &Value::Null), "{a:#}");
    assert_eq!(a["platforms"], json!({}), "{a:#}");
    let b = sandbox.assert_served("b", "a");
    for key in ["pid", "instance", "since", "state", "busy", "drainable", "evidence", "runtime"] {
        assert_eq!(a[key], b[key], "{key}");
    }
    assert_eq!((&b["pid"], &b["state"]), (&json!(server.pid()), &json!("running")), "{b:#}");
    assert_eq!(b["platforms"]["telegram"]["state"], "connected", "{b:#}");
    sandbox.assert_nobodys("c");

    let text = sandbox.cli(["status", "--profile", "b"]).assert_code(0).out;
    let first = format!("b/gateway: running, served by a/gateway, pid {}, for ", server.pid());
    assert!(text.starts_with(&first), "{text}");
    let text = sandbox.cli(["status", "--profile", "a"]).assert_code(0).out;
    assert!(text.contains("serves ") && !first_line(&text).contains("served"), "{text}");

    // The gateway is of one kind, and serves others in that.
    let (code, relay) = sandbox.json(["status", "--profile", "b", "--kind", "relay"]);
    assert_eq!((code, &relay["reason"]), (3, &json!("never_claimed")), "{relay:#}");
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a", "b"]);

    // What an operator wants is said of each profile by itself.
    sandbox.cli(["desired", "--profile", "b", "running"]).assert_code(0);
    assert_eq!(sandbox.assert_served("b", "a")["desired"], "running");
    assert_eq!(sandbox.report_of_profile("a").1["desired"], Value::Null);

    server.end().assert_code(0);
    sandbox.assert_nobodys("c");
    assert_eq!(sandbox.report_of_profile("a").1["serves"], json!([]));
    let b = sandbox.assert_report_of("b", 3, "never_claimed");
    assert_eq!((&b["served_by"], &b["desired"]), (&Value::Null, &json!("running")), "{b:#}");
}

/// FIELD-BUGS row 64.
///
/// Symptom: the second profile's failure replaced the first one's "connected". Cause: the status
/// was keyed by the platform alone. It holds because its key is instance, profile and platform.
#[test]
fn profiles_that_report_the_same_platform_never_overwrite_each_other() {
    let sandbox = Sandbox::new();
    let mut first = sandbox.obeying_gateway("a");
    let mut second = sandbox.obeying_gateway("x");
    first.says("--serves b --platform telegram --platform-state a-of-a");
    second.says("--serves b --platform telegram --platform-state x-of-x");
    first.says("--profile b --platform telegram --platform-state b-of-a --error-code E1");
    second.says("--profile b --platform telegram --platform-state b-of-x");
    let rows = sandbox.platform_rows();
    let states: BTreeSet<_> =
        rows.iter().map(|row| (row.1.as_str(), row.3.as_deref().unwrap())).collect();
    let expected = [("a", "a-of-a"), ("b", "b-of-a"), ("b", "b-of-x"), ("x", "x-of-x")];
    assert_eq!(states, BTreeSet::from(expected));

    let telegram =
        |profile: &str| sandbox.report_of_profile(profile).1["platforms"]["telegram"].clone();
    assert_eq!(telegram("a")["state"], "a-of-a");
    assert_eq!(telegram("x")["state"], "x-of-x");
    // Of two that serve it the younger one answers, with what it said itself.
    sandbox.assert_served("b", "x");
    let of_b = telegram("b");
    assert_eq!((&of_b["state"], &of_b["error_code"]), (&json!("b-of-x"), &Value::Null));
    // A change, a clear and a removal are of one row.
    first.says("--profile b --platform telegram --clear error-code --platform-state changed");
    first.says("--profile b --platform telegram --clear platform");
    assert_eq!(telegram("b")["state"], "b-of-x");
    assert_eq!(telegram("a")["state"], "a-of-a");
    first.says("--profile b --platform telegram --platform-state again");
    second.says("--clear platforms");
    assert_eq!(telegram("x"), Value::Null);
    assert_eq!(telegram("b")["state"], "b-of-x");
    // And when it has gone, the other one.
    second.kill();
    sandbox.assert_served("b", "a");
    assert_eq!(telegram("b")["state"], "again");
    first.kill();
    sandbox.assert_nobodys("b");
}

/// FIELD-BUGS rows 60 and 65.
///
/// Symptom: a dead gateway was shown as running for the profiles that it had served. It holds
/// because the row that says who serves whom proves nothing: the server is looked at, as for
/// itself.
#[test]
fn who_is_served_is_as_alive_as_its_server() {
    let sandbox = Sandbox::new();
    // Stopped: alive, and it shows.
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --state running");
    server.process.signal(Signal::STOP);
    wait_stopped(server.pid());
    assert_eq!(sandbox.assert_served("b", "a")["flags"], json!(["stopped"]));
    let text = sandbox.cli(["status", "--profile", "b"]).assert_code(0).out;
    assert!(
        text.starts_with("b/gateway: running, but suspended (SIGSTOP), served by a/gateway"),
        "{text}"
    );
    server.process.signal(Signal::CONT);
    // Killed.
    server.kill();
    sandbox.assert_nobodys("b");
    sandbox.assert_report_of("a", 3, "anchor_released");
    // Ended by itself, and by a stop.
    for ends_by_itself in [true, false] {
        let mut server = sandbox.obeying_gateway("a");
        sandbox.assert_nobodys("b");
        server.says("--serves b");
        sandbox.assert_served("b", "a");
        if ends_by_itself {
            server.end().assert_code(0);
        } else {
            sandbox.cli(["stop", "--profile", "a"]).assert_code(0);
        }
        sandbox.assert_nobodys("b");
    }
    // Evicted: the process lives, and is nobody's server.
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b");
    server.process.signal(Signal::STOP);
    wait_stopped(server.pid());
    sandbox.cli(["evict", "--force", "--profile", "a"]).assert_code(0);
    sandbox.assert_nobodys("b");
    // Whom the last one served is still listed: nobody may serve it now.
    let all = sandbox.reports_of_all(&[]);
    assert_eq!(profiles(&all), ["a", "b"]);
    assert_eq!((&all[1]["verdict"], &all[1]["served_by"]), (&json!("dead"), &Value::Null));
    server.kill();
    // Taken over: the next one serves whom it says that it serves.
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --serves c");
    let mut next = sandbox.obeying_gateway_with("a", &["--replace"]);
    sandbox.assert_nobodys("b");
    sandbox.assert_nobodys("c");
    next.says("--serves c");
    sandbox.assert_nobodys("b");
    assert_eq!(sandbox.assert_served("c", "a")["pid"], next.pid());
    // Started anew within the same tenure: the new command has said nothing yet.
    Process::start(sandbox.incumbent(["restart", "--profile", "a"])).finish(LIMIT).assert_code(0);
    sandbox.assert_nobodys("c");
    assert_eq!(sandbox.assert_report_of("a", 0, "anchor_held")["pid"], next.pid());
}

/// FIELD-BUGS row 27: the server is in a container, or whoever asks is.
#[test]
fn a_server_in_another_pid_namespace_is_seen() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let run = [&["run", "--no-backoff", "--profile", "a"], OBEY].concat();
    let mut server = Gateway::start(sandbox.incumbent_under(namespace, &run));
    // It is not the process of that number out here.
    server.command = None;
    server.says("--serves b --state running --platform mail --platform-state connected");
    server.says("--profile b --platform mail --platform-state retrying");
    let b = sandbox.assert_served("b", "a");
    assert_eq!((&b["flags"], &b["pid"]), (&json!(["elsewhere"]), &json!(1)), "{b:#}");
    assert_eq!(b["platforms"]["mail"]["state"], "retrying", "{b:#}");
    // A stop of what it serves reaches nobody either.
    assert_eq!(sandbox.json(["stop", "--profile", "b"]).0, 1);

    let ask = |words: &[&str]| {
        let command = sandbox.incumbent_under(namespace, &[&["--json"], words].concat());
        let answer = Process::start(command).finish(LIMIT);
        (answer.code(), answer.json())
    };
    let (code, inside) = ask(&["status", "--profile", "b"]);
    assert_eq!((code, &inside["served_by"]), (0, &by("a")), "{inside:#}");
    let (code, all) = ask(&["status", "--all"]);
    assert_eq!((code, profiles(all.as_array().unwrap())), (0, vec!["a".into(), "b".into()]));
    server.end().assert_code(0);
    sandbox.assert_nobodys("b");
    let (code, inside) = ask(&["status", "--profile", "b"]);
    assert_eq!((code, &inside["reason"]), (3, &json!("never_claimed")), "{inside:#}");
}

/// Serving is no office: whoever claims the profile itself gets it, and its answer wins for as long
/// as it lives; then the server answers again.
#[test]
fn who_claims_a_served_profile_gets_it_and_answers_for_it() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --state running --active-agents 1");
    server.says("--profile b --platform mail --platform-state of-the-server");
    sandbox.assert_served("b", "a");

    let mut own = sandbox.obeying_gateway("b");
    let said = |report: &Value| {
        assert_eq!((&report["served_by"], &report["platforms"]), (&Value::Null, &json!({})));
        assert_eq!((&report["busy"], &report["state"]), (&json!(false), &Value::Null));
    };
    let b = sandbox.assert_report_of("b", 0, "anchor_held");
    said(&b);
    assert_eq!(b["pid"], own.pid(), "{b:#}");
    let all = sandbox.reports_of_all(&[]);
    assert_eq!(profiles(&all), ["a", "b"], "each once");
    said(&all[1]);
    let text = sandbox.cli(["status", "--profile", "b"]).assert_code(0).out;
    assert!(!first_line(&text).contains("served"), "{text}");
    own.says("--platform mail --platform-state of-its-own");
    assert_eq!(sandbox.report_of_profile("b").1["platforms"]["mail"]["state"], "of-its-own");
    // The server goes on saying what it sees, and overwrites nothing.
    server.says("--profile b --platform mail --platform-state still-of-the-server");
    assert_eq!(sandbox.report_of_profile("b").1["platforms"]["mail"]["state"], "of-its-own");
    assert_eq!(sandbox.report_of_profile("a").1["serves"], json!(["b"]));
    // A stop is of the one that holds it.
    sandbox.cli(["stop", "--profile", "b"]).assert_code(0);
    let b = sandbox.assert_served("b", "a");
    assert_eq!(b["platforms"]["mail"]["state"], "still-of-the-server", "{b:#}");
    assert_eq!(b["pid"], server.pid(), "{b:#}");

    // Killed, it is the server's as well.
    sandbox.obeying_gateway("b").kill();
    sandbox.assert_served("b", "a");
    // A recorded one.
    let script = sandbox.unrecorded_process();
    let pid = script.pid().to_string();
    let (code, claim) = sandbox.json(["claim", "--profile", "b", "--pid", &pid]);
    assert_eq!((code, &claim["granted"]), (0, &json!(true)), "{claim:#}");
    assert_eq!(sandbox.assert_report_of("b", 0, "anchor_held")["pid"], script.pid());
    sandbox.cli(["release", "--profile", "b", "--pid", &pid]).assert_code(0);
    sandbox.assert_served("b", "a");
    // One of which nothing can be said is still the one that holds it: unknown is never dead.
    let _unsure = sandbox.gateway_of_nowhere("b", &[]);
    let b = sandbox.assert_report_of("b", 4, "foreign_namespace");
    assert_eq!((&b["served_by"], &b["running"]), (&Value::Null, &json!(false)), "{b:#}");
    sandbox.cli(["evict", "--force", "--profile", "b"]).assert_code(0);
    sandbox.assert_served("b", "a");
}

/// Among several that serve a profile one that lives answers before one of which nothing is known,
/// and that one before the dead, whoever came last.
#[test]
fn of_several_servers_the_living_answer_first() {
    let sandbox = Sandbox::new();
    let mut alive = sandbox.obeying_gateway("s1");
    alive.says("--serves b --state running");
    let mut dead = sandbox.obeying_gateway("s2");
    dead.says("--serves b --state running");
    let _unsure = sandbox.gateway_of_nowhere("s3", &[&["--serves", "b"], &["--state", "draining"]]);
    let mut killed = sandbox.obeying_gateway("s4");
    killed.says("--serves b --state running");
    sandbox.assert_served("b", "s4");
    killed.kill();
    // The youngest is unknown; of the others the younger one that lives.
    sandbox.assert_served("b", "s2");
    dead.kill();
    sandbox.assert_served("b", "s1");
    alive.kill();
    let b = sandbox.assert_report_of("b", 4, "foreign_namespace");
    assert_eq!((&b["served_by"], &b["running"]), (&by("s3"), &json!(false)), "{b:#}");
    assert_eq!((&b["state"], &b["drainable"]), (&json!("draining"), &json!(false)), "{b:#}");
    let text = sandbox.cli(["status", "--profile", "b"]).assert_code(4).out;
    assert!(text.starts_with("b/gateway: unknown, served by s3/gateway, pid "), "{text}");
    // Whether a stop would reach it is not known either.
    sandbox.cli(["stop", "--profile", "b"]).assert_code(4).assert_complains(&["served by s3"]);
    // What a person can do about it names the office that there is.
    assert!(text.contains("evict --force --profile s3 --kind gateway"), "{text}");
    sandbox.cli(["evict", "--force", "--profile", "s3"]).assert_code(0);
    sandbox.assert_nobodys("b");
}

/// FIELD-BUGS row 65.
///
/// Symptom: `stop` of a served profile said that nothing runs, and exited with 0. It holds because
/// it is told who serves it, what to do instead, and that nothing was done: the others that the
/// same gateway serves are none of that stop's business.
#[test]
fn a_served_profile_is_not_stopped_behind_its_servers_back() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    let (code, said) = server.tell("trap 'echo signalled' TERM HUP INT USR1");
    assert_eq!((code, said.as_str()), (0, ""));
    server.says("--serves b --state running");
    let before = sandbox.report_of_profile("a").1;
    let events = sandbox.number("SELECT count(*) FROM events");

    for verb in ["stop", "restart"] {
        for more in [&[][..], &["--timeout", "0"], &["--reason", "now"]] {
            let words = [&[verb, "--profile", "b"], more].concat();
            let answer = sandbox.cli(words).assert_code(1);
            assert_eq!(answer.out, "");
            let instead = format!("incumbent {verb} --profile a --kind gateway");
            answer.assert_complains(&["b/gateway is served by a/gateway", "try:", &instead]);
        }
        let (code, document) = sandbox.json([verb, "--profile", "b"]);
        assert_eq!((code, &document["served_by"]), (1, &by("a")), "{document:#}");
        assert_eq!(document["profile"], "b", "{document:#}");
    }
    let (code, stop) = sandbox.json(["stop", "--force", "--profile", "b"]);
    assert_eq!((code, &stop["stopped"], &stop["killed"]), (1, &json!(false), &json!(false)));
    assert_eq!((&stop["was_running"], &stop["still_runs"]), (&json!(true), &json!(true)));
    assert_eq!(stop["pid"], server.pid(), "{stop:#}");
    // What is wanted is said of the profile itself, and stays.
    let (code, stop) = sandbox.json(["stop", "--desired", "--profile", "b"]);
    assert_eq!((code, &stop["not_desired"]), (1, &Value::Null), "{stop:#}");
    let (code, desired) = sandbox.json(["desired", "--profile", "b"]);
    assert_eq!((code, &desired["desired"]), (0, &json!("stopped")), "{desired:#}");
    assert_eq!(sandbox.report_of_profile("a").1["desired"], Value::Null);
    let row = &sandbox.cli(["status", "--all", "--profile", "b"]).out;
    assert!(row.contains("should be stopped"), "{row}");

    // Nobody was asked for anything, and no signal came. (An order is answered after a signal.)
    assert_eq!(server.tell("true"), (0, String::new()));
    assert_same(&before, &sandbox.report_of_profile("a").1);
    let asked = "SELECT count(*) FROM markers";
    assert_eq!(sandbox.number(asked), 0);
    let wished = sandbox.number("SELECT count(*) FROM events WHERE event LIKE 'desired%'");
    assert_eq!(sandbox.number("SELECT count(*) FROM events"), events + wished);
    // Of a profile that nobody serves there is nothing to stop.
    sandbox.cli(["stop", "--profile", "c"]).assert_code(0);
    sandbox.cli(["restart", "--profile", "c"]).assert_code(3);
    // A stop of what serves it ends both.
    sandbox.cli(["stop", "--force", "--timeout", "0", "--profile", "a"]).assert_code(0);
    assert_eq!(sandbox.report_of_profile("b").0, 3);
}
