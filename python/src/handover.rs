//! A tenure goes on in another program, or takes what others of its profile hold.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use incumbent::handover::{HandedOver, NotTaken};
use incumbent::stop::Replace;
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::not_understood;

/// A command as Python's `subprocess` takes one.
#[derive(FromPyObject)]
pub(crate) struct Program {
    #[pyo3(item)]
    argv: Vec<OsString>,
    #[pyo3(item)]
    env: Option<HashMap<OsString, OsString>>,
    #[pyo3(item)]
    cwd: Option<PathBuf>,
}

impl Program {
    pub(crate) fn command(self) -> PyResult<Command> {
        let mut words = self.argv.into_iter();
        let Some(program) = words.next() else {
            return Err(not_understood("argv", &"it names no program"));
        };
        let mut command = Command::new(program);
        command.args(words);
        if let Some(environment) = self.env {
            command.env_clear().envs(environment);
        }
        if let Some(directory) = self.cwd {
            command.current_dir(directory);
        }
        Ok(command)
    }
}

/// What a takeover of locks is asked for with.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReplaceArguments {
    pub(crate) by: Option<String>,
    pub(crate) force: bool,
    pub(crate) reap: bool,
    pub(crate) across_homes: bool,
}

impl ReplaceArguments {
    pub(crate) fn replace(self) -> Replace {
        let mut replace = Replace::new();
        if let Some(by) = self.by {
            replace = replace.by(by);
        }
        replace = if self.force { replace.force() } else { replace };
        replace = if self.reap { replace.reap() } else { replace };
        if self.across_homes { replace.across_homes() } else { replace }
    }
}

/// What became of a handover.
pub(crate) fn outcome(handed_over: &HandedOver) -> Value {
    match handed_over {
        HandedOver::Yes(successor) => json!({
            "outcome": "taken",
            "instance": successor.instance,
            "pid": successor.child.id(),
        }),
        HandedOver::No(why) => {
            let mut document = json!({"outcome": word(*why), "why": why.to_string()});
            if let NotTaken::Ended(Some(status)) = why {
                document["exit_code"] = json!(status.code());
            }
            document
        }
        _ => json!({"outcome": "unknown"}),
    }
}

fn word(why: NotTaken) -> &'static str {
    match why {
        NotTaken::Ended(_) => "ended",
        NotTaken::TimedOut => "timed_out",
        NotTaken::AskedToEnd => "asked_to_end",
        _ => "unknown",
    }
}
