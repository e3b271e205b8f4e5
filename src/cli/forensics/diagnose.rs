//! `forensics diagnose`, and the process that it starts.

use serde_json::json;

use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::forensics::Diagnostic;
use crate::keeper::Whom;
use crate::{Error, ErrorKind, Result, path_text, sys};

pub(crate) fn diagnose(global: &Global, arguments: &args::ForensicsDiagnose) -> Outcome {
    let mut diagnostic = Diagnostic::new(&arguments.log)
        .timeout(arguments.timeout)
        .subject(subject(global, arguments.pid)?);
    if let Ok(store) = global.options().resolved_path() {
        diagnostic = diagnostic.store(store);
    }
    if let Some(signal) = arguments.signal {
        diagnostic = diagnostic.signal(signal);
    }
    let (pid, reason) = match diagnostic.start() {
        Ok(pid) => (Some(pid), None),
        // Nothing that whoever is being stopped could do about it.
        Err(error) if error.kind() == ErrorKind::Unsupported => (None, Some(error.to_string())),
        Err(error) => return Err(error),
    };
    let complaint = reason
        .as_ref()
        .map(|reason| Complaint::new(format!("no diagnostic was started: {reason}")));
    let text = pid.map_or_else(String::new, |pid| format!("{pid}\n"));
    let mut document = json!({
        "pid": pid,
        "reason": reason,
        "log": null,
        "timeout_ms": u64::try_from(arguments.timeout.as_millis()).unwrap_or(u64::MAX),
    });
    path_text::put(&mut document, "log", &arguments.log);
    Ok(Answer::new(exit::OK, text, document).complaining(complaint))
}

/// The process meant: a store that cannot be read, or a run that has lost its office, keeps nobody
/// from looking at the machine. A parent counts even if it is pid 1: so is the gateway of a
/// container.
fn subject(global: &Global, named: Option<u32>) -> Result<u32> {
    let run = || {
        let store = global.existing().ok()??;
        store.kept(Whom::Caller).pid().ok()
    };
    let parent = || sys::process_facts(std::process::id()).parent;
    named.or_else(run).or_else(parent).ok_or_else(|| {
        Error::invalid("the parent process is outside of this pid namespace")
            .with_hint("name the process with `--pid PID`")
    })
}
