//! A loop that polls is woken by events and by losses, and by nothing for long.

use std::time::Duration;

use incumbent::{Claim, ErrorKind, Lost, ProfileName, Readiness, Reason, Store, Wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{LIMIT, Sandbox, tenure_of};

fn is_readable_within(readiness: &Readiness, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut [PollFd::new(readiness, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

fn is_readable(readiness: &Readiness) -> bool {
    is_readable_within(readiness, Duration::ZERO)
}

/// Asks until there is nothing; what there was.
fn drain(events: &mut incumbent::status::EventStream) -> Vec<String> {
    std::iter::from_fn(|| events.next_event(Wait::No).unwrap()).map(|event| event.event).collect()
}

/// What was raised by a look that was late is read away again.
#[track_caller]
fn assert_settles(events: &mut incumbent::status::EventStream, readiness: &Readiness) {
    // Between two looks of the thread: it raises once more at most, for a commit before.
    for _ in 0..10 {
        assert_eq!(drain(events), Vec::<String>::new());
        if !is_readable_within(readiness, Duration::from_millis(100)) {
            return;
        }
    }
    panic!("it stays readable");
}

#[test]
fn a_stream_is_readable_until_it_is_read_to_its_end() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut events = store.events().unwrap();
    let readiness = events.readiness().unwrap();
    assert!(is_readable(&readiness), "there may be something already");
    assert_settles(&mut events, &readiness);
    for _ in 0..3 {
        // By another process, while nobody waits: there is more than one.
        sandbox.assert_free();
        assert!(is_readable_within(&readiness, LIMIT));
        assert_eq!(events.next_event(Wait::No).unwrap().unwrap().event, "office_claimed");
        assert!(is_readable(&readiness), "there is more");
        assert!(!drain(&mut events).is_empty());
        assert_settles(&mut events, &readiness);
    }
    // One that goes back has what was read before.
    let mut events = events.after(0);
    assert!(is_readable(&readiness));
    assert!(drain(&mut events).len() >= 6);
    assert_settles(&mut events, &readiness);
}

/// It is woken by what is not meant for it, and then sleeps on.
#[test]
fn a_stream_of_one_profile_is_not_kept_awake_by_others() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut events = store.events().unwrap().of_profile(ProfileName::new("work").unwrap());
    let readiness = events.readiness().unwrap();
    assert_settles(&mut events, &readiness);
    sandbox.assert_free();
    assert!(is_readable_within(&readiness, LIMIT));
    assert_settles(&mut events, &readiness);
    let Ok(Claim::Granted(_tenure)) = store.profile("work").unwrap().claim() else { panic!() };
    assert!(is_readable_within(&readiness, LIMIT));
    assert_eq!(drain(&mut events), ["office_claimed"]);
}

/// An error is something to ask for.
#[test]
fn a_store_that_is_gone_wakes_its_readers() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut events = store.events().unwrap();
    let readiness = events.readiness().unwrap();
    assert_settles(&mut events, &readiness);
    sandbox.remove_store();
    assert!(is_readable_within(&readiness, LIMIT));
    for _ in 0..2 {
        let error = events.next_event(Wait::No).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreReplaced, "{error}");
        assert!(is_readable(&readiness));
    }
}

#[test]
fn a_loss_is_readable_and_stays_so() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let watch = tenure.watch(|_| ()).unwrap();
    let readiness = watch.readiness().unwrap();
    assert!(!is_readable(&readiness));
    assert_eq!(watch.lost().unwrap(), None);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    assert!(is_readable_within(&readiness, LIMIT));
    assert!(
        matches!(watch.lost().unwrap(), Some(Lost::Ended { reason, .. }) if reason == Reason::Evicted)
    );
    // Who comes later is told as well.
    assert!(is_readable(&readiness) && is_readable(&watch.readiness().unwrap()));
}

#[test]
fn what_was_let_go_is_not_lost() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let watch = tenure.watch(|_| ()).unwrap();
    let readiness = watch.readiness().unwrap();
    tenure.release().unwrap();
    // The next look of the watch is within that.
    assert!(!is_readable_within(&readiness, Duration::from_millis(700)));
    assert_eq!(watch.lost().unwrap(), None);
}
