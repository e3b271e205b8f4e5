//! Helpers that have to be processes of their own and link the library: this very test program,
//! started again. Its environment names the part to play; it takes orders on standard input and
//! answers on standard error, which the test harness leaves alone.

use std::fmt::Display;
use std::process::Command;

use serde_json::Value;

use super::{Process, Sandbox};

/// Names the part; see [`Sandbox::role`].
const ROLE: &str = "IT_ROLE";

/// The name that the harness knows a test of the calling module by:
/// `claims::contention::of_thirty`. It is derived, so that a test which plays a part may be moved
/// like any other.
macro_rules! test_name {
    ($test:ident) => {{
        let _: fn() = $test;
        $crate::support::without_crate(concat!(module_path!(), "::", stringify!($test)))
    }};
}
pub(crate) use test_name;

/// See [`test_name`].
pub const fn without_crate(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut at = 0;
    while bytes[at] != b':' {
        at += 1;
    }
    path.split_at(at + "::".len()).1
}

/// Ends a shell script, and plays the part that [`set_role`] has set in its environment.
pub const AS_ROLE: &str = "exec \"$IT_PROGRAM\" --exact \"$IT_TEST\" --nocapture --test-threads=1";

/// For a script that ends with [`AS_ROLE`].
pub fn set_role(script: &mut Command, test: &str, role: &str) {
    script.env(ROLE, role).env("IT_PROGRAM", std::env::current_exe().unwrap()).env("IT_TEST", test);
}

impl Sandbox {
    /// Starts this test program in `role`, for a module's `role` test to play.
    ///
    /// `test` is the [`test_name`] of that test: it returns at once where [`role`] is `None`.
    pub fn role(&self, test: &str, role: &str) -> Process {
        Process::start(self.role_command(test, role))
    }

    pub fn role_command(&self, test: &str, role: &str) -> Command {
        let mut command = self.program(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
        command
    }
}

/// The part that this process plays, if it was started to play one.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Whether this process was started to play that part.
pub fn plays(part: &str) -> bool {
    role().as_deref() == Some(part)
}

/// The store that a role works on.
pub fn role_db() -> std::path::PathBuf {
    std::env::var_os("INCUMBENT_DB").unwrap().into()
}

/// Waits for an order of the test; `None` when the test is gone.
pub fn order() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).unwrap();
    (read > 0).then(|| line.trim().to_owned())
}

/// Answers the orders of the test until it is gone: one order a line, one answer a line.
pub fn obey_orders<A: Display>(mut obey: impl FnMut(&str) -> A) {
    while let Some(order) = order() {
        let answer = obey(&order);
        say_for_certain(&format!("=> {answer}\n"));
    }
}

/// Gives a role an order, returns the answer.
#[track_caller]
pub fn ask(role: &mut Process, order: &str) -> String {
    role.say(order);
    told(role)
}

/// What a role says next.
#[track_caller]
pub fn told(role: &mut Process) -> String {
    let line = role.err_line_with("=> ");
    line.split_once("=> ").unwrap().1.to_owned()
}

/// [`ask`], of a role that answers in JSON.
#[track_caller]
pub fn ask_json(role: &mut Process, order: &str) -> Value {
    role.say(order);
    told_json(role)
}

/// [`told`], of a role that answers in JSON.
#[track_caller]
pub fn told_json(role: &mut Process) -> Value {
    let text = told(role);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Writes to standard error although a call that is injected fails: std takes EBADF there for a
/// stream that nobody wants, and whoever waits for the answer would wait for ever.
fn say_for_certain(line: &str) {
    let written = |_| rustix::io::write(rustix::stdio::stderr(), line.as_bytes()).is_ok();
    assert!((0..3).any(written), "nobody hears {line:?}");
}
