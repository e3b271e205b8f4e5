//! Scoped locks by the library: one holder of an identity, across all processes and profiles.
//!
//! The test itself is one party; the others are processes that play [`LOCKER`] and are ordered
//! about. Time stands still in the tests of leases: both sides open with the same clock.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use incumbent::{
    Acquire, AcquireOptions, Cancel, Claim, ErrorKind, Force, Holder, Kind, LockName, LockReport,
    LockRequest, LossWatch, Lost, ManualClock, OpenOptions, Released, Result, ScopedLock, Standing,
    Stopped, Store, Tenure, Unlocked, Wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    BOOT_MS, Disk, Identity, LIMIT, Process, Sandbox, Stat, WALL_MS, WITHOUT_MAIN_THREAD,
    assert_within, eventually, forked, has, obey_orders, plays, role_db, skipped, test_name,
    wait_stopped,
};

const ROLE_TEST: &str = test_name!(role_of_a_locker);
const LOCKER: &str = "locker";

const SCOPE: &str = "telegram-bot-token";

/// The hand-over takes a few milliseconds; the rest is for a busy machine.
const SOON: Duration = Duration::from_millis(100);

fn name(identity: &str) -> LockName {
    LockName::new(SCOPE, identity).unwrap()
}

fn request(identity: &str) -> LockRequest {
    LockRequest::new(SCOPE, identity).unwrap()
}

fn requests(identities: &[&str]) -> Vec<LockRequest> {
    identities.iter().map(|identity| request(identity)).collect()
}

fn leased(identity: &str, ttl: Duration) -> LockRequest {
    request(identity).ttl(ttl).unwrap()
}

fn waiting(wait: Wait) -> AcquireOptions {
    AcquireOptions::new().wait(wait)
}

fn evicting() -> AcquireOptions {
    AcquireOptions::new().stopped(Stopped::Evict)
}

#[track_caller]
fn lock_granted<T: std::fmt::Debug>(acquire: Result<Acquire<T>>) -> T {
    match acquire.unwrap() {
        Acquire::Granted(locks) => locks,
        Acquire::Held(holder) => panic!("{holder}"),
    }
}

#[track_caller]
fn lock_refused<T: std::fmt::Debug>(acquire: Result<Acquire<T>>) -> Holder {
    match acquire.unwrap() {
        Acquire::Granted(locks) => panic!("granted: {locks:?}"),
        Acquire::Held(holder) => *holder,
    }
}

fn lost(reason: &str, by: Option<&str>) -> Standing {
    Standing::Lost(Lost::Ended { reason: reason.to_owned(), by: by.map(str::to_owned) })
}

/// A lock as the store's list shows it.
#[track_caller]
fn lock_report(store: &Store, identity: &str) -> LockReport {
    let name = name(identity);
    let mut locks = store.locks().unwrap();
    locks.retain(|lock| lock.name == name);
    locks.pop().unwrap_or_else(|| panic!("{identity} is not on record"))
}

fn is_listed(store: &Store, identity: &str) -> bool {
    store.locks().unwrap().iter().any(|lock| lock.name == name(identity))
}

fn clock(boot_ms: i64) -> Arc<ManualClock> {
    Arc::new(ManualClock::new(WALL_MS, boot_ms))
}

/// Plays a party: one order a line, one answer a line, both JSON.
#[test]
fn role_of_a_locker() {
    if plays(LOCKER) {
        let mut locker = Locker::default();
        obey_orders(|line| {
            let order: Value = serde_json::from_str(line).unwrap();
            locker.obey(&order).unwrap_or_else(
                |error| json!({"error": error.kind().as_str(), "message": error.to_string()}),
            )
        });
    }
}

#[derive(Default)]
struct Locker {
    store: Option<Store>,
    tenure: Option<Tenure>,
    /// In the order of their acquisition; a place stays when its lock is let go.
    locks: Vec<Option<ScopedLock>>,
    watches: Vec<LossWatch>,
    wait: Option<JoinHandle<Result<Acquire<Vec<ScopedLock>>>>>,
}

fn standing_json(standing: Standing) -> Value {
    match standing {
        Standing::Held => json!("held"),
        Standing::Lost(Lost::Ended { reason, by }) => json!({"lost": reason, "by": by}),
        Standing::Lost(lost) => json!({"lost": format!("{lost:?}")}),
    }
}

fn released(released: Released) -> Value {
    match released {
        Released::Pending(error) => json!({"pending": error.kind().as_str()}),
        released => json!(format!("{released:?}")),
    }
}

fn wanted(identities: &[&str], order: &Value) -> Result<Vec<LockRequest>> {
    identities
        .iter()
        .map(|identity| {
            let mut request = LockRequest::new(SCOPE, identity)?;
            if let Some(ttl_ms) = order["ttl_ms"].as_u64() {
                request = request.ttl(Duration::from_millis(ttl_ms))?;
            }
            request.metadata(order["metadata"].clone())
        })
        .collect()
}

impl Locker {
    fn obey(&mut self, order: &Value) -> Result<Value> {
        let identities: Vec<&str> =
            order["ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let index = order["lock"].as_u64().and_then(|index| usize::try_from(index).ok());
        Ok(match order["do"].as_str().unwrap() {
            "open" => {
                let mut options = OpenOptions::new().path(role_db());
                if let Some(boot_ms) = order["boot_ms"].as_i64() {
                    options = options.clock(clock(boot_ms));
                }
                if let Some(budget_ms) = order["busy_ms"].as_u64() {
                    options = options.busy_budget(Duration::from_millis(budget_ms));
                }
                self.store = Some(options.open()?);
                json!("opened")
            }
            "claim" => {
                let profile = self.store().profile(order["profile"].as_str().unwrap())?;
                let Claim::Granted(tenure) = profile.claim()? else { panic!("held") };
                let instance = tenure.instance().as_i64();
                self.tenure = Some(tenure);
                json!(instance)
            }
            "acquire" => self.acquire(&wanted(&identities, order)?)?,
            "wait" => {
                let (store, wanted) = (self.store().clone(), wanted(&identities, order)?);
                let waits = move || store.acquire_all(&wanted, &waiting(Wait::Forever));
                self.wait = Some(std::thread::spawn(waits));
                json!("waiting")
            }
            "waited" => {
                let acquire = self.wait.take().unwrap().join().unwrap();
                self.keep(acquire?)
            }
            "contend" => self.contend(identities[0], order["count"].as_u64().unwrap())?,
            "verify" => standing_json(self.lock(index).verify()?),
            "verify office" => standing_json(self.tenure.as_ref().unwrap().verify()?),
            "renew" => standing_json(self.lock(index).renew()?),
            "watch" => {
                let tell =
                    |lost| eprintln!("the watch says: {}", standing_json(Standing::Lost(lost)));
                let watch = self.lock(index).watch(tell)?;
                self.watches.push(watch);
                json!("watching")
            }
            "release" => released(self.locks[index.unwrap()].take().unwrap().release()?),
            "release all" => {
                let instance = self.lock(index).instance();
                json!(self.store().release_all(instance)?)
            }
            "drop" => {
                self.locks.clear();
                json!("dropped")
            }
            "pending" => json!(self.store().pending_releases()),
            "list" => {
                json!(self.store().locks()?.iter().map(LockReport::to_json).collect::<Vec<_>>())
            }
            "fork" => self.fork(),
            "execute" => {
                eprintln!("=> \"executing\"");
                let mut arguments = std::env::args_os();
                let mut command = std::process::Command::new(arguments.next().unwrap());
                panic!("{}", std::os::unix::process::CommandExt::exec(command.args(arguments)));
            }
            other => panic!("{other}"),
        })
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open first")
    }

    fn lock(&self, index: Option<usize>) -> &ScopedLock {
        self.locks[index.unwrap()].as_ref().unwrap()
    }

    /// From the office, if it has one.
    fn acquire(&mut self, wanted: &[LockRequest]) -> Result<Value> {
        let options = AcquireOptions::new();
        let acquire = match &self.tenure {
            Some(tenure) => tenure.acquire_all(wanted, &options)?,
            None => self.store().acquire_all(wanted, &options)?,
        };
        Ok(self.keep(acquire))
    }

    /// The fences, or the holder.
    fn keep(&mut self, acquire: Acquire<Vec<ScopedLock>>) -> Value {
        match acquire {
            Acquire::Granted(locks) => {
                let fences: Vec<i64> = locks.iter().map(ScopedLock::fence).collect();
                self.locks.extend(locks.into_iter().map(Some));
                json!(fences)
            }
            Acquire::Held(holder) => json!({"held": holder.to_json()}),
        }
    }

    /// Tries in vain; how many descriptors that costs.
    fn contend(&self, identity: &str, count: u64) -> Result<Value> {
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let wanted = LockRequest::new(SCOPE, identity)?;
        // The first attempts make the connections.
        let mut before = 0;
        for attempt in 0..count {
            let Acquire::Held(_) = self.store().try_acquire(&wanted)? else { panic!("granted") };
            if attempt == 1 {
                before = descriptors();
            }
        }
        Ok(json!({"before": before, "after": descriptors()}))
    }

    /// A child that does with its parent's locks what it can.
    fn fork(&mut self) -> Value {
        let child = forked::fork();
        if child != 0 {
            return json!(forked::exit_code(child));
        }
        forked::alarm(10);
        let lock = self.locks[0].take().unwrap();
        let kind = |error: incumbent::Error| error.kind().as_str();
        let said = [
            lock.verify().map(drop).map_err(kind),
            lock.renew().map(drop).map_err(kind),
            self.store().release_all(lock.instance()).map(drop).map_err(kind),
            self.store().try_acquire(&request("token")).map(drop).map_err(kind),
            self.store().locks().map(drop).map_err(kind),
            self.locks[1].take().unwrap().release().map(drop).map_err(kind),
        ];
        drop(lock);
        self.locks.clear();
        self.store = None;
        eprintln!("child: {said:?}");
        forked::leave();
    }
}

#[allow(unsafe_code, reason = "a tracer is what the tests are about")]
mod tracer {
    /// Waits for a child's stop by its tracer, or for its end; returns the raw status.
    fn wait_for(child: i32) -> i32 {
        let mut status = 0;
        // SAFETY: our own child, and a place for its status.
        let waited = unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) };
        assert_eq!(waited, child);
        status
    }

    /// Stops the main thread of a child as a debugger does; false where that is not allowed. The
    /// calling thread is its tracer, and only that one can let it go.
    pub fn trace(child: i32) -> bool {
        // SAFETY: both take a pid and no memory of ours.
        let traced = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, child, 0, 0) == 0
                && libc::ptrace(libc::PTRACE_INTERRUPT, child, 0, 0) == 0
        };
        if traced {
            assert!(libc::WIFSTOPPED(wait_for(child)));
        }
        traced
    }

    pub fn let_go(child: i32) {
        // SAFETY: takes a pid and no memory of ours.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_DETACH, child, 0, 0) }, 0);
    }
}

/// Another process, which has the store open.
struct Party(Process);

impl Party {
    #[track_caller]
    fn ask(&mut self, order: &Value) -> Value {
        self.0.say(&order.to_string());
        let line = self.0.err_line_with("=> ");
        serde_json::from_str(line.split_once("=> ").unwrap().1).unwrap()
    }

    /// Orders about one of its locks, by the order of their acquisition.
    #[track_caller]
    fn about(&mut self, verb: &str, lock: usize) -> Value {
        self.ask(&json!({"do": verb, "lock": lock}))
    }

    #[track_caller]
    fn try_acquire(&mut self, identities: &[&str]) -> Value {
        self.ask(&json!({"do": "acquire", "ids": identities}))
    }

    /// Acquires all of them, returns the fences.
    #[track_caller]
    fn acquire(&mut self, identities: &[&str]) -> Vec<i64> {
        fences(&self.try_acquire(identities))
    }

    #[track_caller]
    fn wait(&mut self, identities: &[&str]) {
        assert_eq!(self.ask(&json!({"do": "wait", "ids": identities})), "waiting");
    }

    /// Takes the office that its locks are taken from.
    #[track_caller]
    fn claim(&mut self, profile: &str) {
        let answer = self.ask(&json!({"do": "claim", "profile": profile}));
        assert!(answer.is_i64(), "{answer}");
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn stop(&self) {
        self.0.signal(Signal::STOP);
        wait_stopped(self.pid());
    }

    fn go_on(&self) {
        self.0.signal(Signal::CONT);
    }
}

#[track_caller]
fn fences(answer: &Value) -> Vec<i64> {
    let fences = answer.as_array().unwrap_or_else(|| panic!("{answer}"));
    fences.iter().map(|fence| fence.as_i64().unwrap()).collect()
}

impl Sandbox {
    fn here(&self) -> Store {
        Store::open(self.db()).unwrap()
    }

    fn party_with(&self, options: &Value) -> Party {
        let mut party = Party(self.role(ROLE_TEST, LOCKER));
        let mut order = json!({"do": "open"});
        order.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        assert_eq!(party.ask(&order), "opened");
        party
    }

    fn party(&self) -> Party {
        self.party_with(&json!({}))
    }

    fn locks_on_record(&self) -> i64 {
        self.number("SELECT count(*) FROM scoped_locks")
    }

    /// Instances on record as live: owners and waiters.
    fn live_rows(&self) -> i64 {
        self.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL")
    }

    fn wait_for_lock_waiters(&self, count: i64) {
        let waiters = || self.number("SELECT count(*) FROM waiters WHERE scope IS NOT NULL");
        eventually(&format!("{count} waiters"), LIMIT, || (waiters() == count).then_some(()));
    }
}

#[test]
fn two_handles_of_one_process_share_a_lock() {
    let sandbox = Sandbox::new();
    let (one, other) = (sandbox.here(), sandbox.here());
    let first = lock_granted(one.try_acquire(&request("token")));
    assert!(!first.reacquired() && first.previous().is_none() && first.evicted().is_none());
    let second = lock_granted(other.try_acquire(&request("token")));
    assert!(second.reacquired());
    assert_eq!((second.fence(), second.instance()), (first.fence(), first.instance()));
    assert_eq!(sandbox.locks_on_record(), 1);
    // Another identity, and another scope, are other locks.
    let others = [request("token 2"), LockRequest::new("slack-app-token", "token").unwrap()];
    let others = lock_granted(one.acquire_all(&others, &AcquireOptions::new()));
    assert!(others.iter().all(|lock| !lock.reacquired() && lock.fence() > first.fence()));
    assert_eq!(sandbox.locks_on_record(), 3);
}

#[test]
fn of_two_processes_one_holds_a_lock() {
    let sandbox = Sandbox::new();
    let (mut one, mut other) = (sandbox.party(), sandbox.party());
    one.acquire(&["token"]);
    let answer = other.try_acquire(&["token"]);
    assert_eq!(answer["held"]["pid"], one.pid(), "{answer:#}");
    assert_eq!(one.about("verify", 0), "held");
    assert_eq!(one.about("release", 0), "Free");
    other.acquire(&["token"]);
    let answer = one.try_acquire(&["token"]);
    assert_eq!(answer["held"]["pid"], other.pid(), "{answer:#}");
}

/// FIELD-BUGS rows 47 and 67. Symptom: "bot token already in use" and nothing else; nobody knew by
/// which of five profiles, since when, or what to do. A refusal says all of it.
#[test]
fn a_refused_contender_is_told_who_holds_it() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    let before_ms = sandbox.number("SELECT max(started_at_ms) FROM instances");
    let order = json!({"do": "acquire", "ids": ["123:secret"], "metadata": {"bot": "@weather"}});
    fences(&owner.ask(&order));

    let holder = lock_refused(store.try_acquire(&request("123:secret")));
    assert_eq!(holder.profile.as_ref().unwrap().as_str(), "work");
    assert_eq!(holder.kind.as_ref().unwrap().as_str(), "gateway");
    assert_eq!(holder.pid, Some(owner.pid()));
    assert_eq!((holder.verdict, holder.reason), ("alive", "anchor_held"));
    assert!(holder.flags.names().is_empty(), "{:?}", holder.flags);
    assert_eq!(holder.metadata, Some(json!({"bot": "@weather"})));
    let listed = lock_report(&store, "123:secret");
    assert_eq!(holder.since_ms, Some(listed.acquired_at_ms));
    assert!(holder.since_ms.unwrap() >= before_ms);
    assert_eq!(holder.instance, Some(listed.instance));

    let text = holder.to_string();
    let hash = name("123:secret").identity_hash;
    let opening = format!("{SCOPE}/{hash} is held by profile work, pid {}", owner.pid());
    assert!(text.starts_with(&opening), "{text}");
    for words in [" since 20", "which is alive: the kernel holds its lock"] {
        assert!(text.contains(words), "no {words:?} in: {text}");
    }
    let advice = holder.advice();
    for words in ["`incumbent stop --profile work --kind gateway`", "wait for it"] {
        assert!(advice.contains(words), "no {words:?} in: {advice}");
    }

    let document = holder.to_json();
    let since = document["since"].as_str().unwrap();
    assert!(since.ends_with('Z') && since.contains('T'), "{since}");
    let expected = json!({
        "profile": "work", "kind": "gateway", "pid": owner.pid(), "child_pid": null,
        "instance": listed.instance.as_i64(), "since": since, "verdict": "alive",
        "reason": "anchor_held", "flags": [], "command": document["command"],
        "supervisor": document["supervisor"], "metadata": {"bot": "@weather"},
        "state": null, "unresponsive_ms": null,
    });
    assert_eq!(document, expected, "{document:#}");
    let all = format!("{holder:?} {text} {advice} {document} {listed:?} {}", listed.to_json());
    assert!(!all.contains("secret"), "{all}");
}

#[test]
fn a_holder_without_an_office_is_named_by_its_pid() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let holder = lock_refused(sandbox.here().try_acquire(&request("token")));
    assert_eq!((&holder.profile, &holder.kind, &holder.metadata), (&None, &None, &None));
    let text = holder.to_string();
    assert!(text.contains(&format!(" is held by pid {}", owner.pid())), "{text}");
    let document = holder.to_json();
    assert_eq!(
        (&document["profile"], &document["kind"], &document["metadata"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[test]
fn of_several_locks_all_are_granted_or_none() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut owner, mut third) = (sandbox.party(), sandbox.party());
    let fence = owner.acquire(&["b"])[0];
    let three = requests(&["a", "b", "c"]);
    let holder = lock_refused(store.acquire_all(&three, &AcquireOptions::new()));
    assert_eq!(holder.pid, Some(owner.pid()));
    assert!(holder.to_string().contains(&name("b").to_string()), "it names the lock: {holder}");
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (1, 1), "nothing is held");
    assert_eq!(lock_report(&store, "b").fence, fence);
    assert_eq!(owner.about("verify", 0), "held");
    // The other two are free for anybody.
    third.acquire(&["a", "c"]);
    assert_eq!(third.ask(&json!({"do": "drop"})), "dropped");
    owner.about("release", 0);

    let locks = lock_granted(store.acquire_all(&three, &AcquireOptions::new()));
    let names: Vec<_> = locks.iter().map(|lock| lock.name().clone()).collect();
    assert_eq!(names, [name("a"), name("b"), name("c")], "in the order asked for");
    assert!(locks.iter().all(|lock| lock.verify().unwrap() == Standing::Held));
    assert!(locks[1].fence() > fence);
}

/// What the process had before stays as it was when it is refused more.
#[test]
fn a_refusal_of_more_changes_nothing_of_what_is_held() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["b"]);
    let mine = lock_granted(store.try_acquire(&request("a").metadata(json!("mine")).unwrap()));
    let profile = store.profile("work").unwrap();
    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
    let wanted = [request("a").metadata(json!("other")).unwrap(), request("b"), request("c")];
    lock_refused(store.acquire_all(&wanted, &AcquireOptions::new()));
    lock_refused(tenure.acquire_all(&wanted, &AcquireOptions::new()));
    assert_eq!(tenure.verify().unwrap(), Standing::Held);
    assert_eq!(mine.verify().unwrap(), Standing::Held);
    assert_eq!(lock_report(&store, "a").metadata, Some(json!("mine")));
    assert!(!is_listed(&store, "c"));
    assert!(matches!(mine.release(), Ok(Released::Free)), "no guard was counted for the refusal");
}

#[test]
fn lists_that_cannot_be_meant_are_errors() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let many: Vec<_> = (0..65).map(|n| request(&format!("id {n}"))).collect();
    let error = |wanted: &[LockRequest]| {
        let error = store.acquire_all(wanted, &AcquireOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.hint().is_some(), "{error}");
        error.to_string()
    };
    assert!(error(&[]).contains("0 locks"), "{}", error(&[]));
    assert!(error(&many).contains("65 locks"), "{}", error(&many));
    // White space around an identity is none of it.
    let twice = error(&requests(&["secret", "other", "secret\n"]));
    assert!(
        twice.contains("named twice") && twice.contains(&name("secret").to_string()),
        "{twice}"
    );
    assert!(!twice.contains("secret\n") && !twice.contains(" secret"), "{twice}");
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
    let most = lock_granted(store.acquire_all(&many[..64], &AcquireOptions::new()));
    assert_eq!((most.len(), sandbox.locks_on_record()), (64, 64));
}

#[test]
fn acquired_again_a_lock_keeps_its_fence_and_has_the_new_metadata() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let first =
        lock_granted(store.try_acquire(&request("token").metadata(json!({"n": 1})).unwrap()));
    let since_ms = lock_report(&store, "token").acquired_at_ms;
    let second =
        lock_granted(store.try_acquire(&request("token").metadata(json!({"n": 2})).unwrap()));
    let previous = second.previous().unwrap();
    assert!(second.reacquired());
    assert_eq!(previous.fence, first.fence());
    assert_eq!(previous.instance, first.instance());
    assert_eq!(previous.pid, Some(std::process::id()));
    assert_eq!(previous.acquired_at_ms, since_ms);
    assert_eq!(previous.metadata, Some(json!({"n": 1})));
    assert_eq!(second.previous_metadata(), Some(&json!({"n": 1})));
    let document = previous.to_json();
    assert_eq!(
        (&document["pid"], &document["fence"], &document["metadata"]),
        (&json!(std::process::id()), &json!(first.fence()), &json!({"n": 1}))
    );
    let now = lock_report(&store, "token");
    assert_eq!((now.fence, now.acquired_at_ms), (first.fence(), since_ms));
    assert_eq!(now.metadata, Some(json!({"n": 2})));
    let third = lock_granted(store.try_acquire(&request("token")));
    assert_eq!(third.previous_metadata(), Some(&json!({"n": 2})));
    assert_eq!(lock_report(&store, "token").metadata, None);
    assert_eq!(first.verify().unwrap(), Standing::Held, "the first guard is as good");
}

#[test]
fn shared_guards_are_counted_and_the_last_one_releases() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut other = sandbox.party();
    let mut guards: Vec<_> =
        (0..3).map(|_| lock_granted(store.try_acquire(&request("token")))).collect();
    assert!(matches!(guards.remove(0).release(), Ok(Released::StillShared)));
    drop(guards.remove(1));
    assert_eq!(guards[0].verify().unwrap(), Standing::Held);
    assert_eq!(other.try_acquire(&["token"])["held"]["pid"], std::process::id());
    assert!(matches!(guards.remove(0).release(), Ok(Released::Free)));
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
    other.acquire(&["token"]);
}

/// Two threads that acquire and release the same lock share it, whatever their order.
#[test]
fn threads_of_one_process_never_lock_each_other_out() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let lock = lock_granted(store.try_acquire(&request("token")));
                    assert_eq!(lock.verify().unwrap(), Standing::Held);
                }
            });
        }
    });
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

#[test]
fn a_lock_is_the_same_from_the_tenure_and_from_the_store() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let Claim::Granted(tenure) = store.profile("work").unwrap().claim().unwrap() else {
        panic!("held")
    };
    let of_office = lock_granted(tenure.try_acquire(&request("a")));
    assert_eq!(of_office.instance(), tenure.instance());
    let again = lock_granted(store.try_acquire(&request("a")));
    assert!(again.reacquired());
    assert_eq!((again.instance(), again.fence()), (tenure.instance(), of_office.fence()));
    // One that is the office's, and one that is not yet anybody's.
    let both = lock_granted(store.acquire_all(&requests(&["a", "b"]), &AcquireOptions::new()));
    assert_eq!(both[0].instance(), tenure.instance());
    assert_ne!(both[1].instance(), tenure.instance());
    let back = lock_granted(tenure.try_acquire(&request("b")));
    assert!(back.reacquired());
    assert_eq!(back.instance(), both[1].instance());
    assert_eq!(lock_report(&store, "a").profile.unwrap().as_str(), "work");
    assert_eq!(lock_report(&store, "b").profile, None);
    drop((of_office, again));
    assert_eq!(both[0].verify().unwrap(), Standing::Held);
    drop((both, back));
    assert_eq!(sandbox.locks_on_record(), 0);
    assert_eq!(tenure.verify().unwrap(), Standing::Held, "the office outlasts its locks");
    assert_eq!(sandbox.live_rows(), 1);
}

#[test]
fn a_lock_ends_with_its_tenure() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut other = sandbox.party();
    let Claim::Granted(tenure) = store.profile("work").unwrap().claim().unwrap() else {
        panic!("held")
    };
    let of_office = lock_granted(tenure.try_acquire(&request("a")));
    let of_process = lock_granted(store.try_acquire(&request("b")));
    assert!(matches!(tenure.release(), Ok(Released::Free)));
    assert!(matches!(of_office.verify().unwrap(), Standing::Lost(_)));
    assert!(matches!(of_office.renew().unwrap(), Standing::Lost(_)));
    assert_eq!(of_process.verify().unwrap(), Standing::Held);
    let fence = other.acquire(&["a"])[0];
    assert!(fence > of_office.fence());
    assert!(matches!(of_office.release(), Ok(Released::WasLost)));
    assert_eq!(other.about("verify", 0), "held");
    assert_eq!(other.try_acquire(&["b"])["held"]["pid"], std::process::id());
}

#[test]
fn a_lost_tenure_gives_no_locks() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let profile = store.profile("work").unwrap();
    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
    let lock = lock_granted(tenure.try_acquire(&request("a")));
    profile.evict(&Kind::default(), Force::Yes, "a person").unwrap();
    let error = tenure.try_acquire(&request("b")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotOwner, "{error}");
    assert_eq!(lock.verify().unwrap(), lost("evicted", Some("a person")));
    assert_eq!(sandbox.locks_on_record(), 0);
    // It was lost; without the office it can be had again.
    let again = lock_granted(store.try_acquire(&request("a")));
    assert!(again.fence() > lock.fence() && !again.reacquired());
    drop(lock);
    assert_eq!(again.verify().unwrap(), Standing::Held);
}

/// A second claim of the office shares it; its locks go with the last one.
#[test]
fn a_lock_of_a_shared_tenure_outlasts_the_first_release() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let claim = || match store.profile("work").unwrap().claim().unwrap() {
        Claim::Granted(tenure) => tenure,
        Claim::Held(holder) => panic!("{holder}"),
    };
    let (first, second) = (claim(), claim());
    let lock = lock_granted(first.try_acquire(&request("token")));
    assert!(matches!(first.release(), Ok(Released::StillShared)));
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    drop(second);
    assert!(matches!(lock.verify().unwrap(), Standing::Lost(_)));
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

/// A guard is as good without the handle that made it.
#[test]
fn a_guard_outlasts_its_store_handle() {
    let sandbox = Sandbox::new();
    let mut other = sandbox.party();
    let lock = lock_granted(sandbox.here().try_acquire(&request("token")));
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert_eq!(other.try_acquire(&["token"])["held"]["pid"], std::process::id());
    assert!(lock_granted(sandbox.here().try_acquire(&request("token"))).reacquired());
    drop(lock);
    other.acquire(&["token"]);
}

/// FIELD-BUGS row 9. Symptom: after a hiccup of the network a gateway named its own pid as the
/// squatter, and tried for ever. Cause: its record had no start time, so it did not know itself. It
/// holds because what is ours is known by the secret in our memory.
#[test]
fn a_process_knows_its_own_lock_without_a_start_time() {
    for columns in [
        "start_time = NULL",
        "start_time = start_time + 1",
        "start_time = NULL, argv = NULL, anchor = NULL",
        "start_time = NULL, pid = 1, boot_id = NULL",
    ] {
        let sandbox = Sandbox::new();
        let store = sandbox.here();
        let first = lock_granted(store.try_acquire(&request("token")));
        assert_eq!(sandbox.forge(&format!("UPDATE instances SET {columns}")), 1);
        let again = lock_granted(store.try_acquire(&request("token")));
        assert!(again.reacquired(), "{columns}");
        assert_eq!(again.fence(), first.fence(), "{columns}");
        assert_eq!(first.verify().unwrap(), Standing::Held, "{columns}");
    }
}

/// R:ROW, R:REUSE. FIELD-BUGS rows 7, 8, 10 and 11.
///
/// Symptom: "bot token already in use (pid n)" for ever, where n is a music player by now. Cause: a
/// pid alone counted as identity where a start time was missing on either side.
#[test]
fn a_recycled_pid_does_not_keep_a_lock() {
    let cases = [
        ("start_time = {} - 1", "pid_reused"),
        ("start_time = {} + 1", "pid_reused"),
        ("start_time = NULL", "identity_mismatch"),
        ("start_time = NULL, uid = 12345", "pid_reused"),
        (
            "start_time = {}, boot_id = '11111111-2222-3333-4444-555555555555',
            written_boot_clock_ms = 9000000000000",
            "rebooted",
        ),
    ];
    for (columns, reason) in cases {
        for anchor in ["NULL", "'00-1-00.lock'"] {
            let sandbox = Sandbox::new();
            let mut owner = sandbox.party();
            let fence = owner.acquire(&["token"])[0];
            owner.0.kill();
            let unrelated = Process::start(sandbox.program("cat"));
            let it = Identity::of(unrelated.pid()).unwrap();
            sandbox.forge(&format!(
                "UPDATE instances SET process_inode = NULL, pid = {}, anchor = {anchor}, {}",
                it.pid,
                columns.replace("{}", &it.start_time.to_string())
            ));
            let store = sandbox.here();
            let listed = lock_report(&store, "token");
            assert_eq!((listed.verdict, listed.reason), ("dead", reason), "{columns}, {anchor}");
            let lock = lock_granted(store.try_acquire(&request("token")));
            let evicted = lock.evicted().unwrap();
            assert_eq!(
                (evicted.reason, evicted.pid),
                (reason, Some(it.pid)),
                "{columns}, {anchor}"
            );
            assert!(lock.fence() > fence);
            unrelated.finish(LIMIT).assert_code(0);
        }
    }
}

/// The other half of it: whom nobody can look at is not dead. The process here has no readable
/// command line, because its main thread has ended.
#[test]
fn an_unreadable_command_line_with_a_matching_record_blocks() {
    if !has("python3") {
        return skipped("needs python3");
    }
    for (start_time, verdict, reason) in
        [("{}", "alive", "start_time_matches"), ("NULL", "unknown", "not_verifiable")]
    {
        let sandbox = Sandbox::new();
        let mut owner = sandbox.party();
        owner.acquire(&["token"]);
        owner.0.kill();
        let mut command = sandbox.program("python3");
        command.args(["-c", WITHOUT_MAIN_THREAD]);
        let mut process = Process::start(command);
        assert_eq!(process.line(), "alone");
        let it = Identity::of(process.pid()).unwrap();
        let start_time = start_time.replace("{}", &it.start_time.to_string());
        sandbox.forge(&format!(
            "UPDATE instances SET process_inode = NULL, pid = {}, anchor = NULL,
                 start_time = {start_time}",
            it.pid
        ));
        let store = sandbox.here();
        let holder = lock_refused(store.try_acquire(&request("token")));
        assert_eq!((holder.verdict, holder.reason), (verdict, reason), "{holder}");
        if verdict == "unknown" {
            assert!(holder.to_string().contains("may be alive"), "{holder}");
            assert!(holder.advice().contains("unlock"), "{}", holder.advice());
        }
        assert!(store.unlock_stale("a sweep").unwrap().is_empty());
        process.kill();
        lock_granted(store.try_acquire(&request("token"))).release().unwrap();
    }
}

/// A person, or an older version that knows nothing of locks, ended the owner's row.
#[test]
fn a_lock_whose_owner_is_on_record_as_ended_blocks_nobody() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let fence = owner.acquire(&["token"])[0];
    sandbox.forge("UPDATE instances SET ended_at_ms = 1, end_reason = 'evicted', ended_by = 'me'");
    assert!(store.locks().unwrap().is_empty());
    let lost = owner.about("verify", 0);
    assert_eq!(lost, json!({"lost": "evicted", "by": "me"}));
    let lock = lock_granted(store.try_acquire(&request("token")));
    assert!(lock.fence() > fence);
    assert_eq!(owner.about("renew", 0)["lost"], "evicted");
    assert_eq!(owner.about("release", 0), "WasLost");
    assert_eq!(lock.verify().unwrap(), Standing::Held);
}

/// A process whose own row was ended behind its back finds out, and begins anew.
#[test]
fn a_process_whose_row_was_ended_acquires_anew() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let first = lock_granted(store.try_acquire(&request("token")));
    sandbox.forge("UPDATE instances SET ended_at_ms = 1, end_reason = 'evicted'");
    assert_eq!(first.verify().unwrap(), lost("evicted", None));
    let second = lock_granted(store.try_acquire(&request("token")));
    assert!(!second.reacquired() && second.fence() > first.fence());
    assert_ne!(second.instance(), first.instance());
    drop(first);
    assert_eq!(second.verify().unwrap(), Standing::Held);
    let mut other = sandbox.party();
    assert_eq!(other.try_acquire(&["token"])["held"]["reason"], "anchor_held");
    assert!(matches!(second.release(), Ok(Released::Free)));
    assert_eq!(sandbox.live_rows(), 0);
}

/// FIELD-BUGS rows 32 and 73: an owner whose store was deleted still acts; so its kernel lock
/// refuses everybody until it is gone.
#[test]
fn the_holder_in_a_store_that_was_deleted_still_refuses() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    let store = sandbox.here();
    for identity in ["token", "another"] {
        let holder = lock_refused(store.try_acquire(&request(identity)));
        assert_eq!((holder.reason, holder.pid), ("orphaned_anchor", Some(owner.pid())));
        assert!(holder.advice().contains(&owner.pid().to_string()), "{}", holder.advice());
    }
    let limit = Wait::UpTo(Duration::from_millis(20));
    assert_eq!(
        lock_refused(store.acquire(&request("token"), &waiting(limit))).reason,
        "orphaned_anchor"
    );
    assert_eq!(owner.about("verify", 0)["lost"], "StoreReplaced");
    assert_eq!(owner.about("renew", 0)["lost"], "StoreReplaced");
    let thread = acquires(&store, &["token"]);
    sandbox.wait_for_lock_waiters(1);
    assert_eq!(owner.about("release", 0), "WasLost");
    owner.0.finish(LIMIT).assert_code(0);
    let (locks, _) = thread.join().unwrap();
    assert_eq!(locks[0].verify().unwrap(), Standing::Held);
}

/// All who lost the same store go on in the next one. What each of them held there none of the
/// others can hold, so it gets that back; of anything else one of them may be the holder.
#[test]
fn in_the_next_store_each_holder_gets_back_what_it_held() {
    let sandbox = Sandbox::new();
    let (mut one, mut other) = (sandbox.party(), sandbox.party());
    let before = [one.acquire(&["a"])[0], other.acquire(&["b"])[0]];
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    for party in [&mut one, &mut other] {
        assert_eq!(party.ask(&json!({"do": "open"})), "opened");
    }
    for not_its_own in [["b"].as_slice(), &["c"], &["a", "b"]] {
        let answer = one.try_acquire(not_its_own);
        assert_eq!(answer["held"]["reason"], "orphaned_anchor", "{not_its_own:?}: {answer:#}");
        assert_eq!(answer["held"]["pid"], other.pid(), "{not_its_own:?}: {answer:#}");
    }
    let again = [one.acquire(&["a"])[0], other.acquire(&["b"])[0]];
    assert!(again.iter().min() > before.iter().max(), "{again:?} after {before:?}");
    assert_eq!(one.try_acquire(&["b"])["held"]["pid"], other.pid());
    assert_eq!(other.try_acquire(&["a"])["held"]["pid"], one.pid());
    // The guards of the old store say so, and end nothing in the new one.
    assert_eq!(one.about("verify", 0)["lost"], "StoreReplaced");
    assert_eq!(one.about("release", 0), "WasLost");
    assert_eq!(one.about("verify", 1), "held");
}

/// An upgrade in place: the same process executes itself anew, and its kernel lock goes with that.
#[test]
fn a_re_executed_process_gets_its_lock_back() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let fence = owner.acquire(&["token"])[0];
    assert_eq!(owner.ask(&json!({"do": "execute"})), "executing");
    assert_eq!(owner.ask(&json!({"do": "open"})), "opened");
    let again = owner.acquire(&["token"])[0];
    assert!(again > fence, "its first life is another holder: {again} after {fence}");
    let listed = lock_report(&store, "token");
    assert_eq!((listed.pid, listed.fence), (Some(owner.pid()), again));
    assert_eq!(sandbox.live_rows(), 1);
}

/// FIELD-BUGS row 79: no lease, no start ever waits for one.
#[test]
fn a_killed_holders_lock_is_free_at_once() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    fences(&owner.ask(&json!({"do": "acquire", "ids": ["token"], "ttl_ms": 3_600_000})));
    owner.0.kill();
    let lock = lock_granted(store.try_acquire(&request("token")));
    let evicted = lock.evicted().unwrap();
    assert_eq!((evicted.reason, evicted.pid), ("anchor_released", Some(owner.pid())));
    assert_eq!(evicted.profile.as_ref().unwrap().as_str(), "work");
    assert_eq!(sandbox.live_rows(), 1, "its row has ended, too");
}

/// Somebody tidied up: a kernel lock on a file without a name is seen by nobody, until the holder
/// looks the next time.
#[test]
fn a_removed_anchor_is_made_anew_by_verify() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for name in sandbox.anchor_names() {
        std::fs::remove_file(sandbox.anchors().join(name)).unwrap();
    }
    assert_eq!(lock_refused(store.try_acquire(&request("token"))).reason, "start_time_matches");
    assert_eq!(owner.about("verify", 0), "held");
    assert_eq!(lock_refused(store.try_acquire(&request("token"))).reason, "anchor_held");
    assert_eq!(owner.about("release", 0), "Free");
    lock_granted(store.try_acquire(&request("token"))).release().unwrap();
}

/// Whoever takes the office of the dead ends the locks that were taken from it.
#[test]
fn the_locks_of_a_dead_office_end_with_its_row() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    let fence = owner.acquire(&["a", "b"])[0];
    owner.0.kill();
    let Claim::Granted(tenure) = store.profile("work").unwrap().claim().unwrap() else {
        panic!("held")
    };
    assert!(store.locks().unwrap().is_empty());
    assert_eq!(sandbox.locks_on_record(), 0);
    let lock = lock_granted(tenure.try_acquire(&request("a")));
    assert!(lock.fence() > fence && lock.evicted().is_none());
}

#[test]
fn a_loser_lets_go_of_nothing() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let fence = owner.acquire(&["token"])[0];
    let holder = lock_refused(store.try_acquire(&request("token")));
    let error = store.release_all(holder.instance.unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotOwner, "{error}");
    drop((holder, store));
    assert_eq!(owner.about("verify", 0), "held");
    let store = sandbox.here();
    assert_eq!(lock_report(&store, "token").fence, fence);
    // Nor does one that had it before.
    let stale = {
        owner.about("release", 0);
        let stale = lock_granted(store.try_acquire(&request("token")));
        store.unlock(stale.name(), Force::Yes, "a person").unwrap();
        stale
    };
    let mine = lock_granted(store.try_acquire(&request("token")));
    assert!(mine.fence() > stale.fence());
    assert!(matches!(stale.release(), Ok(Released::WasLost)));
    assert_eq!(mine.verify().unwrap(), Standing::Held);
}

/// FIELD-BUGS row 41. Symptom: a restart wiped every token lock on the machine. Cause: its cleanup
/// did not ask whose they were.
#[test]
fn releasing_one_owners_locks_leaves_the_others() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut one, mut other) = (sandbox.party(), sandbox.party());
    one.claim("one");
    other.claim("other");
    one.acquire(&["a", "b"]);
    let fences = other.acquire(&["c", "d"]);
    assert_eq!(one.about("release all", 0), 2);
    assert_eq!(one.ask(&json!({"do": "verify office"})), "held");
    assert_eq!(one.about("verify", 0), json!({"lost": "released", "by": null}));
    assert_eq!(other.about("verify", 0), "held");
    assert_eq!(other.about("verify", 1), "held");
    let listed: Vec<_> = store.locks().unwrap().iter().map(|lock| lock.fence).collect();
    assert_eq!((listed.len(), listed.iter().min()), (2, fences.iter().min()));
    // What is left of the guards is nobody's.
    let next = lock_granted(store.try_acquire(&request("a")));
    assert_eq!(one.ask(&json!({"do": "drop"})), "dropped");
    assert_eq!(next.verify().unwrap(), Standing::Held);
    assert_eq!(other.about("release all", 0), 2);
    assert_eq!(sandbox.locks_on_record(), 1);
}

#[test]
fn release_all_of_a_process_without_an_office_ends_its_row() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let locks = lock_granted(store.acquire_all(&requests(&["a", "b"]), &AcquireOptions::new()));
    let instance = locks[0].instance();
    assert_eq!(store.release_all(instance).unwrap(), 2);
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
    assert!(matches!(locks[0].verify().unwrap(), Standing::Lost(_)));
    assert_eq!(store.release_all(instance).unwrap_err().kind(), ErrorKind::NotOwner);
    let again = lock_granted(store.try_acquire(&request("a")));
    drop(locks);
    assert_eq!(again.verify().unwrap(), Standing::Held);
}

/// FIELD-BUGS row 42. Symptom: a failed connect left the token locked by ourselves. Cause: an error
/// path without a release. The guard has none to forget.
#[test]
fn an_early_return_releases() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut other = sandbox.party();
    let connect = || -> std::result::Result<ScopedLock, &'static str> {
        let lock = lock_granted(store.try_acquire(&request("token")));
        assert!(!lock.reacquired(), "left from the last time");
        Err("503")?;
        Ok(lock)
    };
    for _ in 0..3 {
        assert_eq!(connect().unwrap_err(), "503");
    }
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _lock = lock_granted(store.try_acquire(&request("token")));
        std::panic::resume_unwind(Box::new("a panic"));
    }));
    assert!(unwound.is_err());
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
    other.acquire(&["token"]);
}

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

const TTL: Duration = Duration::from_secs(10);
const TTL_MS: i64 = 10_000;

impl Sandbox {
    /// The store as it is seen so long after [`BOOT_MS`].
    fn here_after(&self, after_ms: i64) -> Store {
        OpenOptions::new().path(self.db()).clock(clock(BOOT_MS + after_ms)).open().unwrap()
    }

    /// Makes every anchor one that cannot be seen, as in another container.
    fn hide_anchors(&self) {
        self.forge("UPDATE instances SET anchor = NULL");
        for name in self.anchor_names() {
            std::fs::remove_file(self.anchors().join(name)).unwrap();
        }
    }

    /// A party at [`BOOT_MS`] that holds `leased`, as long as [`TTL`], and `plain`.
    fn lessee(&self, profile: Option<&str>) -> Party {
        let mut owner = self.party_with(&json!({"boot_ms": BOOT_MS}));
        if let Some(profile) = profile {
            owner.claim(profile);
        }
        fences(&owner.ask(&json!({"do": "acquire", "ids": ["leased"], "ttl_ms": TTL_MS})));
        owner.acquire(&["plain"]);
        owner
    }
}

#[test]
fn what_is_left_of_a_lease_is_shown() {
    let sandbox = Sandbox::new();
    let clock = clock(BOOT_MS);
    let store = OpenOptions::new().path(sandbox.db()).clock(clock.clone()).open().unwrap();
    let left = || lock_report(&store, "token").lease_remaining_ms;
    let lock = lock_granted(store.try_acquire(&leased("token", TTL)));
    assert_eq!(left(), Some(TTL_MS));
    clock.advance(Duration::from_secs(4));
    assert_eq!(left(), Some(6_000));
    clock.step_wall_ms(1_000_000);
    assert_eq!(left(), Some(6_000), "the wall clock says nothing about it");
    assert_eq!(lock.renew().unwrap(), Standing::Held);
    assert_eq!(left(), Some(TTL_MS));
    clock.advance(Duration::from_secs(11));
    assert_eq!(left(), Some(0));
    // Acquired again, it is what was asked for now.
    let _again = lock_granted(store.try_acquire(&leased("token", Duration::from_secs(1))));
    assert_eq!(left(), Some(1_000));
    let _again = lock_granted(store.try_acquire(&request("token")));
    assert_eq!(left(), None);
    assert_eq!(lock.renew().unwrap(), Standing::Held);
    assert_eq!(left(), None);
    let document = lock_report(&store, "token").to_json();
    assert_eq!(document["lease_remaining_ms"], Value::Null);
}

/// An owner whose renewals are late because its machine is busy is alive all the same: as long as
/// the kernel holds its lock, no time to live ends anything.
#[test]
fn an_overdue_lease_is_a_flag_while_its_owner_can_be_seen() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.lessee(None);
    let store = sandbox.here_after(TTL_MS - 1);
    let holder = lock_refused(store.try_acquire(&request("leased")));
    assert!(!holder.flags.lease_overdue, "{holder:?}");
    drop(store);
    let store = sandbox.here_after(TTL_MS);
    for options in [AcquireOptions::new(), evicting()] {
        let holder = lock_refused(store.acquire(&request("leased"), &options));
        assert_eq!((holder.verdict, holder.reason), ("alive", "anchor_held"));
        assert!(holder.flags.lease_overdue, "{holder:?}");
        assert_eq!(holder.to_json()["flags"], json!(["lease_overdue"]));
    }
    let listed = lock_report(&store, "leased");
    assert_eq!((listed.lease_remaining_ms, listed.verdict), (Some(0), "alive"));
    assert!(listed.flags.lease_overdue);
    assert!(!lock_report(&store, "plain").flags.lease_overdue, "another lock's lease is its own");
    assert!(store.unlock_stale("a sweep").unwrap().is_empty());
    assert_eq!(owner.about("verify", 0), "held");
}

#[test]
fn a_late_renewal_by_the_unrivalled_owner_succeeds() {
    let sandbox = Sandbox::new();
    let clock = clock(BOOT_MS);
    let store = OpenOptions::new().path(sandbox.db()).clock(clock.clone()).open().unwrap();
    let lock = lock_granted(store.try_acquire(&leased("token", TTL)));
    let fence = lock.fence();
    for _ in 0..3 {
        clock.advance(TTL * 100);
        assert_eq!(lock.verify().unwrap(), Standing::Held);
        assert_eq!(lock.renew().unwrap(), Standing::Held);
        let listed = lock_report(&store, "token");
        assert_eq!((listed.fence, listed.lease_remaining_ms), (fence, Some(TTL_MS)));
    }
    clock.advance(TTL * 2);
    let again = lock_granted(store.try_acquire(&leased("token", TTL)));
    assert!(again.reacquired());
    assert_eq!(again.fence(), fence);
}

/// Where no anchor can be seen, a lease is all there is to know when to give up on an owner. It
/// ends that lock, and nothing else of its owner's.
#[test]
fn where_no_anchor_is_seen_a_lease_that_ran_out_ends_that_lock_only() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.lessee(Some("work"));
    sandbox.hide_anchors();
    let early = sandbox.here_after(TTL_MS - 1);
    let holder = lock_refused(early.try_acquire(&request("leased")));
    assert_eq!((holder.verdict, holder.reason), ("alive", "start_time_matches"));
    drop(early);
    let store = sandbox.here_after(TTL_MS);
    let listed = lock_report(&store, "leased");
    assert_eq!((listed.verdict, listed.reason), ("dead", "lease_expired"));
    assert_eq!(lock_report(&store, "plain").verdict, "alive");
    let holder = lock_refused(store.try_acquire(&request("plain")));
    assert_eq!(holder.reason, "start_time_matches");
    // All or none here as well.
    lock_refused(store.acquire_all(&requests(&["leased", "plain"]), &AcquireOptions::new()));
    assert_eq!(lock_report(&store, "leased").fence, listed.fence);

    let lock = lock_granted(store.try_acquire(&request("leased")));
    let evicted = lock.evicted().unwrap();
    assert_eq!((evicted.reason, evicted.pid), ("lease_expired", Some(owner.pid())));
    assert!(lock.fence() > listed.fence);
    assert!(store.profile("work").unwrap().status().unwrap().running, "the office stays");
    assert_eq!(lock_report(&store, "plain").instance, listed.instance);
    for verb in ["verify", "renew"] {
        let answer = owner.about(verb, 0);
        assert_eq!(answer["lost"], "lease_expired", "{verb}: {answer}");
        let by = answer["by"].as_str().unwrap();
        assert!(by.contains(&std::process::id().to_string()), "{verb}: {by}");
    }
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert_eq!(owner.about("release", 0), "WasLost");
    assert_eq!(owner.about("verify", 1), "held");
    assert_eq!(owner.ask(&json!({"do": "verify office"})), "held");
    assert_eq!(lock.verify().unwrap(), Standing::Held);
}

#[test]
fn where_no_anchor_is_seen_a_late_renewal_comes_before_the_rival() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.lessee(None);
    sandbox.hide_anchors();
    sandbox.forge(&format!("UPDATE scoped_locks SET lease_until_ms = {BOOT_MS} WHERE ttl_ms > 0"));
    let store = sandbox.here_after(0);
    let before = lock_report(&store, "leased");
    assert_eq!((before.reason, before.lease_remaining_ms), ("lease_expired", Some(0)));
    assert_eq!(owner.about("renew", 0), "held");
    let after = lock_report(&store, "leased");
    assert_eq!((after.fence, after.lease_remaining_ms), (before.fence, Some(TTL_MS)));
    lock_refused(store.try_acquire(&request("leased")));
}

/// A lease that began in our future is of a boot before: its time has passed, whatever its number.
#[test]
fn a_lease_of_another_boot_is_over() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.lessee(None);
    sandbox.forge(
        "UPDATE scoped_locks SET lease_boot_id = '11111111-2222-3333-4444-555555555555',
             lease_until_ms = lease_until_ms + 100000000
         WHERE ttl_ms > 0",
    );
    let store = sandbox.here_after(0);
    let listed = lock_report(&store, "leased");
    assert_eq!((listed.verdict, listed.lease_remaining_ms), ("alive", Some(0)));
    assert!(listed.flags.lease_overdue);
    lock_refused(store.try_acquire(&request("leased")));
    assert_eq!(owner.about("verify", 0), "held");
    sandbox.hide_anchors();
    let lock = lock_granted(store.try_acquire(&request("leased")));
    assert_eq!(lock.evicted().unwrap().reason, "lease_expired");
    lock_refused(store.try_acquire(&request("plain")));
}

/// A time that no program of ours can have written says nothing: it is not fresh, and it ends
/// nothing either.
#[test]
fn an_absurd_lease_is_neither_fresh_nor_over() {
    let far_ms = BOOT_MS + 31 * 24 * 3_600_000;
    for until_ms in [-1, i64::MIN, far_ms, i64::MAX] {
        let sandbox = Sandbox::new();
        let mut owner = sandbox.lessee(None);
        sandbox.forge(&format!(
            "UPDATE scoped_locks SET lease_until_ms = {until_ms} WHERE ttl_ms > 0"
        ));
        let store = sandbox.here_after(TTL_MS * 2);
        for reason in ["anchor_held", "start_time_matches"] {
            if reason != "anchor_held" {
                sandbox.hide_anchors();
            }
            let listed = lock_report(&store, "leased");
            assert_eq!(listed.lease_remaining_ms, None, "until {until_ms}");
            assert_eq!((listed.verdict, listed.reason), ("alive", reason), "until {until_ms}");
            assert!(!listed.flags.lease_overdue, "until {until_ms}");
            let holder = lock_refused(store.try_acquire(&request("leased")));
            assert_eq!(holder.reason, reason, "until {until_ms}");
        }
        assert_eq!(owner.about("renew", 0), "held");
        drop(store);
        let listed = lock_report(&sandbox.here_after(0), "leased");
        assert_eq!(listed.lease_remaining_ms, Some(TTL_MS), "renewed, it is a lease again");
    }
}

#[test]
fn a_time_to_live_has_bounds() {
    const DAY: Duration = Duration::from_hours(24);
    for ttl in
        [Duration::ZERO, Duration::from_micros(999), DAY * 30 + TTL, DAY * 400, Duration::MAX]
    {
        let error = request("token").ttl(ttl).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{ttl:?}");
        assert!(error.hint().unwrap().contains("30 days"), "{error}");
    }
    let sandbox = Sandbox::new();
    let store = sandbox.here_after(0);
    for (ttl, left_ms) in [(Duration::from_millis(1), 1), (DAY * 30, 30 * 24 * 3_600_000)] {
        let _lock = lock_granted(store.try_acquire(&leased("token", ttl)));
        assert_eq!(lock_report(&store, "token").lease_remaining_ms, Some(left_ms));
    }
}

/// FIELD-BUGS rows 20 and 21. Stopped is not dead; whoever knows better says so, and the owner
/// learns it when it goes on, from every call and from its watch.
#[test]
fn a_stopped_owner_is_evicted_on_request_only() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    let fence = owner.acquire(&["token", "other"])[0];
    assert_eq!(owner.about("watch", 0), "watching");
    owner.stop();
    let holder = lock_refused(store.try_acquire(&request("token")));
    assert!(holder.flags.stopped, "{holder:?}");
    assert_eq!((holder.verdict, holder.reason), ("alive", "anchor_held"));
    let advice = holder.advice();
    assert!(advice.contains(&format!("kill -CONT {}", owner.pid())), "{advice}");

    let lock = lock_granted(store.acquire(&request("token"), &evicting()));
    let evicted = lock.evicted().unwrap();
    assert_eq!((evicted.reason, evicted.pid), ("evicted", Some(owner.pid())));
    assert!(lock.fence() > fence);
    // That lock, and nothing else of its owner's.
    let profile = store.profile("work").unwrap();
    assert!(matches!(profile.claim().unwrap(), Claim::Held(_)));
    assert_eq!(lock_refused(store.try_acquire(&request("other"))).pid, Some(owner.pid()));
    assert!(Stat::of(owner.pid()).is_some_and(|stat| stat.state == 'T'), "nobody signals it");

    owner.go_on();
    let said = owner.0.err_line_with("the watch says: ");
    assert!(said.contains("evicted"), "{said}");
    for verb in ["verify", "renew"] {
        let answer = owner.about(verb, 0);
        assert_eq!(answer["lost"], "evicted", "{verb}: {answer}");
        let by = answer["by"].as_str().unwrap();
        assert!(by.contains(&format!("pid {}", std::process::id())), "{verb}: {by}");
    }
    assert_eq!(owner.try_acquire(&["token"])["held"]["pid"], std::process::id());
    assert_eq!(owner.about("release", 0), "WasLost");
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert_eq!(owner.about("verify", 1), "held");
    assert_eq!(owner.ask(&json!({"do": "verify office"})), "held");
}

#[test]
fn a_running_owner_is_never_evicted() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let holder = lock_refused(store.acquire(&request("token"), &evicting()));
    assert!(!holder.flags.stopped, "{holder:?}");
    let patient = evicting().wait(Wait::UpTo(Duration::from_millis(600)));
    lock_refused(store.acquire(&request("token"), &patient));
    // One that was stopped and runs again.
    owner.stop();
    owner.go_on();
    eventually("it goes on", LIMIT, || (Stat::of(owner.pid())?.state != 'T').then_some(()));
    lock_refused(store.acquire(&request("token"), &evicting()));
    assert_eq!(owner.about("verify", 0), "held");
}

/// A debugger stops healthy processes, with state `t`.
#[test]
fn a_traced_owner_is_never_evicted() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let pid = i32::try_from(owner.pid()).unwrap();
    if !tracer::trace(pid) {
        return skipped("needs leave to trace");
    }
    assert_eq!(Stat::of(owner.pid()).unwrap().state, 't');
    let holder = lock_refused(store.acquire(&request("token"), &evicting()));
    assert_eq!(holder.reason, "anchor_held");
    tracer::let_go(pid);
    assert_eq!(owner.about("verify", 0), "held");
}

#[test]
fn a_waiter_that_may_evict_wakes_when_the_owner_is_stopped() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let thread = std::thread::spawn({
        let store = store.clone();
        move || lock_granted(store.acquire(&request("token"), &evicting().wait(Wait::UpTo(LIMIT))))
    });
    sandbox.wait_for_lock_waiters(1);
    owner.stop();
    let stopped = Instant::now();
    let lock = thread.join().unwrap();
    let took = stopped.elapsed();
    assert_eq!(lock.evicted().unwrap().reason, "evicted");
    assert_within(Duration::from_secs(3), took, "the eviction");
    owner.go_on();
    assert_eq!(owner.about("verify", 0)["lost"], "evicted");
    assert_eq!(lock.verify().unwrap(), Standing::Held);
}

/// The two looks take 200 ms; a deadline before that is kept, and evicts nobody.
#[test]
fn an_eviction_does_not_outlast_the_deadline() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    owner.stop();
    let limit = Duration::from_millis(50);
    let late = (0..3).map(|_| {
        let asked = Instant::now();
        lock_refused(store.acquire(&request("token"), &evicting().wait(Wait::UpTo(limit))));
        asked.elapsed().checked_sub(limit).expect("not before the deadline")
    });
    let late = late.min().unwrap();
    assert_within(SOON, late, "beyond the deadline");
    owner.go_on();
    assert_eq!(owner.about("verify", 0), "held");
}

/// What is stopped must be proven to be the owner: without a start time on record, or with that of
/// another process, nobody is evicted.
#[test]
fn an_owner_that_is_not_proven_stopped_is_not_evicted() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    owner.stop();
    for columns in ["start_time = NULL", "host = 'another'", "pid_ns = 'another'"] {
        let saved = "CREATE TABLE saved AS SELECT * FROM instances";
        sandbox.forge(saved);
        sandbox.forge(&format!("UPDATE instances SET {columns}"));
        lock_refused(store.acquire(&request("token"), &evicting()));
        sandbox.forge(
            "UPDATE instances SET (start_time, host, pid_ns) =
                 (SELECT start_time, host, pid_ns FROM saved WHERE saved.id = instances.id)",
        );
        sandbox.forge("DROP TABLE saved");
    }
    owner.go_on();
    assert_eq!(owner.about("verify", 0), "held");
    // Another process is stopped, whose pid the record has come to name.
    let decoy = Process::start(sandbox.program("cat"));
    decoy.signal(Signal::STOP);
    wait_stopped(decoy.pid());
    sandbox.forge(&format!(
        "UPDATE instances SET process_inode = NULL, pid = {}, start_time = NULL",
        decoy.pid()
    ));
    lock_refused(store.acquire(&request("token"), &evicting()));
    assert_eq!(owner.about("verify", 0), "held");
}

/// All or none: a lock whose owner may be evicted is left alone when another one is not to be had.
#[test]
fn a_stopped_owner_is_not_evicted_for_a_claim_that_fails() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut stopped, mut running) = (sandbox.party(), sandbox.party());
    stopped.acquire(&["a"]);
    running.acquire(&["b"]);
    stopped.stop();
    let holder = lock_refused(store.acquire_all(&requests(&["a", "b"]), &evicting()));
    assert_eq!(holder.pid, Some(running.pid()));
    stopped.go_on();
    assert_eq!(stopped.about("verify", 0), "held");
    assert_eq!(running.about("verify", 0), "held");
}

#[test]
fn several_stopped_owners_are_evicted_together() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owners: Vec<_> = (0..3).map(|_| sandbox.party()).collect();
    let identities = ["a", "b", "c"];
    for (owner, identity) in owners.iter_mut().zip(identities) {
        owner.acquire(&[identity]);
        owner.stop();
    }
    let locks = lock_granted(store.acquire_all(&requests(&identities), &evicting()));
    for (lock, owner) in locks.iter().zip(&mut owners) {
        assert_eq!(lock.evicted().unwrap().pid, Some(owner.pid()));
        owner.go_on();
        assert_eq!(owner.about("verify", 0)["lost"], "evicted");
        assert_eq!(owner.about("release", 0), "WasLost");
    }
    // Nothing else kept their rows.
    assert_eq!(sandbox.live_rows(), 1);
}

/// Found stopped once is not enough: one that goes on within the 200 ms keeps its lock.
#[test]
fn an_owner_that_goes_on_in_time_keeps_its_lock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let mut kept = 0;
    let began = Instant::now();
    for round in 0.. {
        if round >= 5 && kept > 0 {
            break;
        }
        assert!(began.elapsed() < LIMIT, "the machine is too busy to tell");
        owner.acquire(&["token"]);
        owner.stop();
        let asked = Instant::now();
        let thread = std::thread::spawn({
            let store = store.clone();
            move || store.acquire(&request("token"), &evicting()).unwrap()
        });
        // Long enough for the first look, too short for the second: it is about that interval.
        std::thread::sleep(Duration::from_millis(80));
        owner.go_on();
        // On a busy machine it may have been too late.
        let was_in_time = asked.elapsed() < Duration::from_millis(150);
        let answer = thread.join().unwrap();
        if was_in_time {
            assert!(matches!(answer, Acquire::Held(_)), "evicted: {answer:?}");
            assert_eq!(owner.about("verify", round), "held");
            kept += 1;
        }
        drop(answer);
        owner.about("release", round);
    }
}

/// Acquires in a thread of its own; with when that was granted.
fn acquires(store: &Store, identities: &[&str]) -> JoinHandle<(Vec<ScopedLock>, Instant)> {
    let (store, wanted) = (store.clone(), requests(identities));
    std::thread::spawn(move || {
        let locks = lock_granted(store.acquire_all(&wanted, &waiting(Wait::UpTo(LIMIT))));
        (locks, Instant::now())
    })
}

/// The middle one of several: one round may meet a busy machine, most of them may not.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_release_wakes_the_waiter_of_a_lock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let mut took = Vec::new();
    for round in 0..9 {
        let fence = owner.acquire(&["token"])[0];
        let thread = acquires(&store, &["token"]);
        sandbox.wait_for_lock_waiters(1);
        let waiters = lock_report(&store, "token").waiters;
        assert_eq!(waiters.len(), 1);
        assert_eq!(waiters[0].pid, Some(std::process::id()));
        assert_eq!(waiters[0].to_json()["pid"], std::process::id());
        let released = Instant::now();
        assert_eq!(owner.about("release", round), "Free");
        let (locks, at) = thread.join().unwrap();
        took.push(at.saturating_duration_since(released));
        assert!(locks[0].fence() > fence);
        assert!(lock_report(&store, "token").waiters.is_empty());
    }
    assert_within(SOON, median(took.clone()), &format!("{took:?}"));
}

#[test]
fn a_killed_holder_wakes_the_waiter_of_a_lock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut took = Vec::new();
    for _ in 0..5 {
        let mut owner = sandbox.party();
        owner.acquire(&["token"]);
        let thread = acquires(&store, &["token"]);
        sandbox.wait_for_lock_waiters(1);
        let killed = Instant::now();
        owner.0.kill();
        let (locks, at) = thread.join().unwrap();
        took.push(at.saturating_duration_since(killed));
        assert_eq!(locks[0].evicted().unwrap().pid, Some(owner.pid()));
    }
    assert_within(SOON, median(took.clone()), &format!("{took:?}"));
}

#[test]
fn the_deadline_of_a_wait_is_kept() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for limit in [Duration::from_millis(1), Duration::from_millis(50), Duration::from_millis(250)] {
        let late: Vec<_> = (0..5)
            .map(|_| {
                let asked = Instant::now();
                let holder =
                    lock_refused(store.acquire(&request("token"), &waiting(Wait::UpTo(limit))));
                assert_eq!(holder.pid, Some(owner.pid()));
                asked.elapsed().checked_sub(limit).expect("never before the deadline")
            })
            .collect();
        assert_within(SOON, median(late.clone()), &format!("{limit:?}: late by {late:?}"));
        assert_eq!(sandbox.live_rows(), 1, "no waiter is left");
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
}

/// Where the store cannot even be looked at, that is the answer, and not later.
#[test]
fn a_wait_for_a_busy_store_ends_with_its_deadline() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let limit = Duration::from_millis(200);
    let asked = Instant::now();
    let error = store.acquire(&request("token"), &waiting(Wait::UpTo(limit))).unwrap_err();
    let took = asked.elapsed();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(took >= limit, "{took:?}");
    assert_within(limit + Duration::from_secs(2), took, "the answer");
    blocker.execute_batch("ROLLBACK").unwrap();
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
    lock_granted(store.acquire(&request("token"), &waiting(Wait::UpTo(limit)))).release().unwrap();
}

/// Nor does a stuck writer lengthen a wait: the deadline holds for the store's locks, too.
#[test]
fn the_deadline_is_kept_while_the_store_is_busy() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let limit = Duration::from_secs(2);
    let asked = Instant::now();
    let thread = std::thread::spawn({
        let store = store.clone();
        move || lock_refused(store.acquire(&request("token"), &waiting(Wait::UpTo(limit))))
    });
    sandbox.wait_for_lock_waiters(1);
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(thread.join().unwrap().pid, Some(owner.pid()));
    let took = asked.elapsed();
    assert!(took >= limit, "{took:?}");
    assert_within(limit + Duration::from_secs(2), took, "the answer");
    blocker.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn a_wait_of_zero_for_a_lock_tries_once() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    lock_refused(store.acquire(&request("token"), &waiting(Wait::UpTo(Duration::ZERO))));
    assert_eq!(sandbox.number("SELECT count(*) FROM events WHERE event = 'lock_awaited'"), 0);
    assert_eq!(owner.about("release", 0), "Free");
    drop(lock_granted(store.acquire(&request("token"), &waiting(Wait::UpTo(Duration::ZERO)))));
}

#[test]
fn a_cancelled_wait_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for _ in 0..3 {
        let cancel = Cancel::new();
        let thread = std::thread::spawn({
            let (store, cancel) = (store.clone(), cancel.clone());
            let options = waiting(Wait::Forever).cancel(cancel);
            move || lock_refused(store.acquire(&request("token"), &options))
        });
        sandbox.wait_for_lock_waiters(1);
        let cancelled = Instant::now();
        cancel.cancel();
        assert_eq!(thread.join().unwrap().pid, Some(owner.pid()));
        let took = cancelled.elapsed();
        assert_within(Duration::from_secs(2), took, "it");
        assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
        assert_eq!(sandbox.live_rows(), 1);
        assert!(lock_report(&store, "token").waiters.is_empty());
    }
    // One that was used before does not even begin to wait.
    let used = Cancel::new();
    used.cancel();
    lock_refused(store.acquire(&request("token"), &waiting(Wait::Forever).cancel(used)));
    // The files that it was seen by are garbage, which goes with the next grant.
    assert_eq!(owner.about("release", 0), "Free");
    let _lock = lock_granted(store.try_acquire(&request("token")));
    assert!(sandbox.anchor_names().len() <= 2, "{:?}", sandbox.anchor_names());
}

/// A standby that asks with a deadline, again and again, for as long as the holder lives: whatever
/// it leaves each time would pile up for days, because nobody is granted anything meanwhile.
#[test]
fn waits_in_vain_do_not_pile_up_anchors() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for _ in 0..300 {
        let limit = Wait::UpTo(Duration::from_millis(1));
        lock_refused(store.acquire(&request("token"), &waiting(limit)));
    }
    let (anchors, rows) =
        (sandbox.anchor_names().len(), sandbox.number("SELECT count(*) FROM instances"));
    assert!(anchors <= 128 && rows <= 328, "after 300 waits: {anchors} anchors, {rows} rows");
}

#[test]
fn a_killed_waiter_blocks_nobody_and_is_not_listed() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut owner, mut waiter, mut next) = (sandbox.party(), sandbox.party(), sandbox.party());
    owner.acquire(&["token"]);
    waiter.wait(&["token"]);
    sandbox.wait_for_lock_waiters(1);
    assert_eq!(lock_report(&store, "token").waiters[0].pid, Some(waiter.pid()));
    waiter.0.kill();
    assert!(lock_report(&store, "token").waiters.is_empty(), "a dead waiter is listed");
    assert_eq!(owner.about("release", 0), "Free");
    next.acquire(&["token"]);
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0, "the grant swept it");
    assert_eq!(sandbox.live_rows(), 1);
}

/// R:STOP.
#[test]
fn a_stopped_waiter_of_a_lock_blocks_nobody() {
    let sandbox = Sandbox::new();
    let (mut owner, mut waiter, mut next) = (sandbox.party(), sandbox.party(), sandbox.party());
    owner.acquire(&["token"]);
    waiter.wait(&["token"]);
    sandbox.wait_for_lock_waiters(1);
    waiter.stop();
    assert_eq!(owner.about("release", 0), "Free");
    let fence = next.acquire(&["token"])[0];
    waiter.go_on();
    assert_eq!(next.about("release", 0), "Free");
    let answer = waiter.ask(&json!({"do": "waited"}));
    assert!(fences(&answer)[0] > fence, "{answer}");
}

/// Of several locks a wait is for the first one that is held; it takes none before it has all.
#[test]
fn a_wait_for_several_locks_moves_on_to_the_next() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut one, mut other) = (sandbox.party(), sandbox.party());
    one.acquire(&["a"]);
    other.acquire(&["c"]);
    let thread = acquires(&store, &["a", "b", "c"]);
    let waits_for = |identity: &str| {
        eventually(&format!("it waits for {identity}"), LIMIT, || {
            let waiters = lock_report(&store, identity).waiters;
            waiters.first().map(|waiter| assert_eq!(waiter.pid, Some(std::process::id())))
        });
    };
    waits_for("a");
    assert!(lock_report(&store, "c").waiters.is_empty());
    assert_eq!(one.about("release", 0), "Free");
    waits_for("c");
    assert!(!is_listed(&store, "a") && !is_listed(&store, "b"), "nothing is held meanwhile");
    // It can be had by somebody else meanwhile, and is waited for again.
    one.acquire(&["a"]);
    assert_eq!(other.about("release", 0), "Free");
    waits_for("a");
    assert!(!is_listed(&store, "c"));
    assert_eq!(one.about("release", 1), "Free");
    let (locks, _) = thread.join().unwrap();
    assert_eq!(locks.len(), 3);
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
    assert_eq!(sandbox.locks_on_record(), 3);
}

/// Taken from an office, a lock is waited for in the name of its profile.
#[test]
fn a_waiter_with_an_office_is_named_by_its_profile() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let Claim::Granted(tenure) = store.profile("work").unwrap().claim().unwrap() else {
        panic!("held")
    };
    let options = waiting(Wait::UpTo(LIMIT));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| lock_granted(tenure.acquire(&request("token"), &options)));
        sandbox.wait_for_lock_waiters(1);
        let waiter = lock_report(&store, "token").waiters.remove(0);
        assert_eq!(waiter.profile.unwrap().as_str(), "work");
        assert_eq!(waiter.pid, Some(std::process::id()));
        assert_eq!(owner.about("release", 0), "Free");
        let lock = thread.join().unwrap();
        assert_eq!(lock.instance(), tenure.instance());
        assert_eq!(lock.verify().unwrap(), Standing::Held);
    });
    assert_eq!(sandbox.live_rows(), 1, "the office's");
}

/// A process has one anchor for all it is: that one thread lets go of its last lock must not make
/// another one's wait invisible, nor the end of a wait a lock.
#[test]
fn what_one_thread_ends_leaves_the_others_alone() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut owner, mut other) = (sandbox.party(), sandbox.party());
    owner.acquire(&["token"]);
    let cancel = Cancel::new();
    let wait = |cancel: &Cancel| {
        let (store, options) = (store.clone(), waiting(Wait::Forever).cancel(cancel.clone()));
        let thread = std::thread::spawn(move || store.acquire(&request("token"), &options));
        sandbox.wait_for_lock_waiters(1);
        thread
    };
    let thread = wait(&cancel);
    drop(lock_granted(store.try_acquire(&request("mine"))));
    let waiters = lock_report(&store, "token").waiters;
    assert_eq!(waiters.len(), 1, "the waiter lost its anchor");
    // Whoever is granted something next sweeps the dead.
    other.acquire(&["mine"]);
    assert_eq!(lock_report(&store, "token").waiters.len(), 1, "the waiter was swept");
    assert_eq!(other.about("release", 0), "Free");

    let mine = lock_granted(store.try_acquire(&request("mine")));
    cancel.cancel();
    lock_refused(thread.join().unwrap());
    assert_eq!(other.try_acquire(&["mine"])["held"]["reason"], "anchor_held");
    assert_eq!(mine.verify().unwrap(), Standing::Held);
    // Nor a wait that is granted.
    let thread = wait(&Cancel::new());
    assert_eq!(owner.about("release", 0), "Free");
    let lock = lock_granted(thread.join().unwrap());
    assert_eq!(other.try_acquire(&["mine", "more"])["held"]["reason"], "anchor_held");
    drop(mine);
    assert_eq!(other.try_acquire(&["token"])["held"]["reason"], "anchor_held");
    drop(lock);
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

/// Who asks for the same locks in another order cannot meet half-way: no transaction has some.
#[test]
fn two_that_want_the_same_locks_in_another_order_both_get_them() {
    let sandbox = Sandbox::new();
    let (mut owner, mut one, mut other) = (sandbox.party(), sandbox.party(), sandbox.party());
    let last = owner.acquire(&["a", "b"])[1];
    one.wait(&["a", "b"]);
    other.wait(&["b", "a"]);
    sandbox.wait_for_lock_waiters(2);
    assert_eq!(owner.ask(&json!({"do": "drop"})), "dropped");
    // Whichever is first ends its locks with its process.
    let store = sandbox.here();
    let first = eventually("one of them has both", LIMIT, || {
        store.locks().unwrap().into_iter().find(|lock| lock.fence > last)?.pid
    });
    let (mut first, mut second) = if first == one.pid() { (one, other) } else { (other, one) };
    let had = fences(&first.ask(&json!({"do": "waited"})));
    first.0.kill();
    let has = fences(&second.ask(&json!({"do": "waited"})));
    assert!(has.iter().min() > had.iter().max(), "{has:?} after {had:?}");
}

/// No lock of the kernel's says when a lease runs out: the waiter has to look.
#[test]
fn a_waiter_gets_a_lock_whose_lease_runs_out_unseen() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    fences(&owner.ask(&json!({"do": "acquire", "ids": ["token"], "ttl_ms": 400})));
    sandbox.hide_anchors();
    let asked = Instant::now();
    let lock = lock_granted(store.acquire(&request("token"), &waiting(Wait::UpTo(LIMIT))));
    assert_eq!(lock.evicted().unwrap().reason, "lease_expired");
    let refusals = sandbox.number("SELECT sum(count) FROM lock_conflicts");
    assert_eq!(refusals, 1, "a waiter is refused once, however often it looks");
    assert_within(Duration::from_secs(5), asked.elapsed(), "it");
    assert_eq!(owner.about("verify", 0)["lost"], "lease_expired");
}

#[test]
fn a_wait_in_a_store_that_is_replaced_is_an_error() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let thread = std::thread::spawn({
        let store = store.clone();
        move || store.acquire(&request("token"), &waiting(Wait::Forever))
    });
    sandbox.wait_for_lock_waiters(1);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    let error = thread.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreReplaced, "{error}");
}

/// All who wait get their turn, one at a time.
#[test]
fn four_waiters_hold_one_after_the_other() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.party();
    let mut last = owner.acquire(&["token"])[0];
    let mut waiters: Vec<_> = (0..4).map(|_| sandbox.party()).collect();
    for waiter in &mut waiters {
        waiter.wait(&["token"]);
    }
    sandbox.wait_for_lock_waiters(4);
    assert_eq!(owner.about("release", 0), "Free");
    let store = sandbox.here();
    while !waiters.is_empty() {
        let next = eventually("somebody holds it", LIMIT, || {
            let pid = store.locks().unwrap().first().filter(|lock| lock.fence > last)?.pid;
            waiters.iter().position(|waiter| Some(waiter.pid()) == pid)
        });
        let mut next = waiters.remove(next);
        let fence = fences(&next.ask(&json!({"do": "waited"})))[0];
        assert!(fence > last, "{fence} after {last}");
        last = fence;
        assert_eq!(next.about("verify", 0), "held");
        assert_eq!(lock_report(&store, "token").waiters.len(), waiters.len());
        assert_eq!(next.about("release", 0), "Free");
    }
    assert_eq!(sandbox.live_rows(), 0);
}

/// FIELD-BUGS row 70. Symptom: a forked child's cleanup let go of its parent's lock.
#[test]
fn a_forked_child_has_no_part_in_its_parents_locks() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let fences = owner.acquire(&["token", "other"]);
    owner.0.say(&json!({"do": "fork"}).to_string());
    let said = owner.0.err_line_with("child: ");
    assert_eq!(said.matches("Err(\"forked\")").count(), 6, "{said}");
    let ended = owner.0.err_line_with("=> ");
    assert!(ended.ends_with("=> 0"), "{ended}");
    assert_eq!(owner.about("verify", 0), "held");
    assert_eq!(owner.about("verify", 1), "held");
    for (identity, fence) in ["token", "other"].iter().zip(fences) {
        assert_eq!(lock_report(&store, identity).fence, fence);
        assert_eq!(lock_refused(store.try_acquire(&request(identity))).pid, Some(owner.pid()));
    }
    assert_eq!(owner.about("release", 0), "Free");
    assert_eq!(owner.about("release", 1), "Free");
}

/// A gateway that takes and releases its lock for every message leaves no more than one that did so
/// once.
#[test]
fn taking_and_releasing_leaves_nothing_that_grows() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut last = 0;
    for _ in 0..400 {
        let lock = lock_granted(store.try_acquire(&request("token")));
        assert!(lock.fence() > last);
        last = lock.fence();
    }
    let anchors = sandbox.anchor_names().len();
    let rows = sandbox.number("SELECT count(*) FROM instances");
    assert!(anchors <= 2 && rows <= 232, "{anchors} anchors, {rows} rows");
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

/// A release waits for its turn to be written like any change; what could not be written then is
/// written with the next change, and a lock that was acquired again meanwhile is not touched by it.
#[test]
fn a_release_in_a_busy_store_is_pending_until_the_next_change() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party_with(&json!({"busy_ms": 50}));
    let fence = owner.acquire(&["a", "b"])[0];
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    let pending = |owner: &mut Party| owner.ask(&json!({"do": "pending"}));

    // One of two locks, and then the last one, with which its row ends.
    for (lock, count) in [(0, 1), (1, 2)] {
        blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(owner.about("release", lock), json!({"pending": "busy"}));
        blocker.execute_batch("ROLLBACK").unwrap();
        assert_eq!(pending(&mut owner), count);
    }
    let again = owner.acquire(&["a"]);
    assert_eq!(pending(&mut owner), 0);
    assert!(again[0] > fence, "{again:?} after {fence}");
    assert_eq!(owner.about("verify", 2), "held");
    assert!(!is_listed(&store, "b"));
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (1, 1));
}

/// Not being able to write is not a loss, and questions are answered.
#[test]
fn a_busy_store_is_no_loss() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party_with(&json!({"busy_ms": 50}));
    fences(&owner.ask(&json!({"do": "acquire", "ids": ["token"], "ttl_ms": 60_000})));
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(owner.about("verify", 0), "held");
    assert_eq!(owner.about("renew", 0)["error"], "busy");
    assert_eq!(lock_report(&store, "token").reason, "anchor_held");
    blocker.execute_batch("ROLLBACK").unwrap();
    assert_eq!(owner.about("renew", 0), "held");
}

/// Ownership ends with the kernel's lock, not with the row: a release that could not be written
/// keeps nobody out.
#[test]
fn a_pending_release_of_the_last_lock_blocks_nobody() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party_with(&json!({"busy_ms": 50}));
    let fence = owner.acquire(&["token"])[0];
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(owner.about("release", 0), json!({"pending": "busy"}));
    blocker.execute_batch("ROLLBACK").unwrap();
    let lock = lock_granted(store.try_acquire(&request("token")));
    assert!(lock.fence() > fence);
    // What is written later ends nothing of the next holder's.
    owner.acquire(&["other"]);
    assert_eq!(owner.ask(&json!({"do": "pending"})), 0);
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert_eq!(lock_report(&store, "token").fence, lock.fence());
}

/// R:FULL. FIELD-BUGS row 78.
#[test]
fn a_release_on_a_full_disk_is_kept_and_written_later() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let open = || {
        let mut party = Party(disk.role(ROLE_TEST, LOCKER));
        assert_eq!(party.ask(&json!({"do": "open"})), "opened");
        party
    };
    let (mut owner, mut other) = (open(), open());
    let fences = owner.acquire(&["a", "b", "c"]);
    disk.fill_up();
    for (lock, count) in [(0, 1), (1, 2)] {
        assert_eq!(owner.about("release", lock), json!({"pending": "cannot_write"}));
        assert_eq!(owner.ask(&json!({"do": "pending"})), count);
    }
    // Nothing is granted that cannot be recorded, and questions are answered.
    assert_eq!(other.try_acquire(&["d"])["error"], "cannot_write");
    let listed = other.ask(&json!({"do": "list"}));
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed:#}");
    assert_eq!(owner.about("verify", 2), "held");
    disk.shell("rm store/fill").assert_code(0);
    // The next change of its own writes them.
    assert_eq!(owner.about("renew", 2), "held");
    assert_eq!(owner.ask(&json!({"do": "pending"})), 0);
    assert!(other.acquire(&["a", "b"])[0] > fences[2]);
    assert_eq!(other.try_acquire(&["c"])["held"]["pid"], owner.pid());
}

#[test]
fn unlock_ends_a_live_holders_lock_by_force_only() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    let fence = owner.acquire(&["a", "b"])[0];
    let unlock = |force| store.unlock(&name("a"), force, "a test of unlock");
    let Unlocked::Refused(holder) = unlock(Force::No).unwrap() else { panic!("not refused") };
    assert_eq!((holder.pid, holder.reason), (Some(owner.pid()), "anchor_held"));
    assert_eq!(owner.about("verify", 0), "held");
    let Unlocked::Done(done) = unlock(Force::Yes).unwrap() else { panic!("not done") };
    assert_eq!(done.name, name("a"));
    assert_eq!(done.profile.unwrap().as_str(), "work");
    assert_eq!((done.pid, done.fence), (Some(owner.pid()), fence));
    assert_eq!((done.verdict, done.reason), ("alive", "anchor_held"));
    assert!(matches!(unlock(Force::Yes).unwrap(), Unlocked::Nothing));
    assert!(matches!(store.unlock(&name("nobody's"), Force::No, "me").unwrap(), Unlocked::Nothing));
    // It learns who did it; the rest of what it has stays.
    for verb in ["verify", "renew"] {
        let answer = owner.about(verb, 0);
        assert_eq!(answer, json!({"lost": "evicted", "by": "a test of unlock"}), "{verb}");
    }
    assert_eq!(owner.about("verify", 1), "held");
    assert_eq!(owner.ask(&json!({"do": "verify office"})), "held");
    assert_eq!(owner.about("release", 0), "WasLost");
    let lock = lock_granted(store.try_acquire(&request("a")));
    assert!(lock.fence() > fence);
}

/// There is always a verb that a person can use, also for an owner that nobody can look at.
#[test]
fn unlock_ends_an_unknown_holders_lock_by_force() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    owner.0.kill();
    sandbox.forge("UPDATE instances SET anchor = NULL, host = 'another'");
    let holder = lock_refused(store.try_acquire(&request("token")));
    assert_eq!((holder.verdict, holder.reason), ("unknown", "foreign_namespace"));
    let refused = store.unlock(&name("token"), Force::No, "me").unwrap();
    assert!(matches!(&refused, Unlocked::Refused(_)), "{refused:?}");
    let Unlocked::Done(done) = store.unlock(&name("token"), Force::Yes, "me").unwrap() else {
        panic!("not done")
    };
    assert_eq!((done.verdict, done.reason), ("unknown", "foreign_namespace"));
    let ended = "SELECT count(*) FROM events WHERE event = 'lock_ended'
        AND json_extract(detail, '$.by') = 'me' AND json_extract(detail, '$.reason') = 'evicted'";
    assert_eq!(sandbox.number(ended), 1, "it is on record who did it");
    lock_granted(store.try_acquire(&request("token"))).release().unwrap();
}

/// The row of a process without an office ends with its last guard, also when that one was lost.
#[test]
fn the_last_guard_of_a_lost_lock_ends_its_row() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let lock = lock_granted(store.try_acquire(&request("token")));
    assert!(matches!(store.unlock(lock.name(), Force::Yes, "me").unwrap(), Unlocked::Done(_)));
    assert_eq!(lock.verify().unwrap(), lost("evicted", Some("me")));
    assert!(matches!(lock.release(), Ok(Released::WasLost)));
    assert_eq!(sandbox.live_rows(), 0);
}

#[test]
fn a_watch_tells_of_an_unlock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let lock = lock_granted(store.try_acquire(&request("token")));
    let (sender, received) = channel();
    let watch = lock.watch(move |lost| sender.send(lost).unwrap()).unwrap();
    // By another process: through the very handle that is watched it would be no news.
    let mut command = sandbox.incumbent(["unlock", SCOPE, "--hash"]);
    command.arg(name("token").identity_hash.to_string()).arg("--force");
    Process::start(command).finish(LIMIT).assert_code(0);
    let Lost::Ended { reason, by } = received.recv_timeout(LIMIT).unwrap() else {
        panic!("another loss")
    };
    assert_eq!(reason, "evicted");
    assert!(by.unwrap().contains("unlock"));
    drop(watch);
    assert!(received.recv().is_err(), "it tells once");
}

#[test]
fn unlock_removes_a_dead_holders_lock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["a", "b"]);
    owner.0.kill();
    let unlocked = store.unlock(&name("a"), Force::No, "me").unwrap();
    let Unlocked::Done(done) = unlocked else { panic!("{unlocked:?}") };
    assert_eq!((done.verdict, done.reason), ("dead", "anchor_released"));
    assert_eq!(sandbox.live_rows(), 0);
    assert!(!is_listed(&store, "a"));
    assert!(lock_granted(store.try_acquire(&request("b"))).fence() > done.fence);
}

#[test]
fn unlock_stale_removes_only_the_dead() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut dead, mut live, mut stopped, mut unknown) =
        (sandbox.party(), sandbox.party(), sandbox.party(), sandbox.party());
    let gone = dead.acquire(&["dead 1", "dead 2"]);
    live.acquire(&["live"]);
    stopped.acquire(&["stopped"]);
    unknown.acquire(&["unknown"]);
    let mine = lock_granted(store.try_acquire(&request("mine")));
    dead.0.kill();
    stopped.stop();
    sandbox.forge(&format!(
        "UPDATE instances SET anchor = NULL, host = 'another' WHERE pid = {}",
        unknown.pid()
    ));
    assert_eq!(lock_report(&store, "unknown").verdict, "unknown");
    let removed = store.unlock_stale("a sweep").unwrap();
    let mut fences: Vec<_> = removed.iter().map(|lock| lock.fence).collect();
    fences.sort_unstable();
    assert_eq!(fences, gone, "{removed:?}");
    for lock in &removed {
        assert_eq!((lock.verdict, lock.reason), ("dead", "anchor_released"));
        assert_eq!(lock.pid, Some(dead.pid()));
    }
    assert_eq!(sandbox.locks_on_record(), 4);
    assert_eq!(live.about("verify", 0), "held");
    assert_eq!(mine.verify().unwrap(), Standing::Held);
    stopped.go_on();
    assert_eq!(stopped.about("verify", 0), "held");
    assert!(store.unlock_stale("a sweep").unwrap().is_empty());
}

/// FIELD-BUGS row 67. Symptom: 333 conflicts over a token in a week that nobody saw, and a
/// contender that leaked a descriptor with each. A conflict is one counted row.
#[test]
fn a_hundred_refusals_are_one_conflict_and_cost_no_descriptors() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let lock = lock_granted(store.try_acquire(&request("token")));
    let mut contender = sandbox.party();
    let answer = contender.ask(&json!({"do": "contend", "ids": ["token"], "count": 100}));
    assert_eq!(answer["before"], answer["after"], "descriptors: {answer}");
    let conflicts = lock_report(&store, "token").conflicts;
    let [conflict] = conflicts.as_slice() else { panic!("{conflicts:?}") };
    assert_eq!((conflict.count, conflict.pid), (100, i64::from(contender.pid())));
    assert_eq!(conflict.profile, None);
    assert!(conflict.first_at_ms <= conflict.last_at_ms);
    let refused = "SELECT count(*) FROM events WHERE event = 'lock_refused'";
    assert_eq!(sandbox.number(refused), 1, "one event, too");
    assert_eq!(lock_report(&store, "token").to_json()["conflicts"][0]["count"], 100);
    // A contender with an office is named by it. A wait is one refusal, however often it looks.
    contender.claim("work");
    contender.try_acquire(&["token"]);
    let conflicts = lock_report(&store, "token").conflicts;
    assert_eq!(conflicts.len(), 2, "{conflicts:?}");
    assert!(conflicts.iter().any(|conflict| conflict.profile.as_deref() == Some("work")));
    contender.0.kill();
    let mut waiter = sandbox.party();
    waiter.wait(&["token"]);
    sandbox.wait_for_lock_waiters(1);
    drop(lock);
    fences(&waiter.ask(&json!({"do": "waited"})));
    let total = sandbox.number("SELECT sum(count) FROM lock_conflicts");
    assert_eq!(total, 102);
    assert!(lock_report(&store, "token").conflicts.is_empty(), "the next holder's own begin anew");
}
