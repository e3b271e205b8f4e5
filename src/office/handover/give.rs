//! Giving an office to a successor.

use std::convert::Infallible;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use crate::claim::guard::{Lost, Standing};
use crate::clock::Deadline;
use crate::office::handover::{HandedOver, NotTaken, Successor};
use crate::office::tenure::Tenure;
use crate::owner::InProgress;
use crate::owner::request::request_to;
use crate::process::handover::Given;
use crate::records::instances;
use crate::store::AnchoredBy;
use crate::store::held::Held;
use crate::sys::handover::{self, Estate, Said};
use crate::sys::{ProcessHandle, Shortage};
use crate::{Error, ErrorKind, InstanceId, Reason, Result, environment};

/// How long a successor that will not take over may take to end by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// Between two looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What became of the row that was offered.
enum Fate {
    Ours,
    Adopted(InstanceId),
    Lost(Lost),
}

impl Tenure {
    /// Becomes another program, which goes on with this office: same process, same pid, and the
    /// lock is never free. Returns only why it could not; then this program holds the office as
    /// before.
    ///
    /// The program adopts the tenure with [`Tenure::from_environment`], or claims as usual. A start
    /// script has to `exec` it. One that does neither holds the office until it ends.
    ///
    /// All other threads of this process end at once, wherever they are, as with every exec; what
    /// they were writing to the store is not written. Descriptors stay open that are not
    /// close-on-exec. What `command` changes of this process itself (its directory, its standard
    /// streams, its user) may have been changed when it fails.
    ///
    /// The office must be the only thing that this process holds in the store, beside the locks
    /// that were taken from this tenure: anything else would be left behind.
    ///
    /// ```no_run
    /// use std::process::Command;
    ///
    /// # fn upgrade(tenure: &incumbent::Tenure) {
    /// let error = tenure.exec(Command::new("/opt/gateway/new/gateway"));
    /// // Only here where it failed:
    /// eprintln!("{error}: this one goes on");
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotOwner`](ErrorKind::NotOwner) when the tenure was lost, [`Busy`](ErrorKind::Busy) when
    /// somebody is stopping or replacing this process, another thread of it hands over, a release
    /// of it is not written yet, or it is short of descriptors;
    /// [`InvalidInput`](ErrorKind::InvalidInput) when the program cannot be executed, or the
    /// process holds more than this office; [`Unsupported`](ErrorKind::Unsupported) on Windows,
    /// and with the lock of an older program
    /// ([`ClaimOptions::legacy_home`](crate::ClaimOptions::legacy_home)); and those of
    /// [`Tenure::verify`].
    #[must_use = "it returns only when it has failed"]
    pub fn exec(&self, command: Command) -> Error {
        match self.try_exec(command) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_exec(&self, mut command: Command) -> Result<Infallible> {
        self.check_still_held()?;
        let program = command.get_program().to_string_lossy().into_owned();
        if self.footing.anchored_by == AnchoredBy::TheRun {
            // Its command stays its command, and finds the run in its environment.
            return Err(not_started(&program, handover::exec(command)));
        }
        if self.is_asked_to_end()? {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{} is being stopped or replaced", self.office()),
            )
            .with_hint("end this process, as requested"));
        }
        let inner = &self.footing.inner;
        // Nobody of ours claims or releases anything in between, or hands over.
        let _handing_over = inner.hand_over().ok_or_else(|| self.in_progress())?;
        let held = inner.lock_held()?;
        self.check_holds_nothing_else(&held)?;
        if !inner.pending.lock().is_empty() {
            return Err(Error::new(
                ErrorKind::Busy,
                "what this process released is not written yet",
            )
            .with_hint("try again"));
        }
        let anchor = inner.own_anchor().ok_or_else(no_anchor)?;
        let estate = Estate::for_ourselves(anchor.to_hand_over(), self.secret().as_bytes())
            .map_err(|error| not_passed_on(&error))?;
        anchor.be_shared();
        command
            .env(environment::HANDOVER, Given::as_variable(self.instance(), &estate.descriptors()));
        Err(not_started(&program, estate.exec(command)))
    }

    /// Starts `command` and gives it this office: the successor adopts it with
    /// [`Tenure::from_environment`], in one transaction, and the lock is never free. Returns when
    /// it has, and then this process has no office any more and should end; or when it is certain
    /// that it has not and cannot, and then all is as before, and what was started has ended.
    ///
    /// It has `within` to adopt: the time that it takes to start. Zero is too short for anybody.
    /// Until then this process holds the office and works on, in its other threads. A script may
    /// start the successor in turn; what counts is who adopts.
    ///
    /// Whoever supervises this process sees it end, and the successor is not its child: under
    /// systemd and the like use [`Tenure::exec`]. The command of an `incumbent run` may hand over
    /// on Linux, to a child that is no script: the `run` goes on with it, in the same incarnation,
    /// whose status begins anew.
    ///
    /// ```standalone_crate
    /// # #[cfg(unix)] {
    /// use incumbent::handover::{HandedOver, NotTaken};
    /// use incumbent::{Claim, Standing, Store, Tenure};
    /// use std::process::Command;
    /// use std::time::Duration;
    ///
    /// # if let Some(path) = std::env::args_os().nth(1) {
    /// #     // The successor: this program again.
    /// #     let store = Store::open(path)?;
    /// #     let tenure = Tenure::from_environment(&store)?.tenure().expect("it was handed over");
    /// #     assert_eq!(tenure.verify()?, Standing::Held);
    /// # } else {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// # let mut upgraded = Command::new(std::env::current_exe()?);
    /// # upgraded.arg(&path);
    /// let store = Store::open(&path)?;
    /// let Claim::Granted(tenure) = store.profile("work")?.claim()? else { panic!("nobody else") };
    /// let within = Duration::from_secs(30);
    /// // A program that does not adopt leaves everything as it was.
    /// let not_taken = tenure.hand_over(Command::new("true"), within)?;
    /// assert!(matches!(not_taken, HandedOver::No(NotTaken::Ended(_))));
    /// assert_eq!(tenure.verify()?, Standing::Held);
    /// // The new version begins with `Tenure::from_environment`.
    /// let HandedOver::Yes(mut successor) = tenure.hand_over(upgraded, within)? else {
    ///     panic!("it adopts");
    /// };
    /// assert!(successor.instance > tenure.instance());
    /// # assert!(successor.child.wait()?.success());
    /// # }
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The office must be the only thing that this process holds in the store, beside the locks
    /// that were taken from this tenure: anything else would be left behind.
    ///
    /// # Errors
    /// [`NotOwner`](ErrorKind::NotOwner) when the tenure was lost, before or meanwhile;
    /// [`InvalidInput`](ErrorKind::InvalidInput) when the program cannot be executed, or the
    /// process holds more than this office; [`Unsupported`](ErrorKind::Unsupported) on Windows,
    /// beside an older program, and in a `run` that does not follow: of a library, on macOS, of an
    /// older version, or behind a start script that is still there; [`Busy`](ErrorKind::Busy) when
    /// this process is short of descriptors or memory, or another thread of it hands over; and
    /// those of [`Tenure::verify`]. Where it could not be found out in the end whether the
    /// successor took over, what was started is left alone: [`Tenure::verify`] tells as soon as the
    /// store can be read.
    pub fn hand_over(&self, mut command: Command, within: Duration) -> Result<HandedOver> {
        self.check_still_held()?;
        if self.is_asked_to_end()? {
            return Ok(HandedOver::No(NotTaken::AskedToEnd));
        }
        let inner = &self.footing.inner;
        let _handing_over = inner.hand_over().ok_or_else(|| self.in_progress())?;
        let held = inner.lock_held()?;
        self.check_holds_nothing_else(&held)?;
        drop(held);
        let secret = self.secret();
        let (given_by, estate) = match self.footing.anchored_by {
            AnchoredBy::Us => {
                let anchor = inner.own_anchor().ok_or_else(no_anchor)?;
                let estate = Estate::for_child(anchor.to_hand_over(), secret.as_bytes());
                if estate.is_ok() {
                    anchor.be_shared();
                }
                (self.instance(), estate)
            }
            AnchoredBy::TheRun => {
                let (run, anchor) = self.anchor_of_run()?;
                (run, Estate::for_child(&anchor, secret.as_bytes()))
            }
        };
        let (estate, mut successor) = estate.map_err(|error| not_passed_on(&error))?;
        command.env(environment::HANDOVER, Given::as_variable(given_by, &estate.descriptors()));
        let program = command.get_program().to_string_lossy().into_owned();
        let child = estate.spawn(command).map_err(|error| not_started(&program, error))?;
        let mut started = Started::new(child);
        let until = Deadline::after(within);
        let said = loop {
            match successor.wait(until.remaining()) {
                Ok(Said::NothingYet) if !until.has_passed() => {}
                Ok(said) => break said,
                Err(error) => {
                    tracing::warn!(%error, "the successor cannot be heard");
                    break Said::NothingYet;
                }
            }
        };
        let fate = match said {
            // Nobody can adopt any more, and whether it was lost before is no question of that.
            Said::Closed | Said::NothingYet if successor.take_back().unwrap_or(false) => {
                self.fate(Look::Read).unwrap_or(Fate::Ours)
            }
            // In this store, as far as that can be told; or nobody is left who could.
            Said::Adopted | Said::Closed => self.fate(Look::Read)?,
            // Somebody has read it, inside of a transaction that ends before ours begins.
            Said::NothingYet => self.fate_after(&mut started)?,
        };
        match fate {
            Fate::Adopted(instance) => {
                self.leave();
                Ok(HandedOver::Yes(Successor { instance, child: started.child }))
            }
            Fate::Ours if said == Said::NothingYet => {
                started.end_now();
                Ok(HandedOver::No(NotTaken::TimedOut))
            }
            Fate::Ours => Ok(HandedOver::No(NotTaken::Ended(started.end()))),
            // It may have claimed since, as anybody may.
            Fate::Lost(lost) => Err(not_held(&lost)),
        }
    }

    fn in_progress(&self) -> Error {
        let what = format!("another thread of this process hands {} over", self.office());
        Error::new(ErrorKind::Busy, what).with_hint("wait for that one")
    }

    fn secret(&self) -> String {
        self.nonce().to_hex()
    }

    /// And that nothing is left to be written that would be forgotten.
    fn check_still_held(&self) -> Result<()> {
        let inner = &self.footing.inner;
        inner.check_process()?;
        if !inner.pending.lock().is_empty() {
            inner.write(|_| Ok(()))?;
        }
        match self.verify()? {
            Standing::Held => Ok(()),
            Standing::Lost(lost) => Err(not_held(&lost)),
        }
    }

    fn is_asked_to_end(&self) -> Result<bool> {
        let (inner, id) = (&self.footing.inner, self.instance());
        match self.footing.anchored_by {
            AnchoredBy::Us => {
                inner.read(|connection| Ok(InProgress::of(connection, inner, id)?.is_some()))
            }
            // Its command is to end in both cases.
            AnchoredBy::TheRun => Ok(request_to(inner, id)?.is_some()),
        }
    }

    fn check_holds_nothing_else(&self, held: &Held) -> Result<()> {
        let other = held.offices.keys().find(|office| *office != self.office());
        let ours = held.offices.get(self.office());
        let what = match (other, &held.without_office) {
            (Some(office), _) => format!("{office} as well"),
            (None, Some(_)) => "locks that were not taken from this tenure".to_owned(),
            (None, None) if ours.is_some_and(|office| office.beside.is_some()) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "this process holds the lock of an older program as well, which cannot be \
                     handed over",
                )
                .with_hint("release the office and let the successor wait for it"));
            }
            (None, None) => return Ok(()),
        };
        Err(Error::invalid(format!(
            "this process holds {what}, and only {} would be handed over",
            self.office()
        ))
        .with_hint(
            "release the others first, and acquire locks with `Tenure::acquire`; inside a `run` \
             release also those that are exclusive or have slots",
        ))
    }

    /// What became of the row once somebody has read the nonce.
    fn fate_after(&self, started: &mut Started) -> Result<Fate> {
        match self.fate(Look::Write) {
            Err(error) if error.kind() == ErrorKind::Busy => match self.fate(Look::Read)? {
                // Whoever read it has not committed: it may hold the write lock, and be stopped.
                Fate::Ours => {
                    started.end_now();
                    self.fate(Look::Write)
                }
                fate => Ok(fate),
            },
            fate => fate,
        }
    }

    fn fate(&self, look: Look) -> Result<Fate> {
        let inner = &self.footing.inner;
        let look_at = |connection: &rusqlite::Connection| {
            let row = instances::standing(connection, self.instance())?;
            let row = row.filter(|row| row.nonce_hash == self.footing.nonce_hash);
            let row_command = row.as_ref().and_then(|row| row.child_pid);
            Ok(match row.map(|row| row.ended.map(|(reason, by)| (Reason::from(reason), by))) {
                None => Fate::Lost(Lost::StoreReplaced),
                Some(None) => match self.footing.anchored_by {
                    AnchoredBy::TheRun if inner.is_followed(row_command) => {
                        Fate::Adopted(self.instance())
                    }
                    AnchoredBy::Us | AnchoredBy::TheRun => Fate::Ours,
                },
                Some(Some((Reason::HandedOver, _))) => {
                    let id = self.instance();
                    let next = instances::next_generation(connection, self.office(), id)?;
                    Fate::Adopted(next.unwrap_or(id))
                }
                Some(Some((reason, by))) => Fate::Lost(Lost::Ended { reason, by }),
            })
        };
        match look {
            Look::Read => inner.read(look_at),
            Look::Write => inner.write(|tx| look_at(tx)),
        }
    }

    /// The office is our successor's.
    fn leave(&self) {
        self.let_go.store(true, std::sync::atomic::Ordering::Release);
        let inner = &self.footing.inner;
        let mut held = inner.held.lock();
        held.forget(self.instance());
        if self.footing.anchored_by == AnchoredBy::Us {
            inner.leave_anchor(&held);
        }
    }
}

#[derive(Clone, Copy)]
enum Look {
    Read,
    /// After every transaction that has begun.
    Write,
}

/// What was started. It does not outlive a handover that came to nothing; but where nobody can tell
/// what came of it, it may be the owner, and is left alone.
struct Started {
    child: Child,
    /// Where this process has others collect its children, a pid alone may be anybody's.
    pinned: Option<ProcessHandle>,
}

impl Started {
    fn new(child: Child) -> Self {
        let pinned = ProcessHandle::open(child.id()).ok();
        Self { child, pinned }
    }

    fn kill(&mut self) {
        // One that has ended meanwhile is no error.
        let _ = match &self.pinned {
            Some(process) => process.kill(),
            None => self.child.kill(),
        };
    }

    fn end_now(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }

    /// How it ended; `None` where somebody else collects our children. It may be about to end, and
    /// to say why.
    fn end(mut self) -> Option<ExitStatus> {
        let until = Deadline::after(ENDS_WITHIN);
        while !until.has_passed() {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => std::thread::sleep(LOOK_EVERY),
                Err(_) => break,
            }
        }
        self.kill();
        self.child.wait().ok()
    }
}

fn not_held(lost: &Lost) -> Error {
    Error::new(ErrorKind::NotOwner, format!("the office was lost: {lost}"))
        .with_hint("claim it again first")
}

fn no_anchor() -> Error {
    Error::internal("this process holds an office without an anchor")
}

/// What a successor inherits could not be made.
fn not_passed_on(error: &io::Error) -> Error {
    match Shortage::of(error) {
        Some(shortage) => Error::shortage(shortage, "prepare a handover"),
        None if error.kind() == io::ErrorKind::Unsupported => {
            Error::new(ErrorKind::Unsupported, "a lock cannot be handed over on this platform")
                .with_hint("release the office and let the successor wait for it")
        }
        None => Error::internal(format!("cannot prepare a handover: {error}")),
    }
}

fn not_started(program: &str, error: io::Error) -> Error {
    match Shortage::of(&error) {
        Some(shortage) => Error::shortage(shortage, "start the successor"),
        None if error.kind() == io::ErrorKind::Unsupported => not_passed_on(&error),
        None => Error::invalid(format!("cannot execute {program:?}: {error}"))
            .with_hint("look at the path, the mode and the interpreter of the successor")
            .caused_by(error),
    }
}
