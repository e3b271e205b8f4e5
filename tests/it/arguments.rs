//! Whatever a program passes: no public call panics, and what cannot be meant is refused as
//! `InvalidInput`, with a message that says which argument it is about.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use incumbent::exit::{ExitCause, ExitCodes, Supervisor};
use incumbent::forensics::{Span, snapshot};
use incumbent::liveness::{AnchorState, Evidence, judge};
use incumbent::lock::{AcquireOptions, IdentityHash, Scope};
use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::process::ProcessRef;
use incumbent::query::Value as SqlValue;
use incumbent::status::{Desired, PlatformUpdate};
use incumbent::stop::{Force, RestartOptions, StopOptions, StopPhases};
use incumbent::{
    Acquire, Cancel, Claim, ClaimOptions, ErrorKind, InstanceId, Kind, LockName, LockRequest,
    Nonce, OpenOptions, ProfileName, Reason, Result, StatusUpdate, Store, Tenure, Wait, process,
};
use proptest::prelude::*;
use serde_json::json;

use crate::support::Sandbox;

/// A store of this process, and an office in it.
fn store() -> &'static Store {
    static STORE: LazyLock<(Sandbox, Store)> = LazyLock::new(|| {
        let sandbox = Sandbox::new();
        let store = Store::open(sandbox.db()).unwrap();
        (sandbox, store)
    });
    &STORE.1
}

fn tenure() -> &'static Tenure {
    static TENURE: OnceLock<Tenure> = OnceLock::new();
    TENURE.get_or_init(|| match store().profile("arguments").unwrap().claim().unwrap() {
        Claim::Granted(tenure) => tenure,
        Claim::Held(holder) => panic!("{holder}"),
    })
}

/// A call that is either done or refused for its argument, which one of these words names.
#[track_caller]
fn done_or_refused<T>(called: Result<T>, words: &[&str]) -> Option<T> {
    match called {
        Ok(done) => Some(done),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            let message = error.to_string();
            assert!(words.iter().any(|word| message.contains(word)), "{message:?}: {words:?}");
            None
        }
    }
}

/// Names, and what is no name: control characters, paths, other alphabets, nothing, too much.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9_][A-Za-z0-9._-]{0,63}",
        ".{0,80}",
        "\\PC{0,300}",
        "[\\x00-\\x7f]{0,20}",
        Just(String::new()),
        Just("../../etc/passwd".to_owned()),
        Just("-rf".to_owned()),
        "[a-z]{65,70}",
    ]
}

/// Lengths of time, short of what a test can wait for, and beyond all that a clock counts.
fn length() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0_u64..100_000).prop_map(Duration::from_millis),
        any::<(u64, u32)>().prop_map(|(s, ns)| Duration::new(s, ns % 1_000_000_000)),
        any::<u64>().prop_map(Duration::from_nanos),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..40), text().prop_map(String::into_bytes)]
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(|it| json!(it)),
        any::<i64>().prop_map(|it| json!(it)),
        any::<f64>().prop_map(|it| json!(it)),
        text().prop_map(|it| json!(it)),
        "[a-z]{4000,5000}".prop_map(|it| json!(it)),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|it| json!(it)),
            prop::collection::btree_map(text(), inner, 0..6).prop_map(|it| json!(it)),
        ]
    })
}

fn is_name(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.chars().next().is_some_and(is_word)
        && text.len() <= 64
        && text.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn names_and_ids(text in text(), number in any::<i64>(), identity in bytes()) {
        let profile = done_or_refused(ProfileName::new(text.as_str()), &["profile"]);
        prop_assert_eq!(profile.is_some(), is_name(&text));
        prop_assert_eq!(done_or_refused(Kind::new(text.as_str()), &["kind"]).is_some(), is_name(&text));
        prop_assert_eq!(done_or_refused(Scope::new(text.as_str()), &["scope"]).is_some(), is_name(&text));
        done_or_refused(MarkerName::new(text.as_str()), &["marker"]);
        done_or_refused(store().profile(text.as_str()), &["profile"]);
        done_or_refused(IdentityHash::of(&identity), &["identity"]);
        done_or_refused(IdentityHash::from_hex(&text), &["hash"]);
        done_or_refused(Nonce::from_hex(&text), &["token"]);
        done_or_refused(LockName::new(&text, &identity), &["scope", "identity"]);
        done_or_refused(text.parse::<Desired>(), &["desired"]);
        done_or_refused(text.parse::<Supervisor>(), &["supervisor"]);
        done_or_refused(text.parse::<ExitCause>(), &["cause"]);
        done_or_refused(text.parse::<Span>(), &["span"]);
        done_or_refused(text.parse::<ProcessRef>(), &["process reference"]);
        let reason = Reason::from(text.clone());
        prop_assert_eq!(reason.as_str(), text.as_str());
        if let Some(id) = done_or_refused(InstanceId::from_i64(number), &["instance id"]) {
            prop_assert_eq!(id.as_i64(), number);
            prop_assert!(number > 0);
            store().instance(id).unwrap();
        }
    }

    #[test]
    fn processes(pid in any::<u32>()) {
        let pid = if pid == std::process::id() { pid + 1 } else { pid };
        done_or_refused(process::exists(pid), &["pid"]);
        done_or_refused(process::start_time(pid), &["pid"]);
        done_or_refused(process::command_line(pid), &["pid"]);
        match ProcessRef::of(pid) {
            Err(error) if error.kind() == ErrorKind::NotRunning => {}
            of => drop(done_or_refused(of, &["pid"])),
        }
    }

    #[test]
    fn codes_and_phases(own in any::<i32>(), signal in any::<Option<i32>>(), drain in length(), name in text(), limit in length()) {
        for supervisor in ["systemd", "launchd", "s6", "docker", "none"] {
            let codes = ExitCodes::of(supervisor.parse().unwrap());
            for cause in ["planned_stop", "signalled", "exited", "panicked", "refused"] {
                let _ = codes.code(cause.parse().unwrap(), own, signal);
            }
        }
        let phases = StopPhases::draining_for(drain).and(name, limit);
        let _ = (phases.budget(), phases.unit_line());
        let _ = StopPhases::of_budget(limit).budget();
        let taken = snapshot(signal);
        prop_assert!(!taken.to_log_line().contains('\n'));
    }

    #[test]
    fn evidence(anchor in 0_usize..5) {
        let mut seen = Evidence::nothing_seen();
        seen.anchor = [
            AnchorState::Held,
            AnchorState::Free,
            AnchorState::Missing,
            AnchorState::Unreadable,
            AnchorState::None,
        ][anchor];
        let judged = judge(seen);
        prop_assert!(!judged.ruling.reason().because().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn what_a_gateway_says(
        words in (text(), text(), text(), text()),
        extra in json_value(),
        number in any::<i64>(),
        count in any::<u64>(),
        cadence in length(),
        names in prop::collection::vec("[a-z]{1,3}", 0..20),
    ) {
        let (state, why, platform, by) = words;
        let serves: Vec<ProfileName> =
            names.iter().map(|name| ProfileName::new(name.as_str()).unwrap()).collect();
        let update = StatusUpdate::new()
            .state(state.clone())
            .exit_reason(why.clone())
            .active_agents(count)
            .extra(extra.clone())
            .serves(serves)
            .heartbeat_every(cadence)
            .by(by)
            .platform(
                PlatformUpdate::new(platform)
                    .state(state)
                    .error_code(why.clone())
                    .error_message(why)
                    .retrying_since_ms(number)
                    .extra(extra),
            );
        done_or_refused(tenure().update_status(&update), &[
            "state", "reason", "agents", "extra", "profiles", "heart", "platform", "error", "time",
            "writer", "nested", "long",
        ]);
        if let Some(heart) = done_or_refused(tenure().heartbeat(cadence), &["heart"]) {
            heart.beat();
        }
        store().profile("arguments").unwrap().status().unwrap();
    }

    #[test]
    fn locks(scope in text(), identity in bytes(), metadata in json_value(), ttl in length(), by in text()) {
        let request = done_or_refused(LockRequest::new(&scope, &identity), &["scope", "identity"]);
        let Some(request) = request else { return Ok(()) };
        let request = done_or_refused(request.clone().metadata(metadata), &["metadata"]).unwrap_or(request);
        let request = done_or_refused(request.clone().ttl(ttl), &["time to live"]).unwrap_or(request);
        let name = request.name().clone();
        match store().try_acquire(&request).unwrap() {
            Acquire::Granted(lock) => drop(lock.release().unwrap()),
            Acquire::Held(holder) => prop_assert!(!holder.to_string().is_empty()),
        }
        let twice = [request.clone(), request];
        done_or_refused(store().acquire_all(&twice, &AcquireOptions::new()), &["twice"]);
        done_or_refused(store().acquire_all(&[], &AcquireOptions::new()), &["locks"]);
        store().lock(&name).unwrap();
        store().unlock(&name, Force::No, &by).unwrap();
    }

    #[test]
    fn markers(pid in any::<u32>(), name in text(), words in (text(), text()), ttl in length()) {
        let (reason, by) = words;
        let Some(name) = done_or_refused(MarkerName::new(name), &["marker"]) else { return Ok(()) };
        let request = MarkerRequest::new(name.clone()).reason(reason).by(by.clone());
        let request = done_or_refused(request.clone().ttl(ttl), &["marker"]).unwrap_or(request);
        let is_ours = pid == std::process::id();
        match store().write_marker(pid, &request) {
            Err(error) if error.kind() == ErrorKind::NotRunning => {}
            written => drop(done_or_refused(written, &["pid"])),
        }
        if !is_ours {
            store().peek_marker(pid, Some(&name)).unwrap();
            store().clear_marker(pid, &name, &by).unwrap();
        }
        store().peek_marker(std::process::id(), Some(&name)).unwrap();
    }

    #[test]
    fn offices(words in (text(), text(), text()), lengths in (length(), length()), count in 0_usize..2_000) {
        let (kind, version, by) = words;
        let (budget, cadence) = lengths;
        let kind = Kind::new(kind).unwrap_or_default();
        let profile = store().profile("nobody").unwrap();
        let options = ClaimOptions::new()
            .kind(kind.clone())
            .version(version)
            .stop_budget(budget)
            .heartbeat_every(cadence)
            .wait(Wait::No);
        if let Some(claim) = done_or_refused(profile.claim_with(&options), &["budget", "heart"]) {
            match claim {
                Claim::Granted(tenure) => drop(tenure.release().unwrap()),
                Claim::Held(holder) => panic!("{holder}"),
            }
        }
        // Nobody runs, so nobody is waited for, however long that may take.
        let cancel = Cancel::new();
        let stop = StopOptions::new().timeout(budget).reason(by.clone()).by(by.clone());
        drop(profile.stop(&kind, &stop.cancel(cancel.clone())).unwrap());
        let restart = RestartOptions::new().timeout(budget).reason(by.clone()).by(by.clone());
        drop(profile.restart(&kind, &restart.cancel(cancel)).unwrap());
        profile.history(&kind, count).unwrap();
        profile.evict(&kind, Force::No, &by).unwrap();
        profile.set_desired(Desired::Running, &by).unwrap();
        store().recent_events(Some(profile.name()), count).unwrap();
    }

    #[test]
    fn questions(sql in prop_oneof![text(), "(?i)select .{0,40}", "[A-Z ();]{0,40}"], value in text(), number in any::<i64>()) {
        done_or_refused(store().query(&sql), &[""]);
        done_or_refused(store().query_with("SELECT ?1, ?2", &[SqlValue::Text(value), SqlValue::Integer(number)]), &[""]).unwrap();
        let mut events = store().events().unwrap().after(number);
        events.next_event(Wait::No).unwrap();
    }

    #[test]
    fn places(path in text()) {
        let path = std::env::temp_dir().join("incumbent-nowhere").join(path);
        // Questions make nothing, and answer by a value or an error of the place.
        match OpenOptions::new().path(path).open_existing() {
            Ok(found) => prop_assert!(found.is_none()),
            Err(error) => prop_assert!(
                matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotOurs | ErrorKind::Filesystem | ErrorKind::Permission),
                "{:?}", error
            ),
        }
    }
}
