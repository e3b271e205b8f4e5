//! A store that stays busy after the holder has ended does not leave its office to nobody.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use incumbent::stop::Replace;
use incumbent::{Cancel, ClaimOptions, OpenOptions};

use super::gateway::deaf_gateway;
use crate::support::{LIMIT, Sandbox, ask, eventually, granted, writer};

/// How long one call waits for the store.
const BUDGET: Duration = Duration::from_millis(100);

/// Symptom: the holder was gone, and the taker gave up on a busy store: nobody was left. It is
/// tried for as long as the office is reserved, and the caller is asked meanwhile.
#[test]
fn an_office_is_tried_for_longer_than_a_call_waits() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let sandbox = Sandbox::new();
    let store = OpenOptions::new().path(sandbox.db()).busy_budget(BUDGET).open().unwrap();
    let mut holder = deaf_gateway(&sandbox, &[]);
    assert!(ask(&mut holder, "claim 60000").starts_with("granted"));
    let profile = store.profile("default").unwrap();
    let cancel = Cancel::polling(|| {
        ASKED.fetch_add(1, Ordering::SeqCst);
        ControlFlow::Continue(())
    });
    let options = ClaimOptions::new().replace(Replace::new()).cancel(cancel);
    let tenure = std::thread::scope(|scope| {
        let taker = scope.spawn(|| profile.claim_with(&options));
        eventually("the holder is asked", LIMIT, || {
            (sandbox.number("SELECT count(*) FROM markers") == 1).then_some(())
        });
        let writer = writer(&sandbox);
        holder.kill();
        let before = ASKED.load(Ordering::SeqCst);
        // From one question to the next it takes 20 ms at least.
        eventually("it is tried several times", LIMIT, || {
            (taker.is_finished() || ASKED.load(Ordering::SeqCst) > before + 20).then_some(())
        });
        writer.finish(LIMIT).assert_code(0);
        granted(taker.join().unwrap())
    });
    assert_eq!(tenure.replaced().unwrap().pid, Some(holder.pid()));
}
