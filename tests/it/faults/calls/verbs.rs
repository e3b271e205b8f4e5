//! The verbs that are asked, and what each may change.

use super::strace::Asked;
use super::world::{Owner, State, World};

/// What a verb may do to a living owner. None of them makes a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    Nothing,
    /// It wants what the owner has: the command of a killed `run` is ended first.
    Claim,
    EndLock,
    EndRecord,
    EndOwner,
}

impl May {
    pub fn lead_to(self, state: State, owner: Owner) -> bool {
        match state {
            State::Same => true,
            State::LockGone => matches!(self, Self::EndLock),
            State::RecordGone => matches!(self, Self::EndRecord),
            State::OwnerGone => match self {
                Self::EndOwner => true,
                Self::Claim => owner == Owner::RunKilled,
                // A `run` that has lost something ends its command.
                Self::EndLock | Self::EndRecord => owner == Owner::Run,
                Self::Nothing => false,
            },
        }
    }
}

/// Arguments, what it may do, and its exit code without a fault for each [`Owner::place`] (-1: is
/// not tried). `OWNER` is the pid on record, `OTHER` another one, `ALONE` a command that tells two
/// owners at once, and `WITHIN` lets it run as a part of the command of a `run`.
pub type Verb = (&'static str, May, [i32; 4]);

/// Says that the owner lives beside the command.
pub const TWO_AT_ONCE: i32 = 9;

pub const ALONE: &str = "ALONE";
pub const WITHIN: &str = "WITHIN";

pub const VERBS: &[Verb] = &[
    ("status", May::Nothing, [0; 4]),
    ("status --all", May::Nothing, [0; 4]),
    ("status --metrics", May::Nothing, [0; 4]),
    ("locks", May::Nothing, [0; 4]),
    ("history", May::Nothing, [0; 4]),
    ("events", May::Nothing, [0; 4]),
    ("doctor", May::Nothing, [0; 4]),
    ("doctor --fix --dry-run", May::Nothing, [0; 4]),
    ("doctor --fix", May::Nothing, [0; 4]),
    ("desired", May::Nothing, [0; 4]),
    ("desired running", May::Nothing, [0; 4]),
    ("export out", May::Nothing, [0; 4]),
    ("forensics snapshot", May::Nothing, [0; 4]),
    ("marker peek --pid OWNER", May::Nothing, [1; 4]),
    ("marker write word --pid OWNER", May::Nothing, [0, 0, -1, 0]),
    ("marker consume other-word --pid OWNER", May::Nothing, [1; 4]),
    ("marker clear other-word --pid OWNER", May::Nothing, [1; 4]),
    ("status-set --pid OWNER --state running", May::Nothing, [1, 1, 1, 0]),
    ("claim --pid OWNER", May::Nothing, [75, 75, -1, 0]),
    ("claim --pid OTHER", May::Claim, [75, 75, 0, 75]),
    ("claim --pid OTHER --no-keeper", May::Claim, [75, 75, 0, 75]),
    ("run --no-backoff -- ALONE", May::Claim, [75, 75, 0, 75]),
    ("run --no-backoff --wait=50ms -- ALONE", May::Claim, [75, 75, 0, 75]),
    ("--profile p run --no-backoff --lock k=k -- ALONE", May::Claim, [75, 75, 0, 75]),
    ("run --no-backoff --replace --stop-budget 5s -- ALONE", May::EndOwner, [0; 4]),
    ("lock acquire k k --pid OWNER", May::Nothing, [75, 75, -1, 0]),
    ("lock acquire k k --pid OTHER", May::Claim, [75, 75, 0, 75]),
    ("lock acquire k k --pid OTHER --no-keeper", May::Claim, [75, 75, 0, 75]),
    ("lock acquire k k --pid OTHER --wait=50ms", May::Claim, [75, 75, 0, 75]),
    ("lock renew k k --pid OWNER", May::Nothing, [1, 1, 1, 0]),
    ("lock verify k k --pid OWNER", May::Nothing, [1, 1, 1, 0]),
    ("lock verify k k --pid OTHER", May::Nothing, [1; 4]),
    ("lock release k k --pid OTHER", May::Nothing, [1; 4]),
    ("lock release k k --pid OWNER", May::EndLock, [1, 1, 1, 0]),
    ("lock release --all --pid OWNER", May::EndLock, [0; 4]),
    ("unlock k k", May::Nothing, [75; 4]),
    ("unlock --stale", May::Nothing, [0; 4]),
    ("unlock k k --force", May::EndLock, [0; 4]),
    ("release --pid OTHER", May::Nothing, [1; 4]),
    ("release --pid OWNER", May::EndRecord, [1, 1, 1, 0]),
    ("evict", May::Nothing, [75; 4]),
    ("evict --force", May::EndRecord, [0; 4]),
    ("stop --timeout 10s", May::EndOwner, [0; 4]),
    ("stop --timeout 1s --force", May::EndOwner, [0; 4]),
    ("restart --timeout 10s", May::EndOwner, [-1, 0, -1, -1]),
    ("WITHIN status", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN claim", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN release", May::Nothing, [-1, 1, 1, -1]),
    ("WITHIN status-set --heartbeat", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN marker peek", May::Nothing, [-1, 1, 1, -1]),
    ("WITHIN lock acquire k k", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN lock acquire other other", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN lock verify k k", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN lock renew k k", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN lock release k k", May::EndLock, [-1, 0, 0, -1]),
    ("WITHIN run --no-backoff -- ALONE", May::Claim, [-1, 75, 0, -1]),
];

/// What is asked of the program in this world.
pub fn asked(verb: &str, world: &World) -> Asked {
    // Whom nobody has collected is dead, and has a pid.
    let alone = format!(
        "read -r stat 2>/dev/null </proc/{}/stat || exit 0
         case \"$stat\" in *') Z '*) ;; *) exit {TWO_AT_ONCE} ;; esac",
        world.living.pid
    );
    let mut arguments = Vec::new();
    if !verb.contains("--metrics") {
        arguments.push("--json".to_owned());
    }
    for word in verb.split(' ') {
        match word {
            "OWNER" => arguments.push(world.owner_pid.to_string()),
            WITHIN => {}
            "OTHER" => arguments.push(world.other.pid().to_string()),
            ALONE => arguments.extend(["/bin/sh".to_owned(), "-c".to_owned(), alone.clone()]),
            other => arguments.push(other.to_owned()),
        }
    }
    let is_within = verb.starts_with(WITHIN);
    let environment = if is_within { of_run(world.living.pid) } else { Vec::new() };
    Asked { arguments, environment }
}

/// What a `run` tells its command.
fn of_run(command: u32) -> Vec<(String, String)> {
    let environ = std::fs::read(format!("/proc/{command}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&environ)
        .split('\0')
        .filter(|pair| pair.starts_with("INCUMBENT_"))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
