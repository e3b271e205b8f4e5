//! Every field is kept, cleared or set, by the command line and by the library.

use std::time::Duration;

use incumbent::status::{Field, PlatformUpdate};
use incumbent::{ErrorKind, ProfileName, StatusUpdate, Store};
use serde_json::{Value, json};

use super::{claimed, report_of, write_for};
use crate::support::{Sandbox, tenure_of};

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
pub fn shown(sandbox: &Sandbox) -> Vec<(&'static str, Value)> {
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
    assert!(refused.hint().unwrap().contains("StatusUpdate::serves"), "{refused:?}");
    let said = report_of(&store);
    assert_eq!(said.state.as_deref(), Some("starting"));
    assert_eq!((said.platforms.len(), said.heartbeat_at_ms), (0, None));
    tenure.release().unwrap();
}
