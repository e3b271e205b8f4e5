//! Who sent the signal is named everywhere, or why that is not known.

use std::io::{PipeReader, Write};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::gateway::{GATEWAY, ROLE_TEST, next_report, raise};
use super::left::{assert_complete, assert_log_line, assert_state, listening, said_by_run, why};
use super::{Deployer, SEND, own_uid, raw};
use crate::stop::PATIENT;
use crate::support::{
    BINARY, HOLDING, LIMIT, Process, Run, Sandbox, Stat, another_user, ask, exit_code, has, kill,
    pid_namespace, skipped, stopped_writer, tagged, wait_ended, wait_stopped, works,
};

#[track_caller]
fn assert_sender(sender: &Value, pid: u32, how: &str) {
    let expected = json!({
        "cmdline": "/bin/sh deploy.sh",
        "how": how,
        "name": "sh",
        "pid": pid,
        "ppid": std::process::id(),
        "state": sender["state"],
        "uid": own_uid(),
    });
    assert_eq!(*sender, expected);
    assert_state(&sender["state"]);
}

/// FIELD-BUGS row 82, R:SIG. A gateway that does not link the library, under `run`.
#[test]
fn who_signals_a_run_is_named_everywhere() {
    let sandbox = Sandbox::new();
    for (signal, number) in [("TERM", 15), ("INT", 2)] {
        let run = sandbox.hold(&[]);
        let pid = run.pid();
        let mut deployer = sandbox.deployer();
        deployer.send(signal, pid);
        let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(128 + number);
        let sender = deployer.pid();
        let in_words = format!("pid {sender} (/bin/sh deploy.sh), uid {}", own_uid());

        let said = said_by_run(&answer);
        assert_eq!(said["signal"], format!("SIG{signal}"));
        assert_eq!(said["sender_pid"], sender.to_string());
        assert_eq!(said["sender_uid"], own_uid().to_string());
        assert_eq!(said["sender_cmdline"], "/bin/sh deploy.sh");
        assert_eq!(said["parent_pid"], std::process::id().to_string());
        for absent in
            ["recorded", "takeover_marker_present", "planned_stop_marker_present", "sender"]
        {
            assert!(!said.contains_key(absent), "{said:?}");
        }

        let row = sandbox.newest_shutdown();
        for (column, expected) in [
            ("pid", json!(pid)),
            ("what", json!("signal")),
            ("profile", json!("default")),
            ("kind", json!("gateway")),
            ("signal", json!(number)),
            ("signal_name", json!(format!("SIG{signal}"))),
            ("sender_pid", json!(sender)),
            ("sender_uid", json!(own_uid())),
            ("sender", json!(in_words)),
            ("cause", json!("signalled")),
            ("message", Value::Null),
        ] {
            assert_eq!(row[column], expected, "{column}: {row:#}");
        }
        assert_sender(&row["snapshot"]["sender"], sender, "kill");
        assert_eq!(row["snapshot"]["pid"], pid);
        assert_eq!(row["snapshot"]["signal_num"], number);
        assert!(row["snapshot"].get("recorded").is_none(), "{row:#}");
        for marker in ["takeover_marker", "takeover_marker_for_self", "planned_stop_marker"] {
            assert_eq!(row["snapshot"][marker], Value::Null, "{row:#}");
        }

        let end = &sandbox.history()[0];
        assert_eq!(end["instance"], row["instance_id"], "{end:#}");
        assert_eq!(end["end_reason"], "signalled", "{end:#}");
        assert_eq!(end["ended_by"], in_words, "{end:#}");
        assert_eq!(end["signal"], number, "{end:#}");
        let told = sandbox.as_people_read_it();
        let told = told.lines().next().unwrap();
        assert!(told.contains(&format!("SIG{signal} from {in_words} ended it")), "{told}");

        let event = sandbox.newest_event_called("signal_received");
        assert_eq!(event["instance"], row["instance_id"], "{event:#}");
        assert_eq!(event["pid"], pid, "{event:#}");
        assert_eq!(event["detail"]["sender"], in_words, "{event:#}");
        assert_eq!(event["detail"]["signal"], format!("SIG{signal}"), "{event:#}");
        assert_eq!(event["detail"]["shutdown"], row["id"], "{event:#}");
    }
    assert_eq!(sandbox.shutdown_rows(), 2);
}

/// The same for a gateway that links the library: each signal by its name, by whatever call.
#[test]
fn who_signals_a_linked_gateway_is_named_everywhere() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let pid = gateway.pid();
    let mut deployer = sandbox.deployer();
    let sender = deployer.pid();
    for (signal, number) in [("HUP", 1), ("INT", 2), ("TERM", 15)] {
        deployer.send(signal, pid);
        let report = next_report(&mut gateway);
        let snapshot = &report["snapshot"];
        assert_complete(snapshot);
        assert_sender(&snapshot["sender"], sender, "kill");
        assert_eq!(snapshot["signal"], format!("SIG{signal}"));
        assert_eq!(snapshot["signal_num"], number);
        assert_eq!(snapshot["pid"], pid);
        assert_eq!(snapshot["parent"]["pid"], std::process::id());
        for marker in ["takeover_marker", "takeover_marker_for_self", "planned_stop_marker"] {
            assert_eq!(snapshot[marker], Value::Null, "{snapshot:#}");
        }
        assert_eq!(report["cause"], "signalled", "{report:#}");
        assert_eq!(report["exit_code"], 128 + number, "{report:#}");
        assert_eq!(report["stop"], "unplanned", "{report:#}");
        let said = assert_log_line(report["line"].as_str().unwrap());
        assert_eq!(said["sender_pid"], sender.to_string());
        assert_eq!(said["sender_cmdline"], "/bin/sh deploy.sh");
        let row = sandbox.newest_shutdown();
        assert_eq!(row["id"], snapshot["recorded"], "{row:#}");
        let mut stored = snapshot.clone();
        stored.as_object_mut().unwrap().remove("recorded");
        assert_eq!(row["snapshot"], stored);
        assert_eq!(row["may_be_reload"], i32::from(signal == "HUP"), "{row:#}");
    }
    // By other calls, from this process.
    raw::sigqueue(pid, libc::SIGTERM);
    let queued = next_report(&mut gateway)["snapshot"]["sender"].clone();
    raw::tgkill(pid, libc::SIGTERM);
    let to_thread = next_report(&mut gateway)["snapshot"]["sender"].clone();
    for (sender, how) in [(queued, "sigqueue"), (to_thread, "tgkill")] {
        assert_eq!(sender["how"], how, "{sender:#}");
        assert_eq!(sender["pid"], std::process::id(), "{sender:#}");
        // A test of this program is its parent: that is who started it.
        assert_eq!(sender["uid"], own_uid(), "{sender:#}");
    }
    // From itself.
    let report = raise(&mut gateway, libc::SIGTERM);
    assert_eq!(report["snapshot"]["sender"]["pid"], pid, "{report:#}");
    assert_eq!(report["cause"], "signalled", "{report:#}");
    // The last word counts.
    deployer.send("TERM", pid);
    next_report(&mut gateway);
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    gateway.say("exit 143");
    gateway.finish(LIMIT).assert_code(143);
    let end = &sandbox.history()[0];
    let in_words = format!("pid {sender} (/bin/sh deploy.sh), uid {}", own_uid());
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    assert_eq!(end["ended_by"], in_words, "{end:#}");
    assert_eq!(end["signal"], 15, "{end:#}");
    assert!(sandbox.as_people_read_it().contains(&format!("SIGTERM from {in_words} ended it")));
}

/// What a signal means follows from who sent it: the parent of the gateway is its supervisor, and
/// anybody else is not. The exit code follows from that and from what the supervisor makes of it.
#[test]
fn a_supervisors_own_signal_is_told_from_a_strangers() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let mut deployer = sandbox.deployer();
    for (supervisor, by_parent, by_stranger) in
        [("systemd", 0, 143), ("s6", 0, 143), ("docker", 143, 143), ("none", 143, 143)]
    {
        assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
        assert_eq!(ask(&mut gateway, &format!("listen default {supervisor}")), "listening");
        // This process is its parent.
        gateway.signal(Signal::TERM);
        let from_parent = next_report(&mut gateway);
        assert_eq!(from_parent["cause"], "supervisor_stop", "{from_parent:#}");
        assert_eq!(from_parent["exit_code"], by_parent, "{supervisor}: {from_parent:#}");
        deployer.send("TERM", gateway.pid());
        let from_stranger = next_report(&mut gateway);
        assert_eq!(from_stranger["cause"], "signalled", "{from_stranger:#}");
        assert_eq!(from_stranger["exit_code"], by_stranger, "{supervisor}: {from_stranger:#}");
    }
}

/// Whoever only sends a signal has often ended by the time anybody can look: its pid and uid came
/// with the signal, and the rest says why it is not there.
#[test]
fn a_sender_that_has_ended_is_known_by_its_pid_and_uid() {
    if !has("kill") {
        return skipped("needs kill(1) as a program");
    }
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    // Stopped: it sees the signal only after its sender has ended.
    gateway.signal(Signal::STOP);
    wait_stopped(gateway.pid());
    let mut command = sandbox.program("kill");
    command.args(["-TERM", &gateway.pid().to_string()]);
    let sender = Process::start(command);
    let pid = sender.pid();
    sender.finish(LIMIT).assert_code(0);
    gateway.signal(Signal::CONT);
    let report = next_report(&mut gateway);
    let seen = &report["snapshot"]["sender"];
    assert_eq!(seen["pid"], pid, "{seen:#}");
    assert_eq!(seen["uid"], own_uid(), "{seen:#}");
    assert_eq!(seen["how"], "kill", "{seen:#}");
    for field in ["cmdline", "name", "state", "ppid"] {
        assert!(why(&seen[field]).contains("has ended"), "{field}: {seen:#}");
    }
    let said = assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(said["sender_pid"], pid.to_string());
    assert!(said["sender_cmdline"].contains("has ended"), "{said:?}");
    assert_eq!(report["cause"], "signalled", "{report:#}");
    let row = sandbox.newest_shutdown();
    assert_eq!((&row["sender_pid"], &row["sender_uid"]), (&json!(pid), &json!(own_uid())));
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    let end = &sandbox.history()[0];
    let by = end["ended_by"].as_str().unwrap();
    assert!(by.starts_with(&format!("pid {pid} (")), "{end:#}");
    assert!(by.ends_with(&format!(", uid {}", own_uid())), "{end:#}");
}

/// The uid is the sender's: who is root here, and who is the gateway itself.
#[test]
fn a_sender_of_another_user_is_named_with_its_uid() {
    let Some(nobody) = another_user() else { return skipped("needs root") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    for (as_whom, uid) in [(&[][..], own_uid()), (nobody, 65534)] {
        let verb = [&["run", "--no-backoff"], HOLDING].concat();
        let run = Run::start(sandbox.under(nobody, &binary, &verb));
        std::fs::write(sandbox.file("deploy.sh"), SEND).unwrap();
        let words = [as_whom, &["/bin/sh", "deploy.sh"]].concat();
        let command = sandbox.within(&words);
        let mut sender = Deployer(Process::start(command));
        sender.send("TERM", run.pid());
        let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(143);
        let said = said_by_run(&answer);
        assert_eq!(said["sender_uid"], uid.to_string());
        assert_eq!(said["sender_pid"], sender.pid().to_string());
        assert_eq!(said["sender_cmdline"], "/bin/sh deploy.sh");
        let row = sandbox.newest_shutdown();
        assert_eq!(row["sender_uid"], uid, "{row:#}");
        assert_eq!(row["snapshot"]["self"]["uid"], 65534, "{row:#}");
        assert_eq!(row["snapshot"]["sender"]["uid"], uid, "{row:#}");
        let by = sandbox.history()[0]["ended_by"].as_str().unwrap().to_owned();
        assert!(by.ends_with(&format!(", uid {uid}")), "{by}");
    }
}

/// R:PIDNS. `docker stop`, seen from within the container: the kernel gives no pid, and that is
/// said.
#[test]
fn a_sender_outside_of_the_pid_namespace_is_not_to_be_seen() {
    const OUTSIDE: &str = "lives outside of this pid namespace";
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let first = |outer: &Process| {
        tagged("IT_SANDBOX", sandbox.path())
            .into_iter()
            .find(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == outer.pid()))
            .expect("PID 1 of the namespace")
    };
    let verb = [&["run", "--no-backoff"], HOLDING].concat();
    let mut outer = Process::start(sandbox.incumbent_under(namespace, &verb));
    outer.line();
    kill(first(&outer), Signal::TERM);
    let answer = outer.finish_with_stdin_open(LIMIT).assert_code(143);
    let said = said_by_run(&answer);
    assert!(said["sender"].contains(OUTSIDE), "{said:?}");
    assert!(said["sender"].starts_with("unavailable: "), "{said:?}");
    assert!(!said.contains_key("sender_pid") && !said.contains_key("sender_uid"), "{said:?}");
    let row = sandbox.newest_shutdown();
    assert_eq!((&row["sender_pid"], &row["sender_uid"]), (&Value::Null, &Value::Null));
    assert!(row["sender"].as_str().unwrap().contains(OUTSIDE), "{row:#}");
    assert!(why(&row["snapshot"]["sender"]).contains(OUTSIDE), "{row:#}");
    // PID 1 of its namespace has no parent there.
    assert_eq!(row["snapshot"]["ppid"], 0, "{row:#}");
    assert!(why(&row["snapshot"]["parent"]).contains("outside of this pid namespace"), "{row:#}");
    let end = &sandbox.history()[0];
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    assert_eq!((&end["signal"], &end["ended_by"]), (&json!(15), &Value::Null), "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains(OUTSIDE), "{end:#}");
    assert!(sandbox.as_people_read_it().contains(OUTSIDE), "{}", sandbox.as_people_read_it());

    // The same with the library; and what a container's engine sends is a supervisor's stop.
    let inner = sandbox.role_command(ROLE_TEST, GATEWAY);
    let mut command = sandbox.within(namespace);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env("IT_ROLE", GATEWAY);
    let mut gateway = listening(Process::start(command));
    kill(first(&gateway), Signal::TERM);
    let report = next_report(&mut gateway);
    assert!(why(&report["snapshot"]["sender"]).contains(OUTSIDE), "{report:#}");
    assert_eq!(report["cause"], "supervisor_stop", "{report:#}");
}

/// A pipe that takes nothing any more. Nobody reads it for as long as its reader is kept.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let bytes = vec![b'.'; raw::capacity(&writer)];
    writer.write_all(&bytes).unwrap();
    (reader, writer.into())
}

/// A log collector that hangs: whoever writes to it hangs as well. `run` told the signal on
/// standard error and waited for a reader, so that the end of its command was never seen, and
/// whoever asked it to end its command was never served. It holds because a thread of its own
/// waits there.
#[test]
fn a_run_whose_standard_error_nobody_reads_ends_all_the_same() {
    let sandbox = Sandbox::new();
    let (_reader, stderr) = full_pipe();
    let script = "trap 'exit 0' TERM; echo $$; while :; do sleep 0.05 > /dev/null 2>&1; done";
    let verb = ["run", "--no-backoff", "--", "/bin/sh", "-c", script];
    let mut run = Process::start_with_stderr(sandbox.incumbent(verb), stderr);
    run.line();
    run.signal(Signal::TERM);
    run.wait(LIMIT);
    let (code, status) = sandbox.status();
    assert_eq!(code, 3, "{status:#}");
    let end = &sandbox.history()[0];
    assert_eq!(
        (&end["end_reason"], &end["exit_code"]),
        (&json!("signalled"), &json!(0)),
        "{end:#}"
    );

    // One that does not end when it is asked to: whoever wants its office gets it after the budget.
    for verb in [&["stop", "--force"][..], &["run", "--no-backoff", "--replace", "--", "true"]] {
        let (_reader, stderr) = full_pipe();
        let command =
            ["run", "--no-backoff", "--stop-budget", "300ms", "--", "/bin/sh", "-c", PATIENT];
        let mut run = Process::start_with_stderr(sandbox.incumbent(command), stderr);
        let command: u32 = run.line().trim().parse().unwrap();
        run.signal(Signal::TERM);
        assert_eq!(run.line(), "TERM");
        sandbox.begin(verb).finish(LIMIT).assert_code(0);
        run.wait(LIMIT);
        assert!(wait_ended(command, LIMIT), "{verb:?}: the command lives");
        let (code, status) = sandbox.status();
        assert_eq!(code, 3, "{verb:?}: {status:#}");
    }
}

/// The same where the end cannot be recorded either: that is told beside as well, and the run ends.
#[test]
fn a_run_that_can_neither_tell_nor_record_its_end_ends() {
    let sandbox = Sandbox::new();
    let (_reader, stderr) = full_pipe();
    let script = "trap 'exit 3' TERM; echo $$; while :; do sleep 0.05 > /dev/null 2>&1; done";
    let verb = ["run", "--no-backoff", "--", "/bin/sh", "-c", script];
    let mut run = Process::start_with_stderr(sandbox.incumbent(verb), stderr);
    run.line();
    let writer = stopped_writer(&sandbox);
    run.signal(Signal::TERM);
    assert_eq!(exit_code(run.wait(LIMIT)), 3);
    drop(writer);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// Whoever presses Ctrl-C knows who it was: it is on record, and nothing is printed into the
/// terminal. Symptom: the history did not know who had ended it, and a container on a terminal was
/// told that it had failed, as by a stranger's signal. Whoever sits there has started it.
#[test]
fn a_terminals_key_is_recorded_as_one_and_not_told() {
    if !has("script") {
        return skipped("needs script(1) of util-linux");
    }
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("gateway.sh"), "echo $$; exec cat").unwrap();
    let line = format!("exec '{BINARY}' run --no-backoff -- /bin/sh gateway.sh");
    let mut command = sandbox.program("script");
    command.args(["-qfec", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    let mut terminal = Process::start(command);
    terminal.line();
    terminal.write("\u{3}");
    let answer = terminal.finish_with_stdin_open(LIMIT).assert_code(130);
    assert!(!answer.out.contains("signal="), "{answer:#?}");
    let row = sandbox.newest_shutdown();
    assert_eq!((&row["signal_name"], &row["sender_pid"]), (&json!("SIGINT"), &Value::Null));
    assert!(row["sender"].as_str().unwrap().starts_with("a key at the terminal"), "{row:#}");
    assert_eq!(row["cause"], "supervisor_stop", "{row:#}");
    assert!(why(&row["snapshot"]["sender"]).contains("kernel"), "{row:#}");
    let end = &sandbox.history()[0];
    assert_eq!((&end["end_reason"], &end["signal"]), (&json!("signalled"), &json!(2)), "{end:#}");
    assert!(end["ended_by"].as_str().unwrap().starts_with("a key at the terminal"), "{end:#}");
    assert_eq!(end["detail"], Value::Null, "{end:#}");
    let text = sandbox.cli(["history"]).assert_code(0).out;
    assert!(text.contains("SIGINT from a key at the terminal"), "{text}");
}

/// FIELD-BUGS row 82: "phantom kills" that were somebody's debugger.
#[test]
fn a_tracer_is_named() {
    let words = ["strace", "-f", "-o", "/dev/null"];
    if !has("strace") || !works(&words) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let start = |json: &[&str]| {
        let verb = [json, &["forensics", "snapshot"]].concat();
        let tracer = Process::start(sandbox.under(&words, Path::new(BINARY), &verb));
        (tracer.pid(), tracer.finish(LIMIT).assert_code(0))
    };
    let (tracer, answer) = start(&["--json"]);
    let snapshot = answer.json();
    assert_complete(&snapshot);
    assert_eq!(snapshot["tracer_pid"], tracer, "{snapshot:#}");
    assert_eq!(snapshot["tracer"]["pid"], tracer, "{snapshot:#}");
    assert_eq!(snapshot["tracer"]["name"], "strace", "{snapshot:#}");
    let command = snapshot["tracer"]["cmdline"].as_str().unwrap();
    assert!(command.starts_with("strace -f -o /dev/null "), "{command}");
    let (tracer, answer) = start(&[]);
    let said = assert_log_line(answer.out.trim_end_matches('\n'));
    assert_eq!(said["tracer_pid"], tracer.to_string());
}
