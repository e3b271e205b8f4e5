//! Every wait kept its bound.

use super::{accepts, accepts_by, rejects};
use crate::check::scene::{Scene, acquire, claim_waiting, held};
use crate::check::{Allowance, Rule};
use crate::log::{Answer, Call, Death, Hurt, Wait};

const SECOND: Wait = Wait::AtMost { ms: 1_000 };

/// Somebody holds it; a wait for it ends with this answer after this time.
fn waited(scene: &mut Scene, wait: Wait, took_ms: u64, answer: Answer) {
    scene.at(0).claim("office", 10, 1);
    let op = scene.at(100).begin(11, claim_waiting("office", wait));
    scene.at(100 + took_ms).end(11, op, answer);
}

fn scene(wait: Wait, took_ms: u64, answer: Answer) -> Scene {
    let mut scene = Scene::new();
    waited(&mut scene, wait, took_ms, answer);
    scene
}

fn superseded() -> Answer {
    Answer::Held { by: Some(1), verdict: "alive".to_owned(), reason: "superseded".to_owned() }
}

#[test]
fn who_gives_up_before_its_time() {
    accepts(&scene(SECOND, 980, held(1)));
    accepts(&scene(SECOND, 100, superseded()));
    rejects(&scene(SECOND, 900, held(1)), Rule::WaitsAreBounded, "gave up after 0.900 s");
    rejects(&scene(Wait::Forever, 9_000, held(1)), Rule::WaitsAreBounded, "wait for ever");
}

#[test]
fn a_wait_for_another_process_ends_with_that() {
    let mut scene = Scene::new();
    scene.at(0).claim("lock", 10, 1);
    let op = scene.at(100).begin(1, acquire("lock", SECOND, Some(20), None));
    scene.at(200).died(20, Death::Exit { code: 0 });
    scene.at(210).end(1, op, held(1));
    accepts(&scene);
}

#[test]
fn who_comes_back_too_late() {
    accepts(&scene(SECOND, 181_000, held(1)));
    rejects(&scene(SECOND, 182_000, held(1)), Rule::WaitsAreBounded, "took 182.000 s");
    let error = Answer::Error { kind: "busy".to_owned(), text: String::new() };
    accepts(&scene(Wait::Forever, 900_000, error));
}

#[test]
fn the_time_that_somebody_stood_still_does_not_count() {
    let mut scene = scene(SECOND, 190_000, held(1));
    scene.at(1_000).fault(5_000, Hurt::Stop { pids: vec![10] });
    rejects(&scene, Rule::WaitsAreBounded, "took 190.000 s");
    scene.at(20_000).fault(26_000, Hurt::Stop { pids: vec![10] });
    accepts_by(&scene, Allowance::StoodStill);
}

#[test]
fn other_clocks_have_other_seconds() {
    let mut early = Scene::new();
    early.with_faked_clock();
    waited(&mut early, SECOND, 100, held(1));
    accepts_by(&early, Allowance::OtherClock);
    let mut late = Scene::new();
    late.with_faked_clock();
    waited(&mut late, SECOND, 300_000, held(1));
    accepts_by(&late, Allowance::OtherClock);
}

/// A call without an answer, and the end of the log.
fn unanswered(call: Call, dies: bool) -> Scene {
    let mut scene = Scene::new();
    scene.at(0).seed(1);
    scene.at(10).begin(11, call);
    if dies {
        scene.at(20).kill(11);
    }
    scene.at(200_000).last(&[], &[]);
    scene
}

#[test]
fn a_call_that_never_came_back() {
    let call = || claim_waiting("office", Wait::Once);
    accepts(&unanswered(call(), true));
    accepts(&unanswered(Call::Other { verb: "events --follow".to_owned() }, false));
    rejects(&unanswered(call(), false), Rule::WaitsAreBounded, "never came back");
}
