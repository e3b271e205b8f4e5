//! `lock`: scoped locks for processes that do not link the library.

use std::ffi::{OsStr, OsString};
use std::io::Read;

use serde_json::{Value, json};

use super::args::{self, Global};
use super::by_us;
use super::claim::{cannot_tell, current_run, is_about, parent, show};
use super::keeper::{self, Purpose, Recorder, Target, attachment};
use super::lost_store::{self, Known};
use super::output::{Answer, Complaint, Format, Outcome, exit};
use crate::claimant::{ATTEMPTS, Aside, Claimant, Count, changes_too_fast, is_held, judge_record};
use crate::clock::length;
use crate::environment;
use crate::error::{Error, Result};
use crate::holder::{Holder, because_seen};
use crate::instance::{self, EndReason, Origin, Record, Subject};
use crate::liveness::{Lease, Verdict};
use crate::lock_table::{self, LockEnd, LockRow};
use crate::names::{InstanceId, LockName, ProfileName, Scope};
use crate::observe::LiveCommandLine;
use crate::scoped::{
    Acquired, GrantedLock, LockClaim, LockRequest, Owner, PreviousLock, Surveyed, acquire_once,
    end_if_without_purpose, hide_in, masked, survey,
};
use crate::stop_budget;
use crate::store::{Inner, Store, Tx};
use crate::sys::{self, Existence};
use crate::wait::{Attempt, Cancel, Stopped, Turn, Wait, WaitOptions, until_granted};

/// How many keepers one attempt starts at most.
const KEEPERS_MAX: usize = 3;

/// The longest identity that is read from standard input, in bytes: more is the wrong file.
const IDENTITY_LENGTH_MAX: u64 = 64 * 1024;

/// The lock that a verb's arguments name.
pub(super) fn name(
    scope: &OsStr,
    identity: Option<&OsString>,
    variable: Option<&OsString>,
) -> Result<LockName> {
    request(scope, identity, variable).map(|request| request.name)
}

fn request(
    scope: &OsStr,
    identity: Option<&OsString>,
    variable: Option<&OsString>,
) -> Result<LockRequest> {
    let identity = match (identity, variable) {
        (_, Some(variable)) => identity_in(variable)?,
        (Some(identity), None) if identity == "-" => {
            let mut text = Vec::new();
            std::io::stdin().take(IDENTITY_LENGTH_MAX + 1).read_to_end(&mut text).map_err(
                |error| {
                    Error::invalid(format!("cannot read the identity from standard input: {error}"))
                        .with_hint("give it by a pipe or a file, or use `--identity-env VAR`")
                },
            )?;
            if text.len() as u64 > IDENTITY_LENGTH_MAX {
                return Err(Error::invalid(format!(
                    "the identity on standard input has more than {IDENTITY_LENGTH_MAX} bytes"
                ))
                .with_hint("is that the right file?"));
            }
            text
        }
        (Some(identity), None) => identity.as_encoded_bytes().to_vec(),
        (None, None) => Vec::new(),
    };
    LockRequest::new(&scope.to_string_lossy(), identity)
}

pub(super) fn scope(text: &OsStr) -> Result<Scope> {
    Scope::new(text.to_string_lossy())
}

/// The identity in an environment variable. What is no name of a variable is not repeated: it may be
/// the identity itself, in the wrong place.
fn identity_in(variable: &OsStr) -> Result<Vec<u8>> {
    let is_name = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let hint = "name the variable, not its value: `--lock-env telegram-bot-token=BOT_TOKEN`, \
                `--identity-env BOT_TOKEN`";
    let Some(name) = variable.to_str().filter(|name| !name.is_empty() && is_name(name)) else {
        return Err(Error::invalid("what should name the identity's variable is no name of one")
            .with_hint(hint));
    };
    let Some(identity) = environment::value(name) else {
        // By custom a variable is written in capitals; anything else may be a token.
        let shown = if name.contains(|c: char| c.is_ascii_lowercase()) {
            "the variable that was named"
        } else {
            &format!("the variable {name}")
        };
        return Err(Error::invalid(format!("{shown} is not set, or empty"))
            .with_hint("export it, or check the unit's environment file"));
    };
    Ok(identity.as_encoded_bytes().to_vec())
}

/// The locks of a `run`.
pub(super) fn requests(arguments: &args::Run) -> Result<Vec<LockRequest>> {
    let metadata = arguments.metadata.as_deref().map(parse_metadata).transpose()?;
    let split = |argument: &OsString, what: &str| {
        let bytes = argument.as_encoded_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=').ok_or_else(|| {
            // Not repeated: it may be a secret.
            Error::invalid(format!("a lock has to be given as SCOPE={what}"))
                .with_hint("e.g. `--lock-env telegram-bot-token=BOT_TOKEN`")
        })?;
        let scope = String::from_utf8_lossy(&bytes[..at]).into_owned();
        Ok::<_, Error>((scope, bytes[at + 1..].to_vec()))
    };
    let mut requests = Vec::new();
    for argument in &arguments.lock {
        let (scope, identity) = split(argument, "IDENTITY")?;
        requests.push(LockRequest::new(&scope, identity)?);
    }
    for argument in &arguments.lock_env {
        let (scope, variable) = split(argument, "VAR")?;
        let variable = String::from_utf8_lossy(&variable).into_owned();
        requests.push(LockRequest::new(&scope, identity_in(OsStr::new(&variable))?)?);
    }
    if requests.is_empty() && metadata.is_some() {
        return Err(Error::invalid("--metadata says who holds a lock, and no lock is named")
            .with_hint("name one with `--lock-env SCOPE=VAR`"));
    }
    let requests: Vec<LockRequest> = requests
        .into_iter()
        .map(|request| match &metadata {
            Some(metadata) => request.metadata(metadata.clone()),
            None => Ok(request),
        })
        .collect::<Result<_>>()?;
    if !requests.is_empty() {
        crate::scoped::check(&requests)?;
    }
    Ok(requests)
}

fn parse_metadata(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        Error::invalid(format!("the metadata is not JSON: {error}"))
            .with_hint(r#"e.g. `--metadata '{"bot": "@weather"}'`"#)
    })
}

/// For whom a verb acts.
enum Subjected {
    /// The run it was started in.
    Run(Box<Record>),
    Process(sys::Pid),
}

impl Subjected {
    /// Of the run.
    fn id(&self) -> Option<InstanceId> {
        match self {
            Self::Run(run) => Some(run.id),
            Self::Process(_) => None,
        }
    }
}

fn subjected(store: &Store, pid: Option<sys::Pid>) -> Result<Subjected> {
    match pid {
        Some(pid) => Ok(Subjected::Process(pid)),
        None => match current_run(store)? {
            Some(run) => Ok(Subjected::Run(Box::new(run))),
            None => Ok(Subjected::Process(parent()?)),
        },
    }
}

pub(super) fn acquire(global: &Global, arguments: &args::LockAcquire, format: Format) -> Outcome {
    let identity = &arguments.identity;
    let mut request =
        request(&arguments.scope, identity.identity.as_ref(), identity.identity_env.as_ref())?;
    if let Some(metadata) = &arguments.metadata {
        request = request.metadata(parse_metadata(metadata)?)?;
    }
    if let Some(ttl) = arguments.ttl {
        request = request.ttl(ttl)?;
    }
    let profile = global.profile_name()?;
    let named = arguments.pid.map(Target::prove).transpose()?;
    let store = global.options().open()?;
    let subjected = subjected(&store, arguments.pid)?;
    let stopped = if arguments.evict_stopped { Stopped::Evict } else { Stopped::Respect };
    let asker = Asker {
        global,
        store: &store,
        requests: std::slice::from_ref(&request),
        stopped,
        keeper: !arguments.no_keeper,
        waits: arguments.wait.is_some_and(Wait::waits),
    };
    let acquiring: Acquiring = match subjected {
        Subjected::Run(run) => Acquiring::Run(run),
        Subjected::Process(pid) => {
            let target = named.map_or_else(|| Target::prove(pid), Ok)?;
            let observer = store.inner.observer();
            let subject = Subject::process(target.pid, target.start_time, observer);
            Acquiring::Process { profile, target, subject: Box::new(subject) }
        }
    };
    let cancel = Cancel::new();
    let options = WaitOptions {
        wait: arguments.wait.unwrap_or_default(),
        cancel: &cancel,
        for_whom: acquiring.process(),
        profile: acquiring.profile(),
        origin: Origin::Library,
        version: None,
        stop_budget_ms: stop_budget::DEFAULT_MS,
        argv: masked(store.inner.myself(), asker.requests),
        stopped,
    };
    let mut complaint = None;
    let answer = until_granted(&store, &options, |turn| match acquiring.attempt(&asker, turn)? {
        Tried::Attempt(attempt) => Ok(*attempt),
        Tried::KeeperFailed(report) => {
            complaint = Some(report);
            // Ends the loop; the report is shown in place of this.
            Err(Error::internal("the keeper failed"))
        }
    });
    if let Some(report) = complaint {
        return Ok(show(global, format, *report));
    }
    let holder = match answer? {
        Ok(granted) => {
            let text = granted_text(&acquiring, &granted);
            return Ok(Answer::new(exit::OK, format, &text, &document(Ok(&granted))));
        }
        Err(holder) => holder,
    };
    acquiring.tidy(&store.inner)?;
    Ok(Answer::new(exit::NOT_NOW, format, "", &document(Err(&holder)))
        .complaining(Complaint::new(holder.to_string()).advising(holder.advice())))
}

fn granted_text(acquiring: &Acquiring, granted: &GrantedLock) -> String {
    let pid = acquiring.pid().map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let how = match (&granted.previous, &granted.evicted) {
        (Some(_), _) => format!("pid {pid} holds it already"),
        (None, Some(evicted)) => format!(
            "acquired for pid {pid}, in the place of {} ({})",
            evicted.pid.map_or_else(|| "another".to_owned(), |pid| format!("pid {pid}")),
            evicted.reason.replace('_', " ")
        ),
        (None, None) => format!("acquired for pid {pid}"),
    };
    format!("{}: {how}, fence {}\n", granted.name, granted.fence)
}

fn document(answer: std::result::Result<&GrantedLock, &Holder>) -> Value {
    let (granted, holder) = match answer {
        Ok(granted) => (Some(granted), None),
        Err(holder) => (None, Some(holder)),
    };
    json!({
        "granted": granted.is_some(),
        "fence": granted.map(|granted| granted.fence),
        "instance": granted.map(|granted| granted.instance.as_i64()),
        "reacquired": granted.is_some_and(|granted| granted.previous.is_some()),
        "previous": granted
            .and_then(|granted| granted.previous.as_ref())
            .map(PreviousLock::to_json),
        "evicted": granted
            .and_then(|granted| granted.evicted.as_ref())
            .map(crate::claimant::Evicted::to_json),
        "holder": holder.map(Holder::to_json),
        "retry_after_ms": holder.and_then(|holder| holder.retry_after_ms),
    })
}

/// What is asked for, and how.
struct Asker<'a> {
    global: &'a Global,
    store: &'a Store,
    requests: &'a [LockRequest],
    stopped: Stopped,
    keeper: bool,
    waits: bool,
}

/// Whose the lock will be.
enum Acquiring {
    Run(Box<Record>),
    Process { profile: ProfileName, target: Target, subject: Box<Subject> },
}

enum Tried {
    Attempt(Box<Attempt<GrantedLock>>),
    KeeperFailed(Box<keeper::Report>),
}

/// What one transaction for a process came to.
enum Step {
    Done(Acquired),
    /// The lock is to be had, by a row that only a keeper can make.
    NeedsKeeper,
}

impl Acquiring {
    fn profile(&self) -> Option<&ProfileName> {
        match self {
            Self::Run(run) => run.profile.as_ref(),
            Self::Process { profile, .. } => Some(profile),
        }
    }

    fn process(&self) -> Option<(sys::Pid, &sys::ProcessHandle)> {
        match self {
            // Whoever asks is below it, and ends with it.
            Self::Run(_) => None,
            Self::Process { target, .. } => Some((target.pid, target.handle())),
        }
    }

    fn pid(&self) -> Option<sys::Pid> {
        match self {
            Self::Run(run) => run.pid,
            Self::Process { target, .. } => Some(target.pid),
        }
    }

    fn attempt(&self, asker: &Asker<'_>, turn: &Turn) -> Result<Tried> {
        let inner = &asker.store.inner;
        let count = if turn.waiter.is_some() { Count::No } else { Count::Yes };
        let mut aside = Aside::default();
        let mut keepers = 0;
        for _ in 0..ATTEMPTS {
            let step = count.if_writable(|count| {
                inner.write(|tx| self.step(tx, inner, asker, turn, &aside, count))
            })?;
            match step {
                Step::Done(Acquired::Granted(mut granted, _)) => {
                    for lock in &granted {
                        keeper::note_grant(inner, lock.instance, lock.fence);
                    }
                    return Ok(Tried::Attempt(Box::new(Attempt::Granted(granted.swap_remove(0)))));
                }
                Step::Done(Acquired::Held(obstacle)) => {
                    return Ok(Tried::Attempt(Box::new(Attempt::Held(obstacle))));
                }
                Step::Done(Acquired::Errand(errand)) => {
                    aside.run(errand, turn.deadline, inner.trust())?;
                }
                Step::NeedsKeeper => {
                    let Self::Process { profile, target, .. } = self else {
                        return Err(Error::internal("a run needs no keeper"));
                    };
                    // The record that one made may have ended with another verb's last lock.
                    keepers += 1;
                    if keepers > KEEPERS_MAX {
                        return Err(changes_too_fast(asker.requests[0].name()));
                    }
                    let purpose = Purpose::Locks(profile);
                    let report = keeper::start(asker.global, asker.store, &purpose, target)?;
                    if report.code != exit::OK {
                        return Ok(Tried::KeeperFailed(Box::new(report)));
                    }
                }
            }
        }
        Err(changes_too_fast(asker.requests[0].name()))
    }

    fn step(
        &self,
        tx: &Tx<'_>,
        inner: &Inner,
        asker: &Asker<'_>,
        turn: &Turn,
        aside: &Aside,
        count: Count,
    ) -> Result<Step> {
        let (claimant, ours) = match self {
            Self::Run(run) => (
                Claimant { origin: Origin::Library, subject: inner.myself() },
                std::slice::from_ref(&run.id),
            ),
            Self::Process { subject, .. } => {
                (Claimant { origin: Origin::Pid, subject }, [].as_slice())
            }
        };
        let claim = LockClaim {
            requests: asker.requests,
            claimant,
            profile: self.profile(),
            ours,
            stopped: asker.stopped,
            waiter: turn.waiter,
        };
        let acquire = |owner| {
            acquire_once(tx, inner, &claim, owner, turn.waiter, aside, count).map(Step::Done)
        };
        match self {
            Self::Run(run) => {
                let standing = instance::standing(tx, run.id)?;
                if standing.is_none_or(|row| row.ended.is_some()) {
                    return Err(Error::new(
                        crate::ErrorKind::NotOwner,
                        "the run we are in has lost its office",
                    )
                    .with_hint(
                        "its command is being ended; `incumbent status` says who holds it",
                    ));
                }
                hide_in(tx, run.id, asker.requests)?;
                acquire(Owner::Row(run.id))
            }
            Self::Process { profile, subject, .. } => {
                let rows =
                    instance::live_of_pid(tx, subject.pid, subject.start_time, inner.observer())?;
                let is_kept =
                    |row: &&Record| row.anchor.as_ref().is_some_and(|it| is_held(inner, it));
                if asker.keeper
                    && let Some(kept) = rows.iter().find(is_kept)
                {
                    // Their keeper was killed, this one lives.
                    for row in rows.iter().filter(|row| row.keeper_pid.is_some()) {
                        if !is_kept(&row) {
                            instance::lean_on(tx, row.id, kept.id)?;
                        }
                    }
                }
                let own = rows
                    .iter()
                    .filter(|row| row.kind().is_none() && row.profile.as_ref() == Some(profile))
                    .find(|row| if asker.keeper { is_kept(row) } else { true });
                if let Some(own) = own {
                    return acquire(Owner::Row(own.id));
                }
                let recorder = if asker.keeper { Recorder::Verb } else { Recorder::NoKeeper };
                match attachment(tx, inner, subject, recorder)? {
                    Some(attachment) => acquire(Owner::New(&attachment)),
                    // Who waits has its keeper ready, to own within milliseconds of the release.
                    None if asker.waits => Ok(Step::NeedsKeeper),
                    None => Ok(match survey(tx, inner, &claim, aside, count)? {
                        Surveyed::Clear(_) => Step::NeedsKeeper,
                        Surveyed::Held(obstacle) => Step::Done(Acquired::Held(obstacle)),
                        Surveyed::Errand(errand) => Step::Done(Acquired::Errand(errand)),
                    }),
                }
            }
        }
    }

    /// After a refusal: a row that was made for the lock, and a keeper with it, need not stay.
    fn tidy(&self, inner: &Inner) -> Result<()> {
        let Self::Process { subject, .. } = self else { return Ok(()) };
        let rows = |connection: &rusqlite::Connection| {
            instance::live_of_pid(connection, subject.pid, subject.start_time, inner.observer())
        };
        if inner.read(|connection| rows(connection))?.iter().all(|row| row.kind().is_some()) {
            return Ok(());
        }
        inner.write(|tx| {
            for row in rows(tx)? {
                end_if_without_purpose(tx, &row, &by_us("lock acquire"))?;
            }
            Ok(())
        })
    }
}

/// A lock that a verb found to be of whom it acts for; else why not.
type Found = std::result::Result<(LockRow, Record), No>;

/// Why a lock is not the subject's.
enum No {
    /// Somebody else has it, or has had it meanwhile.
    Others(String),
    /// Nobody who lives is on record for it.
    Nobodys(String),
}

/// Looks for the lock of `subjected`, which a dead process no longer has.
fn find(
    connection: &rusqlite::Connection,
    inner: &Inner,
    name: &LockName,
    subjected: &Subjected,
    fence: Option<i64>,
) -> Result<Found> {
    let row =
        if lock_table::exists(connection)? { lock_table::by_name(connection, name)? } else { None };
    let record = match &row {
        Some(row) => instance::by_id(connection, row.instance)?,
        None => None,
    };
    let (Some(row), Some(record)) = (row, record.filter(|it| it.ended_at_ms.is_none())) else {
        return Ok(Err(No::Nobodys(format!("nobody holds {name}"))));
    };
    let holder =
        record.pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));
    let why_not = match subjected {
        Subjected::Run(run) if run.id == record.id => None,
        Subjected::Run(_) => {
            Some(format!("{name} is not held by the run we are in, but by {holder}"))
        }
        Subjected::Process(_) if !record.is_pid => Some(format!(
            "{name} is held by {holder}, which acquired it itself: only its owner acts for it"
        )),
        Subjected::Process(pid) if !is_about(inner, &record, *pid)? => {
            Some(format!("{name} is not held by pid {pid}, but by {holder}"))
        }
        Subjected::Process(_) => None,
    };
    let is_runs_own = matches!(subjected, Subjected::Run(run) if run.id == record.id);
    if !is_runs_own {
        let seen = judge_record(inner, &record, Lease::None, &LiveCommandLine::not_read());
        if let Verdict::Dead(reason) = seen.verdict {
            return Ok(Err(No::Nobodys(why_not.unwrap_or_else(|| {
                let because = because_seen(reason.as_str(), seen.flags, &seen.evidence);
                format!("{name} is on record for {holder}, which is dead: {because}")
            }))));
        }
    }
    Ok(match (why_not, fence) {
        (Some(why_not), _) => Err(No::Others(why_not)),
        (None, Some(fence)) if fence != row.fence => {
            Err(No::Others(format!("{name} was lost: its fence is {} now, not {fence}", row.fence)))
        }
        (None, _) => Ok((row, record)),
    })
}

/// What `question` finds in the store. A process of which nothing is on record may have lost its store; a run
/// that is on record here has its locks here, too.
fn ask(
    global: &Global,
    name: &LockName,
    pid: Option<sys::Pid>,
    question: impl Fn(&Inner, &Subjected) -> Result<Found>,
) -> Result<std::result::Result<LockRow, String>> {
    let found = lost_store::ask(global, |store| {
        let subjected = subjected(store, pid)?;
        let found = question(&store.inner, &subjected)?;
        let why_not = match found {
            Ok((row, _)) => return Ok(Known::Well(Ok(row))),
            Err(No::Nobodys(why)) if matches!(subjected, Subjected::Process(_)) => {
                return Ok(Known::ByLack(Err(why)));
            }
            Err(No::Nobodys(why) | No::Others(why)) => why,
        };
        // The run that we are in may have claimed again between the two reads.
        let is_the_same = self::subjected(store, pid)?.id() == subjected.id();
        Ok(if is_the_same { Known::Well(Err(why_not)) } else { Known::ByLack(Err(why_not)) })
    })?;
    Ok(found.unwrap_or_else(|| Err(format!("nobody holds {name}: there is no store"))))
}

/// A verb's answer about one lock.
fn answer(
    format: Format,
    done: &str,
    found: std::result::Result<LockRow, String>,
    more: impl FnOnce(&LockRow) -> String,
) -> Answer {
    match found {
        Ok(row) => {
            let document = json!({
                done: true, "fence": row.fence, "instance": row.instance.as_i64(), "reason": null,
            });
            let text = format!("{}: {}\n", row.name, more(&row));
            Answer::new(exit::OK, format, &text, &document)
        }
        Err(why) => {
            let document = json!({done: false, "fence": null, "instance": null, "reason": why});
            Answer::new(exit::NO, format, "", &document).complaining(Complaint::new(why))
        }
    }
}

fn ref_name(arguments: &args::LockRef) -> Result<LockName> {
    let identity = &arguments.identity;
    name(&arguments.scope, identity.identity.as_ref(), identity.identity_env.as_ref())
}

pub(super) fn verify(global: &Global, arguments: &args::LockRef, format: Format) -> Outcome {
    let name = ref_name(arguments)?;
    let found = ask(global, &name, arguments.pid, |inner, subjected| {
        inner.read(|connection| find(connection, inner, &name, subjected, arguments.fence))
    })?;
    Ok(answer(format, "held", found, |row| format!("held, fence {}", row.fence)))
}

pub(super) fn renew(global: &Global, arguments: &args::LockRef, format: Format) -> Outcome {
    let name = ref_name(arguments)?;
    let found = ask(global, &name, arguments.pid, |inner, subjected| {
        inner.write(|tx| {
            let found = find(tx, inner, &name, subjected, arguments.fence)?;
            if let Ok((row, _)) = &found {
                let now_boot_ms = inner.clock().boot_ms();
                lock_table::renew(tx, &name, row.fence, inner.observer(), now_boot_ms)?;
            }
            Ok(found)
        })
    })?;
    Ok(answer(format, "renewed", found, |row| match row.ttl_ms {
        Some(ttl_ms) => format!("renewed for {}, fence {}", length(ttl_ms), row.fence),
        None => format!("held without a lease, fence {}", row.fence),
    }))
}

pub(super) fn release(global: &Global, arguments: &args::LockRelease, format: Format) -> Outcome {
    if arguments.all {
        return release_all(global, arguments.pid, format);
    }
    let scope = arguments.scope.as_deref().unwrap_or_default();
    let name = name(scope, arguments.identity.as_ref(), arguments.identity_env.as_ref())?;
    let found = ask(global, &name, arguments.pid, |inner, subjected| {
        inner.write(|tx| {
            let found = find(tx, inner, &name, subjected, arguments.fence)?;
            if let Ok((row, record)) = &found {
                let by = by_us("lock release");
                lock_table::end(tx, &name, row.fence, released(&by))?;
                end_if_without_purpose(tx, record, &by)?;
            }
            Ok(found)
        })
    })?;
    Ok(answer(format, "released", found, |_| "released".to_owned()))
}

fn released(by: &str) -> LockEnd<'_> {
    LockEnd { reason: EndReason::Released.as_str(), by: Some(by) }
}

/// Releases the locks of one process, or of the run we are in, and prints how many those were. Of very
/// many some at a time, so that others can claim meanwhile.
fn release_all(global: &Global, pid: Option<sys::Pid>, format: Format) -> Outcome {
    let by = by_us("lock release --all");
    let count = lost_store::ask(global, |store| {
        let subjected = subjected(store, pid)?;
        let (mut count, mut are_left) = (0, true);
        while are_left {
            let released;
            (released, are_left) =
                store.inner.write(|tx| release_some(tx, &store.inner, &subjected, &by))?;
            count += released;
        }
        Ok(match subjected {
            Subjected::Process(_) if count == 0 => Known::ByLack(count),
            Subjected::Process(_) | Subjected::Run(_) => Known::Well(count),
        })
    })?;
    let count = count.unwrap_or(0);
    Ok(Answer::new(exit::OK, format, &format!("{count}\n"), &json!({"released": count})))
}

/// How many were released, and whether some are left.
fn release_some(
    tx: &Tx<'_>,
    inner: &Inner,
    subjected: &Subjected,
    by: &str,
) -> Result<(usize, bool)> {
    let rows = match subjected {
        Subjected::Run(run) => vec![(**run).clone()],
        Subjected::Process(pid) => {
            let facts = sys::process_facts(*pid);
            let rows = instance::live_of_pid(tx, *pid, facts.start_time, inner.observer())?;
            if rows.is_empty() && facts.start_time.is_none() && facts.existence != Existence::Gone {
                return Err(cannot_tell(*pid, "when it was started"));
            }
            rows
        }
    };
    let mut count = 0;
    for row in &rows {
        let released = lock_table::end_some_of(tx, row.id, released(by))?;
        count += released;
        if released == lock_table::ENDED_AT_ONCE {
            return Ok((count, true));
        }
        end_if_without_purpose(tx, row, by)?;
    }
    Ok((count, false))
}
