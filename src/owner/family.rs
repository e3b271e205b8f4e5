//! What the command of a killed `run` left in its session: `npm start`, `sh -c` and start scripts
//! without `exec` die with their `run`, and the gateway behind them does not (FIELD-BUGS row 107).
//!
//! A process belongs to the family if it is in the command's session (on record), is not older than
//! the command, and has the `INCUMBENT_INSTANCE` of that run in its environment, whoever its parent
//! is by now. In a session that the command was given for itself the session alone says it: sudo
//! and `env -i` leave no environment. Not in the family: we, what we descend from, keepers, and
//! another `run` (known by the anchor that it has open, whatever its program is called) with what
//! is below it. What left the session is left alone.
//!
//! A process that ends a dead record looks for its family first: claims by an errand, the verbs
//! that end records by `claim::examine::judge_to_end`. Where the process table cannot be seen
//! nobody can be looked for. There the second lock of `<anchor>.cmd`, which everything inherits
//! that the command starts, keeps the record unknown (`process/command_lock.rs`).

use std::path::Path;
use std::time::Duration;

use crate::clock::Deadline;
use crate::process::anchor;
use crate::process::descendants::end_all;
use crate::records::Record;
use crate::sys::{Existence, Pid, ProcessFacts, ProcessState, Proven, StartTime, Trust, Unproven};
use crate::{environment, sys};

/// How long it may take to end before it is killed, and how long a killed one may take to be gone.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Somebody who is started while we look is found by the next look; more looks than this mean
/// something that starts processes faster than it can be ended.
const LOOKS_MAX: usize = 8;

/// What is known of a family.
#[derive(Debug)]
pub(crate) enum Family {
    Seen(Remains),
    /// The process table cannot be looked through.
    NotSeen,
}

/// What a killed `run` left behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remains {
    /// These live, and may not or cannot be ended; none of them: the family is gone.
    pub(crate) living: Vec<Pid>,
    /// These were ended.
    pub(crate) ended: Vec<Pid>,
    /// These left the session (tmux, ssh-agent), and are left alone.
    pub(crate) left_alone: Vec<Pid>,
}

/// Ends the family of the command that `record` names, but for `subject`, which the office is for
/// now.
pub(crate) fn end(record: &Record, subject: Option<Pid>, trust: &Trust) -> Family {
    let mut remains = Remains::default();
    for _ in 0..LOOKS_MAX {
        let Some(members) = members(record, subject, trust) else { return Family::NotSeen };
        remains.living = members.iter().filter_map(Member::refuses).collect();
        let proven: Vec<&Proven> =
            members.iter().filter_map(|member| member.proven.as_ref().ok()).collect();
        if proven.is_empty() {
            break;
        }
        for process in &proven {
            tracing::warn!(pid = process.pid(), "ending what a killed run left behind");
        }
        let asked = end_all(&proven, Proven::ask_to_end, ENDS_WITHIN);
        wait_collected(&proven);
        let all_ended = asked || end_all(&proven, Proven::kill, ENDS_WITHIN);
        for process in proven {
            let list = if process.has_ended() { &mut remains.ended } else { &mut remains.living };
            list.push(process.pid());
        }
        if !all_ended {
            break;
        }
    }
    remains.left_alone = outside(record, subject, trust);
    Family::Seen(remains)
}

/// Who lives of it, where nobody may be ended. Ourselves and our ancestors are none of them.
pub(crate) fn living(record: &Record, subject: Option<Pid>, trust: &Trust) -> Family {
    let Some(members) = members(record, subject, trust) else { return Family::NotSeen };
    let living = members.iter().filter_map(|member| match &member.proven {
        Ok(process) => Some(process.pid()),
        Err(_) => member.refuses(),
    });
    Family::Seen(Remains { living: living.collect(), ..Remains::default() })
}

/// Whoever asks by number alone (`kill -0`, a PID file) takes a zombie for the living, and their
/// new parent may take a moment to collect them. Nothing depends on it.
fn wait_collected(processes: &[&Proven]) {
    const COLLECTED_WITHIN: Duration = Duration::from_secs(2);
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    let until = Deadline::after(COLLECTED_WITHIN);
    let is_zombie = |process: &&Proven| {
        process.has_ended() && sys::process_facts(process.pid()).state == ProcessState::Zombie
    };
    while processes.iter().any(is_zombie) && !until.has_passed() {
        std::thread::sleep(LOOK_EVERY);
    }
}

struct Member {
    pid: Pid,
    proven: Result<Proven, Unproven>,
}

impl Member {
    /// Its pid, if it lives and we may not end it. Ourselves and our ancestors refuse nobody.
    fn refuses(&self) -> Option<Pid> {
        match &self.proven {
            Ok(_) | Err(Unproven::Gone | Unproven::Ourselves | Unproven::Ancestor) => None,
            Err(
                Unproven::Reserved
                | Unproven::Elsewhere
                | Unproven::Copied
                | Unproven::Unknown
                | Unproven::NotOfTheUser(_)
                | Unproven::OfSeveralUsers
                | Unproven::Denied(_),
            ) => Some(self.pid),
        }
    }
}

fn members(record: &Record, subject: Option<Pid>, trust: &Trust) -> Option<Vec<Member>> {
    let (Some(session), Some(command)) = (record.identity.child_sid, record.child_start_time)
    else {
        return Some(Vec::new());
    };
    let Some(own_session) = is_own_session(record, session) else { return Some(Vec::new()) };
    let any_run = format!("{}=", environment::INSTANCE);
    let of_this_run = format!("{any_run}{}", record.id);
    let in_session = sys::processes_of_session(session)?;
    let owners: Vec<Pid> = in_session.iter().copied().filter(|pid| is_owner(*pid)).collect();
    let below_owners: Vec<Pid> = owners.iter().flat_map(|pid| sys::descendants(*pid)).collect();
    // What says by its environment that it is of this run is so whoever its parent is by now: the
    // orphans of a container are adopted by its first process, which may be another run.
    let is_of_this_run = |pid| match sys::environment_of(pid) {
        Some(words) if words.contains(&of_this_run) => true,
        Some(words) => {
            let is_of_another = words.iter().any(|word| word.starts_with(&any_run));
            own_session && !is_of_another && !below_owners.contains(&pid)
        }
        None => own_session && !below_owners.contains(&pid),
    };
    let is_not_older =
        |start: StartTime| start.unit == command.unit && start.value >= command.value;
    let is_candidate = |pid: &Pid| !owners.contains(pid) && Some(*pid) != subject;
    let members = in_session.into_iter().filter(is_candidate).filter_map(|pid| {
        let ProcessFacts { existence, start_time, number, .. } = sys::process_facts(pid);
        let may_be_of_it = existence != Existence::Gone && start_time.is_none_or(is_not_older);
        let is_of_it = may_be_of_it && is_of_this_run(pid);
        is_of_it.then(|| Member { pid, proven: Proven::of(pid, start_time, number, trust) })
    });
    Some(members.collect())
}

/// Who is of this run by its environment, and not in its session any more.
fn outside(record: &Record, subject: Option<Pid>, trust: &Trust) -> Vec<Pid> {
    let of_this_run = format!("{}={}", environment::INSTANCE, record.id);
    let is_not_us = |pid: &Pid| {
        let proven = Proven::of(*pid, sys::process_facts(*pid).start_time, None, trust);
        proven.is_ok() && Some(*pid) != subject && !is_owner(*pid)
    };
    sys::processes_with_environment(&of_this_run)
        .into_iter()
        .filter(|pid| sys::session_of(*pid) != record.identity.child_sid)
        .filter(is_not_us)
        .collect()
}

/// Whether a process is an owner itself, of this store or another (another `run`, a keeper, a
/// gateway), or a verb of ours. An owner is known by the anchor that it has open, whatever its
/// program is called.
fn is_owner(pid: Pid) -> bool {
    let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
    let is_anchor = |path: &Path| name(path).is_some_and(|it| anchor::parse_name(&it).is_some());
    sys::program_name(pid).as_deref() == Some("incumbent")
        || sys::files_opened_by(pid)
            .is_some_and(|files| files.iter().any(|file| is_anchor(&file.path)))
}

/// Whether the session was the command's own; `None` where its number is another session's by now.
/// A number is not given out again while a process of that session lives.
fn is_own_session(record: &Record, session: Pid) -> Option<bool> {
    if record.child_pid != Some(session) {
        return Some(false);
    }
    let leader = sys::process_facts(session);
    let is_another = leader.existence == Existence::Present
        && matches!(record.prove_child(&Trust::FULL), Err(Unproven::Gone));
    (!is_another).then_some(true)
}
