//! Stopping or restarting every holder of a store: all at the same time, each by the rules of one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::office::takeover::restart::{Restart, RestartOptions};
use crate::office::takeover::stop::{StopOptions, StopReport};
use crate::status::answer;
use crate::{Cancel, Kind, Office, ProfileName, Result, Store, Verdict};

/// So many are asked at once: each is a thread that waits for a process to end.
const THREADS_MAX: usize = 32;

/// Between two times that the caller is asked whether to go on.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Which offices are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Those that are held, or may be.
    Holders,
    /// Those that nobody holds as well.
    Everybody,
}

impl Store {
    /// Stops whoever holds an office, of this profile and this kind where they are named (`None`:
    /// of all), at the same time, by the rules of [`Profile::stop`](crate::Profile::stop). What
    /// came of each, in the order of the offices' names; empty where nobody runs. One that serves
    /// several profiles is stopped once, by its own office.
    ///
    /// With [`StopOptions::desired_stopped`] the profiles whose gateway does not run are also set
    /// to stay stopped. A question ([`Cancel::polling`]) is asked on this thread; the waits are in
    /// other ones.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::stop::StopOptions;
    ///
    /// assert!(store.stop_all(None, None, &StopOptions::new())?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of), where nobody knows whom to stop. What
    /// keeps one from being stopped stands in its place of the answer.
    pub fn stop_all(
        &self,
        profile: Option<&ProfileName>,
        kind: Option<&Kind>,
        options: &StopOptions,
    ) -> Result<Vec<(Office, Result<StopReport>)>> {
        let whom = if options.desired { Whom::Everybody } else { Whom::Holders };
        let offices = self.offices_to_ask(profile, kind, whom)?;
        Ok(at_once(offices, &options.request.cancel, |office, cancel| {
            let options = options.clone().cancel(cancel.clone());
            self.profile(&office.profile)?.stop(&office.kind, &options)
        }))
    }

    /// Has whoever holds an office start again, all at the same time, as [`Store::stop_all`] stops
    /// them, by the rules of [`Profile::restart`](crate::Profile::restart).
    ///
    /// # Errors
    /// As [`Store::stop_all`].
    pub fn restart_all(
        &self,
        profile: Option<&ProfileName>,
        kind: Option<&Kind>,
        options: &RestartOptions,
    ) -> Result<Vec<(Office, Result<Restart>)>> {
        let offices = self.offices_to_ask(profile, kind, Whom::Holders)?;
        Ok(at_once(offices, &options.request.cancel, |office, cancel| {
            let options = options.clone().cancel(cancel.clone());
            self.profile(&office.profile)?.restart(&office.kind, &options)
        }))
    }

    fn offices_to_ask(
        &self,
        profile: Option<&ProfileName>,
        kind: Option<&Kind>,
        whom: Whom,
    ) -> Result<Vec<Office>> {
        let reports = answer::report_all(&self.inner, profile, kind)?.into_iter();
        let asked = reports.filter(|report| {
            let is_meant = whom == Whom::Everybody || report.verdict != Verdict::Dead;
            is_meant && report.served_by.is_none()
        });
        Ok(asked.map(|report| report.office).collect())
    }
}

/// Asks for all offices, in threads; where there can be none, one after the other.
fn at_once<T: Send>(
    offices: Vec<Office>,
    cancel: &Cancel,
    ask: impl Fn(&Office, &Cancel) -> Result<T> + Sync,
) -> Vec<(Office, Result<T>)> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let work = |cancel: &Cancel| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(office) = offices.get(number) else { return };
            let answer = ask(office, cancel);
            answers.lock().push((number, answer));
        }
    };
    let elsewhere = cancel.for_other_threads();
    let in_thread = || work(&elsewhere);
    std::thread::scope(|threads| {
        let start = |_| {
            let name = "incumbent-all".to_owned();
            std::thread::Builder::new().name(name).spawn_scoped(threads, in_thread).ok()
        };
        let started: Vec<_> = (0..offices.len().min(THREADS_MAX)).map_while(start).collect();
        if started.is_empty() {
            return work(cancel);
        }
        while !started.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            cancel.ends_wait();
            std::thread::sleep(ASK_EVERY);
        }
    });
    let mut answers = answers.into_inner();
    answers.sort_by_key(|(number, _)| *number);
    offices.into_iter().zip(answers.into_iter().map(|(_, answer)| answer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_office_gets_the_answer_that_is_its_own() {
        let office = |number: usize| Office {
            profile: ProfileName::new(format!("p{number}")).unwrap(),
            kind: Kind::default(),
        };
        for count in [0, 1, THREADS_MAX, 3 * THREADS_MAX] {
            let offices: Vec<Office> = (0..count).map(office).collect();
            let answers = at_once(offices.clone(), &Cancel::new(), |office, _| {
                Ok(office.profile.to_string())
            });
            assert_eq!(answers.len(), count);
            for ((office, answer), expected) in answers.into_iter().zip(offices) {
                assert_eq!((&office, answer.unwrap()), (&expected, expected.profile.to_string()));
            }
        }
    }
}
