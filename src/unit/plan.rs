//! What is to be supervised, and the command line that its supervisor executes.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::forensics::unit_name;
use crate::names::hex;
use crate::process::exit_code::{ExitCause, Supervisor};
use crate::span::Span;
use crate::{Error, Result, stop_budget};

/// A command that a supervisor is to run in an office: what `incumbent unit` prints.
///
/// The supervisor starts `incumbent run`, with the column of
/// [`ExitCodes`](crate::exit::ExitCodes) that is its own. With [`Unit::says_ready`] or
/// [`Unit::socket`] it starts `incumbent run --exec`, which becomes the command.
///
/// ```
/// use incumbent::exit::Supervisor;
/// use incumbent::stop::StopPhases;
/// use incumbent::unit::Unit;
/// use std::time::Duration;
///
/// let phases = StopPhases::draining_for(Duration::from_secs(60));
/// let unit = Unit::new(Supervisor::Systemd, "work", ["/opt/gateway", "--greeting", "100 %"])
///     .program("/usr/bin/incumbent")
///     .options(["--profile", "work"])
///     .stop_budget(phases.budget());
/// let files = unit.files()?;
/// assert_eq!((files[0].name.as_str(), files[0].mode), ("work.service", 0o644));
/// let text = String::from_utf8(files[0].contents.clone())?;
/// assert!(text.contains(&phases.unit_line()));
/// assert!(text.contains(" -- /opt/gateway --greeting \"100 %%\"\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "it is a description: `files` says what to write"]
pub struct Unit {
    pub(super) supervisor: Supervisor,
    pub(super) name: String,
    pub(super) command: Vec<OsString>,
    program: PathBuf,
    options: Vec<OsString>,
    run_options: Vec<OsString>,
    pub(super) budget: Duration,
    pub(super) says_ready: bool,
    pub(super) sockets: Vec<String>,
}

impl Unit {
    /// The program `command[0]` with its arguments, for `supervisor`, which calls it `name`. It is
    /// started by an `incumbent` on the path, in the default office, and has the default stop
    /// budget of 90 s.
    pub fn new(
        supervisor: Supervisor,
        name: impl Into<String>,
        command: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        let name = name.into();
        Self {
            supervisor,
            // As systemctl takes either.
            name: name.strip_suffix(".service").unwrap_or(&name).to_owned(),
            command: command.into_iter().map(Into::into).collect(),
            program: PathBuf::from("incumbent"),
            options: Vec::new(),
            run_options: Vec::new(),
            budget: Duration::from_millis(stop_budget::DEFAULT_MS),
            says_ready: false,
            sockets: Vec::new(),
        }
    }

    /// The `incumbent` program, where the unit is used. systemd looks for a name without a
    /// directory in places of its own, and not on a user's path.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }

    /// Options of `incumbent` itself, which stand before `run`: `["--profile", "work"]`.
    pub fn options(mut self, words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.options.extend(words.into_iter().map(Into::into));
        self
    }

    /// Further options of `run`, as they are: `["--lock-env", "token=BOT_TOKEN"]`.
    pub fn run_options(mut self, words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.run_options.extend(words.into_iter().map(Into::into));
        self
    }

    /// How long the command may take to stop, at most an hour: what
    /// [`StopPhases::budget`](crate::stop::StopPhases::budget) says. The run publishes it, and the
    /// supervisor gives at least as much.
    pub fn stop_budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// The command tells systemd by `READY=1` when it has started (`Type=notify`). It is started by
    /// `run --exec`, so that it is itself the process that systemd listens to.
    pub fn says_ready(mut self) -> Self {
        self.says_ready = true;
        self
    }

    /// systemd listens on `address` (`ListenStream=` of systemd.socket(5): a port, an address with
    /// one, the path of a socket), and hands the socket to the command, which `run --exec` starts.
    /// May be repeated.
    pub fn socket(mut self, address: impl Into<String>) -> Self {
        self.sockets.push(address.into());
        self
    }

    /// What the supervisor executes: the program, then each of its arguments, unquoted.
    #[must_use]
    pub fn command_line(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.program.clone().into()];
        words.extend(self.options.iter().cloned());
        words.push("run".into());
        if self.is_executed() {
            // Exit codes are the command's own then.
            words.push("--exec".into());
        } else {
            words.extend(["--supervisor", self.supervisor.as_str()].map(OsString::from));
        }
        if self.supervisor == Supervisor::S6 {
            // `s6-svc -r` is a SIGTERM after which the service is wanted up. With the code of an
            // end for good, 0, the finish script would keep it down. After `s6-svc -d` nobody asks
            // for the code.
            let rule = format!("{}={S6_STOPPED}", ExitCause::SupervisorStop);
            words.extend(["--exit-code", &rule].map(OsString::from));
        }
        let budget = Span::Finite(self.budget).to_string();
        words.extend(["--stop-budget", &budget, "--respect-desired"].map(OsString::from));
        words.extend(self.run_options.iter().cloned());
        words.push("--".into());
        words.extend(self.command.iter().cloned());
        words
    }

    /// Whether `run` becomes the command, in place of staying beside it.
    pub(super) fn is_executed(&self) -> bool {
        self.says_ready || !self.sockets.is_empty()
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.command.first().is_none_or(|program| program.is_empty()) {
            return Err(Error::invalid("the command is empty"));
        }
        unit_name(&self.name).map_err(|why| {
            Error::invalid(why.why().to_owned())
                .with_hint("name one service, e.g. `gateway`: letters, digits and `:-_.@`")
        })?;
        stop_budget::published_ms(self.budget)?;
        if self.is_executed() && self.supervisor != Supervisor::Systemd {
            let what = if self.says_ready { "READY=1" } else { "sockets that are handed over" };
            return Err(Error::invalid(format!("{} does not support {what}", self.supervisor))
                .with_hint("both are for systemd"));
        }
        Ok(())
    }
}

/// What a run under s6 that s6 itself has asked to stop ends with: 128 + SIGTERM.
const S6_STOPPED: u8 = 143;

/// A word of the command line in a file that holds text, and no bytes of another encoding.
pub(super) fn text<'a>(word: &'a OsStr, what: &str) -> Result<&'a str> {
    word.to_str().ok_or_else(|| {
        let shown = word.to_string_lossy();
        Error::invalid(format!("{shown:?} is not UTF-8, and {what} can hold nothing else"))
            .with_hint("put it into a script, and name the script as the command")
    })
}

/// A file that a supervisor reads. In JSON an object with `name`, `mode` (octal, as `chmod` takes
/// it) and `text`; what is not UTF-8 has all its bytes beside it, in hex, as `text_bytes`. Later
/// versions may add others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnitFile {
    /// What it is called: `work.service`; `work/run` for a file of a directory.
    pub name: String,
    /// Its mode: `0o755` for a script.
    pub mode: u32,
    /// What it holds. Text, but for words of a script that are not UTF-8.
    pub contents: Vec<u8>,
}

/// What others read.
pub(super) const PLAIN_MODE: u32 = 0o644;

impl UnitFile {
    pub(super) fn of_text(name: String, text: String) -> Self {
        Self { name, mode: PLAIN_MODE, contents: text.into_bytes() }
    }
}

impl Serialize for UnitFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = json!({
            "name": self.name,
            "mode": format!("{:04o}", self.mode),
            "text": String::from_utf8_lossy(&self.contents),
        });
        if str::from_utf8(&self.contents).is_err() {
            document["text_bytes"] = hex(&self.contents).into();
        }
        document.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::process::exit_code::ExitCodes;

    fn gateway(supervisor: Supervisor) -> Unit {
        Unit::new(supervisor, "work", ["/opt/gateway"])
    }

    fn words(unit: &Unit) -> String {
        let words: Vec<_> = unit.command_line().into_iter().map(OsString::into_string).collect();
        words.into_iter().map(|word| word.unwrap() + " ").collect()
    }

    #[test]
    fn the_command_line_by_supervisor() {
        let rest = "--stop-budget 90s --respect-desired -- /opt/gateway ";
        for (unit, before) in [
            (gateway(Supervisor::Systemd), "incumbent run --supervisor systemd"),
            (gateway(Supervisor::Launchd), "incumbent run --supervisor launchd"),
            (
                gateway(Supervisor::S6),
                "incumbent run --supervisor s6 --exit-code supervisor_stop=143",
            ),
            (gateway(Supervisor::Docker), "incumbent run --supervisor docker"),
            (gateway(Supervisor::Systemd).says_ready(), "incumbent run --exec"),
            (gateway(Supervisor::Systemd).socket("80"), "incumbent run --exec"),
            (
                gateway(Supervisor::Docker).program("/i").options(["--profile", "work"]),
                "/i --profile work run --supervisor docker",
            ),
        ] {
            assert_eq!(words(&unit), format!("{before} {rest}"));
        }
        let unit = gateway(Supervisor::Docker)
            .stop_budget(Duration::from_millis(1_500))
            .run_options(["--wait", "--lock-env", "a=B"]);
        let expected = "--stop-budget 1500ms --respect-desired --wait --lock-env a=B -- ";
        assert!(words(&unit).contains(expected), "{}", words(&unit));
    }

    /// Under s6 a stop that is followed by a start is told from one that is not by nothing else.
    #[test]
    fn the_code_of_a_restart_by_s6_is_none_of_the_others() {
        let codes = ExitCodes::of(Supervisor::S6);
        for cause in [ExitCause::PlannedStop, ExitCause::TakenOver, ExitCause::DesiredStopped] {
            assert_ne!(codes.code(cause, 0, Some(15)), i32::from(S6_STOPPED), "{cause}");
        }
    }

    #[test]
    fn what_no_supervisor_could_do_is_refused() {
        let an_hour = Duration::from_hours(1);
        let mut wrong = vec![
            Unit::new(Supervisor::S6, "work", [""; 0]),
            Unit::new(Supervisor::S6, "work", [""]),
            gateway(Supervisor::None),
            gateway(Supervisor::S6).stop_budget(an_hour + Duration::from_millis(1)),
            gateway(Supervisor::Launchd).says_ready(),
            gateway(Supervisor::Docker).socket("80"),
        ];
        for name in ["", "a b", "../up", "-x", "a/b", "*", "%n", "gateway.timer", "a\nb"] {
            wrong.push(Unit::new(Supervisor::Systemd, name, ["/opt/gateway"]));
        }
        for unit in wrong {
            let error = unit.files().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{unit:?}: {error}");
        }
        assert!(gateway(Supervisor::S6).stop_budget(an_hour).files().is_ok());
        let named = Unit::new(Supervisor::Systemd, "work.service", ["/opt/gateway"]);
        assert_eq!(named.files().unwrap()[0].name, "work.service");
    }

    #[test]
    fn a_file_in_json() {
        let file = UnitFile { name: "a/run".to_owned(), mode: 0o755, contents: b"x\n".to_vec() };
        assert_eq!(json!(file), json!({"name": "a/run", "mode": "0755", "text": "x\n"}));
        let file = UnitFile { contents: b"x\xff".to_vec(), ..file };
        assert_eq!(json!(file)["text_bytes"], "78ff");
    }
}
