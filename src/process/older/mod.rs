//! The files of the older program: `gateway.pid`, `gateway.lock`, `gateway_state.json`, `*.lock`
//! and its markers.
//!
//! An older gateway knows nothing of the store. The kernel's lock on its `gateway.lock` says that
//! it lives; that file is the anchor of its row. All its successors share the file, so "held" never
//! says *which* of them lives: the words in the file do. Such a lock is not taken for a leaked one.
//! `gateway.lock` is never unlinked and never renamed over: that would be another lock.

mod beat;
pub(crate) mod beside;
pub(crate) mod hold;
pub(crate) mod lock;
pub(crate) mod lock_holder;
pub(crate) mod looks;
pub(crate) mod marker_file;
pub(crate) mod said;
pub(crate) mod wire;
pub(crate) mod write;

use crate::names::MarkerName;

/// The names that the older program gives to its files.
pub(crate) const LOCK_FILE: &str = "gateway.lock";

pub(crate) const PID_FILE: &str = "gateway.pid";

pub(crate) const STATUS_FILE: &str = "gateway_state.json";

/// Not one of its own: what programs look at that watch whether a gateway still moves.
const HEARTBEAT_FILE: &str = "gateway.heartbeat";

/// Its markers, and what they are here.
pub(crate) const MARKER_FILES: [(&str, &str); 2] = [
    (".gateway-takeover.json", MarkerName::TAKEOVER),
    (".gateway-planned-stop.json", MarkerName::PLANNED_STOP),
];

/// What the older program calls itself.
pub(crate) const KIND: &str = "hermes-gateway";
