//! The `run` that this process is in, as its environment says.

use crate::records::{Record, instances};
use crate::store::Inner;
use crate::{Error, InstanceId, Nonce, Result, environment};

/// Whom this process acts for, and the proof that it may.
pub(crate) struct OurRun {
    pub(crate) instance: InstanceId,
    pub(crate) nonce: Nonce,
}

impl OurRun {
    /// `None` outside of a `run`.
    pub(crate) fn of_environment() -> Result<Option<Self>> {
        let (Some(id), Some(token)) =
            (environment::text(environment::INSTANCE), environment::text(environment::TOKEN))
        else {
            return Ok(None);
        };
        let of_run = |error: Error, name| {
            error.of_variable(name, "leave it as the `run` that we are in has set it", None)
        };
        let id = id.parse().map_err(|_| {
            let error = Error::invalid(format!("{id:?} is not the number of an instance"));
            of_run(error, environment::INSTANCE)
        })?;
        let nonce = Nonce::from_hex(&token).map_err(|error| of_run(error, environment::TOKEN))?;
        Ok(Some(Self { instance: InstanceId(id), nonce }))
    }

    /// Its row, live or ended; `None` in a store that does not have it.
    pub(crate) fn record(&self, inner: &Inner) -> Result<Option<Record>> {
        inner.read(|connection| {
            let recorded = instances::by_id(connection, self.instance)?;
            match recorded.filter(|record| record.belongs_to(&self.nonce)) {
                Some(record) if record.is_live() => Ok(Some(record)),
                // In a store that replaced the one it began in, the run has another generation.
                ended => Ok(instances::live_of_nonce(connection, &self.nonce)?.or(ended)),
            }
        })
    }
}
