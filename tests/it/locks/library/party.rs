//! The party that the tests order about: one order a line, one answer a line, both JSON.

use std::thread::JoinHandle;
use std::time::Duration;

use incumbent::lock::AcquireOptions;
use incumbent::{
    Acquire, Claim, LockRequest, LossWatch, Lost, OpenOptions, Released, Result, ScopedLock,
    Standing, Store, Tenure, Wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::slots::take_turns;
use super::{SCOPE, clock, fences, request, waiting};
use crate::support::{Process, forked, obey_orders, plays, role_db, test_name, wait_stopped};

pub const ROLE_TEST: &str = test_name!(role_of_a_locker);
pub const LOCKER: &str = "locker";

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
pub struct Locker {
    store: Option<Store>,
    tenure: Option<Tenure>,
    /// In the order of their acquisition; a place stays when its lock is let go.
    pub locks: Vec<Option<ScopedLock>>,
    watches: Vec<LossWatch>,
    pub wait: Option<JoinHandle<Result<Acquire<Vec<ScopedLock>>>>>,
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
            if let Some(slots) = order["slots"].as_u64() {
                request = request.slots(u32::try_from(slots).unwrap())?;
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
            "close" => {
                self.store = None;
                json!("closed")
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
            "turns" => {
                let (wanted, count) = (wanted(&identities, order)?, order["count"].as_u64());
                let directory = order["in"].as_str().unwrap();
                take_turns(self.store(), &wanted[0], count.unwrap(), directory);
                json!("taken")
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
                json!(self.store().locks()?)
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
    pub fn acquire(&mut self, wanted: &[LockRequest]) -> Result<Value> {
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
            Acquire::Held(holder) => json!({"held": json!(holder)}),
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

/// Another process, which has the store open.
pub struct Party(pub Process);

impl Party {
    #[track_caller]
    pub fn ask(&mut self, order: &Value) -> Value {
        self.0.say(&order.to_string());
        let line = self.0.err_line_with("=> ");
        serde_json::from_str(line.split_once("=> ").unwrap().1).unwrap()
    }

    /// Orders about one of its locks, by the order of their acquisition.
    #[track_caller]
    pub fn about(&mut self, verb: &str, lock: usize) -> Value {
        self.ask(&json!({"do": verb, "lock": lock}))
    }

    #[track_caller]
    pub fn try_acquire(&mut self, identities: &[&str]) -> Value {
        self.ask(&json!({"do": "acquire", "ids": identities}))
    }

    /// Acquires all of them, returns the fences.
    #[track_caller]
    pub fn acquire(&mut self, identities: &[&str]) -> Vec<i64> {
        fences(&self.try_acquire(identities))
    }

    #[track_caller]
    pub fn wait(&mut self, identities: &[&str]) {
        assert_eq!(self.ask(&json!({"do": "wait", "ids": identities})), "waiting");
    }

    /// Takes the office that its locks are taken from.
    #[track_caller]
    pub fn claim(&mut self, profile: &str) {
        let answer = self.ask(&json!({"do": "claim", "profile": profile}));
        assert!(answer.is_i64(), "{answer}");
    }

    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub fn stop(&self) {
        self.0.signal(Signal::STOP);
        wait_stopped(self.pid());
    }

    pub fn go_on(&self) {
        self.0.signal(Signal::CONT);
    }
}
