//! What a gateway says of itself, by `status-set` and by the library: every field, who may say it,
//! and what becomes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use incumbent::{
    Claim, ClaimOptions, ErrorKind, Field, ManualClock, OpenOptions, PlatformUpdate, ProfileName,
    Report, StatusUpdate, Store,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::stop::stranger;
use crate::support::{
    BINARY, BOOT_MS, Disk, LIMIT, Process, Run, Sandbox, WALL_MS, ask, assert_within, bystander,
    eventually, forked, order, plays, read_only_store, role_db, skipped, stopped_writer, tenure_of,
    test_name, unix_ms,
};

const ROLE_TEST: &str = test_name!(role_of_a_talker);
const TALKER: &str = "talker";

/// Looks like what a bot platform hands out.
const TOKEN: &str = "123456789:AAEhBP0av28xKq91mZ7ttyQwe42Lp0xVbN4";

/// A command that obeys: a line of shell on its standard input, the exit code as the answer.
const OBEYING: &[&str] = &[
    "--",
    "/bin/sh",
    "-c",
    "echo $$; while read -r line; do eval \"$line\"; echo \"=> $?\"; done",
];

/// A `run` whose command is ordered about by [`obey`].
#[track_caller]
pub fn obeying(sandbox: &Sandbox, options: &[&str]) -> Run {
    Run::start(sandbox.incumbent([&["run", "--no-backoff"], options, OBEYING].concat()))
}

/// Has the command of a run execute `line`; returns the exit code.
#[track_caller]
pub fn obey(run: &mut Run, line: &str) -> i32 {
    run.process.say(line);
    run.process.line_with("=> ").trim_start_matches("=> ").parse().unwrap()
}

/// `incumbent --json WORDS` in the command of a run.
#[track_caller]
pub fn in_run(sandbox: &Sandbox, run: &mut Run, words: &[&str]) -> (i32, Value) {
    let quoted: Vec<String> =
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let code = obey(run, &format!("incumbent --json {} > answer.json", quoted.join(" ")));
    let answer = std::fs::read_to_string(sandbox.file("answer.json")).unwrap();
    (code, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

/// `status-set WORDS` in the command of a run; it has to be written.
#[track_caller]
pub fn say(sandbox: &Sandbox, run: &mut Run, words: &[&str]) {
    let (code, answer) = in_run(sandbox, run, &[&["status-set"], words].concat());
    assert_eq!((code, &answer["written"]), (0, &json!(true)), "{words:?}: {answer:#}");
}

/// The same, with an office that was claimed for it.
#[track_caller]
pub fn claimed(sandbox: &Sandbox, options: &[&str]) -> Process {
    let script = bystander(sandbox);
    let pid = script.pid().to_string();
    sandbox.cli([&["claim", "--pid", &pid], options].concat()).assert_code(0);
    script
}

/// `status-set --pid PID WORDS`.
pub fn set_for(sandbox: &Sandbox, pid: u32, words: &[&str]) -> (i32, Value) {
    sandbox.json([&["status-set", "--pid", &pid.to_string()], words].concat())
}

#[track_caller]
pub fn write_for(sandbox: &Sandbox, pid: u32, words: &[&str]) {
    let (code, answer) = set_for(sandbox, pid, words);
    assert_eq!((code, &answer["written"]), (0, &json!(true)), "{words:?}: {answer:#}");
}

fn with_clock(sandbox: &Sandbox) -> (Store, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(WALL_MS, BOOT_MS));
    let store =
        OpenOptions::new().path(sandbox.db()).clock(Arc::clone(&clock) as _).open().unwrap();
    (store, clock)
}

fn report_of(store: &Store) -> Report {
    store.profile("default").unwrap().status().unwrap()
}

/// Plays a gateway that links the library and holds the default office.
#[test]
fn role_of_a_talker() {
    if !plays(TALKER) {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    let tenure = tenure_of(&store, "default");
    eprintln!("=> owns");
    let mut heart = None;
    while let Some(order) = order() {
        let words: Vec<&str> = order.split(' ').collect();
        let answer = match words.as_slice() {
            ["say", state] => {
                in_a_word(tenure.update_status(&StatusUpdate::new().state(*state)).map(drop))
            }
            ["promise", ms] => {
                let cadence = Duration::from_millis(ms.parse().unwrap());
                in_a_word(tenure.heartbeat(cadence).map(|made| heart = Some(made)))
            }
            ["beat", count] => {
                let started = Instant::now();
                for _ in 0..count.parse().unwrap() {
                    heart.as_ref().unwrap().beat();
                }
                started.elapsed().as_millis().to_string()
            }
            ["fork"] => {
                let child = forked::fork();
                if child == 0 {
                    forked::alarm(10);
                    let said = in_a_word(tenure.update_status(&StatusUpdate::new().state("child")));
                    let promised = in_a_word(tenure.heartbeat(Duration::from_secs(1)).map(drop));
                    heart.as_ref().unwrap().beat();
                    drop(heart.take());
                    eprintln!("child: {said} {promised}");
                    forked::leave();
                }
                forked::wait_for(child)
            }
            _ => panic!("{order}"),
        };
        eprintln!("=> {answer}");
    }
}

fn in_a_word(result: incumbent::Result<()>) -> String {
    match result {
        Ok(()) => "Ok".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

pub fn talker(sandbox: &Sandbox) -> Process {
    let mut talker = sandbox.role(ROLE_TEST, TALKER);
    talker.err_line_with("=> owns");
    talker
}

/// An option, the key of what it sets, two values (as said, as shown), and what is shown after it
/// was cleared.
type Case = (&'static str, &'static str, [(&'static str, Value); 2], Value);

fn of_instance() -> [Case; 5] {
    [
        ("state", "last_state", [("running", json!("running")), ("x", json!("x"))], json!(null)),
        (
            "exit-reason",
            "exit_reason",
            [("tired", json!("tired")), ("told to", json!("told to"))],
            json!(null),
        ),
        (
            "restart-requested",
            "restart_requested",
            [("true", json!(true)), ("no", json!(false))],
            json!(false),
        ),
        ("active-agents", "active_agents", [("3", json!(3)), ("0", json!(0))], json!(0)),
        (
            "extra",
            "extra",
            [(r#"{"a": [1]}"#, json!({"a": [1]})), ("null", json!(null))],
            json!(null),
        ),
    ]
}

fn of_platform() -> [Case; 6] {
    [
        (
            "platform-state",
            "last_state",
            [("retrying", json!("retrying")), ("connected", json!("connected"))],
            json!(null),
        ),
        ("error-code", "error_code", [("E1", json!("E1")), ("E2", json!("E2"))], json!(null)),
        (
            "error-message",
            "error_message",
            [("no route", json!("no route")), ("it's \"off\"", json!("it's \"off\""))],
            json!(null),
        ),
        (
            "needs-attention",
            "needs_attention",
            [("YES", json!(true)), ("0", json!(false))],
            json!(false),
        ),
        (
            "retrying-since",
            "retrying_since",
            [
                ("1795305600", json!("2026-11-22T00:00:00.000Z")),
                ("2026-11-22T09:00:00+01:00", json!("2026-11-22T08:00:00.000Z")),
            ],
            json!(null),
        ),
        ("platform-extra", "extra", [("[1]", json!([1])), ("\"2\"", json!("2"))], json!(null)),
    ]
}

/// What is said just now, of the instance and of the platform `telegram`, by option.
#[track_caller]
fn shown(sandbox: &Sandbox) -> Vec<(&'static str, Value)> {
    let status = sandbox.status().1;
    assert_eq!(status["runtime"]["damaged"], json!([]), "{status:#}");
    let of_instance =
        of_instance().map(|(option, key, ..)| (option, status["runtime"][key].clone()));
    let platform = &status["platforms"]["telegram"];
    let of_platform = of_platform().map(|(option, key, ..)| (option, platform[key].clone()));
    of_instance.into_iter().chain(of_platform).collect()
}

/// Symptom: a status that was written whole lost what its writer did not know of, or kept what it
/// had no word to remove. It holds because each field is kept, cleared or set, and nothing else
/// changes.
#[test]
fn every_field_is_kept_cleared_or_set_by_the_command_line() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let cases: Vec<Case> = of_instance().into_iter().chain(of_platform()).collect();
    let option = |name: &str| format!("--{name}");
    let mut full = vec!["--platform".to_owned(), "telegram".to_owned()];
    for (name, _, [(first, _), _], _) in &cases {
        full.extend([option(name), (*first).to_owned()]);
    }
    let full: Vec<&str> = full.iter().map(String::as_str).collect();
    let with = |changed: &str, to: &Value| -> Vec<(&'static str, Value)> {
        let value = |(name, _, [(_, first), _], _): &Case| {
            (*name, if *name == changed { to.clone() } else { first.clone() })
        };
        cases.iter().map(value).collect()
    };
    for (at, (name, _, [(first, _), (second, shown_second)], cleared)) in cases.iter().enumerate() {
        write_for(&sandbox, script.pid(), &full);
        assert_eq!(shown(&sandbox), with("nothing", &json!(null)), "before {name}");
        let subject: &[&str] = if at < 5 { &[] } else { &["--platform", "telegram"] };
        let words = |words: &[&str]| -> Vec<String> {
            subject.iter().chain(words).map(|word| (*word).to_owned()).collect()
        };
        let write = |said: Vec<String>| {
            let said: Vec<&str> = said.iter().map(String::as_str).collect();
            write_for(&sandbox, script.pid(), &said);
        };
        write(words(&[&option(name), second]));
        assert_eq!(shown(&sandbox), with(name, shown_second), "{name} set");
        write(words(&[&option(name), first]));
        // Both ways of writing a name are understood.
        let field = if at % 2 == 0 { (*name).to_owned() } else { name.replace('-', "_") };
        write(words(&["--clear", &field]));
        assert_eq!(shown(&sandbox), with(name, cleared), "{name} cleared");
        // What is not there can be cleared as well.
        write(words(&["--clear", &field]));
        assert_eq!(shown(&sandbox), with(name, cleared), "{name} cleared again");
    }
    let mut all = vec!["--platform", "telegram"];
    for (name, ..) in &cases {
        all.extend(["--clear", name]);
    }
    write_for(&sandbox, script.pid(), &all);
    let nothing: Vec<_> =
        cases.iter().map(|(name, _, _, cleared)| (*name, cleared.clone())).collect();
    assert_eq!(shown(&sandbox), nothing);
    assert_eq!(sandbox.number("SELECT count(*) FROM runtime_status WHERE state IS NULL"), 1);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Keep,
    Clear,
    Set,
}

impl How {
    /// The digits of `number` to the base of three.
    fn digits<const N: usize>(mut number: usize) -> [Self; N] {
        std::array::from_fn(|_| {
            let digit = number % 3;
            number /= 3;
            [Self::Keep, Self::Clear, Self::Set][digit]
        })
    }

    fn field<T>(self, value: T) -> Field<T> {
        match self {
            Self::Keep => Field::Keep,
            Self::Clear => Field::Clear,
            Self::Set => Field::Set(value),
        }
    }

    /// What the field is afterwards.
    fn of<T>(self, before: Option<T>, value: T) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Clear => None,
            Self::Set => Some(value),
        }
    }
}

/// The full product of what can be done to the fields, from nothing said and from everything said.
#[test]
fn every_field_is_kept_cleared_or_set_by_the_library() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let text = |text: &str| text.to_owned();
    let runtime_update = |[state, reason, restart, agents, extra]: [How; 5], is_new: bool| {
        let which = |old: &str, new: &str| text(if is_new { new } else { old });
        StatusUpdate::new()
            .state(state.field(which("running", "draining")))
            .exit_reason(reason.field(which("old", "new")))
            .restart_requested(restart.field(is_new))
            .active_agents(agents.field(if is_new { 7 } else { 3 }))
            .extra(extra.field(json!({"new": is_new})))
    };
    for number in 0..3_usize.pow(5) {
        for before in [How::Clear, How::Set] {
            tenure.update_status(&runtime_update([before; 5], false)).unwrap();
            let how = How::digits::<5>(number);
            tenure.update_status(&runtime_update(how, true)).unwrap();
            let said = report_of(&store).runtime.unwrap();
            let [state, reason, restart, agents, extra] = how;
            let had = |old: &str| (before == How::Set).then(|| text(old));
            assert_eq!(
                said.state,
                state.of(had("running"), text("draining")),
                "{before:?} {how:?}"
            );
            assert_eq!(said.state.is_some(), said.state_since_ms.is_some(), "{before:?} {how:?}");
            assert_eq!(said.exit_reason, reason.of(had("old"), text("new")), "{before:?} {how:?}");
            let had_restart = (before == How::Set).then_some(false);
            assert_eq!(said.restart_requested, restart.of(had_restart, true), "{before:?} {how:?}");
            let had_agents = (before == How::Set).then_some(3);
            assert_eq!(said.active_agents, agents.of(had_agents, 7), "{before:?} {how:?}");
            let had_extra = (before == How::Set).then(|| json!({"new": false}));
            assert_eq!(said.extra, extra.of(had_extra, json!({"new": true})), "{before:?} {how:?}");
        }
    }
    let platform_update = |how: [How; 6], is_new: bool| {
        let [state, code, message, attention, retrying, extra] = how;
        let which = |old: &str, new: &str| text(if is_new { new } else { old });
        StatusUpdate::new().platform(
            PlatformUpdate::new("telegram")
                .state(state.field(which("retrying", "fatal")))
                .error_code(code.field(which("E1", "E2")))
                .error_message(message.field(which("old", "new")))
                .needs_attention(attention.field(is_new))
                .retrying_since_ms(retrying.field(if is_new { 2 } else { 1 }))
                .extra(extra.field(json!([is_new]))),
        )
    };
    for number in 0..3_usize.pow(6) {
        // From nothing and from everything in turn: twice as many rounds would take twice as long.
        let before = if number % 2 == 0 { How::Set } else { How::Clear };
        tenure.update_status(&platform_update([before; 6], false)).unwrap();
        let how = How::digits::<6>(number);
        tenure.update_status(&platform_update(how, true)).unwrap();
        let platforms = report_of(&store).platforms;
        let [said] = platforms.as_slice() else { panic!("{platforms:?}") };
        let [state, code, message, attention, retrying, extra] = how;
        let had = |old: &str| (before == How::Set).then(|| text(old));
        assert_eq!(said.state, state.of(had("retrying"), text("fatal")), "{before:?} {how:?}");
        assert_eq!(said.error_code, code.of(had("E1"), text("E2")), "{before:?} {how:?}");
        assert_eq!(said.error_message, message.of(had("old"), text("new")), "{before:?} {how:?}");
        let had_attention = (before == How::Set).then_some(false);
        assert_eq!(said.needs_attention, attention.of(had_attention, true), "{before:?} {how:?}");
        let had_retrying = (before == How::Set).then_some(1);
        assert_eq!(said.retrying_since_ms, retrying.of(had_retrying, 2), "{before:?} {how:?}");
        let had_extra = (before == How::Set).then(|| json!([false]));
        assert_eq!(said.extra, extra.of(had_extra, json!([true])), "{before:?} {how:?}");
    }
    tenure.release().unwrap();
}

/// An update is written as a whole or not at all, also when only its last part is refused.
#[test]
fn an_update_is_all_or_nothing() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    tenure.update_status(&StatusUpdate::new().state("starting")).unwrap();
    let of_a_stranger =
        PlatformUpdate::new("b").of_profile(ProfileName::new("elsewhere").unwrap()).state("up");
    let update = StatusUpdate::new()
        .state("running")
        .heartbeat_every(Duration::from_secs(5))
        .platform(PlatformUpdate::new("a").state("up"))
        .platform(of_a_stranger);
    let refused = tenure.update_status(&update).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotOwner);
    assert!(refused.to_string().contains("elsewhere"), "{refused}");
    assert!(refused.hint().unwrap().contains("--serves elsewhere"), "{refused:?}");
    let said = report_of(&store);
    assert_eq!(said.state.as_deref(), Some("starting"));
    assert_eq!((said.platforms.len(), said.heartbeat_at_ms), (0, None));
    tenure.release().unwrap();
}

/// Symptom: a script had to find out and pass on the pid of its supervisor, and got it wrong in a
/// subshell. It holds because `run` tells its command, and whatever that starts, whose it is.
#[test]
fn the_command_of_a_run_speaks_without_naming_a_pid() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &["--profile", "work"]);
    let (pid, command) = (run.pid(), run.command.pid);
    let look = || sandbox.json(["status", "--profile", "work"]).1;
    assert_eq!(look()["runtime"], json!(null));
    let (code, answer) = in_run(&sandbox, &mut run, &["status-set", "--state", "running"]);
    assert_eq!(code, 0, "{answer:#}");
    let status = look();
    assert_eq!(answer["instance"], status["instance"], "{answer:#}");
    assert_eq!(answer["profile"], "work", "{answer:#}");
    let said = &status["runtime"];
    assert_eq!((&status["state"], &said["last_state"]), (&json!("running"), &json!("running")));
    let writer = said["writer"].as_str().unwrap();
    assert!(writer.starts_with("incumbent status-set (pid "), "{writer}");
    assert!(writer.contains(&format!("pid {}", said["writer_pid"])), "{said:#}");
    // In a subshell, behind a pipe, in the background, from a grandchild, in text.
    for (at, line) in [
        "(incumbent status-set --exit-reason 0 > /dev/null)",
        "echo $(incumbent status-set --exit-reason 1) | cat",
        "incumbent status-set --exit-reason 2 & wait $!",
        "sh -c 'sh -c \"incumbent status-set --exit-reason 3; true\"; true'",
        "setsid -w incumbent status-set --exit-reason 4",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(obey(&mut run, line), 0, "{line}");
        assert_eq!(look()["runtime"]["exit_reason"], at.to_string(), "{line}");
    }
    // By a pid all the same: that of the run, that of its command.
    for pid in [pid, command] {
        say(&sandbox, &mut run, &["--pid", &pid.to_string(), "--exit-reason", &pid.to_string()]);
        assert_eq!(look()["runtime"]["exit_reason"], pid.to_string());
    }
    // The last word of a command stays.
    say(&sandbox, &mut run, &["--state", "stopped", "--exit-reason", "done"]);
    run.end().assert_code(0);
    let status = look();
    assert_eq!((&status["state"], &status["reason"]), (&json!("stopped"), &json!("exited")));
    assert_eq!(status["runtime"]["exit_reason"], "done", "{status:#}");
}

/// A script claims for itself, and speaks for itself: naming its pid, or as the parent.
#[test]
fn a_script_speaks_through_the_pid_that_it_claimed() {
    let sandbox = Sandbox::new();
    let script = "
        incumbent claim --pid $$ > /dev/null || exit 9
        incumbent status-set --pid $$ --state running > /dev/null; echo \"named $?\"
        incumbent status-set --active-agents 2 > /dev/null; echo \"parent $?\"
        incumbent --json status > inside.json; echo \"status $?\"
        (incumbent status-set --state subshell 2> /dev/null; echo \"subshell $?\"; true)
        (incumbent status-set --pid $$ --exit-reason sub > /dev/null; echo \"named $?\"; true)
        incumbent release --pid $$ > /dev/null; echo \"release $?\"
        incumbent status-set --pid $$ --state running 2> after.txt; echo \"after $?\"";
    let answer = Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(0);
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(
        lines,
        ["named 0", "parent 0", "status 0", "subshell 1", "named 0", "release 0", "after 1"],
        "{answer:#?}"
    );
    let inside = std::fs::read_to_string(sandbox.file("inside.json")).unwrap();
    let inside: Value = serde_json::from_str(&inside).unwrap();
    assert_eq!(inside["busy"], true, "{inside:#}");
    let after = std::fs::read_to_string(sandbox.file("after.txt")).unwrap();
    assert!(after.contains("nobody does"), "{after}");
    let status = sandbox.assert_status(3, "dead", "released");
    assert_eq!(status["runtime"]["last_state"], "running", "{status:#}");
    assert_eq!(status["runtime"]["exit_reason"], "sub", "{status:#}");
}

/// Symptom: an error from last week stayed on the screen beside "connected". Clear removes what is
/// old, keep leaves it, and removing a platform leaves the others.
#[test]
fn an_explicit_clear_removes_an_old_error_and_keep_leaves_it() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    for platform in ["telegram", "discord", "slack"] {
        let error = ["--error-code", "E401", "--error-message", "bad token"];
        say(&sandbox, &mut run, &[&["--platform", platform], &error[..]].concat());
    }
    let platforms = || sandbox.status().1["platforms"].clone();
    say(&sandbox, &mut run, &["--platform", "telegram", "--platform-state", "connected"]);
    let kept = platforms();
    assert_eq!(kept["telegram"]["error_code"], "E401", "{kept:#}");
    assert_eq!(kept["telegram"]["error_message"], "bad token", "{kept:#}");
    let clear = ["--platform", "telegram", "--clear", "error-code", "--clear", "error-message"];
    say(&sandbox, &mut run, &clear);
    let cleared = platforms();
    assert_eq!(cleared["telegram"]["state"], "connected", "{cleared:#}");
    assert_eq!(cleared["telegram"]["error_code"], json!(null), "{cleared:#}");
    assert_eq!(cleared["telegram"]["error_message"], json!(null), "{cleared:#}");
    assert_eq!(cleared["discord"], kept["discord"], "another platform was touched");
    say(&sandbox, &mut run, &["--platform", "discord", "--clear", "platform"]);
    let left = platforms();
    let names: Vec<&String> = left.as_object().unwrap().keys().collect();
    assert_eq!(names, ["slack", "telegram"], "{left:#}");
    assert_eq!(left["slack"], kept["slack"], "another platform was touched");
    say(&sandbox, &mut run, &["--clear", "platforms", "--platform", "irc", "--error-code", "new"]);
    let last = platforms();
    let names: Vec<&String> = last.as_object().unwrap().keys().collect();
    assert_eq!(names, ["irc"], "{last:#}");
    say(&sandbox, &mut run, &["--clear", "platforms"]);
    assert_eq!(platforms(), json!({}));
    run.end().assert_code(0);
}

const EVERYTHING: &[&str] = &[
    "--state",
    "running",
    "--exit-reason",
    "none",
    "--restart-requested",
    "true",
    "--active-agents",
    "3",
    "--extra",
    "{}",
    "--heartbeat=1h",
    "--serves",
    "other",
    "--platform",
    "telegram",
    "--platform-state",
    "connected",
    "--error-code",
    "E1",
];

#[track_caller]
fn assert_nothing_is_said(sandbox: &Sandbox, when: &str) {
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    for (key, nothing) in [
        ("state", json!(null)),
        ("runtime", json!(null)),
        ("platforms", json!({})),
        ("serves", json!([])),
        ("heartbeat_at", json!(null)),
        ("unresponsive_ms", json!(null)),
        ("busy", json!(false)),
        ("drainable", json!(false)),
        ("stale", json!(false)),
    ] {
        assert_eq!(status[key], nothing, "{when}: {key}: {status:#}");
    }
    let other = sandbox.json(["status", "--profile", "other"]);
    assert_eq!((other.0, &other.1["served_by"]), (3, &json!(null)), "{when}: {:#}", other.1);
    let text = sandbox.cli(["status"]).assert_code(0).out;
    for word in ["telegram", "connected", "E1", "agents"] {
        assert!(!text.contains(word), "{when}: {word}: {text}");
    }
    let metrics = sandbox.cli(["status", "--all", "--metrics"]).assert_code(0).out;
    assert!(!metrics.contains("telegram"), "{when}: {metrics}");
}

/// FIELD-BUGS row 60.
///
/// Symptom: after a restart the dashboard showed the platforms, the agents and the state of the
/// owner before. Cause: one file for all of them. It holds because what was said belongs to one
/// instance.
#[test]
fn whoever_comes_next_shows_nothing_of_the_owner_before() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, EVERYTHING);
    assert_eq!(sandbox.json(["status", "--profile", "other"]).0, 0);
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    let dead = sandbox.assert_status(3, "dead", "anchor_released");
    assert_eq!((&dead["state"], &dead["serves"]), (&json!(null), &json!([])), "{dead:#}");
    assert_eq!(dead["runtime"]["last_state"], "running", "{dead:#}");
    assert_eq!(dead["platforms"]["telegram"]["state"], json!(null), "{dead:#}");
    assert_eq!(dead["platforms"]["telegram"]["error_code"], "E1", "{dead:#}");

    let mut run = obeying(&sandbox, &[]);
    assert_nothing_is_said(&sandbox, "after a kill");
    say(&sandbox, &mut run, EVERYTHING);
    let answer = sandbox.cli(["run", "--no-backoff", "--replace", "--", "/bin/sh", "-c", "exit 4"]);
    answer.assert_code(4);
    run.process.wait(LIMIT);
    let ended = sandbox.assert_status(3, "dead", "exited");
    assert_eq!((&ended["runtime"], &ended["platforms"]), (&json!(null), &json!({})), "{ended:#}");

    let script = claimed(&sandbox, &[]);
    write_for(&sandbox, script.pid(), EVERYTHING);
    sandbox.cli(["release", "--pid", &script.pid().to_string()]).assert_code(0);
    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    assert_nothing_is_said(&sandbox, "claimed again by the same process");
}

/// The same, where the instance stays: `restart` inside a `run` is another command.
#[test]
fn a_restart_inside_a_run_forgets_what_the_last_command_said() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, EVERYTHING);
    let before = sandbox.status().1;
    let restart = Process::start(sandbox.incumbent(["restart"]));
    let next: u32 = run.process.line().parse().unwrap();
    restart.finish(LIMIT).assert_code(0);
    assert_ne!(next, run.command.pid);
    assert_nothing_is_said(&sandbox, "restarted");
    let after = sandbox.status().1;
    assert_eq!(before["instance"], after["instance"], "the office was never free");
    say(&sandbox, &mut run, &["--state", "running"]);
    assert_eq!(sandbox.status().1["state"], "running");
    run.process.close_stdin();
    run.process.wait(LIMIT);
}

/// Asserts that this is refused with `NotOwner`, in text and in JSON, and that the message holds
/// all of `words`.
#[track_caller]
fn assert_not_owner(
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
        assert_not_owner(&sandbox, &options, &[], &[&pid, "speaks for itself"]);
    }
    // We are the parent of what we start.
    assert_not_owner(&sandbox, &["--kind", "relay"], &[], &[&here, "speaks for itself"]);
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
    assert_not_owner(&sandbox, &[], &proof, &["has lost its office", "exited"]);
    let next = claimed(&sandbox, &[]);
    write_for(&sandbox, next.pid(), &["--state", "mine"]);
    assert_not_owner(&sandbox, &[], &proof, &["has lost its office", "exited"]);
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

/// What cannot be said, and words of the explanation; `|` between those of which one will do.
type Unspeakable<'a> = (&'a [&'a str], &'a [&'a str]);

const UNSPEAKABLE: &[Unspeakable<'_>] = &[
    (&[], &["no field was given", "--state running"]),
    (
        &["--state", "a", "--clear", "state"],
        &["state cannot be set and forgotten at once", "--clear state"],
    ),
    (
        &["--platform", "p", "--needs-attention", "no", "--clear", "needs_attention"],
        &["needs-attention cannot be set and forgotten at once", "--clear needs-attention"],
    ),
    (
        &["--heartbeat=1s", "--clear", "heartbeat"],
        &["heartbeat cannot be set and forgotten at once", "--clear heartbeat"],
    ),
    (&["--state", "a\u{202e}b"], &["a state cannot be", "control characters"]),
    (&["--serves", "a", "--clear", "serves"], &["serves cannot be set and forgotten"]),
    (&["--restart-requested", "maybe"], &["maybe", "`true` or `false`"]),
    (&["--platform", "p", "--needs-attention", ""], &["--needs-attention"]),
    (&["--extra", "{"], &["--extra", "not JSON"]),
    (&["--extra", ""], &["--extra", "JSON"]),
    (&["--extra", "{'a': 1}"], &["--extra", "not JSON"]),
    (&["--platform", "p", "--platform-extra", "nan"], &["not JSON"]),
    (&["--platform", "p", "--retrying-since", "yesterday"], &["\"yesterday\" is no time", "`now`"]),
    (&["--platform", "p", "--retrying-since", ""], &["--retrying-since"]),
    (&["--platform", "p", "--retrying-since", "nan"], &["no time"]),
    (&["--platform", "p", "--retrying-since", "inf"], &["no time"]),
    (&["--platform", "p", "--retrying-since=-1"], &["no time", "RFC 3339|2026-11-22T08:15:00Z"]),
    (&["--platform", "p", "--retrying-since", "1e300"], &["no time"]),
    (&["--platform", "p", "--retrying-since", "2026-13-01T00:00:00Z"], &["no time"]),
    (&["--platform", "p", "--retrying-since", "2026-11-22"], &["no time"]),
    (&["--clear", "everything"], &["everything", "no such field", "exit-reason"]),
    (&["--clear", "error-code"], &["of which platform is error-code", "--platform P"]),
    (&["--clear", "platform"], &["of which platform is platform", "--platform P"]),
    (&["--platform-state", "up"], &["--platform <P>"]),
    (&["--error-code", "E"], &["--platform <P>"]),
    (&["--error-message", "E"], &["--platform <P>"]),
    (&["--needs-attention", "yes"], &["--platform <P>"]),
    (&["--retrying-since", "now"], &["--platform <P>"]),
    (&["--platform-extra", "1"], &["--platform <P>"]),
    (
        &["--platform", "p", "--clear", "platform", "--platform-state", "retrying"],
        &["platform p cannot be forgotten and described at once", "leave out one"],
    ),
    (&["--state", ""], &["a state cannot be empty", "1 to 64 characters"]),
    (&["--state", " "], &["a state cannot be empty", "1 to 64 characters"]),
    (&["--state", "a\u{1b}[31m"], &["a state cannot be", "control characters"]),
    (&["--state", "two\nlines"], &["a state cannot be", "control characters"]),
    (&["--state", " padded"], &["a state cannot be", "blanks"]),
    (&["--platform", "", "--error-code", "E"], &["a platform cannot be empty"]),
    (&["--platform", "a\u{7}", "--error-code", "E"], &["a platform cannot be"]),
    (&["--platform", "p", "--error-code", "\u{9b}31m"], &["an error code cannot be"]),
    (&["--active-agents", "many"], &["many", "--active-agents"]),
    (&["--active-agents", "1.5"], &["1.5", "--active-agents"]),
    (&["--heartbeat=0"], &["no heart beats every 0 ms", "at least 10 ms"]),
    (&["--heartbeat=25h"], &["no heart beats every 90000000 ms", "at most 24 h"]),
    (&["--heartbeat=infinity"], &["--heartbeat", "it has to end"]),
    (&["--heartbeat=often"], &["--heartbeat", "often"]),
    (&["--serves", "no name!"], &["no name!", "a profile"]),
    (&["--state", "a", "stray"], &["stray"]),
    (&["--pid", "0"], &["a pid is a whole number above 0"]),
    (&["--pid", "-3"], &["a pid is a whole number above 0"]),
];

/// Each is refused with 2, in text and in JSON, by a message that says what is wrong and what would
/// be right; and nothing is written.
#[test]
fn what_cannot_be_said_is_refused_and_explained() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let pid = script.pid().to_string();
    let long = "x".repeat(65);
    let big = format!("\"{}\"", "x".repeat(64 * 1_024 - 1));
    let deep = "[".repeat(200) + &"]".repeat(200);
    let too_long: &[Unspeakable<'_>] = &[
        (&["--extra", &deep], &["--extra", "not JSON"]),
        (&["--extra", &big], &["extra of 65537 bytes is too long", "at most 65536 bytes"]),
        (&["--platform", "p", "--platform-extra", &big], &["65537 bytes", "at most 65536 bytes"]),
        (&["--state", &long], &["a state of 65 characters is too long", "1 to 64"]),
        (&["--platform", &long, "--error-code", "E"], &["a platform of 65 characters"]),
        (&["--platform", "p", "--platform-state", &long], &["a platform's state of 65 characters"]),
        (
            &["--platform", "p", "--error-code", &long],
            &["an error code of 65 characters", "1 to 64"],
        ),
    ];
    let mut unexplained = Vec::new();
    for (said, words) in UNSPEAKABLE.iter().chain(too_long) {
        let of: &[&str] = if said.contains(&"--pid") { &[] } else { &["--pid", &pid] };
        let options = [of, said].concat();
        let answer = |json: &[&'static str]| {
            let mut command = sandbox.incumbent(json);
            command.arg("status-set").args(&options);
            Process::start(command).finish(LIMIT)
        };
        let text = answer(&[]);
        let shown: Vec<&str> =
            options.iter().map(|option| &option[..option.len().min(80)]).collect();
        assert_eq!((text.code(), text.out.as_str()), (2, ""), "{shown:?}: {text:#?}");
        let document = answer(&["--json"]);
        assert_eq!((document.code(), document.err.as_str()), (2, ""), "{shown:?}: {document:#?}");
        let error = &document.json()["error"];
        assert_eq!(error["kind"], "invalid_input", "{shown:?}: {error:#}");
        assert!(
            error["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
            "{shown:?}: {error:#}"
        );
        let explained = format!("{} {}", error["message"], error["hint"]).replace("\\\"", "\"");
        for word in *words {
            let found = |in_text: &str| word.split('|').any(|word| in_text.contains(word));
            if !found(&explained) {
                unexplained.push(format!("{shown:?}: no {word:?} in {explained}"));
            }
            if !found(&text.err) {
                unexplained.push(format!("{shown:?}: no {word:?} in {}", text.err));
            }
        }
        let is_plain = |text: &str| !text.contains(['\u{1b}', '\u{9b}', '\u{7}']);
        assert!(is_plain(&text.err), "{shown:?}: {:?}", text.err);
        // Quoted back it would be longer than a screen.
        assert!(text.err.len() < 4_096, "{shown:?}: {} bytes", text.err.len());
    }
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    assert_eq!(sandbox.number("SELECT count(*) FROM runtime_status"), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM platform_status"), 0);
}

/// Arrays in arrays.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, _| json!([inner]))
}

/// A status is read as a whole: who speaks of ever more platforms is stopped before it costs the
/// others, and can go on about those that it has.
#[test]
fn there_is_an_end_to_the_number_of_platforms() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let of = |number: usize, state: &str| {
        StatusUpdate::new().platform(PlatformUpdate::new(format!("p{number}")).state(state))
    };
    for number in 0..256 {
        tenure.update_status(&of(number, "up")).unwrap();
    }
    let refused = tenure.update_status(&of(256, "up")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("256 platforms"), "{refused}");
    assert!(refused.hint().unwrap().contains("forget some"), "{refused:?}");
    tenure.update_status(&of(255, "down")).unwrap();
    let gone = StatusUpdate::new().platform(PlatformUpdate::new("p0").remove());
    tenure.update_status(&gone).unwrap();
    tenure.update_status(&of(256, "up")).unwrap();
    assert_eq!(report_of(&store).platforms.len(), 256);
    tenure.release().unwrap();
}

/// The library refuses the same, before it looks at the store.
#[test]
fn what_cannot_be_said_is_refused_by_the_library_too() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let long = || "x".repeat(65);
    let platform = |update: PlatformUpdate| StatusUpdate::new().platform(update);
    for update in [
        StatusUpdate::new().state(""),
        StatusUpdate::new().state(long()),
        StatusUpdate::new().state("a\tb"),
        StatusUpdate::new().active_agents(u64::MAX),
        StatusUpdate::new().active_agents(1 << 63),
        StatusUpdate::new().extra(json!("x".repeat(64 * 1_024))),
        StatusUpdate::new().extra(nested(128)),
        StatusUpdate::new().heartbeat_every(Duration::ZERO),
        StatusUpdate::new().heartbeat_every(Duration::from_micros(999)),
        StatusUpdate::new().heartbeat_every(Duration::MAX),
        platform(PlatformUpdate::new("")),
        platform(PlatformUpdate::new(long())),
        platform(PlatformUpdate::new("p").state(long())),
        platform(PlatformUpdate::new("p").error_code("")),
        platform(PlatformUpdate::new("p").retrying_since_ms(-1)),
        platform(PlatformUpdate::new("p").retrying_since_ms(i64::MAX)),
        platform(PlatformUpdate::new("p").extra(json!(["x".repeat(64 * 1_024)]))),
    ] {
        let refused = tenure.update_status(&update.clone().exit_reason("too")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        assert!(refused.hint().is_some(), "{refused}");
    }
    assert!(tenure.heartbeat(Duration::ZERO).is_err());
    assert_eq!(report_of(&store).runtime, None);
    // As deep as it can be read back.
    tenure.update_status(&StatusUpdate::new().extra(nested(127))).unwrap();
    assert_eq!(report_of(&store).runtime.unwrap().extra, Some(nested(127)));
    tenure.release().unwrap();
}

/// A counter that went wrong is no number of agents.
#[test]
fn fewer_than_no_agents_are_none() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &["--profile", "default"]);
    write_for(&sandbox, script.pid(), &["--state", "running", "--active-agents", "2"]);
    assert_eq!(sandbox.status().1["busy"], true);
    for count in ["-1", "-5", "-9223372036854775808", "0"] {
        write_for(&sandbox, script.pid(), &["--active-agents", count]);
        let status = sandbox.status().1;
        assert_eq!(status["runtime"]["active_agents"], 0, "{count}: {status:#}");
        assert_eq!((&status["busy"], &status["drainable"]), (&json!(false), &json!(true)));
    }
    write_for(&sandbox, script.pid(), &["--active-agents", "9223372036854775807"]);
    let status = sandbox.status().1;
    assert_eq!(status["runtime"]["active_agents"], i64::MAX, "{status:#}");
}

#[test]
fn a_time_is_understood_in_every_form() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let since = |word: &str| {
        write_for(&sandbox, script.pid(), &["--platform", "p", "--retrying-since", word]);
        sandbox.status().1["platforms"]["p"]["retrying_since"].as_str().unwrap().to_owned()
    };
    for (word, shown) in [
        ("0", "1970-01-01T00:00:00.000Z"),
        ("1795305600", "2026-11-22T00:00:00.000Z"),
        ("1795305600.25", "2026-11-22T00:00:00.250Z"),
        ("1795305600123", "2026-11-22T00:00:00.123Z"),
        ("2026-11-22T00:00:00Z", "2026-11-22T00:00:00.000Z"),
        ("2026-11-22T00:00:00.5Z", "2026-11-22T00:00:00.500Z"),
        ("2026-11-22T05:30:00+05:30", "2026-11-22T00:00:00.000Z"),
        ("2026-11-21T20:00:00-04:00", "2026-11-22T00:00:00.000Z"),
    ] {
        assert_eq!(since(word), shown, "{word}");
    }
    let before = unix_ms();
    let now = since("now");
    let after = unix_ms();
    let row = sandbox.number("SELECT retrying_since_at_ms FROM platform_status");
    assert!((before..=after).contains(&row), "{before} {now} {after}");
}

/// JSON of the caller's own comes back as it was, up to 64 KiB of it, of the gateway and of each
/// platform.
#[test]
fn extra_json_comes_back_as_it_was_said() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let largest = format!("\"{}\"", "x".repeat(64 * 1_024 - 2));
    assert_eq!(largest.len(), 65_536);
    for extra in [
        "{}",
        "[]",
        "null",
        "true",
        "-1.5",
        "18446744073709551615",
        "\"\\u0000 \\u001b[31m \\ud83d\\ude00 \u{fc}\"",
        r#"{"b": 1, "a": {"nested": [null, false, "x"]}, "": 0}"#,
        &largest,
    ] {
        let expected: Value = serde_json::from_str(extra).unwrap();
        let options =
            ["--extra", extra, "--platform", "p", "--platform-extra", extra, "--exit-reason", "e"];
        write_for(&sandbox, script.pid(), &options);
        let status = sandbox.status().1;
        let head: String = extra.chars().take(40).collect();
        assert!(status["runtime"]["extra"] == expected, "{head}");
        assert!(status["platforms"]["p"]["extra"] == expected, "{head}");
        assert_eq!(status["runtime"]["damaged"], json!([]), "{head}");
        assert_eq!(sandbox.cli(["status"]).code(), 0, "{head}");
    }
}

/// FIELD-BUGS row 87. Symptom: a status with the bot's token in it was pasted into a public issue:
/// libraries like to repeat the URL in an error. A text is bounded as well: the write matters more
/// than the end of a stack trace.
#[test]
fn long_messages_are_cut_and_tokens_are_taken_out() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let message = format!("GET https://api.example.org/bot{TOKEN}/getMe: 401 Unauthorized");
    let options = [
        "--exit-reason",
        &message,
        "--platform",
        "p",
        "--error-message",
        &message,
        "--error-code",
        "http_401",
    ];
    write_for(&sandbox, script.pid(), &options);
    let status = sandbox.status().1;
    for shown in [&status["runtime"]["exit_reason"], &status["platforms"]["p"]["error_message"]] {
        let shown = shown.as_str().unwrap();
        assert!(shown.contains("getMe: 401 Unauthorized"), "{shown}");
        assert!(shown.contains("https://api.example.org/"), "{shown}");
    }
    let password = "cannot reach postgres://bot:hunter2swordfish@db.example.org/main";
    write_for(&sandbox, script.pid(), &["--platform", "q", "--error-message", password]);
    let secret = TOKEN.split(':').nth(1).unwrap();
    for verb in [
        &["status"][..],
        &["--json", "status"],
        &["status", "--all"],
        &["status", "--metrics"],
        &["events"],
        &["--json", "events"],
        &["sql", "SELECT * FROM runtime_status"],
        &["sql", "SELECT * FROM platform_status"],
        &["sql", "SELECT * FROM events"],
    ] {
        let said = sandbox.cli(verb).assert_code(0);
        for secret in [secret, "hunter2swordfish"] {
            assert!(
                !said.out.contains(secret) && !said.err.contains(secret),
                "{verb:?}: {said:#?}"
            );
        }
    }

    for character in ["x", "\u{fc}", "\u{1f600}", "line\n"] {
        let long = character.repeat(20_000 / character.len());
        let options = ["--exit-reason", &long, "--platform", "p", "--error-message", &long];
        write_for(&sandbox, script.pid(), &options);
        let status = sandbox.status().1;
        for shown in [&status["runtime"]["exit_reason"], &status["platforms"]["p"]["error_message"]]
        {
            let shown = shown.as_str().unwrap();
            assert!(shown.len() <= 4_096 && shown.len() > 4_000, "{character:?}: {}", shown.len());
            assert!(shown.ends_with('\u{2026}'), "{character:?}: {shown}");
            assert!(long.starts_with(shown.trim_end_matches('\u{2026}')), "{character:?}");
        }
    }
    // A text may be empty, and have several lines: it is shown as one.
    for text in ["one\ntwo", "", "-bash: bot: command not found", "- a list"] {
        let options = [
            "--exit-reason",
            text,
            "--platform",
            "p",
            "--error-message",
            text,
            "--error-code",
            "E",
        ];
        write_for(&sandbox, script.pid(), &options);
        let status = sandbox.status().1;
        assert_eq!(status["runtime"]["exit_reason"], text, "{status:#}");
        assert_eq!(status["platforms"]["p"]["error_message"], text, "{status:#}");
    }
}

/// Who said so: by process, or by the name that a wrapper gives.
#[test]
fn writers_are_named() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let update = StatusUpdate::new().state("a").platform(PlatformUpdate::new("p").state("up"));
    tenure.update_status(&update).unwrap();
    let said = report_of(&store);
    let here = std::process::id();
    let runtime = said.runtime.unwrap();
    for (writer, pid) in [
        (runtime.writer.unwrap(), runtime.writer_pid),
        (said.platforms[0].writer.clone().unwrap(), said.platforms[0].writer_pid),
    ] {
        assert!(writer.starts_with(&format!("pid {here} (")), "{writer}");
        assert_eq!(pid, Some(here));
    }
    // Only the rows that are written name the new writer.
    tenure.update_status(&StatusUpdate::new().state("b").by("the scheduler")).unwrap();
    let said = report_of(&store);
    assert_eq!(said.runtime.unwrap().writer.as_deref(), Some("the scheduler"));
    assert!(said.platforms[0].writer.as_ref().unwrap().starts_with(&format!("pid {here} (")));
    tenure.release().unwrap();

    let script = claimed(&sandbox, &[]);
    let set = Process::start(sandbox.incumbent([
        "status-set",
        "--pid",
        &script.pid().to_string(),
        "--platform",
        "p",
        "--error-code",
        "E",
    ]));
    let pid = set.pid();
    set.finish(LIMIT).assert_code(0);
    let said = sandbox.status().1["platforms"]["p"].clone();
    assert_eq!(said["writer_pid"], pid, "{said:#}");
    let writer = said["writer"].as_str().unwrap();
    assert!(writer.starts_with(&format!("incumbent status-set (pid {pid}")), "{writer}");
    assert_eq!(sandbox.status().1["runtime"], json!(null), "only a platform was spoken of");
}

/// A state that is said again is as old as it was; the row is as young as its last write.
#[test]
fn a_state_is_as_old_as_its_last_change() {
    let sandbox = Sandbox::new();
    let (store, clock) = with_clock(&sandbox);
    let tenure = tenure_of(&store, "default");
    let say = |update: StatusUpdate| {
        clock.advance(Duration::from_secs(1));
        tenure.update_status(&update).unwrap();
        let said = report_of(&store);
        let after = |at_ms: Option<i64>| at_ms.map(|ms| (ms - WALL_MS) / 1_000);
        let runtime = said.runtime.unwrap_or_default();
        let platform = said.platforms.first().cloned().unwrap_or_default();
        (
            [after(runtime.state_since_ms), after(runtime.updated_at_ms)],
            [after(platform.state_since_ms), after(platform.updated_at_ms)],
        )
    };
    let state = |word: &str| StatusUpdate::new().state(word);
    let platform = |word: &str| StatusUpdate::new().platform(PlatformUpdate::new("p").state(word));
    assert_eq!(say(state("running")), ([Some(1), Some(1)], [None, None]));
    assert_eq!(say(state("running")), ([Some(1), Some(2)], [None, None]));
    assert_eq!(say(StatusUpdate::new().active_agents(1)), ([Some(1), Some(3)], [None, None]));
    assert_eq!(say(platform("up")), ([Some(1), Some(3)], [Some(4), Some(4)]));
    assert_eq!(say(platform("up")), ([Some(1), Some(3)], [Some(4), Some(5)]));
    let error = StatusUpdate::new().platform(PlatformUpdate::new("p").error_code("E"));
    assert_eq!(say(error), ([Some(1), Some(3)], [Some(4), Some(6)]));
    assert_eq!(say(state("draining")), ([Some(7), Some(7)], [Some(4), Some(6)]));
    assert_eq!(say(state("running")), ([Some(8), Some(8)], [Some(4), Some(6)]));
    let cleared = StatusUpdate::new().state(Field::Clear);
    assert_eq!(say(cleared.clone()), ([None, Some(9)], [Some(4), Some(6)]));
    assert_eq!(say(cleared), ([None, Some(10)], [Some(4), Some(6)]));
    assert_eq!(say(platform("down")), ([None, Some(10)], [Some(11), Some(11)]));
    tenure.release().unwrap();
}

/// Writes what no program of ours writes.
#[track_caller]
pub fn damage(sandbox: &Sandbox, statement: &str) {
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    connection.busy_timeout(LIMIT).unwrap();
    connection.execute_batch("PRAGMA ignore_check_constraints = 1").unwrap();
    let touched = connection.execute(statement, []);
    let touched = touched.unwrap_or_else(|error| panic!("{statement}: {error}"));
    assert!(touched > 0, "{statement}");
}

/// Column, key in the JSON.
const CELLS: &[(&str, &str, &[&str])] = &[
    ("runtime_status", "state", &["last_state", "state"]),
    ("runtime_status", "state_since_at_ms", &["state_since"]),
    ("runtime_status", "exit_reason", &["exit_reason"]),
    ("runtime_status", "restart_requested", &["restart_requested"]),
    ("runtime_status", "active_agents", &["active_agents"]),
    ("runtime_status", "extra", &["extra"]),
    ("runtime_status", "heartbeat_boot_ms", &[]),
    ("runtime_status", "writer", &["writer"]),
    ("runtime_status", "writer_pid", &["writer_pid"]),
    ("runtime_status", "updated_at_ms", &["updated_at"]),
    ("platform_status", "state", &["last_state", "state"]),
    ("platform_status", "state_since_at_ms", &["state_since"]),
    ("platform_status", "error_code", &["error_code"]),
    ("platform_status", "error_message", &["error_message"]),
    ("platform_status", "needs_attention", &["needs_attention"]),
    ("platform_status", "retrying_since_at_ms", &["retrying_since"]),
    ("platform_status", "extra", &["extra"]),
    ("platform_status", "writer", &["writer"]),
    ("platform_status", "writer_pid", &["writer_pid"]),
    ("platform_status", "updated_at_ms", &["updated_at"]),
];

/// What a STRICT table lets in when its checks are off, by column.
fn bad_values(column: &str) -> &'static [&'static str] {
    match column {
        "restart_requested" | "needs_attention" => &["7", "-1"],
        "active_agents" => &["-3", "-9223372036854775808"],
        "heartbeat_boot_ms" => &["-1"],
        "writer_pid" => &["-4", "99999999999"],
        "state_since_at_ms" | "retrying_since_at_ms" | "updated_at_ms" => {
            &["-1", "9223372036854775807", "253402300800000"]
        }
        "extra" => &[
            "'{\"a\":'",
            "'TLS bytes'",
            "''",
            "'1e999'",
            "CAST(x'efbbbf7b7d' AS TEXT)",
            "CAST(x'22ff22' AS TEXT)",
            "'{} {}'",
        ],
        _ => &["CAST(x'ff41' AS TEXT)", "CAST(x'c328' AS TEXT)"],
    }
}

const BADLY_TREATED: &[&str] = &[
    "--state",
    "running",
    "--exit-reason",
    "none",
    "--restart-requested",
    "true",
    "--active-agents",
    "3",
    "--extra",
    "{}",
    "--heartbeat=1h",
    "--platform",
    "p",
    "--platform-state",
    "connected",
    "--error-code",
    "E1",
    "--error-message",
    "message",
    "--needs-attention",
    "true",
    "--retrying-since",
    "now",
    "--platform-extra",
    "[]",
];

/// The rows of a status document.
fn row_of<'a>(status: &'a Value, table: &str) -> &'a Value {
    if table == "runtime_status" { &status["runtime"] } else { &status["platforms"]["p"] }
}

/// Asserts that exactly this cell is spoilt, and that a write that is not about it heals it.
#[track_caller]
fn assert_only_this_cell_is_spoilt(
    sandbox: &Sandbox,
    script: &Process,
    before: &Value,
    (table, column, keys): (&str, &str, &[&str]),
    value: &str,
) {
    let what = format!("{table}.{column} = {value}");
    let (code, status) = sandbox.status();
    assert_eq!((code, &status["verdict"]), (0, &json!("alive")), "{what}: {status:#}");
    let (row, row_before) = (row_of(&status, table), row_of(before, table));
    assert_eq!(row["damaged"], json!([column]), "{what}: {row:#}");
    for (key, shown) in row.as_object().unwrap() {
        if keys.contains(&key.as_str()) {
            assert_eq!(*shown, json!(null), "{what}: {key}: {row:#}");
        } else if key != "damaged" {
            assert_eq!(*shown, row_before[key], "{what}: {key}: {row:#}");
        }
    }
    let other = if table == "runtime_status" { "platform_status" } else { "runtime_status" };
    assert_eq!(row_of(&status, other), row_of(before, other), "{what}");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    let complaint = text.lines().find(|line| line.contains("damaged") && line.contains(column));
    assert!(complaint.is_some(), "{what}: {text}");
    // The others are of the same function: once for each column will do.
    let others: &[&[&str]] = if value == bad_values(column)[0] {
        &[&["status", "--all"], &["status", "--metrics"], &["status", "--all", "--json"]]
    } else {
        &[]
    };
    for verb in others {
        let answer = sandbox.cli(*verb).assert_code(0);
        assert_eq!(answer.err, "", "{what}: {verb:?}");
    }
    let heal: &[&str] = match (table, column) {
        ("runtime_status", "active_agents") => &["--exit-reason", "none"],
        ("runtime_status", _) => &["--active-agents", "3"],
        (_, "error_code") => &["--platform", "p", "--error-message", "message"],
        (_, _) => &["--platform", "p", "--error-code", "E1"],
    };
    write_for(sandbox, script.pid(), heal);
    let healed = sandbox.status().1;
    let row = row_of(&healed, table);
    assert_eq!(row["damaged"], json!([]), "{what}: {row:#}");
    for (key, shown) in row.as_object().unwrap() {
        let is_of_the_write = ["writer", "writer_pid", "updated_at", "state_since"];
        if !keys.contains(&key.as_str()) && !is_of_the_write.contains(&key.as_str()) {
            assert_eq!(*shown, row_before[key], "{what}: {key}: {row:#}");
        }
    }
    for key in keys.iter().filter(|key| ["writer", "writer_pid", "updated_at"].contains(key)) {
        assert!(!row[*key].is_null(), "{what}: {key}: {row:#}");
    }
}

/// FIELD-BUGS row 58.
///
/// Symptom: foreign bytes in the status file: a warning on every write, never healed, HTTP 500, and
/// the live gateway "missing". Cause: one text that is read, changed and written as a whole. It
/// holds because a value that cannot be read spoils its own cell alone, and the next write replaces
/// it.
#[test]
fn a_bad_value_spoils_its_own_cell_and_the_next_write_heals_it() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    for (table, column, keys) in CELLS {
        for value in bad_values(column) {
            write_for(&sandbox, script.pid(), BADLY_TREATED);
            let before = sandbox.status().1;
            damage(&sandbox, &format!("UPDATE {table} SET {column} = {value}"));
            assert_only_this_cell_is_spoilt(
                &sandbox,
                &script,
                &before,
                (table, column, keys),
                value,
            );
        }
    }
    // All at once, and said anew in one write.
    write_for(&sandbox, script.pid(), BADLY_TREATED);
    for (table, column, _) in CELLS {
        damage(&sandbox, &format!("UPDATE {table} SET {column} = {}", bad_values(column)[0]));
    }
    let status = sandbox.status().1;
    assert_eq!(status["verdict"], "alive", "{status:#}");
    assert_eq!(status["runtime"]["damaged"].as_array().unwrap().len(), 10, "{status:#}");
    assert_eq!(status["platforms"]["p"]["damaged"].as_array().unwrap().len(), 10, "{status:#}");
    write_for(&sandbox, script.pid(), BADLY_TREATED);
    let status = sandbox.status().1;
    assert_eq!(status["runtime"]["damaged"], json!([]), "{status:#}");
    assert_eq!(status["platforms"]["p"]["damaged"], json!([]), "{status:#}");
    assert_eq!((&status["state"], &status["busy"]), (&json!("running"), &json!(true)));
}

/// The same for values of another type, which only a table that is no longer STRICT lets in.
#[test]
fn a_value_of_another_type_spoils_its_own_cell() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    write_for(&sandbox, script.pid(), BADLY_TREATED);
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    connection
        .execute_batch(
            "PRAGMA writable_schema = 1;
             UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')')
             WHERE name = 'runtime_status';
             UPDATE sqlite_schema SET sql = replace(sql, ') STRICT, WITHOUT', ') WITHOUT')
             WHERE name = 'platform_status';",
        )
        .unwrap();
    let version: i64 = connection.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
    connection.execute_batch(&format!("PRAGMA schema_version = {}", version + 1)).unwrap();
    drop(connection);
    for (table, column, keys) in CELLS {
        let is_text = ["state", "exit_reason", "extra", "writer", "error_code", "error_message"]
            .contains(column);
        let values: &[&str] =
            if is_text { &["x'00ff'"] } else { &["'NaN'", "x'ff'", "1.5", "9e99"] };
        for value in values {
            write_for(&sandbox, script.pid(), BADLY_TREATED);
            let before = sandbox.status().1;
            damage(&sandbox, &format!("UPDATE {table} SET {column} = {value}"));
            let row = (*table, *column, *keys);
            assert_only_this_cell_is_spoilt(&sandbox, &script, &before, row, value);
        }
    }
}

/// A name that cannot be read is still to be seen, and can be removed with the others.
#[test]
fn a_platform_with_a_bad_name_is_shown_and_can_be_removed() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    for platform in ["good", "bad"] {
        let options = ["--platform", platform, "--platform-state", "up"];
        write_for(&sandbox, script.pid(), &options);
    }
    damage(
        &sandbox,
        "UPDATE platform_status SET platform = CAST(x'62ff1b5b6d' AS TEXT) WHERE platform = 'bad'",
    );
    let status = sandbox.status().1;
    assert_eq!(status["platforms"].as_object().unwrap().len(), 2, "{status:#}");
    assert_eq!(status["platforms"]["good"]["state"], "up", "{status:#}");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    assert!(text.contains("good") && !text.contains('\u{1b}'), "{text:?}");
    sandbox.cli(["status", "--all", "--metrics"]).assert_code(0);
    write_for(&sandbox, script.pid(), &["--platform", "good", "--platform-state", "down"]);
    write_for(&sandbox, script.pid(), &["--clear", "platforms"]);
    assert_eq!(sandbox.status().1["platforms"], json!({}));
    // Who is served by a bad name is nobody.
    write_for(&sandbox, script.pid(), &["--serves", "other"]);
    damage(&sandbox, "UPDATE serves SET profile = CAST(x'ff' AS TEXT)");
    assert_eq!(sandbox.status().1["serves"], json!([]));
    sandbox.cli(["status", "--all"]).assert_code(0);
    write_for(&sandbox, script.pid(), &["--serves", "third"]);
    assert_eq!(sandbox.status().1["serves"], json!(["third"]));
}

/// FIELD-BUGS row 61. A time that no clock has shown yet, or never will, is of an unknown age: it
/// makes nothing fresh.
#[test]
fn an_absurd_time_is_never_fresh() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    write_for(
        &sandbox,
        script.pid(),
        &["--state", "running", "--platform", "p", "--error-code", "E"],
    );
    assert_eq!(sandbox.status().1["stale"], false);
    let century = unix_ms() + 3_000_000_000_000;
    let hour = unix_ms() + 3_600_000;
    for time in [-1, i64::MIN, i64::MAX, 253_402_300_800_000, century, hour] {
        for table in ["runtime_status", "platform_status"] {
            damage(&sandbox, &format!("UPDATE {table} SET updated_at_ms = {time}"));
        }
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(
            (&status["stale"], &status["state"]),
            (&json!(true), &json!("running")),
            "{time}"
        );
        let text = sandbox.cli(["status"]).assert_code(0).out;
        assert!(text.starts_with("default/gateway: running"), "{time}: {text}");
    }

    // A heartbeat that lies ahead, or before all time, is no sign of life.
    write_for(&sandbox, script.pid(), &["--heartbeat=10ms"]);
    eventually("two beats are missing", LIMIT, || sandbox.status().1["unresponsive_ms"].as_u64());
    for (boot, wall) in [
        (i64::MAX, i64::MAX),
        (i64::MAX, century),
        (i64::MAX - 1, hour),
        (-1, -1),
        (i64::MIN, i64::MIN),
        (-1, century),
    ] {
        damage(&sandbox, &format!("UPDATE runtime_status SET heartbeat_boot_ms = {boot}"));
        damage(&sandbox, &format!("UPDATE instances SET heartbeat_at_ms = {wall}"));
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert!(status["unresponsive_ms"].is_u64(), "{boot} {wall}: {status:#}");
    }
    // A cadence that is none promises nothing.
    for cadence in [0, -5, i64::MIN] {
        damage(&sandbox, &format!("UPDATE instances SET heartbeat_every_ms = {cadence}"));
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["unresponsive_ms"], json!(null), "{cadence}: {status:#}");
    }
    damage(&sandbox, &format!("UPDATE instances SET heartbeat_every_ms = {}", i64::MAX));
    sandbox.assert_status(0, "alive", "anchor_held");
}

/// FIELD-BUGS rows 78 and 81. A store of the version before: questions are answered and change
/// nothing, saying something is refused by name, and the next claim brings it up to date.
#[test]
fn a_store_from_before_there_was_a_runtime_status() {
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    sandbox.age_to(3);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    for (key, nothing) in
        [("runtime", json!(null)), ("platforms", json!({})), ("serves", json!([]))]
    {
        assert_eq!(status[key], nothing, "{status:#}");
    }
    assert_eq!(sandbox.json(["status", "--profile", "other"]).0, 3);
    for verb in
        [&["status"][..], &["status", "--all"], &["status", "--all", "--metrics"], &["events"]]
    {
        sandbox.cli(verb).assert_code(0);
    }
    for words in [
        &["--state", "running"][..],
        &["--platform", "p", "--error-code", "E"],
        &["--heartbeat=1s"],
        &["--serves", "other"],
        &["--clear", "platforms"],
    ] {
        let (code, answer) = set_for(&sandbox, script.pid(), words);
        let error = &answer["error"];
        assert_eq!((code, &error["kind"]), (78, &json!("too_old")), "{words:?}: {answer:#}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("schema version 3"), "{message}");
        assert!(error["hint"].as_str().unwrap().contains("incumbent run"), "{error:#}");
    }
    // Who has no say is told that, not that the store is old.
    assert_not_owner(&sandbox, &[], &[], &["does not hold"]);
    assert_eq!(sandbox.number("PRAGMA user_version"), 3);
    sandbox.assert_status(0, "alive", "anchor_held");

    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    assert!(sandbox.number("PRAGMA user_version") >= 4);
    write_for(&sandbox, script.pid(), EVERYTHING);
    assert_eq!(sandbox.status().1["state"], "running");
}

/// R:FULL. FIELD-BUGS row 78: what cannot be written is an error, and costs nobody the office.
#[test]
fn on_a_full_disk_a_status_is_refused_and_the_gateway_keeps_its_office() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let mut gateway = disk.role(ROLE_TEST, TALKER);
    gateway.err_line_with("=> owns");
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    disk.cli(&["claim", "--kind", "relay", "--pid", &pid]).assert_code(0);
    assert_eq!(ask(&mut gateway, "say running"), "Ok");
    disk.fill_up();
    // What fits in the pages that are there still goes in; then there is no more room.
    let mut count = 0;
    let refused = eventually("the log is full, too", LIMIT, || {
        count += 1;
        Some(ask(&mut gateway, &format!("say state-{count}"))).filter(|answer| answer != "Ok")
    });
    assert_eq!(refused, "CannotWrite");
    let set = ["--json", "status-set", "--kind", "relay", "--pid", &pid, "--state", "x"];
    let answer = disk.cli(&set).assert_code(70).json();
    assert_eq!(answer["error"]["kind"], "cannot_write", "{answer:#}");
    assert!(answer["error"]["hint"].is_string(), "{answer:#}");
    let status = disk.cli(&["--json", "status"]).assert_code(0).json();
    assert_eq!(
        status["state"],
        if count == 1 { "running".to_owned() } else { format!("state-{}", count - 1) }
    );
    for kind in ["gateway", "relay"] {
        disk.cli(&["run", "--no-backoff", "--kind", kind, "--", "true"]);
        disk.cli(&["status", "--kind", kind]).assert_code(0);
    }
    disk.shell("rm store/fill").assert_code(0);
    assert_eq!(ask(&mut gateway, "say recovered"), "Ok");
    disk.cli(&set).assert_code(0);
    let status = disk.cli(&["--json", "status"]).assert_code(0).json();
    assert_eq!((&status["state"], &status["pid"]), (&json!("recovered"), &json!(gateway.pid())));
}

/// R:RO. The same through a view of the store that cannot be written.
#[test]
fn on_a_read_only_mount_a_status_is_refused() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    let pid = script.pid().to_string();
    write_for(&sandbox, script.pid(), &["--state", "running"]);
    let set = ["--json", "status-set", "--pid", &pid, "--state", "x"];
    let answer = Process::start(sandbox.under(words, BINARY.as_ref(), &set)).finish(LIMIT);
    let error = answer.json()["error"].clone();
    assert!(matches!(answer.code(), 70 | 78), "{answer:#?}");
    assert!(error["kind"] == "cannot_write" || error["kind"] == "permission", "{error:#}");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["state"], "running", "{status:#}");
    write_for(&sandbox, script.pid(), &["--state", "draining"]);
}

/// FIELD-BUGS row 70. Nothing that a forked child says is heard, and its parent's heart beats on.
#[test]
fn a_forked_child_says_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = talker(&sandbox);
    assert_eq!(ask(&mut gateway, "say running"), "Ok");
    assert_eq!(ask(&mut gateway, "promise 20"), "Ok");
    gateway.say("fork");
    assert!(gateway.err_line_with("child: ").ends_with("child: Forked Forked"));
    assert!(gateway.err_line_with("=> ").ends_with("=> the child ended with code 0"));
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["state"], "running", "{status:#}");
    let before = status["heartbeat_at"].clone();
    eventually("the parent's heart beats on", LIMIT, || {
        ask(&mut gateway, "beat 1");
        (sandbox.status().1["heartbeat_at"] != before).then_some(())
    });
    assert_eq!(ask(&mut gateway, "say draining"), "Ok");
    gateway.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS row 59. Symptom: entries disappear: whoever writes the whole file writes over the
/// others. It holds because an update is one transaction over its own fields and rows.
#[test]
fn threads_of_one_process_lose_nothing() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let rounds: u64 = 40;
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (tenure, store) = (&tenure, &store);
            scope.spawn(move || {
                let name = format!("platform-{thread}");
                for round in 1..=rounds {
                    let platform = PlatformUpdate::new(name.as_str())
                        .state(format!("s{round}"))
                        .error_code(format!("s{round}"))
                        .extra(json!(round));
                    // Each thread has a field of its own as well.
                    let update = StatusUpdate::new().platform(platform);
                    let update = match thread {
                        0 => update.state(format!("s{round}")),
                        1 => update.exit_reason(format!("r{round}")),
                        2 => update.active_agents(round),
                        3 => update.extra(json!({"round": round})),
                        4 => update.restart_requested(round == rounds),
                        _ => update,
                    };
                    tenure.update_status(&update).unwrap();
                    let seen = report_of(store);
                    let own = seen.platforms.iter().find(|it| it.platform == name).unwrap();
                    assert_eq!(own.extra, Some(json!(round)), "{name}");
                    for other in &seen.platforms {
                        assert_eq!(other.state, other.error_code, "half of an update was seen");
                    }
                }
            });
        }
    });
    let seen = report_of(&store);
    assert_eq!(seen.platforms.len(), 8);
    for platform in &seen.platforms {
        assert_eq!(platform.extra, Some(json!(rounds)), "{platform:?}");
    }
    let said = seen.runtime.unwrap();
    assert_eq!(said.state, Some(format!("s{rounds}")));
    assert_eq!(said.exit_reason, Some(format!("r{rounds}")));
    assert_eq!(said.active_agents, Some(rounds));
    assert_eq!(said.extra, Some(json!({"round": rounds})));
    assert_eq!(said.restart_requested, Some(true));
    tenure.release().unwrap();
}

/// FIELD-BUGS rows 21 and 22, with time in our hands: beats keep it responsive, their absence makes
/// it unresponsive from the second missing one on, a late one heals that at once, and a clock that
/// is set means nothing.
#[test]
fn beats_are_counted_by_a_clock_that_does_not_step() {
    const CADENCE: Duration = Duration::from_millis(100);
    let sandbox = Sandbox::new();
    let (store, clock) = with_clock(&sandbox);
    let tenure = tenure_of(&store, "default");
    let heart = tenure.heartbeat(CADENCE).unwrap();
    let last_beat = || sandbox.number("SELECT heartbeat_boot_ms FROM runtime_status");
    let beat = || {
        heart.beat();
        let now = BOOT_MS.max(incumbent::Clock::boot_ms(&*clock));
        eventually("the beat is written", LIMIT, || (last_beat() == now).then_some(()));
    };
    let unresponsive = || report_of(&store).unresponsive_ms;
    for round in 0..20 {
        clock.advance(Duration::from_millis(150));
        assert_eq!(unresponsive(), None, "round {round}");
        beat();
        assert_eq!(unresponsive(), None, "round {round}");
    }
    for step_ms in [86_400_000, -172_800_000, 315_360_000_000] {
        clock.step_wall_ms(step_ms);
        assert_eq!(unresponsive(), None, "the wall clock was set by {step_ms} ms");
    }
    clock.advance(Duration::from_millis(200));
    assert_eq!(unresponsive(), None, "the second beat is not missing yet");
    clock.advance(Duration::from_millis(1));
    assert_eq!(unresponsive(), Some(201));
    clock.advance(Duration::from_mins(1));
    assert_eq!(unresponsive(), Some(60_201));
    clock.step_wall_ms(-86_400_000);
    assert_eq!(unresponsive(), Some(60_201), "the wall clock does not wake anybody");
    let held = report_of(&store);
    assert!(held.running && held.verdict == "alive", "{held:?}");
    assert_eq!(tenure.verify().unwrap(), incumbent::Standing::Held);
    beat();
    assert_eq!(unresponsive(), None, "a late beat heals at once");
    // The promise stays when the heart is gone.
    drop(heart);
    clock.advance(Duration::from_millis(201));
    assert_eq!(unresponsive(), Some(201));
    // An update is no beat; one that says so is.
    tenure.update_status(&StatusUpdate::new().state("running")).unwrap();
    assert_eq!(unresponsive(), Some(201));
    tenure.update_status(&StatusUpdate::new().heartbeat()).unwrap();
    assert_eq!(unresponsive(), None);
    tenure.update_status(&StatusUpdate::new().heartbeat_every(Duration::from_secs(9))).unwrap();
    clock.advance(Duration::from_secs(18));
    assert_eq!(unresponsive(), None, "a new promise");
    clock.advance(Duration::from_secs(1));
    assert_eq!(unresponsive(), Some(19_000));
    tenure.update_status(&StatusUpdate::new().heartbeat_every(Field::Clear)).unwrap();
    clock.advance(Duration::from_hours(9));
    assert_eq!(unresponsive(), None, "the promise was taken back");
    tenure.update_status(&StatusUpdate::new().heartbeat_every(CADENCE)).unwrap();
    tenure.release().unwrap();
    clock.advance(Duration::from_hours(1));
    assert_eq!(unresponsive(), None, "the dead promise nothing");
}

/// A promise that is made with the claim counts from the claim on, by the same clock.
#[test]
fn a_promise_made_with_the_claim_counts_from_then_on() {
    let sandbox = Sandbox::new();
    let (store, clock) = with_clock(&sandbox);
    let options = ClaimOptions::new().heartbeat_every(Duration::from_secs(1));
    let Claim::Granted(tenure) = store.profile("default").unwrap().claim_with(&options).unwrap()
    else {
        panic!("held")
    };
    let unresponsive = || report_of(&store).unresponsive_ms;
    assert_eq!(unresponsive(), None);
    clock.advance(Duration::from_secs(2));
    assert_eq!(unresponsive(), None);
    clock.advance(Duration::from_millis(1));
    assert_eq!(unresponsive(), Some(2_001));
    tenure.update_status(&StatusUpdate::new().heartbeat()).unwrap();
    assert_eq!(unresponsive(), None);
    clock.step_wall_ms(86_400_000);
    assert_eq!(unresponsive(), None);
    tenure.release().unwrap();
    // Before the first beat, too, the wall clock is none to decide by.
    let Claim::Granted(tenure) = store.profile("default").unwrap().claim_with(&options).unwrap()
    else {
        panic!("held")
    };
    clock.step_wall_ms(86_400_000);
    assert_eq!(unresponsive(), None, "the wall clock was set, and nothing else has happened");
    tenure.release().unwrap();
}

/// FIELD-BUGS rows 21 and 22.
///
/// Symptom: a process at 100 % CPU that answers nobody, and the next one hangs without a word; or a
/// watchdog kills a healthy one for a late beat. It holds because hanging is reported to whoever
/// asks, and changes nothing of who owns.
#[test]
fn a_stuck_loop_is_reported_and_evicts_nobody() {
    let sandbox = Sandbox::new();
    let mut gateway = talker(&sandbox);
    assert_eq!(ask(&mut gateway, "promise 50"), "Ok");
    let silent = eventually("two beats are missing", LIMIT, || {
        sandbox.status().1["unresponsive_ms"].as_u64()
    });
    assert!(silent > 100, "{silent}");
    let longer = sandbox.status().1["unresponsive_ms"].as_u64().unwrap();
    assert!(longer >= silent, "it grows: {silent}, {longer}");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["running"], true, "{status:#}");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    assert!(text.starts_with("default/gateway: running"), "{text}");
    assert!(text.contains("it gave no sign of life for "), "{text}");
    assert!(sandbox.cli(["status", "--all"]).out.contains("unresponsive for "));
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    for verb in [
        &["run", "--no-backoff", "--", "true"][..],
        &["run", "--no-backoff", "--wait=300ms", "--", "true"],
        &["claim", "--pid", &pid],
    ] {
        let asked = Instant::now();
        let answer = sandbox.cli(verb).assert_code(75);
        assert_within(Duration::from_secs(10), asked.elapsed(), &format!("{verb:?}"));
        let words =
            [&format!("held by pid {}", gateway.pid()), "unresponsive", "sign of life for "];
        answer.assert_complains(&words.map(|word| word as &str));
        let (code, answer) = sandbox.json(verb);
        assert_eq!(code, 75, "{answer:#}");
        assert!(answer["holder"]["unresponsive_ms"].as_u64().unwrap() > 100, "{answer:#}");
    }
    sandbox.cli(["evict"]).assert_code(75);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], gateway.pid());
    // A late beat does not come too late.
    beats_again(&sandbox, &mut gateway);
    gateway.finish(LIMIT).assert_code(0);
}

fn beats_again(sandbox: &Sandbox, gateway: &mut Process) {
    eventually("it is responsive again", LIMIT, || {
        ask(gateway, "beat 1");
        sandbox.status().1["unresponsive_ms"].is_null().then_some(())
    });
}

/// FIELD-BUGS row 22.
///
/// Symptom: a healthy gateway was killed by its own watchdog, because writing the beat stalled (p99
/// of 31 s) on the loop that it guards. It holds because `beat` only counts; the writing is
/// somebody else's.
#[test]
fn a_store_that_stalls_does_not_stop_the_loop_that_beats() {
    let sandbox = Sandbox::new();
    let mut gateway = talker(&sandbox);
    assert_eq!(ask(&mut gateway, "promise 50"), "Ok");
    let mut beat = || -> u64 { ask(&mut gateway, "beat 100000").parse().unwrap() };
    let free_ms = beat().max(50);
    let writer = stopped_writer(&sandbox);
    // One that waited for the store would do so for seconds; a busy machine may disturb one of them.
    let stalled_ms = (0..3).map(|_| beat()).min().unwrap();
    assert!(
        stalled_ms < 20 * free_ms,
        "100,000 beats took {stalled_ms} ms, and {free_ms} ms before"
    );
    eventually("nothing is written", LIMIT, || {
        ask(&mut gateway, "beat 1");
        sandbox.status().1["unresponsive_ms"].as_u64()
    });
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!((&status["pid"], &status["running"]), (&json!(gateway.pid()), &json!(true)));
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    beats_again(&sandbox, &mut gateway);
    gateway.finish(LIMIT).assert_code(0);
}

/// Beats by the command line: a promise with `=DUR`, one beat without.
#[test]
fn a_script_beats_by_the_command_line() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, &["--heartbeat"]);
    let status = sandbox.status().1;
    assert!(status["heartbeat_at"].is_string(), "{status:#}");
    assert_eq!(status["runtime"]["last_state"], json!(null), "{status:#}");
    assert_eq!(sandbox.number("SELECT heartbeat_every_ms IS NULL FROM instances"), 1);
    for (word, ms) in [("1min 30s", 90_000), ("500ms", 500), ("2", 2_000), ("24h", 86_400_000)] {
        say(&sandbox, &mut run, &[&format!("--heartbeat={word}")]);
        assert_eq!(sandbox.number("SELECT heartbeat_every_ms FROM instances"), ms, "{word}");
    }
    assert_eq!(sandbox.status().1["unresponsive_ms"], json!(null));
    say(&sandbox, &mut run, &["--heartbeat=10ms", "--state", "running"]);
    let silent = eventually("two beats are missing", LIMIT, || {
        sandbox.status().1["unresponsive_ms"].as_u64()
    });
    assert!(silent > 20, "{silent}");
    // One beat keeps the promise as it is; a longer one is kept.
    say(&sandbox, &mut run, &["--heartbeat"]);
    assert_eq!(sandbox.number("SELECT heartbeat_every_ms FROM instances"), 10);
    say(&sandbox, &mut run, &["--heartbeat=1h"]);
    let status = sandbox.status().1;
    assert_eq!((&status["unresponsive_ms"], &status["state"]), (&json!(null), &json!("running")));
    // What cannot be kept can be taken back.
    say(&sandbox, &mut run, &["--heartbeat=10ms"]);
    eventually("two beats are missing", LIMIT, || sandbox.status().1["unresponsive_ms"].as_u64());
    say(&sandbox, &mut run, &["--clear", "heartbeat"]);
    assert_eq!(sandbox.number("SELECT heartbeat_every_ms IS NULL FROM instances"), 1);
    let status = sandbox.status().1;
    assert_eq!((&status["unresponsive_ms"], &status["state"]), (&json!(null), &json!("running")));
    run.end().assert_code(0);
}

/// FIELD-BUGS row 23.
///
/// Symptom: a slow but healthy start was killed as stale, again and again. It holds because whoever
/// comes is told that it is starting, and since when; and starting is as good a reason as any to
/// leave it alone.
#[test]
fn a_contender_is_told_that_the_holder_is_starting() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    let verbs = [&["run", "--no-backoff", "--", "true"][..], &["claim", "--pid", &pid]];
    for (state, words) in [
        ("starting", Some("it has been starting for ")),
        ("draining", Some("it has been draining for ")),
        ("running", None),
        ("warming up", None),
    ] {
        say(&sandbox, &mut run, &["--state", state]);
        for verb in verbs {
            let answer = sandbox.cli(verb).assert_code(75);
            match words {
                Some(words) => drop(answer.assert_complains(&["is alive", words, " s"])),
                None => assert!(!answer.err.contains("it has been"), "{answer:#?}"),
            }
            let (code, answer) = sandbox.json(verb);
            assert_eq!((code, &answer["holder"]["state"]), (75, &json!(state)), "{answer:#}");
        }
    }
    // Since when, by what was said; not since the last time that it was said.
    say(&sandbox, &mut run, &["--state", "starting"]);
    let ago = unix_ms() - 421_000;
    sandbox.forge(&format!("UPDATE runtime_status SET state_since_at_ms = {ago}"));
    say(&sandbox, &mut run, &["--state", "starting", "--active-agents", "0"]);
    let answer = sandbox.cli(verbs[0]).assert_code(75);
    let seconds = answer.err.split("starting for ").nth(1).unwrap().split(' ').next().unwrap();
    let seconds: u64 = seconds.parse().unwrap();
    assert!((421..480).contains(&seconds), "{answer:#?}");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], run.pid());
    run.end().assert_code(0);
}

/// FIELD-BUGS row 55.
///
/// Symptom: a gateway that was ended by TERM while it started exited with 0, and s6 kept it down
/// for four and a half hours. It holds because who never served has not ended well: its exit code
/// asks for another start, unless somebody announced the stop.
#[test]
fn a_start_that_was_cut_short_is_told_from_an_end() {
    let sandbox = Sandbox::new();
    std::thread::scope(|scope| {
        for (supervisor, if_running) in
            [("systemd", 143), ("launchd", 143), ("s6", 143), ("docker", 143), ("none", 143)]
        {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let options = ["--profile", supervisor, "--supervisor", supervisor];
                let last = || sandbox.json(["history", "--profile", supervisor]).1[0].clone();
                let tell = |run: &mut Run, words: &str| {
                    assert_eq!(obey(run, &format!("incumbent status-set {words} > /dev/null")), 0);
                };
                let mut run = obeying(sandbox, &options);
                tell(&mut run, "--state starting");
                stranger(sandbox, "TERM", run.pid());
                run.process.finish_with_stdin_open(LIMIT).assert_code(75);
                let end = last();
                assert_eq!(end["end_reason"], "signalled", "{supervisor}: {end:#}");
                let detail = end["detail"].as_str().unwrap_or_default();
                assert!(detail.contains("while it was starting"), "{supervisor}: {end:#}");

                // One that had come up, or takes it back, or said nothing at all.
                for words in ["--state running", "--clear state", ""] {
                    let mut run = obeying(sandbox, &options);
                    if !words.is_empty() {
                        tell(&mut run, "--state starting");
                        tell(&mut run, words);
                    }
                    stranger(sandbox, "TERM", run.pid());
                    run.process.finish_with_stdin_open(LIMIT).assert_code(if_running);
                    let end = last();
                    let detail = end["detail"].as_str().unwrap_or_default();
                    assert!(!detail.contains("starting"), "{supervisor}: {words:?}: {end:#}");
                }

                // Announced is announced.
                let mut run = obeying(sandbox, &options);
                tell(&mut run, "--state starting");
                sandbox.cli(["stop", "--profile", supervisor]).assert_code(0);
                run.process.finish_with_stdin_open(LIMIT).assert_code(0);
                let end = last();
                assert_eq!(end["end_reason"], "planned_stop", "{supervisor}: {end:#}");
                let detail = end["detail"].as_str().unwrap_or_default();
                assert!(detail.contains("while it was starting"), "{supervisor}: {end:#}");
            });
        }
    });
}

/// What the supervisor reads is a person's to choose; and an end of its own is its own.
#[test]
fn other_ends_while_starting() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &["--exit-code", "start_interrupted=99"]);
    say(&sandbox, &mut run, &["--state", "starting"]);
    stranger(&sandbox, "TERM", run.pid());
    run.process.finish_with_stdin_open(LIMIT).assert_code(99);

    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, &["--state", "starting"]);
    run.process.say("exit 5");
    run.process.finish_with_stdin_open(LIMIT).assert_code(5);
    let end = &sandbox.history()[0];
    assert_eq!(end["end_reason"], "exited", "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains("while it was starting"), "{end:#}");

    // Its own supervisor wanted it: that is on record, and no failure.
    let mut run = obeying(&sandbox, &["--supervisor", "systemd"]);
    say(&sandbox, &mut run, &["--state", "starting"]);
    run.process.signal(Signal::TERM);
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
    let end = &sandbox.history()[0];
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains("while it was starting"), "{end:#}");

    // Killed: whoever comes next records it.
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, &["--state", "starting"]);
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let end = &sandbox.history()[1];
    assert_eq!(end["end_reason"], "anchor_released", "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains("while it was starting"), "{end:#}");
}
