//! Whether systemd gives the gateway as much time to stop as it takes.

use std::io;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::clock::Deadline;
use crate::forensics::{Fact, Unavailable};
use crate::process::command_line::redact;
use crate::span::Span;
use crate::stop_budget::StopPhases;
use crate::sys::{CaptureError, details};
use crate::words::words;
use crate::{span, stop_budget, sys};

/// How long the question may take, asked of both managers; with the 100 ms in which a killed
/// `systemctl` is reaped that is 2 s.
const ASK_WITHIN: Duration = Duration::from_millis(1_900);

/// How much of that the user's manager may use up: one that hangs must not hide the other's answer.
const USER_MANAGER_WITHIN: Duration = Duration::from_secs(1);

/// Two lines are asked for.
const ANSWER_LENGTH_MAX: usize = 64 * 1024;

/// Of what cannot be read this much is shown.
const SHOWN_MAX: usize = 60;

/// As systemd.unit(5) limits the name of a unit.
const UNIT_LENGTH_MAX: usize = 255;

words! {
    /// Who runs a unit. In JSON its word.
    pub enum Manager {
        /// The user's own: `systemctl --user`.
        User = "user",
        /// The machine's.
        System = "system",
    }
}

/// What systemd allows a gateway for its end, compared with what that takes. A unit that gives less
/// kills the gateway in the middle of it, and the next start finds what it could not put away.
///
/// ```
/// use incumbent::stop::StopPhases;
/// use incumbent::forensics::SystemdCheck;
/// use std::time::Duration;
///
/// let phases = StopPhases::draining_for(Duration::from_secs(60));
/// let check = SystemdCheck::of_this_process(&phases);
/// if let Some(warning) = check.warning() {
///     eprintln!("{warning}");
/// }
/// assert_eq!(check.expected_min, Duration::from_secs(90));
/// // What cannot be found out is not a mismatch, and says why.
/// let check = SystemdCheck::of_unit("no/unit", &phases);
/// assert!(check.mismatch.is_err() && check.reason().is_some() && check.warning().is_none());
/// ```
///
/// # JSON
/// An object with `unit`, `timeout_stop_sec` (seconds, or `"infinity"`), `drain_timeout` and
/// `expected_min` (seconds), `mismatch`, `manager`, `reason` and `advice`; null for what is
/// unavailable. Later versions may add others.
///
/// # References
/// systemd.service(5), `TimeoutStopSec=`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SystemdCheck {
    /// The service, e.g. `gateway.service`.
    pub unit: Fact<String>,
    /// The manager that knows it, if one was found.
    pub manager: Option<Manager>,
    /// How long after its SIGTERM systemd kills what is left. [`Span::Infinite`] if it never does;
    /// a setting of 0 says the same.
    pub timeout_stop: Fact<Span>,
    /// How long the gateway lets its work finish: [`StopPhases::drain`].
    pub drain_timeout: Duration,
    /// What the unit has to give at least: the stop budget, [`StopPhases::budget`].
    pub expected_min: Duration,
    /// Whether the unit gives less.
    pub mismatch: Fact<bool>,
}

impl SystemdCheck {
    /// Of the service that this process is in, by its cgroup: a service's environment is inherited
    /// by whatever is started in it, and proves nothing.
    ///
    /// Starts `systemctl`, unless there is no service. Takes 2 s at most, and never fails.
    ///
    /// # Platform
    /// Linux; elsewhere the unit is unavailable.
    #[must_use]
    pub fn of_this_process(phases: &StopPhases) -> Self {
        Self::of(own_unit(), phases)
    }

    /// Of the service `unit`; without a suffix it is a `.service`. Takes 2 s at most, and never
    /// fails.
    #[must_use]
    pub fn of_unit(unit: &str, phases: &StopPhases) -> Self {
        Self::of(unit_name(unit), phases)
    }

    /// The same where the name may not be known, see [`own_unit`].
    #[must_use]
    pub fn of(unit: Fact<String>, phases: &StopPhases) -> Self {
        Self::new(unit, phases.drain(), phases.budget())
    }

    fn new(unit: Fact<String>, drain_timeout: Duration, expected_min: Duration) -> Self {
        let answer = match &unit {
            Ok(unit) => ask(unit),
            Err(why) => Answer { manager: None, timeout_stop: Err(why.clone()) },
        };
        Self::judged(unit, answer, drain_timeout, expected_min)
    }

    fn judged(
        unit: Fact<String>,
        answer: Answer,
        drain_timeout: Duration,
        expected_min: Duration,
    ) -> Self {
        let mismatch = answer.timeout_stop.clone().map(|given| match given {
            Span::Finite(given) => given < expected_min,
            Span::Infinite => false,
        });
        let Answer { manager, timeout_stop } = answer;
        Self { unit, manager, timeout_stop, drain_timeout, expected_min, mismatch }
    }

    /// Why something is unavailable, as a clause for people; `None` where nothing is.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let unit = self.unit.as_ref().err();
        unit.or(self.timeout_stop.as_ref().err()).map(Unavailable::why)
    }

    /// What to do about a mismatch: the line, and where it belongs; `None` where there is none.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let (Ok(unit), Ok(true)) = (&self.unit, &self.mismatch) else { return None };
        let line = stop_budget::unit_line(self.expected_min);
        let unit = in_shell(unit);
        let command = match self.manager {
            Some(Manager::User) => format!("`systemctl --user edit {unit}`"),
            Some(Manager::System) | None => format!("`systemctl edit {unit}`, as root"),
        };
        Some(format!("put `{line}` under `[Service]` with {command}"))
    }

    /// A mismatch in words, with the advice.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let (Ok(unit), Ok(given), Some(advice)) = (&self.unit, &self.timeout_stop, self.advice())
        else {
            return None;
        };
        Some(format!(
            "{unit} is killed {given} after it is asked to stop, but may take {}: {advice}",
            Span::Finite(self.expected_min)
        ))
    }

    /// As `incumbent forensics systemd --json` shows it: seconds, `"infinity"`, and `null` for
    /// what is unavailable.
    fn document(&self) -> Value {
        let timeout_stop = self.timeout_stop.as_ref().ok().map(|given| match given {
            Span::Finite(given) => seconds(*given),
            Span::Infinite => json!("infinity"),
        });
        json!({
            "unit": self.unit.as_ref().ok(),
            "timeout_stop_sec": timeout_stop,
            "drain_timeout": seconds(self.drain_timeout),
            "expected_min": seconds(self.expected_min),
            "mismatch": self.mismatch.as_ref().ok(),
            "manager": self.manager.map(Manager::as_str),
            "reason": self.reason(),
            "advice": self.advice(),
        })
    }
}

impl Serialize for SystemdCheck {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

/// What to say when the service that this process is in, if it is in one, is killed before `budget`
/// is over. Takes 2 s at most; nothing is started, and no time taken, outside of a service.
pub(crate) fn warn_if_short(budget: Duration) -> Option<String> {
    let drain = StopPhases::of_budget(budget).drain();
    SystemdCheck::new(own_unit(), drain, budget).warning()
}

/// The service that this process is in, by its cgroup.
///
/// # Errors
/// Why it cannot be told, or that it is in none.
pub fn own_unit() -> Fact<String> {
    let (_, unit) = details::cgroup(std::process::id()).map_err(Unavailable::new)?;
    match unit.filter(|unit| unit.ends_with(".service")) {
        Some(unit) => unit_name(&unit),
        None => Err(Unavailable::new("this process is in no systemd service, by its cgroup")),
    }
}

/// What other units are called; systemd.unit(5).
const OTHER_UNITS: [&str; 10] = [
    ".scope",
    ".slice",
    ".socket",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".device",
];

/// `name` as that of one service, with its suffix: `systemctl` takes options and patterns in its
/// place.
///
/// ```
/// use incumbent::forensics::unit_name;
///
/// assert_eq!(unit_name("gateway").unwrap(), "gateway.service");
/// assert!(unit_name("--all").is_err() && unit_name("gateway.timer").is_err());
/// ```
///
/// # Errors
/// That it cannot be the name of one.
pub fn unit_name(name: &str) -> Fact<String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let unit = if name.ends_with(".service") { name.to_owned() } else { format!("{name}.service") };
    if unit.len() > UNIT_LENGTH_MAX
        || OTHER_UNITS.iter().any(|other| name.ends_with(other))
        || name.starts_with(['-', '.'])
        || name.is_empty()
        || !name.bytes().all(is_allowed)
    {
        let shown = shortened(name);
        return Err(Unavailable::new(format!("{shown} is not the name of a systemd service")));
    }
    Ok(unit)
}

/// What the managers say of a unit.
struct Answer {
    manager: Option<Manager>,
    timeout_stop: Fact<Span>,
}

/// Asks the user's manager, then the system's.
fn ask(unit: &str) -> Answer {
    let until = Deadline::after(ASK_WITHIN);
    let mut reasons = Vec::new();
    for manager in [Manager::User, Manager::System] {
        let within = match manager {
            Manager::User => USER_MANAGER_WITHIN,
            Manager::System => until.remaining(),
        };
        match ask_one(manager, unit, within) {
            Asked::Owns(timeout_stop) => {
                return Answer { manager: Some(manager), timeout_stop };
            }
            Asked::OwnsNot(why) => reasons.push(format!("{manager} manager: {why}")),
            Asked::Nobody(why) => {
                reasons = vec![why];
                break;
            }
        }
    }
    Answer { manager: None, timeout_stop: Err(Unavailable::new(reasons.join("; "))) }
}

/// What came of asking one manager.
#[derive(Debug, PartialEq)]
enum Asked {
    /// The unit is its own.
    Owns(Fact<Span>),
    /// It is not, or that cannot be told.
    OwnsNot(String),
    /// No manager can be asked.
    Nobody(String),
}

/// The `Restart=` of a unit, and whose it is; `None` where no manager says that it has it. Takes as
/// long as the check.
pub(super) fn restart_setting(unit: &str) -> Option<(Manager, String)> {
    let until = Deadline::after(ASK_WITHIN);
    for manager in [Manager::User, Manager::System] {
        let within = match manager {
            Manager::User => USER_MANAGER_WITHIN,
            Manager::System => until.remaining(),
        };
        match show(manager, unit, ["LoadState", "Restart"], within) {
            Ok(text) if value_of(&text, "LoadState") == Some("loaded") => {
                return Some((manager, value_of(&text, "Restart")?.to_owned()));
            }
            Err(Asked::Nobody(_)) => return None,
            Ok(_) | Err(_) => {}
        }
    }
    None
}

fn ask_one(manager: Manager, unit: &str, within: Duration) -> Asked {
    match show(manager, unit, ["LoadState", "TimeoutStopUSec"], within) {
        Ok(text) => read_answer(&text),
        Err(asked) => asked,
    }
}

/// What a manager prints of these properties of a unit; else what came of asking it.
fn show(
    manager: Manager,
    unit: &str,
    properties: [&str; 2],
    within: Duration,
) -> Result<String, Asked> {
    let mut command = sys::program("systemctl");
    if manager == Manager::User {
        command.arg("--user");
    }
    command
        .args(["show", unit])
        .args(properties.map(|property| format!("--property={property}")))
        .args(["--no-pager", "--no-ask-password"])
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0");
    Err(match sys::capture(&mut command, within, ANSWER_LENGTH_MAX) {
        Ok(sys::Captured { status: Some(status), .. }) if !status.success() => {
            Asked::OwnsNot(format!("systemctl failed ({status})"))
        }
        // Where its status is lost, what it printed speaks for itself.
        Ok(captured) => return Ok(String::from_utf8_lossy(&captured.bytes).into_owned()),
        Err(CaptureError::TimedOut) => {
            Asked::OwnsNot(format!("systemctl did not answer within {} ms", within.as_millis()))
        }
        Err(CaptureError::TooMuch) => {
            Asked::OwnsNot(format!("systemctl printed more than {ANSWER_LENGTH_MAX} bytes"))
        }
        Err(CaptureError::Start(error)) if error.kind() == io::ErrorKind::NotFound => {
            Asked::Nobody(format!("systemctl was not found in {}", sys::program_places()))
        }
        Err(CaptureError::Start(error)) => {
            Asked::Nobody(format!("systemctl cannot be started: {error}"))
        }
    })
}

/// The value of one property.
fn value_of<'a>(answer: &'a str, key: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))
}

/// Reads the lines `LoadState=` and `TimeoutStopUSec=`, in whatever order.
fn read_answer(answer: &str) -> Asked {
    let load_state = value_of(answer, "LoadState");
    // Of a unit that it does not know systemctl prints the defaults, and succeeds.
    if let Some(load_state) = load_state.filter(|state| *state != "loaded") {
        return Asked::OwnsNot(format!("the unit is {}", shortened(load_state)));
    }
    let Some(timeout) = value_of(answer, "TimeoutStopUSec") else {
        return Asked::OwnsNot("systemctl did not print TimeoutStopUSec".to_owned());
    };
    match (span::parse_usec(timeout), load_state) {
        // systemd reads a TimeoutStopSec of 0 as none.
        (Ok(Span::Finite(Duration::ZERO)), _) => Asked::Owns(Ok(Span::Infinite)),
        (Ok(timeout), _) => Asked::Owns(Ok(timeout)),
        (Err(_), Some(_)) => Asked::Owns(Err(Unavailable::new(format!(
            "TimeoutStopUSec is {}, which is not a time span",
            shortened(timeout)
        )))),
        (Err(_), None) => {
            Asked::OwnsNot(format!("TimeoutStopUSec is {}, not a time span", shortened(timeout)))
        }
    }
}

/// What somebody else printed, quoted, in one line and without what looks like a secret.
fn shortened(text: &str) -> String {
    let text = &redact::redact_line(text);
    let cut = text.floor_char_boundary(SHOWN_MAX);
    let more = if cut < text.len() { "..." } else { "" };
    format!("{:?}{more}", &text[..cut])
}

/// A unit's name as a shell takes it.
fn in_shell(unit: &str) -> String {
    if unit.contains('\\') { format!("'{unit}'") } else { unit.to_owned() }
}

/// A whole number where it is one.
fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 {
        json!(duration.as_secs())
    } else {
        json!(duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Span {
        Span::Finite(Duration::from_secs(seconds))
    }

    #[test]
    fn answers_of_systemctl() {
        let owns = |span| Asked::Owns(Ok(span));
        for (answer, expected) in [
            ("LoadState=loaded\nTimeoutStopUSec=1min 30s\n", owns(s(90))),
            ("TimeoutStopUSec=2min\nLoadState=loaded\n", owns(s(120))),
            ("TimeoutStopUSec=90000000\n", owns(s(90))),
            ("TimeoutStopUSec=infinity\nLoadState=loaded\n", owns(Span::Infinite)),
            ("TimeoutStopUSec=18446744073709551615\n", owns(Span::Infinite)),
            // config_parse_sec_fix_0 of systemd.
            ("TimeoutStopUSec=0\nLoadState=loaded\n", owns(Span::Infinite)),
            ("\r\nTimeoutStopUSec=500ms\r\n", owns(Span::Finite(Duration::from_millis(500)))),
        ] {
            assert_eq!(read_answer(answer), expected, "{answer}");
        }
        for (answer, why) in [
            ("LoadState=not-found\nTimeoutStopUSec=1min 30s\n", "\"not-found\""),
            ("LoadState=masked\nTimeoutStopUSec=1min 30s\n", "\"masked\""),
            ("LoadState=\nTimeoutStopUSec=1min 30s\n", "\"\""),
            ("LoadState=loaded\n", "did not print"),
            ("", "did not print"),
            ("\u{0}\u{1b}[31mgarbage", "did not print"),
            ("TimeoutStopUSec=soon\n", "\"soon\""),
            ("XTimeoutStopUSec=1s\nTimeoutStopUSecs=1s\n", "did not print"),
        ] {
            match read_answer(answer) {
                Asked::OwnsNot(found) => assert!(found.contains(why), "{answer}: {found}"),
                other => panic!("{answer}: {other:?}"),
            }
        }
        let Asked::Owns(Err(why)) = read_answer("LoadState=loaded\nTimeoutStopUSec=-\u{1b}[2J\n")
        else {
            panic!("a loaded unit belongs to who loaded it")
        };
        assert!(why.why().contains("\"-\\u{1b}[2J\""), "{why}");
    }

    #[test]
    fn a_name_is_one_service_and_no_option_or_pattern() {
        for (name, unit) in [
            ("gw.service", "gw.service"),
            ("gw", "gw.service"),
            ("gw@a\\x2db.service", "gw@a\\x2db.service"),
            ("a:b_c-1.2", "a:b_c-1.2.service"),
        ] {
            assert_eq!(unit_name(name).unwrap(), unit);
        }
        let long = "a".repeat(250);
        for name in
            ["", "-H", "--host=x", "*.service", "a b", "a/b", "a\nb", ".service", "\u{e4}", &long]
        {
            assert!(unit_name(name).is_err(), "{name:?}");
        }
    }

    fn check(unit: &str, manager: Manager, given: Fact<Span>, drain: Duration) -> SystemdCheck {
        let answer = Answer { manager: Some(manager), timeout_stop: given };
        let budget = StopPhases::draining_for(drain).budget();
        SystemdCheck::judged(Ok(unit.to_owned()), answer, drain, budget)
    }

    /// FIELD-BUGS 85: the whole matrix, to the microsecond. A budget that is just met is met.
    #[test]
    fn less_than_the_budget_is_a_mismatch() {
        let us = Duration::from_micros(1);
        for drain_s in [0, 1, 30, 60, 180, 3_570] {
            let drain = Duration::from_secs(drain_s);
            let least = drain + Duration::from_secs(30);
            for (given, mismatch) in [
                (us, true),
                (drain.max(us), true),
                (least.saturating_sub(us), true),
                (least, false),
                (least + us, false),
                (Duration::from_secs(100_000), false),
            ] {
                let check = check("gw.service", Manager::System, Ok(Span::Finite(given)), drain);
                assert_eq!(check.mismatch, Ok(mismatch), "{given:?} for {drain:?}");
                assert_eq!(check.advice().is_some(), mismatch);
                assert_eq!(check.expected_min, least);
            }
            let forever = check("gw.service", Manager::System, Ok(Span::Infinite), drain);
            assert_eq!(forever.mismatch, Ok(false));
        }
    }

    #[test]
    fn the_advice_names_line_section_and_command() {
        let minute = Duration::from_mins(1);
        let user = check("gw@a\\x2db.service", Manager::User, Ok(s(45)), minute);
        assert_eq!(
            user.warning().unwrap(),
            "gw@a\\x2db.service is killed 45s after it is asked to stop, but may take 90s: put \
             `TimeoutStopSec=90s` under `[Service]` with `systemctl --user edit \
             'gw@a\\x2db.service'`"
        );
        let system = check("gw.service", Manager::System, Ok(s(45)), minute);
        assert_eq!(
            system.advice().unwrap(),
            "put `TimeoutStopSec=90s` under `[Service]` with `systemctl edit gw.service`, as root"
        );
    }

    #[test]
    fn where_there_is_no_systemd_it_says_so() {
        match own_unit() {
            Ok(unit) => assert!(unit.ends_with(".service"), "{unit}"),
            Err(why) if std::env::consts::OS == "linux" => {
                assert!(why.why().contains("in no systemd service"), "{why}");
            }
            Err(why) => assert!(why.why().contains("there is no systemd on"), "{why}"),
        }
        let check = SystemdCheck::of_this_process(&StopPhases::default());
        assert_eq!(check.unit.is_err(), own_unit().is_err());
    }

    #[test]
    fn what_cannot_be_told_is_null_and_has_a_reason() {
        let keys = [
            "unit",
            "timeout_stop_sec",
            "drain_timeout",
            "expected_min",
            "mismatch",
            "manager",
            "reason",
            "advice",
        ];
        let drain = Duration::from_millis(1_500);
        let unknown = check("gw.service", Manager::User, Err(Unavailable::new("why")), drain);
        let json = json!(unknown);
        assert!(json.as_object().unwrap().keys().eq(keys));
        assert_eq!(
            json,
            json!({
                "unit": "gw.service", "timeout_stop_sec": null, "drain_timeout": 1.5,
                "expected_min": 31.5, "mismatch": null, "manager": "user", "reason": "why",
                "advice": null,
            })
        );
        let forever = json!(check("gw.service", Manager::System, Ok(Span::Infinite), drain));
        assert_eq!(forever["timeout_stop_sec"], "infinity");
        assert_eq!(forever["mismatch"], false);
        assert_eq!(forever["reason"], Value::Null);
        let no_unit = Err(Unavailable::new("no unit"));
        let no_unit = SystemdCheck::new(no_unit, drain, drain);
        assert_eq!((no_unit.reason(), no_unit.warning()), (Some("no unit"), None));
        assert_eq!(json!(no_unit)["unit"], Value::Null);
    }
}
