//! A command that promised a sign of life and gives none is started again, where that is wanted.
//!
//! It is asked for as by anybody else, by a marker: so it is on record, and the command is stopped
//! by the rules of a stop. The next command has promised nothing yet, and has its time to start.
//!
//! Only the silence counts that was listened to. Whatever stops this process (Ctrl-Z and `fg`,
//! `docker pause`, a machine that is moved) stops the command as well, and when both go on the last
//! sign of life is old. So is it after a store that nobody could write to. Then it is counted from
//! that moment on.

use std::time::Duration;

use crate::clock::{length, millis};
use crate::office::takeover::restart::RestartOptions;
use crate::patience::with_budget;
use crate::records::{instances, runtime};
use crate::run::supervised::{Attention, LOOK_BUDGET, Supervised};
use crate::store::Inner;
use crate::{Error, Result};

/// For how long a command that is unresponsive has given no sign of life.
#[derive(Clone, Copy, Debug)]
struct Silence {
    ms: i64,
    /// Within which time it promised the next one.
    promised_ms: i64,
}

impl Attention {
    pub(super) fn now(inner: &Inner) -> Self {
        Self::starting(awake_ms(inner))
    }

    fn starting(now_ms: i64) -> Self {
        Self { since_ms: now_ms, looked_at_ms: now_ms, seen_at_ms: None }
    }

    /// Looks once more. One look comes a second after the other, or a moment later on a busy
    /// machine.
    fn look(&mut self, now_ms: i64) {
        const PAUSE_MIN_MS: i64 = 3_000;
        if now_ms.saturating_sub(self.looked_at_ms) > PAUSE_MIN_MS {
            *self = Self::starting(now_ms);
        }
        self.looked_at_ms = now_ms;
    }

    /// The silence that was listened to, if that is to have an end: if the command has been
    /// unresponsive for so long. One look does not tell, because a shorter pause may just have
    /// ended.
    fn is_too_long(&mut self, silence: Option<Silence>, patience_ms: i64) -> Option<i64> {
        const CERTAIN_AFTER_MS: i64 = 1_000;
        let listened_ms = self.looked_at_ms.saturating_sub(self.since_ms);
        let heard = silence.map(|it| (it.ms.min(listened_ms), it.promised_ms));
        let unresponsive = heard.filter(|(ms, promised)| *ms > promised.saturating_mul(2));
        let Some((silent_ms, promised_ms)) = unresponsive else {
            self.seen_at_ms = None;
            return None;
        };
        let seen_at_ms = *self.seen_at_ms.get_or_insert(self.looked_at_ms);
        let overdue_ms = silent_ms - promised_ms.saturating_mul(2);
        let is_certain = self.looked_at_ms - seen_at_ms >= promised_ms.min(CERTAIN_AFTER_MS);
        (is_certain && overdue_ms >= patience_ms).then_some(silent_ms)
    }
}

/// Milliseconds of a clock that stands still while the machine is suspended.
fn awake_ms(inner: &Inner) -> i64 {
    inner.clock().boot_ms().saturating_sub(inner.clock().asleep_ms())
}

impl Supervised<'_> {
    pub(super) fn look_for_signs_of_life(&mut self) {
        let Some(patience) = self.run.restart_unresponsive else { return };
        self.attention.look(awake_ms(&self.store.inner));
        if self.child().is_none() || self.ending.is_some() || self.is_asked_to_end() {
            return;
        }
        let silence = match with_budget(LOOK_BUDGET, || self.silence()) {
            Ok(silence) => silence,
            Err(error) => return self.hear_nothing(&error),
        };
        if let Some(silent_ms) = self.attention.is_too_long(silence, millis(patience))
            && let Err(error) = with_budget(LOOK_BUDGET, || self.ask_for_restart(silent_ms))
        {
            self.hear_nothing(&error);
        }
    }

    /// Where we cannot read or write, the command may have been unable to speak.
    fn hear_nothing(&mut self, why: &Error) {
        self.attention = Attention::now(&self.store.inner);
        self.doubt(&format!("cannot see whether the command is responsive: {why}"));
    }

    /// How long the command has been silent, if that is longer than it promised.
    fn silence(&self) -> Result<Option<Silence>> {
        let inner = &self.store.inner;
        inner.read(|connection| {
            if !runtime::exists(connection)? {
                return Ok(None);
            }
            let id = self.tenure.instance();
            let Some(record) = instances::by_id(connection, id)? else { return Ok(None) };
            let said = runtime::runtime(connection, id)?;
            let silent = runtime::unresponsive_for(inner, &record, said.as_ref());
            let promised_ms = record.heartbeat_every_ms.unwrap_or(0);
            Ok(silent.map(|silent| Silence { ms: millis(silent), promised_ms }))
        })
    }

    fn ask_for_restart(&self, silent_ms: i64) -> Result<()> {
        let options = RestartOptions::new()
            .by(format!("its run (pid {})", std::process::id()))
            .reason(format!("no sign of life for {}", length(silent_ms)))
            .timeout(Duration::ZERO);
        let profile = self.run.profile(&self.store)?;
        drop(profile.restart(&self.run.claim.kind, &options)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command that promised a sign of life each second, the last of which came at 0. At each of
    /// these times it is looked at; says at which one it is started again.
    fn restarted_at(looks_ms: &[i64], patience_ms: i64) -> Option<i64> {
        let mut attention = Attention::starting(0);
        looks_ms.iter().copied().find(|now_ms| {
            attention.look(*now_ms);
            let silence = (*now_ms > 2_000).then_some(Silence { ms: *now_ms, promised_ms: 1_000 });
            attention.is_too_long(silence, patience_ms).is_some()
        })
    }

    #[test]
    fn only_a_silence_that_was_listened_to_counts() {
        let all: Vec<i64> = (1..60).map(|second| second * 1_000).collect();
        // Two that are missing, and a second to be certain.
        assert_eq!(restarted_at(&all, 0), Some(4_000));
        assert_eq!(restarted_at(&all, 20_000), Some(22_000));
        // A look that comes late on a busy machine is no pause; one look is not enough.
        assert_eq!(restarted_at(&[1_000, 3_500, 4_500], 0), Some(4_500));
        assert_eq!(restarted_at(&[1_000, 3_900], 0), None);
        // Both were stopped: it has all its time again, and its patience.
        let paused: Vec<i64> =
            all.iter().copied().filter(|ms| !(3_000..40_000).contains(ms)).collect();
        assert_eq!(restarted_at(&paused, 0), Some(44_000));
        assert_eq!(restarted_at(&paused, 10_000), Some(52_000));
    }

    #[test]
    fn a_sign_of_life_makes_it_responsive() {
        let mut attention = Attention::starting(0);
        let silent = |ms| Some(Silence { ms, promised_ms: 1_000 });
        for (now_ms, silence, restarts) in [
            (3_000, silent(3_000), false),
            // It has beaten since.
            (4_000, None, false),
            (5_000, None, false),
            (6_000, silent(2_500), false),
            (7_000, silent(3_500), true),
        ] {
            attention.look(now_ms);
            assert_eq!(attention.is_too_long(silence, 0).is_some(), restarts, "{now_ms}");
        }
    }
}
