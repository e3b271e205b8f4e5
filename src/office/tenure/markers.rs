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
    /// Asks why this process is being stopped, from whatever thread handles its signals. See
    /// [`StopInquiry::ask`].
    #[must_use]
    pub fn stop_inquiry(&self) -> StopInquiry {
        let inquiry = StopInquiry::new(self.footing.clone());
        let Some(beside) = self.beside.clone() else { return inquiry };
        let footing = self.footing.clone();
        inquiry.first(move || note_older_marker(&footing, Some(&beside)))
    }

    /// The next open marker for this incarnation, of this name or of any: a request (`takeover`,
    /// `planned_stop`, `restart`) before others, and the oldest first. Consumes nothing. For owners
    /// that cannot be signalled (Windows, another container), which look now and then.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::marker::{MarkerName, MarkerRequest};
    /// use incumbent::{Claim, Store};
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let Claim::Granted(tenure) = store.profile("work")?.claim()? else { panic!("nobody else") };
    /// let reload = MarkerName::new("reload")?;
    /// // Another process, a script: `incumbent marker write reload`.
    /// store.write_marker(tenure.instance(), &MarkerRequest::new(reload.clone()).by("alice"))?;
    ///
    /// assert_eq!(tenure.peek_marker(None)?.map(|marker| marker.by), Some("alice".to_owned()));
    /// let consumed = tenure.consume_marker(Some(&reload))?.expect("it is there");
    /// assert!(consumed.recorded && consumed.marker.name == reload);
    /// assert!(tenure.peek_marker(None)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn peek_marker(&self, name: Option<&MarkerName>) -> Result<Option<Marker>> {
        self.note_older_marker();
        marker::peek_again(&self.footing.inner, &self.marked, &self.addressee(), name)
    }

    /// Consumes what [`Tenure::peek_marker`] would show. Exactly one consumer gets it. Takes about
    /// 250 ms at most, also where the store is locked or full.
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of); not when the consumption alone cannot
    /// be written, see [`Consumed::recorded`].
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
