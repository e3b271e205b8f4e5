//! The detached diagnostic: a slow look at the machine that holds nobody up, ends by itself, is
//! bounded on disk, tells no secret, and says why it does not know something.
//!
//! The programs that it asks are replaced by scripts where they have to hang, fail or talk too
//! much.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use incumbent::ErrorKind;
use incumbent::forensics::Diagnostic;
use rustix::process::Signal;

use crate::support::{
    Answer, BINARY, Identity, LIMIT, Process, Sandbox, Stat, another_user, assert_within,
    eventually, is_root, kill, nobody_with_hidepid, order, plays, skipped, tagged, test_name,
    wait_ended,
};

/// Never ends by itself, and has a child that does not either.
const HANG: &str = "/bin/sleep 1000 & wait";

impl Sandbox {
    fn log(&self) -> PathBuf {
        self.file("log")
    }

    fn read_log(&self) -> String {
        String::from_utf8(std::fs::read(self.log()).unwrap_or_default()).unwrap()
    }

    /// A script in the place of a program. Another process writes it: if we had it open while a
    /// test beside us forks, executing it would fail (ETXTBSY).
    fn fake(&self, name: &str, script: &str) -> &Self {
        let mut writer =
            self.shell(&format!("mkdir -p bin; cat > bin/{name}; chmod +x bin/{name}"));
        let mut writer = writer.stdin(Stdio::piped()).spawn().unwrap();
        writer
            .stdin
            .take()
            .unwrap()
            .write_all(format!("#!/bin/sh\n{script}\n").as_bytes())
            .unwrap();
        assert!(writer.wait().unwrap().success());
        self
    }

    /// A `ps` that waits until [`Sandbox::open_gate`].
    fn fake_ps_behind_gate(&self) {
        let gate = self.file("gate").display().to_string();
        Process::start(self.shell("mkfifo gate")).finish(LIMIT).assert_code(0);
        self.fake("ps", &format!("read x < {gate}; echo the gate is open >&2; exit 1"));
    }

    fn open_gate(&self) {
        Process::start(self.shell("echo > gate")).finish(LIMIT).assert_code(0);
    }

    /// `forensics diagnose`, which finds no programs but the fake ones.
    fn diagnose_with_fakes(&self, options: &[&str]) -> Command {
        let mut command = self.diagnose(options);
        command.env("PATH", self.file("bin"));
        self.among_fakes(command)
    }

    fn diagnose(&self, options: &[&str]) -> Command {
        self.incumbent([&["forensics", "diagnose", "--log", "log"], options].concat())
    }

    /// What the diagnostic by `pid` wrote, once it has ended.
    #[track_caller]
    fn diagnostic(&self, pid: u32) -> String {
        let end = format!("=== end === #{pid}, after ");
        eventually("the end of the diagnostic", LIMIT, || {
            // Read once more after the line is there: it may have been half of it.
            let ended = self.read_log().contains(&end) && is_gone(pid);
            ended.then(|| self.read_log())
        })
    }

    /// Starts a diagnostic, and returns what it wrote.
    #[track_caller]
    fn diagnosed(&self, command: Command) -> String {
        self.diagnostic(diagnostic_pid(command))
    }
}

#[track_caller]
fn diagnostic_pid(command: Command) -> u32 {
    pid_of(&Process::start(command).finish(LIMIT).assert_code(0))
}

#[track_caller]
fn pid_of(answer: &Answer) -> u32 {
    answer.out.trim().parse().unwrap_or_else(|_| panic!("no pid: {answer:#?}"))
}

fn is_gone(pid: u32) -> bool {
    Stat::of(pid).is_none_or(|stat| stat.state == 'Z')
}

/// The lines of one section.
#[track_caller]
fn section<'a>(log: &'a str, title: &str) -> Vec<&'a str> {
    let start = format!("--- {title}");
    let found: Vec<&str> = log
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .skip(1)
        .take_while(|line| !line.starts_with("---") && !line.starts_with("==="))
        .collect();
    assert!(!found.is_empty(), "no section {title:?}, or a blank one: {log}");
    found
}

#[track_caller]
fn assert_holds(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

/// FIELD-BUGS row 82.
///
/// Symptom: the first diagnostic waited for `ps` in the signal handler, three seconds of a stop. It
/// holds because whoever starts it waits for nothing, and each program gets a share of the time
/// only.
#[test]
fn a_hung_program_holds_nobody_up_and_costs_the_others_nothing() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake("ps", &format!("echo 1 0 root; {HANG}")).fake("dmesg", "echo the kernel speaks");
    let pid = diagnostic_pid(sandbox.diagnose_with_fakes(&["--timeout", "6s", "--signal", "TERM"]));
    // The one that started it has ended, and it goes on.
    assert!(!is_gone(pid));
    let log = sandbox.diagnostic(pid);
    assert_holds(
        &log,
        &[
            &format!("=== shutdown diagnostic @ SIGTERM === #{pid}\nof pid {}", std::process::id()),
            // A third of the time.
            "unavailable: ps: no answer within ",
            "it was ended\nwhat it said until then:\n1 0 root\n",
            "what we see ourselves",
            &format!("> {:>7} ", std::process::id()),
            "(1, 5, 15 min)",
            "\nthe kernel speaks\n",
            "; cut off: ps after ",
        ],
    );
    // Nor does anything stay behind: the script's own child is ended with it.
    eventually("the end of all", LIMIT, || {
        tagged("IT_SANDBOX", sandbox.path()).is_empty().then_some(())
    });
}

/// FIELD-BUGS row 83: there is no `timeout` program on macOS, and nothing was written. It holds
/// because the process counts its time itself.
#[test]
fn it_ends_when_everything_hangs() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    for name in ["ps", "dmesg", "journalctl"] {
        sandbox.fake(name, HANG);
    }
    let began = Instant::now();
    let pid = diagnostic_pid(sandbox.diagnose_with_fakes(&["--timeout", "1s"]));
    assert!(wait_ended(pid, LIMIT));
    // Far above the timeout, far below what the programs would take.
    assert_within(Duration::from_secs(15), began.elapsed(), "it");
    let log = sandbox.diagnostic(pid);
    assert_holds(
        &log,
        &["@ UNKNOWN ===", "; cut off: ps after ", ", dmesg after ", ", journalctl after "],
    );

    // So little time that there is none: a beginning, reasons, an end.
    std::fs::remove_file(sandbox.log()).unwrap();
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&["--timeout", "1ms"]));
    assert_holds(&log, &["unavailable: ", "no time was left", "=== end ==="]);
}

/// A write that hangs (a file system of a server that is gone) is in nobody's hands; the
/// watchdog's. A full pipe that nobody reads stands in for it.
#[test]
fn it_ends_when_a_write_hangs() {
    let sandbox = Sandbox::new();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    rustix::io::write(&writer, &[b'x'; 4090]).unwrap();
    let mut child = sandbox.incumbent(["__diagnostic", "300", "1"]).stdout(writer).spawn().unwrap();
    let ended = wait_ended(child.id(), LIMIT);
    child.kill().unwrap();
    assert_eq!((ended, child.wait().unwrap().code()), (true, Some(70)));
    drop(reader);
}

/// It outlives what it is about: the gateway that is killed, the terminal that is closed, the
/// supervisor that signals all it sees.
#[test]
fn it_belongs_to_nobody() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_ps_behind_gate();
    let mut shell = sandbox.shell("incumbent forensics diagnose --log log --timeout 50s; exec cat");
    let path = std::env::join_paths([
        &sandbox.file("bin"),
        Path::new(BINARY).parent().unwrap(),
        Path::new("/usr/bin"),
        Path::new("/bin"),
    ])
    .unwrap();
    shell.env("PATH", path);
    let mut shell = Process::start(sandbox.among_fakes(shell));
    let pid: u32 = shell.line().parse().unwrap();
    eventually("a session of its own", LIMIT, || (Stat::of(pid)?.session == pid).then_some(()));
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().starts_with('/'))
        .collect();
    assert!(open.contains(&sandbox.log()), "{open:?}");
    assert!(open.iter().all(|it| *it == sandbox.log() || it == Path::new("/dev/null")), "{open:?}");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        kill(pid, signal);
    }
    shell.kill();
    sandbox.open_gate();
    let log = sandbox.diagnostic(pid);
    assert_holds(&log, &["ps: the gate is open", "--- load average ---"]);
    // The subject was the shell that asked.
    assert_holds(&log, &[&format!("of pid {},", shell.pid()), "it has ended"]);
}

/// FIELD-BUGS rows 31 and 83.
///
/// Symptom: in a small image, and on macOS, every record was blank. It holds because what cannot be
/// had says why, and the process table is read without `ps`.
#[test]
fn without_programs_it_says_so_and_looks_itself() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    std::fs::create_dir(sandbox.file("bin")).unwrap();
    let me = std::process::id();
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&["--pid", &me.to_string()]));
    let processes = section(&log, "processes");
    let places = if is_root() { "the system's directories" } else { "PATH" };
    assert_eq!(processes[0], format!("unavailable: ps: not found in {places}"));
    assert_holds(processes[2], &["PID", "PPID", "UID", "CPU(s)", "RSS(KiB)", "COMMAND"]);
    let ours = processes
        .iter()
        .find(|line| line.contains("forensics_diagnose") || line.contains("/deps/it-"));
    assert!(ours.is_some(), "{processes:#?}");
    for (of, program) in [("kernel", "dmesg"), ("the user's journal", "journalctl")] {
        let missing = format!("unavailable: {program}: not found in {places}");
        assert_eq!(section(&log, of), [missing.as_str()]);
    }
    assert_holds(&section(&log, "process tree").join("\n"), &[&format!("> {me:>7} ")]);
    assert_holds(&log, &["(1, 5, 15 min)", "=== end ==="]);
}

/// The same where the programs are others than expected: busybox knows no `-A`, a kernel lets only
/// root read its messages, a `ps` of somebody's own prints what it likes.
#[test]
fn programs_that_refuse_are_quoted() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox
        .fake("ps", "echo \"ps: unrecognized option: A\" >&2; echo 'BusyBox v1.36' >&2; exit 1")
        .fake(
            "dmesg",
            "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1",
        )
        .fake("journalctl", "for n in 1 2 3; do echo entry $n; done");
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&[]));
    assert_holds(
        &log,
        &[
            "unavailable: ps: unrecognized option: A (exit status: 1)\nwhat we see ourselves",
            "unavailable: dmesg: read kernel buffer failed: Operation not permitted (exit status: 1)\n",
            "\nentry 1\nentry 2\nentry 3\n(3 of 3)\n",
        ],
    );
    sandbox.fake("ps", "echo 'PID   USER     TIME  COMMAND'; echo '    1 root      0:00 sh'");
    // One that knows no `-T` is asked without.
    sandbox.fake("dmesg", "[ $# = 0 ] || exit 1; echo plain");
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&[]));
    assert_holds(&log, &["unavailable: ps: no table of processes, but \"PID   USER ", "\nplain\n"]);
}

/// With the machine's own programs, started by one that ignores SIGCHLD, as some gateways do: then
/// the kernel keeps no exit status for anybody, and each program would seem to hang.
#[test]
fn it_works_for_who_ignores_its_children() {
    let sandbox = Sandbox::new();
    let mut shell =
        sandbox.shell("trap '' CHLD; exec incumbent forensics diagnose --log log --signal 2");
    shell.env(
        "PATH",
        std::env::join_paths([
            Path::new(BINARY).parent().unwrap(),
            Path::new("/usr/bin"),
            Path::new("/bin"),
        ])
        .unwrap(),
    );
    let log = sandbox.diagnosed(shell);
    assert!(!log.contains("cut off"), "{log}");
    assert_holds(&log, &["=== shutdown diagnostic @ SIGINT ==="]);
    let processes = section(&log, "processes");
    assert_holds(processes[0], &["%CPU", "%MEM", "ELAPSED COMMAND"]);
    assert!(processes.len() > 3, "{processes:#?}");
}

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

/// R:HIDEPID. FIELD-BUGS rows 31 and 83: what is hidden says why.
#[test]
fn what_is_hidden_says_why() {
    let Some(words) = nobody_with_hidepid() else {
        return skipped("needs root, and leave to mount /proc");
    };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let mut command = sandbox.within(words);
    command.arg(&binary);
    command.args(["forensics", "diagnose", "--log", "log", "--pid", "1"]);
    let log = sandbox.diagnosed(command);
    let processes = section(&log, "processes").join("\n");
    assert_holds(&processes, &["hidepid=", "processes of other users may be hidden)"]);
    let tree = section(&log, "process tree of pid 1").join("\n");
    assert_holds(&tree, &["unavailable: pid 1: /proc is mounted with hidepid="]);
}

/// Inside a `run` the subject is that run; a store that is no store keeps nobody from looking.
#[test]
fn the_subject_is_the_run_we_are_in() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake("ps", "").fake("dmesg", "");
    let script = format!("PATH=bin {BINARY} forensics diagnose --log log; exec cat");
    let mut run =
        Process::start(sandbox.incumbent(["run", "--no-backoff", "--", "/bin/sh", "-c", &script]));
    let pid = run.line().parse().unwrap();
    let log = sandbox.diagnostic(pid);
    assert_holds(
        &log,
        &[&format!("of pid {}, written by pid {pid}", run.pid()), &format!("> {:>7} ", run.pid())],
    );
    run.finish(LIMIT).assert_code(0);

    std::fs::write(sandbox.db(), "no store").unwrap();
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&[]));
    assert_holds(&log, &[&format!("of pid {},", std::process::id())]);
}

/// Symptom: where the store could not be read, the lines of the kernel and of the journal were shown anyway,
/// with whatever is locked in them. It holds because nobody knows then what is not to be shown, and it says so.
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

/// Plays a gateway that links the library.
#[test]
fn role_of_a_stopping_gateway() {
    if !plays("gateway") {
        return;
    }
    while let Some(order) = order() {
        let diagnostic = Diagnostic::new("log").signal(15).timeout(Duration::from_secs(50));
        let started = match order.as_str() {
            "named" => diagnostic.program(BINARY).start(),
            "missing" => diagnostic.program("/nowhere/incumbent").start(),
            _ => diagnostic.start(),
        };
        match started {
            Ok(pid) => eprintln!("=> {pid}"),
            Err(error) => eprintln!("=> {:?} {error}; {:?}", error.kind(), error.hint()),
        }
    }
}

fn gateway(sandbox: &Sandbox, path: &Path, program: Option<&str>) -> Process {
    let mut command = sandbox.role_command(test_name!(role_of_a_stopping_gateway), "gateway");
    command.env("PATH", path);
    if let Some(program) = program {
        command.env("INCUMBENT_PROGRAM", program);
    }
    Process::start(sandbox.among_fakes(command))
}

/// A gateway that lives on keeps no zombie of it; one that is killed does not take it along.
#[test]
fn a_gateway_that_links_the_crate_starts_one() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_ps_behind_gate();
    let mut gateway = gateway(&sandbox, &sandbox.file("bin"), None);
    let mut ask = |order: &str| crate::support::ask(&mut gateway, order);
    let answer = ask("named");
    // The answer is here, and what it looks at hangs.
    let pid: u32 = answer.parse().unwrap();
    assert!(!is_gone(pid));
    sandbox.open_gate();
    assert_holds(&sandbox.diagnostic(pid), &["@ SIGTERM === #", "ps: the gate is open"]);
    eventually("no zombie", LIMIT, || Stat::of(pid).is_none().then_some(()));

    let answer = ask("missing");
    assert_holds(&answer, &["InvalidInput cannot start /nowhere/incumbent", "Diagnostic::program"]);
    let answer = ask("found");
    assert_holds(
        &answer,
        &["InvalidInput", "neither beside this program nor in PATH", "INCUMBENT_PROGRAM"],
    );

    let second: u32 = ask("named").parse().unwrap();
    let identity = Identity::of(second).unwrap();
    gateway.kill();
    assert!(!identity.is_gone());
    sandbox.open_gate();
    sandbox.diagnostic(second);
}

/// The program is found by name: in the environment, or in PATH.
#[test]
fn the_program_is_found() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake("ps", "").fake("dmesg", "");
    let mut named = gateway(&sandbox, &sandbox.file("bin"), Some(BINARY));
    let answer = crate::support::ask(&mut named, "found");
    sandbox.diagnostic(answer.parse().unwrap());
    std::os::unix::fs::symlink(BINARY, sandbox.file("bin/incumbent")).unwrap();
    let mut in_path = gateway(&sandbox, &sandbox.file("bin"), None);
    let answer = crate::support::ask(&mut in_path, "found");
    let log = sandbox.diagnostic(answer.parse().unwrap());
    assert_holds(
        &log,
        &[&format!("of pid {},", named.pid()), &format!("of pid {},", in_path.pid())],
    );
}

/// What is wrong with the request is told before anything is started.
#[test]
fn the_crate_refuses_what_cannot_be() {
    let sandbox = Sandbox::new();
    let diagnostic = Diagnostic::new(sandbox.log()).program(BINARY);
    for timeout in [Duration::ZERO, Duration::from_secs(61), Duration::MAX] {
        let error = diagnostic.clone().timeout(timeout).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let error = Diagnostic::new("").program(BINARY).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!sandbox.log().exists());
}
