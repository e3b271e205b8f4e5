//! An older store is told, and left as it is.

use serde_json::{Value, json};

use super::{assert_same, offices};
use crate::support::Sandbox;

/// FIELD-BUGS row 81.
///
/// Symptom: `status` of a newer version changed the store under a gateway of the one before. It
/// holds because only owning migrates: from an older store all are told, with nothing said and
/// nobody served, and not a byte of it changes.
#[test]
fn an_older_store_is_told_and_left_as_it_is() {
    for version in [1, 2, 3] {
        let sandbox = Sandbox::new();
        sandbox.cli(["run", "--kind", "relay", "--", "true"]).assert_code(0);
        sandbox.cli(["desired", "--profile", "wanted", "stopped"]).assert_code(0);
        let script = sandbox.unrecorded_process();
        let pid = script.pid().to_string();
        sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
        sandbox.age_to(version);
        let before = sandbox.picture();

        let reports = sandbox.reports_of_all(&[]);
        let expected = [("default", "gateway"), ("default", "relay"), ("wanted", "gateway")];
        let expected: Vec<_> =
            expected.iter().map(|(one, two)| ((*one).to_owned(), (*two).to_owned())).collect();
        assert_eq!(offices(&reports), expected, "version {version}");
        assert_eq!(reports[0]["verdict"], "alive", "{:#}", reports[0]);
        assert_eq!(reports[1]["reason"], "exited", "{:#}", reports[1]);
        assert_eq!(reports[2]["desired"], "stopped", "{:#}", reports[2]);
        for report in &reports {
            for (key, nothing) in [
                ("state", Value::Null),
                ("runtime", Value::Null),
                ("platforms", json!({})),
                ("serves", json!([])),
                ("served_by", Value::Null),
                ("stale", json!(false)),
                ("unresponsive_ms", Value::Null),
            ] {
                assert_eq!(report[key], nothing, "version {version}: {key}: {report:#}");
            }
            let office = ["profile", "kind"].map(|key| report[key].as_str().unwrap());
            let alone = sandbox.json(["status", "--profile", office[0], "--kind", office[1]]).1;
            assert_same(report, &alone);
        }
        sandbox.cli(["status", "--all"]).assert_code(0);
        sandbox.metrics_of_all(&[]).assert_equals(&reports);
        let after = sandbox.picture();
        assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
        for (path, facts) in &before {
            assert!(*facts == after[path], "a question wrote to {}", path.display());
        }
        // Who ends a profile that nobody holds asks for a server as well.
        let (code, stopped) = sandbox.json(["stop", "--profile", "wanted"]);
        assert_eq!((code, &stopped["served_by"]), (0, &Value::Null), "{stopped:#}");
        let (code, answer) = sandbox.json(["restart", "--profile", "wanted"]);
        assert_eq!((code, &answer["served_by"]), (3, &Value::Null), "{answer:#}");
        assert_eq!(sandbox.number("PRAGMA user_version"), version);
    }
}
