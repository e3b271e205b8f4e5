//! `import`: files of every shape, with the right verdict.

use serde_json::json;

use crate::support::older::Older;
use crate::support::{LIMIT, Process, Sandbox};

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
    assert!(answer.out.contains("corrupt   corrupt, it is not UTF-8"), "{answer:#?}");

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

    // A bare number is of whoever has that pid now: a program in none of the older one's forms is
    // another.
    let stranger = Process::start(sandbox.shell("exec sleep 1000"));
    older.write("gateway.pid", "bare", stranger.pid());
    older.assert_import(0, &["gateway.pid stale identity_mismatch"]);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    // In one of the forms that the older program has, it is known by that, and from then on by its
    // start.
    let named = older.named();
    for shape in ["null", "bare"] {
        older.write("gateway.pid", shape, named.pid());
        older.assert_import(0, &["gateway.pid live command_line_matches"]);
    }
    sandbox.assert_status(0, "alive", "start_time_matches");
}

/// A live gateway with everything that it leaves: it keeps its office, its tokens, and its last
/// words.
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

/// Symptom: the bot token of an older gateway that had died stayed taken for as long as its
/// successor in the same directory ran, which had never asked for it.
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
