//! What becomes of owners whose store is deleted, replaced, moved, or written by others?

pub mod fates;
mod moved;
mod orphans;
mod owners;
mod stray_closes;
mod three_files;
