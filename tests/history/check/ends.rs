//! Every incarnation has an end that fits what ended it.
//!
//! The log knows what was done to each; the history says why it ended. Each reason needs its ground
//! in the log. Some never fit: nothing here restarts the machine, and a lease ends a lock, never an
//! incarnation.

use crate::log::{Answer, Call, Death, EndedRow, Hurt, Ns, Pid, Thing, What};

use super::facts::Facts;
use super::lives::{Kind, Life, Lives};
use super::{Allowance, Court, Rule};

/// Signals by which a process ends through a fault of its own: ILL, TRAP, ABRT, BUS, FPE, SEGV,
/// XCPU, XFSZ, SYS.
const FAULTS: [i32; 9] = [4, 5, 6, 7, 8, 11, 24, 25, 31];

const KILL: i32 = 9;

/// What the log knows of an end.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one thing that may have happened")]
struct Grounds {
    /// The owner gave it back, or tried.
    released: bool,
    /// And was told that it is free.
    was_free: bool,
    stop_asked: bool,
    replaced: bool,
    evicted: bool,
    handed_over: bool,
    executed: bool,
    store_lost: bool,
    wal_lost: bool,
    /// A process of the row was killed by SIGKILL, or may have been.
    killed: bool,
    /// Its `run`, or the process itself, was.
    owner_killed: bool,
    signalled: bool,
    faulted: bool,
    panicked: bool,
    exited: bool,
    /// Somebody saw one of its processes end.
    seen_to_end: bool,
    is_run: bool,
    /// Something of it may have ended at all.
    may_have_died: bool,
}

pub fn check(court: &mut Court<'_, '_>) {
    let (facts, lives) = (court.facts, court.lives);
    for (line, record) in facts.records.iter().enumerate() {
        let What::Final(last) = &record.what else { continue };
        for row in &last.history {
            let Some(life) = lives.life(row.incarnation) else { continue };
            let grounds = Grounds::of(facts, lives, row, life, &last.store);
            match fits(&row.reason, grounds) {
                Fit::Well => {}
                Fit::By(allowance) => court.allow(allowance),
                Fit::Not(why) => {
                    let what = format!(
                        "incarnation {} ended as `{}` in the history, but {why}",
                        row.incarnation, row.reason
                    );
                    let own = lives.by(row.incarnation).next();
                    let granted: &[usize] = own.map_or(&[], |it| it.lines.as_slice());
                    let seen = deaths(facts, life);
                    let deaths: Vec<usize> = seen.into_iter().map(|(_, line)| line).collect();
                    court.object(Rule::EndsFit, what, &[granted, &deaths, &[line]]);
                }
            }
        }
    }
}

enum Fit {
    Well,
    By(Allowance),
    Not(&'static str),
}

/// Whether the reason has its ground.
fn fits(reason: &str, it: Grounds) -> Fit {
    let need = |ground: bool, why| if ground { Fit::Well } else { Fit::Not(why) };
    match reason {
        "released" if it.owner_killed && !it.released => {
            Fit::Not("its process was killed by SIGKILL, and it never gave it back")
        }
        "exited" if it.is_run && it.owner_killed && !it.exited => {
            Fit::Not("its `run` was killed by SIGKILL, and nobody saw its command exit")
        }
        "released" | "exited" => Fit::Well,
        "planned_stop" => need(it.stop_asked, "nobody asked it to stop"),
        "taken_over" => need(it.replaced, "nobody asked to replace it"),
        "evicted" => need(it.evicted, "nobody evicted it"),
        "re_executed" => need(it.executed, "it executed nothing"),
        "handed_over" => need(it.handed_over, "it handed nothing over"),
        "store_replaced" if it.wal_lost => Fit::By(Allowance::LostWithTheWal),
        "store_replaced" => need(it.store_lost, "its store was there all the time"),
        "panicked" => need(it.panicked || !it.seen_to_end, "nothing made it panic"),
        "crashed" => need(it.faulted || !it.seen_to_end, "no fault of its own ended it"),
        "oom_suspected" => need(it.killed || !it.seen_to_end, "nobody killed it"),
        "signalled" => need(
            it.signalled || it.stop_asked || it.replaced || !it.seen_to_end,
            "nobody sent it a signal, and it exited by itself",
        ),
        "anchor_released" | "no_such_process" | "zombie" | "pid_reused" => dead(it),
        "rebooted" => Fit::Not("the machine was not restarted"),
        "lease_expired" => Fit::Not("a lease ends a lock, not an incarnation"),
        "identity_mismatch" => Fit::Not("its command line was never all that is known of it"),
        _ => Fit::Not("no end has this reason"),
    }
}

/// The next claimant found it dead.
fn dead(it: Grounds) -> Fit {
    if it.was_free {
        if it.wal_lost || it.store_lost {
            return Fit::By(Allowance::ReleaseLostWithTheWal);
        }
        return Fit::Not("it had given it back, and was told that it is free");
    }
    if it.may_have_died { Fit::Well } else { Fit::Not("nothing of it had ended") }
}

impl Grounds {
    fn of(
        facts: &Facts<'_>,
        lives: &Lives<'_>,
        row: &EndedRow,
        life: &Life<'_>,
        store: &str,
    ) -> Self {
        let mut it = Self { is_run: life.kind == Kind::Run, ..Self::default() };
        it.by_its_own(facts, row);
        let things: Vec<&Thing> = lives.by(row.incarnation).map(|it| it.thing).collect();
        for call in things.iter().flat_map(|thing| facts.calls_about(thing)) {
            if call.until < life.born {
                continue;
            }
            match call.call {
                Call::Stop { .. } => it.stop_asked = true,
                Call::Claim { replace: true, .. }
                | Call::Run { replace: true, .. }
                | Call::Acquire { replace: true, .. } => it.replaced = true,
                Call::Evict { .. } | Call::Acquire { evict_stopped: true, .. } => {
                    it.evicted = true;
                }
                _ => {}
            }
        }
        it.store_lost = facts.loss(store, life.born, Ns::MAX).is_some();
        it.wal_lost = facts.wal_lost(store, life.born, Ns::MAX);
        for pid in life.owners.union(&life.commands) {
            it.by_hurts(facts, *pid, life);
        }
        for (how, _) in deaths(facts, life) {
            it.seen_to_end = true;
            match how {
                Death::Exit { code } => {
                    it.exited = true;
                    // 101: a panic; 134, 139: what a shell says of a signal.
                    it.panicked |= code == 101;
                    it.signalled |= code >= 128;
                    it.faulted |= FAULTS.contains(&(code - 128));
                }
                Death::Signal { signal } => {
                    it.signalled = true;
                    it.killed |= signal == KILL;
                    it.faulted |= FAULTS.contains(&signal);
                    // SIGABRT: a panic within a panic, or one that may not unwind.
                    it.panicked |= signal == 6;
                }
                Death::Gone => it.seen_to_end = false,
            }
        }
        // A command that gave its witness file back exited in order.
        it.exited |= facts.stays_of(row.incarnation).any(|stay| stay.lines.len() > 1);
        it.may_have_died = it.seen_to_end
            || it.killed
            || it.signalled
            || it.executed
            || it.handed_over
            || it.released
            || it.store_lost
            // Nobody could see it end.
            || life.owners.is_empty()
            || life.owners.iter().any(|pid| facts.died(*pid, life.born).is_none());
        it
    }

    fn by_its_own(&mut self, facts: &Facts<'_>, row: &EndedRow) {
        for call in facts.calls_of(row.incarnation) {
            match call.call {
                Call::Release { thing, .. } if thing.is_office() || row.thing.is_none() => {
                    self.released = true;
                    self.was_free |= call.answer() == Some(&Answer::Yes) && thing.is_office();
                }
                Call::HandOver { exec, .. } => {
                    self.handed_over |= !exec;
                    self.executed |= exec;
                }
                Call::ReExec { .. } => self.executed = true,
                Call::MarkerWrite { name, .. } => {
                    self.stop_asked |= name == "planned_stop";
                    self.replaced |= name == "takeover";
                }
                _ => {}
            }
        }
    }

    fn by_hurts(&mut self, facts: &Facts<'_>, pid: Pid, life: &Life<'_>) {
        for hurt in facts.hurts(pid, life.born, Ns::MAX) {
            match hurt.hurt {
                Hurt::Signal { signal, .. } => {
                    self.signalled |= hurt.hurt.may_end();
                    self.killed |= *signal == KILL;
                    self.owner_killed |= *signal == KILL && life.owners.contains(&pid);
                    self.faulted |= FAULTS.contains(signal);
                }
                Hurt::Mischief { how, .. } => self.panicked |= how.contains("panic"),
                _ => {}
            }
        }
    }
}

/// How its processes ended, and where the log says so.
fn deaths(facts: &Facts<'_>, life: &Life<'_>) -> Vec<(Death, usize)> {
    let pids = life.owners.union(&life.commands);
    let gone = pids.filter_map(|pid| facts.died(*pid, life.born));
    gone.map(|gone| (gone.how, gone.line)).collect()
}
