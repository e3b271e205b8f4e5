//! Ends for want of memory, and the evidence for them.

use rustix::process::Signal;
use serde_json::json;

use super::cgroup::{EATER, LittleMemory, UNCOUNTED, can_forge_log, log_line, log_now_us};
use super::gateway::last_order;
use super::last_words::killed;
use super::story_without_times;
use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, ask, eventually, has, skipped, wait_stopped,
};

/// FIELD-BUGS row 84.
///
/// Symptom: the kernel kills for want of memory, and nothing says so. It holds because the kernel's
/// log names the pid, and its cgroup counts; each alone is enough.
#[test]
fn a_command_that_the_kernel_killed_for_memory_is_told_with_the_evidence() {
    if !has("python3") {
        return skipped("needs python3");
    }
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let verb = ["run", "--no-backoff", "--", "python3", "-c", EATER];
    let mut run = Run::start(group.started_in(&sandbox, BINARY, &verb));
    run.process.say("eat");
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(128 + 9);
    assert!(group.kills() > 0, "{answer:#?}");
    let told = sandbox.end_now();
    told.assert("oom_suspected", None, None, Some(9)).assert_last();
    let event = sandbox.end_event();
    assert_eq!((&event["reason"], &event["signal"]), (&json!("oom_suspected"), &json!(9)));
    let detail = told.detail();
    let by_log = format!("Killed process {}", run.command.pid);
    assert!(detail.contains(&by_log) || detail.starts_with("memory ran out: "), "{told:#?}");
    told.assert_story("it was killed, and memory had run out (DETAIL) [oom_suspected]");
}

/// With a log that nobody may read, or that is empty, the counter of the group tells.
#[test]
fn the_counter_alone_is_evidence() {
    if !can_forge_log() {
        return skipped("needs root, mounts of its own and the first pid namespace");
    }
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let empty = sandbox.file("empty");
    std::fs::write(&empty, "").unwrap();
    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    last_order(&mut gateway, "eat");
    assert_eq!(group.kills(), 1);
    let asked = sandbox.end_told(Some(&empty), 0);
    asked.assert("oom_suspected", None, None, None).assert_last();
    asked.assert_detail(&[
        "memory ran out: the kernel has killed 1 process(es) of its cgroup ",
        &group.directory.display().to_string(),
    ]);
    sandbox.ask_seeing_log(Some(&empty), &["run", "--no-backoff", "--", "true"]);
    let told = sandbox.end_told(Some(&empty), 1);
    told.assert("oom_suspected", None, None, None);
    assert_eq!(story_without_times(&told.detail()), story_without_times(&asked.detail()));
}

/// A library gateway that is killed leaves it to the next claimant; so does a run that is killed
/// before it could collect its command.
#[test]
fn the_next_claimant_settles_a_kill_for_memory() {
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    last_order(&mut gateway, "eat");
    let asked = sandbox.end_now();
    asked.assert("oom_suspected", None, None, None).assert_last();
    let told = sandbox.end_settled();
    told.assert("oom_suspected", None, None, None);
    assert_eq!(story_without_times(&told.detail()), story_without_times(&asked.detail()));
    drop(gateway);

    if !has("python3") {
        return skipped("the half that needs python3");
    }
    let verb = ["run", "--no-backoff", "--", "python3", "-c", EATER];
    let mut run = Run::start(group.started_in(&sandbox, BINARY, &verb));
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    run.process.say("eat");
    run.command.wait_gone(LIMIT);
    run.kill();
    let asked = sandbox.end_now();
    asked.assert("oom_suspected", None, None, None).assert_last();
    let told = sandbox.end_settled();
    told.assert("oom_suspected", None, None, None);
    assert_eq!(story_without_times(&told.detail()), story_without_times(&asked.detail()));
}

/// systemd removes the cgroup of a service that has ended, and makes it anew for the next start:
/// the counter of that one has not moved, and that was taken for the word that nobody was killed.
/// It holds because another directory of the same name is another cgroup, and says nothing.
#[test]
fn a_cgroup_that_was_made_anew_hides_no_kill_for_memory() {
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    let before_us = log_now_us();
    last_order(&mut gateway, "eat");
    assert_eq!(group.kills(), 1);
    let pid = gateway.pid();
    let before = sandbox.end_now();
    before.assert("oom_suspected", None, None, None);
    eventually("the cgroup is removed", LIMIT, || std::fs::remove_dir(&group.directory).ok());
    std::fs::create_dir(&group.directory).unwrap();
    assert_eq!(group.kills(), 0);

    let names_it = format!("Killed process {pid} ");
    let by_log = before.detail().contains(&names_it);
    if can_forge_log() {
        let log = sandbox.file("kmsg");
        // As it was in the log of that time.
        std::fs::write(&log, log_line(before_us, pid)).unwrap();
        let told = sandbox.end_told(Some(&log), 0);
        told.assert("oom_suspected", None, None, None).assert_last();
        told.assert_detail(&["the kernel's log says: ", &names_it]);
    } else if !by_log {
        return skipped("needs a log of the kernel that it may read or forge");
    }
    if by_log {
        for told in [sandbox.end_now(), sandbox.end_settled()] {
            told.assert("oom_suspected", None, None, None);
            told.assert_detail(&["the kernel's log says: ", &names_it]);
        }
    }
}

/// Where nobody counts, the log is all there is: it counts for the pid that it names, since that
/// process began.
#[test]
fn the_log_alone_is_evidence_for_the_pid_that_it_names() {
    if !can_forge_log() {
        return skipped("needs root, mounts of its own and the first pid namespace");
    }
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    let before_us = log_now_us();
    let pid = killed(sandbox.linked_gateway(&[]));
    sandbox.forge(UNCOUNTED);
    let now_us = log_now_us();
    let hour_us = 3_600_000_000;
    for (text, is_its_own, what) in [
        (String::new(), false, "nothing"),
        (log_line(now_us, pid + 1), false, "another pid"),
        (log_line(now_us, pid * 10), false, "a pid that begins like its own"),
        (log_line(before_us.saturating_sub(hour_us), pid), false, "its pid, before it began"),
        ("garbage\n;;;,,,\n3,2\n\u{fffd};Killed process\n".to_owned(), false, "garbage"),
        (format!("x;{}", log_line(now_us, pid)), true, "its own after garbage"),
        (log_line(now_us, pid), true, "its own"),
        (log_line(now_us, pid) + &log_line(now_us, 1).repeat(500), true, "its own, long ago"),
    ] {
        std::fs::write(&log, text).unwrap();
        let told = sandbox.end_told(Some(&log), 0);
        let expected = if is_its_own { "oom_suspected" } else { "anchor_released" };
        assert_eq!(told.end["end_reason"], expected, "{what}: {told:#?}");
        told.assert_last();
        if is_its_own {
            told.assert_detail(&["the kernel's log says: ", &format!("Killed process {pid} ")]);
        }
    }
}

/// Somebody of its group was killed for memory, and it was killed by hand: a log that reaches back
/// to its start tells the two apart, one that does not leaves the suspicion. A counter that has not
/// moved leaves none.
#[test]
fn nobody_elses_want_of_memory_explains_an_end() {
    if !can_forge_log() || !has("python3") {
        return skipped("needs root, mounts, the first pid namespace and python3");
    }
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    let mut eater = Process::start(group.started_in(&sandbox, "python3", &["-c", EATER]));
    eater.line();
    eater.say("eat");
    eater.wait(LIMIT);
    assert_eq!(group.kills(), 1, "of the two, the one that eats");
    let (pid, other) = (gateway.pid(), eater.pid());
    gateway.kill();
    let now_us = log_now_us();
    for (text, expected, what) in [
        (String::new(), "memory ran out: ", "nothing"),
        (log_line(now_us, other), "memory ran out: ", "a log that begins after its start"),
        (log_line(0, 1) + &log_line(now_us, other), "", "a log that names the other one"),
        (log_line(0, 1) + &log_line(now_us, pid), "the kernel's log says: ", "its own"),
    ] {
        std::fs::write(&log, text).unwrap();
        let told = sandbox.end_told(Some(&log), 0);
        let reason = if expected.is_empty() { "anchor_released" } else { "oom_suspected" };
        assert_eq!(told.end["end_reason"], reason, "{what}: {told:#?}");
        told.assert(reason, None, None, None).assert_detail(&[expected]).assert_last();
    }

    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    gateway.kill();
    std::fs::write(&log, "").unwrap();
    sandbox.end_told(Some(&log), 0).assert("anchor_released", None, None, None).assert_last();
}

/// What was asked for and given up again ended nobody: the kernel's word counts then.
#[test]
fn a_takeover_that_was_given_up_hides_no_want_of_memory() {
    if !can_forge_log() {
        return skipped("needs root, mounts of its own and the first pid namespace");
    }
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    let mut taker = sandbox.begin(&["run", "--no-backoff", "--replace", "--", "true"]);
    gateway.err_line_with("caught 15: taken_over");
    taker.kill();
    let pid = killed(gateway);
    sandbox.forge(UNCOUNTED);
    std::fs::write(&log, "").unwrap();
    let told = sandbox.end_told(Some(&log), 0);
    assert_ne!(told.end["end_reason"], "taken_over", "{told:#?}");
    told.assert_detail(&["a takeover by pid ", " was abandoned"]);
    std::fs::write(&log, log_line(log_now_us(), pid)).unwrap();
    sandbox.end_told(Some(&log), 0).assert("oom_suspected", None, None, None);
}
