//! `doctor`: for each check something real that provokes it, and a healthy store on which all are
//! silent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use incumbent::OpenOptions;
use incumbent::doctor::{self, Severity};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::open::{mount_namespace, read_only_store, stopped_writer};
use crate::support::{
    Answer, BINARY, LIMIT, Process, Run, Sandbox, another_user, assert_within, has,
    nobody_with_hidepid, order, role, role_db, rounds, skipped, wait_stopped, works,
};

/// Every check, where there is a store.
const CHECKS: [&str; 31] = [
    "blind_spots",
    "clock",
    "conflicts",
    "desired",
    "duplicate_tokens",
    "filesystem",
    "free_space",
    "holders_stopped",
    "integrity",
    "leaked_anchors",
    "legacy_files",
    "lost_files",
    "missing_anchors",
    "modes",
    "namesakes",
    "open",
    "open_markers",
    "orphan_anchors",
    "other_stores",
    "outside_supervisor",
    "path",
    "schema",
    "sqlite_library",
    "sqlite_shell",
    "stale_rows",
    "stop_budget",
    "storms",
    "unknown_holders",
    "unresponsive",
    "wal_size",
    "write_lock",
];

/// What a doctor said.
#[derive(Debug)]
struct Diagnosis {
    code: i32,
    findings: Vec<Value>,
}

impl Diagnosis {
    fn of(answer: &Answer) -> Self {
        let document = answer.json();
        let findings = document.as_array().unwrap_or_else(|| panic!("no array: {document:#}"));
        Self { code: answer.code(), findings: findings.clone() }
    }

    fn about(&self, id: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["id"] == id).collect()
    }

    /// The only finding of a check, which has this severity and all of the words in its evidence.
    #[track_caller]
    fn assert(&self, id: &str, severity: &str, words: &[&str]) -> &Value {
        let about = self.about(id);
        assert_eq!(about.len(), 1, "{id}: {about:#?}");
        let evidence = about[0]["evidence"].as_str().unwrap();
        assert_eq!(about[0]["severity"], severity, "{about:#?}");
        for word in words {
            assert!(evidence.contains(word), "no {word:?} in {evidence}");
        }
        let is_problem = matches!(severity, "warning" | "error");
        assert!(!is_problem || about[0]["remedy"].is_string(), "no remedy: {about:#?}");
        assert!(!is_problem || self.code == 1, "exit code {}: {about:#?}", self.code);
        about[0]
    }

    /// Of this check there is no more to say than that all is well.
    #[track_caller]
    fn assert_silent(&self, id: &str) {
        self.assert(id, "ok", &[]);
    }

    /// Nothing else is wrong than what these checks found.
    #[track_caller]
    fn assert_only(&self, ids: &[&str]) {
        let problems: BTreeSet<&str> = self
            .findings
            .iter()
            .filter(|it| it["severity"] == "warning" || it["severity"] == "error")
            .map(|it| it["id"].as_str().unwrap())
            .collect();
        assert_eq!(problems, ids.iter().copied().collect(), "{:#?}", self.findings);
        assert_eq!(self.code, i32::from(!ids.is_empty()));
    }
}

impl Sandbox {
    fn doctor_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.incumbent(["--json", "doctor"]);
        command.args(arguments).env_remove("HERMES_HOME");
        command
    }

    fn doctor_with(&self, arguments: &[&str]) -> Diagnosis {
        Diagnosis::of(&Process::start(self.doctor_command(arguments)).finish(LIMIT))
    }

    fn doctor(&self) -> Diagnosis {
        self.doctor_with(&[])
    }

    /// A store that was used once.
    fn used(&self) {
        self.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }

    /// Puts a program on the path of what is asked with [`Sandbox::asking_here`].
    fn fake_program(&self, name: &str, script: &str) {
        let write = format!("mkdir -p bin && cat > bin/{name} && chmod 755 bin/{name}");
        let mut writer = Process::start(self.shell(&write));
        writer.write(&format!("#!/bin/sh\n{script}\n"));
        writer.finish(LIMIT).assert_code(0);
    }

    /// The doctor, with the programs of the test in front of all others.
    fn doctor_with_programs(&self) -> Diagnosis {
        let mut command = self.doctor_command(&[]);
        let mut path = self.file("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command.env("PATH", path);
        Diagnosis::of(&Process::start(self.among_fakes(command)).finish(LIMIT))
    }

    /// The command of a remedy, as a person would copy it from between the backticks.
    #[track_caller]
    fn try_remedy(&self, finding: &Value, begins: &str) -> Answer {
        let remedy = finding["remedy"].as_str().unwrap();
        let commands = remedy.split('`').skip(1).step_by(2);
        let command = commands.into_iter().find(|command| command.starts_with(begins));
        let command = command.unwrap_or_else(|| panic!("no `{begins}...` in {remedy}"));
        Process::start(self.shell(command)).finish(LIMIT)
    }

    /// Changes the store without the checks of foreign keys.
    fn batch(&self, statements: &str) {
        let connection = Connection::open(self.db()).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {statements}")).unwrap();
    }

    fn checkpointed(&self) {
        let connection = Connection::open(self.db()).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }

    /// A connection that is not one of ours took the sidecars away with it: SQLite makes them anew
    /// for whoever reads next.
    fn sidecars_made(&self) {
        self.doctor();
    }

    fn stopped(&self) -> Run {
        let run = self.hold(&[]);
        run.process.signal(Signal::STOP);
        wait_stopped(run.pid());
        run
    }
}

fn chmod(path: &Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).unwrap()) & 0o7777
}

// A healthy store.

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
    assert_eq!(text.out.lines().last(), Some("no problems"), "{text:#?}");
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
/// dead holders, missing anchors or orphans, and to kill whoever held them. Cause: an owner unlocked
/// its anchor before its release was committed, and what was found wrong with an anchor was not
/// looked at together with its row again. It holds because a row ends before its anchor is touched,
/// and because what is told was so at two looks.
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

/// The part of many owners: locks so many anchors that are not on record.
#[test]
fn role_of_many_owners() {
    if role().as_deref() != Some("many owners") {
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
        let mut owners = sandbox.role("doctor::role_of_many_owners", "many owners");
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
        assert!(answer.out.contains("still at work are"), "{answer:#?}");
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

// The place.

/// No store is no problem: nothing is made, the checks that need one are left out, and what there
/// is to say of the place is said.
#[test]
fn without_a_store_there_is_nothing_to_repair() {
    let sandbox = Sandbox::new();
    for arguments in [&[][..], &["--fix"][..], &["--fix", "--dry-run"][..]] {
        let diagnosis = sandbox.doctor_with(arguments);
        diagnosis.assert_only(&[]);
        diagnosis.assert("path", "info", &["there is no store", "by INCUMBENT_DB"]);
        assert!(diagnosis.about("schema").is_empty() && diagnosis.about("modes").is_empty());
        diagnosis.assert_silent("free_space");
        assert!(!sandbox.file("store").exists(), "{arguments:?} made a store");
    }
    let given = sandbox.json(["--db", "elsewhere/a.db", "doctor"]).1;
    assert!(given[0]["evidence"].as_str().unwrap().contains("as it was asked for"), "{given:#}");
    let mut unsaid = sandbox.doctor_command(&[]);
    unsaid.env_remove("INCUMBENT_DB");
    Diagnosis::of(&Process::start(unsaid).finish(LIMIT)).assert("path", "info", &["the default"]);
    let nowhere = sandbox.json(["--db", "/", "doctor"]);
    assert_eq!((nowhere.0, &nowhere.1[0]["id"]), (1, &json!("path")), "{nowhere:#?}");
}

/// Whoever can write a directory above the store can put another store in its place, and two own.
#[test]
fn a_directory_that_others_can_write_is_a_problem_at_whatever_height() {
    let sandbox = Sandbox::new();
    sandbox.used();
    let above = sandbox.path();
    chmod(above, 0o777);
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("path", "error", &["mode 0777", above.to_str().unwrap()]);
    diagnosis.assert_only(&["path"]);
    sandbox.try_remedy(finding, "chmod go-w").assert_code(0);
    sandbox.doctor().assert_only(&[]);
    // /tmp itself is sticky: nobody can rename there what is another's.
    chmod(above, 0o1777);
    sandbox.doctor().assert_only(&[]);
    chmod(above, 0o700);
    // The store's own directory is not opened then.
    chmod(&sandbox.file("store"), 0o777);
    let diagnosis = sandbox.doctor();
    diagnosis.assert("open", "error", &["can be written by others"]);
    sandbox
        .try_remedy(diagnosis.assert("path", "error", &["mode 0777"]), "chmod go-w")
        .assert_code(0);
    sandbox.doctor().assert_only(&[]);
}

#[test]
fn a_directory_of_somebody_else_is_a_problem() {
    if another_user().is_none() {
        return skipped("needs root");
    }
    let sandbox = Sandbox::new();
    sandbox.used();
    let nobody = rustix::process::Uid::from_raw(65534);
    rustix::fs::chown(sandbox.path(), Some(nobody), None).unwrap();
    sandbox.doctor().assert("path", "error", &["belongs to uid 65534"]);
    // For root the store of a user is that user's business.
    rustix::fs::chown(sandbox.file("store"), Some(nobody), None).unwrap();
    sandbox.doctor().assert("path", "ok", &[]);
}

/// FIELD-BUGS rows 33 and 36: an opaque "readonly database", or secrets that everybody can read.
#[test]
fn modes_are_compared_and_repaired() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let anchor = sandbox.anchors().join(&sandbox.anchor_names()[0]);
    let opened =
        [(sandbox.db(), 0o644, 0o600), (sandbox.anchors(), 0o755, 0o700), (anchor, 0o640, 0o600)];
    for (path, wider, _) in &opened {
        chmod(path, *wider);
    }
    let diagnosis = sandbox.doctor();
    let finding =
        diagnosis.assert("modes", "warning", &["others can read", "state.db", "mode 0644"]);
    diagnosis.assert_only(&["modes"]);
    sandbox.try_remedy(finding, "chmod").assert_code(0);
    sandbox.doctor().assert_only(&[]);

    for (path, wider, _) in &opened {
        chmod(path, *wider);
    }
    let before = sandbox.picture();
    let dry = sandbox.doctor_with(&["--fix", "--dry-run"]);
    let finding = dry.assert("modes", "warning", &[]);
    let act = finding["act"].as_str().unwrap();
    assert_eq!(act.matches("would set the mode of").count(), 3, "{act}");
    assert_eq!(finding["left"], true);
    assert!(sandbox.picture() == before, "--dry-run wrote");
    assert_eq!(mode(&sandbox.db()), 0o644);

    let fixed = sandbox.doctor_with(&["--fix"]);
    assert_eq!(fixed.code, 0, "{fixed:#?}");
    let finding = fixed.about("modes")[0];
    assert_eq!((&finding["left"], &finding["severity"]), (&json!(false), &json!("warning")));
    assert!(finding["act"].as_str().unwrap().contains("done: set the mode"), "{finding:#}");
    for (path, _, private) in &opened {
        assert_eq!(mode(path), *private, "{}", path.display());
    }
    let recorded = "SELECT count(*) FROM events WHERE event = 'doctor_fixed'
        AND json_extract(detail, '$.check') = 'modes' AND json_extract(detail, '$.by') LIKE \
        'incumbent doctor%'";
    assert_eq!(sandbox.number(recorded), 3);
    sandbox.doctor().assert_only(&[]);
    run.end().assert_code(0);
}

#[test]
fn files_of_another_user_or_that_cannot_be_written_are_named() {
    let Some(words) = another_user() else { return skipped("needs root") };
    let sandbox = Sandbox::new();
    sandbox.used();
    let wal = sandbox.file("store/state.db-wal");
    let nobody = Some(rustix::process::Uid::from_raw(65534));
    rustix::fs::chown(&wal, nobody, None).unwrap();
    let diagnosis = sandbox.doctor();
    let finding =
        diagnosis.assert("modes", "warning", &["another user", "state.db-wal", "uid 65534"]);
    sandbox.try_remedy(finding, "chown").assert_code(0);
    sandbox.doctor().assert_only(&[]);

    let theirs = Sandbox::new();
    let binary = theirs.open_to_nobody();
    let ask = |verb: &[&str]| {
        let mut command = theirs.program(words[0]);
        command.args(&words[1..]).arg(&binary).args(verb).env_remove("HERMES_HOME");
        Process::start(command).finish(LIMIT)
    };
    ask(&["run", "--no-backoff", "--", "true"]).assert_code(0);
    chmod(&theirs.db(), 0o400);
    let diagnosis = Diagnosis::of(&ask(&["--json", "doctor"]));
    diagnosis.assert("modes", "error", &["uid 65534 cannot write", "state.db", "mode 0400"]);
    diagnosis.assert("blind_spots", "info", &["other users"]);
    // Not to be read either: the store is there, and cannot be asked.
    chmod(&theirs.db(), 0o000);
    let diagnosis = Diagnosis::of(&ask(&["--json", "doctor"]));
    let open = diagnosis.assert("open", "error", &["cannot be asked"]);
    assert!(open["remedy"].as_str().unwrap().contains("owner"), "{open:#}");
    assert!(diagnosis.about("schema").is_empty(), "{diagnosis:#?}");
    let fixed = Diagnosis::of(&ask(&["--json", "doctor", "--fix"]));
    assert_eq!((fixed.code, mode(&theirs.db())), (0, 0o600), "{fixed:#?}");
    // Who may not look does not say that there is none.
    chmod(&theirs.file("store"), 0o000);
    Diagnosis::of(&ask(&["--json", "doctor"])).assert("path", "unknown", &["cannot look at"]);
    chmod(&theirs.file("store"), 0o700);
}

/// Symptom: of a store on a filesystem that was mounted read-only, the doctor said to change modes.
/// Cause: it only knew that nobody could write. It holds because the mount is asked.
#[test]
fn a_read_only_mount_is_named() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    sandbox.used();
    let ask = |arguments: &[&str]| {
        let mut command = sandbox.program(words[0]);
        command.args(&words[1..]).arg(BINARY).args(["--json", "doctor"]).args(arguments);
        Diagnosis::of(
            &Process::start({
                command.env_remove("HERMES_HOME");
                command
            })
            .finish(LIMIT),
        )
    };
    let remedy_of = |diagnosis: &Diagnosis, id| {
        let finding = diagnosis.assert(id, "error", &["is mounted read-only", "store"]);
        let remedy = finding["remedy"].as_str().unwrap();
        assert!(remedy.contains("mount it read-write"), "{remedy}");
        assert!(!finding.to_string().contains("chmod"), "{finding:#}");
    };
    let diagnosis = ask(&[]);
    remedy_of(&diagnosis, "modes");
    diagnosis.assert_only(&["modes"]);
    diagnosis.assert_silent("filesystem");
    remedy_of(&ask(&["--fix"]), "modes");
    // Where there is no store yet, nobody can make one.
    std::fs::remove_dir_all(sandbox.file("store")).unwrap();
    std::fs::create_dir(sandbox.file("store")).unwrap();
    remedy_of(&ask(&[]), "filesystem");
}

/// FIELD-BUGS row 75. The mounts are what the kernel is made to say they are.
#[test]
fn a_filesystem_of_another_machine_is_a_problem() {
    const SCRIPT: &str = "
        sed \"s/ - [a-z0-9]* / - $0 /\" /proc/self/mountinfo > mounts
        mount --bind mounts /proc/$$/mountinfo || exit 99
        exec \"$@\"";
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    sandbox.used();
    let ask = |kind: &str, options: &[&str]| {
        let mut command = sandbox.program(words[0]);
        command.args(&words[1..]).args(["/bin/sh", "-c", SCRIPT, kind, BINARY]);
        command.args(options).args(["--json", "doctor"]).env_remove("HERMES_HOME");
        Process::start(command).finish(LIMIT)
    };
    let answer = ask("nfs4", &[]);
    if answer.code() == 99 {
        return skipped("needs leave to mount over a file of /proc");
    }
    let diagnosis = Diagnosis::of(&answer);
    diagnosis.assert("filesystem", "error", &["nfs4"]);
    diagnosis.assert("open", "error", &["nfs4"]);
    let vouched = Diagnosis::of(&ask("nfs4", &["--allow-filesystem", "nfs4"]));
    vouched.assert("filesystem", "info", &["nfs4", "--allow-filesystem"]);
    vouched.assert_only(&[]);
    Diagnosis::of(&ask("fuse", &[])).assert("filesystem", "unknown", &["not by a question"]);
    Diagnosis::of(&ask("ext4", &[])).assert_silent("filesystem");
}

/// FIELD-BUGS row 78: on a full disk nobody can own.
#[test]
fn a_disk_that_is_nearly_full_is_a_problem() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    for (options, severity) in [
        ("size=40m", "warning"),
        ("size=5m", "error"),
        ("size=400m,nr_inodes=20", "error"),
        ("size=400m", "ok"),
    ] {
        let sandbox = Sandbox::new();
        let script = format!(
            "mkdir store && mount -t tmpfs -o {options},mode=700 t store || exit 99
             incumbent run --no-backoff -- true && exec incumbent --json doctor"
        );
        let mut command = sandbox.program(words[0]);
        command.args(&words[1..]).args(["/bin/sh", "-c", &script]).env_remove("HERMES_HOME");
        let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
        diagnosis.assert("free_space", severity, &["free at"]);
        diagnosis.assert_only(if severity == "ok" { &[] } else { &["free_space"] });
    }
}

/// In a container without root of its own, what belongs to the machine's root looks like nobody's.
#[test]
fn a_user_namespace_makes_no_strangers() {
    const WORDS: [&str; 2] = ["unshare", "-Ur"];
    if !works(&WORDS) {
        return skipped("needs user namespaces");
    }
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut command = sandbox.incumbent_under(&WORDS, &["--json", "doctor"]);
    command.env_remove("HERMES_HOME");
    let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
    diagnosis.assert("path", "ok", &[]);
    diagnosis.assert_only(&[]);
    run.end().assert_code(0);
}

/// It says what it cannot see, and does not take what is hidden for gone.
#[test]
fn what_is_hidden_is_told() {
    let Some(words) = nobody_with_hidepid() else {
        return skipped("needs root, and leave to mount /proc");
    };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let run = sandbox.hold(&[]);
    let mut command = sandbox.program(words[0]);
    command.args(&words[1..]).arg(&binary).args(["--json", "doctor"]).env_remove("HERMES_HOME");
    let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
    diagnosis.assert("blind_spots", "info", &["hidepid", "other machines", "other users"]);
    diagnosis.assert_silent("stale_rows");
    run.end().assert_code(0);
}

// The database.

/// FIELD-BUGS row 74. The library's own version is tested where it is decided; people write with
/// the shell.
#[test]
fn the_shell_on_the_path_is_asked_for_its_version() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    for (script, severity, words) in [
        ("echo '3.40.1 2022-12-28 14:03:47 df5c'", "info", "3.40.1"),
        ("echo '3.50.7 2026-01-01 00:00:00 abcd (64-bit)'", "ok", "3.50.7"),
        ("echo no", "unknown", "does not say"),
        ("exec sleep 100", "unknown", "did not answer within 1 s"),
    ] {
        sandbox.fake_program("sqlite3", script);
        let diagnosis = sandbox.doctor_with_programs();
        diagnosis.assert("sqlite_shell", severity, &[words]);
        diagnosis.assert_silent("sqlite_library");
        assert_eq!(diagnosis.code, 0);
    }
    let mut alone = sandbox.doctor_command(&[]);
    alone.env("PATH", sandbox.file("home"));
    std::fs::remove_file(sandbox.file("bin/sqlite3")).unwrap();
    Diagnosis::of(&Process::start(sandbox.among_fakes(alone)).finish(LIMIT)).assert(
        "sqlite_shell",
        "ok",
        &["no sqlite3"],
    );
}

/// FIELD-BUGS row 81: older and newer programs share a store.
#[test]
fn the_schema_is_compared_with_the_tables() {
    let sandbox = Sandbox::new();
    for version in 1..=5 {
        sandbox.used();
        sandbox.age_to(version);
        sandbox.sidecars_made();
        let before = sandbox.picture();
        let diagnosis = sandbox.doctor();
        diagnosis.assert("schema", "info", &[&format!("version {version}")]);
        diagnosis.assert_only(&[]);
        for finding in &diagnosis.findings {
            assert_ne!(finding["severity"], "unknown", "of version {version}: {finding:#}");
        }
        assert!(sandbox.picture() == before, "a question migrated");
    }
    let fixed = sandbox.doctor_with(&["--fix"]);
    let act = fixed.about("schema")[0]["act"].as_str().unwrap();
    assert!(act.starts_with("done: bring the schema from version 5"), "{act}");
    assert_eq!(
        sandbox.number(
            "SELECT count(*) FROM events WHERE event = 'store_migrated' AND \
    json_extract(detail, '$.from') = 5"
        ),
        1
    );
    sandbox.doctor().assert_silent("schema");

    sandbox.batch("PRAGMA user_version = 99");
    sandbox.doctor().assert("schema", "info", &["version 99", "newer"]);
    sandbox.doctor().assert_only(&[]);
    sandbox.batch("UPDATE meta SET value = 99 WHERE key = 'min_writer'");
    sandbox.doctor().assert("schema", "error", &["closed it to writers"]);
    // A bit of the number is flipped: a migration would fail at the first table.
    sandbox.batch("UPDATE meta SET value = 1 WHERE key = 'min_writer'; PRAGMA user_version = 4");
    let diagnosis = sandbox.doctor();
    diagnosis.assert("open", "error", &["version 4", "damaged"]);
    let before = sandbox.picture();
    let dry = sandbox.doctor_with(&["--fix", "--dry-run"]);
    let act = dry.about("open")[0]["act"].as_str().unwrap();
    assert!(act.starts_with("would move"), "{act}");
    assert!(sandbox.picture() == before, "something was written");
}

/// Rows that lean on an incarnation that is gone: somebody deleted by hand.
#[test]
fn rows_that_belong_to_nobody_are_found_and_deleted() {
    let sandbox = Sandbox::new();
    sandbox.used();
    sandbox.batch(
        "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms)
             VALUES ('token', '0123456789abcdef', 12, 13, 14);
         INSERT INTO serves (instance_id, profile, since_at_ms) VALUES (12, 'a', 1), (13, 'b', 1)",
    );
    let diagnosis = sandbox.doctor();
    let words = ["1 row of scoped_locks", "2 rows of serves"];
    let finding = diagnosis.assert("integrity", "warning", &words);
    diagnosis.assert_only(&["integrity"]);
    sandbox.try_remedy(finding, "incumbent doctor --fix").assert_code(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM serves"), 0);
    sandbox.doctor().assert_only(&[]);
}

/// Bytes in the middle, bytes at the beginning: an answer, a remedy, and nothing written.
#[test]
fn a_damaged_store_is_found_out_and_not_touched_by_the_question() {
    for (offset, id) in [(4096 * 3 + 5, "integrity"), (0, "open"), (68, "open")] {
        let sandbox = Sandbox::new();
        sandbox.used();
        sandbox.checkpointed();
        let mut bytes = std::fs::read(sandbox.db()).unwrap();
        for byte in &mut bytes[offset..offset + 20] {
            *byte ^= 0x5a;
        }
        std::fs::write(sandbox.db(), &bytes).unwrap();
        sandbox.sidecars_made();
        let before = sandbox.picture();
        let diagnosis = sandbox.doctor();
        let finding = diagnosis.assert(id, "error", &["damaged"]);
        assert!(finding["remedy"].as_str().unwrap().contains("doctor --fix"), "{finding:#}");
        let dry = sandbox.doctor_with(&["--fix", "--dry-run"]);
        let act = dry.about(id)[0]["act"].as_str().unwrap_or_default().to_owned();
        assert!(act.starts_with("would move"), "at {offset}: {dry:#?}");
        assert!(sandbox.picture() == before, "at {offset}");
    }
}

/// Of a store that is damaged at its root nothing else can be said, and that is said once.
#[test]
fn what_a_damaged_store_hides_is_one_line() {
    let sandbox = Sandbox::new();
    sandbox.used();
    sandbox.checkpointed();
    let mut bytes = std::fs::read(sandbox.db()).unwrap();
    bytes[100] ^= 0x5a;
    std::fs::write(sandbox.db(), &bytes).unwrap();
    let text = sandbox.cli(["doctor"]).assert_code(1).out;
    assert!(text.starts_with("error integrity: the database is damaged"), "{text}");
    let hidden: Vec<&str> = text.lines().filter(|line| line.starts_with("unknown ")).collect();
    assert!(hidden.len() == 1 && hidden[0].contains("stale_rows, unknown_holders"), "{text}");
}

/// Truncated by a full disk or a careless copy: what is empty is no store, but was one.
#[test]
fn a_store_that_was_emptied_is_a_problem() {
    let sandbox = Sandbox::new();
    sandbox.used();
    sandbox.checkpointed();
    std::fs::write(sandbox.db(), "").unwrap();
    let diagnosis = sandbox.doctor();
    diagnosis.assert("open", "warning", &["is empty", "once was a store"]);
    diagnosis.assert_only(&["open"]);
    sandbox.used();
    sandbox.doctor().assert_only(&[]);
}

/// A database of another program is not ours to repair.
#[test]
fn a_store_of_another_program_is_left_alone() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.file("store")).unwrap();
    chmod(&sandbox.file("store"), 0o700);
    sandbox
        .batch("PRAGMA journal_mode = DELETE; CREATE TABLE theirs (a); PRAGMA application_id = 7");
    chmod(&sandbox.db(), 0o600);
    sandbox.sidecars_made();
    let before = sandbox.picture();
    sandbox.doctor().assert("open", "error", &["belongs to another program"]);
    let fixed = sandbox.doctor_with(&["--fix"]);
    assert!(fixed.findings.iter().all(|it| it["act"].is_null()), "{fixed:#?}");
    assert!(sandbox.picture() == before, "it was touched");
    assert_eq!(fixed.code, 1);
}

/// FIELD-BUGS row 77: a reader that stays keeps the WAL from starting over.
#[test]
fn a_long_wal_is_found_and_emptied_once_no_reader_is_in_the_way() {
    let sandbox = Sandbox::new();
    sandbox.used();
    let reader = Connection::open(sandbox.db()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    sandbox.batch(
        "CREATE TABLE junk (b); INSERT INTO junk VALUES (zeroblob(20 << 20)); DROP TABLE junk",
    );
    let wal = sandbox.file("store/state.db-wal");
    let length = || std::fs::metadata(&wal).unwrap().len();
    assert!(length() > 16 << 20);
    let us = format!("pid {}", std::process::id());
    sandbox.doctor().assert("wal_size", "warning", &["20 MiB", &us]);
    let fixed = sandbox.doctor_with(&["--fix"]);
    let act = fixed.about("wal_size")[0]["act"].as_str().unwrap().to_owned();
    assert!(act.starts_with("could not move the WAL"), "{act}");
    assert_eq!(fixed.code, 1);
    reader.execute_batch("COMMIT").unwrap();
    let finding = sandbox.doctor().assert("wal_size", "warning", &[]).clone();
    sandbox.try_remedy(&finding, "incumbent doctor --fix").assert_code(0);
    assert!(length() < 1 << 20, "{}", length());
    sandbox.doctor().assert_only(&[]);
}

/// FIELD-BUGS rows 12 and 13: the clock was wrong, and is right again; or the other way round.
#[test]
fn times_of_the_future_are_named() {
    let sandbox = Sandbox::new();
    sandbox.used();
    sandbox.forge("UPDATE instances SET started_at_ms = started_at_ms + 3600000");
    sandbox.doctor().assert("clock", "warning", &["1 incarnations", "from the future"]);
    sandbox.forge("UPDATE instances SET started_at_ms = started_at_ms - 3600000");
    sandbox.doctor().assert_silent("clock");
    sandbox.forge("UPDATE meta SET value = value + 86400000000 WHERE key = 'last_id'");
    sandbox.doctor().assert("clock", "warning", &["23 h ahead"]);
}

// Those who write.

/// FIELD-BUGS rows 63 and 77: all wait for one process. The doctor does not, and names it.
#[test]
fn whoever_keeps_others_from_writing_is_named_in_time() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let writer = stopped_writer(&sandbox);
    let before = sandbox.picture();
    let asked = Instant::now();
    let diagnosis = sandbox.doctor();
    assert_within(Duration::from_secs(3), asked.elapsed(), "it");
    let pid = format!("pid {}", writer.pid());
    let finding = diagnosis.assert("write_lock", "error", &[&pid, "which is stopped"]);
    diagnosis.assert_only(&["write_lock"]);
    assert!(sandbox.picture() == before, "something was written");
    // It goes on, and still has the lock.
    sandbox.try_remedy(finding, "kill -CONT").assert_code(0);
    sandbox.doctor().assert("write_lock", "warning", &[&pid]);
    drop(writer);
    sandbox.doctor().assert_only(&[]);
    run.end().assert_code(0);
}

/// A repair behind a stopped writer gives up in time, says why, and leaves everything as it is.
#[test]
fn a_repair_does_not_wait_for_a_stopped_writer() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    let writer = stopped_writer(&sandbox);
    let asked = Instant::now();
    let fixed = sandbox.doctor_with(&["--fix"]);
    assert_within(Duration::from_secs(12), asked.elapsed(), "it");
    let finding = fixed.about("stale_rows")[0];
    let act = finding["act"].as_str().unwrap();
    assert!(act.starts_with("could not") && act.contains("stayed busy"), "{act}");
    assert_eq!((fixed.code, &finding["left"]), (1, &json!(true)));
    drop(writer);
    assert_eq!(sandbox.doctor_with(&["--fix"]).code, 0);
}

/// A program that has the database for itself alone keeps even questions out.
#[test]
fn a_store_that_somebody_has_for_himself_is_said_to_be_busy() {
    let sandbox = Sandbox::new();
    sandbox.used();
    let alone = Connection::open(sandbox.db()).unwrap();
    alone.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let asked = Instant::now();
    let diagnosis = sandbox.doctor();
    assert_within(Duration::from_secs(3), asked.elapsed(), "it");
    let us = format!("pid {}", std::process::id());
    diagnosis.assert("open", "error", &["stayed busy", &us]);
    diagnosis.assert("write_lock", "warning", &[&us]);
    drop(alone);
    sandbox.doctor().assert_only(&[]);
}

// Those on record.

#[test]
fn the_dead_on_record_are_named_and_ended() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--lock", "token=a-secret-of-mine"]);
    run.kill();
    run.command.wait_gone(LIMIT);
    let pid = format!("pid {}", run.pid());
    let diagnosis = sandbox.doctor();
    let finding =
        diagnosis.assert("stale_rows", "warning", &["default/gateway", &pid, "anchor_released"]);
    diagnosis.assert_only(&["stale_rows"]);
    // Other profiles are other people's business.
    sandbox.doctor_with(&[]).assert("stale_rows", "warning", &[]);
    let (code, other) = sandbox.json(["--profile", "other", "doctor"]);
    assert_eq!(code, 0, "{other:#}");
    let before = sandbox.picture();
    let dry = sandbox.doctor_with(&["--fix", "--dry-run"]);
    let act = dry.about("stale_rows")[0]["act"].as_str().unwrap();
    assert!(act.starts_with("would end the record of default/gateway, pid "), "{act}");
    assert!(sandbox.picture() == before, "--dry-run wrote");
    assert_eq!(dry.code, 1);
    sandbox.try_remedy(finding, "incumbent evict").assert_code(0);
    sandbox.doctor().assert_silent("stale_rows");

    let mut run = sandbox.hold(&["--lock", "token=a-secret-of-mine"]);
    run.kill();
    run.command.wait_gone(LIMIT);
    let fixed = sandbox.cli(["doctor", "--fix"]).assert_code(0);
    assert!(fixed.out.contains("stale_rows: done: end the record"), "{fixed:#?}");
    assert_eq!(sandbox.history()[0]["end_reason"], "anchor_released");
    assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 0);
    assert_eq!(sandbox.anchor_names(), Vec::<String>::new(), "its anchor is collected as well");
    sandbox.doctor().assert_only(&[]);
}

/// FIELD-BUGS row 27: not being able to look ends nobody, also not by `--fix`.
#[test]
fn who_cannot_be_told_dead_is_unknown_and_left_alone() {
    let sandbox = Sandbox::new();
    let run = sandbox.stopped();
    sandbox.forge("UPDATE instances SET anchor = NULL, pid_ns = 'elsewhere'");
    let diagnosis = sandbox.doctor();
    diagnosis.assert("unknown_holders", "unknown", &["default/gateway", "foreign_namespace"]);
    let fixed = sandbox.doctor_with(&["--fix"]);
    assert!(fixed.about("unknown_holders")[0]["act"].is_null(), "{fixed:#?}");
    sandbox.assert_status(4, "unknown", "foreign_namespace");
    drop(run);
}

/// FIELD-BUGS row 16: it does nothing, and keeps everybody out.
#[test]
fn a_holder_that_is_stopped_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.stopped();
    let diagnosis = sandbox.doctor();
    let pid = format!("pid {}", run.pid());
    let finding = diagnosis.assert("holders_stopped", "warning", &["default/gateway", &pid]);
    diagnosis.assert_only(&["holders_stopped"]);
    assert_eq!(sandbox.doctor_with(&["--fix"]).code, 1, "nobody is ended by a repair");
    sandbox.try_remedy(finding, "kill -CONT").assert_code(0);
    sandbox.doctor().assert_only(&[]);
    run.end().assert_code(0);
}

#[test]
fn a_holder_that_misses_its_heartbeats_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    sandbox.forge("UPDATE instances SET heartbeat_every_ms = 1000, heartbeat_at_ms = 1000000");
    let diagnosis = sandbox.doctor();
    diagnosis.assert("unresponsive", "warning", &["default/gateway", "every 1000 ms"]);
    diagnosis.assert_only(&["unresponsive"]);
    run.end().assert_code(0);
}

/// R:FD. FIELD-BUGS row 69: the lock of a dead owner is held by what it forked, and by whom is
/// said.
#[test]
fn who_holds_the_anchor_of_a_dead_owner_is_named() {
    let sandbox = Sandbox::new();
    let mut parent = sandbox.role("identity::role_of_a_forking_owner", "forking owner");
    parent.say("fork and keep");
    let said = parent.err_line_with("child ");
    let child: u32 = said.split([' ', ':']).nth(1).unwrap().parse().unwrap();
    parent.kill();
    let pid = format!("pid {child}");
    let diagnosis = sandbox.doctor();
    diagnosis.assert("leaked_anchors", "warning", &["no_such_process", "still held by", &pid]);
    diagnosis.assert_only(&["leaked_anchors"]);
    let fixed = sandbox.doctor_with(&["--fix"]);
    assert_eq!(fixed.code, 1, "it is not ended by a repair: {fixed:#?}");
    // Its row is ended by the next start; the descriptor is still there.
    sandbox.used();
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("leaked_anchors", "warning", &["no_such_process", &pid]);
    sandbox.try_remedy(finding, &format!("kill {child}")).assert_code(0);
    crate::support::eventually("it is gone", LIMIT, || {
        (sandbox.doctor().about("leaked_anchors")[0]["severity"] == "ok").then_some(())
    });
}

/// FIELD-BUGS row 32: the store was deleted under an owner, and in the new one everybody is
/// refused.
#[test]
fn an_anchor_that_no_row_names_is_an_error_and_left_alone() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.stopped();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.file(&format!("store/state.db{suffix}"))).unwrap();
    }
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    let pid = format!("pid {}", run.pid());
    let diagnosis = sandbox.doctor();
    let words = ["every claim is refused", pid.as_str(), &sandbox.anchor_names()[0]];
    diagnosis.assert("orphan_anchors", "error", &words);
    // It is stopped, and notices nothing.
    diagnosis.assert("lost_files", "error", &[&pid, "state.db-wal"]);
    diagnosis.assert_only(&["lost_files", "orphan_anchors"]);
    let names = sandbox.anchor_names();
    assert_eq!(sandbox.doctor_with(&["--fix"]).code, 1);
    assert_eq!(sandbox.anchor_names(), names);
    // It was harmless: its way out works, too.
    let finding = sandbox.doctor().assert("orphan_anchors", "error", &[]).clone();
    sandbox.try_remedy(&finding, "incumbent evict --force").assert_code(0);
    sandbox.doctor().assert_only(&["lost_files"]);
    run.kill();
}

/// Symptom: the store was deleted together with its anchors under a stopped owner, every start was
/// refused, and the doctor had nothing to say. Cause: it looked in the directory, where that anchor is
/// no more. It holds because what the new store knows of the one before it is looked at, too; a
/// question leaves that as it is.
#[test]
fn an_anchor_that_was_deleted_with_its_store_is_an_error() {
    const KNOWN: &str = "SELECT count(*) FROM meta WHERE key = 'lost_owners'";
    for ends in [false, true] {
        let sandbox = Sandbox::new();
        let mut run = sandbox.stopped();
        let name = sandbox.anchor_names().remove(0);
        std::fs::remove_dir_all(sandbox.file("store")).unwrap();
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        if ends {
            run.kill();
            run.command.wait_gone(LIMIT);
            sandbox.doctor().assert_only(&[]);
            assert_eq!(sandbox.number(KNOWN), 1, "a question wrote");
            sandbox.used();
            continue;
        }
        let before = sandbox.picture();
        let diagnosis = sandbox.doctor();
        let pid = format!("pid {}", run.pid());
        let words = ["every claim is refused", "deleted", pid.as_str(), name.as_str()];
        let finding = diagnosis.assert("orphan_anchors", "error", &words);
        diagnosis.assert_only(&["lost_files", "orphan_anchors"]);
        assert!(sandbox.picture() == before, "a question wrote");
        assert_eq!(sandbox.doctor_with(&["--fix"]).code, 1, "that is for a person to decide");
        assert_eq!(sandbox.number(KNOWN), 1);
        sandbox.try_remedy(finding, "incumbent evict --force").assert_code(0);
        sandbox.doctor().assert_only(&["lost_files"]);
        sandbox.used();
        run.kill();
    }
}

/// Symptom: with more gateways than are told one by one, an anchor that outlived its owner was not
/// found. Cause: the first few that were held were looked at, of whomever. It holds because those of
/// live owners are not counted.
#[test]
fn a_leak_is_found_among_many_live_owners() {
    let sandbox = Sandbox::new();
    let owners: Vec<Run> =
        (0..12).map(|number| sandbox.hold(&["--profile", &format!("p{number}")])).collect();
    for evicted in [0, 6, 11] {
        // Or it would notice.
        owners[evicted].process.signal(Signal::STOP);
        wait_stopped(owners[evicted].pid());
        let profile = format!("p{evicted}");
        sandbox.cli(["evict", "--force", "--profile", &profile]).assert_code(0);
    }
    let diagnosis = sandbox.doctor();
    diagnosis.assert_only(&["leaked_anchors"]);
    let leaked = diagnosis.about("leaked_anchors");
    assert_eq!(leaked.len(), 3, "{leaked:#?}");
    for evicted in [0, 6, 11] {
        let pid = format!("pid {}", owners[evicted].pid());
        assert!(leaked.iter().any(|it| it["evidence"].to_string().contains(&pid)), "{leaked:#?}");
    }
}

#[test]
fn anchors_that_nobody_holds_are_garbage() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    sandbox.cli(["evict"]).assert_code(0);
    assert_eq!(sandbox.anchor_names().len(), 1);
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("orphan_anchors", "info", &["1 anchor", "nobody holds"]);
    diagnosis.assert_only(&[]);
    sandbox.try_remedy(finding, "incumbent doctor --fix").assert_code(0);
    assert_eq!(sandbox.anchor_names().len(), 0);
    sandbox.doctor().assert_silent("orphan_anchors");
}

/// FIELD-BUGS row 38: an over-eager `rm`; its owner is stopped, and cannot make it anew.
#[test]
fn a_holder_without_its_anchor_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.stopped();
    for name in sandbox.anchor_names() {
        std::fs::remove_file(sandbox.anchors().join(name)).unwrap();
    }
    let diagnosis = sandbox.doctor();
    diagnosis.assert("missing_anchors", "warning", &["default/gateway", "is gone"]);
    diagnosis.assert_only(&["holders_stopped", "missing_anchors"]);
    drop(run);

    let sandbox = Sandbox::new();
    let sleeper = Process::start(sandbox.program("cat"));
    let pid = sleeper.pid().to_string();
    sandbox.cli(["claim", "--no-keeper", "--pid", &pid]).assert_code(0);
    let diagnosis = sandbox.doctor();
    diagnosis.assert("missing_anchors", "info", &["--no-keeper", &format!("pid {pid}")]);
    diagnosis.assert_only(&[]);
}

/// What systemd would be asked, where no systemd runs.
const GIVES_100_S: &str = "printf 'LoadState=loaded\\nTimeoutStopUSec=1min 40s\\n'";

/// FIELD-BUGS row 52: an orphan outside of its supervisor keeps the office for days.
#[test]
fn an_owner_that_its_supervisor_does_not_know_is_named() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_program("systemctl", GIVES_100_S);
    let run = sandbox.hold(&[]);
    sandbox.forge("UPDATE instances SET supervisor = 'systemd:gw.service'");
    let diagnosis = sandbox.doctor_with_programs();
    let words = ["systemd:gw.service", &format!("pid {}", run.pid()), "does not know it"];
    diagnosis.assert("outside_supervisor", "warning", &words);
    diagnosis.assert_only(&["outside_supervisor"]);

    // Started by hand, and the service is refused.
    sandbox.forge("UPDATE instances SET supervisor = 'none'");
    sandbox.doctor().assert_silent("outside_supervisor");
    for _ in 0..3 {
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    }
    sandbox.forge("UPDATE conflicts SET contender = contender || ' systemd:gw.service'");
    let diagnosis = sandbox.doctor();
    let words = ["no supervisor started", "systemd:gw.service", "3 times"];
    let finding = diagnosis.assert("outside_supervisor", "warning", &words);
    sandbox.try_remedy(finding, "incumbent stop").assert_code(0);
    sandbox.doctor().assert_silent("outside_supervisor");
    drop(run);
}

/// FIELD-BUGS row 85: killed in the middle of an orderly end.
#[test]
fn a_unit_that_kills_too_early_is_named() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    let run = sandbox.hold(&[]);
    sandbox.forge("UPDATE instances SET supervisor = 'systemd:gw.service'");
    for (script, severity, words) in [
        (GIVES_100_S, "ok", ""),
        (
            "printf 'LoadState=loaded\\nTimeoutStopUSec=10s\\n'",
            "warning",
            "gw.service is killed 10s",
        ),
        ("echo LoadState=not-found", "unknown", "cannot be told"),
        ("exec sleep 100", "unknown", "did not answer"),
    ] {
        sandbox.fake_program("systemctl", script);
        let asked = Instant::now();
        let diagnosis = sandbox.doctor_with_programs();
        assert_within(Duration::from_secs(5), asked.elapsed(), script);
        let finding = diagnosis.assert("stop_budget", severity, &[words]);
        if severity == "warning" {
            let remedy = finding["remedy"].as_str().unwrap();
            assert!(remedy.contains("`TimeoutStopSec=90s` under `[Service]`"), "{remedy}");
        }
    }
    run.end().assert_code(0);
}

// Those who want what others have.

/// FIELD-BUGS row 67: a cloned profile carries the token of the first, and a contender in a loop is
/// one finding with a count.
#[test]
fn tokens_of_two_profiles_and_refusals_are_counted() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "token=a-secret-of-mine"]);
    let script = "for n in $(seq 100); do
            incumbent --profile clone run --no-backoff --lock token=a-secret-of-mine -- true
        done 2> /dev/null; exit 0";
    let mut clone = sandbox.shell(script);
    clone.env("INCUMBENT_PARTY", "red");
    Process::start(clone).finish(LIMIT * 2).assert_code(0);
    let answer = Process::start(sandbox.doctor_command(&[])).finish(LIMIT);
    assert!(!answer.out.contains("a-secret-of-mine"), "{answer:#?}");
    let diagnosis = Diagnosis::of(&answer);
    let words = ["2 profiles", "clone, default", "default holds it now"];
    diagnosis.assert("duplicate_tokens", "warning", &words);
    let words = ["100 times", "of profile clone", "the party red"];
    let finding = diagnosis.assert("conflicts", "warning", &words);
    sandbox.try_remedy(finding, "incumbent status --all").assert_code(0);
    run.end().assert_code(0);

    // Older than a day, and older than a week.
    sandbox.batch(
        "UPDATE lock_conflicts SET first_at_ms = first_at_ms - 90000000, last_at_ms = last_at_ms \
        - 90000000",
    );
    sandbox.doctor().assert("conflicts", "info", &["100 times"]);
    sandbox.doctor().assert("duplicate_tokens", "warning", &["nobody holds it now"]);
    sandbox.batch(
        "UPDATE lock_conflicts SET last_at_ms = last_at_ms - 900000000;
         UPDATE events SET at_ms = at_ms - 900000000",
    );
    sandbox.doctor().assert_silent("duplicate_tokens");
}

/// FIELD-BUGS row 46.
#[test]
fn a_party_that_starts_again_and_again_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    for _ in 0..6 {
        let mut start = sandbox.incumbent(["run", "--no-backoff", "--", "true"]);
        start.env("INCUMBENT_PARTY", "red");
        Process::start(start).finish(LIMIT).assert_code(75);
    }
    let diagnosis = sandbox.doctor();
    let words = ["the party red", "default/gateway", "6 times in a row"];
    let finding = diagnosis.assert("storms", "warning", &words);
    diagnosis.assert("conflicts", "warning", &["default/gateway", "6 times"]);
    diagnosis.assert_only(&["conflicts", "storms"]);
    sandbox.try_remedy(finding, "incumbent history").assert_code(0);
    let of_another = sandbox.json(["--profile", "other", "doctor"]);
    assert_eq!(of_another.0, 0, "{of_another:#?}");
    run.end().assert_code(0);
}

#[test]
fn what_was_asked_and_what_is_wanted_is_told() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let pid = run.pid().to_string();
    sandbox.cli(["marker", "write", "drain", "--pid", &pid, "--reason", "soon"]).assert_code(0);
    sandbox.cli(["--profile", "work", "desired", "stopped"]).assert_code(0);
    let diagnosis = sandbox.doctor();
    diagnosis.assert(
        "open_markers",
        "info",
        &["drain for default/gateway", "soon", "counts until"],
    );
    let finding = diagnosis.assert("desired", "info", &["profile work stopped"]);
    diagnosis.assert_only(&[]);
    sandbox.try_remedy(finding, "incumbent desired running").assert_code(0);
    sandbox.doctor().assert_silent("desired");
    run.end().assert_code(0);
    sandbox.doctor().assert_silent("open_markers");
}

// What else there is.

/// An older program that only knows its own files.
#[test]
fn files_of_an_older_program_that_say_something_else_are_named() {
    let sandbox = Sandbox::new();
    let home = sandbox.file("configuration");
    std::fs::create_dir(&home).unwrap();
    let home_text = home.to_str().unwrap();
    let run = sandbox.hold(&["--home", home_text, "--lock", "token=a-secret-of-mine"]);
    let mut command = sandbox.program("/bin/sh");
    command.args(["-c", "read word", "gateway", "a-secret-of-mine"]);
    let other = Process::start(command);
    let start_time = crate::support::Stat::of(other.pid()).unwrap().start_time;
    let of_run = crate::support::Stat::of(run.pid()).unwrap().start_time;
    let write = |name: &str, text: &str| std::fs::write(home.join(name), text).unwrap();
    let live = format!("{{\"pid\": {}, \"start_time\": {start_time}}}", other.pid());
    for (pid_file, severity, words) in [
        (live.as_str(), "error", "which lives"),
        (&format!("{{\"pid\": {}, \"start_time\": 7}}", other.pid()), "info", "not that gateway"),
        (&format!("{{\"pid\": {}, \"start_time\": {of_run}}}", run.pid()), "ok", ""),
        ("4194305", "info", "pid 4194305"),
        (&other.pid().to_string(), "info", "not that gateway"),
        ("\u{0}garbage", "info", "names no process"),
        ("", "info", "it is empty"),
    ] {
        write("gateway.pid", pid_file);
        let before = std::fs::metadata(home.join("gateway.pid")).unwrap().modified().unwrap();
        let diagnosis = sandbox.doctor();
        let finding = diagnosis.assert("legacy_files", severity, &[words]);
        assert!(!finding.to_string().contains("a-secret-of-mine"), "{finding:#}");
        let after = std::fs::metadata(home.join("gateway.pid")).unwrap().modified().unwrap();
        assert_eq!(before, after);
    }
    std::fs::remove_file(home.join("gateway.pid")).unwrap();
    run.end().assert_code(0);

    // In the directory that the environment names, too; and where an older store has no column for
    // it.
    write("gateway.lock", &live);
    sandbox.forge("UPDATE profiles SET home = NULL");
    sandbox.age_to(5);
    let mut command = sandbox.doctor_command(&[]);
    command.env("HERMES_HOME", &home);
    let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
    // Its lock is free: whoever lives has let it go.
    diagnosis.assert("legacy_files", "info", &["gateway.lock", &format!("pid {}", other.pid())]);
    sandbox.doctor().assert_silent("legacy_files");
    if !has("flock") {
        return skipped("the end of it needs flock");
    }
    let lock = home.join("gateway.lock");
    let script = format!("exec flock -n {} -c 'echo locked; cat'", lock.display());
    let mut holder = Process::start(sandbox.shell(&script));
    holder.line_with("locked");
    let mut command = sandbox.doctor_command(&[]);
    command.env("HERMES_HOME", &home);
    let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
    let words = [&format!("pid {}", holder.pid()), "gateway.lock", "not on record"];
    diagnosis.assert("legacy_files", "error", &words);
    diagnosis.assert_only(&["legacy_files"]);
}

/// FIELD-BUGS row 30: two stores are two authorities.
#[test]
fn another_store_with_live_holders_is_told() {
    let sandbox = Sandbox::new();
    sandbox.used();
    let mut start =
        sandbox.incumbent(["run", "--no-backoff", "--", "/bin/sh", "-c", "echo $$; exec cat"]);
    start.env_remove("INCUMBENT_DB");
    let run = Run::start(start);
    let default: PathBuf = sandbox.file("home/.local/state/incumbent/state.db");
    let words = [default.to_str().unwrap(), "default/gateway"];
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("other_stores", "info", &words);
    diagnosis.assert_only(&[]);
    sandbox.try_remedy(finding, "incumbent --db").assert_code(0);
    // And from the other side.
    let held = sandbox.hold(&[]);
    let mut there = sandbox.doctor_command(&[]);
    there.args(["--db".as_ref(), default.as_os_str()]);
    let there = Diagnosis::of(&Process::start(there).finish(LIMIT));
    there.assert("other_stores", "info", &[sandbox.db().to_str().unwrap()]);
    held.end().assert_code(0);
    run.end().assert_code(0);
    sandbox.doctor().assert_silent("other_stores");
}

/// FIELD-BUGS row 101. Symptom: two gateways with one token, each behind mounts of its own (a sandbox,
/// `PrivateTmp`), and the doctor found nothing. Cause: it looked at the path, and by that all was well. It
/// holds because what others have open by that path is compared with what it is here, by its inode.
#[test]
fn owners_of_another_store_at_our_own_path_are_named() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    sandbox.used();
    let hold = |mounts: &str| {
        let mut command = sandbox.program(words[0]);
        let held = "incumbent run --no-backoff -- /bin/sh -c 'echo $$; exec cat'";
        command.args(&words[1..]).args(["/bin/sh", "-c", &format!("{mounts} && exec {held}")]);
        Run::start(command)
    };
    // The very same file, seen through other mounts.
    for mounts in ["true", "mount --bind store store", "mkdir -p other && mount --bind . other"] {
        let run = hold(mounts);
        let diagnosis = sandbox.doctor();
        diagnosis.assert_silent("namesakes");
        diagnosis.assert_only(&[]);
        run.end().assert_code(0);
    }

    let run = hold("mount -t tmpfs -o mode=0700 t store");
    let here = sandbox.hold(&[]);
    let pid = format!("pid {} (incumbent)", run.pid());
    let at = sandbox.db().display().to_string();
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("namesakes", "warning", &[&pid, &at, "another file"]);
    diagnosis.assert_only(&["namesakes"]);
    let shown = format!("nsenter -t {} -m incumbent --db {at} status --all", run.pid());
    let answer = sandbox.try_remedy(finding, &shown).assert_code(0);
    assert!(answer.out.contains(&run.pid().to_string()), "{answer:#?}");
    // And from the other side.
    let mut there = sandbox.program("nsenter");
    there.args(["-m", "-t", &run.pid().to_string(), BINARY, "--json", "doctor"]);
    there.env_remove("HERMES_HOME");
    let there = Diagnosis::of(&Process::start(there).finish(LIMIT));
    let pid = format!("pid {} (incumbent)", here.pid());
    there.assert("namesakes", "warning", &[&pid, &at]);
    here.end().assert_code(0);
    run.end().assert_code(0);
    sandbox.doctor().assert_silent("namesakes");

    // Where there is no store yet, a start will make a second one.
    let run = hold("mount -t tmpfs -o mode=0700 t store");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(sandbox.sidecar(suffix));
    }
    let pid = format!("pid {} (incumbent)", run.pid());
    sandbox.doctor().assert("namesakes", "warning", &[&pid]);
    run.end();
}

/// A remedy names the store that it is about.
#[test]
fn remedies_name_a_store_that_was_asked_for_by_its_path() {
    let sandbox = Sandbox::new();
    let mut start = sandbox.incumbent(["--db", "a place/b.db", "run", "--no-backoff"]);
    start.args(["--", "/bin/sh", "-c", "echo $$; exec cat"]);
    let mut run = Run::start(start);
    run.kill();
    run.command.wait_gone(LIMIT);
    let (code, findings) = sandbox.json(["--db", "a place/b.db", "doctor"]);
    assert_eq!(code, 1);
    let stale = findings.as_array().unwrap().iter().find(|it| it["id"] == "stale_rows").unwrap();
    assert_eq!(stale["severity"], "warning", "{stale:#}");
    sandbox.try_remedy(stale, "incumbent --db '").assert_code(0);
    assert_eq!(sandbox.json(["--db", "a place/b.db", "doctor"]).0, 0);
    assert!(!sandbox.file("store").exists(), "the default store was touched");
}

/// The text for people: problems first, each with what to try, then the rest, then how many.
#[test]
fn problems_come_first_and_are_counted() {
    let sandbox = Sandbox::new();
    let run = sandbox.stopped();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    chmod(sandbox.path(), 0o777);
    let text = sandbox.cli(["doctor"]).assert_code(1).out;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("error path: "), "{text}");
    assert!(lines[1].starts_with("  try:   "), "{text}");
    assert!(lines[2].starts_with("warning "), "{text}");
    assert!(lines[lines.len() - 2].starts_with("ok: "), "{text}");
    assert_eq!(lines.last(), Some(&"3 problems: 1 error, 2 warnings"), "{text}");
    chmod(sandbox.path(), 0o700);
    drop(run);
}

/// Usage: a dry run of nothing is nonsense.
#[test]
fn a_dry_run_is_one_of_a_repair() {
    let sandbox = Sandbox::new();
    sandbox.cli(["doctor", "--dry-run"]).assert_code(2);
}
