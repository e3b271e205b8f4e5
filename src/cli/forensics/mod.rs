//! `forensics`: who asks us to end, does systemd wait long enough, and a look at the whole machine.

mod diagnose;
mod snapshot;
mod systemd;

pub(super) use diagnose::diagnose;
pub(super) use snapshot::snapshot;
pub(super) use systemd::systemd;
