//! An application with a table of its own that says which gateway works on what, and by which
//! worker process. In place of a pid and a start time in columns of its own it keeps
//!
//! * the *instance id* of the gateway: the store of incumbent says whether that one still acts;
//! * the text of a *process reference* for each worker, which links nothing and claims nothing.
//!
//! It shows what happens when the gateway is killed: the next one finds the rows that are nobody's
//! any more, ends the workers that were left behind, and takes the rows over.
//!
//! ```text
//! cargo run --example worker_rows
//! ```

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use incumbent::liveness::Ruling;
use incumbent::process::{AfterBudget, ProcessRef, Terminated, terminate_tree};
use incumbent::status::Fate;
use incumbent::{Claim, InstanceId, Store, Tenure};
use rusqlite::Connection;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// The application's own database. `gateway` is a foreign key into the store of incumbent.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS jobs (
    name    TEXT PRIMARY KEY,
    gateway INTEGER NOT NULL,  -- incumbent's instance id
    worker  TEXT NOT NULL      -- a ProcessRef
) STRICT";

struct Application {
    store: Store,
    rows: Connection,
}

impl Application {
    fn open(directory: &Path) -> Result<Self> {
        let rows = Connection::open(directory.join("application.db"))?;
        rows.busy_timeout(Duration::from_secs(5))?;
        rows.execute(TABLE, [])?;
        Ok(Self { store: Store::open(directory.join("state.db"))?, rows })
    }

    fn claim(&self) -> Result<Tenure> {
        match self.store.profile("jobs")?.claim()? {
            Claim::Granted(tenure) => Ok(tenure),
            Claim::Held(holder) => Err(format!("{holder}; {}", holder.advice()).into()),
        }
    }

    /// Starts a worker for a job, and writes down whose it is.
    fn start(&self, job: &str, tenure: &Tenure) -> Result<Child> {
        let worker = Command::new(std::env::current_exe()?).arg("worker").spawn()?;
        let process = ProcessRef::of(worker.id())?;
        let sql = "INSERT OR REPLACE INTO jobs VALUES (?1, ?2, ?3)";
        self.rows.execute(sql, (job, tenure.instance().as_i64(), process.to_string()))?;
        Ok(worker)
    }

    /// All jobs: the name, whose it is, and who works on it.
    fn jobs(&self) -> Result<Vec<(String, InstanceId, ProcessRef)>> {
        let mut select = self.rows.prepare("SELECT name, gateway, worker FROM jobs")?;
        let mut jobs = Vec::new();
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (gateway, worker): (i64, String) = (row.get(1)?, row.get(2)?);
            jobs.push((row.get(0)?, InstanceId::from_i64(gateway)?, worker.parse()?));
        }
        Ok(jobs)
    }

    /// The jobs whose gateway has ended. A living gateway keeps its jobs, and so does a gateway
    /// that cannot be looked at.
    fn orphans(&self) -> Result<Vec<(String, ProcessRef)>> {
        let mut orphans = Vec::new();
        for (job, gateway, worker) in self.jobs()? {
            match self.store.instance(gateway)?.map(|it| it.fate) {
                Some(Fate::Live(_)) => continue,
                Some(Fate::Ended(end)) => println!("{job}: its gateway has ended: {}", end.reason),
                None => println!("{job}: its gateway ended long ago"),
            }
            orphans.push((job, worker));
        }
        Ok(orphans)
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["worker"] => std::thread::sleep(Duration::from_mins(1)),
        ["gateway", directory] => gateway(Path::new(directory))?,
        _ => demonstrate()?,
    }
    Ok(())
}

/// A gateway that starts a worker, and is killed at its work.
fn gateway(directory: &Path) -> Result<()> {
    let application = Application::open(directory)?;
    let tenure = application.claim()?;
    let _worker = application.start("nightly report", &tenure)?;
    println!("at work");
    std::thread::sleep(Duration::from_mins(1));
    Ok(())
}

fn demonstrate() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut first = Command::new(std::env::current_exe()?)
        .arg("gateway")
        .arg(directory.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = first.stdout.take().ok_or("no output")?;
    assert_eq!(BufReader::new(output).lines().next().ok_or("no line")??, "at work");

    let application = Application::open(directory.path())?;
    let [(job, _, worker)] = application.jobs()?.try_into().map_err(|_| "one job")?;
    assert!(application.orphans()?.is_empty(), "its gateway lives");
    assert!(matches!(worker.is_alive()?.ruling, Ruling::Alive(_)));

    // `kill -9`: nothing of the gateway's own runs any more. Its worker does.
    first.kill()?;
    first.wait()?;
    assert!(matches!(worker.is_alive()?.ruling, Ruling::Alive(_)));
    assert_eq!(application.orphans()?.len(), 1);

    // The next gateway ends what is left, and takes the job over.
    let tenure = application.claim()?;
    let mut started = Vec::new();
    for (job, worker) in application.orphans()? {
        let tree = terminate_tree(&worker, Duration::from_secs(10), AfterBudget::Kill)?;
        assert_ne!(tree.root, Terminated::StillRuns, "{job}");
        started.push(application.start(&job, &tenure)?);
    }
    assert!(matches!(worker.is_alive()?.ruling, Ruling::Dead(_)));
    assert!(application.orphans()?.is_empty());
    let [(same_job, owner, _)] = application.jobs()?.try_into().map_err(|_| "one job")?;
    assert_eq!((same_job, owner), (job, tenure.instance()));

    // An orderly end looks the same afterwards.
    tenure.release()?;
    assert_eq!(application.orphans()?.len(), 1);
    for mut worker in started {
        worker.kill()?;
        worker.wait()?;
    }
    println!("done");
    Ok(())
}
