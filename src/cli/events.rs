//! `events`: what happened in the store, and what goes on happening.

use std::time::Duration;

use super::args::{self, Global};
use super::output::{self, Failure, Format, Outcome, exit};
use crate::clock::rfc3339;
use crate::error::ErrorKind;
use crate::events::{Event, From};
use crate::store::Store;
use crate::sys::supervise;
use crate::wait::data_version;

/// Events printed at once; the store keeps more.
const SHOWN: usize = 1_000;

/// Past events that a follower starts with, as `tail` does.
const FOLLOWED: usize = 10;

/// Between two looks of a follower at `data_version`: for a person at once, and 20 looks a second
/// cost a thousandth of a core.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn events(global: &Global, arguments: &args::Events, format: Format) -> Outcome {
    // Without a word about the profile the whole store is meant.
    let profile = match &global.profile {
        Some(_) => Some(global.profile_name()?.as_str().to_owned()),
        None => None,
    };
    if arguments.follow {
        return follow(global, profile.as_deref(), format);
    }
    let events = match global.existing()? {
        Some(store) => store.events_from(profile.as_deref(), From::Newest(SHOWN), SHOWN)?,
        None => Vec::new(),
    };
    let text: String = events.iter().map(|event| line(event) + "\n").collect();
    output::print(format, &text, &events.iter().map(Event::to_json).collect())?;
    Ok(exit::OK)
}

/// Prints events until nobody reads them any more. The store may come later, and may be replaced.
fn follow(global: &Global, profile: Option<&str>, format: Format) -> Outcome {
    let mut from = From::Newest(FOLLOWED);
    loop {
        if let Some(store) = global.existing()? {
            match follow_store(&store, profile, format, &mut from) {
                Err(Failure::Error(error)) if error.kind() == ErrorKind::StoreReplaced => {
                    output::tell(
                        "incumbent: events: the store was replaced, going on with the new one\n",
                    );
                    from = From::After(0);
                }
                result => return result,
            }
        }
        pause()?;
    }
}

fn follow_store(store: &Store, profile: Option<&str>, format: Format, from: &mut From) -> Outcome {
    let watcher = store.inner.watcher()?;
    let mut seen = None;
    loop {
        let version = data_version(&watcher)?;
        if seen != Some(version) || !store.inner.is_at_its_path() {
            seen = Some(version);
            for event in store.events_from(profile, *from, SHOWN)? {
                *from = From::After(event.id);
                output::print_line(&match format {
                    Format::Text => line(&event),
                    Format::Json => event.to_json().to_string(),
                })?;
            }
            if *from == From::Newest(FOLLOWED) {
                *from = From::After(0);
            }
        }
        pause()?;
    }
}

fn pause() -> Result<(), Failure> {
    if supervise::standard_output_is_closed() {
        return Err(Failure::ClosedPipe);
    }
    std::thread::sleep(LOOK_EVERY);
    Ok(())
}

fn line(event: &Event) -> String {
    let at = rfc3339(event.at_ms).unwrap_or_default();
    let mut text = format!("{at}  {}", event.event);
    if let (Some(profile), Some(kind)) = (&event.profile, &event.kind) {
        text += &format!("  {profile}/{kind}");
    }
    if let Some(pid) = event.pid {
        text += &format!("  pid {pid}");
    }
    if let Some(instance) = event.instance {
        text += &format!("  instance {instance}");
    }
    if let Some(detail) = event.detail.as_object() {
        for (name, value) in detail.iter().filter(|(_, value)| !value.is_null()) {
            text += &format!("  {name}={value}");
        }
    }
    text
}
