//! A marker is for one generation: not for the next one, nor for the next user of its pid.

use serde_json::json;

use crate::support::{
    Identity, LIMIT, Process, Sandbox, ask_json, eventually, pid_namespace, skipped,
};

/// FIELD-BUGS row 53.
///
/// Symptom: a fresh gateway died 400 ms after its boot, of a stop marker that was left for the one
/// before it. Cause: the marker named a pid, or nobody at all. It holds because a marker names one
/// generation; the next one never sees it, with whatever pid, and it is closed with its target.
#[test]
fn a_marker_for_one_generation_is_nothing_to_the_next_one_of_the_same_process() {
    let sandbox = Sandbox::new();
    let script = sandbox.stranger();
    let pid = script.pid();
    let id = pid.to_string();
    let other_pid = sandbox.stranger();
    let claim = || {
        let (code, answer) = sandbox.json(["claim", "--pid", &id]);
        assert_eq!(code, 0, "{answer:#}");
        answer["instance"].clone()
    };
    let release: &[&str] = &["release", "--pid", &id];
    for end in [release, &["evict", "--force"]] {
        let first = claim();
        let stop = sandbox.leave(pid, &["planned_stop"]);
        let note = sandbox.leave(pid, &["note"]);
        assert_eq!((&stop["instance"], &note["instance"]), (&first, &first));
        sandbox.cli(end).assert_code(0);
        for marker in [&stop, &note] {
            assert_eq!(sandbox.closed_how(marker).as_deref(), Some("target_ended"), "{end:?}");
        }
        assert_eq!(sandbox.peek(pid), None, "{end:?}: it has no generation now");
        let second = claim();
        assert_ne!(first, second);
        assert_eq!(sandbox.peek(pid), None, "{end:?}: generation n+1");
        assert_eq!(sandbox.marker(pid, &["consume"]).0, 1, "{end:?}: generation n+1");
        let stop = sandbox.leave(pid, &["planned_stop"]);
        assert_eq!(stop["instance"], second);
        assert_eq!(sandbox.marker(pid, &["consume"]).1["id"], stop["id"]);
        sandbox.cli(release).assert_code(0);
    }
    // A killed one: its markers are closed by whoever takes its place.
    let mut first = sandbox.stranger();
    sandbox.cli(["claim", "--pid", &first.pid().to_string()]).assert_code(0);
    let stop = sandbox.leave(first.pid(), &["planned_stop"]);
    first.kill();
    let next = other_pid.pid();
    eventually("the office is free", LIMIT, || {
        (sandbox.cli(["claim", "--pid", &next.to_string()]).code() == 0).then_some(())
    });
    assert_eq!(sandbox.closed_how(&stop).as_deref(), Some("target_ended"));
    assert_eq!(sandbox.peek(next), None);
}

/// The same through the library: the process is the very same one, and so is its handle.
#[test]
fn a_gateway_that_claims_again_is_not_told_of_a_stop_of_before() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.marked_gateway();
    let stop = sandbox.leave(gateway.pid(), &["planned_stop"]);
    assert_eq!(ask_json(&mut gateway, "peek -")["id"], stop["id"]);
    assert_eq!(ask_json(&mut gateway, "release"), "Free");
    // An inquiry of the generation that has ended, asked late.
    assert_eq!(ask_json(&mut gateway, "ask")["cause"], "unplanned");
    ask_json(&mut gateway, "claim");
    assert_eq!(ask_json(&mut gateway, "peek -")["id"], json!(null));
    assert_eq!(ask_json(&mut gateway, "consume -")["id"], json!(null));
    assert_eq!(ask_json(&mut gateway, "ask")["cause"], "unplanned");
    assert_eq!(sandbox.closed_how(&stop).as_deref(), Some("target_ended"));
    gateway.finish(LIMIT).assert_code(0);
}

/// A gateway that executes itself anew keeps its pid and its start time: only the generation tells.
#[test]
fn a_re_executed_gateway_is_not_told_of_a_stop_of_before() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.marked_gateway();
    let first = Identity::of(gateway.pid());
    let stop = sandbox.leave(gateway.pid(), &["planned_stop"]);
    let note = sandbox.leave(gateway.pid(), &["note"]);
    assert_eq!(ask_json(&mut gateway, "execute"), "ready");
    ask_json(&mut gateway, "claim");
    assert_eq!(Identity::of(gateway.pid()), first, "the test is about one process");
    assert_eq!(sandbox.history()[1]["end_reason"], "re_executed");
    assert_eq!(ask_json(&mut gateway, "peek -")["id"], json!(null));
    assert_eq!(ask_json(&mut gateway, "ask")["cause"], "unplanned");
    assert_eq!(sandbox.peek(gateway.pid()), None);
    for marker in [&stop, &note] {
        assert_eq!(sandbox.closed_how(marker).as_deref(), Some("target_ended"));
    }
    gateway.finish(LIMIT).assert_code(0);
}

/// What is left for a process before it is on record is for that process, and reaches it after it
/// registered; once.
#[test]
fn a_marker_from_before_the_claim_reaches_the_process() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.unclaimed_gateway();
    sandbox.make_it();
    let stop = sandbox.leave(gateway.pid(), &["planned_stop", "--reason", "never mind"]);
    assert_eq!(stop["instance"], json!(null));
    ask_json(&mut gateway, "claim");
    let answer = ask_json(&mut gateway, "ask");
    assert_eq!((&answer["cause"], &answer["id"]), (&json!("planned_stop"), &stop["id"]));
    assert_eq!(answer["reason"], "never mind");
    assert_eq!(sandbox.peek(gateway.pid()), None);
    gateway.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS rows 24 and 53: in a container every incarnation has the same pid.
#[test]
fn pid_1_is_not_told_what_was_left_for_the_pid_1_before_it() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let start = |script: &str| {
        let arguments = ["run", "--no-backoff", "--", "/bin/sh", "-c", script];
        Process::start(sandbox.incumbent_under(namespace, &arguments))
    };
    let mut first = start(
        "trap '' TERM
         incumbent marker write note --pid 1 --ttl 1h > /dev/null; echo \"write $?\"
         incumbent marker write planned_stop --pid 1 > /dev/null; echo \"write $?\"
         incumbent marker peek > /dev/null; echo \"peek $?\"; exec cat",
    );
    for expected in ["write 0", "write 0", "peek 0"] {
        assert_eq!(first.line(), expected);
    }
    first.kill();
    eventually("the container is gone", LIMIT, || (sandbox.status().0 == 3).then_some(()));
    let script = "incumbent marker peek > /dev/null; echo \"peek $?\"
        incumbent marker peek --pid 1 > /dev/null; echo \"peek $?\"
        incumbent marker consume planned_stop > /dev/null; echo \"consume $?\"";
    let answer = start(script).finish(LIMIT).assert_code(0);
    assert_eq!(answer.out, "peek 1\npeek 1\nconsume 1\n", "{answer:#?}");
    let ended = "SELECT count(*) FROM markers WHERE closed_how = 'target_ended' AND pid = 1";
    assert_eq!(sandbox.number(ended), 2);
}

/// FIELD-BUGS row 43: in containers pids coincide, and a store may be shared. What is done about
/// one's own markers does nothing to those of another gateway that has the same number elsewhere.
#[test]
fn containers_with_equal_pids_keep_their_markers_apart() {
    const SCRIPT: &str = "while read -r line; do eval \"$line\" > /dev/null; echo $?; done";
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let start = |profile: &str| {
        let run = ["run", "--no-backoff", "--profile", profile, "--", "/bin/sh", "-c", SCRIPT];
        Process::start(sandbox.incumbent_under(namespace, &run))
    };
    let obey = |container: &mut Process, order: &str| {
        container.say(order);
        container.line().parse::<i32>().unwrap()
    };
    let (mut red, mut blue) = (start("red"), start("blue"));
    for container in [&mut red, &mut blue] {
        assert_eq!(obey(container, "incumbent marker write note --pid 1 --ttl 1h"), 0);
    }
    let open = "SELECT count(*) FROM markers WHERE closed_at_ms IS NULL AND pid = 1";
    assert_eq!(sandbox.number(open), 2, "one each");
    assert_eq!(obey(&mut red, "incumbent marker consume note --pid 1"), 0);
    assert_eq!(obey(&mut red, "incumbent marker consume note --pid 1"), 1);
    assert_eq!(obey(&mut red, "incumbent marker clear note"), 1, "its own was consumed");
    assert_eq!(obey(&mut red, "incumbent marker clear note --pid 1"), 1);
    assert_eq!(obey(&mut blue, "incumbent marker peek note"), 0, "blue's was cleared by red");
    assert_eq!(obey(&mut blue, "incumbent marker clear note"), 0);
    assert_eq!(sandbox.number(open), 0);
    red.finish(LIMIT).assert_code(0);
    blue.finish(LIMIT).assert_code(0);
}

/// R:REUSE. FIELD-BUGS rows 17 and 53: the very pid, given out again. A stranger is told apart by
/// its start time and boot, and who was on record by its generation.
#[test]
fn the_next_user_of_a_pid_is_not_told_what_was_left_for_the_one_before() {
    const SCRIPT: &str = "
        mkfifo gate
        exec 8<> gate
        stay() { sh -c 'read -r line' < gate & }
        again() { # the pid of $1, given out once more
            kill -KILL $1; wait $1
            # One tick of the clock that start times are counted in has to pass: 10 ms.
            sleep 0.05
            echo $(($1 - 1)) > /proc/sys/kernel/ns_last_pid
            stay
        }
        marker() { verb=$1; shift; incumbent marker $verb \"$@\" > /dev/null; echo \"$verb $?\"; }
        incumbent run --no-backoff -- true

        stay; first=$!
        marker write note --pid $first --ttl 1h
        marker peek --pid $first
        again $first; echo \"same pid $(($! - first))\"
        marker peek --pid $first
        marker consume --pid $first
        marker write other --pid $first --ttl 1h
        marker consume note --pid $first
        marker consume other --pid $first
        marker clear note --pid $first
        kill -KILL $!; wait $!

        stay; first=$!
        incumbent claim --no-keeper --pid $first > /dev/null
        marker write planned_stop --pid $first
        marker peek --pid $first
        again $first; echo \"same pid $(($! - first))\"
        marker peek --pid $first
        marker consume planned_stop --pid $first
        incumbent claim --no-keeper --pid $first > /dev/null; echo \"claim $?\"
        marker peek --pid $first
        kill -KILL $!; wait $!
        exit 0";
    let sandbox = Sandbox::new();
    let Some(answer) = sandbox.choosing_pids(SCRIPT) else { return };
    let expected = [
        "write 0",
        "peek 0",
        "same pid 0",
        "peek 1",
        "consume 1",
        "write 0",
        "consume 1",
        "consume 0",
        "clear 0",
        "write 0",
        "peek 0",
        "same pid 0",
        "peek 1",
        "consume 1",
        "claim 0",
        "peek 1",
    ];
    let lines: Vec<_> = answer.out.lines().collect();
    assert_eq!(lines, expected, "{answer:#?}");
    let how: Vec<_> = sandbox.marker_rows().iter().map(|row| row["closed_how"].clone()).collect();
    assert_eq!(how, ["cleared", "consumed", "target_ended"]);
}
