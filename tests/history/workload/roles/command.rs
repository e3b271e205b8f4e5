//! The command of a `run`: it is the witness of what the run was granted.
//!
//! What leaves the session of a command is not of its family any more: a daemon that it starts is
//! no witness. What is behind a script is of the family: it stays where the run was killed, and
//! whoever claims next has to end it first. Where the script alone has ended, the run lives and
//! lets the office go; so it gives up then.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use fastrand::Rng;

use super::{COMMAND, TICK, heed_signals, in_ms, new_word};
use crate::log::{Answer, Call, Thing};
use crate::support::{Stat, is_running};
use crate::workload::caller::Caller;
use crate::workload::draw::{chance, one_of};
use crate::workload::reaper::Reaper;
use crate::workload::witness::{Witness, keep_through_exec};
use crate::workload::world::{Part, World};

pub const PLAIN: &str = "plain";
/// It uses verbs, which act for its run.
const TALKS: &str = "talks";
pub const OF_ANOTHER_USER: &str = "of another user";
pub const BEHIND_A_SCRIPT: &str = "behind a script";
const RE_EXECUTES: &str = "re-executes";
/// It leaves a process outside its session.
const DAEMONISES: &str = "daemonises";
/// It does not end when it is asked to.
const HANGS: &str = "hangs";
/// It ends at once.
const SHORT: &str = "short";

pub const CONDUCTS: [&str; 8] =
    [PLAIN, TALKS, OF_ANOTHER_USER, BEHIND_A_SCRIPT, RE_EXECUTES, DAEMONISES, HANGS, SHORT];

/// It ends by itself then, also where nobody is left to end it.
const HANGS_FOR_MS: u64 = 20_000;

pub fn play() -> i32 {
    let (part, world) = (Part::inherited(), Arc::new(World::of_run()));
    let asked = heed_signals();
    let incarnation =
        std::env::var("INCUMBENT_INSTANCE").ok().and_then(|text| text.parse::<i64>().ok());
    let take: fn(&World, &Thing, Option<i64>, Option<u64>) -> Witness =
        if part.goes_on { Witness::resume } else { Witness::take };
    let mut witnesses: Vec<Witness> =
        part.things.iter().map(|thing| take(&world, thing, incarnation, part.op)).collect();
    world.i_live("command", incarnation);

    let mut rng = Rng::with_seed(part.seed);
    let parents = Parents::look(&part);
    let life_ms = match part.conduct.as_str() {
        HANGS => HANGS_FOR_MS,
        SHORT => 0,
        _ => part.life_ms,
    };
    if part.conduct == DAEMONISES {
        daemonise(&mut rng);
    }
    if part.conduct == TALKS
        && let Some(incarnation) = incarnation
    {
        talk(&world, &mut rng, &part, incarnation);
    }
    let (until, halfway) = (in_ms(life_ms), in_ms(life_ms / 2));
    let mut executes = part.conduct == RE_EXECUTES;
    while Instant::now() < until && !parents.script_has_ended() {
        if asked.load(Ordering::Relaxed) && part.conduct != HANGS {
            break;
        }
        for witness in &mut witnesses {
            witness.try_on(&world);
        }
        if executes && Instant::now() >= halfway {
            executes = false;
            execute_again(&world, &part);
        }
        std::thread::sleep(TICK);
    }
    for witness in witnesses {
        witness.out(&world);
    }
    *one_of(&mut rng, &[0, 0, 0, 1, 7])
}

/// Who started us, where that is a script.
struct Parents {
    /// The script, and its run.
    script_and_run: Option<(u32, u32)>,
}

impl Parents {
    fn look(part: &Part) -> Self {
        let parent = || Stat::of(std::process::id()).map(|stat| stat.parent);
        let script_and_run = (part.conduct == BEHIND_A_SCRIPT)
            .then(|| parent().and_then(|script| Some((script, Stat::of(script)?.parent))))
            .flatten();
        Self { script_and_run }
    }

    /// It has, and the run has not: that ended the run's command, and it releases what it holds.
    fn script_has_ended(&self) -> bool {
        self.script_and_run.is_some_and(|(script, run)| !is_running(script) && is_running(run))
    }
}

/// Starts somebody who goes on outside the session, and outlives us.
fn daemonise(rng: &mut Rng) {
    let seconds = format!("0.{}", rng.u32(1..=9));
    let mut daemon = Command::new("setsid");
    daemon.args(["-f", "sleep", &seconds]);
    let _ = daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// The same program with the same pid. Returns where that failed.
fn execute_again(world: &World, part: &Part) {
    keep_through_exec();
    let words = world.words_of_this_program();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let life_ms = part.life_ms / 2;
    let again = Part { goes_on: true, conduct: PLAIN.to_owned(), life_ms, ..part.clone() };
    again.give(&mut command, COMMAND);
    let _ = command.exec();
}

/// Verbs in a run act for it.
fn talk(world: &Arc<World>, rng: &mut Rng, part: &Part, incarnation: i64) {
    let reaper = Reaper::start(Arc::clone(world));
    let caller = Caller { world, reaper: &reaper };
    let Some(office) = part.things.first() else { return };
    let state = new_word(rng);
    let say = Call::Say { thing: office.clone(), incarnation, word: state.clone() };
    caller.ask(say, office, &["status-set", "--state", &state]);
    let peek = Call::MarkerPeek { name: None, me: incarnation };
    let peeked = caller.ask(peek, office, &["marker", "peek"]);
    if let Some(Answer::Marker { name, token: Some(_), .. }) = peeked.answer {
        let consume = Call::MarkerConsume { name: Some(name.clone()), me: incarnation };
        caller.ask(consume, office, &["marker", "consume", &name]);
    }
    for lock in &part.things[1..] {
        if let (Thing::Lock { scope, identity, .. }, true) = (lock, chance(rng, 2)) {
            let verify = Call::Verify { thing: lock.clone(), incarnation };
            caller.ask(verify, lock, &["lock", "verify", scope, identity]);
        }
    }
}
