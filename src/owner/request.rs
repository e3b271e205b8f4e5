//! What an owner was asked to do, and by whom.

use rusqlite::Connection;

use crate::liveness::{Judgement, Ruling};
use crate::owner::holder::Holder;
use crate::owner::judgement;
use crate::records::markers::Marker;
use crate::records::{Record, instances, markers};
use crate::store::Inner;
use crate::{InstanceId, Result, Wanted};
use std::time::Duration;

/// An end that somebody has asked of an instance, who lives and waits for it.
pub(crate) struct InProgress {
    pub(crate) marker: Marker,
    pub(crate) requester: Record,
    judged: Judgement,
}

impl InProgress {
    pub(crate) fn of(
        connection: &Connection,
        inner: &Inner,
        instance: InstanceId,
    ) -> Result<Option<Self>> {
        if !markers::exists(connection)? {
            return Ok(None);
        }
        let asked = markers::asked_end(connection, inner.boot_time(), instance)?;
        let Some((marker, id)) = asked.and_then(|marker| marker.requester.map(|id| (marker, id)))
        else {
            return Ok(None);
        };
        let requester = instances::by_id(connection, id)?.filter(Record::is_live);
        let Some(requester) = requester else { return Ok(None) };
        let judged = judgement(inner, &requester);
        let is_dead = matches!(judged.ruling, Ruling::Dead(_));
        Ok((!is_dead).then_some(Self { marker, requester, judged }))
    }

    /// Who asked for it, as what keeps others from it.
    pub(crate) fn holder(&self, wanted: &Wanted) -> Holder {
        /// Nobody knows how long it will take; looking again costs nothing.
        const LOOK_AGAIN: Duration = Duration::from_secs(1);
        Holder::reserved(wanted, &self.requester, &self.judged, LOOK_AGAIN)
    }
}

/// What is asked of a `run`.
#[derive(Debug)]
pub(crate) enum Request {
    /// To end, by somebody who lives and waits for it.
    End(Marker),
    /// To start its command anew.
    Restart(Marker),
}

/// What is asked of the holder of an office by a marker alone: it acts on it without a signal,
/// which may never come. A marker that somebody wrote by hand announces a signal, and asks for
/// nothing.
pub(crate) fn request_to(inner: &Inner, instance: InstanceId) -> Result<Option<Request>> {
    inner.read(|connection| Request::to(connection, inner, instance))
}

impl Request {
    /// The same, in the caller's transaction.
    pub(crate) fn to(
        connection: &Connection,
        inner: &Inner,
        instance: InstanceId,
    ) -> Result<Option<Self>> {
        if let Some(asked) = InProgress::of(connection, inner, instance)? {
            return Ok(Some(Self::End(asked.marker)));
        }
        if !markers::exists(connection)? {
            return Ok(None);
        }
        let now = inner.boot_time();
        let restart = markers::unserved_restart(connection, now, instance)?;
        Ok(restart.map(Self::Restart))
    }
}

/// The takeover or planned stop that was asked of a generation, whoever wrote it.
pub(crate) fn asked_to_end(inner: &Inner, instance: InstanceId) -> Result<Option<Marker>> {
    inner.read(|connection| {
        if !markers::exists(connection)? {
            return Ok(None);
        }
        markers::asked_end(connection, inner.boot_time(), instance)
    })
}
