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

/// Symptom: after `PRAGMA hard_heap_limit = 1000` each later call on each store of the process was
/// out of memory. Cause: SQLite obeys that while it compiles it, for all of its connections, and a
/// statement that is refused afterwards was compiled, too. It holds because what would set
/// something is refused before.
#[test]
fn a_query_sets_nothing_that_outlives_it() {
    let sandbox = Sandbox::new();
    let store = store(&sandbox);
    let before = fingerprint(sandbox.path());
    let limit = |which: &str| store.query(&format!("PRAGMA {which}")).unwrap().rows;
    for (pragma, which) in [
        // Far beyond what the other tests of this process need.
        ("hard_heap_limit = 1099511627776", "hard_heap_limit"),
        ("hard_heap_limit(1099511627776)", "hard_heap_limit"),
        ("main.HARD_HEAP_LIMIT = 1099511627776", "hard_heap_limit"),
        ("soft_heap_limit = 1099511627776", "soft_heap_limit"),
        ("temp_store_directory = '/tmp'", "temp_store_directory"),
        ("temp_store_directory = ''", "temp_store_directory"),
    ] {
        let as_it_was = limit(which);
        for sql in [
            format!("PRAGMA {pragma}"),
            format!("EXPLAIN PRAGMA {pragma}"),
            format!("SELECT 1; PRAGMA {pragma}"),
            format!("/* a question? */ PRAGMA {pragma};"),
        ] {
            let error = store.query(&sql).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{sql}: {error}");
            assert!(error.hint().is_some(), "{sql}: {error}");
            assert_eq!(limit(which), as_it_was, "{sql}");
            assert_untouched(&before, sandbox.path(), &sql);
        }
    }
    // What asks by an argument is answered.
    for sql in [
        "PRAGMA table_info(instances)",
        "PRAGMA table_info('instances')",
        "SELECT * FROM pragma_table_info('instances')",
        "PRAGMA integrity_check(1)",
        "PRAGMA user_version",
    ] {
        assert!(!store.query(sql).unwrap().rows.is_empty(), "{sql}");
    }
}

/// Ten thousand rows of a gigabyte each ended the process that asked.
#[test]
fn an_answer_is_bounded_in_size() {
    let sandbox = Sandbox::new();
    let store = store(&sandbox);
    let rows = |bytes: usize, rows: usize| {
        let count = format!(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})"
        );
        store.query(&format!("{count} SELECT zeroblob({bytes}) FROM c"))
    };
    assert_eq!(rows(1 << 20, 60).unwrap().rows.len(), 60);
    let too_large = rows(1 << 20, 65).unwrap_err();
    assert_eq!(too_large.kind(), ErrorKind::InvalidInput, "{too_large}");
    assert!(too_large.to_string().contains("64 MiB"), "{too_large}");
    let one = rows(900_000_000, 1).unwrap_err();
    assert_eq!(one.kind(), ErrorKind::InvalidInput, "{one}");
    assert!(one.to_string().contains("16 MiB"), "{one}");
    let given = Value::Blob(vec![0; 17 << 20]);
    let one = store.query_with("SELECT length(?)", &[given]).unwrap_err();
    assert_eq!(one.kind(), ErrorKind::InvalidInput, "{one}");
}

/// A handle whose files were taken away answered from the store that stood in their place.
#[test]
fn another_store_in_its_place_is_not_asked() {
    let sandbox = Sandbox::new();
    let store = store(&sandbox);
    assert_eq!(store.query("SELECT count(*) FROM instances").unwrap().rows[0][0].as_i64(), Some(1));
    sandbox.remove_store();
    sandbox.make_store();
    for _ in 0..2 {
        let error = store.query("SELECT count(*) FROM instances").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreReplaced, "{error}");
    }
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
