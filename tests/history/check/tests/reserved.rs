//! What is reserved for a takeover goes to nobody else.

use super::{accepts, rejects};
use crate::check::Rule;
use crate::check::scene::{Owner, Scene, granted, held, thing};
use crate::log::{Answer, Call, Hurt, Wait};

const OWNER: Owner = Owner { thing: "office", pid: 10, incarnation: 1 };

fn replaces() -> Call {
    let (thing, wait) = (thing("office"), Wait::Once);
    Call::Claim { thing, locks: Vec::new(), wait, replace: true, pid: None }
}

/// The owner, 1, gives way to a taker, and another one, `other`, is granted the office meanwhile.
/// The taker is told `answer`, and this `happens` while it takes.
fn takeover(other: Option<i64>, answer: Answer, happens: impl FnOnce(&mut Scene)) -> Scene {
    let mut scene = Scene::new();
    scene.at(0).claim("office", OWNER.pid, OWNER.incarnation);
    let call = scene.at(100).begin(11, replaces());
    happens(scene.at(120));
    scene.at(150).release(OWNER);
    let mut ended = vec![(OWNER, "taken_over")];
    if let Some(other) = other {
        let other = scene.at(160).claim("office", 12, other);
        scene.at(180).release(other);
        ended.push((other, "released"));
    }
    let is_granted = match answer {
        Answer::Granted { incarnation, .. } => Some(incarnation),
        _ => None,
    };
    scene.at(200).end(11, call, answer);
    if let Some(incarnation) = is_granted {
        let taken = Owner { thing: "office", pid: 11, incarnation };
        scene.at(300).release(taken);
        ended.push((taken, "released"));
    }
    scene.at(500).last(&ended, &[]);
    scene
}

fn taken(number: i64) -> Answer {
    granted(number, number, None)
}

#[test]
fn nobody_comes_between_an_owner_and_its_taker() {
    accepts(&takeover(None, taken(2), |_| {}));
    let between = takeover(Some(2), taken(3), |_| {});
    rejects(&between, Rule::ReservationHolds, "between incarnation 1, whom a takeover ended");
    let refused = takeover(Some(2), held(2), |_| {});
    rejects(&refused, Rule::ReservationHolds, "and its taker, which was refused");
    // Of another one it says nothing.
    let reserved =
        Answer::Held { by: Some(7), verdict: "alive".to_owned(), reason: "reserved".to_owned() };
    accepts(&takeover(Some(2), reserved, |_| {}));
}

/// The reservation counts only while the taker is alive, and the store is as it was; and it is one
/// of those that may have ended the owner.
#[test]
fn but_where_the_reservation_may_be_over() {
    let accepted: [fn(&mut Scene); 5] = [
        |scene| scene.fault(130, Hurt::Stop { pids: vec![11] }),
        |scene| scene.fault(130, Hurt::DiskFull { store: "main".to_owned() }),
        |scene| scene.store_lost(130),
        |scene| scene.stop("office"),
        |scene| {
            scene.ask(13, replaces(), held(1));
        },
    ];
    for happens in accepted {
        accepts(&takeover(Some(2), taken(3), happens));
    }
    // Another one is stopped, another store is full.
    let others = [Hurt::Stop { pids: vec![99] }, Hurt::DiskFull { store: "other".to_owned() }];
    for other in others {
        let scene = takeover(Some(2), taken(3), |scene| scene.fault(130, other));
        rejects(&scene, Rule::ReservationHolds, "which was reserved");
    }
}
