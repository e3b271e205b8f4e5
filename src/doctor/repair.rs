//! What a doctor may do by itself: what is safe, and would be done by the next start anyway or can
//! be undone. It judges everything again inside its write transaction, and ends only records of the
//! dead. Nobody is killed or evicted, no orphan is removed, no file of another program is touched.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::claim::sweep::{Extent, sweep};
use crate::doctor::check::{Opened, Scene, counted, listed, program};
use crate::doctor::database::{Integrity, Schema, integrity_of, is_damaged, schema_of};
use crate::doctor::owners::anchors;
use crate::doctor::stale::{EndedStale, StaleRecord};
use crate::doctor::{database, stale};
use crate::environment::{Fault, planted};
use crate::liveness::AnchorState;
use crate::process::anchor;
use crate::records::{EventRecord, identities};
use crate::store::ground::close::{Depth, Proof, each_open};
use crate::store::migrate::SCHEMA_VERSION;
use crate::store::{Inner, Tx};
use crate::{Error, ErrorKind, OpenOptions, Result, sys};

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Only said: nothing is written.
    DryRun,
    /// Done and recorded.
    Do,
}

/// What became of an [`Act`]. In the JSON of that: `outcome` is `would`, `done` or `failed`, and
/// `why` is the reason of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It would be done.
    Would,
    /// It was done.
    Done,
    /// It was tried, and was not possible; why.
    Failed(String),
}

/// Something that [`repair`] does about what a check found. `Display` is a line for people. In JSON
/// an object with `check`, `act`, `outcome`, `why` and `record`; later versions may add others.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Act {
    /// The check, as in [`Finding::id`](super::Finding::id).
    pub check: &'static str,
    /// What is done, beginning with the verb.
    pub act: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The record that it is about, if it is about one.
    pub record: Option<StaleRecord>,
}

impl Act {
    pub(crate) fn new(check: &'static str, act: String, outcome: Outcome) -> Self {
        Self { check, act, outcome, record: None }
    }

    fn of_record((name, record): (String, StaleRecord), outcome: Outcome) -> Self {
        Self { record: Some(record.clone()), ..Self::new("stale_rows", record.act(&name), outcome) }
    }

    /// As the CLI's JSON shows it.
    fn document(&self) -> Value {
        let (outcome, why) = match &self.outcome {
            Outcome::Would => ("would", None),
            Outcome::Done => ("done", None),
            Outcome::Failed(why) => ("failed", Some(why)),
        };
        json!({
            "check": self.check,
            "act": self.act,
            "outcome": outcome,
            "why": why,
            "record": self.record,
        })
    }
}

impl Serialize for Act {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.outcome {
            Outcome::Would => write!(f, "would {}", self.act),
            Outcome::Done => write!(f, "done: {}", self.act),
            Outcome::Failed(why) => write!(f, "could not {}: {why}", self.act),
        }
    }
}

/// Does what is safe about what [`examine`](super::examine) finds, in the name of `by`: closes our
/// own files to others, moves a damaged store aside and begins a new one with what can be read of
/// it, brings an older schema up to date, ends the records of the dead, deletes rows and anchors
/// that belong to nobody, and empties a long WAL. What was done is recorded as events
/// `doctor_fixed`.
///
/// Never fails: what could not be done is an act that says why. Where nothing is wrong, or where
/// there is no store, there are no acts.
///
/// ```
/// # #[cfg(unix)] {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("state.db");
/// # // A process that is on record, and was killed.
/// # let store = incumbent::Store::open(&path)?;
/// # let mut other = std::process::Command::new("sleep").arg("600").spawn()?;
/// # let of_other = store.kept(incumbent::keeper::Whom::Process(other.id()));
/// # let of_other = of_other.anchoring(incumbent::keeper::Anchoring::None);
/// # of_other.claim(&store.profile("work")?, &incumbent::Kind::default())?;
/// # other.kill()?;
/// # other.wait()?;
/// use incumbent::OpenOptions;
/// use incumbent::doctor::{Outcome, Repair, repair};
///
/// let options = OpenOptions::new().path(&path);
/// let would = repair(&options, "alice", Repair::DryRun);
/// assert!(would.iter().all(|act| act.outcome == Outcome::Would));
/// // Here a process that is on record was killed.
/// let done = repair(&options, "alice", Repair::Do);
/// let ended = |act: &incumbent::doctor::Act| act.check == "stale_rows";
/// assert!(done.iter().any(|act| ended(act) && act.outcome == Outcome::Done));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn repair(options: &OpenOptions, by: &str, repair: Repair) -> Vec<Act> {
    let scene = Scene { options: options.clone(), ..Scene::new(options, None, None) };
    let by = by.to_owned();
    let mut surgery = Surgery { scene, by, repair, acts: Vec::new(), unrecorded: Vec::new() };
    if options.is_being_recovered() {
        surgery.replace("open", Tell::Always);
    } else if surgery.scene.is_there() {
        surgery.close_files();
        surgery.operate();
    }
    surgery.acts
}

struct Surgery {
    scene: Scene,
    by: String,
    repair: Repair,
    acts: Vec<Act>,
    /// What was done before there was a store to record it in.
    unrecorded: Vec<(&'static str, String)>,
}

impl Surgery {
    fn is_dry(&self) -> bool {
        self.repair == Repair::DryRun && !planted(Fault::DryRunRepairs)
    }

    fn would(&mut self, check: &'static str, act: String) {
        self.acts.push(Act::new(check, act, Outcome::Would));
    }

    fn done(&mut self, check: &'static str, act: String) {
        self.acts.push(Act::new(check, act, Outcome::Done));
    }

    fn failed(&mut self, check: &'static str, act: String, why: &impl ToString) {
        self.acts.push(Act::new(check, act, Outcome::Failed(why.to_string())));
    }

    /// What is of the store and open to others, or cannot be written by its owner.
    fn close_files(&mut self) {
        let Some(location) = self.scene.location.clone() else { return };
        let looked = each_open(&location, Proof::Header, Depth::Anchors, |it| {
            let (path, mode) = (it.path.display(), it.mode);
            let act = format!("set the mode of {path} from {mode:04o} to {:03o}", it.closed);
            let check = if it.path == location.directory { "path" } else { "modes" };
            if self.is_dry() {
                self.would(check, act);
                return;
            }
            match it.close() {
                Ok(()) => {
                    self.unrecorded.push((check, act.clone()));
                    self.done(check, act);
                }
                Err(error) => self.failed(check, act, &error),
            }
        });
        if let Err(error) = looked {
            let act = format!("check whether others can access {}", location.file.display());
            self.failed("modes", act, &error);
        }
    }

    fn operate(&mut self) {
        let store = match self.scene.open() {
            Ok(Some(store)) => {
                // What somebody says of himself may have an identity in it.
                self.by = identities::presentable(&store.inner, &self.by);
                store
            }
            Err(error) if is_damaged(&self.scene, &error) => {
                self.replace("open", Tell::Always);
                return;
            }
            // Nothing to repair; or the finding says what a person has to do about it.
            Ok(None) | Err(_) => return,
        };
        let opened = Opened::new(&self.scene, store);
        let check = damaged(&opened);
        // Nobody of ours has the file open while it is moved aside.
        drop(opened);
        // Who only reads cannot find out that nobody can write.
        let tell = if check.is_some() { Tell::Always } else { Tell::IfDone };
        if self.replace(check.unwrap_or("integrity"), tell) {
            return;
        }
        let Ok(Some(store)) = self.scene.open() else { return };
        let opened = Opened::new(&self.scene, store);
        let steps = [
            ("modes", Self::record_modes as Step),
            ("schema", Self::migrate),
            ("integrity", Self::delete_dangling),
            ("stale_rows", Self::end_stale_rows),
            ("orphan_anchors", Self::collect_anchors),
            ("wal_size", Self::empty_wal),
        ];
        for (check, step) in steps {
            if let Err(error) = step(self, &opened) {
                let is_busy = error.kind() == ErrorKind::Busy;
                self.failed(check, "repair what it found".to_owned(), &error);
                // Whoever keeps us from writing keeps us from the rest, too.
                if is_busy {
                    break;
                }
            }
        }
    }

    /// Moves the store aside whole, saves what can be read, and begins a new one, if it is damaged.
    /// Whether there is nothing else to do.
    fn replace(&mut self, check: &'static str, tell: Tell) -> bool {
        // Who is still at work is not looked for in vain.
        let act = |this: &Self| {
            format!(
                "move {} aside, save what can be read of it, and begin a new store{}",
                this.scene.file().display(),
                this.live_owners()
            )
        };
        if self.is_dry() {
            if tell == Tell::Always {
                let act = act(self);
                self.would(check, act);
            }
            return tell == Tell::Always;
        }
        match self.scene.options.recover(&self.by) {
            // Sound, or somebody else has done it by now.
            Ok(None) => false,
            Ok(Some(recovered)) => {
                let saved: u64 = recovered.tables.iter().map(|it| it.rows).sum();
                let damaged = recovered.tables.iter().filter(|it| it.is_damaged());
                let damaged: Vec<_> = damaged.map(|it| it.table.as_str()).collect();
                let lost = if damaged.is_empty() {
                    String::new()
                } else {
                    format!(", not all of {}", damaged.join(", "))
                };
                let act = format!(
                    "{}; {}; the damaged one is {}, {saved} rows were saved{lost}",
                    act(self),
                    recovered.damage.replace('\n', " "),
                    recovered.aside.display()
                );
                self.unrecorded.push((check, act.clone()));
                self.done(check, act);
                let recorded = self.scene.open().and_then(|store| match store {
                    Some(store) => self.record_all(&store.inner),
                    None => Ok(()),
                });
                if let Err(error) = recorded {
                    self.failed(check, "record it".to_owned(), &error);
                }
                true
            }
            Err(error) if tell == Tell::IfDone => {
                tracing::debug!(%error, "whether the store is damaged was not found out");
                false
            }
            Err(error) => {
                let act = act(self);
                self.failed(check, act, &error);
                true
            }
        }
    }

    /// Those who hold an anchor, for whoever decides.
    fn live_owners(&self) -> String {
        let mut anchors = self.scene.file().into_os_string();
        anchors.push(".anchors");
        let anchors = PathBuf::from(anchors);
        let is_held = |name: &str| anchor::probe(&anchors.join(name)) == AnchorState::Held;
        let open = sys::processes_with_files_of(&anchors).into_iter();
        let mut pids: Vec<sys::Pid> =
            open.filter(|(_, name)| is_held(name)).map(|(pid, _)| pid).collect();
        pids.sort_unstable();
        pids.dedup();
        if pids.is_empty() {
            return String::new();
        }
        format!("; still running: {}", listed(&pids, 8, |pid| program(*pid)))
    }

    fn record_modes(&mut self, opened: &Opened) -> Result<()> {
        if self.unrecorded.is_empty() {
            return Ok(());
        }
        self.record_all(opened.inner())
    }

    fn record_all(&mut self, inner: &Inner) -> Result<()> {
        inner.write(|tx| {
            for (check, act) in &self.unrecorded {
                record(tx, check, act, &self.by)?;
            }
            Ok(())
        })?;
        self.unrecorded.clear();
        Ok(())
    }

    fn migrate(&mut self, opened: &Opened) -> Result<()> {
        let (Schema::Older, said) = schema_of(opened)? else { return Ok(()) };
        let act = format!("bring the schema from version {said} to version {SCHEMA_VERSION}");
        if self.is_dry() {
            self.would("schema", act);
            return Ok(());
        }
        let store = self.scene.options.open()?;
        store.inner.write(|tx| record(tx, "schema", &act, &self.by))?;
        self.done("schema", act);
        Ok(())
    }

    fn delete_dangling(&mut self, opened: &Opened) -> Result<()> {
        let Integrity::Dangling(tables) = integrity_of(opened)? else { return Ok(()) };
        let act = format!(
            "delete rows of holders that are not on record, from {}",
            listed(&tables, 10, |(table, _)| table.clone())
        );
        if self.is_dry() {
            self.would("integrity", act);
            return Ok(());
        }
        opened.inner().write(|tx| {
            for (table, _) in &tables {
                let table = table.replace('"', "\"\"");
                tx.execute(
                    &format!(
                        "DELETE FROM \"{table}\" WHERE instance_id IS NOT NULL
                         AND instance_id NOT IN (SELECT id FROM instances)"
                    ),
                    [],
                )?;
            }
            record(tx, "integrity", &act, &self.by)
        })?;
        self.done("integrity", act);
        Ok(())
    }

    /// Ends the records of the dead; each act names whose record, and what ends with it.
    fn end_stale_rows(&mut self, opened: &Opened) -> Result<()> {
        let found = stale::stale(opened)?;
        if found.is_empty() {
            return Ok(());
        }
        if self.is_dry() {
            self.acts.extend(found.into_iter().map(|it| Act::of_record(it, Outcome::Would)));
            return Ok(());
        }
        let mut all = EndedStale::default();
        let over = stale::end(opened, &self.by, &mut all);
        for (name, pid) in all.kept {
            // The next start would find it by the record, and ends it.
            let why = format!("pid {pid}, which its killed run had left, still runs");
            self.failed("stale_rows", format!("end the record of {name}"), &why);
        }
        self.acts.extend(all.ended.into_iter().map(|it| Act::of_record(it, Outcome::Done)));
        over
    }

    /// Inside a transaction a free anchor that nobody names is not one that is just being made.
    fn collect_anchors(&mut self, opened: &Opened) -> Result<()> {
        let act = |count: usize| {
            format!("delete {} that nobody holds", counted(count, "lock file", "lock files"))
        };
        let seen = anchors::garbage_count(opened)?;
        if seen == 0 {
            return Ok(());
        }
        if self.is_dry() {
            self.would("orphan_anchors", act(seen));
            return Ok(());
        }
        let inner = opened.inner();
        let collected = inner.write(|tx| {
            let sweep = sweep(tx, inner, Extent::All, [])?;
            let count = sweep.garbage_count();
            if count > 0 {
                record(tx, "orphan_anchors", &act(count), &self.by)?;
            }
            Ok(sweep)
        })?;
        // All of it: a person waits for that.
        collected.remove_garbage(Duration::MAX);
        let collected = collected.garbage_count();
        if collected > 0 {
            self.done("orphan_anchors", act(collected));
        }
        Ok(())
    }

    fn empty_wal(&mut self, opened: &Opened) -> Result<()> {
        if !database::wal_is_long(&self.scene) {
            return Ok(());
        }
        let act = "move the WAL into the database".to_owned();
        if self.is_dry() {
            self.would("wal_size", act);
            return Ok(());
        }
        let inner = opened.inner();
        if inner.empty_wal(database::EMPTY_WAL_WITHIN)? {
            inner.write(|tx| record(tx, "wal_size", &act, &self.by))?;
            self.done("wal_size", act);
        } else {
            self.failed("wal_size", act, &"a reader needs what is in it, or a writer is at work");
        }
        Ok(())
    }
}

/// Whether a repair is spoken of that was only tried in case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tell {
    Always,
    IfDone,
}

type Step = fn(&mut Surgery, &Opened) -> Result<()>;

/// The check that found the store damaged, if one does.
fn damaged(opened: &Opened) -> Option<&'static str> {
    let is_corrupt = |error: &Error| is_damaged(&opened.scene, error);
    if let Ok(Integrity::Damaged(_)) = integrity_of(opened) {
        return Some("integrity");
    }
    match schema_of(opened) {
        Ok((Schema::Damaged, _)) => Some("schema"),
        Err(error) if is_corrupt(&error) => Some("schema"),
        Ok(_) | Err(_) => None,
    }
}

fn record(tx: &Tx<'_>, check: &str, act: &str, by: &str) -> Result<()> {
    tx.record(&EventRecord {
        event: "doctor_fixed",
        pid: Some(std::process::id()),
        detail: Some(json!({"check": check, "act": act, "by": by})),
        ..EventRecord::default()
    })
}
