//! `status-set`: what a gateway says about itself, from a script or another language.

use serde_json::{Value, json};

use crate::cli::args::{Cadence, Global, StatusField, StatusSet, Time};
use crate::cli::claim::whom;
use crate::cli::context::by_this_process;
use crate::cli::output::{Answer, Outcome, exit};
use crate::cli::{lost_store, missing};
use crate::clock::{Clock, SystemClock};
use crate::status::{Field, PlatformUpdate};
use crate::{Error, Office, Result, StatusUpdate};

pub(super) fn status_set(global: &Global, arguments: &StatusSet) -> Outcome {
    let office = global.office()?;
    let update = update(arguments, &office)?;
    update.check()?;
    if update.is_empty() {
        return Err(Error::invalid("no field was given").with_hint(
            "name a field, such as `--state running`; see `incumbent status-set --help`",
        ));
    }
    let said =
        lost_store::ask(global, |store| store.kept(whom(arguments.pid)).say(&office, &update))?;
    let Some(instance) = said else {
        let path = global.options().resolved_path()?;
        return Err(Error::not_speaker(format!(
            "nobody holds {office}: {}",
            missing::text(global, &path)
        ))
        .at(path));
    };
    let document = json!({
        "written": true,
        "profile": office.profile.as_str(),
        "kind": office.kind.as_str(),
        "instance": instance.as_i64(),
    });
    Ok(Answer::new(exit::OK, "", document))
}

/// The update that the arguments describe; a field cannot be set and forgotten at once.
fn update(arguments: &StatusSet, office: &Office) -> Result<StatusUpdate> {
    let clears = |field: StatusField| arguments.clear.contains(&field);
    if let Some(field) = arguments.clear.iter().find(|field| field.is_of_platform())
        && arguments.platform.is_none()
    {
        return Err(Error::invalid(format!("`--clear {}` needs `--platform`", field.as_str()))
            .with_hint("name the platform with `--platform P`"));
    }
    let agents = arguments.active_agents.map(|count| u64::try_from(count).unwrap_or(0));
    let serves = (!arguments.serves.is_empty()).then(|| arguments.serves.clone());
    let mut update = StatusUpdate::new()
        .by(by_this_process("status-set"))
        .state(field(arguments, StatusField::State, arguments.state.clone())?)
        .exit_reason(field(arguments, StatusField::ExitReason, arguments.exit_reason.clone())?)
        .restart_requested(field(
            arguments,
            StatusField::RestartRequested,
            arguments.restart_requested,
        )?)
        .active_agents(field(arguments, StatusField::ActiveAgents, agents)?)
        .extra(field(arguments, StatusField::Extra, json_of(arguments.extra.as_deref())?)?)
        .serves(field(arguments, StatusField::Serves, serves)?);
    update = match arguments.heartbeat {
        None if clears(StatusField::Heartbeat) => update.heartbeat_every(Field::Clear),
        None => update,
        Some(_) if clears(StatusField::Heartbeat) => {
            return Err(set_and_forgotten(StatusField::Heartbeat));
        }
        Some(Cadence::Unsaid) => update.heartbeat(),
        Some(Cadence::Every(cadence)) => update.heartbeat_every(cadence),
    };
    if clears(StatusField::Platforms) {
        update = update.forget_platforms(Some(office.profile.clone()));
    }
    match platform(arguments, office)? {
        Some(platform) => Ok(update.platform(platform)),
        None => Ok(update),
    }
}

fn platform(arguments: &StatusSet, office: &Office) -> Result<Option<PlatformUpdate>> {
    let Some(name) = &arguments.platform else { return Ok(None) };
    let retrying_since = arguments.retrying_since.map(|time| match time {
        Time::Now => SystemClock.wall_ms(),
        Time::At { ms } => ms,
    });
    let update = PlatformUpdate::new(name.as_str())
        .of_profile(office.profile.clone())
        .state(field(arguments, StatusField::PlatformState, arguments.platform_state.clone())?)
        .error_code(field(arguments, StatusField::ErrorCode, arguments.error_code.clone())?)
        .error_message(field(
            arguments,
            StatusField::ErrorMessage,
            arguments.error_message.clone(),
        )?)
        .needs_attention(field(arguments, StatusField::NeedsAttention, arguments.needs_attention)?)
        .retrying_since_ms(field(arguments, StatusField::RetryingSince, retrying_since)?)
        .extra(field(
            arguments,
            StatusField::PlatformExtra,
            json_of(arguments.platform_extra.as_deref())?,
        )?);
    let is_removed = arguments.clear.contains(&StatusField::Platform);
    Ok(Some(if is_removed { update.remove() } else { update }))
}

fn field<T>(arguments: &StatusSet, field: StatusField, value: Option<T>) -> Result<Field<T>> {
    match (value, arguments.clear.contains(&field)) {
        (None, false) => Ok(Field::Keep),
        (None, true) => Ok(Field::Clear),
        (Some(value), false) => Ok(Field::Set(value)),
        (Some(_), true) => Err(set_and_forgotten(field)),
    }
}

fn set_and_forgotten(field: StatusField) -> Error {
    Error::invalid(format!("{} is both set and cleared", field.as_str()))
        .with_hint(format!("leave out either the option or `--clear {}`", field.as_str()))
}

/// A caller's own JSON. What is none is not repeated: it may be a secret.
fn json_of(text: Option<&str>) -> Result<Option<Value>> {
    let parse = |text| {
        serde_json::from_str(text).map_err(|error| {
            Error::invalid(format!("the value of an extra field is not JSON: {error}"))
                .with_hint("such as `--extra '{\"version\": 3}'`")
        })
    };
    text.map(parse).transpose()
}
