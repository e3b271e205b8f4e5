//! Ends a process and what it has started.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Deadline;
use crate::error::with_clear_sight;
use crate::process::descendants::{LEFT_OVER_ENDS_WITHIN, LeftOver, end_all};
use crate::process::reference::{ProcessRef, cannot_tell};
use crate::process::terminate::{AfterBudget, Asked, KILLED_WITHIN, Terminated, ask, kill, prove};
use crate::sys::{Looks, Pid, Proven, TableShows, Trust, Unproven};
use crate::{Result, sys};

/// While its first process has time to end, it may go on starting others. Looking costs a pass over
/// the process table, a few milliseconds on a large machine.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is started while we look is found by the next look; more looks than this mean something
/// that starts processes faster than it can be ended.
const LOOKS_MAX: usize = 8;

/// What [`terminate_tree`] came to. Later versions may say more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TerminatedTree {
    /// What became of the process that was named.
    pub root: Terminated,
    /// The pids of its descendants that have ended.
    pub ended: Vec<u32>,
    /// Its descendants that still run: their time was over, or they may not be signalled.
    pub left: Vec<LeftOver>,
    /// Whether all descendants could be looked for.
    pub looked_at: LookedAt,
}

/// Which processes were looked through for descendants. In JSON its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LookedAt {
    /// All of the pid namespace.
    All,
    /// Those of our own user: `/proc` hides the others (`hidepid`), or we are not root, and the
    /// system does not tell whose children they are (macOS, Windows). One that has become another
    /// user (sudo, su) is not found, and neither is what that one has started.
    OwnUserOnly,
    /// Not all: this process ran short of descriptors or memory after the first signal was sent.
    Partly,
}

impl LookedAt {
    /// `all`, `own_user_only` or `partly`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::OwnUserOnly => "own_user_only",
            Self::Partly => "partly",
        }
    }
}

/// Ends a process and its descendants: those that it has started, that these have started, and so
/// on.
///
/// 1. The named process alone gets SIGTERM. It has up to `budget` to end, and may end its
///    children in an order of its own.
/// 2. What is left of its descendants when it has ended gets SIGTERM, and what is left of `budget`,
///    at least 2 s, to end.
/// 3. With [`AfterBudget::Kill`], what has not ended in its time gets SIGKILL. With
///    [`AfterBudget::LetRun`] it goes on; a named process that goes on keeps its descendants.
///
/// It takes `budget` at most, and 5 s for what is killed; 7 s more where descendants outlive the
/// named process, and at most a minute where these go on starting others.
///
/// Each signal is proven as in [`terminate`](super::terminate()), and never reaches this process or
/// an ancestor of it. Two kinds of descendants are not found: those whose parent had ended before
/// the call (a daemon that has detached itself), and those that are started in the moment in which
/// their parent ends.
///
/// ```
/// use incumbent::process::{AfterBudget, ProcessRef, Terminated, terminate_tree};
/// use std::time::Duration;
///
/// # if cfg!(unix) {
/// # use std::io::Read;
/// # use std::process::{Command, Stdio};
/// let script = "sleep 60 > /dev/null & echo; wait";
/// let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn()?;
/// # shell.stdout.take().unwrap().read_exact(&mut [0])?;
/// let worker = ProcessRef::of(shell.id())?;
/// let tree = terminate_tree(&worker, Duration::from_secs(10), AfterBudget::Kill)?;
/// assert_eq!(tree.root, Terminated::Ended);
/// assert_eq!((tree.ended.len(), tree.left.len()), (1, 0), "the sleep");
/// shell.wait()?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`terminate`](super::terminate()). [`Unsupported`](crate::ErrorKind::Unsupported) also where
/// no process table can be read, so that no descendants can be looked for. Where the process itself
/// has ended before, nobody knows what it had started: [`Terminated::WasGone`], and nothing else.
pub fn terminate_tree(
    process: &ProcessRef,
    budget: Duration,
    after: AfterBudget,
) -> Result<TerminatedTree> {
    let what = || format!("look for what pid {} has started", process.pid());
    let looked_at = match with_clear_sight(what, || Ok(sys::table_shows()))? {
        TableShows::All => LookedAt::All,
        TableShows::OwnUserOnly => LookedAt::OwnUserOnly,
        TableShows::Nothing => {
            let pid = process.pid();
            return Err(cannot_tell(format!("cannot look for what pid {pid} has started")));
        }
    };
    let Some(root) = prove(process)? else {
        let (root, ended, left) = (Terminated::WasGone, Vec::new(), Vec::new());
        return Ok(TerminatedTree { root, ended, left, looked_at });
    };
    let mut tree = Tree { root, members: Vec::new(), can_ask: true };
    // Nothing is signalled before this look is clear.
    with_clear_sight(what, || {
        tree.look();
        Ok(())
    })?;
    let until = Deadline::after(budget);
    let looks = Looks::begin();
    let outcome = tree.end_root(until, after)?;
    if outcome != Terminated::StillRuns {
        tree.end_members(until, after);
    }
    let (ended, left) = tree.settled();
    let looked_at = if looks.shortage().is_some() { LookedAt::Partly } else { looked_at };
    Ok(TerminatedTree { root: outcome, ended, left, looked_at })
}

struct Tree {
    root: Proven,
    members: Vec<Member>,
    /// There is something that asks a process to end.
    can_ask: bool,
}

struct Member {
    described: LeftOver,
    proven: Result<Proven, Unproven>,
    was_told: bool,
}

impl Member {
    fn has_ended(&self) -> bool {
        match &self.proven {
            Ok(process) => process.has_ended(),
            Err(Unproven::Gone) => true,
            Err(_) => matches!(self.described.prove(&Trust::FULL), Err(Unproven::Gone)),
        }
    }
}

impl Tree {
    /// Adds what the root and the members that live have started since.
    fn look(&mut self) {
        let mut below = started_by(&self.root);
        let is_below = |below: &[LeftOver], member: &Member| {
            below.iter().any(|seen| seen.is_same(&member.described))
        };
        // Those whose parent has ended are not found from the root any more.
        for member in &self.members {
            if let Ok(process) = &member.proven
                && !is_below(&below, member)
            {
                below.extend(started_by(process));
            }
        }
        for described in below {
            if !self.members.iter().any(|member| member.described.is_same(&described)) {
                let proven = described.prove(&Trust::FULL);
                self.members.push(Member { described, proven, was_told: false });
            }
        }
    }

    fn end_root(&mut self, until: Deadline, after: AfterBudget) -> Result<Terminated> {
        match ask(&self.root, after)? {
            Asked::HadEnded => return Ok(Terminated::Ended),
            Asked::NotHere => {
                self.can_ask = false;
                return self.kill_root();
            }
            Asked::Yes => {}
        }
        loop {
            if self.root.wait_ended(until.remaining().min(LOOK_EVERY)) {
                return Ok(Terminated::Ended);
            }
            if until.has_passed() {
                break;
            }
            self.look();
        }
        match after {
            AfterBudget::LetRun => Ok(Terminated::StillRuns),
            AfterBudget::Kill => self.kill_root(),
        }
    }

    fn kill_root(&mut self) -> Result<Terminated> {
        self.look();
        kill(&self.root)
    }

    /// Ends what the root has left behind.
    fn end_members(&mut self, until: Deadline, after: AfterBudget) {
        for _ in 0..LOOKS_MAX {
            self.look();
            let mut next = Vec::new();
            for (at, member) in self.members.iter_mut().enumerate() {
                if !member.was_told && member.proven.is_ok() && !member.has_ended() {
                    member.was_told = true;
                    next.push(at);
                }
            }
            if next.is_empty() {
                return;
            }
            let within = until.remaining().max(LEFT_OVER_ENDS_WITHIN);
            if self.can_ask && end_all(&self.proven(&next), Proven::ask_to_end, within) {
                continue;
            }
            if after == AfterBudget::Kill {
                self.look();
                end_all(&self.proven(&next), Proven::kill, KILLED_WITHIN);
            }
        }
    }

    fn proven(&self, members: &[usize]) -> Vec<&Proven> {
        members.iter().filter_map(|at| self.members[*at].proven.as_ref().ok()).collect()
    }

    fn settled(self) -> (Vec<Pid>, Vec<LeftOver>) {
        let (ended, left): (Vec<Member>, Vec<Member>) =
            self.members.into_iter().partition(Member::has_ended);
        let ended = ended.into_iter().map(|member| member.described.pid).collect();
        (ended, left.into_iter().map(|member| member.described).collect())
    }
}

/// What a pinned process has started. Once it has ended, its pid may be another one's, whose
/// children these would be.
fn started_by(process: &Proven) -> Vec<LeftOver> {
    if process.has_ended() {
        return Vec::new();
    }
    let found = LeftOver::started_by(process.pid());
    if process.has_ended() { Vec::new() } else { found }
}
