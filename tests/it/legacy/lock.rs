//! The lock of the older program, which real processes of its own take and look at.

use rustix::process::Signal;
use serde_json::json;

use crate::support::older::Older;
use crate::support::{
    HOLDING, LIMIT, Process, Sandbox, Stat, eventually, is_root, kill, pid_namespace, skipped,
};

/// Symptom: after the switch to the new program, the old unit file still started the old gateway,
/// and both polled the same bot. It holds because the lock that the old one takes anyway is looked
/// at by every start, and whoever has it is put on record.
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

/// The other direction: the older program finds our `run`, and takes neither its place nor its
/// files away.
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

/// The older program removes both files where it takes their owner for dead, and anybody may tidy
/// up: a lock on a file that no path leads to keeps nobody out.
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

/// `run --replace` and `stop` work on an older gateway as on any holder: asked by a signal on its
/// proven process, waited for, and nobody else gets in between. Symptom: it took that for a signal
/// that nobody meant, exited with 1, and its supervisor started it again.
#[test]
fn an_older_gateway_is_replaced_and_stopped() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gateway = older.gateway();
    let run = sandbox.hold(&["--replace", "--legacy-home", older.home()]);
    assert_eq!(gateway.line(), "was told by .gateway-takeover.json");
    gateway.wait(LIMIT);
    assert_eq!(older.running(), run.pid().to_string());
    run.end().assert_code(0);
    let history = sandbox.history();
    assert_eq!(history[1]["pid"], gateway.pid(), "{history:#?}");
    assert_eq!(history[1]["end_reason"], "taken_over", "{history:#?}");

    let mut gateway = older.gateway();
    older.refused();
    sandbox.cli(["stop"]).assert_code(0);
    assert_eq!(gateway.line(), "was told by .gateway-planned-stop.json");
    gateway.wait(LIMIT);
    let history = sandbox.history();
    assert_eq!(history[0]["end_reason"], "planned_stop", "{history:#?}");

    // Where it was killed, what it was told does not stay for whoever gets its pid.
    let gateway = older.gateway();
    older.refused();
    gateway.signal(Signal::STOP);
    sandbox.cli(["stop", "--force", "--timeout", "50ms"]).assert_code(0);
    assert!(!older.file(".gateway-planned-stop.json").exists());
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
    run(&["--legacy-home", "nowhere"])
        .assert_code(2)
        .assert_complains(&["cannot use the directory"]);
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

/// The older program asks for the lock to know whether it is held. Questions of ours, were they to
/// ask in the same way, would look like a gateway to it.
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

/// A store that is deleted under a `run` is made anew by it. Its own lock on the older program's
/// file must not look like an older gateway to that claim.
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
    // The new store knows of the directory, too: what holds its lock after us is met by every
    // claim.
    run.end().assert_code(0);
    let gateway = older.gateway();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    assert_eq!(sandbox.status().1["pid"], gateway.pid());
}

/// Symptom: the oldest gateways have no lock file, only a `gateway.pid`; a start beside a live one
/// was granted, wrote over that file, and both polled the same bot. It holds because where there is
/// no lock to look at, the process that the file names is judged, by every claim.
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

/// Symptom: a takeover ended a working gateway, and only then found that it could not take the
/// older program's lock: nobody ran. Whatever can be known before is looked at before anybody is
/// asked.
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
    sandbox.cli(replace).assert_code(75).assert_complains(&["two gateways are running"]);
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

/// The kernel's list of locks shows whoever took one, also when that is gone, only to those who see
/// all pids.
fn sees_all_pids() -> bool {
    let found = std::fs::read_link("/proc/self/ns/pid")
        .is_ok_and(|name| name.to_string_lossy() == "pid:[4026531836]");
    if !found {
        skipped("needs the first pid namespace");
    }
    found
}

/// Symptom: an older gateway had died, and a child of it kept its lock. `status` said that it ran,
/// takeover and stop waited a minute and a half for a process that was not there, and no message
/// named the one that was.
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

/// Symptom: root started a gateway in a user's directory, and one start of four failed: the older
/// program takes a lock file that nobody holds yet for garbage, and removed it while its owner was
/// changed by its path.
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

/// Symptom: seen from outside, a `run --legacy-home` in a container was taken for an older gateway
/// beside itself, and somebody was told to end one of the two. Its words in the file say whose lock
/// it is.
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

/// Symptom: programs that only looked whether the lock is held, as the older one does for every
/// message that it sends, were taken for gateways, and a takeover ended one of them. A gateway is
/// found at every look.
#[test]
fn whoever_only_looks_at_the_lock_is_no_gateway() {
    /// One that the scheduler has stopped in the middle of a look looks like a gateway for that
    /// long.
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
