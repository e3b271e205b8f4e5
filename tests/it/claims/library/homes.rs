//! A profile belongs to its home.

use std::path::{Path, PathBuf};

use incumbent::{Claim, Store, process};

use crate::support::{LIMIT, Process, Sandbox};

impl Sandbox {
    fn home(&self, name: &str) -> PathBuf {
        let home = self.file(name);
        std::fs::create_dir(&home).unwrap();
        home
    }

    fn homes_bound(&self) -> i64 {
        self.number("SELECT count(*) FROM profiles WHERE home IS NOT NULL")
    }
}

/// FIELD-BUGS rows 43 and 44. A profile belongs to one home, until that home is gone.
#[test]
fn a_profile_belongs_to_its_home() {
    let sandbox = Sandbox::new();
    let (first, second) = (sandbox.home("first"), sandbox.home("second"));
    let start = |home: &Path| {
        let mut command = sandbox.incumbent(["--json", "run", "--no-backoff", "--home"]);
        command.arg(home).args(["--", "true"]);
        Process::start(command).finish(LIMIT)
    };
    start(&first).assert_code(0);
    let refused = start(&second).assert_code(78).json();
    assert_eq!(refused["error"]["kind"], "profile_belongs_to", "{refused:#}");
    let message = refused["error"]["message"].as_str().unwrap();
    for home in [&first, &second] {
        assert!(message.contains(home.to_str().unwrap()), "{message}");
    }
    assert!(refused["error"]["hint"].as_str().unwrap().contains("--profile"), "{refused:#}");
    // By whatever way: a link leads to the same home.
    std::os::unix::fs::symlink(&first, sandbox.file("link")).unwrap();
    start(&sandbox.file("link")).assert_code(0);
    // A question names no home, and who names none is not refused.
    assert_eq!(sandbox.status().0, 3);
    sandbox.assert_free();
    std::fs::remove_dir(&first).unwrap();
    start(&second).assert_code(0);
    std::fs::create_dir(&first).unwrap();
    start(&first).assert_code(78);
}

/// Symptom: a start that was refused had moved the profile to its own home on the way, and the
/// rightful owner was refused from then on.
#[test]
fn a_refused_claim_binds_nothing() {
    let sandbox = Sandbox::new();
    let (first, second) = (sandbox.home("first"), sandbox.home("second"));
    let run = sandbox.hold(&[]);
    let contend = |home: &Path| {
        let mut command = sandbox.incumbent(["run", "--no-backoff", "--home"]);
        command.arg(home).args(["--", "true"]);
        Process::start(command).finish(LIMIT)
    };
    contend(&second).assert_code(75);
    assert_eq!(sandbox.homes_bound(), 0);
    run.end().assert_code(0);
    contend(&first).assert_code(0);
    assert_eq!(sandbox.homes_bound(), 1);
}

/// A binding shows more of a holder than one line: when its process started, its words, its home.
#[test]
fn a_report_and_a_refusal_say_start_time_words_and_home() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("configuration");
    let run = sandbox.hold(&["--home", home.to_str().unwrap()]);
    let store = Store::open(sandbox.db()).unwrap();
    let profile = store.profile("default").unwrap();
    let Claim::Held(holder) = profile.claim().unwrap() else { panic!("granted") };
    let report = profile.status().unwrap();
    let started = process::start_time(run.pid()).unwrap().known();
    assert!(started.is_some());
    assert_eq!((report.start_time, holder.start_time), (started, started));
    assert_eq!((report.home.as_ref(), holder.home.as_ref()), (Some(&home), Some(&home)));
    assert_eq!(report.argv[1..3], ["run", "--no-backoff"], "{report:?}");
    assert_eq!(report.argv, holder.argv);
    run.end().assert_code(0);
    // It stays its profile's.
    let report = profile.status().unwrap();
    assert_eq!((report.running, report.home), (false, Some(home)));
}
