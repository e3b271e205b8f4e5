//! The program that helper processes execute.
//!
//! A keeper, the process that becomes the command of a `run`, and the detached diagnostic cannot be
//! forks of a process with other threads: each is a program, executed with a hidden verb. Any
//! program that begins with `helper::serve` can be it: the command line does, a gateway may, an
//! interpreter can with arguments of its own. A verb whose arguments change gets another name, so
//! that a program of another version fails at once and does nothing else.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::sys::supervise;
use crate::{Error, Result, environment};

/// What was chosen for this process.
static CHOSEN: Mutex<Option<HelperProgram>> = Mutex::new(None);

/// Whether this very program does the work.
static SERVES: AtomicBool = AtomicBool::new(false);

/// The hidden verbs of helpers: who shows one in its command line is a part of ours.
pub(crate) const VERBS: [&str; 5] =
    ["__trampoline", "__keeper", "__keeper-second", "__diagnostic", "__group-witness"];

/// What to do where there is no such program.
pub(crate) const HINT: &str = "begin `main` with `incumbent::helper::serve`, name a program with \
                               `HelperProgram`, or install `incumbent` (`cargo install incumbent`) \
                               next to this program, in PATH, or as the absolute path in \
                               $INCUMBENT_PROGRAM";

/// A program that does the work of helper processes: it begins with
/// [`helper::serve`](crate::helper::serve), as `incumbent` does. It should be of this library's
/// version.
///
/// ```
/// use incumbent::helper::HelperProgram;
///
/// // A binding for Python: `python -m package` leads to `helper::serve`.
/// let python = HelperProgram::new("/usr/bin/python3").argument("-m").argument("package");
/// python.clone().use_from_now_on();
/// assert_eq!(HelperProgram::find()?, python);
/// # Ok::<(), incumbent::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it is used after `use_from_now_on`"]
pub struct HelperProgram {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl HelperProgram {
    /// The program at this path; a relative one is meant from the current directory.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        // A helper starts in another directory.
        let program = std::path::absolute(&program).unwrap_or(program);
        Self { program, arguments: Vec::new() }
    }

    /// Adds an argument that comes before those of the helper: `-m` and `package` of an
    /// interpreter. A keeper starts in the directory `/`: a path in it has to be absolute.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Makes it the program of all helpers that this process starts from now on, in all threads.
    /// Whether it can be one is seen when it is started.
    pub fn use_from_now_on(self) {
        *CHOSEN.lock() = Some(self);
    }

    /// The program that helpers of this process execute: what was chosen with
    /// [`HelperProgram::use_from_now_on`]; this very program, if it called
    /// [`helper::serve`](crate::helper::serve); `$INCUMBENT_PROGRAM`; a program `incumbent` beside
    /// this one, or in `PATH`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where there is none;
    /// [`Internal`](crate::ErrorKind::Internal) where the path of this program cannot be found.
    pub fn find() -> Result<Self> {
        if let Some(chosen) = &*CHOSEN.lock() {
            return Ok(chosen.clone());
        }
        if SERVES.load(Ordering::Acquire) {
            return supervise::own_executable()
                .map(|program| Self { program, arguments: Vec::new() })
                .map_err(|error| {
                    Error::internal(format!("cannot find our own program: {error}"))
                        .caused_by(error)
                });
        }
        if let Some(program) = environment::absolute_path(environment::PROGRAM) {
            return Ok(Self::new(program));
        }
        let name = format!("incumbent{}", std::env::consts::EXE_SUFFIX);
        let own = std::env::current_exe().ok();
        let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
        let path = environment::value("PATH").unwrap_or_default();
        let places = beside.into_iter().chain(std::env::split_paths(&path));
        let program = places
            .filter(|place| place.is_absolute())
            .map(|place| place.join(&name))
            .find(|program| program.is_file());
        program.map(Self::new).ok_or_else(|| {
            Error::invalid(
                "this needs a helper process, and there is no program for it: this one does not \
                 call `helper::serve`, and `incumbent` is neither next to this program nor in PATH",
            )
            .with_hint(HINT)
        })
    }

    /// Looks whether there is such a file, before anything is done that cannot be taken back.
    pub(crate) fn check_exists(&self) -> Result<()> {
        match std::fs::metadata(&self.program) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let path = self.program.display();
                Err(Error::invalid(format!("there is no program for helpers at {path}"))
                    .at(&self.program)
                    .with_hint(HINT))
            }
            // What else is wrong with it shows when it is executed.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Where it is: an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.program
    }

    pub(crate) fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// Whether it was named: it may be an interpreter, or a script that executes one.
    pub(crate) fn was_chosen(&self) -> bool {
        CHOSEN.lock().as_ref() == Some(self)
    }

    /// Whether it is this very program, which answers as a helper of this version.
    pub(crate) fn is_ours(&self) -> bool {
        let own = supervise::own_executable().ok();
        SERVES.load(Ordering::Acquire) && own.as_ref() == Some(&self.program)
    }

    /// Executes it; the verb of the helper and its arguments come next.
    pub(crate) fn command(&self) -> Command {
        supervise::helper(&self.program, &self.arguments)
    }
}

/// From now on this very program is that of our helpers.
pub(crate) fn serves() {
    SERVES.store(true, Ordering::Release);
}

/// What a helper ends with; hardly anybody sees it.
pub(crate) mod exit {
    pub(crate) const OK: i32 = 0;
    /// It was called with arguments that it does not know.
    pub(crate) const USAGE: i32 = 2;
    pub(crate) const FAILED: i32 = 70;
}
