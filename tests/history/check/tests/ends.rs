//! Ends that fit, what is on record at the end, and what is held then.

use super::{accepts, accepts_by, rejects};
use crate::check::scene::{Owner, Scene, thing};
use crate::check::{Allowance, Rule};
use crate::log::{Answer, Call, Death, Hurt};

/// An owner that does as it is told, and its row in the history.
fn ends(reason: &str, how: impl FnOnce(&mut Scene, Owner)) -> Scene {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    how(scene.at(100), owner);
    scene.at(500).ended(owner, reason);
    scene
}

fn killed(scene: &mut Scene, owner: Owner) {
    scene.kill(owner.pid);
}

fn released(scene: &mut Scene, owner: Owner) {
    scene.release(owner);
    scene.at(200).died(owner.pid, Death::Exit { code: 0 });
}

#[test]
fn who_gave_it_back_is_released() {
    accepts(&ends("released", released));
    rejects(&ends("released", killed), Rule::EndsFit, "was killed by SIGKILL");
}

#[test]
fn who_was_killed_is_found_dead() {
    for reason in ["anchor_released", "no_such_process", "zombie", "pid_reused", "signalled"] {
        accepts(&ends(reason, killed));
    }
    rejects(&ends("anchor_released", released), Rule::EndsFit, "was told that it is free");
}

#[test]
fn a_release_may_go_with_the_wal() {
    let scene = ends("anchor_released", |scene, owner| {
        scene.fault(300, Hurt::WalLost { store: "main".to_owned() });
        released(scene, owner);
    });
    accepts_by(&scene, Allowance::ReleaseLostWithTheWal);
}

/// It gives it back, with this answer, claims again, and the first one ended for this reason.
fn claims_again(is_lost: bool, answer: Answer, reason: &str) -> Scene {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    if is_lost {
        scene.at(110).fault(110, Hurt::WalLost { store: "main".to_owned() });
    }
    let call = Call::Release { thing: thing("office"), incarnation: owner.incarnation };
    scene.at(200).ask(owner.pid, call, answer);
    let again = scene.at(300).claim("office", 10, 2);
    scene.at(400).release(again);
    scene.at(500).last(&[(owner, reason), (again, "released")], &[]);
    scene
}

/// What a process gave back in a store that it had lost, or could not write, it meets again.
#[test]
fn who_meets_itself_executed_nothing() {
    let full = || Answer::Error { kind: "cannot_write".to_owned(), text: "full".to_owned() };
    for (is_lost, answer) in [(true, Answer::No), (false, full()), (false, Answer::Yes)] {
        let scene = claims_again(is_lost, answer, "re_executed");
        rejects(&scene, Rule::EndsFit, "it executed nothing");
    }
    accepts_by(&claims_again(true, Answer::No, "store_replaced"), Allowance::LostWithTheWal);
    accepts(&claims_again(false, full(), "released"));
}

#[test]
fn a_lost_wal_is_a_store_that_was_replaced() {
    let lost = ends("store_replaced", |scene, owner| {
        scene.fault(110, Hurt::WalLost { store: "main".to_owned() });
        scene.at(120).lost(owner);
    });
    accepts_by(&lost, Allowance::LostWithTheWal);
}

#[test]
fn what_nobody_asked_for() {
    for (reason, why) in [
        ("planned_stop", "nobody asked it to stop"),
        ("taken_over", "nobody asked to replace it"),
        ("evicted", "nobody evicted it"),
        ("re_executed", "it executed nothing"),
        ("handed_over", "it handed nothing over"),
        ("store_replaced", "its store was there all the time"),
        ("rebooted", "the machine was not restarted"),
        ("lease_expired", "a lease ends a lock"),
    ] {
        rejects(&ends(reason, killed), Rule::EndsFit, why);
    }
}

#[test]
fn what_was_asked_for() {
    accepts(&ends("planned_stop", |scene, _| scene.stop("office")));
    accepts(&ends("evicted", |scene, _| scene.evict("office", true)));
    accepts(&ends("store_replaced", |scene, _| scene.store_lost(110)));
    accepts(&ends("handed_over", |scene, owner| {
        scene.hand_over(owner, false);
    }));
    accepts(&ends("re_executed", |scene, owner| {
        scene.hand_over(owner, true);
    }));
}

#[test]
fn what_ended_by_itself_was_not_signalled() {
    let exit =
        |code| move |scene: &mut Scene, owner: Owner| scene.died(owner.pid, Death::Exit { code });
    rejects(&ends("signalled", exit(0)), Rule::EndsFit, "exited by itself");
    rejects(&ends("crashed", exit(0)), Rule::EndsFit, "no fault of its own");
    rejects(&ends("oom_suspected", exit(0)), Rule::EndsFit, "nobody killed it");
    accepts(&ends("panicked", exit(101)));
    accepts(&ends("crashed", exit(139)));
}

/// A run with its command, which has ended; and its row in the history.
fn run_ends(reason: &str, is_killed: bool) -> Scene {
    let mut scene = Scene::new();
    let run = scene.at(0).run("office", 17);
    scene.at(10).witness_in(run, "office", 1);
    if is_killed {
        scene.at(100).kill(run.pid);
    } else {
        scene.at(100).witness_out(run, "office", 1);
        scene.at(110).exits(run, 0);
    }
    let owner = Owner { thing: "office", pid: run.pid, incarnation: 1 };
    scene.at(500).ended(owner, reason);
    scene
}

#[test]
fn the_command_of_a_killed_run_did_not_exit() {
    accepts(&run_ends("exited", false));
    accepts(&run_ends("no_such_process", true));
    rejects(&run_ends("exited", true), Rule::EndsFit, "its `run` was killed by SIGKILL");
}

#[test]
fn every_grant_is_on_record() {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(10).release(owner);
    scene.at(500).last(&[], &[]);
    rejects(&scene, Rule::Acknowledged, "at the end no row tells of it");
}

#[test]
fn but_for_those_that_a_store_forgot() {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(10).release(owner);
    scene.at(100).store_lost(110);
    scene.at(500).last(&[], &[]);
    accepts_by(&scene, Allowance::BackAgain);
}

#[test]
fn or_that_went_with_the_wal() {
    let went = |at: u64| {
        let mut scene = Scene::new();
        let owner = scene.at(100).claim("office", 10, 1);
        scene.at(110).release(owner);
        scene.at(at).fault(at, Hurt::WalLost { store: "main".to_owned() });
        scene.at(500).last(&[], &[]);
        scene
    };
    accepts_by(&went(200), Allowance::BackAgain);
    rejects(&went(50), Rule::Acknowledged, "at the end no row tells of it");
}

#[test]
fn the_history_keeps_200() {
    let owner = |incarnation| Owner { thing: "office", pid: 10, incarnation };
    let history = |count: i64| {
        let mut scene = Scene::new();
        let first = scene.at(0).claim("office", 10, 1);
        scene.at(10).release(first);
        let rows: Vec<_> = (2..2 + count).map(|it| (owner(it), "released")).collect();
        scene.at(500).last(&rows, &[]);
        scene
    };
    accepts_by(&history(200), Allowance::HistoryIsBounded);
    rejects(&history(199), Rule::Acknowledged, "incarnation 1 had been granted");
}

/// A row that is left at the end.
fn left(verdict: &str, namespace: Option<&str>) -> Scene {
    let mut scene = Scene::new();
    if let Some(name) = namespace {
        scene.inside(name);
    }
    let owner = scene.at(0).claim("office", 10, 1);
    scene.outside();
    scene.at(100).kill(10);
    scene.at(500).last(&[], &[(owner, verdict)]);
    scene
}

#[test]
fn nothing_is_held_by_the_dead() {
    accepts(&left("dead", None));
    accepts_by(&left("unknown", Some("pod")), Allowance::UnknownIsNeverDead);
    rejects(&left("unknown", None), Rule::NothingForTheDead, "of which nothing lives");
    rejects(&left("alive", Some("pod")), Rule::NothingForTheDead, "of which nothing lives");
}
