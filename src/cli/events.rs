//! `events`: what happened in the store, and what goes on happening.

use std::time::Duration;

use crate::cli::args::Global;
use crate::cli::output::{Answer, Complaint, Format, Outcome, exit};
use crate::cli::{args, output, printable};
use crate::clock::rfc3339;
use crate::status::{Event, EventOptions};
use crate::sys::supervise;
use crate::{Cancel, Error, ErrorKind, Kind, ProfileName, Result, Store, Wait};
use serde_json::json;

/// Events printed at once; the store keeps more.
const SHOWN: usize = 1_000;

/// Past events that a follower starts with, as `tail` does.
const FOLLOWED: usize = 10;

/// How often a follower looks whether there is a store by now, and whether anybody still reads.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Between two looks whether anybody still reads, where nothing happens.
const READER_EVERY: Duration = Duration::from_secs(1);

pub(super) fn events(global: &Global, arguments: &args::Events, format: Format) -> Outcome {
    // Without a word about the profile the whole store is meant.
    let profile = global.profile.as_deref().map(ProfileName::new).transpose()?;
    let kind = global.kind.as_deref().map(Kind::new).transpose()?;
    let wanted = Wanted { profile, kind, arguments };
    if arguments.follow {
        return follow(global, &wanted, format);
    }
    let events = match global.existing()? {
        Some(store) => store.past_events(&wanted.past(SHOWN))?,
        None => Vec::new(),
    };
    let text: String = events.iter().map(|event| line(event) + "\n").collect();
    Ok(Answer::new(exit::OK, text, json!(events)))
}

/// Which events are asked for.
struct Wanted<'a> {
    profile: Option<ProfileName>,
    kind: Option<Kind>,
    arguments: &'a args::Events,
}

impl Wanted<'_> {
    /// Those of the past: as many as were asked for, all since a time, else `count_max`.
    fn past(&self, count_max: usize) -> EventOptions {
        let options = EventOptions::new();
        let options = self.profile.iter().cloned().fold(options, EventOptions::profile);
        let options = self.kind.iter().cloned().fold(options, EventOptions::kind);
        let options = self.arguments.event.iter().fold(options, EventOptions::event);
        let options = self.arguments.since.into_iter().fold(options, EventOptions::since_ms);
        match (self.arguments.limit, self.arguments.since) {
            (Some(limit), _) => options.count_max(limit),
            (None, Some(_)) => options,
            (None, None) => options.count_max(count_max),
        }
    }

    /// Whether an event of the stream is one of them. That some were missed is told in any case.
    fn has(&self, event: &Event) -> bool {
        const LOST: &str = "events_lost";
        let names = &self.arguments.event;
        let is_of_kind =
            self.kind.as_ref().is_none_or(|kind| event.kind.as_deref() == Some(kind.as_str()));
        let is_named = names.is_empty() || names.contains(&event.event);
        event.event == LOST || (is_of_kind && is_named)
    }
}

/// Where a follower starts in a store that it opens.
#[derive(Clone, Debug)]
enum Start {
    /// With the last few events, as `tail` does.
    Tail,
    /// With the first one: the store is new.
    First,
    /// In the store of this id after the event of this id; with the first one in any other.
    After(String, i64),
}

/// Prints events until nobody reads them any more, or Ctrl-C. The store may come later, and may be
/// replaced.
fn follow(global: &Global, wanted: &Wanted<'_>, format: Format) -> Outcome {
    let cancel = Cancel::new();
    cancel
        .cancel_on_interrupt()
        .map_err(|error| Error::internal(format!("cannot handle signals: {error}")))?;
    let mut start = Start::Tail;
    while !cancel.is_cancelled() {
        // One that is just being replaced is opened with the next look.
        let opened = match global.existing() {
            Err(error) if error.kind() == ErrorKind::StoreReplaced => None,
            opened => opened?,
        };
        let Some(store) = opened else {
            if let Start::Tail = start {
                start = Start::First;
            }
            if supervise::standard_output_is_closed() {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
            continue;
        };
        match follow_store(&store, wanted, format, &mut start, &cancel) {
            Err(error) if error.kind() == ErrorKind::StoreReplaced => {
                output::tell(
                    "incumbent: events: the store was replaced; continuing with the new one\n",
                );
            }
            Err(error) => return Err(error),
            Ok(Reader::Reads) => {}
            Ok(Reader::Gone) => break,
            Ok(Reader::CutOff(error)) => {
                return Ok(Answer::silent(exit::FAILED).complaining(Complaint::cut_off(&error)));
            }
        }
    }
    Ok(Answer::silent(exit::OK))
}

fn follow_store(
    store: &Store,
    wanted: &Wanted<'_>,
    format: Format,
    start: &mut Start,
    cancel: &Cancel,
) -> Result<Reader> {
    let mut stream = store.events()?.cancel(cancel.clone());
    let id = store.uuid()?;
    match start {
        Start::Tail => {
            let past = store.past_events(&wanted.past(FOLLOWED))?;
            for event in past.iter().filter(|event| event.id <= stream.position()) {
                match print(event, format) {
                    Reader::Reads => {}
                    ended => return Ok(ended),
                }
            }
        }
        Start::After(same, position) if *same == id && *position <= stream.position() => {
            stream = stream.after(*position);
        }
        Start::First | Start::After(..) => stream = stream.after(0),
    }
    if let Some(profile) = &wanted.profile {
        stream = stream.of_profile(profile.clone());
    }
    while !cancel.is_cancelled() {
        let next = stream.next_event(Wait::UpTo(READER_EVERY));
        *start = Start::After(id.clone(), stream.position());
        let reader = match next {
            Ok(Some(event)) if wanted.has(&event) => print(&event, format),
            Ok(Some(_)) => Reader::Reads,
            Ok(None) => Reader::look(),
            // Whoever keeps it busy does so for a while; nothing is lost by asking again.
            Err(error) if error.kind() == ErrorKind::Busy => Reader::look(),
            Err(error) => return Err(error),
        };
        match reader {
            Reader::Reads => {}
            ended => return Ok(ended),
        }
    }
    Ok(Reader::Reads)
}

/// Whoever follows.
enum Reader {
    Reads,
    /// It has seen enough: that is how following ends.
    Gone,
    /// A line could not be written: it must not look like the last one.
    CutOff(std::io::Error),
}

impl Reader {
    fn look() -> Self {
        if supervise::standard_output_is_closed() { Self::Gone } else { Self::Reads }
    }
}

/// Prints one line of the stream.
fn print(event: &Event, format: Format) -> Reader {
    let line = match format {
        Format::Text => line(event),
        Format::Json => printable::document_line(&json!(event)),
    };
    match output::write(format!("{line}\n").as_bytes()) {
        Ok(()) => Reader::Reads,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Reader::Gone,
        Err(error) => Reader::CutOff(error),
    }
}

fn line(event: &Event) -> String {
    let at = rfc3339(event.at_ms).unwrap_or_default();
    let mut text = format!("{at}  {}", event.event);
    match (&event.profile, &event.kind) {
        (Some(profile), Some(kind)) => text += &format!("  {profile}/{kind}"),
        (Some(profile), None) => text += &format!("  {profile}"),
        (None, _) => {}
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
    output::one_line(&text)
}
