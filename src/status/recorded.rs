//! All that is on record of an office, read in one look.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::PathBuf;

use rusqlite::Connection;

use crate::liveness::{Judgement, Lease, Ruling};
use crate::owner::held_lock::HeldLock;
use crate::owner::orphan::orphan;
use crate::owner::waiter::{Waiter, waiting};
use crate::owner::{held_lock, look};
use crate::process::Orphan;
use crate::records::conflicts::{Conflict, conflicts};
use crate::records::instances::LockNow;
use crate::records::markers::Marker;
use crate::records::profiles::Desired;
use crate::records::starts::RefusedStart;
use crate::records::waiters::WaiterRow;
use crate::records::{Record, instances, markers, profiles, runtime, starts};
use crate::status::report::Statement;
use crate::store::Inner;
use crate::{InstanceId, Office, ProfileName, Result, owner};

/// What one snapshot of the store says of an office.
pub(crate) struct Recorded {
    pub(super) live: Option<Record>,
    pub(super) last_ended: Option<Record>,
    /// What that one had in memory at its last heartbeat.
    pub(super) last_memory: Option<u64>,
    pub(super) desired: Option<Desired>,
    pub(super) home: Option<PathBuf>,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) locks: Vec<HeldLock>,
    pub(super) markers: Vec<Marker>,
    pub(super) said: Statement,
    /// The last start, if it was refused, and by whom. Not read where somebody is on record as
    /// live.
    pub(super) refused: Option<(Record, RefusedStart)>,
}

/// The holder of `office` as asked about for `profile`: its own, or one that it serves.
pub(super) fn recorded(
    inner: &Inner,
    connection: &Connection,
    office: &Office,
    profile: &ProfileName,
) -> Result<Recorded> {
    let live = owner::live(connection, office)?;
    let last_ended = instances::last_ended(connection, office)?;
    let desired = profiles::desired(connection, profile)?;
    let home = profiles::home(connection, &office.profile)?.map(PathBuf::from);
    // What an older gateway has said, and holds, is not its successor's in the same directory.
    let own = live.as_ref().filter(|record| record.older_lock != LockNow::Successors);
    let (conflicts, locks) = match own {
        Some(record) => (
            conflicts(connection, office, record.id)?,
            held_lock::held_by(inner, connection, record.id)?,
        ),
        None => (Vec::new(), Vec::new()),
    };
    let markers = match own {
        Some(record) if markers::exists(connection)? => {
            markers::open_for(connection, inner.boot_time(), record.id)?
        }
        Some(_) | None => Vec::new(),
    };
    let speaker = if live.is_some() { own } else { last_ended.as_ref() };
    let said = match speaker {
        Some(record) if runtime::exists(connection)? => Statement {
            runtime: runtime::runtime(connection, record.id)?,
            platforms: runtime::platforms(connection, record.id, profile)?,
            serves: runtime::serves(connection, record.id)?,
        },
        Some(_) | None => Statement::default(),
    };
    let last_memory = match &last_ended {
        Some(record) => runtime::memory(connection, &[record.id])?.pop().flatten(),
        None => None,
    };
    let refused = match live {
        None => starts::last_refused(connection, office)?,
        Some(_) => None,
    };
    Ok(Recorded {
        live,
        last_ended,
        last_memory,
        desired,
        home,
        conflicts,
        locks,
        markers,
        said,
        refused,
    })
}

/// What one snapshot says of an office, and of those who serve its profile.
pub(crate) struct OfficeSnapshot {
    pub(super) own: Recorded,
    /// Whoever claims it, and waits for it or for a lock.
    pub(super) waiters: Vec<WaiterRow>,
    /// `None`: not read yet, because somebody is on record as its holder.
    pub(super) servers: Option<Vec<(Office, Recorded)>>,
}

/// `waiters` are those of this office, and may be those of others as well.
pub(super) fn known(
    inner: &Inner,
    connection: &Connection,
    office: &Office,
    waiters: &[WaiterRow],
) -> Result<OfficeSnapshot> {
    let own = recorded(inner, connection, office, &office.profile)?;
    let servers = match own.live {
        None => Some(servers(inner, connection, office)?),
        Some(_) => None,
    };
    let waiters = waiters.iter().filter(|row| row.office.as_ref() == Some(office));
    Ok(OfficeSnapshot { own, servers, waiters: waiters.cloned().collect() })
}

pub(super) fn servers(
    inner: &Inner,
    connection: &Connection,
    office: &Office,
) -> Result<Vec<(Office, Recorded)>> {
    if !runtime::exists(connection)? {
        return Ok(Vec::new());
    }
    let with_record = |server: Office| {
        let recorded = recorded(inner, connection, &server, &office.profile)?;
        Ok((server, recorded))
    };
    runtime::servers(connection, office)?.into_iter().map(with_record).collect()
}

/// The looks that were taken for one answer: one at each holder, whatever it answers for.
pub(crate) struct HolderLooks<'a> {
    pub(super) inner: &'a Inner,
    taken: HashMap<InstanceId, Judgement>,
    /// Whoever refuses every claim without a record; looked for only where nobody is on record.
    orphan: OnceCell<Option<Orphan>>,
}

impl<'a> HolderLooks<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        Self { inner, taken: HashMap::new(), orphan: OnceCell::new() }
    }

    pub(super) fn orphan(&self) -> Result<Option<&Orphan>> {
        if let Some(orphan) = self.orphan.get() {
            return Ok(orphan.as_ref());
        }
        let orphan = orphan(self.inner)?;
        Ok(self.orphan.get_or_init(|| orphan).as_ref())
    }

    pub(super) fn at(&mut self, record: &Record) -> Judgement {
        let look = || look(self.inner, record, Lease::None);
        *self.taken.entry(record.id).or_insert_with(look)
    }

    /// What was refused by the dead is free now.
    pub(super) fn by_the_living(
        &mut self,
        refused: Option<(Record, RefusedStart)>,
    ) -> Option<RefusedStart> {
        let (holder, refused) = refused?;
        (!matches!(self.at(&holder).ruling, Ruling::Dead(_))).then_some(refused)
    }

    pub(super) fn waiting(&self, rows: Vec<WaiterRow>) -> Vec<Waiter> {
        waiting(self.inner, rows)
    }
}
