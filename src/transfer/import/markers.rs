//! The two marker files: a takeover or a stop that was announced.

use std::path::PathBuf;

use crate::Result;
use crate::liveness::Ruling;
use crate::process::older::marker_file;
use crate::process::older::marker_file::MarkerFile;
use crate::process::older::wire::{PidRecord, Unusable};
use crate::records::{Addressee, NewMarker, Record, markers};
use crate::transfer::import::FileVerdict;
use crate::transfer::import::{Gateway, Import, ImportFinding};

impl Import<'_> {
    pub(crate) fn markers(&mut self, gateway: Option<&Gateway>) -> Result<()> {
        let mut read = Vec::new();
        for (path, said) in marker_file::all(&self.files.home)? {
            match said {
                Ok(said) => read.push(said),
                Err(why) => self.add_unusable(path, why),
            }
        }
        // The last word counts.
        read.sort_by_key(|said| std::cmp::Reverse(said.written_at_ms));
        let mut imported: Option<PidRecord> = None;
        for said in read {
            let is_first = imported.as_ref().is_none_or(|target| *target != said.target);
            let finding = match said.remaining_ms(self.tx.now_ms()) {
                Ok(remaining_ms) if is_first => self.marker(&said, remaining_ms, gateway)?,
                Ok(_) => ImportFinding::stale("replaced", Some(said.target.pid)),
                Err(over) => ImportFinding::stale(over, Some(said.target.pid)),
            };
            if finding.verdict == FileVerdict::Imported {
                imported = Some(said.target);
            }
            self.add(said.path, finding);
        }
        Ok(())
    }

    fn add_unusable(&mut self, file: PathBuf, why: Unusable) {
        if let Some(finding) = ImportFinding::unusable(why) {
            self.add(file, finding);
        }
    }

    fn marker(
        &mut self,
        said: &MarkerFile,
        remaining_ms: i64,
        gateway: Option<&Gateway>,
    ) -> Result<ImportFinding> {
        let pid = Some(said.target.pid);
        let own = gateway.filter(|gateway| gateway.wrote(&said.target));
        let (told, verdict) = self.judge(&said.target, &said.path);
        let record: &Record = match (own, verdict) {
            (Some(own), _) => &own.record,
            (None, Ruling::Alive(_)) => &told,
            (None, verdict) => return Ok(ImportFinding::of(verdict, pid)),
        };
        let Some((instance, process)) = NewMarker::target(record) else {
            return Ok(ImportFinding::unknown("not_verifiable", pid));
        };
        let addressee = Addressee {
            instances: own.map(|_| instance).into_iter().collect(),
            process: Some(process.clone()),
        };
        let finding = ImportFinding::imported("of_the_process", pid);
        let now = self.tx.boot_time();
        if markers::find(self.tx, now, &addressee, Some(&said.name))?.is_some() {
            return Ok(finding);
        }
        NewMarker {
            name: &said.name,
            instance: own.map(|_| instance),
            process: &process,
            by: &said.writer(),
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
