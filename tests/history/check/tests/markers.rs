//! A marker is consumed once, by whom it was for, and is there until then.

use super::{accepts, accepts_by, rejects};
use crate::check::scene::Scene;
use crate::check::{Allowance, Rule};

/// An owner, and a marker for it.
fn scene_with_marker() -> (Scene, crate::check::scene::Owner) {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(10).marker("m", 1);
    (scene, owner)
}

#[test]
fn taken_once_by_whom_it_was_for() {
    let (mut scene, owner) = scene_with_marker();
    scene.at(20).consume(owner, Some("m"));
    scene.at(30).consume(owner, None);
    accepts(&scene);
}

#[test]
fn taken_twice() {
    let (mut scene, owner) = scene_with_marker();
    scene.at(20).consume(owner, Some("m"));
    scene.at(30).consume(owner, Some("m"));
    rejects(&scene, Rule::MarkersOnce, "\"m\" was consumed twice");
}

#[test]
fn what_could_not_be_written_down_is_there_again() {
    let (mut scene, owner) = scene_with_marker();
    scene.at(20).consume_as(owner, Some("m"), false);
    scene.at(30).consume_as(owner, Some("m"), true);
    accepts_by(&scene, Allowance::ConsumedUnrecorded);
    // Not after that.
    scene.at(40).consume_as(owner, Some("m"), false);
    rejects(&scene, Rule::MarkersOnce, "consumed twice");
}

#[test]
fn by_somebody_else() {
    let (mut scene, _) = scene_with_marker();
    let other = scene.at(15).claim("other", 11, 2);
    scene.at(20).consume(other, Some("m"));
    rejects(&scene, Rule::MarkersOnce, "incarnation 2 consumed the marker \"m\", which was for");
}

#[test]
fn by_an_heir() {
    let (mut scene, owner) = scene_with_marker();
    scene.at(15).hand_over(owner, false);
    let heir = scene.at(20).adopt(owner, 11, 2);
    scene.at(30).consume(heir, Some("m"));
    accepts_by(&scene, Allowance::HeirHasMarkers);
}

#[test]
fn that_nobody_wrote() {
    let (mut scene, owner) = scene_with_marker();
    scene.at(20).consume(owner, Some("n"));
    rejects(&scene, Rule::MarkersOnce, "\"n\", which nobody wrote");
}

#[test]
fn before_it_was_written() {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 1);
    scene.at(10).consume(owner, Some("m"));
    scene.at(20).marker("m", 1);
    rejects(&scene, Rule::MarkersOnce, "before it was written");
}

#[test]
fn a_restored_store_has_it_again() {
    let (mut scene, owner) = scene_with_marker();
    scene.at(20).consume(owner, Some("m"));
    scene.at(30).store_lost(40);
    scene.at(50).consume(owner, Some("m"));
    accepts_by(&scene, Allowance::BackAgain);
}

#[test]
fn whoever_is_on_record_again_has_another_number() {
    for is_lost in [true, false] {
        let mut scene = Scene::new();
        let owner = scene.at(0).claim("office", 10, 1);
        if is_lost {
            scene.at(1).store_lost(5);
        }
        scene.at(10).marker("m", 7);
        scene.at(20).consume(owner, Some("m"));
        if is_lost {
            accepts_by(&scene, Allowance::BackAgain);
        } else {
            rejects(&scene, Rule::MarkersOnce, "which was for incarnation 7");
        }
    }
}

#[test]
fn one_that_was_written_is_there() {
    let (mut scene, owner) = scene_with_marker();
    scene.at(20).consume(owner, None);
    rejects(&scene, Rule::Acknowledged, "\"m\" was written 0.010 s before, and nobody took it");
}

#[test]
fn until_its_time_is_over() {
    let (mut scene, owner) = scene_with_marker();
    scene.at(60_011).consume(owner, None);
    accepts(&scene);
}

#[test]
fn or_its_store_was_lost() {
    let (mut scene, owner) = scene_with_marker();
    scene.at(12).store_lost(14);
    scene.at(20).consume(owner, None);
    accepts(&scene);
}
