//! `forensics systemd`.

use std::time::Duration;

use crate::cli::args::Global;
use crate::cli::output::{Answer, Outcome, Style, exit};
use crate::cli::{args, output};
use crate::forensics::{Fact, Span, SystemdCheck, Unavailable, own_unit, unit_name};
use crate::stop::StopPhases;
use crate::{Error, Report, Result, Verdict};
use serde_json::json;

pub(crate) fn systemd(global: &Global, arguments: &args::ForensicsSystemd) -> Outcome {
    let unit = match &arguments.unit {
        Some(name) => Some(named(name)?),
        None => own_unit().ok(),
    };
    // Whoever names both asks nothing of the store.
    let holder = match (&unit, arguments.drain) {
        (Some(_), Some(_)) => None,
        _ => holder(global)?,
    };
    let phases = phases(arguments.drain, holder.as_ref());
    let unit = unit.map_or_else(|| unit_of(holder.as_ref()), Ok);
    let check = SystemdCheck::of(unit, &phases);
    Ok(Answer::new(
        match check.mismatch {
            Ok(false) => exit::OK,
            Ok(true) => exit::NO,
            Err(_) => exit::UNKNOWN,
        },
        text(&check),
        json!(check),
    ))
}

fn named(name: &str) -> Result<String> {
    unit_name(name).map_err(|why| {
        Error::invalid(why.why().to_owned())
            .with_hint("name one service, e.g. `--unit gateway.service`")
    })
}

/// Whoever holds the office, or may hold it.
fn holder(global: &Global) -> Result<Option<Report>> {
    let office = global.office()?;
    let Some(store) = global.existing()? else { return Ok(None) };
    let report = store.profile(&office.profile)?.status_of(&office.kind)?;
    Ok(Some(report).filter(|report| report.verdict != Verdict::Dead))
}

fn phases(drain: Option<Duration>, holder: Option<&Report>) -> StopPhases {
    match (drain, holder) {
        (Some(drain), _) => StopPhases::draining_for(drain),
        (None, Some(holder)) => StopPhases::of_budget(holder.stop_time()),
        (None, None) => StopPhases::default(),
    }
}

/// The service that the holder was in when it claimed.
fn unit_of(holder: Option<&Report>) -> Fact<String> {
    let ours = own_unit().err().map_or_else(String::new, |why| why.why().to_owned());
    let Some(holder) = holder else {
        return Err(Unavailable::new(format!("{ours}, and nobody holds the office")));
    };
    let supervisor = holder.supervisor.as_deref();
    match supervisor.and_then(|supervisor| supervisor.strip_prefix("systemd:")) {
        Some(unit) => unit_name(unit),
        None => Err(Unavailable::new(format!(
            "{ours}, and the holder of {} is supervised by {}",
            holder.office,
            supervisor
                .filter(|word| *word != "none")
                .map_or_else(|| "an unknown supervisor".to_owned(), output::one_line)
        ))),
    }
}

fn text(check: &SystemdCheck) -> String {
    let style = Style::of_stdout();
    let takes = format!(
        "{} (drain {}, and what comes after it)",
        Span::Finite(check.expected_min),
        Span::Finite(check.drain_timeout)
    );
    let line = |name: &str, value: &str| format!("  {name:<8} {value}\n");
    let unit = check.unit.as_deref().unwrap_or("no unit");
    let mut text = match check.mismatch {
        Ok(false) => {
            format!("{}{unit}: {}\n", style.good_mark(), style.good("gives enough time to stop"))
        }
        Ok(true) => format!(
            "{}{unit}: {}\n",
            style.bad_mark(),
            style.bad("kills the gateway before it has stopped")
        ),
        Err(_) => format!(
            "{}{unit}: {}\n",
            style.doubtful_mark(),
            style.doubtful("cannot tell whether it gives enough time to stop")
        ),
    };
    if let Some(reason) = check.reason() {
        text += &line("because", reason);
    }
    if let Ok(given) = &check.timeout_stop {
        let manager = check.manager.map_or_else(String::new, |it| format!(" ({it} manager)"));
        text += &line("gives", &format!("{given}{manager}"));
    }
    text += &line("takes", &takes);
    if let Some(advice) = check.advice() {
        text += &line("try", &advice);
    } else if check.unit.is_err() {
        text += &line("try", "`--unit UNIT` names the service; `systemctl status PID` finds it");
    }
    text
}
