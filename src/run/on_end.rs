//! A program that is told how the command ended.
//!
//! It is started aside when the end is on record and the office is free, and is not waited for: it
//! holds nothing up, and nothing of it comes back. Where it would end with this process, because
//! that is the first of a container or the main one of a service, it has a moment. Where the
//! command is started again it is a child of ours beside that one, and none of its family.

use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{Deadline, rfc3339};
use crate::patience::with_budget;
use crate::process::exit_code::Supervisor;
use crate::records::{End, instances};
use crate::run::plan::{Extent, Run};
use crate::status::summary::summary;
use crate::store::Inner;
use crate::sys::{Pid, aside, supervise};
use crate::{InstanceId, Office, Reason, Tenure, environment, path_text, sys};

/// How long a program may take that ends with us.
const MOMENT: Duration = Duration::from_secs(1);

/// How long the store may take to say how the end is on record.
const LOOK_WITHIN: Duration = Duration::from_millis(200);

/// How a command ended, for whoever is told.
#[derive(Clone, Debug)]
pub(super) struct Account {
    office: Office,
    instance: InstanceId,
    db: PathBuf,
    how: End,
    stderr: Option<String>,
    next: Next,
}

/// What comes after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The run ends, too.
    Nothing,
    /// The command is started again.
    Restart,
}

/// Whether `pid`, which was seen to be below us, was started by us beside the command (who is told
/// of an end), or by such a one: it is no part of what the command has started.
pub(super) fn is_beside_command(pid: Pid) -> bool {
    let leads_to_it = |started: &Pid| *started == pid || sys::descendants(*started).contains(&pid);
    aside::started().iter().any(leads_to_it) || has_account(pid)
}

/// What somebody who was told has started has the variables of that, also when he has ended. We may
/// have them ourselves, from another run, and so may the command.
fn has_account(pid: Pid) -> bool {
    let Some((name, _)) = environment::OF_END.iter().find(|(_, field)| *field == "instance") else {
        return false;
    };
    let (begin, own) = (format!("{name}="), environment::text(name).unwrap_or_default());
    let is_of_this_run = |word: &String| word.strip_prefix(&begin).is_some_and(|it| it != own);
    sys::environment_of(pid).is_some_and(|words| words.iter().any(is_of_this_run))
}

impl Account {
    pub(super) fn new(
        tenure: &Tenure,
        db: PathBuf,
        how: End,
        stderr: Option<String>,
        next: Next,
    ) -> Self {
        let (office, instance) = (tenure.office().clone(), tenure.instance());
        Self { office, instance, db, how, stderr, next }
    }

    /// Tells it, if `run` has somebody to be told.
    pub(super) fn tell(&self, run: &Run, inner: &Inner) {
        let Some([program, arguments @ ..]) = run.on_end.as_deref() else { return };
        let mut command = Command::new(program);
        command.args(arguments);
        let started = self.prepare(&mut command, inner).and_then(|()| aside::start(command));
        match started {
            Ok(child) => self.leave_alone(run, child),
            Err(error) => tracing::warn!(%error, "nobody was told how the command ended"),
        }
    }

    fn prepare(&self, command: &mut Command, inner: &Inner) -> io::Result<()> {
        let document = self.document(inner);
        let mut input = tempfile::tempfile()?;
        input.write_all(document.to_string().as_bytes())?;
        input.write_all(b"\n")?;
        input.rewind()?;
        for (name, field) in environment::OF_END {
            match &document[field] {
                Value::Null => command.env_remove(name),
                Value::String(text) => command.env(name, text.replace('\0', "")),
                value => command.env(name, value.to_string()),
            };
        }
        command
            .env(environment::DB, &self.db)
            .env(environment::PROFILE, self.office.profile.as_str())
            .env(environment::KIND, self.office.kind.as_str())
            .env_remove(environment::INSTANCE)
            .env_remove(environment::TOKEN)
            .stdin(Stdio::from(input));
        Ok(())
    }

    /// As the history shows it, where it is on record.
    fn document(&self, inner: &Inner) -> Value {
        let recorded = with_budget(LOOK_WITHIN, || {
            inner.read(|connection| instances::standing(connection, self.instance))
        });
        let recorded = recorded.ok().flatten().and_then(|row| row.ended);
        let (reason, by) = recorded.unwrap_or_else(|| {
            (Reason::from(self.how.reason).as_str().to_owned(), self.how.by.clone())
        });
        let summary = summary(&Reason::from(reason.clone()), self.how.exit_code, self.how.signal);
        let mut document = json!({
            "format": 1,
            "profile": self.office.profile.as_str(),
            "kind": self.office.kind.as_str(),
            "instance": self.instance.as_i64(),
            "pid": std::process::id(),
            "ended_at": rfc3339(inner.clock().wall_ms()),
            "end_reason": reason,
            "ended_by": by,
            "exit_code": self.how.exit_code,
            "signal": self.how.signal,
            "detail": self.how.detail,
            "summary": summary,
            "stderr": self.stderr,
            "restarting": self.next == Next::Restart,
        });
        path_text::put(&mut document, "db", &self.db);
        document
    }

    fn leave_alone(&self, run: &Run, mut child: Child) {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        if run.extent == Extent::Part {
            // Somebody has to collect it.
            let collect = move || drop(child.wait());
            drop(std::thread::Builder::new().name("incumbent-on-end".into()).spawn(collect));
            return;
        }
        let ends_with_us =
            std::process::id() == 1 || Supervisor::of_this_process() == Supervisor::Systemd;
        if self.next == Next::Restart || !ends_with_us {
            return;
        }
        let until = Deadline::after(MOMENT);
        while supervise::reap_child(child.id()).is_none() && !until.has_passed() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
