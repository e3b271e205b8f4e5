//! No secret of a command line or a script is kept or said.

use super::gateway::{GATEWAY, ROLE_TEST, next_report};
use super::left::listening;
use crate::support::{Answer, LIMIT, Process, Sandbox, ask};

/// The arguments of a process that is started with its secrets on its command line, and these.
fn with_secrets(who: &str) -> (Vec<String>, Vec<String>) {
    let secrets: Vec<String> =
        ["1st", "2nd", "3rd", "4th"].iter().map(|place| format!("hunter2-{who}-{place}")).collect();
    let arguments = vec![
        format!("--token={}", secrets[0]),
        "--api-key".to_owned(),
        secrets[1].clone(),
        format!("https://user:{}@host.example/path", secrets[2]),
        format!("DB_PASSWORD={}", secrets[3]),
    ];
    (arguments, secrets)
}

#[track_caller]
fn assert_holds_none(what: &str, bytes: &[u8], secrets: &[String]) {
    for secret in secrets {
        let at = bytes.windows(secret.len()).position(|it| it == secret.as_bytes());
        let around = at.map(|at| {
            let (from, to) = (at.saturating_sub(200), (at + 100).min(bytes.len()));
            String::from_utf8_lossy(&bytes[from..to]).into_owned()
        });
        assert!(around.is_none(), "{secret} is in {what}: {around:?}");
    }
}

/// FIELD-BUGS row 87, invariant 8: the command lines of the gateway, of its parent and of whoever
/// signals it are kept, and what is secret in them is not.
#[test]
fn no_secret_of_any_command_line_is_kept_or_said() {
    let sandbox = Sandbox::new();
    let (of_gateway, mut secrets) = with_secrets("gateway");
    let (of_sender, more) = with_secrets("sender");
    secrets.extend(more);
    let sender_arguments: Vec<&str> = of_sender.iter().map(String::as_str).collect();
    let mut deployer = sandbox.deployer_with(&sender_arguments);
    let check = |what: &str, answer: &Answer| {
        assert_holds_none(what, answer.out.as_bytes(), &secrets);
        assert_holds_none(what, answer.err.as_bytes(), &secrets);
    };

    // A shell starts the run, and stays its parent; its own arguments become those of the gateway.
    let script = "incumbent run --no-backoff -- /bin/sh gateway.sh \"$@\" & echo $!
        wait $!; code=$?
        incumbent --json forensics snapshot --signal 15 > snapshot.json
        incumbent forensics snapshot --signal 15 > snapshot.txt
        exit $code";
    std::fs::write(sandbox.file("parent.sh"), script).unwrap();
    std::fs::write(sandbox.file("gateway.sh"), "exec 0<&-; echo up $$; exec sleep 1000").unwrap();
    let mut command = sandbox.program("/bin/sh");
    command.arg("parent.sh").args(&of_gateway);
    let mut parent = Process::start(command);
    let run: u32 = parent.line().trim().parse().unwrap();
    parent.line_with("up ");
    deployer.send("TERM", run);
    let answer = parent.finish_with_stdin_open(LIMIT).assert_code(143);
    assert!(answer.err.contains("sender_cmdline=\"/bin/sh deploy.sh"), "{answer:#?}");
    assert!(answer.err.contains("<redacted>"), "{answer:#?}");
    check("what run said", &answer);
    for name in ["snapshot.json", "snapshot.txt"] {
        let said = std::fs::read(sandbox.file(name)).unwrap();
        assert!(!said.is_empty());
        assert_holds_none(name, &said, &secrets);
    }

    // A gateway that links the library; the test's harness takes words that are no options.
    let mut command = sandbox.role_command(ROLE_TEST, GATEWAY);
    command.args(of_gateway.iter().filter(|word| !word.starts_with('-') && word.contains('=')));
    command.args(of_gateway.iter().filter(|word| word.contains("://")));
    let mut gateway = listening(Process::start(command));
    deployer.send("TERM", gateway.pid());
    let report = next_report(&mut gateway);
    let itself = report["snapshot"]["self"]["cmdline"].as_str().unwrap();
    assert!(itself.contains("DB_PASSWORD=<redacted>"), "{itself}");
    assert_holds_none("the report", report.to_string().as_bytes(), &secrets);
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    drop(gateway);

    for verb in [
        &["history"][..],
        &["status"],
        &["events"],
        &["sql", "SELECT * FROM shutdowns"],
        &["sql", "SELECT * FROM instances"],
    ] {
        for json in [&[][..], &["--json"]] {
            check(verb[0], &sandbox.cli([json, verb].concat()));
        }
    }
    for suffix in ["", "-wal", "-shm"] {
        if let Ok(bytes) = std::fs::read(sandbox.sidecar(suffix)) {
            assert_holds_none(&format!("state.db{suffix}"), &bytes, &secrets);
        }
    }
    assert!(sandbox.shutdown_rows() >= 4, "{}", sandbox.shutdown_rows());
}

/// The same where the secret is no argument, but a word of a script that is one: `sh -c '...'`, as
/// supervisors, cron and containers start a gateway.
#[test]
fn no_secret_of_a_script_is_kept_or_said() {
    let secret = "hunter2-in-a-script".to_owned();
    let mut leaks = Vec::new();
    for way in [
        "--token=SECRET",
        "'--token=SECRET'",
        "--token SECRET",
        "--api-key SECRET",
        "--verbose=1 --api-key=SECRET",
        "--url=http://host:80/ --token SECRET",
        "A=1 DB_PASSWORD=SECRET",
        "'https://user:SECRET@host.example/path'",
        "-H 'Authorization: Bearer SECRET'",
    ] {
        let sandbox = Sandbox::new();
        let gateway = way.replace("SECRET", &secret);
        let script = format!(
            ": {gateway}; incumbent run --no-backoff -- /bin/sh -c 'echo $$; exec cat'; exit $?"
        );
        let mut parent = Process::start(sandbox.shell(&script));
        parent.line();
        let run = u32::try_from(sandbox.status().1["pid"].as_u64().unwrap()).unwrap();
        let sending = format!(": {gateway}; kill -TERM {run}; read -r wait");
        let sender = Process::start(sandbox.shell(&sending));
        let answer = parent.finish_with_stdin_open(LIMIT).assert_code(143);
        sender.finish(LIMIT);
        let stored =
            [sandbox.db(), sandbox.sidecar("-wal")].map(|path| std::fs::read(path).unwrap());
        let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|it| it == secret.as_bytes());
        if holds(answer.err.as_bytes()) || stored.iter().any(|bytes| holds(bytes)) {
            leaks.push(way);
        }
    }
    assert!(leaks.is_empty(), "kept or said: {leaks:#?}");
}

/// Invariant 8. A locked identity that stands as a plain word in a command line, where nothing says
/// that it is secret: in that of the command, of whoever started the run, and of whoever ends it.
/// They were kept as they are. It holds because the hashes of all that is locked are known.
#[test]
fn no_locked_identity_of_any_command_line_is_kept_or_said() {
    const IDENTITY: &str = "zebra-quartz";
    let sandbox = Sandbox::new();
    let script = format!(
        ": {IDENTITY}; incumbent run --no-backoff --lock-env token=IT_BOT -- \
         /bin/sh -c 'echo $$; read -r wait; : {IDENTITY}' {IDENTITY}; exit $?"
    );
    let mut command = sandbox.shell(&script);
    command.env("IT_BOT", IDENTITY);
    let mut parent = Process::start(command);
    parent.line();
    let run = u32::try_from(sandbox.status().1["pid"].as_u64().unwrap()).unwrap();
    let sending = format!(": {IDENTITY}; kill -TERM {run}; read -r wait; : '{IDENTITY}'");
    let sender = Process::start(sandbox.shell(&sending));
    let answer = parent.finish_with_stdin_open(LIMIT).assert_code(143);
    assert!(answer.err.contains("signal=SIGTERM"), "{answer:#?}");
    let mut leaks = Vec::new();
    let mut look = |what: String, bytes: &[u8]| {
        if bytes.windows(IDENTITY.len()).any(|it| it == IDENTITY.as_bytes()) {
            leaks.push(what);
        }
    };
    look("what run said".to_owned(), answer.err.as_bytes());
    sender.finish(LIMIT);
    assert_eq!(sandbox.shutdown_rows(), 1);
    for table in ["shutdowns", "instances", "events", "scoped_locks", "markers"] {
        let query = format!("SELECT * FROM {table}");
        let (code, rows) = sandbox.json(["sql", &query]);
        assert_eq!(code, 0, "{rows:#}");
        for row in rows.as_array().unwrap() {
            for (column, value) in row.as_object().unwrap() {
                look(format!("{table}.{column}: {value}"), value.to_string().as_bytes());
            }
        }
    }
    for verb in ["history", "status", "events", "locks"] {
        for words in [vec![verb], vec!["--json", verb]] {
            let answer = sandbox.cli(&words);
            look(format!("{words:?}"), format!("{}{}", answer.out, answer.err).as_bytes());
        }
    }
    for suffix in ["", "-wal"] {
        if let Ok(bytes) = std::fs::read(sandbox.sidecar(suffix)) {
            look(format!("state.db{suffix}"), &bytes);
        }
    }
    assert!(leaks.is_empty(), "{IDENTITY} is kept or said: {leaks:#?}");
}
