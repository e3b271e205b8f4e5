//! Holding the lock of the older program beside an office, so that it respects the holder of that
//! office.
//!
//! A `run --legacy-home` releases that lock before its tenure, or the next claim would meet it as
//! an older gateway. `gateway_state.json` says `starting`, `running` and `stopped` of the run, in
//! the place of what the last gateway left; a run that mirrors shows there what its command says.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Deadline, now_ms};
use crate::liveness::AnchorState;
use crate::names::Secret;
use crate::process::command_line::{mask, redact};
use crate::process::observer::Observer;
use crate::process::older::lock::{forget_own, note_own, probe, whoever_holds};
use crate::process::older::marker_file::{EXPIRED, MarkerFile};
use crate::process::older::said::Said;
use crate::process::older::wire::{HoldingRun, PidRecord, recognised};
use crate::process::older::write::{SCRATCH, scratch, write_whole};
use crate::process::older::{LOCK_FILE, PID_FILE, STATUS_FILE, beat, marker_file};
use crate::sys::{FileFacts, FileId, Sharing, StartTimeUnit};
use crate::{Error, ErrorKind, Result, state, sys};

/// How often the lock is tried anew because its file was replaced meanwhile, or a probe of the
/// older program's met it, and so far apart.
const ATTEMPTS: usize = 25;

const TRY_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// What is written to see whether there is room for a record.
const SCRATCH_LENGTH: usize = 4096;

/// The lock on the `gateway.lock` of a directory, and what the older program reads there. Dropping
/// it lets the lock go, says that the gateway is stopped, and removes the `gateway.pid` that names
/// us; a lock file is never removed.
#[derive(Debug)]
pub(crate) struct Hold {
    directory: PathBuf,
    record: PidRecord,
    locked: Locked,
    /// The files were made again once: further times are no news.
    is_restored: bool,
    /// The last look failed, and that was said.
    is_failing: bool,
    /// What the gateway was last shown to say.
    shown: Option<Said>,
}

#[derive(Debug)]
struct Locked {
    file: Arc<File>,
    id: FileId,
    creator_pid: u32,
}

/// Whether the lock is still the one that the path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HoldState {
    Held,
    /// Its file was removed or replaced, and a new one is locked now.
    MadeAnew,
    /// The record beside it was removed, and is written again.
    RecordRestored,
    /// Its file was replaced, and somebody else holds the new one.
    LostTo(Option<sys::Pid>),
}

/// A command line as the older program may read it: without secrets, and in a form that it knows.
pub(crate) fn command_words(command: &[OsString], secrets: &[&Secret]) -> Vec<String> {
    recognised(shown_words(command, secrets))
}

/// A command line without secrets.
pub(crate) fn shown_words(command: &[OsString], secrets: &[&Secret]) -> Vec<String> {
    let words: Vec<String> =
        command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    redact::redact(&mask::mask(&words, secrets))
}

impl Hold {
    /// Takes the lock for this process, and says so in the files; `None` when somebody else has it.
    ///
    /// # Errors
    /// When the files cannot be made or written.
    pub(crate) fn take(
        directory: &Path,
        observer: &Observer,
        argv: Vec<String>,
        owner: HoldingRun,
    ) -> Result<Option<Self>> {
        let ticks = observer.start_time.filter(|time| time.unit == StartTimeUnit::Ticks);
        let start_time = ticks.map(|time| time.value);
        let record = PidRecord { pid: observer.pid, start_time, argv, owner: Some(owner) };
        let Some(locked) = lock_and_write(directory, &record)? else { return Ok(None) };
        let directory = directory.to_owned();
        let hold =
            Self { directory, record, locked, is_restored: false, is_failing: false, shown: None };
        hold.say(state::STARTING);
        Ok(Some(hold))
    }

    /// Says the state of the gateway in the place of what the last one left there. Information: no
    /// gateway stays away for want of it.
    pub(crate) fn say(&self, state: &str) {
        self.write_status(&Said::state_alone(state, now_ms()));
    }

    /// Shows what the gateway says, if that is not what the file has: it may have been removed.
    pub(crate) fn show(&mut self, said: Said) {
        let is_there = || self.names_us(STATUS_FILE);
        if self.shown.as_ref() != Some(&said) || !is_there() {
            self.write_status(&said);
            self.shown = Some(said);
        }
    }

    /// Shows when the gateway last gave a sign of life.
    pub(crate) fn show_heartbeat(&self, at_ms: i64) {
        if let Err(error) = beat::show(&self.directory, at_ms) {
            tracing::debug!(%error, "older programs read an older heartbeat");
        }
    }

    /// The state at the end. What it said of its platforms, and why it ends, stays.
    fn show_end(&self) {
        match &self.shown {
            Some(shown) if state::is_final(&shown.state) => self.write_status(shown),
            Some(shown) => self.write_status(&Said {
                state: state::STOPPED.to_owned(),
                updated_at_ms: now_ms(),
                ..shown.clone()
            }),
            None => self.say(state::STOPPED),
        }
    }

    fn write_status(&self, said: &Said) {
        let document = said.document(&self.record);
        if let Err(error) = write_whole(&self.directory, STATUS_FILE, &document.to_string()) {
            tracing::debug!(%error, "older programs read the state of the last gateway");
        }
    }

    /// The stop or takeover of this process that an older program has announced, the last one if
    /// there are two. Markers for others are left to them.
    pub(crate) fn marker(&self, now_ms: i64) -> Option<MarkerFile> {
        let files = marker_file::all(&self.directory).ok()?.into_iter();
        let ours = files.filter_map(|(_, said)| said.ok()).filter(|said| {
            let target = (said.target.pid, said.target.start_time);
            target == (self.record.pid, self.record.start_time) && target.1.is_some()
        });
        let (fresh, over): (Vec<_>, Vec<_>) =
            ours.partition(|said| said.remaining_ms(now_ms).is_ok());
        // What cannot be understood is not ours to remove.
        let expired = over.iter().filter(|said| said.remaining_ms(now_ms) == Err(EXPIRED));
        expired.for_each(MarkerFile::consume);
        fresh.into_iter().max_by_key(|said| said.written_at_ms)
    }

    fn names_us(&self, file: &str) -> bool {
        PidRecord::read(&self.directory.join(file)).is_ok_and(|said| {
            (said.pid, said.start_time) == (self.record.pid, self.record.start_time)
        })
    }

    fn record_is_missing(&self) -> bool {
        is_missing(&self.directory.join(PID_FILE))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(LOCK_FILE)
    }

    /// Looks whether the path still leads to the file that we have locked; makes and locks it anew
    /// if nobody else has. The older program removes a file that it takes for a dead one's.
    ///
    /// # Errors
    /// When it could not be found out, or made anew: the first time. It is tried again each time.
    pub(crate) fn verify(&mut self) -> Result<HoldState> {
        let looked = self.look();
        let has_failed = std::mem::replace(&mut self.is_failing, looked.is_err());
        if has_failed && looked.is_err() { Ok(HoldState::Held) } else { looked }
    }

    fn look(&mut self) -> Result<HoldState> {
        if self.locked.is_at(&self.path())? {
            if !self.record_is_missing() {
                return Ok(HoldState::Held);
            }
            write_whole(&self.directory, PID_FILE, &self.record.to_json().to_string())?;
            return Ok(self.restored(HoldState::RecordRestored));
        }
        match lock_and_write(&self.directory, &self.record)? {
            Some(locked) => {
                self.locked = locked;
                Ok(self.restored(HoldState::MadeAnew))
            }
            None if probe(&self.path()) == AnchorState::Held => {
                Ok(HoldState::LostTo(Some(whoever_holds(&self.path()).pid).filter(|pid| *pid > 0)))
            }
            None => Err(Error::new(
                ErrorKind::Busy,
                format!("{} was replaced, and cannot be locked yet", self.path().display()),
            )
            .with_hint("it is tried again")
            .with_retry_after(Duration::from_secs(1))),
        }
    }

    /// A program that removes the files each time that it looks would fill the journal.
    fn restored(&mut self, how: HoldState) -> HoldState {
        if std::mem::replace(&mut self.is_restored, true) { HoldState::Held } else { how }
    }

    /// Whether the path still leads to the file that we have locked, and the record beside it is
    /// there: costs next to nothing. What could not be mended is left to [`Hold::verify`].
    pub(crate) fn is_in_place(&self) -> bool {
        self.is_failing
            || self.locked.is_at(&self.path()).unwrap_or(false) && !self.record_is_missing()
    }
}

/// Whether the lock in `directory` could be taken and the files written, as far as that can be told
/// before a working gateway is ended for it. Makes no lock file: where there is none, an older
/// gateway without one may be running.
///
/// # Errors
/// When they could not.
pub(crate) fn check_usable(directory: &Path) -> Result<()> {
    let (lock, pid) = (directory.join(LOCK_FILE), directory.join(PID_FILE));
    match sys::open_anchor_file(&lock) {
        Ok(_) if sys::may_write(&lock) => {}
        Ok(_) => {
            let denied = std::io::ErrorKind::PermissionDenied.into();
            return Err(Error::io("write", &lock, denied));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("open", &lock, error)),
    }
    if pid.symlink_metadata().is_ok_and(|facts| facts.is_dir()) {
        return Err(Error::io("write", &pid, std::io::ErrorKind::IsADirectory.into()));
    }
    let failed = |error: std::io::Error| Error::io("write a file in", directory, error);
    let mut scratch = scratch(directory).map_err(failed)?;
    scratch.write_all(&[b' '; SCRATCH_LENGTH]).map_err(failed)?;
    scratch.close().map_err(failed)
}

impl Locked {
    /// Not being able to look is no sign of a loss.
    fn is_at(&self, path: &Path) -> Result<bool> {
        match sys::file_facts(path) {
            Ok(facts) => Ok(facts.id == self.id),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("look at", path, error)),
        }
    }

    /// In place: whoever locks the file locks this very one.
    fn write(&self, text: &str) -> std::io::Result<()> {
        let mut file = &*self.file;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // A forked child shares the descriptor, and with it the lock: it lets nothing go, and we do
        // so whether or not it keeps the file open.
        if self.creator_pid == std::process::id() {
            forget_own(&self.id);
            sys::foreign_unlock(&self.file);
        }
    }
}

fn lock_and_write(directory: &Path, record: &PidRecord) -> Result<Option<Locked>> {
    let path = directory.join(LOCK_FILE);
    let text = record.to_json().to_string();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(TRY_AGAIN_AFTER);
        }
        let taken = if is_absent(&path) {
            put_in_place(directory, &path, &text)?
        } else {
            take(directory, &path)?
        };
        let Some(file) = taken else { continue };
        let facts =
            sys::open_file_facts(&file).map_err(|error| Error::io("look at", &path, error))?;
        let file = Arc::new(file);
        note_own(facts.id.clone(), Arc::downgrade(&file));
        let locked = Locked { file, id: facts.id, creator_pid: std::process::id() };
        if !locked.is_at(&path)? {
            continue;
        }
        locked.write(&text).map_err(|error| Error::io("write", &path, error))?;
        write_whole(directory, PID_FILE, &text)?;
        // Whoever read the last holder's words meanwhile may have taken the file for garbage.
        if locked.is_at(&path)? {
            return Ok(Some(locked));
        }
    }
    Ok(None)
}

fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether there is no such file; where files cannot be renamed while they are locked, none counts
/// as absent.
fn is_absent(path: &Path) -> bool {
    sys::SHOWS_LOCKED_CONTENT && is_missing(path)
}

/// Makes the lock file. It appears locked and written, because the older program takes a lock file
/// that nobody holds for garbage. Whoever found none there a moment ago may still remove ours,
/// locked or not: the file keeps another name until it has stayed, and is put back at once, before
/// that one looks again. `None` when another file has appeared, or ours does not stay.
fn put_in_place(directory: &Path, path: &Path, text: &str) -> Result<Option<File>> {
    /// Far more than any program looks in the time that it takes.
    const REMOVED_MAX: usize = 1_000;
    /// Longer than from a look of the older program to what it does.
    const STAYS_FOR: Duration = Duration::from_millis(2);

    let failed = |error: std::io::Error| Error::io("make", path, error);
    let mut scratch = scratch(directory).map_err(failed)?;
    sys::give_to_owner_of_directory(scratch.as_file(), scratch.path()).map_err(failed)?;
    if !sys::try_foreign_lock(scratch.as_file(), Sharing::Exclusive).map_err(failed)? {
        return Ok(None);
    }
    scratch.write_all(text.as_bytes()).map_err(failed)?;
    let (file, other_name) = scratch.into_parts();
    let id = sys::open_file_facts(&file).map_err(failed)?.id;
    for _ in 0..REMOVED_MAX {
        match sys::link_beside(&other_name, path).map_err(|error| error.kind()) {
            Ok(()) | Err(std::io::ErrorKind::AlreadyExists) => {}
            // A filesystem without second names.
            Err(_) => return take(directory, path),
        }
        let until = Deadline::after(STAYS_FOR);
        loop {
            match sys::file_facts(path) {
                Ok(facts) if facts.id != id => return Ok(None),
                Ok(_) if until.has_passed() => return Ok(Some(file)),
                Ok(_) => std::hint::spin_loop(),
                Err(_) => break,
            }
        }
    }
    Ok(None)
}

/// Takes the lock file that is there. `None` when somebody else has it.
fn take(directory: &Path, path: &Path) -> Result<Option<File>> {
    let file = sys::open_foreign_lock_file(path).map_err(|error| Error::io("open", path, error))?;
    // Before it is looked at: whoever makes one gives it a second name for a while, and has it
    // locked.
    let taken = sys::try_foreign_lock(&file, Sharing::Exclusive)
        .map_err(|error| Error::io("lock", path, error))?;
    if !taken {
        return Ok(None);
    }
    remove_other_names(directory, &file);
    check_overwritable(&file, directory, path)?;
    Ok(Some(file))
}

/// Removes the other name that a start has left which was killed while it made the lock file.
fn remove_other_names(directory: &Path, file: &File) {
    let Ok(FileFacts { id, links: 2.., .. }) = sys::open_file_facts(file) else { return };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(SCRATCH)
            && sys::file_facts(&path).is_ok_and(|facts| facts.id == id)
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::debug!(path = %path.display(), %error, "a second name of a lock stays behind");
        }
    }
}

/// Where root works in the directory of a user, who may have put a file of root's in the place of
/// the lock, which is written to: it has to be the user's, or what stands in a lock of a gateway.
fn check_overwritable(file: &File, directory: &Path, path: &Path) -> Result<()> {
    const OTHERS_MAY_WRITE: u32 = 0o002;
    if sys::effective_uid() != Some(0) {
        return Ok(());
    }
    let failed = |error: std::io::Error| Error::io("look at", path, error);
    let facts = sys::open_file_facts(file).map_err(failed)?;
    let place = sys::file_facts(directory).map_err(failed)?;
    let is_open = place.mode.is_some_and(|mode| mode & OTHERS_MAY_WRITE != 0);
    let is_harmless = match place.owner {
        // Nobody else puts a file there.
        Some(0) => !is_open,
        // His own file is his to lose.
        owner => facts.owner == owner,
    };
    if is_harmless {
        return Ok(());
    }
    let is_record = || PidRecord::read_open(file).is_ok();
    let why = if facts.links > 1 {
        "has more than one name (hard links)"
    } else if facts.owner != place.owner && facts.length > 0 && !is_record() {
        "belongs to another user than its directory does, and is not the lock file of a gateway"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::NotOurs, format!("{} {why}", path.display()))
        .at(path)
        .with_hint("find out who has put it there, and move it away"))
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.locked.creator_pid != std::process::id() {
            return;
        }
        if self.names_us(STATUS_FILE) {
            self.show_end();
        }
        let path = self.directory.join(PID_FILE);
        if self.names_us(PID_FILE)
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::debug!(path = %path.display(), %error, "a pid file of ours stays behind");
        }
    }
}
