//! Import from, and export to, the files of the older program.

pub(crate) mod export;
pub(crate) mod import;

pub(crate) use crate::claim::older_home::home;
