//! The two marker files: a takeover or a stop that was announced.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{Finding, Gateway, Import};
use crate::error::Result;
use crate::instance::Record;
use crate::legacy::MARKER_FILES;
use crate::legacy::wire::{self, PidRecord, Unusable};
use crate::liveness::Verdict;
use crate::marker_table::{self, Addressee, NewMarker};
use crate::names::MarkerName;
use crate::sys;

/// How long a marker of the older program counts.
const LIVES_MS: i64 = 60_000;

/// What a marker file says.
struct Said {
    file: PathBuf,
    name: MarkerName,
    target: PidRecord,
    by: Option<sys::Pid>,
    written_at_ms: Option<i64>,
}

fn parse(file: PathBuf, name: MarkerName, object: &Map<String, Value>) -> Result<Said, Unusable> {
    let writer = object.get("replacer_pid").or_else(|| object.get("stopper_pid"));
    Ok(Said {
        file,
        name,
        target: PidRecord {
            pid: wire::pid(object.get("target_pid"))?,
            start_time: wire::start_time(object.get("target_start_time")),
            argv: Vec::new(),
            owner: None,
        },
        by: writer.and_then(|writer| wire::pid(Some(writer)).ok()),
        written_at_ms: object.get("written_at").and_then(wire::time_ms),
    })
}

impl Import<'_> {
    pub(super) fn markers(&mut self, gateway: Option<&Gateway>) -> Result<()> {
        let mut read = Vec::new();
        for (file, name) in MARKER_FILES {
            let path = self.files.home.join(file);
            let name = MarkerName::new(name)?;
            match wire::read_object(&path) {
                Ok(object) => match parse(path.clone(), name, &object) {
                    Ok(said) => read.push(said),
                    Err(why) => self.add_unusable(path, why),
                },
                Err(why) => self.add_unusable(path, why),
            }
        }
        // The last word counts.
        read.sort_by_key(|said| std::cmp::Reverse(said.written_at_ms));
        let mut imported: Option<PidRecord> = None;
        for said in read {
            let is_first = imported.as_ref().is_none_or(|target| *target != said.target);
            let finding = match self.remaining_ms(&said) {
                Ok(remaining_ms) if is_first => self.marker(&said, remaining_ms, gateway)?,
                Ok(_) => Finding::stale("replaced", Some(said.target.pid)),
                Err(over) => Finding::stale(over, Some(said.target.pid)),
            };
            if finding.verdict == "imported" {
                imported = Some(said.target);
            }
            self.add(said.file, finding);
        }
        Ok(())
    }

    fn add_unusable(&mut self, file: PathBuf, why: Unusable) {
        if let Some(finding) = Finding::unusable(why) {
            self.add(file, finding);
        }
    }

    /// How long a marker still counts, or why it does not.
    fn remaining_ms(&self, said: &Said) -> Result<i64, &'static str> {
        let written_at_ms = said.written_at_ms.ok_or("no_time")?;
        match self.tx.now_ms().saturating_sub(written_at_ms) {
            ..0 => Err("of_the_future"),
            age_ms @ 0..LIVES_MS => Ok(LIVES_MS - age_ms),
            LIVES_MS.. => Err("expired"),
        }
    }

    fn marker(
        &mut self,
        said: &Said,
        remaining_ms: i64,
        gateway: Option<&Gateway>,
    ) -> Result<Finding> {
        let pid = Some(said.target.pid);
        let own = gateway.filter(|gateway| gateway.wrote(&said.target));
        let (told, verdict) = self.judge(&said.target, &said.file);
        let record: &Record = match (own, verdict) {
            (Some(own), _) => &own.record,
            (None, Verdict::Alive(_)) => &told,
            (None, verdict) => return Ok(Finding::of(verdict, pid)),
        };
        let Some((instance, process)) = NewMarker::target(record) else {
            return Ok(Finding::unknown("not_verifiable", pid));
        };
        let addressee = Addressee {
            instances: own.map(|_| instance).into_iter().collect(),
            process: Some(process.clone()),
        };
        let finding = Finding::imported("of_the_process", pid);
        let now = self.tx.boot_time();
        if marker_table::find(self.tx, now, &addressee, Some(&said.name))?.is_some() {
            return Ok(finding);
        }
        NewMarker {
            name: &said.name,
            instance: own.map(|_| instance),
            process: &process,
            by: &said.by.map_or_else(
                || "an older program".to_owned(),
                |pid| format!("an older program (pid {pid})"),
            ),
            by_pid: said.by.unwrap_or(0),
            by_uid: None,
            requester: None,
            reason: None,
            ttl_ms: remaining_ms,
        }
        .write(self.tx)?;
        self.changes += 1;
        Ok(finding)
    }
}
