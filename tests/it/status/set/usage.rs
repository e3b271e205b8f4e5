//! What cannot be said is refused and explained.

use std::time::Duration;

use incumbent::status::PlatformUpdate;
use incumbent::{ErrorKind, StatusUpdate, Store};
use serde_json::{Value, json};

use super::{claimed, report_of};
use crate::support::{LIMIT, Process, Sandbox, tenure_of};

/// What cannot be said, and words of the explanation; `|` between those of which one will do.
type Unspeakable<'a> = (&'a [&'a str], &'a [&'a str]);

const UNSPEAKABLE: &[Unspeakable<'_>] = &[
    (&[], &["no field was given", "--state running"]),
    (&["--state", "a", "--clear", "state"], &["state is both set and cleared", "--clear state"]),
    (
        &["--platform", "p", "--needs-attention", "no", "--clear", "needs_attention"],
        &["needs-attention is both set and cleared", "--clear needs-attention"],
    ),
    (
        &["--heartbeat=1s", "--clear", "heartbeat"],
        &["heartbeat is both set and cleared", "--clear heartbeat"],
    ),
    (&["--state", "a\u{202e}b"], &["a state cannot be", "control characters"]),
    (&["--serves", "a", "--clear", "serves"], &["serves is both set and cleared"]),
    (&["--restart-requested", "maybe"], &["maybe", "`true` or `false`"]),
    (&["--platform", "p", "--needs-attention", ""], &["--needs-attention"]),
    (&["--extra", "{"], &["--extra", "not JSON"]),
    (&["--extra", ""], &["--extra", "JSON"]),
    (&["--extra", "{'a': 1}"], &["--extra", "not JSON"]),
    (&["--platform", "p", "--platform-extra", "nan"], &["not JSON"]),
    (
        &["--platform", "p", "--retrying-since", "yesterday"],
        &["\"yesterday\" is not a valid time", "`now`"],
    ),
    (&["--platform", "p", "--retrying-since", ""], &["--retrying-since"]),
    (&["--platform", "p", "--retrying-since", "nan"], &["not a valid time"]),
    (&["--platform", "p", "--retrying-since", "inf"], &["not a valid time"]),
    (
        &["--platform", "p", "--retrying-since=-1"],
        &["not a valid time", "RFC 3339|2026-11-22T08:15:00Z"],
    ),
    (&["--platform", "p", "--retrying-since", "1e300"], &["not a valid time"]),
    (&["--platform", "p", "--retrying-since", "2026-13-01T00:00:00Z"], &["not a valid time"]),
    (&["--platform", "p", "--retrying-since", "2026-11-22"], &["not a valid time"]),
    (&["--clear", "everything"], &["everything", "unknown field", "exit-reason"]),
    (&["--clear", "error-code"], &["`--clear error-code` needs", "--platform P"]),
    (&["--clear", "platform"], &["`--clear platform` needs", "--platform P"]),
    (&["--platform-state", "up"], &["--platform <P>"]),
    (&["--error-code", "E"], &["--platform <P>"]),
    (&["--error-message", "E"], &["--platform <P>"]),
    (&["--needs-attention", "yes"], &["--platform <P>"]),
    (&["--retrying-since", "now"], &["--platform <P>"]),
    (&["--platform-extra", "1"], &["--platform <P>"]),
    (
        &["--platform", "p", "--clear", "platform", "--platform-state", "retrying"],
        &["platform p is both removed and updated", "leave out one"],
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
    (&["--heartbeat=0"], &["a heartbeat every 0 ms", "at least 10 ms"]),
    (&["--heartbeat=25h"], &["a heartbeat every 90000000 ms", "at most 24 h"]),
    (&["--heartbeat=infinity"], &["--heartbeat", "it must be finite"]),
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
    assert!(refused.hint().unwrap().contains("remove some"), "{refused:?}");
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
