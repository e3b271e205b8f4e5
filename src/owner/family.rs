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
//! The number of a session belongs to it for as long as a process lives in it, and is free then.
//! So it means the command's session while its leader is the command. Once that is gone, one
//! process has to show that it is of this run: by its environment, by the file that the command
//! locks, which whatever it starts inherits open, or by its descent. Then all are, because a
//! session is entered by birth alone. Where nobody shows it, they may be strangers, who are not
//! ended, or a gateway that has closed everything: a claim is refused beside them.
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
use crate::process::command_lock;
use crate::process::descendants::end_all;
use crate::process::helper;
use crate::records::{Command, Record};
use crate::sys::{
    Existence, OpenedFile, Pid, ProcessFacts, ProcessNumber, ProcessState, Proven, StartTime,
    Trust, Unproven,
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
    /// Of the file that the command locks.
    lock_inode: Option<u64>,
}

/// What the session of a command says of those who are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    /// The command shares it with others.
    Shared,
    /// The command leads it, and is there.
    Own,
    /// The command led it, and cannot be seen any more.
    Leaderless,
    /// Its number is another session's by now.
    OfOthers,
}

/// Who is in it, but for ourselves.
#[derive(Debug)]
struct Inhabitants {
    all: Vec<Pid>,
    owners: Vec<Pid>,
    /// Whoever is below an owner.
    below_owners: Vec<Pid>,
    /// Whoever is below an owner that was itself started in this run.
    below_owners_of_this_run: Vec<Pid>,
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
            lock_inode: record.identity.command_lock_inode,
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
            lock_inode: command.lock_inode,
        })
    }

    /// The command.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.pid
    }

    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    fn session_now(&self) -> Session {
        if self.pid != Some(self.session) {
            return Session::Shared;
        }
        // One that has ended and was not collected shows both.
        let ProcessFacts { start_time, number, .. } = sys::process_facts(self.session);
        let is_the_command = match (number, self.number, start_time) {
            (Some(live), Some(recorded), _) => live == recorded,
            (.., Some(live)) if live.unit == self.start_time.unit => live == self.start_time,
            _ => return Session::Leaderless,
        };
        if is_the_command { Session::Own } else { Session::OfOthers }
    }

    /// Ends those who can be ended, and adds what came of it to `remains`. False where nobody can
    /// be looked for.
    fn end_members(&self, look: &Look<'_>, remains: &mut Remains) -> bool {
        let mut living = Vec::new();
        let mut ended_before = Vec::new();
        for _ in 0..LOOKS_MAX {
            let Some(Members { members, ended }) = self.members(look) else { return false };
            living = members.iter().filter_map(Member::refuses).collect();
            let proven: Vec<&Proven> =
                members.iter().filter_map(|member| member.proven.as_ref().ok()).collect();
            if proven.is_empty() {
                // A look may come too early for what forks, and too late for what it was forked
                // by. Who had ended by the look before is only still to be collected.
                if ended.iter().all(|pid| ended_before.contains(pid)) {
                    break;
                }
                ended_before = ended;
                (look.collect)();
                continue;
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

    /// Who is in the session; `None` where nobody can be looked for.
    fn inhabitants(&self) -> Option<Inhabitants> {
        let all = sys::processes_of_session(self.session)?;
        let owners: Vec<Pid> = all.iter().copied().filter(|pid| is_owner(*pid)).collect();
        let below = |owner: &Pid| sys::descendants(*owner);
        let of_this_run = owners.iter().filter(|pid| carries(**pid, self.instance));
        Some(Inhabitants {
            below_owners: owners.iter().flat_map(below).collect(),
            below_owners_of_this_run: of_this_run.flat_map(below).collect(),
            all,
            owners,
        })
    }

    fn members(&self, look: &Look<'_>) -> Option<Members> {
        let session = self.session_now();
        if session == Session::OfOthers {
            return Some(Members::default());
        }
        let Inhabitants { all, owners, below_owners, below_owners_of_this_run } =
            self.inhabitants()?;
        let descended = if session == Session::Own { Vec::new() } else { look.descended() };
        let shows_it = |pid: &Pid| {
            descended.contains(pid) || carries(*pid, self.instance) || self.has_lock_file(*pid)
        };
        let is_session_of_command = match session {
            Session::Own => true,
            Session::Shared | Session::OfOthers => false,
            Session::Leaderless => all.iter().any(shows_it),
        };
        // Whatever the command has started would descend from us, where we adopt it.
        let is_doubtful =
            session == Session::Leaderless && !is_session_of_command && look.root.is_none();
        let any_run = format!("{}=", environment::INSTANCE);
        let of_this_run = format!("{any_run}{}", self.instance);
        let is_known_by_place = |pid: Pid| {
            let is_in_place = is_session_of_command || is_doubtful || descended.contains(&pid);
            is_in_place && !below_owners.contains(&pid)
        };
        // What says by its environment that it is of this run is so whoever its parent is by now:
        // the orphans of a container are adopted by its first process, which may be another run.
        // But what an owner of this run starts has the same environment, and is that one's.
        let is_of_this_run = |pid: Pid| match sys::environment_of(pid) {
            Some(words) if words.contains(&of_this_run) => !below_owners_of_this_run.contains(&pid),
            Some(words) => {
                let is_of_another = words.iter().any(|word| word.starts_with(&any_run));
                !is_of_another && is_known_by_place(pid)
            }
            None => is_known_by_place(pid),
        };
        let command = self.start_time;
        let is_not_older =
            |start: StartTime| start.unit == command.unit && start.value >= command.value;
        let is_candidate = |pid: &Pid| !owners.contains(pid) && !(look.is_spared)(*pid);
        let mut found = Members::default();
        for pid in all.into_iter().filter(is_candidate) {
            let ProcessFacts { existence, start_time, number, .. } = sys::process_facts(pid);
            if existence == Existence::Gone {
                found.ended.push(pid);
            } else if start_time.is_none_or(is_not_older) && is_of_this_run(pid) {
                let proven = Proven::of(pid, start_time, number, look.trust);
                let proven = if is_doubtful { proven.and(Err(Unproven::Unknown)) } else { proven };
                found.members.push(Member { pid, proven });
            }
        }
        Some(found)
    }

    /// Whether a process has the file open that the command locks.
    pub(crate) fn has_lock_file(&self, pid: Pid) -> bool {
        let Some(inode) = self.lock_inode else { return false };
        let is_called_so = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            let anchor = name.and_then(|name| name.strip_suffix(command_lock::SUFFIX));
            anchor.is_some_and(|name| anchor::parse_name(name).is_some())
        };
        let is_it = |file: &OpenedFile| {
            let key = || file.key().ok().flatten();
            is_called_so(&file.path) && key().is_some_and(|key| key.inode == inode)
        };
        sys::files_opened_by(pid).is_some_and(|files| files.iter().any(is_it))
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
        let owners: Vec<Pid> = found.extract_if(.., |pid| is_owner(*pid)).collect();
        let below_owners: Vec<Pid> = owners.iter().flat_map(|pid| sys::descendants(*pid)).collect();
        found.retain(|pid| !below_owners.contains(pid));
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
        let Some(Members { members, .. }) = kin.members(look) else { return Family::NotSeen };
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
    let Some(Members { members, .. }) = kin.members(&look) else { return Family::NotSeen };
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

/// What one look has seen of a family.
#[derive(Debug, Default)]
struct Members {
    members: Vec<Member>,
    /// Those in the session that had ended, or did meanwhile.
    ended: Vec<Pid>,
}

#[derive(Debug)]
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

/// Whether the environment that a process was started with names this run.
fn carries(pid: Pid, instance: InstanceId) -> bool {
    let of_this_run = format!("{}={instance}", environment::INSTANCE);
    sys::environment_of(pid).is_some_and(|words| words.contains(&of_this_run))
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
