//! A marker for one generation, whatever its office.

use incumbent::marker::MarkerTarget;
use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::{ClaimOptions, ErrorKind, Kind, Office, Store};

use crate::support::{LIMIT, Sandbox, granted, sleeper};

fn note() -> MarkerRequest {
    MarkerRequest::new(MarkerName::new("note").unwrap())
}

/// A process with two offices: the marker reaches the generation that is meant, and that alone.
#[test]
fn it_reaches_the_generation_that_is_meant() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let claim = |profile: &str, kind: &str| {
        let options = ClaimOptions::new().kind(Kind::new(kind).unwrap());
        granted(store.profile(profile).unwrap().claim_with(&options))
    };
    let (gateway, bot) = (claim("work", "gateway"), claim("work", "bot"));
    let written = store.write_marker(bot.instance(), &note()).unwrap();
    assert_eq!(written.marker.instance, Some(bot.instance()));
    assert_eq!(bot.peek_marker(None).unwrap().unwrap().id, written.marker.id);
    let by_pid = store.write_marker(
        MarkerTarget::of_office(
            std::process::id(),
            Office { profile: "work".parse().unwrap(), kind: Kind::default() },
        ),
        &note(),
    );
    assert_eq!(by_pid.unwrap().marker.instance, Some(gateway.instance()));
    let consumed = bot.consume_marker(None).unwrap().unwrap();
    assert_eq!(consumed.marker.id, written.marker.id);
}

/// FIELD-BUGS row 54. A marker outlives nobody: for a generation that has ended there is none, and
/// its successor never sees one.
#[test]
fn a_generation_that_has_ended_gets_none() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let first = granted(store.profile("work").unwrap().claim());
    let ended = first.instance();
    first.release().unwrap();
    let second = granted(store.profile("work").unwrap().claim());
    let error = store.write_marker(ended, &note()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    assert!(second.peek_marker(None).unwrap().is_none());
}

/// Nor does one that was killed, whose record nobody has ended yet.
#[test]
fn a_generation_that_was_killed_gets_none() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let store = Store::open(sandbox.db()).unwrap();
    let killed = store.profile("default").unwrap().status().unwrap().instance.unwrap();
    run.kill();
    run.command.wait_gone(LIMIT);
    let error = store.write_marker(killed, &note()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    assert_eq!(sandbox.number("SELECT count(*) FROM markers"), 0);
}

/// Somebody who is on record nowhere gets it as the process that it is.
#[test]
fn a_stranger_gets_it_by_its_pid() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut stranger = sleeper(&sandbox);
    let target = MarkerTarget::from(stranger.pid());
    target.check().unwrap();
    let written = store.write_marker(target.clone(), &note()).unwrap();
    assert_eq!((written.marker.instance, written.marker.pid), (None, Some(stranger.pid())));
    assert_eq!(store.peek_marker(stranger.pid(), None).unwrap().unwrap().id, written.marker.id);
    stranger.kill();
    assert_eq!(target.check().unwrap_err().kind(), ErrorKind::NotRunning);
}
