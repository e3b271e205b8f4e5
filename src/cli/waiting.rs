//! What the verbs that wait are at, as their progress says it: asked of the store by its own
//! questions, so that the wait itself knows nothing of it.

use std::time::Duration;

use crate::cli::args::Global;
use crate::cli::progress::{Progress, Step, Wanted};
use crate::lock::LockReport;
use crate::patience::with_budget;
use crate::{LockName, Office, OpenOptions, Report, Verdict, Wait};

/// Between the time that a holder has and its end by force, see [`Replace`](crate::stop::Replace).
pub(super) const KILL_GRACE: Duration = Duration::from_secs(10);

/// So long one look may wait for the store.
const LOOKS_WITHIN: Duration = Duration::from_millis(250);

impl Global {
    fn wanted(&self) -> Wanted {
        if self.progress { Wanted::Everywhere } else { Wanted::OnTerminal }
    }

    /// Of one thing, whatever becomes of it meanwhile.
    pub(super) fn doing(
        &self,
        verb: &'static str,
        what: String,
        at_most: Option<Duration>,
    ) -> Progress {
        let step = Step { what, at_most };
        Progress::begin(self.wanted(), verb, move || Some(step.clone()))
    }

    /// Of a holder that was asked `to` stop, or `to` start again; `more` is what comes after its
    /// own time.
    pub(super) fn holder_is_to(
        &self,
        verb: &'static str,
        office: &Office,
        to: &'static str,
        timeout: Option<Duration>,
        more: Duration,
    ) -> Progress {
        let (options, office) = (self.options(), office.clone());
        Progress::begin(self.wanted(), verb, move || {
            let report = holder_of(&options, &office)?;
            let at_most = timeout.or(report.stop_budget).map(|it| it.saturating_add(more));
            Some(Step { what: format!("waiting for {} to {to}", named(&report)), at_most })
        })
    }

    /// The same of all that run.
    pub(super) fn all_are_to(
        &self,
        verb: &'static str,
        to: &'static str,
        timeout: Option<Duration>,
        more: Duration,
    ) -> Progress {
        let options = self.options();
        Progress::begin(self.wanted(), verb, move || {
            let reports =
                with_budget(LOOKS_WITHIN, || options.open_existing().ok()??.status_of_all().ok())?;
            let mut live: Vec<_> =
                reports.iter().filter(|it| it.verdict != Verdict::Dead).collect();
            live.sort_by_key(|report| report.stop_budget);
            let last = live.last()?;
            let others = match live.len() - 1 {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            let what = format!("waiting for {}{others} to {to}", named(last));
            let at_most = timeout.or(last.stop_budget).map(|it| it.saturating_add(more));
            Some(Step { what, at_most })
        })
    }

    /// Of a wait for an office and for locks.
    pub(super) fn free(&self, verb: &'static str, waited: Waited) -> Progress {
        let options = self.options();
        let becomes = waited.becomes;
        let look = move || Some(waited.step(&options));
        match becomes {
            Becomes::Nothing => Progress::begin(self.wanted(), verb, look),
            Becomes::AnotherProgram => Progress::begin_in_lines(self.wanted(), verb, look),
        }
    }
}

/// What a process that waits does once it has what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Becomes {
    Nothing,
    AnotherProgram,
}

/// What is waited for.
pub(super) struct Waited {
    pub(super) office: Option<Office>,
    pub(super) locks: Vec<LockName>,
    pub(super) wait: Wait,
    /// Whether the office's holder is asked to stop.
    pub(super) replaces: bool,
    pub(super) becomes: Becomes,
}

impl Waited {
    fn step(&self, options: &OpenOptions) -> Step {
        let at_most = if let Wait::UpTo(limit) = self.wait { Some(limit) } else { None };
        if let Some(report) = self.office.as_ref().and_then(|office| holder_of(options, office)) {
            let who = named(&report);
            return if self.replaces {
                let at_most = report.stop_budget.map(|it| it.saturating_add(KILL_GRACE));
                Step { what: format!("taking over from {who}"), at_most }
            } else {
                Step { what: format!("waiting for {who}"), at_most }
            };
        }
        let locks = with_budget(LOOKS_WITHIN, || options.open_existing().ok()??.locks().ok());
        let locks = locks.unwrap_or_default();
        let is_in_the_way = |lock: &&LockReport| {
            self.locks.contains(&lock.name) && lock.verdict != Verdict::Dead && !is_us(lock.pid)
        };
        let Some(lock) = locks.iter().find(is_in_the_way) else {
            // A damaged one is recovered first.
            return Step { what: opening(options), at_most: None };
        };
        let pid = lock.pid.map_or_else(|| "another".to_owned(), |pid| format!("pid {pid}"));
        Step { what: format!("waiting for {}, held by {pid}", lock.name), at_most }
    }
}

/// A large store takes longer: where it is damaged, all of it is read and copied row by row.
pub(super) fn opening(options: &OpenOptions) -> String {
    format!("opening the store {}", with_size(options))
}

/// `/x/state.db (188 KiB)`.
pub(super) fn with_size(options: &OpenOptions) -> String {
    let path = options.resolved_path().unwrap_or_default();
    let size = std::fs::metadata(&path).map_or(0, |facts| facts.len());
    format!("{} ({} KiB)", path.display(), size / 1024)
}

fn is_us(pid: Option<u32>) -> bool {
    pid == Some(std::process::id())
}

/// Who holds an office; `None` where nobody does, or where it is us by now.
fn holder_of(options: &OpenOptions, office: &Office) -> Option<Report> {
    let report = with_budget(LOOKS_WITHIN, || {
        let store = options.open_existing().ok()??;
        store.profile(&office.profile).ok()?.status_of(&office.kind).ok()
    })?;
    (report.verdict != Verdict::Dead && !is_us(report.pid)).then_some(report)
}

/// `default/gateway (pid 7)`.
fn named(report: &Report) -> String {
    match report.pid {
        Some(pid) => format!("{} (pid {pid})", report.office),
        None => report.office.to_string(),
    }
}
