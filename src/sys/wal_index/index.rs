//! The `-shm` of one connection: opened, locked, mapped.

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rusqlite::ffi;

use super::bell;
use super::bell::{Bell, COMMITS, TURNS};
use super::descriptors::{CHILDREN, Descriptor, Key, open, range, set};
use super::layout::{
    DATABASE_SHARED, DATABASE_WRITER, HEADER_IS_INIT, HEADER_WORDS, Header, IN_USE, LOCKS, beside,
};
use super::system_calls::give_to_owner_of_database;
use crate::environment::{Fault, Guard, is_in_force, planted};
use crate::sys::shortage::note;

/// To what length the first one cuts it back, as SQLite does: shorter than any header.
const LENGTH_ANEW: i64 = 3;

/// SQLite has it grow by whole pages of this length, whatever the machine's are.
const PAGE: usize = 4096;

pub(super) struct OpenIndex {
    shm: Descriptor,
    database: Descriptor,
    /// Where each stretch of the file is mapped, and how many regions a stretch has.
    mapped: Vec<*mut c_void>,
    region_size: usize,
    regions_per_map: usize,
    /// The locks that this connection holds, as bits.
    pub(super) shared: u16,
    pub(super) exclusive: u16,
    /// How many commits there were when this connection began to write last.
    began_at: Option<u32>,
}

pub(super) enum NotOpened {
    Left,
    Code(c_int),
}

impl OpenIndex {
    pub(super) fn open(database: &CStr, key: Key) -> Result<Self, NotOpened> {
        let cannot = |_| NotOpened::Code(ffi::SQLITE_CANTOPEN);
        let is_refused = |error: &io::Error| {
            matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
        };
        let database_file = match open(database, libc::O_RDWR, 0, key) {
            // It can lock nothing that a writer locks, and does not write.
            Err(error) if is_refused(&error) => open(database, libc::O_RDONLY, 0, key),
            opened => opened,
        }
        .map_err(cannot)?;
        let facts = facts(&database_file)?;
        let path = beside(database, "-shm");
        let shm = open(&path, libc::O_RDWR | libc::O_CREAT, facts.st_mode & 0o777, key)
            .map_err(|error| if is_refused(&error) { NotOpened::Left } else { cannot(error) })?;
        make_alike(&shm, &path, &facts)?;
        let index = Self {
            shm,
            database: database_file,
            mapped: Vec::new(),
            region_size: 0,
            regions_per_map: 1,
            shared: 0,
            exclusive: 0,
            began_at: None,
        };
        index.begin().map_err(NotOpened::Code)?;
        Ok(index)
    }

    /// Says that the `-shm` is in use, and begins it anew if nobody did before: after a power loss
    /// there may be anything in it. Whoever holds the byte for himself is just doing that.
    fn begin(&self) -> Result<(), c_int> {
        let mut asked = range(libc::F_WRLCK, IN_USE, 1);
        // SAFETY: `asked` is a whole `flock`, which the kernel fills in.
        let code = unsafe { libc::fcntl(self.shm.as_raw_fd(), libc::F_OFD_GETLK, &raw mut asked) };
        if code != 0 {
            note(io::Error::last_os_error());
            return Err(ffi::SQLITE_IOERR_LOCK);
        }
        match c_int::from(asked.l_type) {
            // Whoever does not say that he uses it cannot tell whether we do.
            libc::F_UNLCK if is_in_force(Guard::InUse) => {
                set(&self.shm, libc::F_WRLCK, IN_USE, 1)?;
                // SAFETY: on a descriptor of our own.
                if unsafe { libc::ftruncate(self.shm.as_raw_fd(), LENGTH_ANEW) } != 0 {
                    note(io::Error::last_os_error());
                    return Err(ffi::SQLITE_IOERR_SHMOPEN);
                }
            }
            libc::F_WRLCK => return Err(ffi::SQLITE_BUSY),
            _ => {}
        }
        if is_in_force(Guard::InUse) {
            let is_left_out = planted(Fault::IndexUnguarded);
            let kind = if is_left_out { libc::F_UNLCK } else { libc::F_RDLCK };
            set(&self.shm, kind, IN_USE, 1)?;
        }
        if is_in_force(Guard::Database) {
            set(&self.database, libc::F_RDLCK, DATABASE_SHARED, 1)?;
        }
        Ok(())
    }

    /// The address of a region; null where the file is too short for it and is not to grow.
    pub(super) fn region(
        &mut self,
        region: usize,
        size: usize,
        extend: bool,
    ) -> Result<*mut c_void, c_int> {
        if self.region_size == 0 {
            self.region_size = size;
            self.regions_per_map = (page_size() / size).max(1);
        }
        let wanted = region / self.regions_per_map + 1;
        if self.mapped.len() < wanted {
            let length = wanted * self.regions_per_map * size;
            if !self.reaches(length, extend)? {
                return Ok(ptr::null_mut());
            }
        }
        let stretch = self.regions_per_map * size;
        while self.mapped.len() < wanted {
            let at =
                i64::try_from(self.mapped.len() * stretch).map_err(|_| ffi::SQLITE_IOERR_SHMMAP)?;
            // Between the two calls there is no fork: a child would keep the mapping.
            let address = CHILDREN.with(|_| {
                // SAFETY: a new mapping of a file of our own, as long as the file; unmapped in
                // `drop`.
                unsafe {
                    let address = libc::mmap(
                        ptr::null_mut(),
                        stretch,
                        libc::PROT_READ | libc::PROT_WRITE,
                        libc::MAP_SHARED,
                        self.shm.as_raw_fd(),
                        at,
                    );
                    if address != libc::MAP_FAILED {
                        libc::madvise(address, stretch, libc::MADV_DONTFORK);
                        return Ok(address);
                    }
                }
                Err(io::Error::last_os_error())
            });
            let address = address.map_err(|error| {
                note(error);
                ffi::SQLITE_IOERR_SHMMAP
            })?;
            self.mapped.push(address);
        }
        let stretch = self.mapped[region / self.regions_per_map];
        Ok(stretch.cast::<u8>().wrapping_add((region % self.regions_per_map) * size).cast())
    }

    /// The header, if it is mapped and nobody is just writing it. A writer writes the second copy
    /// first (`walIndexWriteHdr` in wal.c), and a reader reads the first one first: equal ones are
    /// whole.
    pub(super) fn header(&self) -> Option<Header> {
        let first = self.mapped.first()?.cast::<u32>();
        if first.is_null() || self.region_size < 2 * size_of::<Header>() || self.shm.is_closed() {
            return None;
        }
        let copy = |number: usize| {
            let mut words = [0; HEADER_WORDS];
            for (at, word) in words.iter_mut().enumerate() {
                // SAFETY: the region is mapped as long as this lives, aligned to a page, and longer
                // than both copies. Other processes write to it: each word is read once, by itself.
                *word = unsafe { first.add(number * HEADER_WORDS + at).read_volatile() };
            }
            words
        };
        let one = copy(0);
        fence(Ordering::SeqCst);
        let is_there = one[HEADER_IS_INIT].to_ne_bytes()[0] != 0;
        (is_there && one == copy(1)).then_some(Header(one))
    }

    /// Whether the file is that long, or was made so. Each page is written to: what a disk has no
    /// room for must fail here, and not as a signal where it is read.
    fn reaches(&self, length: usize, extend: bool) -> Result<bool, c_int> {
        let facts = facts(&self.shm).map_err(|_| ffi::SQLITE_IOERR_SHMSIZE)?;
        let has = usize::try_from(facts.st_size).unwrap_or(0);
        if has >= length || !extend {
            return Ok(has >= length);
        }
        for page in has / PAGE..length / PAGE {
            let last = i64::try_from(page * PAGE + PAGE - 1).unwrap_or(i64::MAX);
            // SAFETY: one byte is read from a constant.
            let written =
                unsafe { libc::pwrite(self.shm.as_raw_fd(), c"".as_ptr().cast(), 1, last) };
            if written != 1 {
                note(io::Error::last_os_error());
                return Err(ffi::SQLITE_IOERR_SHMSIZE);
            }
        }
        Ok(true)
    }

    /// A word of the header, while this is borrowed. It is mapped with the first region, which is
    /// longer than that; SQLite's own are read the same way.
    fn word(&self, at: usize) -> Option<&AtomicU32> {
        let begin = *self.mapped.first()?;
        // SAFETY: mapped until `drop`, at least a page, and both places are multiples of four.
        // Others change it meanwhile, as a whole.
        Some(unsafe { &*begin.cast::<AtomicU32>().add(at / size_of::<AtomicU32>()) })
    }

    /// It is not mapped in this process, which was forked.
    pub(super) fn is_inherited(&self) -> bool {
        self.shm.is_inherited()
    }

    /// What rings with the next commit of ours.
    pub(super) fn bell(&self) -> Option<Bell> {
        self.word(COMMITS).map(Bell::of)
    }

    /// Tells those who wait that something was committed, if it was since this connection began to
    /// write.
    pub(super) fn ring(&mut self) {
        let began_at = self.began_at.take();
        if let Some(word) = self.word(COMMITS)
            && began_at != Some(word.load(Ordering::Acquire))
        {
            bell::ring_all(word);
        }
    }

    pub(super) fn lock(&mut self, first: c_int, count: c_int, flags: c_int) -> c_int {
        let is_for_writing = bits(first, count) & WRITER != 0;
        // In a forked child nothing is mapped.
        if !is_for_writing || self.shm.is_closed() {
            // What is waited for next is this.
            bell::set_turn(None);
            return self.lock_bytes(first, count, flags);
        }
        let is_unlock = flags & ffi::SQLITE_SHM_UNLOCK != 0;
        // Before the attempt: whoever lets go after it has changed the word by the time we wait.
        let turn = self.word(TURNS).filter(|_| !is_unlock).map(Bell::of);
        let wrote = self.exclusive & WRITER != 0;
        let code = self.lock_bytes(first, count, flags);
        if is_unlock {
            // After it is let go: whoever is woken would find it taken.
            if let Some(word) = self.word(TURNS).filter(|_| wrote) {
                bell::next_turn(word);
            }
        } else {
            bell::set_turn(turn.filter(|_| code == ffi::SQLITE_BUSY));
            if code == ffi::SQLITE_OK {
                self.began_at = self.word(COMMITS).map(|word| word.load(Ordering::Acquire));
            }
        }
        code
    }

    fn lock_bytes(&mut self, first: c_int, count: c_int, flags: c_int) -> c_int {
        if self.shm.is_closed() {
            // Nothing is held here, and the number of the descriptor may be somebody else's.
            let is_unlock = flags & ffi::SQLITE_SHM_UNLOCK != 0;
            return if is_unlock { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHMLOCK };
        }
        let mask = bits(first, count);
        let wants = flags & (ffi::SQLITE_SHM_SHARED | ffi::SQLITE_SHM_EXCLUSIVE);
        let is_held = (self.shared | self.exclusive) & mask != 0;
        let kind = if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            if !is_held {
                return ffi::SQLITE_OK;
            }
            libc::F_UNLCK
        } else if wants == ffi::SQLITE_SHM_SHARED {
            if self.shared & mask != 0 {
                return ffi::SQLITE_OK;
            }
            libc::F_RDLCK
        } else {
            // Of one's own, too: a lock is not raised from shared to exclusive.
            if is_held {
                return ffi::SQLITE_BUSY;
            }
            libc::F_WRLCK
        };
        // Whoever writes holds the lock of a reader, too, and who empties the WAL that of a
        // checkpointer; the others only build the index again.
        let writes = mask & WRITER != 0
            && self.database.writes
            && (self.shared != 0 || self.exclusive & (WRITER | CHECKPOINTER) != 0);
        if writes && kind == libc::F_UNLCK {
            let _ = set(&self.database, kind, DATABASE_WRITER, 1);
        }
        if let Err(code) = set(&self.shm, kind, LOCKS + i64::from(first), i64::from(count)) {
            return code;
        }
        if writes
            && kind == libc::F_WRLCK
            && let Err(code) = set(&self.database, kind, DATABASE_WRITER, 1)
        {
            let _ = set(&self.shm, libc::F_UNLCK, LOCKS + i64::from(first), i64::from(count));
            return code;
        }
        self.shared &= !mask;
        self.exclusive &= !mask;
        match kind {
            libc::F_RDLCK => self.shared |= mask,
            libc::F_WRLCK => self.exclusive |= mask,
            _ => {}
        }
        ffi::SQLITE_OK
    }
}

impl Drop for OpenIndex {
    /// A process that shares the open files by a bare fork goes on without our locks. One that was
    /// forked has neither the descriptors nor the mappings, and what is in their places by now is
    /// somebody else's.
    fn drop(&mut self) {
        if self.shm.is_inherited() {
            return;
        }
        bell::set_turn(None);
        for address in &self.mapped {
            // SAFETY: mapped in `region`, with this length; SQLite uses it no more.
            unsafe { libc::munmap(*address, self.region_size * self.regions_per_map) };
        }
        let _ = set(&self.shm, libc::F_UNLCK, LOCKS, IN_USE - LOCKS + 1);
        let _ = set(&self.database, libc::F_UNLCK, DATABASE_SHARED, 1);
        let _ = set(&self.database, libc::F_UNLCK, DATABASE_WRITER, 1);
    }
}

/// `WAL_WRITE_LOCK`, the first of the eight.
const WRITER: u16 = 1;

/// `WAL_CKPT_LOCK`, the second.
const CHECKPOINTER: u16 = 2;

pub(super) fn bits(first: c_int, count: c_int) -> u16 {
    (0..16).filter(|bit| (first..first + count).contains(bit)).map(|bit| 1 << bit).sum()
}

fn page_size() -> usize {
    rustix::param::page_size()
}

fn facts(file: &Descriptor) -> Result<libc::stat, NotOpened> {
    // SAFETY: plain numbers, for which zero is valid, filled in by the call.
    unsafe {
        let mut facts: libc::stat = std::mem::zeroed();
        if libc::fstat(file.as_raw_fd(), &raw mut facts) == 0 {
            return Ok(facts);
        }
    }
    note(io::Error::last_os_error());
    Err(NotOpened::Code(ffi::SQLITE_IOERR_FSTAT))
}

/// What root makes belongs to whom the database belongs to, and has its mode, whatever the umask
/// says.
fn make_alike(shm: &Descriptor, path: &CStr, database: &libc::stat) -> Result<(), NotOpened> {
    let made = facts(shm)?;
    let file = shm.as_raw_fd();
    // SAFETY: on a descriptor of our own; what cannot be changed stays as it is, as with SQLite.
    unsafe {
        if made.st_size == 0 && made.st_mode & 0o777 != database.st_mode & 0o777 {
            libc::fchmod(file, database.st_mode & 0o777);
        }
    }
    if made.st_uid != database.st_uid && rustix::process::geteuid().is_root() {
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let _ = give_to_owner_of_database(&shm.file, path);
    }
    Ok(())
}
