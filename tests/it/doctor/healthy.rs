//! On a healthy store every check is silent, also while it is busy.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use incumbent::OpenOptions;
use incumbent::doctor::{self, Severity};

use super::CHECKS;
use crate::support::{
    BINARY, LIMIT, Process, Sandbox, eventually, order, plays, role_db, rounds, skipped, test_name,
    works,
};

/// Each check gives one finding; nothing is a problem, also while a gateway holds an office and a
/// token. The whole takes a moment, and nothing is written.
#[test]
fn every_check_is_silent_on_a_healthy_store() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "token=a-secret-of-mine"]);
    let before = sandbox.picture();
    let diagnosis = sandbox.doctor();
    diagnosis.assert_only(&[]);
    let ids: BTreeSet<&str> =
        diagnosis.findings.iter().map(|finding| finding["id"].as_str().unwrap()).collect();
    assert_eq!(ids, CHECKS.into_iter().collect());
    for finding in &diagnosis.findings {
        let keys: Vec<&str> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["id", "severity", "evidence", "remedy"], "{finding:#}");
        assert!(!finding["evidence"].as_str().unwrap().is_empty(), "{finding:#}");
        assert!(!finding.to_string().contains("a-secret-of-mine"), "{finding:#}");
    }
    let text = sandbox.cli(["doctor"]).assert_code(0);
    assert_eq!(text.out, "no problems\n", "{text:#?}");
    let verbose = sandbox.cli(["doctor", "--verbose"]).assert_code(0);
    assert!(verbose.out.contains("info blind_spots: "), "{verbose:#?}");
    assert!(verbose.out.contains("\nok: "), "{verbose:#?}");
    assert!(sandbox.picture() == before, "a question wrote");
    assert!(
        sandbox.doctor_with(&["--fix", "--dry-run"]).findings.iter().all(|it| it["act"].is_null())
    );
    let fixed = sandbox.doctor_with(&["--fix"]);
    assert!(fixed.findings.iter().all(|it| it["act"].is_null()), "{fixed:#?}");
    assert!(sandbox.picture() == before, "there was nothing to repair");
    run.end().assert_code(0);
}

/// The same by the library, in the process that owns: its own anchor is no stranger's.
#[test]
fn an_owner_may_examine_its_own_store() {
    let sandbox = Sandbox::new();
    let store = incumbent::Store::open(sandbox.db()).unwrap();
    let claim = store.profile("default").unwrap().claim().unwrap();
    let incumbent::Claim::Granted(tenure) = claim else { panic!("{claim:?}") };
    let findings = doctor::examine(&OpenOptions::new().path(sandbox.db()));
    let about = findings.iter().filter(|finding| {
        ["stale_rows", "orphan_anchors", "leaked_anchors", "integrity"].contains(&finding.id)
    });
    for finding in about {
        assert_eq!(finding.severity, Severity::Ok, "{finding:?}");
    }
    tenure.release().unwrap();
}

/// Symptom: beside gateways that started and stopped all the time, one examination in six told of
/// dead holders, missing anchors or orphans, and to kill whoever held them. Cause: an owner
/// unlocked its anchor before its release was committed, and what was found wrong with an anchor
/// was not looked at together with its row again. It holds because a row ends before its anchor is
/// touched, and because what is told was so at two looks.
#[test]
fn a_busy_store_is_a_healthy_one() {
    const LASTS_MAX: Duration = Duration::from_secs(8);
    let sandbox = Sandbox::new();
    sandbox.used();
    let gateways: Vec<Process> = (0..10)
        .map(|number| {
            Process::start(sandbox.shell(&format!(
                // 75: on a busy machine its turn may not come in the time that a store may be busy.
                "until [ -e enough ]; do
                     incumbent --profile p{number} run --no-backoff --lock token=secret-{number} \\
                         -- true || [ $? = 75 ] || exit 1
                 done"
            )))
        })
        .collect();
    let options = OpenOptions::new().path(sandbox.db());
    let begun = Instant::now();
    let mut examined = 0;
    while examined < rounds(60, 600) && (begun.elapsed() < LASTS_MAX || examined < 10) {
        examined += 1;
        for finding in doctor::examine(&options) {
            assert!(!finding.severity.is_problem(), "examination {examined}: {finding:#?}");
        }
    }
    std::fs::write(sandbox.file("enough"), "").unwrap();
    for gateway in gateways {
        gateway.finish(LIMIT).assert_code(0);
    }
    let starts = sandbox.number("SELECT count(*) FROM events WHERE event = 'office_claimed'");
    assert!(starts > 20, "the store was not busy: {starts} starts");
}

/// Symptom: beside a busy disk a start was told of as an orphan, to be killed. Cause: it had made
/// its anchor, and the disk took longer to commit the row than two looks are apart. It holds because
/// whoever writes to the store is waited for.
#[cfg(target_os = "linux")]
#[test]
fn the_anchor_of_a_claim_that_takes_long_is_no_orphan() {
    const COMMIT_TAKES: Duration = Duration::from_secs(10);
    if !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    sandbox.used();
    let mut command = sandbox.program("strace");
    command.args(["-f", "-q", "-e", "trace=pwrite64", "-o", "/dev/null", "-e"]);
    command.arg(format!("inject=pwrite64:delay_enter={}:when=1", COMMIT_TAKES.as_micros()));
    command.args([BINARY, "run", "--no-backoff", "--", "true"]);
    let traced = Process::start(command);
    eventually("the anchor of the start", LIMIT, || {
        (!sandbox.anchor_names().is_empty()).then_some(())
    });
    let findings = doctor::examine(&OpenOptions::new().path(sandbox.db()));
    let live = sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL");
    assert_eq!(live, 0, "it was looked at too late");
    let orphans = findings.iter().find(|finding| finding.id == "orphan_anchors").unwrap();
    assert_eq!(orphans.severity, Severity::Ok, "{orphans:#?}");
    traced.finish(LIMIT).assert_code(0);
}

/// The part of many owners: locks so many anchors that are not on record.
#[test]
fn role_of_many_owners() {
    if !plays("many owners") {
        return;
    }
    let anchors = role_db().with_file_name("state.db.anchors");
    let held: Vec<std::fs::File> = (0..MANY / 2)
        .map(|number| {
            let name = format!("aa-{}-{number:x}.lock", std::process::id());
            let file = std::fs::File::create_new(anchors.join(name)).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
            file
        })
        .collect();
    eprintln!("holding {}", held.len());
    while order().is_some() {}
}

const MANY: u64 = 18_000;

/// Symptom: before a damaged store with many live owners was moved aside, naming them took minutes.
/// Cause: the whole process table was looked through once for each anchor. It holds because it is
/// looked through once.
#[test]
fn many_owners_are_named_at_once() {
    use rustix::process::{Resource, getrlimit};
    let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files_max < MANY / 2 + 100 {
        return skipped("needs leave to open 9100 files");
    }
    let sandbox = Sandbox::new();
    sandbox.used();
    let owners = [0; 2].map(|_| {
        let mut owners = sandbox.role(test_name!(role_of_many_owners), "many owners");
        owners.err_line_with("holding");
        owners
    });
    sandbox.checkpointed();
    std::fs::write(sandbox.db(), vec![0x55; 8_192]).unwrap();
    // Time of a processor: on a busy machine the clock says nothing about it.
    let script = "\"$0\" doctor --fix --dry-run; code=$?; times >&2; exit $code";
    let mut fixes = sandbox.program("sh");
    fixes.args(["-c", script, BINARY]);
    let answer = Process::start(fixes).finish(8 * LIMIT).assert_code(1);
    let took = processor_time(answer.err.lines().last().unwrap());
    for owner in &owners {
        let pid = format!("pid {}", owner.pid());
        assert!(answer.out.contains("still running: "), "{answer:#?}");
        assert!(answer.out.contains(&pid), "{answer:#?}");
    }
    assert!(took < Duration::from_secs(20), "it took {took:?} of a processor");
}

/// What `times` of a shell says of its children, as in `0m1.250000s 0m0.500000s`.
fn processor_time(line: &str) -> Duration {
    let seconds = line.split_whitespace().map(|time| {
        let (minutes, seconds) = time.strip_suffix('s').unwrap().split_once('m').unwrap();
        60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
    });
    Duration::from_secs_f64(seconds.sum())
}
