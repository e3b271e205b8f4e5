//! Markers of the run that we are in, or of a process that does not link the library.

use crate::keeper::known::Known;
use crate::keeper::release::{current_run, parent};
use crate::marker::Consumed;
use crate::names::MarkerName;
use crate::records::Addressee;
use crate::records::markers::Marker;
use crate::{Result, Store, marker, sys};

/// Whom a verb is about: the run that we are in, or a process.
fn meant(store: &Store, pid: Option<sys::Pid>) -> Result<(sys::Pid, Addressee)> {
    let pid = match pid {
        Some(pid) => pid,
        None => match current_run(store)? {
            Some(run) => return Ok((run.pid.unwrap_or_default(), Addressee::of(&run))),
            None => parent()?,
        },
    };
    Ok((pid, marker::addressee(&store.inner, pid)?))
}

/// The open marker, or any if no name is given.
pub(crate) fn peek(
    store: &Store,
    pid: Option<sys::Pid>,
    name: Option<&MarkerName>,
) -> Result<Known<Option<Marker>>> {
    let (_, addressee) = meant(store, pid)?;
    Ok(known(&addressee, marker::peek(&store.inner, &addressee, name)?))
}

/// The same, which nobody else gets then.
pub(crate) fn consume(
    store: &Store,
    pid: Option<sys::Pid>,
    name: Option<&MarkerName>,
) -> Result<Known<Option<Consumed>>> {
    let (_, addressee) = meant(store, pid)?;
    Ok(known(&addressee, marker::consume(&store.inner, &addressee, name)?))
}

/// Takes markers back, in the name of `by`; how many.
pub(crate) fn clear(
    store: &Store,
    pid: Option<sys::Pid>,
    name: &MarkerName,
    by: &str,
) -> Result<usize> {
    let (pid, addressee) = meant(store, pid)?;
    marker::clear(&store.inner, pid, &addressee, name, by)
}

/// That there is none for somebody who is not on record may be for want of the record.
fn known<T>(addressee: &Addressee, found: Option<T>) -> Known<Option<T>> {
    if found.is_none() && addressee.instances.is_empty() {
        Known::ByLack(found)
    } else {
        Known::Well(found)
    }
}
