//! A holder that was seen to live, and is looked at again without being looked for.
//!
//! "Is it up?" is asked over and over, and the answer is nearly always the same. Two things of the
//! kernel's decide it, and both can be kept open: the lock of the very file that the row names, and
//! the process that the row means, by the kernel's own number of it. While the row is what it was,
//! that lock is held and that process has not ended, rule 3 of the verdict says that it lives (rule
//! 10, should the file have lost its name since). Anything else is judged anew, from the beginning.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::liveness::{AliveReason, Judgement, Ruling, StartTimeMatch};
use crate::process::anchor::Probe;
use crate::records::Record;
use crate::store::Inner;
use crate::store::memo::Memo;
use crate::sys::ProcessHandle;
use crate::{Kind, sys};

/// What was asked last, of one profile.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// The live row of an office of this kind.
    pub(crate) row: Memo<Kind, Option<Record>>,
    holder: Mutex<Option<Holder>>,
}

impl Running {
    /// The pid of the holder with this `row`, if it is the one that was seen to live, and still
    /// does.
    pub(crate) fn pid(&self, row: &Arc<Option<Record>>) -> Option<sys::Pid> {
        let mut holder = self.holder.lock();
        let is_alive = holder.as_ref().is_some_and(|it| it.is_alive(row));
        if !is_alive {
            *holder = None;
            return None;
        }
        (**row).as_ref()?.pid
    }

    /// Keeps a holder that was pinned before it was judged to live.
    pub(crate) fn keep(&self, holder: Option<Holder>, judged: &Judgement) {
        let is_proven = judged.ruling == Ruling::Alive(AliveReason::AnchorHeld)
            && judged.evidence.is_here()
            && judged.evidence.process_id == StartTimeMatch::Equal;
        *self.holder.lock() = holder.filter(|_| is_proven);
    }
}

/// The anchor and the process of a row.
#[derive(Debug)]
pub(crate) struct Holder {
    row: Arc<Option<Record>>,
    anchor: Probe,
    process: ProcessHandle,
    _place: Place,
}

/// One of the few that a process keeps open, two descriptors each: whoever asks of hundreds of
/// profiles needs its descriptors for other things.
#[derive(Debug)]
struct Place;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Place {
    const MAX: usize = 32;

    fn take() -> Option<Self> {
        let more = |taken: usize| (taken < Self::MAX).then_some(taken + 1);
        TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Holder {
    /// Opens both; `None` where the kernel numbers no processes, the row has no such number, or
    /// enough are open.
    pub(crate) fn pin(inner: &Inner, row: &Arc<Option<Record>>) -> Option<Self> {
        let record = (**row).as_ref()?;
        let place = Place::take()?;
        let process = ProcessHandle::open(record.pid?).ok()?;
        if process.number().is_none() || process.number() != record.identity.process {
            return None;
        }
        let (name, key) = (record.anchor.as_deref()?, record.identity.anchor.as_ref()?);
        let anchor = Probe::open(&inner.location.anchors, name, key)?;
        Some(Self { row: Arc::clone(row), anchor, process, _place: place })
    }

    /// Of the same row, read once: another one is another allocation.
    fn is_alive(&self, row: &Arc<Option<Record>>) -> bool {
        Arc::ptr_eq(&self.row, row) && !self.process.has_ended() && self.anchor.is_held()
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::store::Store;

    /// A process that sleeps, for whom a row and an anchor stand that this test holds.
    struct Other {
        child: Child,
        anchor: Option<crate::process::Anchor>,
    }

    fn other(store: &Store) -> Other {
        let child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let (inner, pid) = (&store.inner, child.id());
        let place = &inner.location;
        let store_id = inner.store_uuid().unwrap();
        let anchor = crate::process::Anchor::create(&place.file, &place.anchors, store_id).unwrap();
        let (key, facts, observer) =
            (anchor.key().unwrap().unwrap(), sys::process_facts(pid), inner.observer());
        let insert = |tx: &crate::store::Tx<'_>| {
            tx.execute(
                "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, start_time,
                     start_time_unit, boot_id, pid_ns, host, uid, stop_budget_ms, anchor,
                     started_at_ms, anchor_inode, anchor_dev, process_inode, written_by)
                 VALUES (7, '7', 'other', 'gateway', 'library', ?1, ?2, 'ticks', ?3, ?4, ?5, ?6, 1,
                     ?7, 1, ?8, ?9, ?10, 'a test')",
                rusqlite::params![
                    pid,
                    facts.start_time.map(|time| time.value),
                    observer.boot_id,
                    observer.pid_ns,
                    observer.host,
                    observer.uid,
                    anchor.name(),
                    key.inode.cast_signed(),
                    key.device.cast_signed(),
                    facts.number.map(|number| number.0.cast_signed()),
                ],
            )?;
            Ok(())
        };
        inner.write(insert).unwrap();
        Other { child, anchor: Some(anchor) }
    }

    /// Whatever becomes of a holder that is kept open is seen by the next question.
    #[test]
    fn a_holder_that_is_known_is_asked_about_each_time() {
        type Change = fn(&Store, &mut Other);
        let changes: [(&str, bool, Change); 5] = [
            ("nothing", true, |_, _| {}),
            ("its anchor lost its name", true, |store, other| {
                let name = other.anchor.as_ref().unwrap().name().to_owned();
                std::fs::remove_file(store.inner.location.anchors.join(name)).unwrap();
            }),
            ("it let its anchor go", false, |_, other| drop(other.anchor.take())),
            ("it was killed, and a child of it keeps the anchor", false, |_, other| {
                other.child.kill().unwrap();
                other.child.wait().unwrap();
            }),
            ("it was evicted", false, |store, _| {
                let end = "UPDATE instances SET ended_at_ms = 1, end_reason = 'evicted'
                           WHERE id = 7";
                store.inner.write(|tx| Ok(tx.execute(end, [])?)).unwrap();
            }),
        ];
        for (what, is_running, change) in changes {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path().join("state.db")).unwrap();
            let mut other = other(&store);
            let known = Running::default();
            let row = || {
                let read = |connection: &rusqlite::Connection| {
                    crate::records::instances::by_id(connection, crate::InstanceId(7))
                };
                store.inner.read_once(&known.row, Kind::default(), read).unwrap()
            };
            // The first connection maps the wal-index when it reads.
            row();
            let holder = Holder::pin(&store.inner, &row());
            let has_numbers = sys::process_facts(std::process::id()).number.is_some();
            assert_eq!(holder.is_some(), has_numbers, "{what}");
            let judged = crate::owner::judgement(&store.inner, (*row()).as_ref().unwrap());
            known.keep(holder, &judged);
            let expected = Some(other.child.id()).filter(|_| has_numbers);
            assert_eq!(known.pid(&row()), expected, "{what}");
            change(&store, &mut other);
            assert_eq!(known.pid(&row()), expected.filter(|_| is_running), "{what}");
            assert!(known.holder.lock().is_some() == (is_running && has_numbers), "{what}");
            let _ = other.child.kill();
            let _ = other.child.wait();
        }
    }
}
