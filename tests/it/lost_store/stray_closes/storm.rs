//! The storm: owners and others at once, until the time is over or something is broken.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::counts::Count;
use super::owner::ROLE_TEST;
use super::witness::{Notes, Others};
use super::{OWNERS, SHELLS, SUFFIXES, pause};
use crate::support::second_sqlite::Failed;
use crate::support::{LIMIT, Process, Random, Sandbox, beside, has, skipped};

/// What everybody shares who is no owner.
pub struct World {
    pub sandbox: Sandbox,
    pub notes: Notes,
    is_over: AtomicBool,
}

/// What came of a storm.
pub struct Outcome {
    pub broken: Vec<String>,
    pub lasted: Duration,
}

pub fn sqlite3(sandbox: &Sandbox, statement: &str) -> Result<Option<String>, Failed> {
    /// Several waits of those that one statement may have to wait.
    const LIMIT_OF_A_SHELL: Duration = Duration::from_mins(2);
    let mut command = sandbox.program("sqlite3");
    command.args(["-batch", "-bail", "-cmd", ".timeout 20000"]).arg(sandbox.db()).arg(statement);
    let answer = Process::start(command).finish(LIMIT_OF_A_SHELL);
    match answer.code() {
        0 => Ok(answer.out.lines().last().map(str::to_owned)),
        _ if answer.err.contains("locked") => Err(Failed::Busy),
        code => Err(Failed::Otherwise(format!("{} ({code})", answer.err.trim()))),
    }
}

pub fn inodes_of(database: &Path) -> [Option<u64>; 3] {
    SUFFIXES.map(|suffix| std::fs::metadata(beside(database, suffix)).map(|it| it.ino()).ok())
}

/// By a connection that reads, and so leaves nothing behind.
pub fn asked(database: &Path, question: &str) -> rusqlite::Result<String> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(LIMIT)?;
    connection.query_row(question, [], |row| {
        Ok(match row.get::<_, rusqlite::types::Value>(0)? {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        })
    })
}

impl World {
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        let notes = Notes { place: sandbox.path().to_owned() };
        Self { sandbox, notes, is_over: AtomicBool::new(false) }
    }

    pub fn owner(&self, role: &str, seed: u64, without: Option<&str>) -> Process {
        let mut command = self.sandbox.role_command(ROLE_TEST, role);
        command.env("STORM_SEED", seed.to_string());
        if let Some(without) = without {
            command.env("INCUMBENT_WITHOUT_GUARD", without);
        }
        let mut owner = Process::start(command);
        owner.err_line_with("=> there");
        owner
    }

    /// A person, or a script, with `sqlite3`; how often it did something, and how often it was too
    /// busy.
    fn be_a_shell(&self, number: u64, mut random: Random) -> Count {
        let mut count = Count::new(format!("shell-{number}"));
        while !self.is_over.load(Ordering::Relaxed) {
            let (statement, counts) = count.draw(&mut random, &["VACUUM", "PRAGMA quick_check"]);
            let done = sqlite3(&self.sandbox, &statement);
            if let Err(wrong) = count.check(&statement, counts, done) {
                self.notes.broken(&format!("sqlite3: {wrong}"));
            }
            pause(&mut random);
        }
        count
    }

    pub fn look_at_files(&self, before: &[Option<u64>; 3]) {
        let files = inodes_of(&self.sandbox.db());
        if files != *before {
            self.notes.broken(&format!("the files are {files:?}, and were {before:?}"));
        }
    }

    pub fn look_at_status(&self, number: u64) {
        let Some(acknowledged) = self.notes.acknowledged(number) else { return };
        let question = format!(
            "SELECT max(extra ->> '$.number') FROM runtime_status JOIN instances ON id = instance_id
             WHERE profile = 'owner-{number}'"
        );
        match asked(&self.sandbox.db(), &question) {
            Ok(seen) if seen.parse().is_ok_and(|seen: u64| seen >= acknowledged) => {}
            Ok(seen) => self.notes.broken(&format!(
                "owner {number} was told that {acknowledged} is written, and others see {seen}"
            )),
            Err(error) => self.notes.broken(&format!("a look: {error}")),
        }
    }

    fn look_at_all(&self, files: &[Option<u64>; 3], owners: &mut [Process]) {
        self.look_at_files(files);
        for (number, owner) in (0..).zip(owners) {
            if owner.has_ended() {
                self.notes.broken(&format!("owner {number} ended: {}", owner.wait(LIMIT)));
            }
            self.look_at_status(number);
        }
    }

    /// When all is quiet, and the owners still have the store open.
    pub fn look_at_the_end(&self, counts: &[Count]) {
        let database = self.sandbox.db();
        match asked(&database, "PRAGMA integrity_check") {
            Ok(answer) if answer == "ok" => {}
            other => self.notes.broken(&format!("integrity_check: {other:?}")),
        }
        for count in counts {
            if let Err(wrong) = count.look(&database) {
                self.notes.broken(&wrong);
            }
        }
    }
}

/// Lasts `seconds`, or until something is broken.
pub fn storm(seconds: u64, others: Others, without: Option<&str>) -> Outcome {
    let (role, shells) = match others {
        Others::All => ("owner", SHELLS),
        Others::OneShell => ("lonely", 1),
    };
    let mut random = Random::seeded();
    let world = World::new();
    let seed = random.below(1 << 40);
    let mut owners: Vec<_> =
        (0..OWNERS).map(|number| world.owner(&format!("{role} {number}"), seed, without)).collect();
    let beside = (0..shells).map(|number| format!("shell-{number}"));
    let inside = |kind| (0..OWNERS).map(move |number| format!("{kind}-{number}"));
    for name in beside.chain(inside("second")).chain(inside("python")) {
        world.sandbox.forge(&format!("INSERT INTO meta VALUES ('count-{name}', 0)"));
    }
    let files = inodes_of(&world.sandbox.db());
    let started = Instant::now();
    for owner in &mut owners {
        owner.say("go");
    }
    let counts: Vec<Count> = std::thread::scope(|scope| {
        let world = &world;
        let shells: Vec<_> = (0..shells)
            .map(|number| {
                let random = Random::new(random.next());
                scope.spawn(move || world.be_a_shell(number, random))
            })
            .collect();
        while started.elapsed() < Duration::from_secs(seconds)
            && world.notes.all_broken().is_empty()
        {
            world.look_at_all(&files, &mut owners);
            random.pause_up_to(Duration::from_millis(20));
        }
        world.is_over.store(true, Ordering::Relaxed);
        shells.into_iter().map(|shell| shell.join().unwrap()).collect()
    });
    let lasted = started.elapsed();
    if world.notes.all_broken().is_empty() {
        for (number, owner) in owners.iter_mut().enumerate() {
            owner.say("stop");
            match owner.err_line_with_or_end("=> ") {
                Some(line) => eprintln!("{line}"),
                None => world.notes.broken(&format!("owner {number} ended in the end")),
            }
        }
        for Count { name, last, done, busy } in &counts {
            eprintln!("=> {name}: {done} statements, counted to {last}, {busy} busy");
        }
        world.look_at_all(&files, &mut owners);
        world.look_at_the_end(&counts);
    }
    let broken = world.notes.all_broken();
    for mut owner in owners {
        if broken.is_empty() {
            owner.say("leave");
        } else {
            owner.kill();
        }
        let answer = owner.finish(LIMIT);
        for skip in answer.err.lines().filter(|line| line.contains("SKIPPED")) {
            eprintln!("{skip}");
        }
        if !broken.is_empty() {
            eprintln!("{}", answer.err);
        }
    }
    eprintln!("{lasted:?}, without {without:?}: {broken:#?}");
    Outcome { broken, lasted }
}

fn stray_seconds() -> u64 {
    std::env::var("INCUMBENT_STRAY").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[test]
fn whoever_opens_the_files_nothing_is_lost_and_there_are_never_two() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let outcome = storm(stray_seconds(), Others::All, None);
    assert!(outcome.broken.is_empty(), "after {:?}: {:#?}", outcome.lasted, outcome.broken);
}

#[test]
fn one_that_is_always_the_first_and_the_last_of_the_others_breaks_nothing() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let outcome = storm(stray_seconds(), Others::OneShell, None);
    assert!(outcome.broken.is_empty(), "after {:?}: {:#?}", outcome.lasted, outcome.broken);
}
