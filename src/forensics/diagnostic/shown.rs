//! What may be shown: of other processes, and of what programs print.

use std::path::PathBuf;
use std::time::Duration;

use crate::process::command_line;
use crate::process::command_line::redact;
use crate::records::Identities;
use crate::sys::Pid;
use crate::{OpenOptions, sys};

/// The OOM killer's report of one kill is longer, but its verdict stands in the last lines.
pub(super) const MESSAGES_MAX: usize = 20;

/// How long the store may take to say what is locked, which is a matter of milliseconds on an idle
/// machine.
pub(super) const IDENTITIES_WITHIN: Duration = Duration::from_secs(2);

/// What may be shown of others.
pub(super) struct Shown {
    /// What is locked; or why nobody knows.
    pub(super) identities: Result<Identities, String>,
}

impl Default for Shown {
    /// There is no store.
    fn default() -> Self {
        Self { identities: Ok(Identities::default()) }
    }
}

impl Shown {
    pub(super) fn identities_of(store: PathBuf) -> Result<Identities, String> {
        let identities = OpenOptions::new()
            .path(store)
            .single_reader()
            .busy_budget(IDENTITIES_WITHIN)
            .open_existing()
            .and_then(|store| store.map(|store| store.inner.read(Identities::read)).transpose());
        identities.map(Option::unwrap_or_default).map_err(|error| error.to_string())
    }

    /// The command line of a process, redacted, or what else says what it is.
    pub(super) fn process(&self, pid: Pid) -> String {
        let arguments = sys::command_line(pid);
        match (arguments.filter(|_| self.identities.is_ok()), sys::program_name(pid)) {
            (Some(arguments), _) => self.command(arguments),
            (None, Some(name)) => format!("[{}]", redact::redact_line(&name)),
            (None, None) => "(ended, or not to be seen)".to_owned(),
        }
    }

    fn command(&self, arguments: Vec<String>) -> String {
        let known = self.identities.as_ref();
        known.map_or_else(
            |_| String::new(),
            |known| command_line::display(&known.command(arguments)),
        )
    }
}

/// What a program said, or the end of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Printed {
    /// Its pid.
    pub(super) by: Pid,
    pub(super) text: String,
    /// The beginning was too much.
    pub(super) is_cut: bool,
}

impl Printed {
    /// Tells that only some of these are shown.
    pub(super) fn count(&self, shown: usize, all: usize) -> String {
        let more = if self.is_cut { "more than " } else { "" };
        format!("({shown} of {more}{all})")
    }
}

pub(super) fn last_lines(said: &Printed, of: &Shown) -> Vec<String> {
    let lines: Vec<&str> = said.text.lines().collect();
    let from = lines.len().saturating_sub(MESSAGES_MAX);
    // What is locked could stand in any of them.
    let known = match &of.identities {
        Ok(known) => known,
        Err(why) => return vec![format!("unavailable: its lines are not shown: {why}")],
    };
    let mut shown: Vec<String> = lines[from..].iter().map(|line| known.line(line)).collect();
    shown.push(said.count(lines.len() - from, lines.len()));
    shown
}

pub(super) fn seconds(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1_000 { format!("{ms} ms") } else { format!("{:.1} s", duration.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIELD-BUGS 87: a dump with a token in it was pasted into a public place.
    #[test]
    fn secrets_of_command_lines() {
        let check = |arguments: &[&str], expected: &str| {
            let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
            let shown = Shown::default().command(arguments);
            assert_eq!(shown, expected);
            assert!(!shown.contains("hunter2"), "{shown}");
        };
        check(&["gw", "--token=hunter2", "-v"], "gw --token=<redacted> -v");
        check(&["gw", "--api-key", "hunter2", "run"], "gw --api-key <redacted> run");
        check(
            &["sh", "-c", "exec gw --api-key hunter2 run"],
            r#"sh -c "exec gw --api-key <redacted>""#,
        );
        check(
            &["sh", "-c", "A=1 gw --token=hunter2 run"],
            r#"sh -c "A=1 gw --token=<redacted> run""#,
        );
        check(&["sh", "-c", "x; TOKEN='hunter2' gw"], r#"sh -c "x; TOKEN='<redacted>' gw""#);
        check(&["sh", "-c", "a=1 TOKEN='hunter2' gw"], r#"sh -c "a=1 TOKEN='<redacted>' gw""#);
        check(&["gw", r#"{"a":1,"token":"hunter2"}"#], r#"gw {"a":1,"token":"<redacted>"}"#);
        check(&["curl", "https://h/?a=1&token=hunter2"], "curl https://h/?a=1&token=<redacted>");
        check(&["gw: --password 'hunter2 hunter2'"], r#""gw: --password <redacted>""#);
        check(&["sh", "-c", "A=1 gw --pin=1234 x"], r#"sh -c "A=1 gw --pin=<redacted> x""#);
        check(&["gateway", "run", "--profile", "work"], "gateway run --profile work");
    }
}
