//! What an opening has done to the files of a store, for whoever asks later.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::Result;
use crate::store::ground::close::ClosedPlace;
use crate::store::handle::Inner;
use crate::store::overwritten::SetAside;

impl Inner {
    /// As `migrate` does, past the transaction that needs a store to be there.
    pub(super) fn record_opening(
        &self,
        connection: &Connection,
        mended: &[SetAside],
        closed: Option<&ClosedPlace>,
    ) -> Result<()> {
        for aside in mended {
            let name = aside.wal.as_deref().and_then(|wal| wal.file_name());
            let name = name.map(|name| name.to_string_lossy());
            let detail = json!({"damage": aside.damage.to_string(), "aside": name});
            self.record_past_transaction(connection, "store_overwritten", &detail)?;
        }
        if let Some(ClosedPlace { mode, text }) = closed {
            let detail = json!({"mode": format!("{mode:04o}"), "what": text});
            self.record_past_transaction(connection, "directory_closed", &detail)?;
        }
        Ok(())
    }

    fn record_past_transaction(
        &self,
        connection: &Connection,
        event: &str,
        detail: &Value,
    ) -> Result<()> {
        connection.execute(
            "INSERT INTO events (at_ms, event, pid, detail) VALUES (?1, ?2, ?3, ?4)",
            (self.clock().wall_ms(), event, std::process::id(), detail.to_string()),
        )?;
        Ok(())
    }
}
