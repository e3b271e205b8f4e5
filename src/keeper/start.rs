//! Starts a keeper, and hears what came of it.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::keeper::report::KeeperReport;
use crate::keeper::target::Target;
use crate::keeper::words::{ChosenHelper, VERB, Words};
use crate::process::helper::HelperProgram;
use crate::sys::supervise;
use crate::{Error, ErrorKind, Kind, ProfileName, Result, Store, sys};

/// What a keeper is started for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'a> {
    /// To claim the office of this kind.
    Office(&'a Kind, Option<&'a Path>),
    /// To make a row that locks can be taken from.
    Locks,
}

/// Starts a keeper for `target` and waits for its report.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) where there is no program for helpers, what keeps a
/// process from being started, and what the keeper met.
pub(super) fn start(
    store: &Store,
    profile: &ProfileName,
    purpose: Purpose<'_>,
    target: &Target,
) -> Result<KeeperReport> {
    let (kind, home) = match purpose {
        Purpose::Office(kind, home) => (Some(kind.as_str().to_owned()), home),
        Purpose::Locks => (None, None),
    };
    let program = HelperProgram::find()?;
    let words = Words {
        db: store.path().to_owned(),
        profile: profile.as_str().to_owned(),
        kind,
        home: home.map(Path::to_owned),
        pid: target.pid,
        start_time: target.start_time,
        allowed_filesystems: store.inner.allowed_filesystems().to_vec(),
        durability: store.inner.durability(),
        tenant: None,
        helper: program
            .was_chosen()
            .then(|| ChosenHelper { program: program.clone(), starter: std::process::id() }),
    };
    let arguments = [vec![VERB.into()], words.to_arguments()].concat();
    let failed = |what: &str, error: std::io::Error| {
        let what = format!("{what} a keeper process ({})", program.path().display());
        if let Some(shortage) = sys::Shortage::of(&error) {
            return Error::shortage(shortage, &what);
        }
        Error::internal(format!("cannot {what}: {error}"))
            .with_hints(WITHOUT, WITHOUT_AT_COMMAND_LINE)
            .caused_by(error)
    };
    let mut keeper = supervise::spawn_keeper(program.command(), &arguments)
        .map_err(|error| failed("start", error))?;
    let mut answer = String::new();
    if let Some(pipe) = &mut keeper.stdout {
        pipe.read_to_string(&mut answer).map_err(|error| failed("hear from", error))?;
    }
    let report = serde_json::from_str(&answer);
    let pid = keeper.id();
    // Nobody waits for it later: it lives for days, and we may, too.
    let wait = move || drop(keeper.wait());
    let waiting = std::thread::Builder::new().name("incumbent-keeper".to_owned()).spawn(wait);
    if let Err(error) = waiting {
        tracing::debug!(%error, pid, "the keeper stays a zombie until this process ends");
    }
    match report {
        Ok(KeeperReport::Failed(told)) => Err(told.into()),
        Ok(report) => Ok(report),
        Err(error) => Err(Error::new(
            ErrorKind::Busy,
            format!(
                "the keeper process ({}) was ended before it could report, or is of another \
                 version",
                program.path().display()
            ),
        )
        .with_hints(
            format!("try again; {WITHOUT}"),
            format!("try again; {WITHOUT_AT_COMMAND_LINE}"),
        )
        .with_retry_after(Duration::from_millis(100))
        .caused_by(error)),
    }
}

/// What can be done without a keeper.
const WITHOUT: &str = "`Anchoring::None` records without one";
const WITHOUT_AT_COMMAND_LINE: &str = "`--no-keeper` records without one";
