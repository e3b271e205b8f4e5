//! An owner that works while others open and close its files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use incumbent::{
    Acquire, Claim, ErrorKind, LockRequest, OpenOptions, Released, Standing, StatusUpdate, Store,
    Tenure,
};
use serde_json::json;

use super::counts::{Count, PYTHON};
use super::obedient::obedient;
use super::witness::{Notes, Others, Witness};
use super::{OWNERS, SUFFIXES, open_and_close, pause};
use crate::support::second_sqlite::{Python, SecondSqlite};
use crate::support::{LIMIT, Random, beside, order, role, role_db, skipped, test_name};

pub const ROLE_TEST: &str = test_name!(role_of_an_owner);

/// Plays an owner: `owner N`, `lonely N` without others in its process, or `obedient`.
#[test]
fn role_of_an_owner() {
    let Some(role) = role() else { return };
    match role.split(' ').collect::<Vec<_>>().as_slice() {
        ["owner", number] => Owner::new(number.parse().unwrap()).run(Others::All),
        ["lonely", number] => Owner::new(number.parse().unwrap()).run(Others::OneShell),
        ["obedient"] => obedient(),
        _ => {}
    }
}

#[derive(Default)]
pub struct Counts {
    statuses: AtomicU64,
    locks: AtomicU64,
    offices: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
    closes: AtomicU64,
    second: AtomicU64,
    python: AtomicU64,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

pub struct Owner {
    number: u64,
    pub store: Store,
    database: PathBuf,
    pub notes: Notes,
    seed: u64,
    pub is_over: AtomicBool,
    counts: Counts,
    /// Another one that opens the database in this process does it alone: their locks are not ours
    /// to protect, and each close would cancel those of the other.
    others: Mutex<()>,
}

impl Owner {
    fn new(number: u64) -> Self {
        let database = role_db();
        // The machine may be busy, and a VACUUM takes its time.
        let options = OpenOptions::new().path(&database).busy_budget(LIMIT);
        Self {
            number,
            store: options.open().unwrap(),
            database,
            notes: Notes { place: std::env::current_dir().unwrap() },
            seed: std::env::var("STORM_SEED").unwrap().parse().unwrap(),
            is_over: AtomicBool::new(false),
            counts: Counts::default(),
            others: Mutex::new(()),
        }
    }

    fn run(&self, others: Others) {
        let profile = self.store.profile(format!("owner-{}", self.number)).unwrap();
        let Claim::Granted(tenure) = profile.claim().unwrap() else {
            panic!("it is nobody else's")
        };
        eprintln!("=> there");
        assert_eq!(order().as_deref(), Some("go"));
        std::thread::scope(|scope| {
            scope.spawn(|| self.write_statuses(&tenure));
            scope.spawn(|| self.compete_for_a_lock());
            scope.spawn(|| self.compete_for_an_office());
            scope.spawn(|| self.open_and_close_files());
            if others == Others::All {
                scope.spawn(|| self.be_another_sqlite());
                scope.spawn(|| self.be_python());
            }
            order();
            self.is_over.store(true, Ordering::Relaxed);
        });
        let Counts { statuses, locks, offices, refused, busy, closes, second, python } =
            &self.counts;
        eprintln!(
            "=> owner {}: {statuses:?} statuses, {locks:?} locks and {offices:?} offices \
             ({refused:?} \
             refusals), {busy:?} busy, {closes:?} stray closes, {second:?} by another SQLite, \
             {python:?} by Python",
            self.number
        );
        // The others look at what it holds.
        order();
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn random(&self, number: u64) -> Random {
        Random::new(self.seed.wrapping_add(self.number * 100 + number))
    }

    pub fn broken(&self, what: &str) {
        self.notes.broken(&format!("owner {}: {what}", self.number));
    }

    /// A store that stayed busy was not changed; everything else is a fault, because nobody here
    /// deletes or replaces anything.
    fn failed(&self, what: &str, error: &incumbent::Error) {
        if error.kind() == ErrorKind::Busy {
            add(&self.counts.busy);
        } else {
            self.broken(&format!("{what}: {:?}: {error}", error.kind()));
        }
    }

    fn held(&self, what: &str, standing: incumbent::Result<Standing>) {
        match standing {
            Ok(Standing::Held) => {}
            Ok(Standing::Lost(lost)) => self.broken(&format!("{what} was lost: {lost:?}")),
            Err(error) => self.failed(what, &error),
        }
    }

    /// Counts in its status, and says which number was acknowledged. What the other owner said so
    /// is seen.
    fn write_statuses(&self, tenure: &Tenure) {
        let mut random = self.random(1);
        let path = self.notes.place.join(format!("acknowledged-{}", self.number));
        let acknowledged = File::create(path).unwrap();
        let mut number = 0_u64;
        while !self.is_over() {
            number += 1;
            match tenure.update_status(&StatusUpdate::new().extra(json!({ "number": number }))) {
                Ok(()) => {
                    acknowledged.write_all_at(&number.to_le_bytes(), 0).unwrap();
                    add(&self.counts.statuses);
                }
                Err(error) => self.failed("a status", &error),
            }
            self.held("its own office", tenure.verify());
            for other in 0..OWNERS {
                self.look_at(other);
            }
            random.pause_up_to(Duration::from_millis(2));
        }
    }

    fn look_at(&self, other: u64) {
        let Some(acknowledged) = self.notes.acknowledged(other) else { return };
        match self.store.profile(format!("owner-{other}")).and_then(|profile| profile.status()) {
            Ok(report) => {
                let extra = report.runtime.and_then(|runtime| runtime.extra);
                let seen = extra.and_then(|extra| extra["number"].as_u64());
                if seen.is_none_or(|seen| seen < acknowledged) {
                    self.broken(&format!(
                        "owner {other} was told that {acknowledged} is written, and {seen:?} is \
                         seen"
                    ));
                }
            }
            Err(error) => self.failed("a question", &error),
        }
    }

    fn released(&self, what: &str, released: incumbent::Result<Released>) {
        match released {
            Ok(Released::Free) => {}
            Ok(Released::Pending(error)) | Err(error) => self.failed(what, &error),
            Ok(released) => {
                self.broken(&format!("{what} was not there to be released: {released:?}"));
            }
        }
    }

    fn compete_for_a_lock(&self) {
        let mut random = self.random(2);
        let witness = Witness::of(&self.notes.place, "lock");
        let request = LockRequest::new("token", "one for all").unwrap();
        while !self.is_over() {
            match self.store.try_acquire(&request) {
                Ok(Acquire::Granted(lock)) => {
                    add(&self.counts.locks);
                    if let Err(wrong) = witness.enter(lock.fence()) {
                        self.broken(&format!("the lock: {wrong}"));
                    }
                    self.held("the lock", lock.verify());
                    random.pause_up_to(Duration::from_millis(2));
                    witness.leave();
                    self.released("the lock", lock.release());
                }
                Ok(Acquire::Held(_)) => add(&self.counts.refused),
                Err(error) => self.failed("the lock", &error),
            }
            random.pause_up_to(Duration::from_millis(2));
        }
    }

    fn compete_for_an_office(&self) {
        let mut random = self.random(3);
        let witness = Witness::of(&self.notes.place, "office");
        let profile = self.store.profile("shared").unwrap();
        while !self.is_over() {
            match profile.claim() {
                Ok(Claim::Granted(tenure)) => {
                    add(&self.counts.offices);
                    if let Err(wrong) = witness.enter(tenure.instance().as_i64()) {
                        self.broken(&format!("the office: {wrong}"));
                    }
                    self.held("the office", tenure.verify());
                    random.pause_up_to(Duration::from_millis(2));
                    witness.leave();
                    self.released("the office", tenure.release());
                }
                Ok(Claim::Held(_)) => add(&self.counts.refused),
                Err(error) => self.failed("the office", &error),
            }
            random.pause_up_to(Duration::from_millis(2));
        }
    }

    fn open_and_close_files(&self) {
        let mut random = self.random(4);
        while !self.is_over() {
            let suffix = SUFFIXES[random.index(SUFFIXES.len())];
            let alone = (suffix == "-shm")
                .then(|| self.others.lock().unwrap_or_else(PoisonError::into_inner));
            open_and_close(&beside(&self.database, suffix));
            drop(alone);
            add(&self.counts.closes);
            // Sometimes one after another.
            if random.chance(2) {
                random.pause_up_to(Duration::from_millis(2));
            }
        }
    }

    fn be_another_sqlite(&self) {
        let Some(second) = SecondSqlite::load() else {
            return skipped("another SQLite: needs libsqlite3.so.0");
        };
        let mut random = self.random(5);
        let mut count = Count::new(format!("second-{}", self.number));
        while !self.is_over() {
            let (statement, counts) = count.draw(&mut random, &["PRAGMA quick_check"]);
            let alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            let done = second.once(&self.database, &statement);
            drop(alone);
            if let Err(wrong) = count.check(&statement, counts, done) {
                self.broken(&format!("another SQLite: {wrong}"));
            }
            self.counts.second.store(count.done, Ordering::Relaxed);
            pause(&mut random);
        }
        let _alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(wrong) = count.look(&self.database) {
            self.broken(&wrong);
        }
    }

    fn be_python(&self) {
        let mut random = self.random(6);
        // It may do all that it does while it begins.
        let alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(python) = Python::load() else {
            return skipped("Python in the same process: needs libpython3 and its sqlite3");
        };
        drop(alone);
        let program = PYTHON
            .replace("DATABASE", &self.database.display().to_string())
            .replace("COUNTER", &format!("python-{}", self.number));
        assert!(python.run(&program));
        while !self.is_over() {
            let acts = ["read()", "read()", "count()", "count()", "checkpoint()", "hash_it()"];
            let act = acts[random.index(acts.len())];
            let alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            let is_done = python.run(act);
            drop(alone);
            if is_done {
                add(&self.counts.python);
            } else {
                self.broken(&format!("Python in the same process: {act}, see what it said"));
            }
            pause(&mut random);
        }
        // It counts once more than it has counted. Others may still close files.
        let _alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if !python.run("count()") {
            self.broken("Python in the same process: the last count, see what it said");
        }
    }
}
