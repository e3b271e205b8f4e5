//! What the command of a `run` left in its session. `npm start`, `sh -c` and start scripts without
//! `exec` die with a `run` that is killed, and the gateway behind them does not (FIELD-BUGS row
//! 107); helpers outlive a command that ends (row 127).
//!
//! A process belongs to the family if it is in the command's session (on record), is not older than
//! the command, and has the `INCUMBENT_INSTANCE` of that run in its environment, whoever its parent
//! is by now. In a session that the command was given for itself the session alone says it: sudo
//! and `env -i` leave no environment. Not in the family: we, what we descend from, keepers, and
//! another `run` (known by the anchor that it has open, whatever its program is called) with what
//! is below it. What left the session is left alone.
//!
//! A process that ends a dead record looks for its family first: claims by an errand, the verbs
//! that end records by `claim::examine::judge_to_end`. A `run` looks when its command has ended
//! (`run/family.rs`). Where the process table cannot be seen nobody can be looked for. There the
//! second lock of `<anchor>.cmd`, which everything inherits that the command starts, keeps the
//! record unknown (`process/command_lock.rs`).

use std::path::Path;
use std::time::Duration;

use crate::clock::Deadline;
use crate::process::anchor;
use crate::process::descendants::end_all;
use crate::process::helper;
use crate::records::{Command, Record};
use crate::sys::{
    Existence, Pid, ProcessFacts, ProcessNumber, ProcessState, Proven, StartTime, Trust, Unproven,
};
use crate::{InstanceId, environment, sys};

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

/// What a command left behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remains {
    /// These live, and may not or cannot be ended; none of them: the family is gone.
    pub(crate) living: Vec<Pid>,
    /// These were ended.
    pub(crate) ended: Vec<Pid>,
    /// These left the session (tmux, ssh-agent), and are left alone.
    pub(crate) left_alone: Vec<Pid>,
}

/// Whose family it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kin {
    /// What its `run` put into the environment.
    instance: InstanceId,
    pid: Option<Pid>,
    start_time: StartTime,
    number: Option<ProcessNumber>,
    session: Pid,
}

/// How to look for a family.
pub(crate) struct Look<'a> {
    /// Whoever is none of it all the same.
    pub(crate) is_spared: &'a dyn Fn(Pid) -> bool,
    pub(crate) trust: &'a Trust,
    /// All that this process has started, or adopted, is what the command has started.
    pub(crate) root: Option<Pid>,
    /// Collects those that have ended, where that is ours to do.
    pub(crate) collect: &'a dyn Fn(),
}

impl Kin {
    /// The command that `record` names; `None` where nobody can be said to be of its family.
    fn of_record(record: &Record) -> Option<Self> {
        Some(Self {
            instance: record.id,
            pid: record.child_pid,
            start_time: record.child_start_time?,
            number: record.identity.child,
            session: record.identity.child_sid?,
        })
    }

    /// A command of the `run` with the row `instance`, which has not been collected yet.
    pub(crate) fn of_command(instance: InstanceId, command: &Command) -> Option<Self> {
        Some(Self {
            instance,
            pid: Some(command.pid),
            start_time: command.start_time?,
            number: sys::process_facts(command.pid).number,
            session: sys::session_of(command.pid)?,
        })
    }

    /// The command.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.pid
    }

    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Whether the session was the command's own; `None` where its number is another session's by
    /// now. A number is not given out again while a process of that session lives.
    fn has_own_session(&self) -> Option<bool> {
        if self.pid != Some(self.session) {
            return Some(false);
        }
        let leader = sys::process_facts(self.session);
        let proven = || Proven::of(self.session, Some(self.start_time), self.number, &Trust::FULL);
        let is_another =
            leader.existence == Existence::Present && matches!(proven(), Err(Unproven::Gone));
        (!is_another).then_some(true)
    }

    /// Ends those who can be ended, and adds what came of it to `remains`. False where nobody can
    /// be looked for.
    fn end_members(&self, look: &Look<'_>, remains: &mut Remains) -> bool {
        let mut living = Vec::new();
        for _ in 0..LOOKS_MAX {
            let Some(members) = self.members(look) else { return false };
            living = members.iter().filter_map(Member::refuses).collect();
            let proven: Vec<&Proven> =
                members.iter().filter_map(|member| member.proven.as_ref().ok()).collect();
            if proven.is_empty() {
                break;
            }
            for process in &proven {
                tracing::warn!(pid = process.pid(), "ending what a command left behind");
            }
            let asked = end_all(&proven, Proven::ask_to_end, ENDS_WITHIN);
            wait_collected(&proven, look.collect);
            let all_ended = asked || end_all(&proven, Proven::kill, ENDS_WITHIN);
            (look.collect)();
            for process in proven {
                let list = if process.has_ended() { &mut remains.ended } else { &mut living };
                list.push(process.pid());
            }
            if !all_ended {
                break;
            }
        }
        remains.living.append(&mut living);
        true
    }

    fn members(&self, look: &Look<'_>) -> Option<Vec<Member>> {
        let Some(own_session) = self.has_own_session() else { return Some(Vec::new()) };
        let any_run = format!("{}=", environment::INSTANCE);
        let of_this_run = format!("{any_run}{}", self.instance);
        let in_session = sys::processes_of_session(self.session)?;
        let owners: Vec<Pid> = in_session.iter().copied().filter(|pid| is_owner(*pid)).collect();
        let below_owners: Vec<Pid> = owners.iter().flat_map(|pid| sys::descendants(*pid)).collect();
        let descended = if own_session { Vec::new() } else { look.descended() };
        let is_known_by_place =
            |pid: &Pid| (own_session || descended.contains(pid)) && !below_owners.contains(pid);
        // What says by its environment that it is of this run is so whoever its parent is by now:
        // the orphans of a container are adopted by its first process, which may be another run.
        let is_of_this_run = |pid: Pid| match sys::environment_of(pid) {
            Some(words) if words.contains(&of_this_run) => true,
            Some(words) => {
                let is_of_another = words.iter().any(|word| word.starts_with(&any_run));
                !is_of_another && is_known_by_place(&pid)
            }
            None => is_known_by_place(&pid),
        };
        let command = self.start_time;
        let is_not_older =
            |start: StartTime| start.unit == command.unit && start.value >= command.value;
        let is_candidate = |pid: &Pid| !owners.contains(pid) && !(look.is_spared)(*pid);
        let members = in_session.into_iter().filter(is_candidate).filter_map(|pid| {
            let ProcessFacts { existence, start_time, number, .. } = sys::process_facts(pid);
            let may_be_of_it = existence != Existence::Gone && start_time.is_none_or(is_not_older);
            let is_of_it = may_be_of_it && is_of_this_run(pid);
            is_of_it
                .then(|| Member { pid, proven: Proven::of(pid, start_time, number, look.trust) })
        });
        Some(members.collect())
    }
}

impl Look<'_> {
    /// What was started by the command and is not below another owner, as far as descent tells.
    fn descended(&self) -> Vec<Pid> {
        let Some(root) = self.root else { return Vec::new() };
        let mut all = sys::descendants(root);
        let owners: Vec<Pid> = all.iter().copied().filter(|pid| is_owner(*pid)).collect();
        for owner in owners {
            let below = sys::descendants(owner);
            all.retain(|pid| *pid != owner && !below.contains(pid));
        }
        all
    }

    /// Who is of the run `instance` by its environment or descent, and in none of these sessions
    /// any more.
    fn outside(&self, instance: InstanceId, sessions: &[Pid]) -> Vec<Pid> {
        let of_this_run = format!("{}={instance}", environment::INSTANCE);
        let mut found = sys::processes_with_environment(&of_this_run);
        found.extend(self.descended());
        found.sort_unstable();
        found.dedup();
        let has_left = |pid: &Pid| {
            let session = sys::session_of(*pid);
            session.is_none_or(|session| !sessions.contains(&session))
        };
        let is_not_us = |pid: &Pid| {
            let start_time = sys::process_facts(*pid).start_time;
            let proven = Proven::of(*pid, start_time, None, self.trust);
            proven.is_ok() && !(self.is_spared)(*pid) && !is_owner(*pid)
        };
        found.into_iter().filter(has_left).filter(is_not_us).collect()
    }
}

/// Ends the family of the command that `record` names, but for `subject`, which the office is for
/// now.
pub(crate) fn end(record: &Record, subject: Option<Pid>, trust: &Trust) -> Family {
    let look = Look { is_spared: &|pid| Some(pid) == subject, trust, root: None, collect: &|| () };
    let mut remains = Remains::default();
    if let Some(kin) = Kin::of_record(record)
        && !kin.end_members(&look, &mut remains)
    {
        return Family::NotSeen;
    }
    remains.left_alone = look.outside(record.id, record.identity.child_sid.as_slice());
    Family::Seen(remains)
}

/// The same of the commands of one `run` that took each other's place, the last of which has ended.
pub(crate) fn end_of(commands: &[Kin], look: &Look<'_>) -> Family {
    let Some(last) = commands.last() else { return Family::Seen(Remains::default()) };
    let mut remains = Remains::default();
    if !commands.iter().all(|kin| kin.end_members(look, &mut remains)) {
        return Family::NotSeen;
    }
    remains.left_alone = look.outside(last.instance, &sessions(commands));
    Family::Seen(remains)
}

/// Who is left of them, where nobody is to be ended.
pub(crate) fn left_of(commands: &[Kin], look: &Look<'_>) -> Family {
    let Some(last) = commands.last() else { return Family::Seen(Remains::default()) };
    let mut remains = Remains::default();
    for kin in commands {
        let Some(members) = kin.members(look) else { return Family::NotSeen };
        remains.living.extend(members.iter().filter_map(Member::lives));
    }
    remains.left_alone = look.outside(last.instance, &sessions(commands));
    Family::Seen(remains)
}

fn sessions(commands: &[Kin]) -> Vec<Pid> {
    commands.iter().map(|kin| kin.session).collect()
}

/// Who lives of it, where nobody may be ended. Ourselves and our ancestors are none of them.
pub(crate) fn living(record: &Record, subject: Option<Pid>, trust: &Trust) -> Family {
    let look = Look { is_spared: &|pid| Some(pid) == subject, trust, root: None, collect: &|| () };
    let Some(kin) = Kin::of_record(record) else { return Family::Seen(Remains::default()) };
    let Some(members) = kin.members(&look) else { return Family::NotSeen };
    let living = members.iter().filter_map(Member::lives).collect();
    Family::Seen(Remains { living, ..Remains::default() })
}

/// Whoever asks by number alone (`kill -0`, a PID file) takes a zombie for the living, and their
/// new parent may take a moment to collect them. Nothing depends on it.
fn wait_collected(processes: &[&Proven], collect: &dyn Fn()) {
    const COLLECTED_WITHIN: Duration = Duration::from_secs(2);
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    let until = Deadline::after(COLLECTED_WITHIN);
    let is_zombie = |process: &&Proven| {
        process.has_ended() && sys::process_facts(process.pid()).state == ProcessState::Zombie
    };
    collect();
    while processes.iter().any(is_zombie) && !until.has_passed() {
        std::thread::sleep(LOOK_EVERY);
        collect();
    }
}

struct Member {
    pid: Pid,
    proven: Result<Proven, Unproven>,
}

impl Member {
    /// Its pid, if it lives, whether or not we may end it.
    fn lives(&self) -> Option<Pid> {
        match &self.proven {
            Ok(process) => Some(process.pid()),
            Err(_) => self.refuses(),
        }
    }

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

/// Whether a process is an owner itself, of this store or another (another `run`, a keeper, a
/// gateway), or a verb of ours. An owner is known by the anchor that it has open, whatever its
/// program is called.
fn is_owner(pid: Pid) -> bool {
    let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
    let is_anchor = |path: &Path| name(path).is_some_and(|it| anchor::parse_name(&it).is_some());
    is_program_of_ours(pid)
        || sys::files_opened_by(pid)
            .is_some_and(|files| files.iter().any(|file| is_anchor(&file.path)))
}

/// Whether a process runs our program, or a part of it: a verb, a keeper, a diagnostic.
pub(crate) fn is_program_of_ours(pid: Pid) -> bool {
    /// That of a helper comes first, or after what leads an interpreter to it.
    const BEFORE_A_VERB_MAX: usize = 8;
    if sys::program_name(pid).as_deref() == Some("incumbent") {
        return true;
    }
    let Some(words) = sys::command_line(pid) else { return false };
    // Our own executable is started by another path, which is what the kernel calls it by.
    words.first().is_some_and(|name| name == "incumbent")
        || words.iter().take(BEFORE_A_VERB_MAX).any(|it| helper::VERBS.contains(&it.as_str()))
}
