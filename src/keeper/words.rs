//! The arguments of a keeper. They show in lists of processes, where they say what it is for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::keeper::target::Target;
use crate::keeper::tenant::Tenant;
use crate::process::helper::HelperProgram;
use crate::sys::{ProcessNumber, StartTime, StartTimeUnit, supervise};
use crate::{Durability, Error, ErrorKind, InstanceId, OpenOptions, Result, sys};

/// The hidden verb of a keeper.
pub(crate) const VERB: &str = "__keeper";

/// That of the second one.
pub(crate) const VERB_OF_SECOND: &str = "__keeper-second";

/// In the place of the first one: there is none yet, and this one is to be it.
pub(super) const NO_FIRST: sys::Pid = 0;

/// The word for [`Durability::Full`].
const FULL: &str = "full";

/// What a keeper is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(super) db: PathBuf,
    pub(super) profile: String,
    /// The kind of office to claim; without it, a row for locks is made.
    pub(super) kind: Option<String>,
    pub(super) home: Option<PathBuf>,
    pub(super) pid: sys::Pid,
    pub(super) start_time: Option<StartTime>,
    pub(super) allowed_filesystems: Vec<String>,
    /// What survives a power loss of what it grants.
    pub(super) durability: Durability,
    /// Of a process that acts only while it has its office.
    pub(super) tenant: Option<Tenant>,
    /// What it was started with, where that may not be its own program.
    pub(super) helper: Option<ChosenHelper>,
}

/// A program for helpers that was named. It may be an interpreter: a keeper does not know the words
/// that led to it then, and has to start the other one. Or it may be a launcher, which is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChosenHelper {
    pub(super) program: HelperProgram,
    /// Whoever has started it.
    pub(super) starter: sys::Pid,
}

/// What the second one is started with beside these: the anchor that both hold, as what it is open
/// there, and the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WordsOfSecond {
    pub(super) anchor: String,
    pub(super) descriptor: i32,
    pub(super) first: sys::Pid,
}

impl Words {
    pub(super) fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        add("--db", self.db.clone().into());
        add("--pid", self.pid.to_string().into());
        add("--profile", self.profile.clone().into());
        if let Some(kind) = &self.kind {
            add("--kind", kind.into());
        }
        if let Some(home) = &self.home {
            add("--home", home.into());
        }
        if let Some(start_time) = self.start_time {
            add("--start-time", start_time.value.to_string().into());
            add("--start-time-unit", start_time.unit.as_str().into());
        }
        for kind in &self.allowed_filesystems {
            add("--allow-filesystem", kind.into());
        }
        if self.durability == Durability::Full {
            add("--durability", FULL.into());
        }
        if let Some(Tenant { instance, budget, locks, number }) = &self.tenant {
            add("--ends-with", instance.as_i64().to_string().into());
            add("--ends-within-ms", budget.as_millis().to_string().into());
            for fence in locks {
                add("--ends-with-lock", fence.to_string().into());
            }
            if let Some(number) = number {
                add("--process-number", number.0.to_string().into());
            }
        }
        if let Some(ChosenHelper { program, starter }) = &self.helper {
            add("--starter", starter.to_string().into());
            add("--helper", program.path().into());
            for argument in program.arguments() {
                add("--helper-argument", argument.clone());
            }
        }
        arguments
    }

    /// `None` for arguments that are not ours.
    pub(super) fn parse(arguments: &[OsString]) -> Option<(Self, Option<WordsOfSecond>)> {
        let mut words = Self::default();
        let (mut start_time, mut unit) = (None, None);
        let (mut anchor, mut descriptor, mut first) = (None, None, None);
        let (mut starter, mut program) = (None, None);
        let (mut ends_with, mut ends_within, mut number) = (None, None, None);
        let mut locks = Vec::new();
        let (pairs, rest) = arguments.as_chunks::<2>();
        for [name, value] in pairs {
            let text = || value.to_str().map(str::to_owned);
            match name.to_str()? {
                "--db" => words.db = value.into(),
                "--home" => words.home = Some(value.into()),
                "--profile" => words.profile = text()?,
                "--kind" => words.kind = Some(text()?),
                "--pid" => words.pid = text()?.parse().ok()?,
                "--start-time" => start_time = Some(text()?.parse().ok()?),
                "--start-time-unit" => unit = Some(StartTimeUnit::parse(value.to_str()?)?),
                "--allow-filesystem" => words.allowed_filesystems.push(text()?),
                "--durability" if *value == *FULL => words.durability = Durability::Full,
                "--ends-with" => ends_with = InstanceId::from_i64(text()?.parse().ok()?).ok(),
                "--ends-within-ms" => {
                    ends_within = Some(Duration::from_millis(text()?.parse().ok()?));
                }
                "--ends-with-lock" => locks.push(text()?.parse().ok()?),
                "--process-number" => number = Some(ProcessNumber(text()?.parse().ok()?)),
                "--starter" => starter = Some(text()?.parse().ok()?),
                "--helper" => program = Some(HelperProgram::new(value)),
                "--helper-argument" => program = Some(program.take()?.argument(value)),
                "--anchor" => anchor = Some(text()?),
                "--anchor-descriptor" => descriptor = Some(text()?.parse().ok()?),
                "--first" => first = Some(text()?.parse().ok()?),
                _ => return None,
            }
        }
        words.start_time = start_time.zip(unit).map(|(value, unit)| StartTime { value, unit });
        words.tenant = ends_with.zip(ends_within).map(|(instance, budget)| Tenant {
            instance,
            budget,
            locks,
            number,
        });
        words.helper =
            program.zip(starter).map(|(program, starter)| ChosenHelper { program, starter });
        if !rest.is_empty() || words.pid == 0 || words.db.as_os_str().is_empty() {
            return None;
        }
        let second = match (anchor, descriptor, first) {
            (Some(anchor), Some(descriptor), Some(first)) => {
                Some(WordsOfSecond { anchor, descriptor, first })
            }
            _ => None,
        };
        Some((words, second))
    }

    /// The process to be kept, if it is still the same.
    pub(super) fn target(&self) -> Result<Target> {
        let target = Target::prove(self.pid)?;
        if self.start_time.is_some() && target.start_time != self.start_time {
            let what = format!("pid {} ended while it was being recorded", self.pid);
            return Err(Error::new(ErrorKind::NotRunning, what).with_hints(
                "name a running process (`Whom::Process`)",
                "name a running process with `--pid`",
            ));
        }
        Ok(target)
    }

    /// From now on the helpers of this process are started as it was itself.
    pub(super) fn start_helpers_alike(&self) {
        if let Some(ChosenHelper { program, .. }) = &self.helper {
            program.clone().use_from_now_on();
        }
    }

    /// A launcher that waits for its child is the one that whoever started it knows, and ends.
    pub(super) fn check_not_launched(&self) -> Result<()> {
        let Some(ChosenHelper { program, starter }) = &self.helper else { return Ok(()) };
        // Which of our parents is init is nobody's affair.
        if supervise::own_parent() == Some(*starter).filter(|pid| *pid > 1) {
            return Ok(());
        }
        let path = program.path();
        Err(Error::invalid(format!("{} starts another process as the keeper", path.display()))
            .at(path)
            .with_hint("it must become the keeper: by `exec`, or by `helper::serve`"))
    }

    pub(super) fn options(&self) -> OpenOptions {
        let options = OpenOptions::new().path(&self.db).single_reader().durability(self.durability);
        self.allowed_filesystems.iter().fold(options, OpenOptions::allow_filesystem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words {
            db: "/a b/state.db".into(),
            profile: "work".to_owned(),
            kind: Some("bot".to_owned()),
            home: Some("/home/work".into()),
            pid: 42,
            start_time: Some(StartTime { value: -1, unit: StartTimeUnit::Ticks }),
            allowed_filesystems: vec!["nfs".to_owned(), "9p".to_owned()],
            durability: Durability::Full,
            tenant: Some(Tenant {
                instance: InstanceId(1_790_000_000_000_000),
                budget: Duration::from_millis(1_500),
                locks: vec![1_790_000_000_000_001, 1_790_000_000_000_002],
                number: Some(ProcessNumber(u64::MAX)),
            }),
            helper: Some(ChosenHelper {
                program: HelperProgram::new("/usr/bin/python3").argument("-m").argument("a b"),
                starter: 7,
            }),
        }
    }

    #[test]
    fn a_keeper_reads_what_it_was_started_with() {
        let durability = Durability::Normal;
        let bare = Words {
            kind: None,
            home: None,
            start_time: None,
            tenant: None,
            helper: None,
            durability,
            ..words()
        };
        for words in [words(), bare] {
            assert_eq!(Words::parse(&words.to_arguments()), Some((words, None)));
        }
        let second = ["--anchor", "a.lock", "--first", "7", "--anchor-descriptor", "3"];
        let arguments = [words().to_arguments(), second.map(OsString::from).to_vec()].concat();
        let second = WordsOfSecond { anchor: "a.lock".to_owned(), descriptor: 3, first: 7 };
        assert_eq!(Words::parse(&arguments), Some((words(), Some(second))));
    }

    #[test]
    fn arguments_of_another_version_are_refused() {
        let mut arguments = words().to_arguments();
        arguments.push("--later".into());
        assert_eq!(Words::parse(&arguments), None, "an option without a value");
        arguments.push("1".into());
        assert_eq!(Words::parse(&arguments), None, "an option that is not known");
        assert_eq!(Words::parse(&[]), None);
    }
}
