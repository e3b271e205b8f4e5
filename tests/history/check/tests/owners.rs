//! At most one owner at any instant.

use super::{accepts, accepts_by, rejects};
use crate::check::scene::{Scene, acquire, granted};
use crate::check::{Allowance, Rule};
use crate::log::{Hurt, Step, Wait};

const REFUSED: Step = Step::Refused { holder: None, exiting: false };

#[test]
fn one_after_the_other() {
    let mut scene = Scene::new();
    let first = scene.at(0).claim("office", 10, 1);
    scene.at(50).verified(first);
    scene.at(100).release(first);
    let second = scene.at(101).claim("office", 11, 2);
    scene.at(150).verified(second);
    accepts(&scene);
}

#[test]
fn an_overlap_of_1_ms_of_two_that_were_told_that_they_have_it() {
    let mut scene = Scene::new();
    let first = scene.at(0).claim("office", 10, 1);
    let second = scene.at(100).claim("office", 11, 2);
    scene.at(101).words(first, "here");
    scene.at(200).words(second, "there");
    rejects(&scene, Rule::OneOwner, "incarnation 1 surely had it for 0.001 s more");
}

#[test]
fn an_overlap_of_1_ms_of_two_witnesses() {
    let mut scene = Scene::new();
    scene.at(0).stay("office", 10, 1, 101);
    scene.at(100).stay("office", 11, 2, 200);
    rejects(&scene, Rule::OneOwner, "for 0.001 s more");
}

#[test]
fn to_touch_is_no_overlap() {
    let mut scene = Scene::new();
    scene.at(0).stay("office", 10, 1, 100);
    scene.at(100).stay("office", 11, 2, 200);
    scene.at(0).stay("lock", 12, 3, 200);
    accepts(&scene);
}

#[test]
fn a_witness_that_finds_another_one() {
    let mut scene = Scene::new();
    let (first, second) = (scene.at(0).run("office", 17), scene.at(1).run("office", 18));
    scene.at(10).witness_in(first, "office", 1);
    scene.at(20).refused(second, "office", 2, first.command());
    rejects(&scene, Rule::OneOwner, "the witness of incarnation 2 found that of incarnation 1");
}

#[test]
fn a_dying_witness_is_in_nobodys_way() {
    let mut scene = Scene::new();
    scene.at(0).witness(10, None, "office", 1, Step::In);
    let exiting = Step::Refused { holder: Some(10), exiting: true };
    scene.at(20).witness(11, None, "office", 2, exiting);
    accepts_by(&scene, Allowance::Dying);
}

#[test]
fn two_witnesses_of_one_incarnation_are_no_two_owners() {
    let mut scene = Scene::new();
    scene.at(0).witness(10, None, "office", 1, Step::In);
    scene.at(20).witness(11, None, "office", 1, REFUSED);
    accepts(&scene);
}

#[test]
fn an_heir_stands_beside_who_handed_it_over() {
    let mut scene = Scene::new();
    let first = scene.at(0).claim("office", 10, 1);
    scene.at(1).witness(10, None, "office", 1, Step::In);
    scene.at(10).hand_over(first, false);
    scene.at(20).adopt(first, 11, 2);
    scene.at(30).witness(11, None, "office", 2, REFUSED);
    accepts(&scene);
    scene.at(40).witness(12, None, "office", 3, REFUSED);
    rejects(&scene, Rule::OneOwner, "incarnation 3");
}

#[test]
fn a_killed_owner_makes_way() {
    let mut scene = Scene::new();
    let first = scene.at(0).claim("office", 10, 1);
    scene.at(50).words(first, "here");
    scene.at(60).kill(10);
    let second = scene.at(60).claim("office", 11, 2);
    scene.at(90).words(second, "there");
    accepts(&scene);
}

/// A `run` that is killed leaves a command that lives for a moment: nobody else may be let in.
#[test]
fn the_command_of_a_killed_run_still_holds() {
    let mut scene = Scene::new();
    let (first, second) = (scene.at(0).run("office", 17), scene.at(1).run("office", 18));
    scene.at(10).witness_in(first, "office", 1);
    scene.at(100).kill(first.pid);
    scene.at(200).refused(second, "office", 2, first.command());
    rejects(&scene, Rule::OneOwner, "found that of incarnation 1");
}

/// A run with its command, evicted; another one meets its witness `at` then.
fn evicted(force: bool, at_ms: u64) -> Scene {
    let mut scene = Scene::new();
    let first = scene.at(0).run("office", 17);
    scene.at(10).witness_in(first, "office", 1);
    scene.at(500).evict("office", force);
    let second = scene.at(501).run("office", 18);
    scene.at(at_ms).refused(second, "office", 2, first.command());
    scene
}

#[test]
fn the_evicted_stays_until_it_learns() {
    accepts_by(&evicted(true, 600), Allowance::EvictedUntilItLearns);
}

#[test]
fn not_for_ever() {
    rejects(&evicted(true, 300_000), Rule::OneOwner, "found that of incarnation 1");
}

#[test]
fn without_force_nobody_who_lives_is_evicted() {
    rejects(&evicted(false, 600), Rule::OneOwner, "found that of incarnation 1");
}

/// The store is lost under an owner; another one comes.
fn lost(is_told_since: bool) -> Scene {
    let mut scene = Scene::new();
    let first = scene.at(0).claim("office", 10, 1);
    scene.at(5).witness(10, None, "office", 1, Step::In);
    scene.at(100).store_lost(110);
    if is_told_since {
        scene.at(150).verified(first);
    }
    scene.at(200).claim("office", 11, 2);
    scene.at(210).witness(11, None, "office", 2, REFUSED);
    scene
}

#[test]
fn an_owner_from_before_stays_until_it_notices() {
    accepts_by(&lost(false), Allowance::StoreLostUntilNoticed);
}

#[test]
fn not_once_it_is_on_record_again() {
    rejects(&lost(true), Rule::OneOwner, "found that of incarnation 1");
}

#[test]
fn a_lock_with_two_places_has_two_owners_and_no_third() {
    let mut scene = Scene::new();
    let first = scene.at(0).claim("slots", 10, 1);
    let second = scene.at(10).claim("slots", 11, 2);
    scene.at(100).words(first, "here");
    scene.at(100).words(second, "there");
    accepts(&scene);
    let third = scene.at(20).claim("slots", 12, 3);
    scene.at(100).words(third, "everywhere");
    rejects(&scene, Rule::OneOwner, "lock slots=one");
}

/// A record for another process, with or without a lease, and a second one after 300 ms.
fn leased(ttl_ms: Option<u64>) -> Scene {
    let mut scene = Scene::new();
    scene.at(0).ask(1, acquire("lock", Wait::Once, Some(20), ttl_ms), granted(1, 1, None));
    scene.at(5).witness(20, None, "lock", 1, Step::In);
    scene.at(300).record("lock", 21, 2);
    scene.at(310).witness(21, None, "lock", 2, REFUSED);
    scene
}

#[test]
fn a_lease_without_an_anchor_runs_out() {
    accepts_by(&leased(Some(100)), Allowance::LeaseWithoutAnchor);
    rejects(&leased(Some(1_000)), Rule::OneOwner, "lock lock=one");
    rejects(&leased(None), Rule::OneOwner, "lock lock=one");
}

/// The keepers of a recorded process are killed, and somebody else asks.
fn without_keepers(namespace: Option<&str>) -> Scene {
    let mut scene = Scene::new();
    scene.at(0).record("lock", 20, 1);
    scene.at(5).witness(20, None, "lock", 1, Step::In);
    scene.at(100).fault(100, Hurt::Keepers { of: None });
    if let Some(name) = namespace {
        scene.inside(name);
    }
    scene.at(200).record("lock", 21, 2);
    scene.outside();
    scene.at(210).witness(21, None, "lock", 2, REFUSED);
    scene
}

#[test]
fn who_cannot_see_the_process_believes_its_keepers() {
    accepts_by(&without_keepers(Some("pod")), Allowance::KeepersGone);
    rejects(&without_keepers(None), Rule::OneOwner, "lock lock=one");
}
