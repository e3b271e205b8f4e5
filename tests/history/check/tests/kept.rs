//! Leases that were renewed, locks of incarnations that have ended, and tokens that are nobody's.

use super::{accepts, accepts_by, rejects};
use crate::check::scene::{Scene, acquire, granted, thing};
use crate::check::{Allowance, Rule};
use crate::log::{Answer, Call, Hurt, Wait};

/// A lease of a second that is renewed after 500 ms; after 600 ms so much of it is left.
fn leased(remaining_ms: u64, is_lost: bool) -> Scene {
    let mut scene = Scene::new();
    let lock = || thing("lock");
    let call = acquire("lock", Wait::Once, None, Some(1_000));
    scene.at(0).ask(10, call, granted(1, 5, None));
    scene.at(500).ask(10, Call::Renew { thing: lock(), incarnation: 1 }, Answer::Yes);
    if is_lost {
        scene.at(510).fault(520, Hurt::WalLost { store: "main".to_owned() });
    }
    let answer = Answer::Leased { incarnation: 1, fence: 5, remaining_ms: Some(remaining_ms) };
    scene.at(600).ask(10, Call::Lease { thing: lock() }, answer);
    scene
}

#[test]
fn a_renewed_lease_lasts_as_long_as_was_asked_for() {
    accepts(&leased(900, false));
    // What was left of the one before.
    rejects(&leased(400, false), Rule::Acknowledged, "0.400 s were left");
    rejects(&leased(1_100, false), Rule::Acknowledged, "1.100 s were left");
    accepts_by(&leased(400, true), Allowance::BackAgain);
}

/// Whether that lock is another holder's, or has no lease.
#[test]
fn of_another_lease_nothing_is_said() {
    for (fence, remaining_ms) in [(6, Some(100)), (5, None)] {
        let mut scene = leased(900, false);
        let answer = Answer::Leased { incarnation: 1, fence, remaining_ms };
        scene.at(700).ask(10, Call::Lease { thing: thing("lock") }, answer);
        accepts(&scene);
    }
}

/// Losses of the store, each 10 ms long, and then the question.
fn remains(of: &[i64], losses: &[&str]) -> Scene {
    let mut scene = Scene::new();
    for (at, how) in (100..).step_by(100).zip(losses) {
        let (store, how) = ("main".to_owned(), (*how).to_owned());
        scene.at(at).fault(at + 10, Hurt::StoreLost { store, how });
    }
    let call = Call::Remains { store: "main".to_owned() };
    scene.at(900).ask(10, call, Answer::Remains { of: of.to_vec() });
    scene
}

#[test]
fn locks_end_with_their_row() {
    accepts(&remains(&[], &[]));
    rejects(&remains(&[7], &[]), Rule::NothingForTheDead, "that have ended: [7]");
    rejects(&remains(&[7], &["moved"]), Rule::NothingForTheDead, "that have ended: [7]");
}

#[test]
fn but_for_those_of_a_store_that_was_written_over() {
    for losses in [&["copied over"][..], &["deleted", "repaired"], &["copied over", "moved"]] {
        accepts_by(&remains(&[7], losses), Allowance::PiecedTogether);
    }
    let begun_anew = ["copied over", "deleted with its directory"];
    rejects(&remains(&[7], &begun_anew), Rule::NothingForTheDead, "that have ended: [7]");
}

#[test]
fn nobody_speaks_without_the_token() {
    let forged = |answer| {
        let mut scene = Scene::new();
        scene.at(0).claim("office", 10, 1);
        let word = "forged".to_owned();
        let call = Call::Forge { thing: thing("office"), incarnation: 1, word };
        scene.at(100).ask(11, call, answer);
        scene
    };
    let refused = Answer::Error { kind: "not_owner".to_owned(), text: String::new() };
    accepts(&forged(refused));
    rejects(&forged(Answer::Done), Rule::TokenCounts, "as incarnation 1");
}
