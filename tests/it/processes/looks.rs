//! What is said of the process that has a pid, and what is not guessed.

use incumbent::process::{self, Existence, Fact};
use incumbent::{Reason, Verdict};
use rustix::process::Signal;

use crate::support::{
    LIMIT, Process, Sandbox, WITHOUT_MAIN_THREAD, ask, eventually, has, nobody_with_hidepid,
    skipped, wait_ended, wait_stopped,
};

/// A program that says something once it runs, and lives until its standard input is closed.
fn speaker(sandbox: &Sandbox) -> Process {
    let mut process = Process::start(sandbox.shell("echo here; exec cat"));
    assert_eq!(process.line(), "here");
    process
}

#[test]
fn a_process_is_looked_at_from_its_start_to_its_end() {
    let sandbox = Sandbox::new();
    let mut speaker = speaker(&sandbox);
    let pid = speaker.pid();
    eventually("cat runs", LIMIT, || {
        let words = process::command_line(pid).unwrap();
        (words == Fact::Known(vec!["cat".to_owned()])).then_some(())
    });
    assert_eq!(process::exists(pid).unwrap(), Existence::Present);
    let Fact::Known(started) = process::start_time(pid).unwrap() else { panic!("hidden") };
    // Stopped is not dead.
    speaker.signal(Signal::STOP);
    wait_stopped(pid);
    assert_eq!(process::exists(pid).unwrap(), Existence::Present);
    assert_eq!(process::start_time(pid).unwrap(), Fact::Known(started));
    speaker.signal(Signal::KILL);
    assert!(wait_ended(pid, LIMIT));
    // FIELD-BUGS row 19: a zombie, which `kill(pid, 0)` takes for the living.
    assert_eq!(process::exists(pid).unwrap(), Existence::Gone);
    assert_eq!(process::start_time(pid).unwrap(), Fact::Gone);
    assert_eq!(process::command_line(pid).unwrap(), Fact::Gone);
    speaker.wait(LIMIT);
    assert_eq!(process::exists(pid).unwrap(), Existence::Gone);
}

/// FIELD-BUGS row 19, the other way round: state Z is only the end of the first thread.
#[test]
fn a_process_without_its_first_thread_lives() {
    if !has("python3") {
        return skipped("needs python3");
    }
    let sandbox = Sandbox::new();
    let mut command = sandbox.program("python3");
    command.args(["-c", WITHOUT_MAIN_THREAD]);
    let mut alone = Process::start(command);
    assert_eq!(alone.line(), "alone");
    assert_eq!(process::exists(alone.pid()).unwrap(), Existence::Present);
    assert_eq!(
        super::verdict(&super::reference(&alone)),
        (Verdict::Alive, Reason::StartTimeMatches)
    );
    // It shows no command line any more, and nobody may say that it has none.
    assert_eq!(process::command_line(alone.pid()).unwrap(), Fact::Unknown);
    alone.finish(LIMIT).assert_code(0);
}

/// kill(2) takes the number of a thread for a pid.
#[test]
fn the_number_of_a_thread_is_no_pid() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let id = rustix::thread::gettid().as_raw_nonzero().get();
        sender.send(u32::try_from(id).unwrap()).unwrap();
        let _ = waits.recv();
    });
    let id = receiver.recv().unwrap();
    assert_eq!(process::exists(id).unwrap(), Existence::Gone);
    drop(go_on);
    thread.join().unwrap();
}

/// FIELD-BUGS rows 92 and 110: without a descriptor nothing can be seen, and nothing is answered.
#[test]
fn a_shortage_of_our_own_is_an_error_and_no_answer() {
    let sandbox = Sandbox::new();
    let worker = speaker(&sandbox);
    let (pid, stored) = (worker.pid(), super::reference(&worker));
    let mut asker = sandbox.asker();
    assert!(ask(&mut asker, "starved me").starts_with("error busy: "));
    let orders = [
        format!("exists {pid}"),
        format!("start_time {pid}"),
        format!("command_line {pid}"),
        format!("ref {pid}"),
        format!("alive {stored}"),
        format!("terminate {stored}"),
        format!("tree {stored}"),
    ];
    // Before it has learned anything, and after.
    for _ in 0..2 {
        for order in &orders {
            let answer = ask(&mut asker, &format!("starved {order}"));
            assert!(answer.starts_with("error busy: "), "{order}: {answer}");
        }
        assert_eq!(ask(&mut asker, &format!("alive {stored}")), "alive start_time_matches");
        assert!(!ask(&mut asker, "me").starts_with("error"));
        // What it knows of itself by now needs no look.
        assert_eq!(ask(&mut asker, "starved me"), ask(&mut asker, "me"));
    }
    worker.finish(LIMIT).assert_code(0);
}

/// R:HIDEPID. FIELD-BUGS rows 11 and 31: what cannot be looked at is unknown, and is not dead.
#[test]
fn what_is_hidden_is_not_gone() {
    let Some(words) = nobody_with_hidepid() else {
        return skipped("needs root, and leave to mount /proc");
    };
    let sandbox = Sandbox::new();
    sandbox.open_to_nobody();
    let program = sandbox.copy_of_this_program();
    let hidden = speaker(&sandbox);
    let pid = hidden.pid();
    let stored = super::reference(&hidden);
    let mut nobody = Process::start(sandbox.asker_within(words, &program));
    let its_child = nobody.line();
    assert_eq!(ask(&mut nobody, &format!("exists {pid}")), "present");
    assert_eq!(ask(&mut nobody, &format!("start_time {pid}")), "Unknown");
    assert_eq!(ask(&mut nobody, &format!("command_line {pid}")), "Unknown");
    let text = stored.to_string();
    let number = stored.number();
    if let Some(number) = number {
        // The kernel's number needs no /proc (Linux 6.9).
        let alive = ask(&mut nobody, &format!("alive {text}"));
        assert_eq!(alive, "alive start_time_matches");
        assert!(
            ask(&mut nobody, &format!("ref {pid}")).starts_with(&format!("p1.{pid}.n{number}."))
        );
        let without = text.replace(&format!(".n{number}"), "");
        assert_eq!(ask(&mut nobody, &format!("alive {without}")), "unknown not_verifiable");
        let refused = ask(&mut nobody, &format!("terminate {without}"));
        assert!(refused.starts_with("error unsupported: cannot tell"), "{refused}");
    } else {
        let refused = ask(&mut nobody, &format!("ref {pid}"));
        assert!(refused.starts_with("error unsupported: nothing can be seen"), "{refused}");
    }
    // What may not be signalled is said to be that, and lives on.
    let refused = ask(&mut nobody, &format!("terminate {text}"));
    let kind = if number.is_some() { "error permission: " } else { "error unsupported: " };
    assert!(refused.starts_with(kind), "{refused}");
    // Descendants of its own user, and no others, can be looked for: that is said.
    let child = ask(&mut nobody, &format!("ref {its_child}"));
    assert_eq!(ask(&mut nobody, &format!("tree {child}")), "ended own_user_only");
    drop(hidden);
    assert_eq!(ask(&mut nobody, &format!("exists {pid}")), "gone");
}
