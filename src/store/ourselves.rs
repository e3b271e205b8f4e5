//! The anchor of this process. Its life is the commit, so its statements are here and not in
//! `records/`.
//!
//! A new anchor becomes the process' anchor with the commit; until then the old one stays locked.
//! The anchor is dropped inside the transaction that ends the process' last row, and its file is
//! unlinked after the commit. Claims collect what the dead leave.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use rusqlite::Connection;

use crate::environment::{Fault, planted};
use crate::process::anchor::Dropped;
use crate::process::older::lock;
use crate::process::{Anchor, command_line, command_lock};
use crate::store::deferred::Deferred;
use crate::store::handle::Inner;
use crate::store::held::{Held, Released};
use crate::store::location::Location;
use crate::store::transaction;
use crate::store::transaction::Tx;
use crate::sys::Pid;
use crate::{ErrorKind, Result, sys};

/// Whether any row, ended or not, names `anchor`.
pub(crate) fn names_anchor(connection: &Connection, anchor: &str) -> Result<bool> {
    let named = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM instances WHERE anchor = ?1 AND ended_at_ms IS NULL)
                 OR EXISTS (SELECT 1 FROM instances WHERE anchor = ?1 AND ended_at_ms IS NOT NULL)",
        )?
        .query_row([anchor], |row| row.get(0))?;
    Ok(named)
}

/// Whether a live row relies on `anchor`.
pub(crate) fn is_live_anchor(connection: &Connection, anchor: &str) -> Result<bool> {
    let is_live = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM instances WHERE anchor = ?1 AND ended_at_ms IS NULL)",
        )?
        .query_row([anchor], |row| row.get(0))?;
    Ok(is_live)
}

/// How many live rows rely on `anchor`.
pub(crate) fn live_on_anchor(connection: &Connection, anchor: &str) -> Result<i64> {
    let count = connection
        .prepare_cached("SELECT count(*) FROM instances WHERE anchor = ?1 AND ended_at_ms IS NULL")?
        .query_row([anchor], |row| row.get(0))?;
    Ok(count)
}

/// How many live rows of the process `pid` rely on `anchor`.
fn live_on_anchor_of(connection: &Connection, anchor: &str, pid: Pid) -> Result<i64> {
    let count = connection
        .prepare_cached(
            "SELECT count(*) FROM instances
             WHERE anchor = ?1 AND ended_at_ms IS NULL AND pid = ?2",
        )?
        .query_row((anchor, pid), |row| row.get(0))?;
    Ok(count)
}

/// This process, for people, as who acts.
pub(crate) fn by_self(inner: &Inner) -> String {
    inner.description(|| describe_self(inner, &inner.myself().argv)).to_owned()
}

/// Whoever writes, for people: pid, command line, user.
pub(crate) fn describe_self(inner: &Inner, argv: &[String]) -> String {
    let observer = inner.observer();
    let uid = observer.uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
    format!("pid {} ({}){uid}", observer.pid, command_line::display(argv))
}

impl Inner {
    /// This process' anchor in this store, made if there is none or if it was removed. Only inside
    /// a write transaction; it becomes the process' anchor with the commit.
    pub(crate) fn anchor(&self, tx: &Tx<'_>) -> Result<Arc<Anchor>> {
        if let Some(anchor) = tx.new_anchor() {
            return Ok(anchor);
        }
        let current = self.own_anchor();
        if let Some(anchor) = &current
            && anchor.is_in_place()
        {
            // An adopted one becomes ours for good, with the row that will name it.
            if self.anchor.lock().is_none() {
                tx.set_new_anchor(Arc::clone(anchor));
            }
            return Ok(Arc::clone(anchor));
        }
        let Location { file, anchors, .. } = &self.location;
        let anchor = Arc::new(Anchor::create(file, anchors, self.store_uuid()?)?);
        if let Some(previous) = current {
            // Of one that was handed over, others lean on the same file, and still hold it.
            let only_of = previous.is_shared().then(|| self.observer().pid);
            tx.rename_anchor(previous.name(), anchor.name(), only_of)?;
            // The command that lives holds its lock on that very file.
            let of_command = |name| command_lock::path_of(&self.location.anchors, name);
            match sys::link_beside(&of_command(previous.name()), &of_command(anchor.name())) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::debug!(%error, "the lock of the command is not found any more");
                }
                Ok(()) | Err(_) => {}
            }
        }
        tx.set_new_anchor(Arc::clone(&anchor));
        Ok(anchor)
    }

    /// The anchor that this process holds in this store, or goes on with from the one before it.
    pub(crate) fn own_anchor(&self) -> Option<Arc<Anchor>> {
        let own = self.anchor.lock().clone();
        own.or_else(|| self.adopted.lock().upgrade())
    }

    /// A process holds an anchor only while a live row relies on it: one that is held without any
    /// row means that the store has lost rows. One that was only adopted is still another handle's.
    pub(super) fn unneeded_anchor(&self, tx: &Tx<'_>) -> Result<Option<Dropped>> {
        let ours = self.anchor.lock().clone();
        match ours {
            Some(anchor) if live_on_anchor(tx, anchor.name())? == 0 => {
                Ok(Some(Dropped::new(anchor)))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Writes a release, by `end`; one that cannot be written is kept. `held` is what this process
    /// holds without it.
    pub(crate) fn let_go(
        &self,
        held: &Held,
        end: impl Fn(&Tx<'_>) -> Result<bool>,
        kept: impl FnOnce() -> Arc<dyn Deferred>,
    ) -> Released {
        let released = match self.write(end) {
            Ok(true) => return Released::Free,
            Ok(false) => return Released::WasLost,
            Err(error) if error.kind() == ErrorKind::StoreReplaced => Released::WasLost,
            Err(error) => {
                let pending = kept();
                tracing::warn!(?pending, %error, "release kept for later");
                if !planted(Fault::ReleaseForgotten) {
                    self.pending.lock().push(pending);
                }
                Released::Pending(error)
            }
        };
        // Nobody shall be kept out because we cannot write.
        if held.is_nothing() {
            self.abandon_anchor();
        }
        released
    }

    /// After something was lost with its store: an anchor that nothing else relies on would stand
    /// in everybody's way in the next one.
    pub(crate) fn let_go_of_lost_store(&self) {
        if self.held.lock().is_nothing() {
            self.abandon_anchor();
        }
    }

    /// Lets the anchor go although a row still names it: the release could not be written, and
    /// nobody shall be kept out by that.
    fn abandon_anchor(&self) {
        let anchor = self.anchor.lock().take();
        if let Some(anchor) = &anchor {
            self.note_abandoned(anchor);
        }
    }

    /// Notes that `anchor` is let go although a row names it, or may come to name it again.
    pub(super) fn note_abandoned(&self, anchor: &Anchor) {
        /// More than one process loses in its life. Of one that is forgotten, the end is called
        /// `re_executed`.
        const NAMES_MAX: usize = 100;
        let mut names = self.abandoned.lock();
        if names.len() >= NAMES_MAX {
            names.remove(0);
        }
        names.push(anchor.name().to_owned());
    }

    /// Whether this very program, which has executed nothing since, let that anchor go although a
    /// row named it. No name comes twice.
    pub(crate) fn has_abandoned(&self, anchor: &str) -> bool {
        self.abandoned.lock().iter().any(|name| name == anchor)
    }

    /// Goes on with an anchor that the process before us left, unless there is one already; whether
    /// it does.
    pub(crate) fn go_on_with_anchor(&self, left: &Arc<Anchor>) -> bool {
        if self.own_anchor().is_some() {
            return false;
        }
        *self.anchor.lock() = Some(Arc::clone(left));
        true
    }

    /// Goes on without it: no row of ours came to lean on it.
    pub(crate) fn give_back(&self, left: &Arc<Anchor>) {
        self.anchor.lock().take_if(|anchor| Arc::ptr_eq(anchor, left));
    }

    /// Leaves the anchor to whom it was handed over, unless something else of this process leans on
    /// it. What cannot be found out now stays open until the handle is closed. `held` is what this
    /// process holds.
    pub(crate) fn leave_anchor(&self, held: &Held) {
        if !held.is_nothing() {
            return;
        }
        let left = self.write(|tx| {
            if let Some(anchor) = self.own_anchor()
                && live_on_anchor_of(tx, anchor.name(), self.observer().pid)? == 0
            {
                self.anchor.lock().take();
            }
            Ok(())
        });
        if let Err(error) = left {
            tracing::debug!(%error, "the anchor that was handed over stays open here as well");
        }
    }

    /// Begins to hand over, until what it returns is dropped. `None` while another thread does.
    pub(crate) fn hand_over(&self) -> Option<HandingOver<'_>> {
        let is_first = !self.handing_over.swap(true, Ordering::AcqRel);
        is_first.then(|| HandingOver(&self.handing_over))
    }

    /// Whether a thread of ours is handing over. It will say what came of it.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::Acquire)
    }

    /// The row of our `run` names us as its command, and may come to name a successor.
    pub(crate) fn may_be_followed(&self) {
        self.was_command.store(true, Ordering::Release);
    }

    /// Whether the row of our `run`, with this command, stands for another process by now. Below a
    /// start script that cannot be told, and nobody follows there.
    pub(crate) fn is_followed(&self, command: Option<Pid>) -> bool {
        self.was_command.load(Ordering::Acquire) && command != Some(self.observer().pid)
    }

    /// Goes on with the anchor of a handle whose store was replaced, so that its lock never lapses.
    pub(crate) fn adopt_anchor(&self, from: &Self) {
        *self.adopted.lock() = from.own_anchor().map_or_else(Weak::new, |it| Arc::downgrade(&it));
        self.held_before.inherit(&from.held.lock(), &from.held_before);
    }
}

/// A handover is going on.
pub(crate) struct HandingOver<'a>(&'a AtomicBool);

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The columns that say which file an anchor is: SQLite's numbers have a sign, the kernel's do not.
pub(crate) struct AnchorFile {
    pub(crate) inode: Option<i64>,
    pub(crate) device: Option<i64>,
    pub(crate) filesystem: Option<i64>,
}

impl AnchorFile {
    /// Of the anchor `name`, which stands in its place while the transaction lasts. That of an
    /// older gateway is its file, and not ours.
    pub(crate) fn of(tx: &Tx<'_>, name: Option<&str>) -> Result<Self> {
        let key = match name {
            Some(name) if lock::path_of(name).is_none() => tx.store().anchor_key(tx, name)?,
            Some(_) | None => None,
        };
        let signed = |number: u64| number.cast_signed();
        Ok(Self {
            inode: key.map(|key| signed(key.inode)),
            device: key.map(|key| signed(key.device)),
            filesystem: key.and_then(|key| key.filesystem).map(signed),
        })
    }
}

impl Tx<'_> {
    /// The anchors that rows on record as live rely on.
    pub(crate) fn named_anchors(&self) -> Result<HashSet<String>> {
        transaction::named_anchors(self)
    }

    /// The process' own anchor was removed and made again: its live rows follow.
    pub(crate) fn rename_anchor(&self, from: &str, to: &str, only_of: Option<Pid>) -> Result<()> {
        let file = AnchorFile::of(self, Some(to))?;
        self.prepare_cached(
            "UPDATE instances SET anchor = ?2, anchor_inode = ?3, anchor_dev = ?4, anchor_fsid = ?5
             WHERE anchor = ?1 AND ended_at_ms IS NULL AND (?6 IS NULL OR pid = ?6)",
        )?
        .execute((from, to, file.inode, file.device, file.filesystem, only_of))?;
        Ok(())
    }
}
