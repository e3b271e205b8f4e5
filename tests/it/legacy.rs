//! The files of an older gateway program, and real processes that lock and read them as it does.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::older::Older;
use crate::support::{
    HOLDING, LIMIT, Process, Sandbox, Stat, eventually, is_root, kill, pid_namespace, skipped,
};

/// Symptom: after the switch to the new program, the old unit file still started the old gateway, and both
/// polled the same bot. It holds because the lock that the old one takes anyway is looked at by every
/// start, and whoever has it is put on record.
#[test]
fn an_older_gateway_keeps_a_new_one_out() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut first = older.gateway();
    let holder = older.refused();
    assert_eq!(holder["pid"], first.pid(), "{holder:#}");
    assert_eq!(holder["reason"], "anchor_held", "{holder:#}");

    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], first.pid(), "{status:#}");
    assert_eq!(status["flags"], json!([]), "{status:#}");
    assert_eq!(status["evidence"]["start_time"], "equal", "{status:#}");
    assert!(!status.to_string().contains("s3cret"), "{status:#}");
    // From now on every claim of the profile looks, whether or not it says so.
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    sandbox.cli(["claim"]).assert_code(75);

    // It restarts with another pid, and nobody has asked in between.
    first.kill();
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let mut second = older.gateway();
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], second.pid(), "{status:#}");
    let holder = older.refused();
    assert_eq!(holder["pid"], second.pid(), "{holder:#}");
    let history = sandbox.history();
    assert_eq!(history.len(), 2, "{history:#?}");
    assert_eq!(history[1]["pid"], first.pid(), "{history:#?}");
    assert_eq!(history[1]["end_reason"], "anchor_released", "{history:#?}");

    second.kill();
    sandbox.assert_status(3, "dead", "anchor_released");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    assert_eq!(sandbox.history().len(), 3);
}

/// The other direction: the older program finds our `run`, and takes neither its place nor its files away.
#[test]
fn the_older_program_respects_a_new_one() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut run = older.hold();
    for _ in 0..3 {
        assert_eq!(older.running(), run.pid().to_string());
    }
    let refused = older.start("gateway").finish(LIMIT).assert_code(1);
    assert_eq!(refused.out, "refused\n");
    let record = older.read("gateway.lock");
    assert_eq!(record, older.read("gateway.pid"));
    assert_eq!(record["pid"], run.pid());
    assert_eq!(record["kind"], "hermes-gateway");
    assert_eq!(record["start_time"], Stat::of(run.pid()).unwrap().start_time);
    assert_eq!(record["argv"].as_array().unwrap()[..2], ["hermes", "gateway"], "{record:#}");
    // A second start of our own meets the office, not the lock.
    assert_eq!(older.refused()["pid"], run.pid());
    assert_eq!(sandbox.history().len(), 1);

    run.kill();
    run.command.wait_gone(LIMIT);
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let mut gateway = older.gateway();
    assert_eq!(older.running(), gateway.pid().to_string());
    gateway.close_stdin();
    gateway.wait(LIMIT);

    // A peaceful end leaves the lock file, which others may have open, and nothing else.
    let run = older.hold();
    run.end().assert_code(0);
    assert!(!older.file("gateway.pid").exists());
    assert!(older.file("gateway.lock").exists());
    assert_eq!(older.running(), "None");
}

/// The older program removes both files where it takes their owner for dead, and anybody may tidy up: a lock
/// on a file that no path leads to keeps nobody out.
#[test]
fn a_lock_file_that_was_removed_is_made_anew_or_the_office_is_lost() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut run = older.hold();
    std::fs::remove_file(older.file("gateway.lock")).unwrap();
    run.process.err_line_with("created and locked again");
    assert_eq!(older.running(), run.pid().to_string());

    // Faster than we look: an older gateway makes and locks a new file.
    run.process.signal(Signal::STOP);
    crate::support::wait_stopped(run.pid());
    std::fs::remove_file(older.file("gateway.lock")).unwrap();
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let gateway = older.gateway();
    run.process.signal(Signal::CONT);
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    let words = format!("was replaced, and pid {} holds it", gateway.pid());
    answer.assert_complains(&["was lost", &words]);
    assert!(run.command.is_gone());
    assert_eq!(older.read("gateway.pid")["pid"], gateway.pid());
    assert_eq!(older.refused()["pid"], gateway.pid());
}

/// `run --replace` and `stop` work on an older gateway as on any holder: asked by a signal on its proven
/// process, waited for, and nobody else gets in between.
#[test]
fn an_older_gateway_is_replaced_and_stopped() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gateway = older.gateway();
    let run = sandbox.hold(&["--replace", "--legacy-home", older.home()]);
    gateway.wait(LIMIT);
    assert_eq!(older.running(), run.pid().to_string());
    run.end().assert_code(0);
    let history = sandbox.history();
    assert_eq!(history[1]["pid"], gateway.pid(), "{history:#?}");
    assert_eq!(history[1]["end_reason"], "taken_over", "{history:#?}");

    let mut gateway = older.gateway();
    older.refused();
    sandbox.cli(["stop"]).assert_code(0);
    gateway.wait(LIMIT);
    let history = sandbox.history();
    assert_eq!(history[0]["end_reason"], "planned_stop", "{history:#?}");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// `--wait` follows the older gateway's end by the kernel's word.
#[test]
fn a_start_waits_for_an_older_gateway() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gateway = older.gateway();
    older.refused();
    let options = ["run", "--no-backoff", "--wait", "--legacy-home", older.home()];
    let mut waiting = Process::start(sandbox.incumbent([&options[..], HOLDING].concat()));
    eventually("somebody waits", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM waiters") == 1).then_some(())
    });
    gateway.kill();
    waiting.line();
    assert_eq!(sandbox.status().1["pid"], waiting.pid());
    waiting.finish(LIMIT).assert_code(0);
}

/// A person's way out where something else holds that lock for ever.
#[test]
fn an_eviction_forgets_the_directory() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let gateway = older.gateway();
    older.refused();
    sandbox.cli(["evict"]).assert_code(75);
    let (code, document) = sandbox.json(["evict", "--force"]);
    assert_eq!(code, 0, "{document:#}");
    assert_eq!(document["evicted"]["pid"], gateway.pid(), "{document:#}");
    assert_eq!(document["evicted"]["legacy_home"], older.home(), "{document:#}");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let events = "SELECT count(*) FROM events WHERE event = 'legacy_home_forgotten'";
    assert_eq!(sandbox.number(events), 1);

    // The same where nobody could be put on record, because the lock cannot be looked at.
    drop(gateway);
    older.hold().end().assert_code(0);
    std::fs::remove_file(older.file("gateway.lock")).unwrap();
    std::os::unix::fs::symlink("/dev/null", older.file("gateway.lock")).unwrap();
    let answer = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(78);
    answer.assert_complains(&["cannot be looked at", "older gateway", "evict --force"]);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// What the directory may be.
#[test]
fn a_directory_that_cannot_be_meant_is_refused() {
    let sandbox = Sandbox::new();
    let run = |options: &[&str]| {
        sandbox.cli([&["run", "--no-backoff"], options, &["--", "true"]].concat())
    };
    run(&["--legacy-home", "nowhere"]).assert_code(2).assert_complains(&["no directory"]);
    run(&["--legacy-home", "/etc/passwd"]).assert_code(2).assert_complains(&["not a directory"]);
    std::fs::create_dir(sandbox.file("one")).unwrap();
    std::fs::create_dir(sandbox.file("two")).unwrap();
    run(&["--legacy-home", "one", "--kind", "cron"]).assert_code(2).assert_complains(&["--kind"]);
    assert!(!sandbox.db().exists());
    run(&["--legacy-home", "one"]).assert_code(0);
    run(&["--legacy-home", "two"]).assert_code(2).assert_complains(&["stands for", "--profile"]);
    run(&["--legacy-home", "two", "--profile", "other"]).assert_code(0);
    // A directory that is gone stands for nobody.
    std::fs::remove_dir_all(sandbox.file("one")).unwrap();
    run(&["--legacy-home", "two"]).assert_code(0);
}

/// The lock is the kernel's, whatever namespace its holder counts its pids in.
#[test]
fn an_older_gateway_in_another_container_keeps_us_out() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut command = sandbox.within(namespace);
    command.args(["python3", "older.py", "gateway", older.home()]);
    let mut contained = Process::start(command);
    assert_eq!(contained.line(), "1");
    let holder = older.refused();
    let pid = u32::try_from(holder["pid"].as_u64().unwrap()).unwrap();
    assert_eq!(Stat::of(pid).unwrap().parent, contained.pid(), "{holder:#}");
    sandbox.assert_status(0, "alive", "anchor_held");

    // And seen from a container, whose list leaves others out.
    let mut command = sandbox.within(namespace);
    command.args([crate::support::BINARY, "run", "--", "true"]);
    Process::start(command).finish(LIMIT).assert_code(75);
    kill(pid, Signal::KILL);
    contained.wait(LIMIT);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// The older program asks for the lock to know whether it is held. Questions of ours, were they to ask in
/// the same way, would look like a gateway to it.
#[test]
fn questions_never_touch_the_lock() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gateway = older.gateway();
    older.refused();
    gateway.kill();
    let mut attempts = older.start("attempts");
    assert_eq!(attempts.line(), "ready");
    for _ in 0..25 {
        // Who asks in the very moment of such an attempt may find the lock held, for that moment.
        sandbox.cli(["status"]);
        sandbox.cli(["status", "--all"]).assert_code(0);
        sandbox.cli(["locks"]).assert_code(0);
        sandbox.cli(["history"]).assert_code(0);
    }
    assert_eq!(attempts.finish(LIMIT).out, "ready\n0\n");
}

/// Files of every shape that was met, by whoever left them: none is fatal, and none is touched.
#[test]
fn files_of_every_shape_are_imported_with_the_right_verdict() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let stranger = Process::start(sandbox.shell("exec sleep 1000"));
    let mut ended = Process::start(sandbox.shell("true"));
    ended.wait(LIMIT);
    let ended = ended.pid();
    let (code, document) = sandbox.json(["import", older.home()]);
    assert_eq!((code, &document), (0, &json!([])), "{document:#}");
    assert!(!sandbox.db().exists());

    for (shape, pid, expected) in [
        ("json", ended, "stale no_such_process"),
        ("bare", ended, "stale no_such_process"),
        ("bom", ended, "stale no_such_process"),
        ("null", ended, "stale no_such_process"),
        ("recycled", stranger.pid(), "stale pid_reused"),
        ("null", stranger.pid(), "stale identity_mismatch"),
        ("empty", 1, "corrupt corrupt"),
        ("truncated", 1, "corrupt corrupt"),
        ("list", 1, "corrupt corrupt"),
        ("garbage", 1, "corrupt corrupt"),
    ] {
        older.write("gateway.pid", shape, pid);
        let before = std::fs::read(older.file("gateway.pid")).unwrap();
        older.assert_import(0, &[&format!("gateway.pid {expected}")]);
        assert_eq!(std::fs::read(older.file("gateway.pid")).unwrap(), before);
    }
    sandbox.assert_status(3, "dead", "never_claimed");

    // With a lock file the kernel's word about that decides, whatever the numbers say.
    older.write("gateway.pid", "json", stranger.pid());
    older.write("gateway.lock", "json", stranger.pid());
    let released = ["gateway.lock stale anchor_released", "gateway.pid stale anchor_released"];
    older.assert_import(0, &released);
    older.write("gateway.lock", "garbage", 1);
    older.assert_import(0, &["gateway.lock corrupt corrupt", released[1]]);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let answer = sandbox.cli(["import", older.home()]).assert_code(0);
    assert!(answer.out.contains("corrupt   corrupt, it is no UTF-8"), "{answer:#?}");

    // Neither a FIFO nor a link is waited for or followed.
    std::fs::remove_file(older.file("gateway.lock")).unwrap();
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(older.file("gateway.pid")).status();
    assert!(made.unwrap().success());
    std::os::unix::fs::symlink("/etc/passwd", older.file("gateway_state.json")).unwrap();
    let unreadable = ["gateway.pid unknown unreadable", "gateway_state.json unknown unreadable"];
    older.assert_import(0, &unreadable);
    sandbox.cli(["import", "nowhere"]).assert_code(2);
}

/// The oldest gateways had no lock file: their process decides.
#[test]
fn a_gateway_without_a_lock_file_is_known_by_its_process() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gateway = Process::start(sandbox.shell("exec sleep 1000"));
    older.write("gateway.pid", "json", gateway.pid());
    older.assert_import(0, &["gateway.pid live start_time_matches"]);
    let status = sandbox.assert_status(0, "alive", "start_time_matches");
    assert_eq!(status["pid"], gateway.pid(), "{status:#}");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    gateway.kill();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);

    // A bare number is of whoever has that pid now: a program in none of the older one's forms is another.
    let stranger = Process::start(sandbox.shell("exec sleep 1000"));
    older.write("gateway.pid", "bare", stranger.pid());
    older.assert_import(0, &["gateway.pid stale identity_mismatch"]);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    // In one of the forms that the older program has, it is known by that, and from then on by its start.
    let named = older.named();
    for shape in ["null", "bare"] {
        older.write("gateway.pid", shape, named.pid());
        older.assert_import(0, &["gateway.pid live command_line_matches"]);
    }
    sandbox.assert_status(0, "alive", "start_time_matches");
}

/// A live gateway with everything that it leaves: it keeps its office, its tokens, and its last words.
#[test]
fn a_live_gateway_is_imported_with_its_locks_its_status_and_its_markers() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gateway = older.gateway();
    let pid = gateway.pid();
    std::fs::create_dir(older.locks()).unwrap();
    let lock_file = older.locks().join("telegram-bot-token-210fd51512083fab.lock");
    older.write_at(&lock_file, &["lock", &pid.to_string()]);
    let other = Process::start(sandbox.shell("exec sleep 1000"));
    let other_file = older.locks().join("other.lock");
    let arguments = ["lock", &other.pid().to_string(), "0123456789abcdef"];
    older.write_at(&other_file, &arguments);
    older.write_at(&older.locks().join("scope.lock"), &["bad-scope", &pid.to_string()]);
    older.write("gateway_state.json", "status", pid);
    older.write(".gateway-takeover.json", "old", pid);
    older.write(".gateway-planned-stop.json", "fresh", pid);
    let gateways = [
        ".gateway-planned-stop.json imported of_the_process",
        ".gateway-takeover.json stale expired",
        "gateway.lock live anchor_held",
        "gateway.pid live anchor_held",
        "gateway_state.json imported of_the_gateway",
    ];
    let locks = [
        "other.lock live start_time_matches",
        "scope.lock corrupt corrupt",
        "telegram-bot-token-210fd51512083fab.lock live of_the_gateway",
    ];
    older.assert_import(0, &[&gateways[..], &locks[..]].concat());

    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], pid, "{status:#}");
    assert_eq!(status["state"], "running", "{status:#}");
    assert_eq!(status["busy"], true, "{status:#}");
    let telegram = &status["platforms"]["telegram"];
    assert_eq!(telegram["error_code"], "409", "{status:#}");
    assert!(!status.to_string().contains("AAEhBP0av28"), "{status:#}");
    assert_eq!(status["platforms"].as_object().unwrap().len(), 2, "{status:#}");
    assert_eq!(status["locks"][0]["identity_hash"], "210fd51512083fab", "{status:#}");
    assert_eq!(status["markers"][0]["name"], "planned_stop", "{status:#}");
    // It asks for nothing: nobody waits for it.
    let acquire = ["lock", "acquire", "telegram-bot-token", "123456:secret"];
    sandbox.cli(acquire).assert_code(75);
    assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 2);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);

    // What is gone is let go, of what an import took.
    std::fs::remove_file(&other_file).unwrap();
    older.assert_import(0, &[&gateways[..], &locks[1..]].concat());
    assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 1);

    gateway.kill();
    sandbox.cli(acquire).assert_code(0);
    sandbox.assert_status(3, "dead", "planned_stop");
}

/// The last words of a gateway that nobody had met while it lived.
#[test]
fn the_status_of_a_dead_gateway_is_kept() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut ended = Process::start(sandbox.shell("true"));
    ended.wait(LIMIT);
    older.write("gateway_state.json", "status", ended.pid());
    older.write(".gateway-takeover.json", "fresh", ended.pid());
    older.write(".gateway-planned-stop.json", "future", std::process::id());
    let expected = [
        ".gateway-planned-stop.json stale of_the_future",
        ".gateway-takeover.json stale no_such_process",
        "gateway_state.json imported no_such_process",
    ];
    older.assert_import(0, &expected);
    let history = sandbox.history();
    assert_eq!(history.len(), 1, "{history:#?}");
    assert_eq!(history[0]["end_reason"], "no_such_process", "{history:#?}");
    let status = sandbox.assert_status(3, "dead", "no_such_process");
    assert_eq!(status["platforms"]["telegram"]["error_code"], "409", "{status:#}");
    assert_eq!(status["runtime"]["last_state"], "running", "{status:#}");
    older.write(".gateway-takeover.json", "timeless", std::process::id());
    let rows = older.import_with_code(0);
    assert_eq!(rows[1], ".gateway-takeover.json stale no_time");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// Two act for one office or one token: that is said, and nobody is evicted for it.
#[test]
fn two_owners_are_a_conflict() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let lock = ["--lock", "telegram-bot-token=123456:secret"];
    let run = sandbox.hold(&lock);
    let gateway = older.gateway();
    std::fs::create_dir(older.locks()).unwrap();
    older.write_at(&older.locks().join("a.lock"), &["lock", &gateway.pid().to_string()]);
    let rows = ["a.lock live start_time_matches"];
    let files = ["gateway.lock live anchor_held", "gateway.pid live anchor_held"];
    older.assert_import(75, &[&files[..], &rows[..]].concat());
    assert_eq!(sandbox.status().1["pid"], run.pid());
    let answer = sandbox.cli(["import", older.home()]).assert_code(75);
    assert!(
        answer.out.contains(&format!("pid {} holds default/gateway", run.pid())),
        "{answer:#?}"
    );
    run.end().assert_code(0);
    older.assert_import(0, &[&files[..], &["a.lock live of_the_gateway"]].concat());
    assert_eq!(sandbox.status().1["pid"], gateway.pid());
}

/// What is exported is what the older program writes and reads, byte for byte where it matters, and an
/// import of it finds the same.
#[test]
fn an_export_has_the_shapes_of_the_older_program() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let export = |code: i32| {
        let (got, document) = sandbox.json(["export", older.home()]);
        assert_eq!(got, code, "{document:#}");
        let rows = document.as_array().cloned().unwrap_or_default();
        let name = |row: &Value| {
            let file = row["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            format!("{file} {}", row["verdict"].as_str().unwrap())
        };
        rows.iter().map(name).collect::<Vec<_>>()
    };
    sandbox.cli(["export", older.home()]).assert_code(2).assert_complains(&["no store"]);
    let script = "incumbent status-set --state running --active-agents 3 --platform telegram \
        --platform-state fatal --error-code 409; echo $$; exec cat";
    let lock = ["--lock", "telegram-bot-token=123456:secret", "--metadata", "{\"a\": 1}"];
    let command = ["--", "/bin/sh", "-c", script];
    let arguments = [&["run", "--no-backoff"], &lock[..], &command[..]].concat();
    let mut run = Process::start(sandbox.incumbent(arguments));
    let pid = run.pid().to_string();
    while run.line().parse::<u32>().is_err() {}
    sandbox.cli(["marker", "write", "planned_stop", "--pid", &pid]).assert_code(0);
    let expected = [
        "gateway.lock written",
        "gateway.pid written",
        "gateway_state.json written",
        "telegram-bot-token-210fd51512083fab.lock written",
        ".gateway-planned-stop.json written",
    ];
    assert_eq!(export(0), expected);
    let record = older.read("gateway.pid");
    let keys = |document: &Value| {
        document.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(&record), "pid kind argv start_time");
    assert_eq!(record["pid"], run.pid());
    assert_eq!(record["start_time"], Stat::of(run.pid()).unwrap().start_time);
    let status = older.read("gateway_state.json");
    let fields = "gateway_state exit_reason restart_requested active_agents platforms updated_at";
    assert_eq!(keys(&status), format!("pid kind argv start_time {fields}"));
    assert_eq!(
        (&status["gateway_state"], &status["active_agents"]),
        (&json!("running"), &json!(3))
    );
    let telegram = &status["platforms"]["telegram"];
    assert_eq!(keys(telegram), "state error_code error_message updated_at");
    assert!(status["updated_at"].as_str().unwrap().ends_with("+00:00"), "{status:#}");
    let lock = older.read("gateway-locks/telegram-bot-token-210fd51512083fab.lock");
    assert_eq!(lock["metadata"], json!({"a": 1}), "{lock:#}");
    assert!(!lock.to_string().contains("secret"), "{lock:#}");
    let marker = older.read(".gateway-planned-stop.json");
    assert_eq!(keys(&marker), "target_pid target_start_time stopper_pid written_at");
    for name in ["gateway.pid", "gateway.lock", "gateway_state.json"] {
        use std::os::unix::fs::MetadataExt;
        let facts = std::fs::metadata(older.file(name)).unwrap();
        assert_eq!(facts.mode() & 0o777, 0o600, "{name}");
    }

    // Never over a lock file that is there.
    assert_eq!(export(0)[0], "gateway.lock left");
    // It is not held: without `--legacy-home` the older program is not kept out.
    assert_eq!(older.running(), "None");

    // Round trip into another store.
    assert_eq!(export(0), expected);
    let elsewhere = sandbox.file("elsewhere.db");
    let locks = older.file("gateway-locks");
    let mut import = sandbox.incumbent(["--json", "import", older.home(), "--lock-dir"]);
    import.arg(locks).env("INCUMBENT_DB", &elsewhere);
    let rows = Process::start(import).finish(LIMIT).assert_code(0).json();
    let verdicts: Vec<_> = rows.as_array().unwrap().iter().map(|row| &row["verdict"]).collect();
    // The lock file is not locked, and the kernel's word about that comes first.
    assert_eq!(verdicts, ["imported", "live", "stale", "stale", "live"], "{rows:#}");

    run.finish(LIMIT).assert_code(0);
    assert_eq!(export(0), ["gateway.lock left", "gateway.pid left", "gateway_state.json written"]);
    assert_eq!(older.read("gateway_state.json")["gateway_state"], "stopped");

    // The files of an older gateway that lives are its own.
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let gateway = older.gateway();
    let before = older.read("gateway_state.json");
    let answer = sandbox.cli(["export", older.home()]).assert_code(75);
    let holder = format!("pid {}", gateway.pid());
    answer.assert_complains(&["nothing was written", "older gateway", &holder]);
    assert_eq!(older.read("gateway_state.json"), before);
}

/// A store that is deleted under a `run` is made anew by it. Its own lock on the older program's file must
/// not look like an older gateway to that claim.
#[test]
fn a_run_goes_on_in_a_new_store_beside_its_own_lock() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut run = older.hold();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        std::fs::remove_file(sandbox.file("store").join(name)).unwrap();
    }
    run.process.err_line_with("is claimed again in the new one");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], run.pid(), "{status:#}");
    assert_eq!(older.running(), run.pid().to_string());
    // The new store knows of the directory, too: what holds its lock after us is met by every claim.
    run.end().assert_code(0);
    let gateway = older.gateway();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    assert_eq!(sandbox.status().1["pid"], gateway.pid());
}

/// `import` is for one directory of one profile.
#[test]
fn an_import_binds_the_profile_to_its_directory() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gateway = older.gateway();
    sandbox.cli(["import", older.home()]).assert_code(0);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], gateway.pid(), "{status:#}");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    sandbox.cli(["import", older.home(), "--kind", "cron"]).assert_code(2);
    std::fs::create_dir(sandbox.file("other")).unwrap();
    std::fs::write(sandbox.file("other/gateway.pid"), "1").unwrap();
    let answer = sandbox.cli(["import", "other"]).assert_code(2);
    answer.assert_complains(&["stands for the older gateway of", "--profile"]);
    gateway.kill();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    // It starts again, and nobody imports that.
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let again = older.gateway();
    let holder = sandbox.json(["run", "--no-backoff", "--", "true"]);
    assert_eq!((holder.0, &holder.1["holder"]["pid"]), (75, &json!(again.pid())), "{holder:?}");
}

/// Symptom: the oldest gateways have no lock file, only a `gateway.pid`; a start beside a live one was granted,
/// wrote over that file, and both polled the same bot. It holds because where there is no lock to look at, the
/// process that the file names is judged, by every claim.
#[test]
fn a_gateway_without_a_lock_file_keeps_a_new_one_out() {
    for shape in ["bare", "null", "json"] {
        let Some(sandbox) = Sandbox::with_python() else { return };
        let older = Older::new(&sandbox);
        let mut gateway = older.named();
        older.write("gateway.pid", shape, gateway.pid());
        let before = std::fs::read(older.file("gateway.pid")).unwrap();
        let holder = older.refused();
        assert_eq!(holder["pid"], gateway.pid(), "{holder:#}");
        // From now on every claim of the profile looks.
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        assert_eq!(std::fs::read(older.file("gateway.pid")).unwrap(), before);
        assert!(!older.file("gateway.lock").exists());
        let status = sandbox.assert_status(0, "alive", "start_time_matches");
        assert_eq!(status["pid"], gateway.pid(), "{status:#}");
        gateway.kill();
        older.hold().end().assert_code(0);
        assert_eq!(sandbox.history().len(), 2);
    }

    // A profile that stands for the directory, and nobody on record.
    let sandbox = Sandbox::new();
    let older = Older::new(&sandbox);
    older.hold().end().assert_code(0);
    std::fs::remove_file(older.file("gateway.lock")).unwrap();
    let gateway = older.named();
    older.write("gateway.pid", "bare", gateway.pid());
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    // A person's way out.
    let (code, document) = sandbox.json(["evict", "--force"]);
    assert_eq!(code, 0, "{document:#}");
    assert_eq!(document["evicted"]["legacy_home"], older.home(), "{document:#}");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);

    // What cannot be read may name anybody.
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", older.file("gateway.pid")).unwrap();
    let arguments = ["run", "--no-backoff", "--legacy-home", older.home(), "--", "true"];
    sandbox
        .cli(arguments)
        .assert_code(78)
        .assert_complains(&["gateway.pid", "cannot be looked at"]);
}

/// Symptom: a takeover ended a working gateway, and only then found that it could not take the older program's
/// lock: nobody ran. Whatever can be known before is looked at before anybody is asked.
#[test]
fn a_takeover_that_would_fail_ends_nobody() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let replace = ["run", "--no-backoff", "--replace", "--legacy-home", older.home(), "--", "true"];
    let mut run = sandbox.hold(&[]);
    let assert_fails = |what: &str| {
        let answer = sandbox.cli(replace);
        assert!(![0, 75].contains(&answer.code()), "{what}: {answer:#?}");
        answer.assert_complains(&[what]);
        assert_eq!(sandbox.status().1["pid"], run.pid(), "{what}");
    };
    std::fs::create_dir(older.file("gateway.lock")).unwrap();
    assert_fails("gateway.lock");
    std::fs::remove_dir(older.file("gateway.lock")).unwrap();
    std::os::unix::fs::symlink("/dev/null", older.file("gateway.lock")).unwrap();
    assert_fails("gateway.lock");
    std::fs::remove_file(older.file("gateway.lock")).unwrap();
    std::fs::create_dir(older.file("gateway.pid")).unwrap();
    assert_fails("gateway.pid");
    std::fs::remove_dir(older.file("gateway.pid")).unwrap();

    // An older gateway that acts beside the holder: not the one that was meant.
    let mut gateway = older.gateway();
    let (code, document) = sandbox.json(replace);
    assert_eq!(code, 75, "{document:#}");
    assert_eq!(document["holder"]["pid"], gateway.pid(), "{document:#}");
    assert_eq!(document["holder"]["reason"], "older_gateway", "{document:#}");
    assert_eq!(sandbox.status().1["pid"], run.pid());
    sandbox.cli(replace).assert_code(75).assert_complains(&["two act for it"]);
    gateway.close_stdin();
    gateway.wait(LIMIT);
    sandbox.cli(replace).assert_code(0);
    run.process.wait(LIMIT);

    // The command of a `run` that takes that lock itself is no third one.
    let mut command = sandbox.incumbent(["run", "--no-backoff", "--", "python3", "older.py"]);
    command.args(["gateway", older.home()]);
    let mut run = Process::start(command);
    run.line();
    sandbox.cli(replace).assert_code(0);
    run.wait(LIMIT);
}

/// The kernel's list of locks shows whoever took one, also when that is gone, only to those who see all pids.
fn sees_all_pids() -> bool {
    let found = std::fs::read_link("/proc/self/ns/pid")
        .is_ok_and(|name| name.to_string_lossy() == "pid:[4026531836]");
    if !found {
        skipped("needs the first pid namespace");
    }
    found
}

/// Symptom: an older gateway had died, and a child of it kept its lock. `status` said that it ran, takeover and
/// stop waited a minute and a half for a process that was not there, and no message named the one that was.
#[test]
fn a_lock_that_a_dead_older_gateway_left_behind_is_named() {
    if !sees_all_pids() {
        return;
    }
    for is_known in [true, false] {
        let Some(sandbox) = Sandbox::with_python() else { return };
        let older = Older::new(&sandbox);
        let (mut gateway, child) = older.leaking_gateway();
        if is_known {
            sandbox.cli(["import", older.home()]).assert_code(0);
        }
        gateway.kill();
        let holder = older.refused();
        assert_eq!(holder["flags"], json!(["anchor_leaked"]), "{holder:#}");
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["pid"], gateway.pid(), "{status:#}");
        assert_eq!(status["flags"], json!(["anchor_leaked"]), "{status:#}");
        assert_eq!(status["evidence"]["anchor_holders"], json!([child]), "{status:#}");
        let keeps = format!("pid {child} keeps");
        // Far less than the 90 s that the gateway might have taken.
        let begun = std::time::Instant::now();
        let replace = ["run", "--no-backoff", "--replace", "--legacy-home", older.home()];
        let answer = sandbox.cli([&replace[..], &["--", "true"]].concat()).assert_code(75);
        answer.assert_complains(&["which has ended", &keeps, "gateway.lock"]);
        sandbox.cli(["stop", "--force"]).assert_code(1).assert_complains(&["it has ended", &keeps]);
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
        kill(child, Signal::KILL);
        eventually("the lock is let go", LIMIT, || {
            (sandbox.status().1["verdict"] == "dead").then_some(())
        });
        older.hold().end().assert_code(0);
    }
}

/// Symptom: an export wrote over the `gateway.pid` and the lock files of a live older gateway, because these had
/// no start time. What an import takes for alive, an export leaves alone.
#[test]
fn an_export_leaves_the_files_of_a_live_process_alone() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let run = sandbox.hold(&["--lock", "telegram-bot-token=123456:secret"]);
    let mut gateway = older.named();
    let pid = gateway.pid().to_string();
    for shape in ["bare", "null", "json"] {
        older.write("gateway.pid", shape, gateway.pid());
        let before = std::fs::read(older.file("gateway.pid")).unwrap();
        let answer = sandbox.cli(["export", older.home()]).assert_code(75);
        answer.assert_complains(&["nothing was written", &pid]);
        assert_eq!(std::fs::read(older.file("gateway.pid")).unwrap(), before);
    }
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let locks = older.file("gateway-locks");
    std::fs::create_dir(&locks).unwrap();
    let lock = locks.join("telegram-bot-token-210fd51512083fab.lock");
    older.write_at(&lock, &["lock", &pid]);
    let mut document: Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
    document["start_time"] = Value::Null;
    std::fs::write(&lock, document.to_string()).unwrap();
    let verdict = || {
        let (code, rows) = sandbox.json(["export", older.home()]);
        assert_eq!(code, 0, "{rows:#}");
        let is_lock = |row: &&Value| row["file"] == lock.to_str().unwrap();
        let rows = rows.as_array().unwrap();
        rows.iter().find(is_lock).unwrap()["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(verdict(), "left");
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), document.to_string());
    gateway.kill();
    assert_eq!(verdict(), "written");
    run.end().assert_code(0);
}

/// Symptom: root started a gateway in a user's directory, and one start of four failed: the older program takes
/// a lock file that nobody holds yet for garbage, and removed it while its owner was changed by its path.
#[test]
fn a_start_of_root_stands_the_older_programs_cleaning() {
    const STARTS: usize = 15;
    if !is_root() {
        return skipped("needs root");
    }
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    std::os::unix::fs::chown(&older.home, Some(65534), Some(65534)).unwrap();
    let mut cleaners: Vec<Process> = (0..2).map(|_| older.start("cleans")).collect();
    for cleaner in &mut cleaners {
        assert_eq!(cleaner.line(), "ready");
    }
    for _ in 0..STARTS {
        let arguments = ["run", "--no-backoff", "--legacy-home", older.home(), "--", "true"];
        sandbox.cli(arguments).assert_code(0);
    }
}

/// Symptom: seen from outside, a `run --legacy-home` in a container was taken for an older gateway beside
/// itself, and somebody was told to end one of the two. Its words in the file say whose lock it is.
#[test]
fn our_own_run_in_another_container_is_no_second_owner() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut command = sandbox.within(namespace);
    command.args([crate::support::BINARY, "run", "--legacy-home"]);
    command.arg(older.home()).args(HOLDING);
    let mut contained = Process::start(command);
    contained.line();
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    let files = [
        "gateway.lock live anchor_held",
        "gateway.pid live anchor_held",
        "gateway_state.json live on_record",
    ];
    assert_eq!(older.import_with_code(0), files);
    assert_eq!(sandbox.status().1["instance"], status["instance"]);
    sandbox.cli(["export", older.home()]).assert_code(0);
    contained.close_stdin();
    contained.wait(LIMIT);

    // An older gateway in the place of ours is one.
    let gateway = older.gateway();
    let run = sandbox.hold(&["--profile", "other"]);
    sandbox.cli(["--profile", "other", "import", older.home()]).assert_code(75);
    run.end().assert_code(0);
    drop(gateway);
}

/// Symptom: the bot token of an older gateway that had died stayed taken for as long as its successor in the
/// same directory ran, which had never asked for it.
#[test]
fn a_token_of_a_dead_older_gateway_is_not_its_successors() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut first = older.gateway();
    std::fs::create_dir(older.locks()).unwrap();
    let file = older.locks().join("telegram-bot-token-210fd51512083fab.lock");
    older.write_at(&file, &["lock", &first.pid().to_string()]);
    older.import_with_code(0);
    let other = ["run", "--profile", "other", "--lock", "telegram-bot-token=123456:secret"];
    let other = [&other[..], &["--no-backoff", "--", "true"]].concat();
    sandbox.cli(&other).assert_code(75);

    first.kill();
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let second = older.gateway();
    let (_, locks) = sandbox.json(["locks"]);
    assert_eq!(locks[0]["pid"], first.pid(), "{locks:#}");
    assert_eq!(locks[0]["verdict"], "dead", "{locks:#}");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!((&status["pid"], &status["locks"]), (&json!(second.pid()), &json!([])));
    sandbox.cli(&other).assert_code(0);
}

/// Symptom: programs that only looked whether the lock is held, as the older one does for every message that it
/// sends, were taken for gateways, and a takeover ended one of them. A gateway is found at every look.
#[test]
fn whoever_only_looks_at_the_lock_is_no_gateway() {
    /// One that the scheduler has stopped in the middle of a look looks like a gateway for that long.
    const MISTAKES_MAX: usize = 3;
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gateway = older.gateway();
    sandbox.cli(["import", older.home()]).assert_code(0);
    gateway.kill();
    let mut probes: Vec<Process> = (0..2).map(|_| older.start("probes")).collect();
    for probe in &mut probes {
        assert_eq!(probe.line(), "ready");
    }
    let mut mistakes = (0..20).filter(|_| sandbox.status().1["running"] == true).count();
    for replace in [&[][..], &["--replace"]] {
        for _ in 0..5 {
            let arguments = [&["run", "--no-backoff"], replace, &["--", "true"]].concat();
            mistakes += usize::from(sandbox.cli(arguments).code() != 0);
        }
    }
    sandbox.cli(["stop", "--timeout", "1s"]);
    assert!(mistakes <= MISTAKES_MAX, "{mistakes} times");
    for probe in probes {
        probe.finish(LIMIT).assert_code(0);
    }
}
