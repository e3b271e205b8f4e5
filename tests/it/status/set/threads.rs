//! A forked child says nothing, and threads lose nothing.

use incumbent::status::PlatformUpdate;
use incumbent::{StatusUpdate, Store};
use serde_json::json;

use super::report_of;
use super::talker::talker;
use crate::support::{LIMIT, Sandbox, ask, eventually, tenure_of};

/// FIELD-BUGS row 70. Nothing that a forked child says is heard, and its parent's heart beats on.
#[test]
fn a_forked_child_says_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = talker(&sandbox);
    assert_eq!(ask(&mut gateway, "say running"), "Ok");
    assert_eq!(ask(&mut gateway, "promise 20"), "Ok");
    gateway.say("fork");
    assert!(gateway.err_line_with("child: ").ends_with("child: Forked Forked"));
    assert!(gateway.err_line_with("=> ").ends_with("=> the child ended with code 0"));
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["state"], "running", "{status:#}");
    let before = status["heartbeat_at"].clone();
    eventually("the parent's heart beats on", LIMIT, || {
        ask(&mut gateway, "beat 1");
        (sandbox.status().1["heartbeat_at"] != before).then_some(())
    });
    assert_eq!(ask(&mut gateway, "say draining"), "Ok");
    gateway.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS row 59. Symptom: entries disappear: whoever writes the whole file writes over the
/// others. It holds because an update is one transaction over its own fields and rows.
#[test]
fn threads_of_one_process_lose_nothing() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let rounds: u64 = 40;
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (tenure, store) = (&tenure, &store);
            scope.spawn(move || {
                let name = format!("platform-{thread}");
                for round in 1..=rounds {
                    let platform = PlatformUpdate::new(name.as_str())
                        .state(format!("s{round}"))
                        .error_code(format!("s{round}"))
                        .extra(json!(round));
                    // Each thread has a field of its own as well.
                    let update = StatusUpdate::new().platform(platform);
                    let update = match thread {
                        0 => update.state(format!("s{round}")),
                        1 => update.exit_reason(format!("r{round}")),
                        2 => update.active_agents(round),
                        3 => update.extra(json!({"round": round})),
                        4 => update.restart_requested(round == rounds),
                        _ => update,
                    };
                    tenure.update_status(&update).unwrap();
                    let seen = report_of(store);
                    let own = seen.platforms.iter().find(|it| it.platform == name).unwrap();
                    assert_eq!(own.extra, Some(json!(round)), "{name}");
                    for other in &seen.platforms {
                        assert_eq!(other.state, other.error_code, "half of an update was seen");
                    }
                }
            });
        }
    });
    let seen = report_of(&store);
    assert_eq!(seen.platforms.len(), 8);
    for platform in &seen.platforms {
        assert_eq!(platform.extra, Some(json!(rounds)), "{platform:?}");
    }
    let said = seen.runtime.unwrap();
    assert_eq!(said.state, Some(format!("s{rounds}")));
    assert_eq!(said.exit_reason, Some(format!("r{rounds}")));
    assert_eq!(said.active_agents, Some(rounds));
    assert_eq!(said.extra, Some(json!({"round": rounds})));
    assert_eq!(said.restart_requested, Some(true));
    tenure.release().unwrap();
}
