//! Whom a gateway serves: set, replaced, cleared, bounded; and what it says of their platforms.

use incumbent::status::{Field, PlatformUpdate};
use incumbent::{Claim, ErrorKind, Kind, ProfileName, Report, StatusUpdate, Store};
use serde_json::{Value, json};

use super::{assert_same, offices, profiles};
use crate::support::Sandbox;

/// Whom one gateway serves is bounded, and however often it changes its mind, what happened to the
/// offices stays on record.
#[test]
fn a_server_of_very_many_is_refused_and_pushes_nothing_out() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let Claim::Granted(tenure) = store.profile("a").unwrap().claim().unwrap() else {
        panic!("nobody else is here")
    };
    let names = |count: usize| -> Vec<ProfileName> {
        (0..count).map(|n| ProfileName::new(format!("p{n}")).unwrap()).collect()
    };
    let refused = tenure.update_status(&StatusUpdate::new().serves(names(257))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.hint().is_some_and(|hint| hint.contains("256")), "{refused:?}");
    for _ in 0..25 {
        tenure.update_status(&StatusUpdate::new().serves(names(256))).unwrap();
        tenure.update_status(&StatusUpdate::new().serves(Field::Clear)).unwrap();
    }
    let kept = sandbox.number("SELECT count(*) FROM events");
    assert!((10_000..=11_100).contains(&kept), "{kept}");
    assert_eq!(sandbox.number("SELECT count(*) FROM events WHERE event = 'office_claimed'"), 1);
    // Its own profile it serves anyway.
    let own = ProfileName::new("a").unwrap();
    tenure.update_status(&StatusUpdate::new().serves(vec![own])).unwrap();
    assert_eq!(store.profile("a").unwrap().status().unwrap().serves, []);
}

/// They are told in the order in which they were said, and a new order is a change. What a program of
/// before said has none, and is in that of the names.
#[test]
fn the_order_in_which_profiles_are_served_is_kept() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let Claim::Granted(tenure) = store.profile("a").unwrap().claim().unwrap() else {
        panic!("nobody else is here")
    };
    let changes = || sandbox.number("SELECT count(*) FROM events WHERE event = 'serves_changed'");
    let says = |names: &[&str]| {
        let names: Vec<ProfileName> =
            names.iter().map(|name| ProfileName::new(*name).unwrap()).collect();
        tenure.update_status(&StatusUpdate::new().serves(names)).unwrap();
    };
    let serves = || json!(store.profile("a").unwrap().status().unwrap().serves);
    says(&["z", "m", "b", "m", "a"]);
    assert_eq!((serves(), changes()), (json!(["z", "m", "b"]), 1));
    says(&["z", "m", "b"]);
    assert_eq!((serves(), changes()), (json!(["z", "m", "b"]), 1), "nothing has changed");
    says(&["b", "y", "z", "m"]);
    assert_eq!((serves(), changes()), (json!(["b", "y", "z", "m"]), 2));
    sandbox.forge("UPDATE serves SET position = NULL");
    assert_eq!(serves(), json!(["b", "m", "y", "z"]));
    says(&["z", "y", "m", "b"]);
    assert_eq!((serves(), changes()), (json!(["z", "y", "m", "b"]), 3));
}

/// Two gateways that stand in for each other: each answers for itself while it lives, the one that
/// is left for both, and nobody goes round in circles when both are gone.
#[test]
fn two_that_serve_each_other_answer_for_themselves_first() {
    let sandbox = Sandbox::new();
    let mut a = sandbox.obeying_gateway("a");
    let mut b = sandbox.obeying_gateway("b");
    a.says("--serves b --state running");
    b.says("--serves a --state draining");
    for (profile, gateway) in [("a", &a), ("b", &b)] {
        let report = sandbox.assert_report_of(profile, 0, "anchor_held");
        assert_eq!(report["pid"], gateway.pid(), "{report:#}");
        assert_eq!(report["served_by"], Value::Null, "{report:#}");
    }
    a.kill();
    let report = sandbox.assert_served("a", "b");
    assert_eq!((&report["pid"], &report["state"]), (&json!(b.pid()), &json!("draining")));
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a", "b"]);
    b.kill();
    for profile in ["a", "b"] {
        let report = sandbox.assert_report_of(profile, 3, "anchor_released");
        assert_eq!((&report["served_by"], &report["serves"]), (&Value::Null, &json!([])));
    }
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a", "b"]);
}

/// A gateway of another kind serves others in that kind, and hides nobody of the usual one.
#[test]
fn a_server_serves_in_its_own_kind() {
    let sandbox = Sandbox::new();
    let mut relay = sandbox.obeying_gateway_with("a", &["--kind", "relay"]);
    relay.says("--kind relay --serves b --state running");
    let (code, b) = sandbox.json(["status", "--profile", "b", "--kind", "relay"]);
    assert_eq!((code, &b["served_by"]["kind"]), (0, &json!("relay")), "{b:#}");
    sandbox.assert_nobodys("b");
    let expected = [("a", "relay"), ("b", "relay")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(offices(&sandbox.reports_of_all(&[])), expected);
    let own = sandbox.hold(&["--profile", "b"]);
    assert_eq!(sandbox.assert_report_of("b", 0, "anchor_held")["pid"], own.pid());
    assert_eq!(sandbox.json(["status", "--profile", "b", "--kind", "relay"]).0, 0);
    let stop = ["stop", "--profile", "b", "--kind", "relay"];
    let instead = "incumbent stop --profile a --kind relay";
    sandbox.cli(stop).assert_code(1).assert_complains(&["served by a/relay", instead]);
    own.end().assert_code(0);
    relay.end().assert_code(0);
}

/// Whom it serves is set as a whole: what it said of the platforms of those that it serves no more
/// goes with them.
#[test]
fn whom_it_serves_is_set_replaced_and_cleared() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    let list_of =
        |sandbox: &Sandbox| sandbox.assert_report_of("a", 0, "anchor_held")["serves"].clone();
    let platforms = |sandbox: &Sandbox| -> Vec<(String, String)> {
        sandbox.platform_rows().into_iter().map(|row| (row.1, row.2)).collect()
    };
    let pair = |one: &str, two: &str| (one.to_owned(), two.to_owned());
    server.says("--serves c --serves b --serves c");
    assert_eq!(list_of(&sandbox), json!(["c", "b"]));
    for profile in ["a", "b", "c"] {
        server.says(&format!("--profile {profile} --platform mail --platform-state connected"));
    }
    // Kept: by what says nothing of it, and by what says the same.
    let events = || sandbox.number("SELECT count(*) FROM events WHERE event = 'serves_changed'");
    assert_eq!(events(), 1);
    server.says("--state running --heartbeat");
    server.says("--serves c --serves b");
    assert_eq!((list_of(&sandbox), events()), (json!(["c", "b"]), 1));
    sandbox.assert_served("b", "a");
    sandbox.assert_served("c", "a");
    // Replaced.
    server.says("--serves c --serves d");
    assert_eq!((list_of(&sandbox), events()), (json!(["c", "d"]), 2));
    assert_eq!(platforms(&sandbox), [pair("a", "mail"), pair("c", "mail")]);
    sandbox.assert_nobodys("b");
    // Who comes back starts fresh.
    server.says("--serves b --serves c");
    assert_eq!(sandbox.assert_served("b", "a")["platforms"], json!({}));
    // Platforms forgotten are those of the profile that is meant.
    server.says("--profile b --platform mail --platform-state connected");
    server.says("--profile c --clear platforms");
    assert_eq!(platforms(&sandbox), [pair("a", "mail"), pair("b", "mail")]);
    // Its own profile is its own, served or not.
    server.says("--serves a --serves b");
    assert_eq!(sandbox.assert_report_of("a", 0, "anchor_held")["served_by"], Value::Null);
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a", "b"]);
    sandbox.assert_served("b", "a");
    server.says("--serves b");
    assert_eq!(platforms(&sandbox), [pair("a", "mail"), pair("b", "mail")]);
    // Cleared.
    server.says("--clear serves");
    assert_eq!(list_of(&sandbox), json!([]));
    assert_eq!(platforms(&sandbox), [pair("a", "mail")]);
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a"]);
    sandbox.assert_nobodys("b");
    // Not both at once, and no name that is none.
    server.may_not_say("--serves b --clear serves", 2, &["serves"]);
    server.may_not_say("--serves ../b", 2, &["../b"]);
}

/// Inside of the run the words of a gateway that serves others reach each of them by its platforms;
/// what is true of the process as a whole is said once, under its own name.
#[test]
fn a_server_speaks_of_the_platforms_of_whom_it_serves_and_of_nobody_else() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --state running");
    let mut other = sandbox.obeying_gateway("x");
    server.says("--profile b --platform mail --platform-state connected --needs-attention true");
    let mail = &sandbox.assert_served("b", "a")["platforms"]["mail"];
    assert_eq!((&mail["state"], &mail["needs_attention"]), (&json!("connected"), &json!(true)));
    let before = sandbox.report_of_profile("a").1;
    for arguments in [
        "--state draining",
        "--exit-reason because",
        "--active-agents 4",
        "--restart-requested true",
        "--extra 1",
        "--clear state",
        "--heartbeat",
        "--serves c",
        "--clear serves",
        "--state draining --platform mail --platform-state retrying",
    ] {
        let arguments = format!("--profile b {arguments}");
        server.may_not_say(&arguments, 2, &["served by a/gateway", "--profile a"]);
    }
    for profile in ["x", "nobody"] {
        for arguments in ["--platform mail --platform-state connected", "--state draining"] {
            server.may_not_say(&format!("--profile {profile} {arguments}"), 1, &[profile]);
        }
    }
    server.may_not_say(
        "--profile b --kind relay --platform mail --error-code E",
        1,
        &["a/gateway"],
    );
    // Nor does anybody else speak for whom it serves.
    other.may_not_say("--profile b --platform mail --platform-state mine", 1, &["b"]);
    let script = sandbox.unrecorded_process();
    let pid = script.pid().to_string();
    let stranger = ["status-set", "--profile", "b", "--pid", &pid, "--platform", "mail"];
    let answer = sandbox.cli([&stranger[..], &["--error-code", "E"]].concat());
    answer.assert_code(1).assert_complains(&["does not hold b/gateway"]);
    assert_same(&before, &sandbox.report_of_profile("a").1);
    assert_eq!(sandbox.report_of_profile("b").1["platforms"]["mail"]["state"], "connected");
    // A recorded one speaks for those that it serves as well.
    let at = ["--pid", &pid];
    sandbox.cli([&["claim", "--profile", "script"], &at[..]].concat()).assert_code(0);
    let set = ["status-set", "--profile", "script", "--serves", "y"];
    sandbox.cli([&set[..], &at].concat()).assert_code(0);
    let set = ["status-set", "--profile", "y", "--platform", "irc", "--platform-state", "up"];
    sandbox.cli([&set[..], &at].concat()).assert_code(0);
    assert_eq!(sandbox.assert_served("y", "script")["platforms"]["irc"]["state"], "up");
}

/// A gateway that links the library serves others in the same way, all of an update or none of it.
#[test]
fn the_library_serves_and_reports_for_whom_it_serves() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let Claim::Granted(tenure) = store.profile("a").unwrap().claim().unwrap() else {
        panic!("nobody else is here")
    };
    let name = |name: &str| ProfileName::new(name).unwrap();
    let mail =
        |of: &str, state: &str| PlatformUpdate::new("mail").of_profile(name(of)).state(state);
    let state_of = |of: &str| {
        let report = store.profile(of).unwrap().status().unwrap();
        report.platforms.iter().map(|it| (it.platform.clone(), it.state.clone())).next()
    };
    // Of whom it serves not yet.
    let early = StatusUpdate::new().state("running").platform(mail("b", "connected"));
    let refused = tenure.update_status(&early).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotOwner, "{refused}");
    assert!(store.profile("a").unwrap().status().unwrap().runtime.is_none(), "half of an update");

    // Both at once, and for its own in the same update.
    let update = StatusUpdate::new()
        .serves(vec![name("b"), name("c")])
        .platform(mail("b", "connected"))
        .platform(mail("c", "fatal"))
        .platform(PlatformUpdate::new("mail").state("own"));
    tenure.update_status(&update).unwrap();
    let connected = |word: &str| Some(("mail".to_owned(), Some(word.to_owned())));
    assert_eq!(state_of("a"), connected("own"));
    assert_eq!(state_of("b"), connected("connected"));
    assert_eq!(state_of("c"), connected("fatal"));
    let a = store.profile("a").unwrap().status().unwrap();
    assert_eq!((a.serves, a.served_by), (vec![name("b"), name("c")], None));
    let b = store.profile("b").unwrap().status().unwrap();
    let server = b.served_by.expect("a server");
    assert_eq!((server.profile, server.kind), (name("a"), Kind::default()));
    assert_eq!((b.pid, b.office.profile), (Some(std::process::id()), name("b")));

    // Who drops a profile and speaks of it in one breath is refused, and nothing has changed.
    let update = StatusUpdate::new().serves(vec![name("c")]).platform(mail("b", "retrying"));
    assert_eq!(tenure.update_status(&update).unwrap_err().kind(), ErrorKind::NotOwner);
    assert_eq!(state_of("b"), connected("connected"));
    // All platforms of one profile are forgotten, then written anew.
    let update = StatusUpdate::new()
        .forget_platforms(Some(name("b")))
        .platform(PlatformUpdate::new("irc").of_profile(name("b")).state("up"));
    tenure.update_status(&update).unwrap();
    assert_eq!(state_of("b"), Some(("irc".to_owned(), Some("up".to_owned()))));
    assert_eq!(state_of("c"), connected("fatal"));

    let told = |reports: Vec<Report>| -> Vec<String> {
        reports.iter().map(|report| report.office.to_string()).collect()
    };
    assert_eq!(told(store.status_of_all().unwrap()), ["a/gateway", "b/gateway", "c/gateway"]);
    let relay = Kind::new("relay").unwrap();
    assert!(!store.profile("b").unwrap().status_of(&relay).unwrap().running);
    tenure.update_status(&StatusUpdate::new().serves(Field::Clear)).unwrap();
    assert_eq!(told(store.status_of_all().unwrap()), ["a/gateway"]);
    assert_eq!(state_of("b"), None);
    assert_eq!(state_of("a"), connected("own"));
    tenure.release().unwrap();
}
