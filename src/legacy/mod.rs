//! The files of the older program: `gateway.pid`, `gateway.lock`, `gateway_state.json`, `*.lock` and its
//! markers.
//!
//! An older gateway knows nothing of the store. What says that it lives is the kernel's lock on its
//! `gateway.lock`; that file is the anchor of its row. All its successors share the file, so that "held"
//! never says *which* of them lives: the words in the file do.

mod export;
mod gateway;
mod hold;
mod import;
mod lockfile;
mod marker_file;
mod ours;
mod wire;

pub(crate) use export::{Exported, ExportedFile, export};
pub(crate) use gateway::{
    Met, beside, has_let_go, home, home_of_claim, home_of_holder, is_by_pid_file, is_in_the_way,
    meet, refreshed,
};
pub(crate) use hold::{Hold, Kept, check_usable, command_words};
pub(crate) use import::{Files, ImportedFile, import, judge};
pub(crate) use lockfile::{Found, Keeps, look, path_of, probe, who_keeps, whoever_holds};
pub(crate) use marker_file::MarkerFile;
pub(crate) use ours::{in_place_of, obstacle, row_in_the_way, wait_for_lock};
pub(crate) use wire::{Owner, PidRecord, Unusable, is_known_line, known_words};

use crate::names::MarkerName;

/// The names that the older program gives to its files.
pub(crate) const LOCK_FILE: &str = "gateway.lock";
pub(crate) const PID_FILE: &str = "gateway.pid";
const STATUS_FILE: &str = "gateway_state.json";

/// Its markers, and what they are here.
const MARKER_FILES: [(&str, &str); 2] = [
    (".gateway-takeover.json", MarkerName::TAKEOVER),
    (".gateway-planned-stop.json", MarkerName::PLANNED_STOP),
];

/// What the older program calls itself.
const KIND: &str = "hermes-gateway";
