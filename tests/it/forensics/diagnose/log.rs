//! The log that it writes: private, bounded, in a place of ours, and without secrets.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{assert_holds, pid_of, section};
use crate::support::{BINARY, LIMIT, Process, Sandbox, another_user, skipped, wait_ended};

/// FIELD-BUGS row 87, and any log: private, kept, and not larger than was said.
#[test]
fn the_log_is_private_and_kept() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake("ps", "").fake("dmesg", "");
    let path = sandbox.file("a/b/log");
    let start = || {
        let mut command =
            sandbox.incumbent(["--json", "forensics", "diagnose", "--timeout", "10s", "--log"]);
        command.arg(&path).env("PATH", sandbox.file("bin"));
        let command = sandbox.among_fakes(command);
        let answer = Process::start(command).finish(LIMIT).assert_code(0).json();
        assert_eq!(answer["log"], path.to_str().unwrap());
        assert_eq!(answer["timeout_ms"], 10_000);
        let pid = u32::try_from(answer["pid"].as_u64().unwrap()).unwrap();
        assert!(wait_ended(pid, LIMIT));
        pid
    };
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    let first = start();
    assert_eq!(
        [mode(&path), mode(&sandbox.file("a/b")), mode(&sandbox.file("a"))],
        [0o600, 0o700, 0o700]
    );
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let second = start();
    assert_eq!(mode(&path), 0o600);
    let log = std::fs::read_to_string(&path).unwrap();
    let ends: Vec<String> = [first, second].map(|pid| format!("=== end === #{pid}")).to_vec();
    assert_holds(&log, &[&ends[0], &ends[1]]);
}

/// Ten signals in a row, ten diagnostics of one log, which is long: one of them renames it, and not
/// one loses a line. The one who loses the race finds another file under the name.
#[test]
fn ten_at_once_rename_the_log_once_and_lose_nothing() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake("ps", "").fake("dmesg", "");
    let old = "of yesterday\n".repeat(1024 * 1024 / 13 + 1);
    std::fs::write(sandbox.log(), &old).unwrap();
    std::fs::set_permissions(sandbox.log(), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(sandbox.file("log.1"), "of last week").unwrap();
    let starters: Vec<Process> = (0..10)
        .map(|_| Process::start(sandbox.diagnose_with_fakes(&["--timeout", "20s"])))
        .collect();
    let pids: Vec<u32> =
        starters.into_iter().map(|it| pid_of(&it.finish(LIMIT).assert_code(0))).collect();
    for pid in &pids {
        assert!(wait_ended(*pid, LIMIT));
    }
    let log = sandbox.read_log();
    for pid in &pids {
        for line in [
            "=== shutdown diagnostic @ UNKNOWN ===",
            "--- date ---",
            "--- load average ---",
            "=== end ===",
        ] {
            let line = format!("{line} #{pid}");
            assert_eq!(log.matches(&line).count(), 1, "{line}: {log}");
        }
    }
    assert!(
        std::fs::read_to_string(sandbox.file("log.1")).unwrap() == old,
        "log.1 is something else"
    );
    assert!(!sandbox.file("log.1.1").exists());
}

/// Programs that say too much, one of them without end: the last lines stand there, and the log is
/// bounded.
#[test]
fn much_is_cut() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    let many = "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo";
    sandbox
        .fake("ps", &format!("{many} \"$((i+1000000)) 1 root 0.$((i%9)) 0.1 100 S 00:01\"; done"))
        .fake("dmesg", &format!("x={}; {many} \"message $i $x\"; done", "x".repeat(2_048)));
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&["--timeout", "30s"]));
    assert_holds(
        &log,
        &[
            "\n(60 of 5000)\n",
            "\nmessage 4981 xxx",
            "\nmessage 5000 xxx",
            "x...\n(20 of more than ",
        ],
    );
    assert!(!log.contains("message 4980"));
    assert!(log.len() < 256 * 1024, "{}", log.len());
    let rows = section(&log, "processes");
    assert!(rows[1].contains(" 0.8 "), "not by cpu: {rows:#?}");

    std::fs::remove_file(sandbox.log()).unwrap();
    sandbox.fake("ps", "").fake("dmesg", "while :; do echo again and again; done");
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&["--timeout", "4s"]));
    assert_holds(
        &log,
        &["unavailable: dmesg: no answer within ", "\nagain and again\n", "=== end ==="],
    );
    assert!(log.len() < 256 * 1024, "{}", log.len());
}

/// What is no file of its own is refused at once, and neither followed, waited for nor written to.
#[test]
fn a_log_that_is_no_file_is_refused() {
    let sandbox = Sandbox::new();
    let script = "echo kept > target; ln -s target link; mkfifo fifo; mkdir directory; mkdir closed
        echo kept > one; ln one two; ln -s nowhere dangling; mkdir older; mkdir older/log.1";
    Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(0);
    let older = sandbox.file("older/log");
    std::fs::write(&older, vec![b'x'; 1024 * 1024]).unwrap();
    std::fs::set_permissions(&older, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(sandbox.file("hosts"), "127.0.0.1 localhost").unwrap();
    std::fs::set_permissions(sandbox.file("hosts"), PermissionsExt::from_mode(0o644)).unwrap();
    let refused = |log: &str, code: i32, words: &str| {
        let answer = sandbox.cli(["forensics", "diagnose", "--log", log]).assert_code(code);
        assert_eq!(answer.out, "", "{answer:#?}");
        answer.assert_complains(&["incumbent: forensics diagnose: ", words, "try:"]);
    };
    refused("hosts", 2, "others can read it");
    let gone = "mkdir gone; cd gone; rmdir ../gone; exec incumbent forensics diagnose --log log";
    Process::start(sandbox.shell(gone)).finish(LIMIT).assert_complains(&["No such file"]);
    refused("link", 2, "cannot open the log link: it is a symbolic link");
    refused("dangling", 2, "a symbolic link");
    refused("fifo", 2, "a named pipe");
    refused("directory", 2, "a directory");
    refused("/dev/null", 2, "a device");
    refused("two", 2, "other names");
    refused("target/log", 2, "the directory of the log");
    refused("older/log", 2, "cannot rename to");
    for file in ["target", "one"] {
        assert_eq!(std::fs::read_to_string(sandbox.file(file)).unwrap(), "kept\n");
    }
    assert!(!sandbox.file("nowhere").exists());
    for bad in [
        ["--timeout", "0"],
        ["--timeout", "61s"],
        ["--pid", "-1"],
        ["--pid", "0"],
        ["--signal", "x"],
    ] {
        sandbox.cli([&["forensics", "diagnose", "--log", "log"], &bad[..]].concat()).assert_code(2);
    }
    assert!(!sandbox.log().exists());
}

/// Another user's directory, another user's file.
#[test]
fn a_log_of_another_user_is_refused() {
    let Some(words) = another_user() else { return skipped("needs root") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let script = "mkdir closed open; chmod 755 closed; chmod 777 open
        echo kept > open/log; chmod 666 open/log";
    Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(0);
    let ask = |log: &str, words_of_error: &str| {
        let mut command = sandbox.within(words);
        command.arg(&binary).args(["--json", "forensics", "diagnose", "--log", log]);
        let answer = Process::start(command).finish(LIMIT).assert_code(78).json();
        assert_eq!(answer["error"]["kind"], "permission", "{answer:#}");
        assert!(
            answer["error"]["message"].as_str().unwrap().contains(words_of_error),
            "{answer:#}"
        );
    };
    ask("closed/log", "Permission denied");
    ask("closed/below/log", "Permission denied");
    ask("open/log", "it belongs to uid 0, and this is uid 65534");
    assert_eq!(std::fs::read_to_string(sandbox.file("open/log")).unwrap(), "kept\n");
}

/// FIELD-BUGS row 87: a dump of all command lines was pasted into a public pull request. It holds
/// because each is read argument by argument and redacted, and no environment is read at all.
#[test]
fn no_secret_is_written() {
    const SECRET: &str = "hunter2x";
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    // A parent of their own: what other tests have started would be shown in their place.
    let script = format!(
        "hold() {{ /bin/sh -c '/bin/sleep 600; :' gw \"$@\" > /dev/null & echo $!; }}
        hold --token=$BOT_TOKEN; hold --api-key $BOT_TOKEN
        hold \"gateway --password $BOT_TOKEN run\"
        hold \"https://user:$BOT_TOKEN@host/?a=1&api_key=$BOT_TOKEN\"
        {BINARY} forensics diagnose --log log; read -r end"
    );
    let said = format!("gateway[1]: starting with --token {SECRET}");
    sandbox.fake("dmesg", &format!("echo '{said}'"));
    Process::start(sandbox.shell("cp /bin/ps bin/real-ps")).finish(LIMIT).assert_code(0);
    for ps in [
        format!("echo 'ps: token={SECRET}' >&2; exit 1"),
        "exec \"${0%/*}/real-ps\" \"$@\"".to_owned(),
    ] {
        sandbox.fake("ps", &ps);
        let mut command = sandbox.shell(&script);
        command.env("PATH", sandbox.file("bin")).env("BOT_TOKEN", SECRET);
        let mut subject = Process::start(sandbox.among_fakes(command));
        let holders: Vec<String> = (0..4).map(|_| subject.line()).collect();
        let log = sandbox.diagnostic(subject.line().parse().unwrap());
        assert!(!log.contains(SECRET), "{log}");
        for pid in &holders {
            // Below us, who are the subject; in whatever state it is just now.
            let is_it = |line: &str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.windows(2).any(|pair| pair[0] == pid && pair[1].len() == 1)
            };
            let line = section(&log, "process tree").into_iter().find(|it| is_it(it));
            assert_holds(line.unwrap_or_default(), &["<redacted>"]);
        }
        assert_holds(&log, &["gateway[1]: starting with --token <redacted>"]);
        std::fs::rename(sandbox.file("log"), sandbox.file(&format!("log-of-{}", subject.pid())))
            .unwrap();
    }
    let files: Vec<_> =
        std::fs::read_dir(sandbox.path()).unwrap().map(|it| it.unwrap().path()).collect();
    for file in files.iter().filter(|it| it.is_file()) {
        let bytes = std::fs::read(file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{}", file.display());
    }
}

/// Symptom: where the store could not be read, the lines of the kernel and of the journal were
/// shown anyway, with whatever is locked in them. It holds because nobody knows then what is not to
/// be shown, and it says so.
#[test]
fn a_store_that_cannot_be_read_keeps_the_lines_of_logs_back() {
    let sandbox = Sandbox::new();
    for (dmesg, journal) in [("echo the-line token-of-mine", ""), ("exit 1", "echo the-line")] {
        sandbox.fake("ps", "").fake("dmesg", dmesg).fake("journalctl", journal);
        std::fs::create_dir_all(sandbox.db().parent().unwrap()).unwrap();
        std::fs::write(sandbox.db(), "no store").unwrap();
        let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&[]));
        assert!(!log.contains("the-line"), "{log}");
        let why = format!("{} cannot be read (", sandbox.db().display());
        assert_holds(
            &log,
            &[
                &format!("unavailable: its lines are not shown: {why}"),
                &format!("; command lines are not shown: {why}"),
            ],
        );
        std::fs::remove_file(sandbox.file("log")).unwrap();
    }
}
