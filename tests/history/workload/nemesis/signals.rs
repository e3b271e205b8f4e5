//! Signals to whoever is there: through a pidfd, so that nobody gets one that is meant for another.

use std::os::fd::OwnedFd;

use fastrand::Rng;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::faults::{hurting, number};
use crate::log::{Hurt, Phase, Pid, What};
use crate::workload::actors::Stage;
use crate::workload::draw::{millis, one_of};
use crate::workload::reaper::Sort;

/// Whom to hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    pub pid: Pid,
    pub sort: Option<Sort>,
}

/// Everybody who may be hurt: what the harness started, and who said that it lives.
fn victims(stage: &Stage) -> Vec<Victim> {
    let mut found: Vec<Victim> = stage
        .reaper
        .running()
        .into_iter()
        .filter(|(_, sort)| *sort != Sort::Tool)
        .map(|(pid, sort)| Victim { pid, sort: Some(sort) })
        .collect();
    for (pid, _, _) in stage.world.all_alive() {
        if !found.iter().any(|victim| victim.pid == pid) {
            found.push(Victim { pid, sort: None });
        }
    }
    found
}

pub fn any_victim(stage: &Stage, rng: &mut Rng) -> Option<Victim> {
    let victims = victims(stage);
    (!victims.is_empty()).then(|| *one_of(rng, &victims))
}

pub fn as_process(pid: Pid) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)
}

fn open(pid: Pid) -> Option<OwnedFd> {
    pidfd_open(as_process(pid)?, PidfdFlags::empty()).ok()
}

/// `None` where it has ended.
pub fn send(pid: Pid, signal: Signal) -> Option<()> {
    pidfd_send_signal(open(pid)?, signal).ok()
}

/// The process that the victim is: it has the pid now, and is one of ours still.
fn proven(stage: &Stage, victim: Victim) -> Option<OwnedFd> {
    let pidfd = open(victim.pid)?;
    victims(stage).contains(&victim).then_some(pidfd)
}

pub fn kill(stage: &Stage, rng: &mut Rng) {
    let Some(victim) = any_victim(stage, rng) else { return };
    let hurt = Hurt::Signal { pid: victim.pid, signal: libc::SIGKILL };
    let Some(pidfd) = proven(stage, victim) else { return };
    hurting(&stage.world, hurt, |fault| {
        stage.reaper.blame(victim.pid, fault);
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    });
}

/// As a stranger asks, or a supervisor.
pub fn ask_to_end(stage: &Stage, rng: &mut Rng) {
    let Some(victim) = any_victim(stage, rng) else { return };
    // Who waits for its child at the end of a namespace passes nothing on.
    if victim.sort == Some(Sort::Container) {
        return;
    }
    let signal = *one_of(rng, &[Signal::TERM, Signal::TERM, Signal::INT, Signal::HUP]);
    let hurt = Hurt::Signal { pid: victim.pid, signal: signal.as_raw() };
    let Some(pidfd) = proven(stage, victim) else { return };
    hurting(&stage.world, hurt, |fault| {
        stage.reaper.blame(victim.pid, fault);
        let _ = pidfd_send_signal(&pidfd, signal);
    });
}

/// Some stand still for a while.
pub fn stop(stage: &Stage, rng: &mut Rng) {
    let mut stopped = Stopped { stage, fault: number(), pids: Vec::new(), pidfds: Vec::new() };
    for _ in 0..rng.u32(1..4) {
        let Some(victim) = any_victim(stage, rng) else { break };
        if stopped.pids.contains(&victim.pid) {
            continue;
        }
        if let Some(pidfd) = proven(stage, victim) {
            stopped.pids.push(victim.pid);
            stopped.pidfds.push(pidfd);
        }
    }
    if stopped.pids.is_empty() {
        return;
    }
    stopped.say(Phase::Begin);
    for pidfd in &stopped.pidfds {
        let _ = pidfd_send_signal(pidfd, Signal::STOP);
    }
    std::thread::sleep(millis(rng, 50, 2_000));
}

/// They go on when this is dropped, whatever happened meanwhile.
struct Stopped<'a> {
    stage: &'a Stage,
    fault: u64,
    pids: Vec<Pid>,
    pidfds: Vec<OwnedFd>,
}

impl Stopped<'_> {
    fn say(&self, phase: Phase) {
        let hurt = Hurt::Stop { pids: self.pids.clone() };
        self.stage.world.log.say(What::Fault { fault: self.fault, phase, hurt });
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if self.pids.is_empty() {
            return;
        }
        for pidfd in &self.pidfds {
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
        self.say(Phase::End);
    }
}
