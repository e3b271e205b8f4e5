//! One stray close or deleted file at a time.

use super::AN_EVENT;
use super::storm::{World, inodes_of, sqlite3};
use crate::support::{LIMIT, Process, beside, has, skipped};

/// An owner that has acknowledged something.
pub struct Obedient {
    world: World,
    owner: Process,
    files: [Option<u64>; 3],
}

impl Obedient {
    fn new(without: Option<&str>) -> Self {
        let world = World::new();
        let owner = world.owner("obedient", 0, without);
        let files = inodes_of(&world.sandbox.db());
        let mut this = Self { world, owner, files };
        assert_eq!(this.told("status"), "acknowledged");
        this
    }

    /// The answer, or how it ended.
    fn told(&mut self, order: &str) -> String {
        if !self.owner.has_ended() {
            self.owner.say(order);
        }
        self.answer()
    }

    fn answer(&mut self) -> String {
        match self.owner.err_line_with_or_end("=> ") {
            Some(line) => line.split_once("=> ").unwrap().1.to_owned(),
            None => self.owner.wait(LIMIT).to_string(),
        }
    }

    fn sqlite3(&self, statement: &str) {
        if let Err(error) = sqlite3(&self.world.sandbox, statement) {
            self.world.notes.broken(&format!("sqlite3: {statement}: {error:?}"));
        }
    }

    pub fn broken(&self, what: &str) {
        self.world.notes.broken(what);
    }

    /// One more change, and what others see of it and of the database.
    fn end(mut self) -> Vec<String> {
        match self.told("status").as_str() {
            "acknowledged" => {}
            answer => self.broken(&format!("a status: {answer}")),
        }
        self.world.look_at_files(&self.files);
        self.world.look_at_status(0);
        self.world.look_at_the_end(&[]);
        self.world.notes.all_broken()
    }
}

/// In the middle of a change, after a close that cancelled the lock of a writer, somebody else
/// writes.
pub fn another_writer(without: Option<&str>) -> Vec<String> {
    let mut owner = Obedient::new(without);
    owner.told(&format!("meanwhile -shm {AN_EVENT}"));
    let meanwhile = owner.told("status");
    if !meanwhile.contains("locked") {
        owner.broken(&format!("somebody wrote in the middle of a change: {meanwhile}"));
    }
    match owner.answer().as_str() {
        "acknowledged" => {}
        answer => owner.broken(&format!("the change: {answer}")),
    }
    owner.end()
}

/// In the middle of a change, after a close that cancelled the lock of the one that uses it,
/// somebody else opens the `-shm`: does he find it in use?
pub fn another_reader(without: Option<&str>) -> Vec<String> {
    let mut owner = Obedient::new(without);
    owner.told("meanwhile -shm SELECT count(*) FROM events");
    let meanwhile = owner.told("status");
    if !meanwhile.contains("exit status: 0") {
        owner.broken(&format!("nobody can read in the middle of a change: {meanwhile}"));
    }
    match owner.answer().as_str() {
        "acknowledged" => {}
        answer => owner.broken(&format!("the change: {answer}")),
    }
    owner.end()
}

/// After a close that cancelled the lock on the database, somebody else closes it: he is not the
/// last.
pub fn another_that_closes(without: Option<&str>) -> Vec<String> {
    let mut owner = Obedient::new(without);
    owner.told("close state.db");
    owner.sqlite3("SELECT count(*) FROM events");
    owner.end()
}

/// A cleaner of old files deletes some that are in use, and somebody else makes them again, if he
/// can: with half of them he cannot read at all. Then an owner is told that its store is another
/// one.
pub fn a_cleaner(of: &[&str], without: Option<&str>) -> Vec<String> {
    let mut owner = Obedient::new(without);
    for suffix in of {
        std::fs::remove_file(beside(&owner.world.sandbox.db(), suffix)).unwrap();
    }
    let _ = sqlite3(&owner.world.sandbox, "SELECT count(*) FROM events");
    match owner.told("status").as_str() {
        "acknowledged" => owner.world.look_at_status(0),
        answer if answer.starts_with("StoreReplaced") => {}
        answer => owner.broken(&format!("a status: {answer}")),
    }
    owner.world.notes.all_broken()
}

#[test]
fn one_stray_close_at_a_time_breaks_nothing() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    assert_eq!(another_writer(None), [""; 0]);
    assert_eq!(another_reader(None), [""; 0]);
    assert_eq!(another_that_closes(None), [""; 0]);
}

#[test]
fn a_file_that_is_deleted_under_its_owner_takes_no_acknowledged_write_with_it() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    assert_eq!(a_cleaner(&["-wal"], None), [""; 0]);
    assert_eq!(a_cleaner(&["-shm"], None), [""; 0]);
    assert_eq!(a_cleaner(&["-wal", "-shm"], None), [""; 0]);
}
