//! Answers that were true at some instant of their call, and words that are shown.

use super::{accepts, accepts_by, rejects};
use crate::check::scene::{Owner, Scene, acquire, claim, granted, held, thing, verify};
use crate::check::{Allowance, Rule};
use crate::log::{Answer, Call, Death, Hurt, Step, Wait};

#[test]
fn held_by_who_gave_it_back() {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(100).release(owner);
    scene.at(200).verified(owner);
    rejects(&scene, Rule::HeldIsTrue, "holds office/gateway, 0.100 s after it had ended");
}

/// Two threads of one process ask for one lock; the second gets it when the first gave it back.
#[test]
fn held_by_another_thread_of_who_gave_it_back() {
    let wait = Wait::AtMost { ms: 1000 };
    let mut scene = Scene::new();
    let (first, second) = {
        let first = scene.at(0).begin(10, acquire("lock", wait, None, None));
        (first, scene.at(1).begin(10, acquire("lock", wait, None, None)))
    };
    scene.at(10).end(10, first, granted(1, 1, None));
    let owner = Owner { thing: "lock", pid: 10, incarnation: 1 };
    scene.witness(10, Some(first), "lock", 1, Step::In);
    scene.at(50).witness(10, Some(first), "lock", 1, Step::Out);
    scene.release(owner);
    scene.at(60).end(10, second, granted(1, 2, None));
    scene.witness(10, Some(second), "lock", 1, Step::In);
    scene.at(70).verified(owner);
    accepts(&scene);
    scene.at(80).witness(10, Some(second), "lock", 1, Step::Out);
    scene.release(owner);
    scene.at(90).verified(owner);
    rejects(&scene, Rule::HeldIsTrue, "holds lock lock=one, 0.010 s after it had ended");
}

#[test]
fn held_at_some_instant_of_the_call() {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    let asked = scene.at(90).begin(10, verify(owner));
    scene.at(100).release(owner);
    scene.at(110).end(10, asked, Answer::Yes);
    accepts(&scene);
}

#[test]
fn held_by_who_was_evicted() {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(50).evict("office", true);
    scene.at(60).verified(owner);
    rejects(&scene, Rule::HeldIsTrue, "after it had ended");
}

/// The first is evicted without a word, in a store that is in its place all the time.
#[test]
fn held_while_another_one_surely_has_it() {
    let mut scene = Scene::new();
    let first = scene.at(0).claim("office", 10, 1);
    scene.at(50).stop("office");
    let second = scene.at(60).claim("office", 11, 2);
    scene.at(70).verified(first);
    scene.at(80).words(second, "here");
    rejects(&scene, Rule::HeldIsTrue, "while incarnation 2 surely had it");
}

#[test]
fn lost_with_and_without_a_reason() {
    let mut scene = Scene::new();
    let first = scene.at(0).claim("office", 10, 1);
    scene.at(50).evict("office", true);
    scene.at(60).lost(first);
    accepts(&scene);
    let second = scene.at(100).claim("office", 11, 2);
    scene.at(150).lost(second);
    rejects(&scene, Rule::NoIsTrue, "incarnation 2 was told that it has lost office/gateway");
}

#[test]
fn refused_because_somebody_has_it() {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(50).meets("office", 1);
    scene.at(51).runs("office", 1, None);
    scene.at(100).release(owner);
    accepts(&scene);
    scene.at(300).meets("office", 1);
    rejects(&scene, Rule::NoIsTrue, "incarnation 1 had been gone for 0.200 s");
}

#[test]
fn refused_because_of_the_dead() {
    let mut scene = Scene::new();
    scene.at(0).claim("office", 10, 1);
    scene.at(50).died(10, Death::Exit { code: 0 });
    scene.at(100).meets("office", 1);
    rejects(&scene, Rule::NoIsTrue, "incarnation 1 had been gone for 0.050 s");
}

#[test]
fn running_though_it_had_died() {
    let mut scene = Scene::new();
    scene.at(0).claim("office", 10, 1);
    scene.at(50).kill(10);
    scene.at(100).runs("office", 1, None);
    rejects(&scene, Rule::NoIsTrue, "was told that it runs");
}

#[test]
fn refused_because_of_somebody_unknown() {
    let mut scene = Scene::new();
    scene.at(50).meets("office", 9);
    rejects(&scene, Rule::NoIsTrue, "nobody had been granted it");
    // A call that was killed may have got it.
    scene.at(10).begin(10, claim("office"));
    accepts(&scene);
}

#[test]
fn a_lock_is_refused_with_its_office() {
    let mut scene = Scene::new();
    scene.at(0).claim("lock", 10, 1);
    let call = Call::Claim {
        thing: thing("office"),
        locks: vec![thing("lock")],
        wait: Wait::Once,
        replace: false,
        pid: None,
    };
    scene.at(50).ask(11, call, held(1));
    accepts(&scene);
}

#[test]
fn unknown_is_never_dead() {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(10).release(owner);
    let answer = Answer::Held {
        by: Some(1),
        verdict: "unknown".to_owned(),
        reason: "anchor_held".to_owned(),
    };
    scene.at(50).ask(11, claim("office"), answer);
    accepts_by(&scene, Allowance::UnknownIsNeverDead);
}

#[test]
fn not_running_while_it_runs() {
    let mut scene = Scene::new();
    scene.at(0).status("office");
    let owner = scene.at(10).claim("office", 10, 1);
    scene.at(100).release(owner);
    scene.at(110).status("office");
    accepts(&scene);
    scene.at(50).status("office");
    scene.at(60).words(owner, "here");
    rejects(&scene, Rule::NoIsTrue, "does not run, while incarnation 1 surely had it");
}

/// Dead, and a forked child of its holds its lock; somebody asks.
fn leaked(namespace: Option<&str>) -> Scene {
    let mut scene = Scene::new();
    scene.at(0).claim("office", 10, 1);
    scene.at(10).fault(10, Hurt::Mischief { pid: Some(10), how: "fork".to_owned() });
    scene.at(20).died(10, Death::Signal { signal: 9 });
    if let Some(name) = namespace {
        scene.inside(name);
    }
    scene.at(100).meets("office", 1);
    scene
}

#[test]
fn only_from_elsewhere_a_leaked_lock_is_a_life() {
    accepts_by(&leaked(Some("pod")), Allowance::LeakedElsewhere);
    rejects(&leaked(None), Rule::NoIsTrue, "incarnation 1 had been gone");
}

#[test]
fn a_restored_store_has_a_row_again() {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(10).release(owner);
    scene.at(20).store_lost(30);
    scene.at(50).meets("office", 1);
    scene.at(60).verified(owner);
    accepts_by(&scene, Allowance::BackAgain);
}

/// An office and a lock of one call, or of two; the lock alone is taken.
fn lost_with_its_lock(is_one_call: bool, reason: &str) -> Scene {
    let mut scene = Scene::new();
    let (office, lock) = (thing("office"), thing("lock"));
    let wait = Wait::Once;
    let locks = if is_one_call { vec![lock.clone()] } else { Vec::new() };
    let fences = locks.iter().map(|lock| (lock.clone(), 2)).collect();
    let call = Call::Claim { thing: office, locks, wait, replace: false, pid: None };
    let answer = Answer::Granted {
        incarnation: 1,
        fence: 1,
        reacquired: false,
        heir_of: None,
        locks: fences,
    };
    scene.at(0).ask(10, call, answer);
    if !is_one_call {
        scene.at(10).granted("lock", 10, 1, 2, None);
    }
    scene.at(50).evict("lock", true);
    let owner = Owner { thing: "office", pid: 10, incarnation: 1 };
    let reason = Some(reason.to_owned());
    scene.at(60).ask(10, verify(owner), Answer::Lost { reason });
    scene
}

#[test]
fn an_office_is_lost_with_a_lock_of_the_same_claim() {
    accepts(&lost_with_its_lock(true, "evicted"));
    let words = "has lost office/gateway";
    rejects(&lost_with_its_lock(false, "evicted"), Rule::NoIsTrue, words);
    rejects(&lost_with_its_lock(true, "store_replaced"), Rule::NoIsTrue, words);
}

/// The -wal is deleted then, and an owner is told later that it has lost it, for that reason.
fn lost_with_the_wal(at: u64, reason: Option<&str>) -> Scene {
    let mut scene = Scene::new();
    let owner = scene.at(100).claim("office", 10, 1);
    scene.at(at).fault(at, Hurt::WalLost { store: "main".to_owned() });
    let reason = reason.map(str::to_owned);
    scene.at(200).ask(10, verify(owner), Answer::Lost { reason });
    scene
}

#[test]
fn an_owner_whose_wal_was_deleted_is_told_that_its_store_was_replaced() {
    let why = Some("store_replaced");
    accepts_by(&lost_with_the_wal(150, why), Allowance::LostWithTheWal);
    rejects(&lost_with_the_wal(50, why), Rule::NoIsTrue, "has lost office/gateway");
    rejects(&lost_with_the_wal(150, Some("evicted")), Rule::NoIsTrue, "has lost office/gateway");
    // A verb.
    accepts_by(&lost_with_the_wal(150, None), Allowance::LostWithTheWal);
    rejects(&lost_with_the_wal(50, None), Rule::NoIsTrue, "has lost office/gateway");
}

/// An owner from before the loss, who meets others under a number that nobody knows.
fn met_as_another(ends: Option<Death>, is_lost: bool) -> Scene {
    let mut scene = Scene::new();
    scene.at(0).claim("office", 10, 1);
    if is_lost {
        scene.at(20).store_lost(30);
    }
    if let Some(how) = ends {
        scene.at(40).died(10, how);
    }
    scene.at(50).meets("office", 7);
    scene
}

#[test]
fn who_lost_the_store_is_met_under_a_new_number() {
    accepts_by(&met_as_another(None, true), Allowance::RegisteredAgain);
    rejects(&met_as_another(None, false), Rule::NoIsTrue, "nobody had been granted it");
    let dead = met_as_another(Some(Death::Exit { code: 0 }), true);
    rejects(&dead, Rule::NoIsTrue, "nobody had been granted it");
    // Nor one of before who had something else.
    let mut other = met_as_another(None, true);
    other.at(60).meets("lock", 7);
    rejects(&other, Rule::NoIsTrue, "who asked for lock lock=one was refused");
}

/// It says one word, then another; `status` shows one of them.
fn shown(word: Option<&str>) -> Scene {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(10).words(owner, "old");
    scene.at(20).words(owner, "new");
    scene.at(30).runs("office", 1, word);
    scene.at(40).verified(owner);
    scene
}

#[test]
fn the_last_word_is_shown() {
    accepts(&shown(Some("new")));
    rejects(&shown(Some("old")), Rule::Acknowledged, "had said \"new\" 0.010 s before");
    rejects(&shown(None), Rule::Acknowledged, "was shown with no word");
}

/// The command is started again after it has said something, or before; then `status` shows this.
fn shown_after_a_restart(at: u64, word: Option<&str>) -> Scene {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(10).words(owner, "older");
    scene.at(20).words(owner, "old");
    let wait = Wait::AtMost { ms: 1_000 };
    scene.at(at).ask(11, Call::Restart { thing: thing("office"), wait }, Answer::Yes);
    scene.at(40).runs("office", 1, word);
    scene.at(50).verified(owner);
    scene
}

#[test]
fn a_command_that_begins_anew_has_said_nothing() {
    accepts_by(&shown_after_a_restart(30, None), Allowance::CommandBegunAnew);
    rejects(&shown_after_a_restart(30, Some("older")), Rule::Acknowledged, "had said \"old\"");
    rejects(&shown_after_a_restart(15, None), Rule::Acknowledged, "was shown with no word");
}

/// An owner with a lock hands over, and somebody is refused the lock because of the heir.
fn heir_has_the_lock(release_at: Option<u64>, heir_ends_at: u64) -> Scene {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    let lock = scene.at(5).granted("lock", 10, 1, 2, None);
    if let Some(at) = release_at {
        scene.at(at).release(lock);
    }
    scene.at(20).hand_over(owner, false);
    let heir = scene.at(30).adopt(owner, 11, 3);
    scene.at(heir_ends_at).release(heir);
    scene.at(50).meets("lock", 3);
    scene
}

#[test]
fn the_locks_move_with_the_office() {
    accepts(&heir_has_the_lock(None, 60));
    rejects(&heir_has_the_lock(Some(10), 60), Rule::NoIsTrue, "nobody had been granted it");
    rejects(&heir_has_the_lock(None, 40), Rule::NoIsTrue, "nobody had been granted it");
}
