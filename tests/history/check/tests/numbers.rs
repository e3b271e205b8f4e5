//! The fences of a name rise with time.

use super::{accepts, accepts_by, rejects};
use crate::check::scene::{Owner, Scene, claim};
use crate::check::{Allowance, Rule};
use crate::log::{Answer, Hurt};

#[test]
fn they_rise() {
    let mut scene = Scene::new();
    for n in 1..5 {
        let owner = scene.at(100 * n).claim("lock", 10, i64::try_from(n).unwrap());
        scene.at(100 * n + 50).release(owner);
    }
    accepts(&scene);
}

#[test]
fn one_out_of_order() {
    let mut scene = Scene::new();
    for (at, number) in [(0, 5), (100, 4), (200, 6)] {
        let owner = scene.at(at).claim("office", 10, number);
        scene.at(at + 50).release(owner);
    }
    rejects(&scene, Rule::FencesRise, "incarnation 4 got 4 after incarnation 5 had got 5");
}

#[test]
fn one_given_twice() {
    let mut scene = Scene::new();
    let owner = scene.at(0).granted("lock", 10, 5, 5, None);
    scene.at(50).release(owner);
    let owner = scene.at(100).granted("lock", 11, 6, 5, None);
    scene.at(150).release(owner);
    rejects(&scene, Rule::FencesRise, "was given twice");
}

#[test]
fn calls_at_the_same_time_have_no_order() {
    let mut scene = Scene::new();
    let first = scene.at(0).begin(10, claim("office"));
    let second = scene.at(1).begin(11, claim("lock"));
    let third = scene.at(2).begin(12, claim("office"));
    scene.at(10).end(12, third, crate::check::scene::granted(5, 5, None));
    scene.at(11).end(11, second, crate::check::scene::granted(3, 3, None));
    scene.at(12).end(10, first, crate::check::scene::granted(4, 4, None));
    accepts(&scene);
}

/// Grants in this order, with a loss after the first.
fn over_a_loss(hurt: Hurt, numbers: [i64; 3]) -> Scene {
    let mut scene = Scene::new();
    scene.at(100).fault(110, hurt);
    for (at, number) in [0, 200, 300].into_iter().zip(numbers) {
        let owner = scene.at(at).claim("office", 10, number);
        scene.at(at + 50).release(owner);
    }
    scene
}

#[test]
fn a_store_that_is_back_knows_nothing_of_what_came_after_the_copy() {
    let store = || "main".to_owned();
    let losses: [fn(String) -> Hurt; 2] = [
        |store| Hurt::StoreLost { store, how: "restored".to_owned() },
        |store| Hurt::WalLost { store },
    ];
    for loss in losses {
        accepts(&over_a_loss(loss(store()), [5, 3, 4]));
        rejects(&over_a_loss(loss(store()), [5, 4, 3]), Rule::FencesRise, "incarnation 3 got 3");
    }
}

/// A number that comes a second time after a loss is another life, of whatever kind.
#[test]
fn nothing_is_concluded_of_a_number_that_was_given_twice() {
    let mut scene = Scene::new();
    for (at, pid) in [(0, 17), (200, 18)] {
        let run = scene.at(at).run("office", pid);
        scene.at(at + 10).witness_in(run, "office", 5);
        scene.at(at + 20).witness_out(run, "office", 5);
        scene.at(at + 30).exits(run, 0);
    }
    scene.at(100).store_lost(110);
    let owner = Owner { thing: "office", pid: 17, incarnation: 5 };
    scene.at(500).ended(owner, "evicted");
    accepts(&scene);
}

#[test]
fn a_grant_during_the_loss_is_of_either_store() {
    let mut scene = Scene::new();
    scene.at(0).claim("office", 10, 5);
    scene.at(50).store_lost(150);
    scene.at(100).claim("office", 11, 4);
    accepts_by(&scene, Allowance::BackAgain);
}

fn told_again(fence: i64) -> Scene {
    let mut scene = Scene::new();
    scene.at(0).claim("lock", 10, 5);
    let again = Answer::Granted {
        incarnation: 5,
        fence,
        reacquired: true,
        heir_of: None,
        locks: Vec::new(),
    };
    scene.at(50).ask(10, claim("lock"), again);
    scene
}

#[test]
fn who_asks_again_has_the_fence_that_it_had() {
    accepts(&told_again(5));
    rejects(&told_again(6), Rule::FencesRise, "it had 5");
}

/// An heir that goes on under the old number.
fn goes_on(is_full: bool) -> Scene {
    let mut scene = Scene::new();
    let owner = scene.at(0).claim("office", 10, 5);
    if is_full {
        scene.at(50).fault(200, Hurt::DiskFull { store: "main".to_owned() });
    }
    scene.at(100).hand_over(owner, true);
    scene.at(110).adopt(owner, 10, 5);
    scene
}

#[test]
fn only_on_a_full_disk_an_heir_keeps_the_fence() {
    accepts_by(&goes_on(true), Allowance::FullDiskKeepsTheFence);
    rejects(&goes_on(false), Rule::FencesRise, "incarnation 5 got 5");
}

#[test]
fn or_where_somebody_waits_for_its_end() {
    let asked = |at: u64, force: Option<bool>| {
        let mut scene = goes_on(false);
        match force {
            Some(force) => scene.at(at).evict("office", force),
            None => scene.at(at).stop("office"),
        }
        scene
    };
    accepts_by(&asked(110, None), Allowance::AskedToEndKeepsTheFence);
    rejects(&asked(50, None), Rule::FencesRise, "incarnation 5 got 5");
    rejects(&asked(110, Some(false)), Rule::FencesRise, "incarnation 5 got 5");
}
