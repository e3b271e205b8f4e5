//! Read-only SQL by the library: what the verb `sql` answers, with values of its own.

use incumbent::query::Value;
use incumbent::{ErrorKind, Store};
use proptest::prelude::ProptestConfig;

use crate::support::{Sandbox, assert_untouched, fingerprint};

fn store(sandbox: &Sandbox) -> Store {
    sandbox.hold(&[]).end().assert_code(0);
    Store::open_existing(sandbox.db()).unwrap().unwrap()
}

#[test]
fn values_come_and_go_as_they_are() {
    let sandbox = Sandbox::new();
    let store = store(&sandbox);
    let values = [
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Real(1.5),
        Value::from("'; DELETE FROM events; --"),
        Value::Blob(vec![0, 255]),
    ];
    let answer = store.query_with("SELECT ?, ?, ?, ? AS text, ?", &values).unwrap();
    assert_eq!(answer.columns[3], "text");
    assert_eq!(answer.rows, [values.to_vec()]);
    let text = serde_json::to_string(&answer.rows[0][1..]).unwrap();
    assert_eq!(text, "[-9223372036854775808,1.5,\"'; DELETE FROM events; --\",\"00ff\"]");
    let rows = store.query("SELECT end_reason FROM instances").unwrap().rows;
    assert_eq!(rows[0][0].as_str(), Some("exited"));
    assert!(store.query("SELECT 1 WHERE 0").unwrap().rows.is_empty());
}

#[test]
fn what_does_not_only_ask_is_invalid_input() {
    let sandbox = Sandbox::new();
    let store = store(&sandbox);
    let before = fingerprint(sandbox.path());
    for sql in [
        "",
        "SELECT",
        "SELECT 1; SELECT 2",
        "SELECT ?",
        "DELETE FROM events",
        "DELETE FROM events RETURNING id",
        "PRAGMA user_version = 5",
        "ATTACH ':memory:' AS other",
        "SELECT \0",
    ] {
        let error = store.query(sql).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{sql:?}: {error}");
        // A library's caller has no verbs and no shell.
        let hint = error.hint().unwrap();
        assert!(!hint.contains("incumbent") && !hint.contains("--"), "{sql:?}: {hint}");
        assert_untouched(&before, sandbox.path(), sql);
    }
    let too_many = store.query_with("SELECT ?", &[Value::Null, Value::Null]).unwrap_err();
    assert_eq!(too_many.kind(), ErrorKind::InvalidInput);
    let many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c";
    let error = store.query(many).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("10000 rows"), "{error}");
    assert_eq!(store.query(&format!("{many} LIMIT 10000")).unwrap().rows.len(), 10_000);
}

#[test]
fn no_text_and_no_values_panic() {
    let sandbox = Sandbox::new();
    let store = store(&sandbox);
    let cases = ProptestConfig::with_cases(100);
    proptest::proptest!(cases, |(text in ".{0,40}", word in "[A-Z]{0,8}", count in 0_usize..3)| {
        let values = vec![Value::Null; count];
        for sql in [text.clone(), format!("SELECT {text}"), format!("{word} {text}")] {
            if let Err(error) = store.query_with(&sql, &values) {
                proptest::prop_assert_eq!(error.kind(), ErrorKind::InvalidInput, "{:?}", sql);
            }
        }
    });
}
