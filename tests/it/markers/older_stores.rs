//! Stores from before there were markers.

use incumbent::marker::MarkerRequest;
use incumbent::{ErrorKind, Store};
use serde_json::{Value, json};

use super::{store_of_version, word};
use crate::support::Sandbox;

/// FIELD-BUGS row 81.
///
/// Symptom: `status` of a newer version changed the store under a gateway of the one before. It
/// holds because only owning migrates: what asks for markers finds none, what ends something does
/// without them, and what would need them says so.
#[test]
fn a_store_from_before_there_were_markers_is_left_as_it_is() {
    for version in [1, 2] {
        let sandbox = Sandbox::new();
        let script = store_of_version(&sandbox, version);
        let pid = script.pid();
        let id = pid.to_string();
        let stranger = sandbox.stranger();
        for target in [pid, stranger.pid()] {
            for words in [&["peek"][..], &["peek", "note"], &["consume"], &["clear", "note"]] {
                let (code, document) = sandbox.marker(target, words);
                assert_eq!(code, 1, "version {version}: {words:?}: {document:#}");
                let target = target.to_string();
                let text = [&["marker"], words, &["--pid", &target]].concat();
                assert_eq!(sandbox.cli(text).assert_code(1).err, "", "{version}: {words:?}");
            }
            for name in ["note", "planned_stop"] {
                let (code, refused) = sandbox.marker(target, &["write", name]);
                let error = &refused["error"];
                assert_eq!((code, &error["kind"]), (78, &json!("too_old")), "{refused:#}");
                let message = error["message"].as_str().unwrap();
                assert!(message.contains(&format!("schema version {version}")), "{message}");
                assert!(error["hint"].as_str().unwrap().contains("up to date"), "{refused:#}");
            }
        }
        {
            let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
            assert!(store.peek_marker(pid, None).unwrap().is_none());
            assert!(store.consume_marker(pid, Some(&word("note"))).unwrap().is_none());
            assert_eq!(store.clear_marker(pid, &word("note"), "me").unwrap(), 0);
            let refused = store.write_marker(pid, &MarkerRequest::new(word("note"))).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::TooOld);
        }
        sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(sandbox.json(["history", "--kind", "relay"]).1[0]["end_reason"], "exited");
        sandbox.cli(["events"]).assert_code(0);
        sandbox.cli(["evict"]).assert_code(75);
        sandbox.cli(["release", "--pid", &id]).assert_code(0);
        sandbox.assert_status(3, "dead", "released");
        sandbox.cli(["evict"]).assert_code(0);
        assert_eq!(sandbox.number("PRAGMA user_version"), version);

        // A start brings it up to date, and then there are markers.
        sandbox.cli(["claim", "--pid", &id]).assert_code(0);
        assert!(sandbox.number("PRAGMA user_version") > version);
        let marker = sandbox.leave(pid, &["note"]);
        assert_eq!(sandbox.marker(pid, &["consume"]).1["id"], marker["id"]);
        sandbox.cli(["release", "--pid", &id]).assert_code(0);

        // A live office is evicted without them.
        let sandbox = Sandbox::new();
        let _script = store_of_version(&sandbox, version);
        sandbox.cli(["evict", "--force"]).assert_code(0);
        sandbox.assert_status(3, "dead", "evicted");
        assert_eq!(sandbox.number("PRAGMA user_version"), version);
    }
}

/// An older program that ends an instance knows nothing of its markers, and leaves them open: they
/// are inert all the same, and nobody is told of them.
#[test]
fn a_marker_whose_target_an_older_program_has_ended_is_inert() {
    let sandbox = Sandbox::new();
    let script = sandbox.stranger();
    let pid = script.pid();
    let id = pid.to_string();
    sandbox.cli(["claim", "--pid", &id]).assert_code(0);
    let stop = sandbox.leave(pid, &["planned_stop"]);
    sandbox.forge("UPDATE instances SET ended_at_ms = 1, end_reason = 'released'");
    assert_eq!(sandbox.closed_how(&stop), None);
    assert_eq!(sandbox.rows("SELECT * FROM open_markers"), [] as [Value; 0]);
    assert_eq!(sandbox.peek(pid), None);
    sandbox.cli(["claim", "--pid", &id]).assert_code(0);
    assert_eq!(sandbox.peek(pid), None);
    assert_eq!(sandbox.marker(pid, &["consume", "planned_stop"]).0, 1);
    let next = sandbox.leave(pid, &["planned_stop"]);
    assert_eq!(sandbox.marker(pid, &["consume"]).1["id"], next["id"]);
    assert_eq!(sandbox.marker(pid, &["clear", "planned_stop"]), (0, json!({"cleared": 1})));
}
