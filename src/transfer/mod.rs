//! Import from, and export to, the files of the older program: `gateway.pid`, `gateway.lock`,
//! `gateway_state.json`, its markers and its locks.
//!
//! ```
//! # let directory = tempfile::tempdir()?;
//! # let (home, copies) = (directory.path().join("home"), directory.path().join("copies"));
//! # std::fs::create_dir(&home)?;
//! # std::fs::write(home.join("gateway.pid"), "no pid at all")?;
//! use incumbent::transfer::{Exported, FileVerdict, OlderFiles};
//! use incumbent::{Claim, Office, Store};
//!
//! let store = Store::open(directory.path().join("state.db"))?;
//! let office = Office::default();
//! let files = OlderFiles::new(&home)?.lock_dir(&home)?;
//! assert!(files.any());
//! // What cannot be understood is reported, and left as it is.
//! let rows = store.import(&office, &files)?;
//! assert_eq!(rows[0].finding.verdict, FileVerdict::Corrupt);
//!
//! let Claim::Granted(_tenure) = store.profile("default")?.claim()? else { unreachable!() };
//! let Exported::Files(files) = store.export(&office, &copies, None)? else { unreachable!() };
//! assert!(files.iter().all(|file| file.is_written));
//! assert!(copies.join("gateway.pid").is_file());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod export;
pub(crate) mod import;

pub use crate::transfer::export::{Exported, ExportedFile};
pub use crate::transfer::import::files::OlderFiles;
pub use crate::transfer::import::{FileVerdict, ImportFinding, ImportedFile};
