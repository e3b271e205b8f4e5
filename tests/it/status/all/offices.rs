//! Every office of a store, as a table, as JSON and by the library.

use incumbent::Store;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Gateway, LONGEST, assert_same, by, offices, profiles};
use crate::support::{Process, Run, Sandbox, wait_stopped};

/// A store in which every office is another case. What holds them lives as long as this.
pub struct Town {
    alpha: Gateway,
    _held: Vec<Run>,
    _recorded: Vec<Process>,
}

/// Its offices, in the order of their names, and what is true of each.
pub const TOWN: &[(&str, &str, &str, &str)] = &[
    ("alpha", "gateway", "alive", "anchor_held"),
    ("alpha", "relay", "alive", "anchor_held"),
    ("ended", "gateway", "dead", "exited"),
    ("killed", "gateway", "dead", "anchor_released"),
    (LONGEST, "gateway", "alive", "anchor_held"),
    ("served", "gateway", "alive", "anchor_held"),
    ("stopped", "gateway", "alive", "anchor_held"),
    ("unsure", "gateway", "unknown", "foreign_namespace"),
    ("wanted", "gateway", "dead", "never_claimed"),
    ("zeta", "relay", "dead", "exited"),
];

impl Town {
    pub fn build(sandbox: &Sandbox) -> Self {
        let mut alpha = sandbox.obeying_gateway_with("alpha", &["--lock", "bot-token=12:34"]);
        alpha.says(
            "--state running --active-agents 3 --restart-requested true --extra '{\"a\":[1]}' \
             --exit-reason 'for now' --heartbeat=10ms --serves served \
             --platform telegram --platform-state connected",
        );
        alpha.says(
            "--platform mail --platform-state retrying --error-code E42 \
             --error-message 'no \"route\"' --needs-attention true --retrying-since now \
             --platform-extra 7",
        );
        alpha.says("--profile served --platform telegram --platform-state fatal --error-code 401");
        let relay = sandbox.unrecorded_process();
        let pid = relay.pid().to_string();
        sandbox
            .cli(["claim", "--profile", "alpha", "--kind", "relay", "--pid", &pid])
            .assert_code(0);
        for office in [&["--profile", "ended"][..], &["--profile", "zeta", "--kind", "relay"]] {
            let words = [&["run"], office, &["--", "true"]].concat();
            sandbox.cli(words).assert_code(0);
        }
        let mut killed = sandbox.obeying_gateway("killed");
        killed.says("--state running --active-agents 1 --platform mail --platform-state connected");
        killed.kill();
        let mut long = sandbox.obeying_gateway(LONGEST);
        long.says(&format!("--state {LONGEST}"));
        let long = Run { command: long.command.unwrap(), process: long.process };
        let stopped = sandbox.hold_profile_named("stopped");
        stopped.process.signal(Signal::STOP);
        wait_stopped(stopped.pid());
        let unsure = sandbox.gateway_of_nowhere("unsure", &[&["--state", "running"]]);
        sandbox.cli(["desired", "--profile", "wanted", "running"]).assert_code(0);
        sandbox.cli(["desired", "--profile", "alpha", "stopped"]).assert_code(0);
        Self { alpha, _held: vec![long, stopped], _recorded: vec![relay, unsure] }
    }
}

/// FIELD-BUGS rows 60, 63 and 65.
///
/// Symptom: the list of all gateways and the page of one of them contradicted each other: each had
/// a probe of its own. It holds because there is one function: what `--all` says of an office is
/// what `status` says of it, field by field, whatever became of its holder.
#[test]
fn what_all_says_of_an_office_is_what_status_says_of_it() {
    let sandbox = Sandbox::new();
    let town = Town::build(&sandbox);
    let reports = sandbox.reports_of_all(&[]);
    let told: Vec<_> = reports
        .iter()
        .map(|report| ["profile", "kind", "verdict", "reason"].map(|key| report[key].as_str()))
        .collect();
    let expected: Vec<_> = TOWN
        .iter()
        .map(|(profile, kind, verdict, reason)| {
            [profile, kind, verdict, reason].map(|it| Some(*it))
        })
        .collect();
    assert_eq!(told, expected);
    for (report, (profile, kind, verdict, _)) in reports.iter().zip(TOWN) {
        let (code, alone) = sandbox.json(["status", "--profile", profile, "--kind", kind]);
        assert_same(report, &alone);
        let expected = [("alive", 0), ("dead", 3), ("unknown", 4)];
        assert!(expected.contains(&(*verdict, code)), "{profile}: {code}: {alone:#}");
        assert_eq!(report["running"], *verdict == "alive", "{report:#}");
    }
    // What makes them different is there to be seen.
    let alpha = &reports[0];
    assert_eq!((&alpha["busy"], &alpha["drainable"]), (&json!(true), &json!(true)), "{alpha:#}");
    assert_eq!(alpha["locks"].as_array().unwrap().len(), 1, "{alpha:#}");
    assert_eq!(alpha["platforms"].as_object().unwrap().len(), 2, "{alpha:#}");
    assert!(alpha["unresponsive_ms"].as_i64() > Some(0), "{alpha:#}");
    assert_eq!(alpha["desired"], "stopped", "{alpha:#}");
    assert_eq!(reports[5]["served_by"], by("alpha"), "{:#}", reports[5]);
    assert_eq!(reports[6]["flags"], json!(["stopped"]), "{:#}", reports[6]);
    assert_eq!((&reports[3]["state"], &reports[3]["busy"]), (&Value::Null, &json!(false)));
    assert_eq!(reports[8]["desired"], "running", "{:#}", reports[8]);

    // Called within a run, where INCUMBENT_PROFILE says whose it is: all are all.
    let mut alpha = town.alpha;
    let (code, said) = alpha.tell("incumbent status --all --json");
    let within: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, offices(within.as_array().unwrap())), (0, offices(&reports)));
}

/// For people one line for each office, in the same order; nothing wraps, nothing is coloured where
/// no terminal is, and the exit code is 0 whoever is dead: the question was answered.
#[test]
fn the_table_has_a_line_for_every_office() {
    let sandbox = Sandbox::new();
    let _town = Town::build(&sandbox);
    let answer = sandbox.cli(["status", "--all"]).assert_code(0);
    assert_eq!(answer.err, "");
    assert!(answer.out.ends_with('\n') && !answer.out.contains('\u{1b}'), "{answer:#?}");
    let mut lines = answer.out.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header[..3], ["PROFILE", "KIND", "RUNNING"], "{answer:#?}");
    let rows: Vec<&str> = lines.collect();
    assert_eq!(rows.len(), TOWN.len(), "{answer:#?}");
    for (row, (profile, kind, verdict, _)) in rows.iter().zip(TOWN) {
        let running = match *verdict {
            "alive" => "yes",
            "dead" => "no",
            _ => "unknown",
        };
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words[..3], [*profile, *kind, running], "{answer:#?}");
    }
    for (row, words) in [
        (0, &["running", "1 of 2 ok", "unresponsive for", "should be stopped"][..]),
        (2, &["ended: exit code 0"]),
        (3, &["killed or crashed"]),
        (4, &[LONGEST]),
        (5, &["served by alpha", "0 of 1 ok"]),
        (6, &["stopped"]),
        (7, &["pid namespace"]),
        (8, &["never claimed", "should be running"]),
    ] {
        for word in words {
            assert!(rows[row].contains(word), "no {word:?} in {:?}", rows[row]);
        }
    }
    // What a dead one said is not true any more.
    for word in ["running", "1 of 1"] {
        assert!(!rows[3].contains(word), "{:?}", rows[3]);
    }
}

#[test]
fn all_can_be_narrowed_to_a_profile_and_to_a_kind() {
    let sandbox = Sandbox::new();
    let _town = Town::build(&sandbox);
    let everything = sandbox.reports_of_all(&[]);
    let word = |words: &[&str], name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        Some(words[at + 1].to_owned())
    };
    for filters in [
        &["--profile", "alpha"][..],
        &["--kind", "relay"],
        &["--kind", "gateway"],
        &["--profile", "alpha", "--kind", "relay"],
        &["--profile", "served"],
        &["--profile", "wanted"],
        &["--profile", "zeta"],
        &["--profile", "zeta", "--kind", "gateway"],
        &["--profile", "nobody"],
        &["--kind", "nothing"],
    ] {
        let (profile, kind) = (word(filters, "--profile"), word(filters, "--kind"));
        let expected: Vec<_> = offices(&everything)
            .into_iter()
            .filter(|office| profile.as_ref().is_none_or(|name| *name == office.0))
            .filter(|office| kind.as_ref().is_none_or(|kind| *kind == office.1))
            .collect();
        let found = sandbox.reports_of_all(filters);
        assert_eq!(offices(&found), expected, "{filters:?}");
        for report in &found {
            let same = everything.iter().find(|other| {
                (&other["profile"], &other["kind"]) == (&report["profile"], &report["kind"])
            });
            assert_same(report, same.unwrap());
        }
        let text = sandbox.cli([&["status", "--all"], filters].concat()).assert_code(0).out;
        assert_eq!(text.lines().count(), expected.len() + 1, "{text}");
        // That nobody at all has claimed anything is said of an empty store only.
        let nothing = Sandbox::new().cli(["status", "--all"]).assert_code(0).out;
        assert_ne!(text, nothing, "{filters:?}");
        let metrics = sandbox.metrics_of_all(filters);
        let verdicts = metrics.series("incumbent_gateway_verdict");
        assert_eq!(verdicts, 3 * expected.len(), "{filters:?}");
    }
    for bad in [["--profile", ".."], ["--kind", "a b"]] {
        sandbox.cli([&["status", "--all"][..], &bad].concat()).assert_code(2);
    }
}

/// Where there is no store nobody runs: that is an answer, and asking makes no store.
#[test]
fn without_a_store_there_is_nothing_to_list() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.reports_of_all(&[]), [] as [Value; 0]);
    let answer = sandbox.cli(["status", "--all"]).assert_code(0);
    assert_eq!((answer.out.lines().count(), answer.err.as_str()), (1, ""), "{answer:#?}");
    let answer = sandbox.cli(["status", "--all", "--metrics"]).assert_code(0);
    assert!(answer.out.ends_with("\nincumbent_store_found 0\n"), "{answer:#?}");
    assert_eq!((answer.out.lines().count(), answer.err.as_str()), (3, ""), "{answer:#?}");
    assert!(!sandbox.file("store").exists());

    // And one in which nothing is on record yet.
    drop(Store::open(sandbox.db()).unwrap());
    assert_eq!(sandbox.reports_of_all(&[]), [] as [Value; 0]);
    let answer = sandbox.cli(["status", "--all", "--metrics"]).assert_code(0);
    assert!(answer.out.ends_with("\nincumbent_store_found 1\n"), "{answer:#?}");
    assert_eq!((answer.out.lines().count(), answer.err.as_str()), (3, ""), "{answer:#?}");
}

/// A store that is there and cannot be read is no empty store.
#[test]
fn a_store_that_cannot_be_read_is_an_error_also_for_all() {
    let sandbox = Sandbox::new();
    sandbox.sick("it damages the store");
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(sandbox.file(&format!("store/state.db{suffix}")));
    }
    std::fs::write(sandbox.db(), "this is no database, and long enough to be one ".repeat(40))
        .unwrap();
    for format in [&["--json"][..], &[], &["--metrics"]] {
        let answer = sandbox.cli([&["status", "--all"], format].concat());
        assert_ne!(answer.code(), 0, "{format:?}: {answer:#?}");
        if format != ["--json"] {
            assert_eq!(answer.out, "", "{format:?}");
        }
    }
}

/// FIELD-BUGS row 58.
///
/// Symptom: one bad row, and no gateway of the machine could be looked at any more. It holds
/// because a name that no program of ours writes is nobody's: it is passed by, and the others are
/// listed.
#[test]
fn names_of_invalid_bytes_hide_nobody() {
    let sandbox = Sandbox::new();
    sandbox.sick("it damages the store");
    let mut alpha = sandbox.obeying_gateway("alpha");
    alpha.says("--serves served --platform mail --platform-state connected");
    let _zeta = sandbox.hold_profile_named("zeta");
    let before = sandbox.reports_of_all(&[]);
    assert_eq!(profiles(&before), ["alpha", "served", "zeta"]);
    let bad = [
        "CAST(x'ff' AS TEXT)",
        "CAST(x'61ff62' AS TEXT)",
        "CAST(x'00' AS TEXT)",
        "'in a row' || char(10) || 'of two'",
        "''",
        "'../up'",
    ];
    for (at, name) in bad.iter().enumerate() {
        let id = 7_000_000_000_000_000 + 3 * at;
        sandbox.forge_freely(&format!(
            "INSERT INTO profiles (profile, created_at_ms) VALUES ({name}, 1);
             INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, stop_budget_ms,
                started_at_ms)
             VALUES ({id}, 'x', {name}, 'gateway', 'run', 4711, 1, 1),
                ({id} + 1, 'x', 'alpha', {name}, 'run', 4711, 1, 1),
                ({id} + 2, 'x', {name}, {name}, 'run', 4711, 1, 1);
             INSERT INTO serves (instance_id, profile, since_at_ms)
             SELECT id, {name}, 1 FROM instances WHERE profile = 'alpha' AND kind = 'gateway';
             INSERT INTO serves (instance_id, profile, since_at_ms) VALUES ({id}, 'served', 1);"
        ));
    }
    let after = sandbox.reports_of_all(&[]);
    assert_eq!(offices(&after), offices(&before));
    for (before, after) in before.iter().zip(&after) {
        assert_same(before, after);
    }
    for profile in ["alpha", "served", "zeta"] {
        assert_eq!(sandbox.report_of_profile(profile).0, 0, "{profile}");
    }
    sandbox.cli(["status", "--all"]).assert_code(0);
    assert_eq!(sandbox.metrics_of_all(&[]).series("incumbent_gateway_up"), 3);
    // The gateway itself goes on speaking, and its next word puts right what was its own.
    alpha.says("--serves served --state running");
    let alpha = sandbox.assert_report_of("alpha", 0, "anchor_held");
    assert_eq!(alpha["serves"], json!(["served"]), "{alpha:#}");
}

/// Asking is for any thread of a gateway that links the library, and says the same.
#[test]
fn the_library_says_what_the_command_line_says() {
    let sandbox = Sandbox::new();
    let _town = Town::build(&sandbox);
    let store = Store::open_existing(sandbox.db()).unwrap().expect("a store");
    let reports = json!(store.status_of_all().unwrap());
    let reports = reports.as_array().unwrap();
    let told = sandbox.reports_of_all(&[]);
    assert_eq!(offices(reports), offices(&told));
    for (report, told) in reports.iter().zip(&told) {
        assert_same(report, told);
    }
}
