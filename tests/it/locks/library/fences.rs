//! Fences rise, whatever happens to the store or to the clock.

use incumbent::OpenOptions;
use serde_json::json;

use super::{clock, lock_granted, request};
use crate::support::{BOOT_MS, LIMIT, Sandbox, WALL_MS};

#[test]
fn the_fence_rises_with_every_change_of_holder() {
    let sandbox = Sandbox::new();
    let mut last = 0;
    for round in 0..6 {
        let mut party = sandbox.party();
        let fence = party.acquire(&["token"])[0];
        assert!(fence > last, "{fence} after {last}");
        assert_eq!(party.acquire(&["token"]), [fence], "while the holder stays, it stays");
        last = fence;
        match round % 3 {
            0 => assert_eq!(party.ask(&json!({"do": "drop"})), "dropped"),
            1 => party.0.kill(),
            _ => drop(party.0.finish(LIMIT)),
        }
    }
}

/// A resource that remembers the highest fence must not refuse the rightful holder because somebody
/// restored a backup, or began anew.
#[test]
fn the_fence_rises_in_a_restored_and_in_a_new_store() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let used = |times: usize| {
        let mut last = 0;
        for _ in 0..times {
            let mut party = sandbox.party();
            let fence = party.acquire(&["token"])[0];
            assert!(fence > last, "{fence} after {last}");
            last = fence;
            party.0.finish(LIMIT).assert_code(0);
        }
        last
    };
    let remove = || {
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
        }
    };
    let older = used(1);
    let copy = sandbox.file("copy.db");
    sandbox.forge(&format!("VACUUM INTO '{}'", copy.display()));
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
    let before = used(3);
    assert!(before > older);
    remove();
    std::fs::rename(copy, sandbox.db()).unwrap();
    let restored = used(2);
    assert!(restored > before, "{restored} after {before}, in a restored store");
    remove();
    let new = used(1);
    assert!(new > restored, "{new} after {restored}, in a new store");
}

#[test]
fn the_fence_does_not_fall_with_the_wall_clock() {
    const HOUR_MS: i64 = 3_600_000;
    let sandbox = Sandbox::new();
    let clock = clock(BOOT_MS);
    let store = OpenOptions::new().path(sandbox.db()).clock(clock.clone()).open().unwrap();
    let mut last = 0;
    for step_ms in [0, -HOUR_MS, -24 * HOUR_MS, HOUR_MS, -WALL_MS] {
        clock.step_wall_ms(step_ms);
        let fence = lock_granted(store.try_acquire(&request("token"))).fence();
        assert!(fence > last, "{fence} after {last}, the clock stepped by {step_ms} ms");
        last = fence;
    }
}
