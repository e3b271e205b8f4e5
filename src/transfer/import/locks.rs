//! `*.lock` files: who has which token.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::claim::older::found;
use crate::liveness::Ruling;
use crate::names::{IdentityHash, Scope};
use crate::owner::ending;
use crate::process::Subject;
use crate::process::command_line::redact;
use crate::process::older::wire;
use crate::process::older::wire::{PidRecord, Unusable};
use crate::records::locks::NewLock;
use crate::records::{
    End, EndReason, EventRecord, LockEnd, LockRow, NewInstance, Record, instances, locks,
};
use crate::transfer::import::files::lock_files;
use crate::transfer::import::{Gateway, Import, ImportFinding};
use crate::{InstanceId, LockName, Nonce, Reason, Result, clock, sys};

/// What tells the rows that an import made for locks from all others: their `version`.
const MADE_BY: &str = "imported";

/// Who ends what an import made.
const BY: &str = "incumbent import";

/// What a lock file says.
struct Said {
    name: LockName,
    record: PidRecord,
    metadata: Option<Value>,
}

fn read(path: &Path) -> Result<Said, Unusable> {
    let object = wire::read_object(path)?;
    let record = PidRecord::of(&object)?;
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let corrupt = |why: &str| Unusable::Corrupt(why.to_owned());
    let scope = Scope::new(text("scope")).map_err(|_| corrupt("its scope is not valid"))?;
    let identity_hash = IdentityHash::from_hex(text("identity_hash"))
        .map_err(|_| corrupt("its identity_hash is not valid"))?;
    let metadata = object.get("metadata").and_then(Value::as_object).and_then(metadata);
    Ok(Said { name: LockName { scope, identity_hash }, record, metadata })
}

/// What a holder said about itself, without what looks like a secret; nothing if that is too long.
fn metadata(said: &Map<String, Value>) -> Option<Value> {
    const LENGTH_MAX: usize = 64 * 1024;
    let shown = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => redact::redact_text(text).into(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
            // Nobody knows what stands in there.
            Value::Array(_) | Value::Object(_) => return None,
        };
        Some((key.clone(), value))
    };
    let shown: Map<String, Value> = said.iter().filter_map(shown).collect();
    let shown = Value::Object(shown);
    (shown != json!({}) && shown.to_string().len() <= LENGTH_MAX).then_some(shown)
}

impl Import<'_> {
    pub(crate) fn locks(&mut self, gateway: Option<&Gateway>) -> Result<()> {
        let Some(directory) = self.files.lock_dir.as_deref() else { return Ok(()) };
        let mut held: HashSet<(LockName, InstanceId)> = HashSet::new();
        for path in lock_files(directory) {
            let finding = match read(&path) {
                Ok(said) => {
                    let (finding, owner) = self.lock(&said, gateway, &path)?;
                    held.extend(owner.map(|owner| (said.name, owner)));
                    Some(finding)
                }
                Err(why) => ImportFinding::unusable(why),
            };
            if let Some(finding) = finding {
                self.add(path, finding);
            }
        }
        self.release_others(&held)
    }

    /// What comes of one lock, and whose row it belongs to.
    fn lock(
        &mut self,
        said: &Said,
        gateway: Option<&Gateway>,
        path: &Path,
    ) -> Result<(ImportFinding, Option<InstanceId>)> {
        let pid = Some(said.record.pid);
        let own = gateway.filter(|gateway| gateway.wrote(&said.record));
        let (told, verdict) = self.judge(&said.record, path);
        let finding = match (own, verdict) {
            (Some(_), _) => ImportFinding::live("of_the_gateway", pid),
            (None, verdict) => ImportFinding::of(verdict, pid),
        };
        if own.is_none() && matches!(verdict, Ruling::Dead(_)) {
            return Ok((finding, None));
        }
        for row in locks::all_of(self.tx, &said.name)? {
            match self.holder(&row)? {
                Some(holder) if own.is_some_and(|own| own.record.id == holder.id) => {
                    return Ok((finding, Some(holder.id)));
                }
                Some(holder) if holder.pid == pid => return Ok((finding, Some(holder.id))),
                Some(holder) => {
                    let who = holder.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
                    let why = format!(
                        "but pid {who} holds it here: two processes use it; stop one of them"
                    );
                    return Ok((finding.conflict(why), None));
                }
                None => {
                    let how = LockEnd { reason: Reason::Released, by: Some(BY) };
                    locks::end(self.tx, &row.name, row.slot, row.fence, &how)?;
                }
            }
        }
        let owner = match own {
            Some(own) => own.record.id,
            None => self.owner(&said.record, &told, verdict)?,
        };
        self.take(said, owner)?;
        Ok((finding, Some(owner)))
    }

    /// Whoever holds a lock on record, unless it is dead.
    fn holder(&self, row: &LockRow) -> Result<Option<Record>> {
        let record = instances::by_id(self.tx, row.instance)?;
        let record = record.filter(Record::is_live);
        Ok(record.filter(|record| !matches!(self.verdict_of(record), Ruling::Dead(_))))
    }

    fn take(&mut self, said: &Said, owner: InstanceId) -> Result<()> {
        let new = NewLock {
            name: &said.name,
            instance: owner,
            metadata: said.metadata.as_ref(),
            ttl_ms: None,
        };
        let now_boot_ms = self.inner.clock().boot_ms();
        let fence = locks::insert(self.tx, &new, self.inner.observer(), now_boot_ms)?;
        self.changes += 1;
        self.tx.record(&EventRecord {
            event: "lock_acquired",
            profile: Some(&self.office.profile),
            instance: Some(owner),
            pid: Some(said.record.pid),
            detail: Some(json!({
                "scope": said.name.scope.as_str(),
                "identity_hash": said.name.identity_hash.as_str(),
                "fence": fence,
                "evicted": null,
            })),
            ..EventRecord::default()
        })
    }

    /// The row without an office of a process that has a lock, and is not the gateway.
    fn owner(&mut self, said: &PidRecord, told: &Record, verdict: Ruling) -> Result<InstanceId> {
        let found = found(said, verdict);
        let observer = self.inner.observer();
        let rows = instances::live_of_pid(self.tx, said.pid, found.start_time, observer)?;
        let is_made_here = |row: &&Record| {
            row.kind().is_none()
                && row.version.as_deref() == Some(MADE_BY)
                && row.profile.as_ref() == Some(&self.office.profile)
        };
        if let Some(row) = rows.iter().find(is_made_here) {
            return Ok(row.id);
        }
        let argv = redact::redact(&found.argv);
        let subject = Subject::told(said.pid, found.start_time, told.uid, argv.clone());
        let id = NewInstance {
            profile: Some(&self.office.profile),
            argv: &argv,
            version: Some(MADE_BY),
            ..NewInstance::without_office(&subject, observer, &Nonce::random()?)
        }
        .insert(self.tx)?;
        let age_ms = sys::process_age_ms(said.pid, clock::unix_time());
        if let Some(age_ms) = age_ms.filter(|_| matches!(verdict, Ruling::Alive(_))) {
            instances::date_back(self.tx, id, age_ms)?;
        }
        Ok(id)
    }

    /// Releases what an import took for files that are gone by now, or name somebody else.
    fn release_others(&mut self, held: &HashSet<(LockName, InstanceId)>) -> Result<()> {
        for record in instances::imported(self.tx, &self.office.profile, MADE_BY)? {
            let locks = locks::of_instance(self.tx, record.id)?;
            let mut left = locks.len();
            for lock in locks {
                if held.contains(&(lock.name.clone(), record.id)) {
                    continue;
                }
                let how = LockEnd { reason: Reason::Released, by: Some(BY) };
                locks::end(self.tx, &lock.name, lock.slot, lock.fence, &how)?;
                self.changes += 1;
                left -= 1;
            }
            if left == 0 && record.kind().is_none() {
                let end = End::new(EndReason::Released).by(BY);
                ending::end_other(self.tx, record.id, &end)?;
            }
        }
        Ok(())
    }
}
