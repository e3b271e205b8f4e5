//! What a gateway said, read without a judgement.

use incumbent::status::state;
use incumbent::{Claim, Kind, ProfileName, StatusUpdate, Store};

use crate::support::{Sandbox, ask};

#[test]
fn what_was_said_is_read_as_it_was_written() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let (profile, kind) = (store.profile("default").unwrap(), Kind::default());
    assert!(profile.runtime(&kind).unwrap().is_none());
    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
    assert!(profile.runtime(&kind).unwrap().is_none(), "it has said nothing yet");
    let said = StatusUpdate::new().state(state::RUNNING).active_agents(3);
    let said = said.serves(vec![ProfileName::new("other").unwrap()]);
    tenure.update_status(&said).unwrap();
    let runtime = profile.runtime(&kind).unwrap().unwrap();
    assert_eq!(Some(&runtime), profile.status().unwrap().runtime.as_ref());
    assert_eq!((runtime.state.as_deref(), runtime.active_agents), (Some(state::RUNNING), Some(3)));
    assert!(profile.runtime(&Kind::new("scheduler").unwrap()).unwrap().is_none());
    assert!(store.profile("other").unwrap().runtime(&kind).unwrap().is_none(), "of a server");
    tenure.release().unwrap();
    assert!(profile.runtime(&kind).unwrap().is_none(), "nobody is on record");
}

/// That is what it costs less for: nobody looks whether it lives.
#[test]
fn of_a_dead_holder_the_last_words_stand_until_somebody_claims() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    sandbox.cli(["status-set", "--state", "running", "--pid", &owner.pid().to_string()]);
    let store = Store::open(sandbox.db()).unwrap();
    let (profile, kind) = (store.profile("default").unwrap(), Kind::default());
    let before = profile.runtime(&kind).unwrap();
    assert_eq!(ask(&mut owner, "verify"), "Held");
    owner.kill();
    assert!(!profile.status().unwrap().running);
    assert_eq!(profile.runtime(&kind).unwrap(), before);
    let Claim::Granted(_tenure) = profile.claim().unwrap() else { panic!("it is dead") };
    assert!(profile.runtime(&kind).unwrap().is_none(), "a new incarnation starts fresh");
}

/// A question does not migrate: a store of before has nothing to say.
#[test]
fn a_store_that_knows_nothing_of_status_has_none() {
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    sandbox.age_to(3);
    let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
    assert!(store.profile("default").unwrap().runtime(&Kind::default()).unwrap().is_none());
}
