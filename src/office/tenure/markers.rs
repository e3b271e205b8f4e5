//! The markers that are addressed to the holder of an office.

use crate::marker::Consumed;
use crate::marker::inquiry::StopInquiry;
use crate::names::MarkerName;
use crate::office::tenure::Tenure;
use crate::office::tenure::older::note_older_marker;
use crate::records::Addressee;
use crate::records::markers::Marker;
use crate::{Result, marker};

impl Tenure {
    /// Asks why this process is being stopped, from whatever thread handles its signals.
    #[must_use]
    pub fn stop_inquiry(&self) -> StopInquiry {
        let inquiry = StopInquiry::new(self.footing.clone());
        let Some(beside) = self.beside.clone() else { return inquiry };
        let footing = self.footing.clone();
        inquiry.first(move || note_older_marker(&footing, Some(&beside)))
    }

    /// The oldest open marker for this incarnation, of this name or of any; consumes nothing. For
    /// owners that cannot be signalled (Windows, another container), which look now and then.
    ///
    /// # Errors
    /// As [`Tenure::verify`].
    pub fn peek_marker(&self, name: Option<&MarkerName>) -> Result<Option<Marker>> {
        self.note_older_marker();
        marker::peek(&self.footing.inner, &self.addressee(), name)
    }

    /// Consumes the oldest open marker for this incarnation, of this name or of any. Exactly one
    /// consumer gets it.
    ///
    /// # Errors
    /// As [`Tenure::verify`]; not when the consumption alone cannot be written, see
    /// [`Consumed::recorded`].
    pub fn consume_marker(&self, name: Option<&MarkerName>) -> Result<Option<Consumed>> {
        self.note_older_marker();
        marker::consume(&self.footing.inner, &self.addressee(), name)
    }

    fn addressee(&self) -> Addressee {
        Addressee {
            instances: vec![self.instance()],
            process: Some(marker::myself(&self.footing.inner)),
        }
    }
}
