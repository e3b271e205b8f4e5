//! Which signals a run passes on.

use std::str::FromStr;

use crate::names::unknown;
use crate::words::words;
use crate::{Error, Result};

words! {
    /// Which of the signals that reach a [`Run`](crate::run::Run) it passes on to its command:
    /// TERM, HUP, INT, QUIT, USR1, USR2, WINCH and CONT. In JSON its word, which `FromStr` reads.
    ///
    /// ```
    /// use incumbent::run::Forward;
    ///
    /// assert_eq!("auto".parse::<Forward>()?, Forward::Auto);
    /// # Ok::<(), incumbent::Error>(())
    /// ```
    #[non_exhaustive]
    pub enum Forward {
        /// Those that the command did not get as well, so that it gets each request once. What is
        /// sent to the whole group of the run (by a terminal, by `kill %1`), by systemd to all
        /// processes of a service (`KillMode=control-group`, `systemctl kill`), or by pm2 has
        /// reached it, unless it left that group or service.
        Auto = "auto",
        /// All: for a supervisor that signals this process alone, if `Auto` does not see it.
        Always = "always",
        /// None: for one that signals all processes itself.
        Never = "never",
    }
}

impl FromStr for Forward {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::parse(word).ok_or_else(|| unknown("way to forward signals", word, Self::ALL))
    }
}
