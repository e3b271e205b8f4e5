//! The checker itself is checked: for each promise one log that it accepts and one that it rejects,
//! and each allowance allows what it should and no more.

mod answers;
mod ends;
mod kept;
mod markers;
mod numbers;
mod owners;
mod reserved;
mod waits;

use std::collections::BTreeSet;

use super::allowances::ALLOWANCES;
use super::scene::Scene;
use super::{Allowance, Rule, judge};

#[track_caller]
fn accepts(scene: &Scene) {
    let judged = judge(&scene.records());
    assert!(judged.violations.is_empty(), "{:#?}", judged.violations);
}

/// It is accepted, and this is why.
#[track_caller]
fn accepts_by(scene: &Scene, allowance: Allowance) {
    accepts(scene);
    let judged = judge(&scene.records());
    assert!(judged.allowed.contains_key(&allowance), "{:?}", judged.allowed);
}

/// It is rejected by this rule alone, in a sentence with these words.
#[track_caller]
fn rejects(scene: &Scene, rule: Rule, words: &str) {
    let violations = judge(&scene.records()).violations;
    assert!(violations.iter().any(|it| it.what.contains(words)), "{words}: {violations:#?}");
    assert!(violations.iter().all(|it| it.rule == rule), "{rule:?}: {violations:#?}");
    assert!(violations.iter().all(|it| !it.lines.is_empty()), "{violations:#?}");
}

#[test]
fn an_empty_log_is_accepted() {
    accepts(&Scene::new());
}

#[test]
fn each_allowance_has_a_sentence_of_its_own() {
    let sentences: BTreeSet<_> = ALLOWANCES.iter().map(|it| it.why()).collect();
    assert_eq!(sentences.len(), ALLOWANCES.len());
    assert!(sentences.iter().all(|it| it.ends_with('.') && it.len() > 20));
}
