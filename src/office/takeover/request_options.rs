//! What every request to a holder can be given.

use std::time::Duration;

use crate::Cancel;

/// What [`request_setters`] sets.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestOptions {
    pub(super) timeout: Option<Duration>,
    pub(super) reason: Option<String>,
    pub(super) by: Option<String>,
    pub(super) cancel: Cancel,
}

/// The setters that the options of all requests have, each with a field `request`.
macro_rules! request_setters {
    ($options:ident) => {
        impl $options {
            /// Waits for this long instead; zero asks, and looks once.
            #[must_use]
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.request.timeout = Some(timeout);
                self
            }

            /// Why, for whoever reads the marker.
            #[must_use]
            pub fn reason(mut self, reason: impl Into<String>) -> Self {
                self.request.reason = Some(reason.into());
                self
            }

            /// Who asks, in place of this process' pid and command line. What looks like a secret
            /// is taken out, here and in the reason.
            #[must_use]
            pub fn by(mut self, by: impl Into<String>) -> Self {
                self.request.by = Some(by.into());
                self
            }

            /// Ends the wait, from another thread or by a question. What was asked for stays asked
            /// for.
            #[must_use]
            pub fn cancel(mut self, cancel: Cancel) -> Self {
                self.request.cancel = cancel;
                self
            }
        }
    };
}
pub(super) use request_setters;
