//! What to run, and how a run ended.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::process::exit_code::Supervisor;
use crate::process::exit_code::{ExitCause, ExitCodes};
use crate::process::helper::HelperProgram;
use crate::run::forward::Forward;
use crate::run::leaves::Leaves;
use crate::run::notice::Notice;
use crate::sys::supervise;
use crate::{
    ClaimOptions, Error, ErrorKind, Holder, OpenOptions, Profile, ProfileName, Result, Store,
};

/// A command to be run in an office: what `incumbent run` does.
///
/// [`Run::run`] claims the office, with the locks of its [`ClaimOptions`], starts the command and
/// stays with it: it forwards signals, ends the command when the office is lost, serves `stop`,
/// `restart` and takeovers, and records how the command ended. On Linux the command does not
/// outlive this process, however that ends, and what it leaves in its session is ended with it.
///
/// Signals that reach this process meanwhile are the command's: TERM, HUP, INT, QUIT, USR1, USR2,
/// WINCH and CONT. Handlers that this process has for them are called as well.
///
/// [`Profile::stop`] and [`Profile::restart`] reach it from any process, this one too.
///
/// An office has one command, and so has a lock: they are refused while this process holds them, by
/// another `Run` or by a guard, and a claim of this process is refused while its `Run` holds them.
///
/// Of a process that collects all of its children itself (`wait`), the exit code of the command is
/// lost: it counts as 255.
///
/// ```standalone_crate
/// // The program begins with this, or `incumbent` is installed.
/// let arguments: Vec<_> = std::env::args_os().collect();
/// if let Some(exit_code) = incumbent::helper::serve(&arguments) {
///     std::process::exit(exit_code);
/// }
/// # #[cfg(unix)] {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("state.db");
/// use incumbent::run::{Run, RunOutcome};
/// use incumbent::{ClaimOptions, LockRequest, OpenOptions, ProfileName};
///
/// let lock = LockRequest::new("telegram-bot-token", "123456:secret")?;
/// let finished = Run::new(ProfileName::new("work")?, ["sh", "-c", "exit 3"])
///     .store(OpenOptions::new().path(&path))
///     .claim(ClaimOptions::new().lock(lock))
///     .on_notice(|notice| eprintln!("{notice}"))
///     .run()?;
/// match &finished.outcome {
///     RunOutcome::Ended => assert_eq!(finished.exit_code, 3),
///     RunOutcome::Refused(holder) => panic!("{holder}; {}", holder.advice()),
///     outcome => panic!("{outcome:?}"),
/// }
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing is done before `run`"]
pub struct Run {
    pub(super) command: Vec<OsString>,
    pub(super) store: OpenOptions,
    pub(super) profile: ProfileName,
    pub(super) home: Option<PathBuf>,
    pub(super) claim: ClaimOptions,
    /// Whether a profile that is set to stay stopped is not started.
    pub(super) respects_desired: bool,
    /// Whether a start waits where those before it failed.
    pub(super) backs_off: bool,
    pub(super) exit_codes: ExitCodes,
    pub(super) forward: Forward,
    pub(super) pid_file: Option<PathBuf>,
    /// How many lines of the command's standard error are kept.
    pub(super) kept_stderr: Option<usize>,
    /// Who is told how the command ended.
    pub(super) on_end: Option<Vec<OsString>>,
    pub(super) mirror: Mirror,
    /// For how long a command may be unresponsive.
    pub(super) restart_unresponsive: Option<Duration>,
    pub(super) extent: Extent,
    pub(super) form: Form,
    /// Whether it stays with what the command leaves behind.
    pub(super) follows: bool,
    pub(super) leaves: Leaves,
    pub(super) tell: Tell,
}

/// As many lines are kept at most.
const KEPT_LINES_MAX: usize = 1_000;

/// Whether older programs are shown what the command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mirror {
    Off,
    On,
}

/// What this process is while the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The parent of the command.
    Parent,
    /// The command: it executes it.
    Command,
}

/// What this process is beside the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// It has a life, children and signals of its own.
    Part,
    /// Nothing.
    Whole,
}

/// Hears what happens.
pub(super) type Tell = Arc<dyn Fn(&Notice<'_>) + Send + Sync>;

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Run {
    /// The program `command[0]` with its arguments, in the office `gateway` of this profile in the
    /// user's own store; with the exit codes that the supervisor of this process expects.
    pub fn new(
        profile: ProfileName,
        command: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            store: OpenOptions::new(),
            profile,
            home: None,
            claim: ClaimOptions::new(),
            respects_desired: false,
            backs_off: true,
            exit_codes: ExitCodes::of(Supervisor::of_this_process()),
            forward: Forward::Auto,
            pid_file: None,
            kept_stderr: None,
            on_end: None,
            mirror: Mirror::Off,
            restart_unresponsive: None,
            extent: Extent::Part,
            form: Form::Parent,
            follows: false,
            leaves: Leaves::default(),
            tell: Arc::new(|_| ()),
        }
    }

    /// Which store, and how it is opened. It is opened again in the place of one that was lost.
    pub fn store(mut self, options: OpenOptions) -> Self {
        self.store = options;
        self
    }

    /// The configuration directory that the claim runs on, see [`Profile::with_home`], whose errors
    /// [`Run::run`] has then.
    pub fn home(mut self, directory: impl Into<PathBuf>) -> Self {
        self.home = Some(directory.into());
        self
    }

    /// How the office is claimed: its kind, its locks, for how long to wait, whom to replace, how
    /// long the command may take to stop.
    pub fn claim(mut self, options: ClaimOptions) -> Self {
        self.claim = options;
        self
    }

    /// Starts nothing while the profile is [set](Profile::set_desired) to stay stopped: the answer
    /// is [`RunOutcome::StaysStopped`] then.
    pub fn respect_desired(mut self) -> Self {
        self.respects_desired = true;
        self
    }

    /// Claims at once, also in a storm of restarts, which is waited out otherwise; see
    /// [`Profile::backoff`].
    pub fn without_backoff(mut self) -> Self {
        self.backs_off = false;
        self
    }

    /// The exit codes of [`Finished`], in place of those that the supervisor of this process
    /// expects.
    pub fn exit_codes(mut self, codes: ExitCodes) -> Self {
        self.exit_codes = codes;
        self
    }

    /// Which signals are passed on, in place of [`Forward::Auto`].
    pub fn forward(mut self, forward: Forward) -> Self {
        self.forward = forward;
        self
    }

    /// Writes the pid of this process to a file before the command starts, and removes it after its
    /// end. What is sent to that pid reaches the command.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.pid_file = Some(path.into());
        self
    }

    /// Keeps the last lines, at most 1000, that the command writes to its standard error. They are
    /// passed through as they come, and go on record with its end, as `detail`, without what looks
    /// like a secret and 16 KiB at most. Its standard error is a pipe then, no terminal, and no
    /// journal of its own.
    pub fn keep_stderr(mut self, lines: usize) -> Self {
        self.kept_stderr = Some(lines.min(KEPT_LINES_MAX));
        self
    }

    /// Starts a program each time that the command has ended, with the account of it as a JSON
    /// document on its standard input and in variables `INCUMBENT_END_*`. It is started aside, in a
    /// session of its own, when the office is free or before the command is started again, and is
    /// not waited for; only where it would end with this process (the first of a container, or the
    /// main one of a systemd service) it has a second. What it prints goes nowhere.
    ///
    /// # JSON
    /// An object with `profile`, `kind`, `instance`, `pid` (of the run), `ended_at`, `end_reason`,
    /// `ended_by`, `exit_code`, `signal`, `detail`, `summary` (the end in a few words), `stderr`,
    /// `restarting` and `db`; null for what is not known. Later versions may add others.
    pub fn on_end(mut self, command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.on_end = Some(command.into_iter().map(Into::into).collect());
        self
    }

    /// Keeps `gateway_state.json` in the directory of
    /// [`ClaimOptions::legacy_home`](crate::ClaimOptions::legacy_home) as the store has it: what
    /// the command says ([`StatusUpdate`](crate::StatusUpdate), `status-set`) is there within a
    /// second, whole, and again where it was removed. When the command has ended, it says
    /// `stopped`, or the final state that the command named. The file `gateway.heartbeat` beside it
    /// has the time of the last sign of life, if the command gives any
    /// ([`Tenure::heartbeat`](crate::Tenure::heartbeat)), and stays. For programs that still read
    /// these files; they are never read here. Not possible without such a directory; [`Run::run`]
    /// says so.
    pub fn mirror(mut self) -> Self {
        self.mirror = Mirror::On;
        self
    }

    /// Starts the command again, by the rules of [`Profile::restart`], when it has been
    /// unresponsive for this long: it promised a sign of life
    /// ([`Tenure::heartbeat`](crate::Tenure::heartbeat)), and two in a row are missing. Zero: at
    /// once. A command that promises nothing is left alone.
    pub fn restart_unresponsive(mut self, after: Duration) -> Self {
        self.restart_unresponsive = Some(after);
        self
    }

    /// This process does nothing else, and ends after this: all its children are collected, orphans
    /// too where it is the first of its container, and signals stay caught to its end. Without it
    /// only the command is collected, and the signals have their old effect afterwards.
    pub fn as_whole_process(mut self) -> Self {
        self.extent = Extent::Whole;
        self
    }

    /// Becomes the command, in the place of this process, once the office is held: [`Run::run`]
    /// returns only where that failed. For supervisors that start again by themselves, and wait for
    /// this very pid (`Type=notify`, socket activation, a watchdog): between them and the command
    /// there is nothing then.
    ///
    /// Two keepers hold the office until the process ends, and record how it ended where the kernel
    /// tells (Linux 6.15). When the office is lost they end it: SIGTERM, its stop budget, SIGKILL.
    /// A restart is the supervisor's affair. What takes a parent is not to be had with this:
    /// [`Run::follow`], [`Run::leave_family`], exit codes by cause; nor is the lock of an older
    /// program. Not as the first process of a container, which its keepers could not end. Unix
    /// alone, with [`Run::as_whole_process`]; [`Run::run`] says so otherwise.
    pub fn in_place(mut self) -> Self {
        self.form = Form::Command;
        self
    }

    /// Stays with what the command leaves behind: the office is held for as long as a process lives
    /// that the command has started, whatever its session, and one of them is the command then. So
    /// a server may execute itself again (gunicorn, nginx and unicorn do on SIGUSR2), and a start
    /// script may leave a daemon. The exit code is that of the last one.
    ///
    /// Keepers, verbs of ours and what [`Run::leave_program`] names hold nothing. Linux alone, with
    /// [`Run::as_whole_process`]; [`Run::run`] says so otherwise.
    pub fn follow(mut self) -> Self {
        self.follows = true;
        self
    }

    /// Leaves alive what the command has left in its session. Without this it is ended when the
    /// command has ended, by SIGTERM and after 5 s by SIGKILL, and told of by a [`Notice`]. What
    /// left that session is never ended. Where there are no sessions (Windows), or none can be
    /// looked for (macOS), nothing is.
    pub fn leave_family(mut self) -> Self {
        self.leaves.all = true;
        self
    }

    /// Leaves alive the processes that run the program of this name (`ssh-agent`), which may be
    /// that of a file which an interpreter runs. They are not told of, and a run that
    /// [follows](Run::follow) its command does not stay for them.
    pub fn leave_program(mut self, name: impl Into<String>) -> Self {
        self.leaves.and(name.into());
        self
    }

    /// Hears what happens, in threads of the run. From [`Notice::Started`] on it must not wait:
    /// signals and the end of the command are seen between two calls.
    pub fn on_notice(mut self, tell: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        self.tell = Arc::new(tell);
        self
    }
}

/// How a run came to its end.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it says what to exit with"]
pub struct Finished {
    /// For what supervises this process: the exit code of the command, 128 and the signal that
    /// ended it, or what [`ExitCodes`] says for the cause; 126 and 127 for a command that cannot be
    /// executed, as a shell has them.
    pub exit_code: i32,
    /// What came of it.
    pub outcome: RunOutcome,
}

/// What came of a [`Run`].
#[derive(Debug)]
#[non_exhaustive]
pub enum RunOutcome {
    /// The command ended, or a signal ended the wait for the office.
    Ended,
    /// The profile is set to stay stopped: nothing was started.
    StaysStopped,
    /// Somebody else holds the office or a lock: nothing was started.
    Refused(Box<Holder>),
    /// The command cannot be executed, or the office was lost before it was started.
    Failed(Error),
}

impl Finished {
    pub(super) fn new(exit_code: i32, outcome: RunOutcome) -> Self {
        Self { exit_code, outcome }
    }

    pub(super) fn ended(exit_code: i32) -> Self {
        Self::new(exit_code, RunOutcome::Ended)
    }
}

impl Run {
    /// Says what cannot be meant, before anything is opened.
    pub(super) fn check(&self) -> Result<()> {
        if self.command.first().is_none_or(|program| program.is_empty()) {
            return Err(Error::new(ErrorKind::InvalidInput, "the command is empty")
                .with_hint("name the program and its arguments"));
        }
        // A gateway that works is not ended for a command that nothing here can hold.
        if supervise::HOLDS_BY_HELPER {
            HelperProgram::find()?.check_exists()?;
        }
        if self.mirror == Mirror::On && self.claim.legacy_home.is_none() {
            return Err(Error::invalid(
                "a run cannot mirror without the directory of an older program",
            )
            .with_hints("name one (`ClaimOptions::legacy_home`)", "name one (`--mirror=DIR`)"));
        }
        self.check_leaves()?;
        self.check_in_place()?;
        self.claim.check()
    }

    /// Says what a process that becomes another one cannot do.
    fn check_in_place(&self) -> Result<()> {
        if self.form == Form::Parent {
            return Ok(());
        }
        if !supervise::HOLDS_BY_HELPER {
            let why = "a process cannot become another program here";
            return Err(
                Error::new(ErrorKind::Unsupported, why).with_hint("run the command as a child")
            );
        }
        Self::check_is_not_first()?;
        let what = if self.extent == Extent::Part {
            "a process that also does other work"
        } else if self.follows || self.leaves.is_any() {
            "a run that looks after what its command leaves behind"
        } else if self.claim.legacy_home.is_some() {
            "a run that holds the lock of an older program"
        } else if self.kept_stderr.is_some() || self.on_end.is_some() {
            "a run that keeps or tells what came of its command"
        } else if self.restart_unresponsive.is_some() || self.pid_file.is_some() {
            "a run that keeps watching its command"
        } else {
            return Ok(());
        };
        Err(Error::invalid(format!("{what} cannot become its command"))
            .with_hint("run the command as a child"))
    }

    /// Says what cannot be meant by these.
    pub(super) fn check_leaves(&self) -> Result<()> {
        if !self.follows {
            return Ok(());
        }
        if self.leaves.all {
            return Err(Error::invalid(
                "a run cannot follow what its command leaves behind and also leave it alone",
            )
            .with_hints(
                "name what is to be left (`Run::leave_program`)",
                "name what is to be left (`--leave=PROGRAM`)",
            ));
        }
        if !supervise::CAN_ADOPT_ORPHANS {
            let why = "only on Linux a run can follow what its command leaves behind";
            return Err(Error::new(ErrorKind::Unsupported, why)
                .with_hint("have the command stay in the foreground"));
        }
        if self.extent == Extent::Part {
            let why = "a run can follow its command only in a process that does nothing else";
            return Err(Error::invalid(why).with_hint("say so by `Run::as_whole_process`"));
        }
        Ok(())
    }

    /// The profile in `store`, the first one or one that took its place.
    pub(super) fn profile(&self, store: &Store) -> Result<Profile> {
        let profile = store.profile(&self.profile)?;
        self.home.iter().try_fold(profile, |profile, home| profile.with_home(home))
    }

    pub(super) fn stays_stopped(&self) -> Finished {
        let exit_code = self.exit_codes.code(ExitCause::DesiredStopped, 0, None);
        Finished::new(exit_code, RunOutcome::StaysStopped)
    }
}
