//! Every end, by the way it really happens.

use rustix::process::Signal;
use serde_json::json;

use super::{OTHER_BOOT, story_without_times, us};
use crate::support::{LIMIT, Process, Sandbox, ask, eventually};

/// FIELD-BUGS rows 82 and 84.
///
/// Symptom: "who restarts my gateway?" had no answer, and neither had how it ended. Every end has
/// one here, with a word for scripts and a sentence for people.
#[test]
fn a_linked_gateway_that_lets_go_was_released() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch"]);
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("released", None, None, None)
        .assert_last()
        .assert_story("it released the office [released]");
    assert!(told.end["detail"].is_null(), "{told:#?}");
    let event = json!({"reason": "released", "by": null, "exit_code": null, "signal": null});
    assert_eq!(sandbox.end_event(), event);
    gateway.finish(LIMIT).assert_code(0);
}

/// A signal and an orderly end: the signal ended it, whoever let go.
#[test]
fn a_linked_gateway_that_lets_go_after_a_signal_was_ended_by_its_sender() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15: supervisor_stop 143");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("signalled", Some(&us()), None, Some(15)).assert_last();
    told.assert_story("SIGTERM from BY ended it [signalled]");
    let event = sandbox.end_event();
    assert_eq!((&event["reason"], &event["by"]), (&json!("signalled"), &told.end["ended_by"]));
    assert_eq!(event["signal"], 15, "{event:#}");
    gateway.finish(LIMIT).assert_code(0);
}

/// Somebody lost patience: the signal is what is known of it, and that it never let go.
#[test]
fn a_linked_gateway_that_is_killed_after_a_signal_was_ended_by_its_sender() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::INT);
    gateway.err_line_with("caught 2: ");
    gateway.kill();
    for told in [sandbox.end_now(), sandbox.end_settled()] {
        told.assert("signalled", Some(&us()), None, Some(2));
        assert_eq!(
            story_without_times(&told.detail()),
            "it got SIGINT N units before, and did not release the office"
        );
        told.assert_story("SIGINT from BY ended it (DETAIL) [signalled]");
    }
}

/// `kill -9` out of the blue leaves nothing, and nothing is made up.
#[test]
fn a_linked_gateway_that_is_killed_in_silence_ended_without_a_word() {
    for signal in [Signal::KILL, Signal::ABORT, Signal::TERM] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["record"]);
        gateway.signal(signal);
        gateway.wait(LIMIT);
        let asked = sandbox.end_now();
        asked.assert("anchor_released", None, None, None).assert_last();
        asked.assert_story(
            "it was killed, or it crashed (found dead now; the next claim will record it) \
             [anchor_released]",
        );
        assert!(asked.line.contains(" held it, and is dead: "), "{asked:#?}");
        assert!(asked.last_end["at"].is_null(), "{asked:#?}");
        let told = sandbox.end_settled();
        told.assert("anchor_released", None, None, None);
        assert_eq!(story_without_times(&told.detail()), "", "{told:#?}");
    }
}

#[test]
fn a_run_tells_how_its_command_ended() {
    let sandbox = Sandbox::new();
    for (script, reason, code, signal, story) in [
        ("exit 0", "exited", Some(0), None, "its command ended by itself, exit code 0 [exited]"),
        ("exit 7", "exited", Some(7), None, "its command crashed: exit code 7 [exited]"),
        ("kill -SEGV $$", "crashed", None, Some(11), "its command crashed: SIGSEGV [crashed]"),
        ("kill -ABRT $$", "crashed", None, Some(6), "its command crashed: SIGABRT [crashed]"),
        ("kill -KILL $$", "signalled", None, Some(9), "SIGKILL ended it [signalled]"),
    ] {
        let script = format!("ulimit -c 0; {script}");
        sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", &script]);
        let told = sandbox.end_now();
        told.assert(reason, None, code, signal).assert_last().assert_story(story);
        let event = json!({"reason": reason, "by": null, "exit_code": code, "signal": signal});
        assert_eq!(sandbox.end_event(), event, "{script}");
    }
}

/// The signal that was sent to the run, and the one that the kernel says its command ended by.
#[test]
fn a_run_tells_who_sent_the_signal_that_its_command_followed() {
    let sandbox = Sandbox::new();
    // By the signal itself, with an exit code, and by another signal than that one.
    for (on_term, code, signal, story) in [
        ("", None, 15, "SIGTERM from BY ended it [signalled]"),
        ("exit 3", Some(3), 15, "SIGTERM from BY ended it, exit code 3 [signalled]"),
        ("kill -KILL $$", None, 9, "SIGKILL from BY ended it [signalled]"),
    ] {
        let script = match on_term {
            "" => "echo $$; exec cat".to_owned(),
            act => format!("trap '{act}' TERM; echo $$; {WORK}"),
        };
        let run = sandbox.hold_with(&["/bin/sh", "-c", &script]);
        run.process.signal(Signal::TERM);
        run.process.finish_with_stdin_open(LIMIT);
        let told = sandbox.end_now();
        told.assert("signalled", Some(&us()), code, Some(signal)).assert_last().assert_story(story);
    }
}

/// A run that is killed with its command, in silence and after a signal that the command ignored.
#[test]
fn a_run_that_is_killed_is_told_by_its_last_signal() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    sandbox.end_now().assert("anchor_released", None, None, None).assert_last();
    sandbox.end_settled().assert("anchor_released", None, None, None);

    let mut run = sandbox.patient(&[]);
    run.process.signal(Signal::TERM);
    run.process.line_with("TERM");
    eventually("the signal is on record", LIMIT, || (sandbox.last_words() == 1).then_some(()));
    run.kill();
    run.command.wait_gone(LIMIT);
    for told in [sandbox.end_now(), sandbox.end_settled()] {
        told.assert("signalled", Some(&us()), None, Some(15));
        assert_eq!(
            story_without_times(&told.detail()),
            "it got SIGTERM N units before, and did not release the office"
        );
    }
}

/// A stop and a takeover, of a library gateway, a run and a script: who asked, and why.
#[test]
fn a_planned_stop_and_a_takeover_name_who_asked() {
    for takes_over in [false, true] {
        for holder in ["library", "run", "script"] {
            let sandbox = Sandbox::new();
            let (mut linked, mut run, mut script) = (None, None, None);
            match holder {
                "library" => linked = Some(sandbox.linked_gateway(&["claim"])),
                "run" => run = Some(sandbox.hold(&[])),
                _ => script = Some(script_holder(&sandbox, "", "exec cat")),
            }
            let asker = if takes_over {
                sandbox.begin(&["run", "--no-backoff", "--replace", "--", "true"])
            } else {
                sandbox.begin(&["stop", "--reason", "new certificates"])
            };
            let by = format!("pid {}", asker.pid());
            // A library gateway that catches nothing ends by the signal, at once.
            for process in linked.iter_mut().chain(&mut script) {
                process.wait(LIMIT);
            }
            if let Some(run) = run.take() {
                run.process.finish_with_stdin_open(LIMIT);
            }
            asker.finish(LIMIT).assert_code(0);
            let told = sandbox.end_told(None, usize::from(takes_over));
            let what = format!("{holder}, taken over: {takes_over}: {told:#?}");
            let reason = if takes_over { "taken_over" } else { "planned_stop" };
            assert_eq!(told.end["end_reason"], reason, "{what}");
            assert!(told.text("ended_by").contains(&by), "{what}");
            let story = if takes_over {
                "its office was taken over by "
            } else {
                assert_eq!(told.detail(), "new certificates", "{what}");
                told.assert_last();
                "it was stopped on purpose by "
            };
            assert!(told.story().starts_with(story), "{what}");
            assert!(told.story().ends_with(&format!("[{reason}]")), "{what}");
        }
    }
}

/// What a script does that runs its traps.
const WORK: &str = "while :; do sleep 0.05 > /dev/null 2>&1; done";

/// A shell script that has prepared itself by `before`, claimed the office for itself, and goes on
/// with `rest`.
#[track_caller]
fn script_holder(sandbox: &Sandbox, before: &str, rest: &str) -> Process {
    let script = format!("{before}\nincumbent claim --pid $$ && echo up; {rest}");
    let mut script = Process::start(sandbox.shell(&script));
    script.line_with("up");
    script
}

/// A script ends its record by `release`, by the signal that its trap put on record, or not at all.
#[test]
fn a_script_is_told_by_what_its_trap_left() {
    let sandbox = Sandbox::new();
    let script = script_holder(&sandbox, "", "read x; incumbent release --pid $$");
    script.finish(LIMIT).assert_code(0);
    // Its keeper has watched it, and writes that down a moment later.
    let by = Some("incumbent release (pid ");
    let told = eventually("its exit code is on record", LIMIT, || {
        let told = sandbox.end_now();
        (!told.end["exit_code"].is_null()).then_some(told)
    });
    told.assert("released", by, Some(0), None).assert_last();

    let mut script = script_holder(&sandbox, "", "exec cat");
    script.kill();
    let told = sandbox.end_settled();
    assert!(
        matches!(told.text("end_reason").as_str(), "anchor_released" | "no_such_process"),
        "{told:#?}"
    );

    // `kill -9` after a signal that its trap has put on record.
    let trap = "incumbent forensics snapshot --signal TERM > /dev/null; echo trapped";
    let before = format!("trap '{trap}' TERM");
    let mut script = script_holder(&sandbox, &before, WORK);
    script.signal(Signal::TERM);
    script.line_with("trapped");
    script.kill();
    // They write down what the kernel says of it, between two questions as well.
    sandbox.wait_for_the_end_of_keepers();
    for told in [sandbox.end_now(), sandbox.end_settled()] {
        // Only the handler itself is told who sent it: the reason why not stands in the detail.
        assert_eq!(told.text("end_reason"), "signalled");
        // Of SIGKILL it knows where the kernel tells it.
        let signal = told.end["signal"].as_i64().unwrap();
        let name = if signal == 9 { "SIGKILL" } else { "SIGTERM" };
        assert!([9, 15].contains(&signal), "{told:#?}");
        let detail = story_without_times(&told.detail());
        assert!(detail.contains("; it got SIGTERM N units before, and did not"), "{told:#?}");
        assert!(told.story().starts_with(&format!("{name} ended it (")), "{told:#?}");
    }
}

/// The same trap, and an orderly end: as for everybody else, the signal ended it.
#[test]
fn a_script_that_releases_after_a_signal_was_ended_by_that() {
    let sandbox = Sandbox::new();
    let trap = "incumbent forensics snapshot --signal TERM > /dev/null
        incumbent release --pid $$; exit 0";
    let script = script_holder(&sandbox, &format!("trap '{trap}' TERM"), WORK);
    script.signal(Signal::TERM);
    script.finish_with_stdin_open(LIMIT).assert_code(0);
    let told = sandbox.end_now();
    assert_eq!(told.end["end_reason"], "signalled", "{told:#?}");
    assert_eq!(told.end["signal"], 15, "{told:#?}");
}

#[test]
fn an_eviction_and_a_re_execution_are_told() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    let told = sandbox.end_now();
    told.assert("evicted", Some("incumbent evict --force (pid "), None, None).assert_last();
    told.assert_story("its record was ended by BY (it was alive: anchor_held) [evicted]");

    let mut owner = sandbox.role(crate::identity::forked::RE_EXECUTING_OWNER, "first life");
    owner.err_line_with("first life: ");
    owner.say("execute");
    owner.err_line_with("second life: ");
    let told = sandbox.end_told(None, 1);
    told.assert("re_executed", None, None, None);
    told.assert_story("the process re-executed itself [re_executed]");
    owner.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS row 84: the death of a machine is not that of a process; a signal before it (systemd
/// stops everybody before a reboot) is told beside it.
#[test]
fn a_reboot_is_told_with_the_signal_before_it() {
    for with_signal in [false, true] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["catch"]);
        if with_signal {
            gateway.signal(Signal::TERM);
            gateway.err_line_with("caught 15");
        }
        gateway.kill();
        sandbox.forge(OTHER_BOOT);
        for told in [sandbox.end_now(), sandbox.end_settled()] {
            told.assert("rebooted", None, None, None);
            let detail = story_without_times(&told.detail());
            if with_signal {
                let before = format!("before that: SIGTERM from {}", us());
                assert!(detail.starts_with(&before), "{told:#?}");
            } else {
                assert_eq!(detail, "", "{told:#?}");
            }
            assert!(told.story().starts_with("the machine was restarted since"), "{told:#?}");
        }
    }
}
