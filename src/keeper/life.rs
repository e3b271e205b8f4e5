//! The lives of the two processes of a keeper.
//!
//! A keeper is a small process of ours that holds the anchor in the recorded process' place and
//! ends with it, so that such records live and die like all others. There is one per recorded
//! process: a second record leans on the first one's keeper. It belongs to nobody's session or
//! terminal, and inherits no descriptor, so that it holds nothing else open.

use std::ffi::OsString;
use std::io::Write;
use std::sync::Arc;

use crate::keeper::keep::Keeping;
use crate::keeper::pair::{KeeperInbox, Pair, wait_as_second};
use crate::keeper::record::{self, RecordOutcome, RecordedBy};
use crate::keeper::report::{KeeperReport, ToldError};
use crate::keeper::words::{NO_FIRST, Words};
use crate::process::helper::exit;
use crate::sys::{ProcessHandle, supervise};
use crate::{Office, ProfileName, Result, sys};

/// A keeper that fails in the middle of something holds the lock to its last moment, and leaves the
/// other one at work.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|_| std::process::abort()));
}

/// A keeper's whole life.
pub(crate) fn first(arguments: &[OsString]) -> i32 {
    abort_on_panic();
    if supervise::detach().is_err() {
        return exit::FAILED;
    }
    let Some((words, None)) = Words::parse(arguments) else { return exit::USAGE };
    words.start_helpers_alike();
    let kept = words.check_not_launched().and_then(|()| claim_and_keep(&words));
    let (report, keeping) = match kept {
        Ok((report, keeping)) => (report, keeping),
        Err(error) => (KeeperReport::Failed(ToldError::of(&error)), None),
    };
    // Whoever asked may be gone: the record stands anyway.
    if let Ok(report) = serde_json::to_string(&report) {
        let mut output = std::io::stdout();
        let told = output.write_all(report.as_bytes()).and_then(|()| output.flush());
        drop(told);
    }
    if supervise::close_standard_output().is_err() {
        return exit::FAILED;
    }
    if let Some(keeping) = keeping {
        keeping.keep();
    }
    exit::OK
}

/// The whole life of the second one.
pub(crate) fn second(arguments: &[OsString]) -> i32 {
    abort_on_panic();
    let Some((words, Some(second))) = Words::parse(arguments) else { return exit::USAGE };
    // Whoever started us becomes another program, which has not asked for a child.
    if second.first == NO_FIRST && supervise::leave_starter().is_err() {
        return exit::FAILED;
    }
    words.start_helpers_alike();
    // From here on the lock is ours as well, and ends with us, however we end: it is never
    // unlocked.
    let Ok(file) = supervise::detach_with(second.descriptor) else { return exit::FAILED };
    let Ok(target) = words.target() else { return exit::OK };
    // Whose process that is has to be certain before it may be ended.
    let tenant = match words.tenant.as_ref().map(|tenant| tenant.is(&target, words.start_time)) {
        Some(Some(true)) => words.tenant.clone(),
        Some(Some(false)) => return exit::OK,
        Some(None) | None => None,
    };
    let inbox = KeeperInbox::new(&target.handle);
    // It started us: if it has ended by now, somebody else is our parent.
    let is_parent = supervise::own_parent() == Some(second.first);
    // Taken for the only one left, each would start the next.
    if !is_parent && sys::descends_from(&[second.first]) == Some(true) {
        return exit::FAILED;
    }
    if is_parent
        && let Ok(first) = ProcessHandle::open(second.first).map(Arc::new)
        && !wait_as_second(&inbox, (target.pid, &target.handle), &first)
    {
        return exit::OK;
    }
    let Ok(shared) = file.try_clone() else { return exit::FAILED };
    let pair = Pair::left_alone(inbox, words.to_arguments(), &second.anchor, shared);
    let keeping = Keeping::take_over(words.options(), target, pair, &second.anchor, file);
    if let Some(keeping) = keeping {
        keeping.of_tenant(tenant).keep();
    }
    exit::OK
}

fn claim_and_keep(words: &Words) -> Result<(KeeperReport, Option<Keeping>)> {
    let target = words.target()?;
    let options = words.options();
    let store = options.open()?;
    let profile: ProfileName = words.profile.parse()?;
    let arguments = words.to_arguments();
    let Some(kind) = &words.kind else {
        let keeps = record::register(&store, &profile, &target)?;
        let report = KeeperReport::Keeps { granted: None, evicted: None };
        return Ok((report, keeps.then(|| Keeping::new(options, store, target, arguments))));
    };
    let office = Office { profile, kind: kind.parse()? };
    let home = words.home.as_deref();
    match record::record(&store, &office, home, &target, RecordedBy::Keeper)? {
        RecordOutcome::Granted { instance, evicted } => {
            // Another keeper may have been faster, and then it keeps this record as well.
            let keeps = store.inner.own_anchor().is_some();
            let keeping = keeps.then(|| Keeping::new(options, store, target, arguments));
            let evicted = evicted.map(|evicted| evicted.instance.as_i64());
            Ok((KeeperReport::Keeps { granted: Some(instance.as_i64()), evicted }, keeping))
        }
        RecordOutcome::Already(_) | RecordOutcome::Held(_) | RecordOutcome::NeedsKeeper(_) => {
            Ok((KeeperReport::Changed, None))
        }
    }
}
