//! Import from, and export to, the files of the older program.

pub(crate) mod export;
pub(crate) mod import;

pub use crate::transfer::export::{Exported, ExportedFile};
pub use crate::transfer::import::files::OlderFiles;
pub use crate::transfer::import::{FileVerdict, ImportFinding, ImportedFile};
