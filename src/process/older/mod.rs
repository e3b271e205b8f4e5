//! The files of the older program: `gateway.pid`, `gateway.lock`, `gateway_state.json`, `*.lock` and its
//! markers.
//!
//! An older gateway knows nothing of the store. What says that it lives is the kernel's lock on its
//! `gateway.lock`; that file is the anchor of its row. All its successors share the file, so that "held"
//! never says *which* of them lives: the words in the file do.

pub(crate) mod hold;
pub(crate) mod lock;
pub(crate) mod marker_file;
pub(crate) mod wire;

use crate::names::MarkerName;

/// The names that the older program gives to its files.
pub(crate) const LOCK_FILE: &str = "gateway.lock";

pub(crate) const PID_FILE: &str = "gateway.pid";

pub(crate) const STATUS_FILE: &str = "gateway_state.json";

/// Its markers, and what they are here.
pub(crate) const MARKER_FILES: [(&str, &str); 2] = [
    (".gateway-takeover.json", MarkerName::TAKEOVER),
    (".gateway-planned-stop.json", MarkerName::PLANNED_STOP),
];

/// What the older program calls itself.
pub(crate) const KIND: &str = "hermes-gateway";
