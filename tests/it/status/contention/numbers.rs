//! One number in every field of an update: half of one would show.

use std::collections::BTreeMap;

use incumbent::status::{Field, PlatformUpdate};
use incumbent::{Report, StatusUpdate};
use serde_json::{Value, json};

use super::{ALL_EVERY, PLATFORMS};

pub fn platform_name(platform: u64) -> String {
    format!("platform-{platform}")
}

/// Whether update `number` says something about `platform`.
fn is_about(number: u64, platform: u64) -> bool {
    number % ALL_EVERY == 1 || number % PLATFORMS == platform
}

/// What the platform's number has to be when the instance's own is `number`.
fn expected_of(number: u64, platform: u64) -> u64 {
    (1..=number).rev().find(|earlier| is_about(*earlier, platform)).unwrap()
}

fn said_of_runtime(number: u64) -> Value {
    let reason = number.is_multiple_of(2).then(|| format!("reason {number}"));
    json!({
        "state": format!("state-{number}"),
        "exit_reason": reason,
        "restart_requested": number.is_multiple_of(3),
        "active_agents": number,
        "extra": {"number": number},
    })
}

fn said_of_platform(number: u64, platform: u64) -> Value {
    let odd = |value: Value| if number.is_multiple_of(2) { Value::Null } else { value };
    json!({
        "platform": platform_name(platform),
        "state": format!("state-{number}"),
        "error_code": odd(json!(format!("E{number}"))),
        "error_message": odd(json!(format!("message {number}"))),
        "needs_attention": number.is_multiple_of(3),
        "retrying_since": Value::Null,
        "extra": {"number": number, "padding": "x".repeat(usize::try_from(number % 50).unwrap())},
    })
}

fn set_or_clear(value: &Value) -> Field<String> {
    value.as_str().map_or(Field::Clear, Field::from)
}

/// Update `number`: everything in it says so.
pub fn update(number: u64) -> StatusUpdate {
    let said = said_of_runtime(number);
    let mut update = StatusUpdate::new()
        .state(said["state"].as_str().unwrap())
        .exit_reason(set_or_clear(&said["exit_reason"]))
        .restart_requested(said["restart_requested"].as_bool().unwrap())
        .active_agents(number)
        .extra(said["extra"].clone());
    for platform in (0..PLATFORMS).filter(|platform| is_about(number, *platform)) {
        let said = said_of_platform(number, platform);
        update = update.platform(
            PlatformUpdate::new(platform_name(platform))
                .state(said["state"].as_str().unwrap())
                .error_code(set_or_clear(&said["error_code"]))
                .error_message(set_or_clear(&said["error_message"]))
                .needs_attention(said["needs_attention"].as_bool().unwrap())
                .extra(said["extra"].clone()),
        );
    }
    update
}

/// What is known of one instance, from whatever source: what it said, as events show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    pub runtime: Option<Value>,
    /// By profile and platform.
    pub platforms: BTreeMap<(String, String), Value>,
}

impl Said {
    /// The number that all of it carries, 0 for nothing; `Err` when it is half of one update and
    /// half of another.
    pub fn number(&self, profile: &str) -> Result<u64, String> {
        let Some(runtime) = &self.runtime else {
            return if self.platforms.is_empty() { Ok(0) } else { Err(format!("{self:?}")) };
        };
        let Some(number) = runtime["active_agents"].as_u64() else {
            return Err(format!("no number: {runtime}"));
        };
        let expected = Self {
            runtime: Some(said_of_runtime(number)),
            platforms: (0..PLATFORMS)
                .map(|platform| {
                    let said = said_of_platform(expected_of(number, platform), platform);
                    ((profile.to_owned(), platform_name(platform)), said)
                })
                .collect(),
        };
        if *self == expected { Ok(number) } else { Err(format!("{self:?}\nis not {expected:?}")) }
    }

    /// As one report shows it.
    pub fn of_report(report: &Report) -> Self {
        let platforms = report.platforms.iter().map(|it| {
            let said = json!({
                "platform": it.platform,
                "state": it.state,
                "error_code": it.error_code,
                "error_message": it.error_message,
                "needs_attention": it.needs_attention,
                "retrying_since": it.retrying_since_ms,
                "extra": it.extra,
            });
            ((it.profile.clone(), it.platform.clone()), said)
        });
        let runtime = report.runtime.as_ref().map(|it| {
            json!({
                "state": it.state,
                "exit_reason": it.exit_reason,
                "restart_requested": it.restart_requested,
                "active_agents": it.active_agents,
                "extra": it.extra,
            })
        });
        Self { runtime, platforms: platforms.collect() }
    }
}
