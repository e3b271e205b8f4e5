//! `status`: the answer first, then why.

use crate::cli::advice::Invocation;
use crate::cli::after_end::Place;
use crate::cli::args::Global;
use crate::cli::each::named_in;
use crate::cli::output::{Answer, Complaint, Format, Outcome, Style, ago, exit};
use crate::cli::process_status::{held_by, of_process};
use crate::cli::to_do::{idles, says_silence, what_to_do};
use crate::cli::{after_end, args, metrics, missing, output};
use crate::clock::{length, millis, rfc3339};
use crate::patience::with_budget;
use crate::status::report::ANSWER_WITHIN;
use crate::status::{Desired, PlatformStatus, state};
use crate::{Error, Existing, ProfileName, Report, Result, Verdict};
use serde_json::json;
use std::time::Duration;

/// Of platforms, locks and markers this many are shown: an answer fits on a screen.
const SHOWN: usize = 12;

/// A longer value is cut, for the same reason; `--json` has all of it.
const VALUE_LENGTH_MAX: usize = 200;

pub(super) fn status(global: &Global, arguments: &args::Status, format: Format) -> Outcome {
    // Opening counts as well.
    with_budget(ANSWER_WITHIN, || answer(global, arguments, format))
}

fn answer(global: &Global, arguments: &args::Status, format: Format) -> Outcome {
    if arguments.metrics && format == Format::Json {
        return Err(Error::invalid("`--metrics` cannot be combined with `--json`")
            .with_hint("leave out one of them"));
    }
    if arguments.metrics {
        return metrics::metrics(global, arguments);
    }
    if arguments.all {
        return all(global, arguments);
    }
    let report = match arguments.pid {
        Some(pid) => of_process(global, pid)?,
        None => of_office(global)?,
    };
    let code = match report.verdict {
        Verdict::Alive if arguments.ready && report.not_ready().is_some() => exit::NO,
        Verdict::Alive => exit::OK,
        Verdict::Unknown => exit::UNKNOWN,
        Verdict::Dead => exit::NOT_RUNNING,
    };
    let db = global.options().resolved_path().ok();
    let place = Place::of(db.as_deref(), missing::misplaced(global));
    let invocation = Invocation::of(global).about(global, &report.office);
    // Of a live one nothing is started again.
    let argv = if report.verdict == Verdict::Dead { report.argv.as_slice() } else { &[] };
    let invocation = invocation.started_as(argv);
    // The words may take a look at a supervisor, which no program waits for.
    let text = if global.json { String::new() } else { text(&report, &invocation, &place) };
    let complaint = report.not_ready().filter(|_| code == exit::NO);
    let complaint =
        complaint.map(|why| Complaint::new(format!("{} is not ready: {why}", report.office)));
    Ok(Answer::new(code, text, json!(report)).complaining(complaint))
}

fn of_office(global: &Global) -> Result<Report> {
    let office = global.office()?;
    Ok(match global.find_for_one_answer()? {
        Existing::Store(store) => store.profile(&office.profile)?.status_of(&office.kind)?,
        Existing::LostOwner { pid, .. } => Report::never_claimed(office).of_lost_owner(pid),
        Existing::Nothing => Report::never_claimed(office),
    })
}

fn all(global: &Global, arguments: &args::Status) -> Outcome {
    let (profile, kind) = named_in(global)?;
    let reports = match (global.existing_for_one_answer()?, arguments.pid) {
        (Some(store), Some(pid)) => held_by(global, &store, pid)?,
        (Some(store), None) => store.status_of_matching(profile.as_ref(), kind.as_ref())?,
        (None, _) => Vec::new(),
    };
    let text = if reports.is_empty() {
        match arguments.pid {
            Some(pid) => format!("pid {pid} holds no office\n"),
            None if profile.is_some() || kind.is_some() => {
                "nobody has claimed any of these yet\n".to_owned()
            }
            None => "nobody has claimed anything yet\n".to_owned(),
        }
    } else {
        table(&reports)
    };
    let db = global.options().resolved_path().ok();
    let complaint = match Place::of(db.as_deref(), None) {
        Place::FullDisk(directory) => Some(
            Complaint::new(format!("no space left on the disk of {}", directory.display()))
                .advising(after_end::make_room(&directory)),
        ),
        Place::Usual | Place::NoStore(_) => None,
    };
    Ok(Answer::new(exit::OK, text, json!(reports)).complaining(complaint))
}

/// One line for each office.
fn table(reports: &[Report]) -> String {
    let style = Style::of_stdout();
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "PROFILE",
        "KIND",
        "RUNNING",
        "PID",
        "SINCE",
        "SAYS",
        "PLATFORMS",
        "NOTE",
    ]);
    for report in reports {
        let is_dead = report.verdict == Verdict::Dead;
        let live = |text: Option<String>| text.filter(|_| !is_dead).unwrap_or_default();
        let connected = report.platforms.iter().filter(|platform| !is_in_trouble(platform));
        let platforms = (!report.platforms.is_empty())
            .then(|| format!("{} of {} ok", connected.count(), report.platforms.len()));
        table.add_row([
            report.office.profile.to_string(),
            report.office.kind.to_string(),
            in_words(report.verdict).to_owned(),
            live(report.pid.map(|pid| pid.to_string())),
            live(age(report)),
            output::one_line(report.state.as_deref().unwrap_or_default()),
            live(platforms),
            output::one_line(&note(report)),
        ]);
    }
    let table = table.to_string();
    let mut lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    // Painted last: the table would count the colours as width.
    let column = lines.first().and_then(|header| header.find("RUNNING")).unwrap_or(0);
    for (line, report) in lines.iter_mut().skip(1).zip(reports) {
        let word = in_words(report.verdict);
        let painted = match report.verdict {
            Verdict::Alive => style.good(word),
            Verdict::Unknown => style.doubtful(word),
            Verdict::Dead => style.bad(word),
        };
        line.replace_range(column..column + word.len(), &painted);
    }
    lines.join("\n") + "\n"
}

/// Whether it runs.
fn in_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Alive => "yes",
        Verdict::Unknown => "unknown",
        Verdict::Dead => "no",
    }
}

/// What one would want to know first, in a few words.
fn note(report: &Report) -> String {
    let mut notes = Vec::new();
    if let Some(server) = &report.served_by {
        notes.push(format!("served by {}", server.profile));
    }
    notes.extend(report.flags.names().iter().map(|name| name.replace('_', " ")));
    if let Some(silence) = report.unresponsive_for {
        notes.push(format!("unresponsive for {}", span(silence)));
    }
    match report.verdict {
        Verdict::Alive => {}
        Verdict::Unknown => notes.push(report.because().to_owned()),
        Verdict::Dead => {
            let ended = || {
                report.last_end.as_ref().map_or_else(
                    || report.reason.in_words(),
                    |end| format!("{}, {}", end.summary, after_end::when(end)),
                )
            };
            notes.push(after_end::kept_out(report).unwrap_or_else(ended));
        }
    }
    if let Some(count) = report.restarts.filter(|count| *count > 0)
        && report.verdict != Verdict::Dead
    {
        let age = command_age(report).map(|age| format!(", {age}"));
        notes.push(restarted(count) + &age.unwrap_or_default());
    }
    if !report.waiters.is_empty() {
        notes.push(format!("{} waiting", report.waiters.len()));
    }
    if let Some(desired) = report.desired
        && (desired == Desired::Running) != (report.verdict != Verdict::Dead)
    {
        notes.push(format!("should be {desired}"));
    }
    notes.join(", ")
}

/// How often a `run` has started its command again.
pub(super) fn restarted(count: u32) -> String {
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    format!("restarted {times}")
}

fn is_in_trouble(platform: &PlatformStatus) -> bool {
    platform.error_code.is_some()
        || platform.error_message.is_some()
        || platform.needs_attention == Some(true)
        || platform.retrying_since_ms.is_some()
}

fn span(duration: Duration) -> String {
    length(millis(duration))
}

/// The first few of many, and how many more there are.
fn shown<T>(items: &[T], line: impl Fn(&T) -> (String, String)) -> Vec<(String, String)> {
    let mut lines: Vec<_> = items.iter().take(SHOWN).map(line).collect();
    if let Some((label, _)) = lines.first().filter(|_| items.len() > SHOWN) {
        let label = label.clone();
        lines.push((label, format!("and {} more, see --json", items.len() - SHOWN)));
    }
    lines
}

/// What the gateway said of itself.
fn said(report: &Report) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let line = |label: &str, value: String| (label.to_owned(), value);
    if let Some(silence) = report.unresponsive_for.filter(|_| !says_silence(report)) {
        lines.push(line("hangs", format!("no heartbeat for {}", span(silence))));
    }
    if let Some(said) = &report.runtime {
        let mut facts = Vec::new();
        match (&report.state, &said.state) {
            (Some(state), _) => {
                let since =
                    said.state_since_ms.map_or_else(String::new, |ms| format!(", {}", ago(ms)));
                facts.push(format!("{state}{since}"));
            }
            (None, Some(last)) => facts.push(format!("was {last}")),
            (None, None) => {}
        }
        if report.verdict != Verdict::Dead {
            match said.active_agents {
                Some(1) => facts.push("1 agent at work".to_owned()),
                Some(count) => facts.push(format!("{count} agents at work")),
                None => {}
            }
        }
        if said.restart_requested == Some(true) {
            facts.push("wants to be started again".to_owned());
        }
        if let Some(at_ms) = said.updated_at_ms.filter(|_| report.stale) {
            facts.push(format!("said {}", ago(at_ms)));
        }
        if !facts.is_empty() {
            lines.push(line("says", facts.join("; ")));
        }
        if let Some(bytes) = said.memory_bytes {
            let when = report
                .heartbeat_at_ms
                .map_or_else(String::new, |ms| format!(", at its last heartbeat, {}", ago(ms)));
            lines.push(line("memory", format!("{}{when}", output::mebibytes(bytes))));
        }
        if let Some(reason) = &said.exit_reason {
            lines.push(line("exits", reason.clone()));
        }
        if let Some(extra) = &said.extra {
            lines.push(line("extra", extra.to_string()));
        }
        if !said.damaged.is_empty() {
            let columns = said.damaged.join(", ");
            lines.push(line(
                "damaged",
                format!("{columns}: cannot be read until it is published again"),
            ));
        }
    }
    let mut platforms: Vec<&PlatformStatus> = report.platforms.iter().collect();
    // Of many, those that a person has to see.
    platforms.sort_by_key(|platform| !is_in_trouble(platform));
    lines.extend(shown(&platforms, |it| platform(it, report.verdict != Verdict::Dead)));
    if !report.serves.is_empty() && report.served_by.is_none() {
        let names: Vec<&str> = report.serves.iter().map(ProfileName::as_str).collect();
        lines.push(line("serves", names.join(", ")));
    }
    lines
}

fn platform(platform: &PlatformStatus, is_alive: bool) -> (String, String) {
    let mut facts = Vec::new();
    if let Some(state) = &platform.state {
        let since = platform.state_since_ms.filter(|_| is_alive);
        let since = since.map_or_else(String::new, |ms| format!(", {}", ago(ms)));
        facts.push(format!("{}{state}{since}", if is_alive { "" } else { "was " }));
    }
    match (&platform.error_code, &platform.error_message) {
        (Some(code), Some(message)) => facts.push(format!("{code}: {message}")),
        (Some(error), None) | (None, Some(error)) => facts.push(error.clone()),
        (None, None) => {}
    }
    if let Some(ms) = platform.retrying_since_ms.filter(|_| is_alive) {
        facts.push(format!("reconnecting {}", output::since(&ago(ms))));
    }
    if platform.needs_attention == Some(true) {
        facts.push("needs attention".to_owned());
    }
    if !platform.damaged.is_empty() {
        facts.push(format!("damaged: {}", platform.damaged.join(", ")));
    }
    if facts.is_empty() {
        facts.push("no status published".to_owned());
    }
    ("platform".to_owned(), format!("{}: {}", platform.platform, facts.join("; ")))
}

/// What to do comes right after the answer.
pub(super) fn text(report: &Report, invocation: &Invocation, place: &Place) -> String {
    let style = Style::of_stdout();
    let answer = after_end::happened(report, place);
    let answer = shortened(&output::one_line(&answer));
    let mut text = headline(report, &answer, style) + "\n";
    let advice = what_to_do(report, place).into_iter();
    let advice = advice.map(|advice| ("try".to_owned(), invocation.complete(&advice)));
    for (label, value) in advice.chain(facts(report, &answer)) {
        // Names of platforms are of any length, and what was written may be of many lines.
        let value = output::one_line(&value);
        // A command that was cut cannot be pasted.
        let value = if label == "try" { value } else { shortened(&value) };
        let label = style.faint(&format!("{label:<10}"));
        text += format!("  {label} {value}").trim_end();
        text += "\n";
    }
    text
}

fn pid(report: &Report) -> String {
    report.pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"))
}

/// For how long, by the clock that does not step if that can be told.
fn age(report: &Report) -> Option<String> {
    let age = report.age.map(|age| format!("{} ago", span(age)));
    age.or_else(|| report.since_ms.map(ago))
}

/// The same of the command of a `run`.
fn command_age(report: &Report) -> Option<String> {
    let age = report.command_age.map(|age| format!("{} ago", span(age)));
    age.or_else(|| report.command_since_ms.map(ago))
}

/// The answer; `ended` is what became of one that is not running.
fn headline(report: &Report, ended: &str, style: Style) -> String {
    let (office, pid) = (&report.office, pid(report));
    let served = report.served_by.as_ref().map(|server| format!(", served by {server}"));
    let served = served.unwrap_or_default();
    match report.verdict {
        Verdict::Alive => {
            let since = age(report).map(|age| format!(", {}", output::since(&age)));
            let idles = idles(report);
            let mut flags = report.flags.names();
            flags.retain(|flag| !["stopped", "frozen", "command_stopped"].contains(flag));
            let flags = match flags.as_slice() {
                [] => String::new(),
                names => format!(" ({})", names.join(", ").replace('_', " ")),
            };
            let (mark, running) = match idles {
                Some(_) => (style.doubtful_mark(), style.doubtful("running")),
                None => (style.good_mark(), style.good("running")),
            };
            let but = idles.map(|how| format!(", but {how}")).unwrap_or_default();
            format!(
                "{mark}{office}: {running}{but}{flags}{served}, {pid}{}",
                since.unwrap_or_default()
            )
        }
        Verdict::Unknown => format!(
            "{}{office}: {}{served}, {pid} may be running",
            style.doubtful_mark(),
            style.doubtful("unknown")
        ),
        Verdict::Dead => {
            let failed = report.state.as_deref() == Some(state::STARTUP_FAILED);
            let why = if failed { ", its last start failed" } else { "" };
            format!("{}{office}: {}{why} ({ended})", style.bad_mark(), style.bad("not running"))
        }
    }
}

/// Why, and what else is to be known beside the answer, which says how a dead one ended.
fn facts(report: &Report, answer: &str) -> Vec<(String, String)> {
    let is_dead = report.verdict == Verdict::Dead;
    let line = |label: &str, value: String| (label.to_owned(), value);
    let mut lines = Vec::new();
    // Of an end that nobody saw: by what it is known.
    let is_told = is_dead && report.last_end.as_ref().is_none_or(|end| !end.is_found());
    if !is_told {
        lines.push(line("because", report.because().to_owned()));
    }
    if is_dead && report.pid.is_some() {
        let since = report.since_ms.and_then(rfc3339).unwrap_or_default();
        lines.push(line("it was", format!("{}, claimed {since}", pid(report))));
    }
    if report.flags.anchor_leaked {
        let holders: Vec<String> =
            report.anchor_holders.iter().map(|pid| format!("pid {pid}")).collect();
        let holders = if holders.is_empty() {
            "a process that cannot be seen".to_owned()
        } else {
            holders.join(", ")
        };
        let so_what = if is_dead {
            "which blocks nobody"
        } else {
            "so every start is refused until that process ends"
        };
        lines.push(line("leaked", format!("its lock is still open in {holders}, {so_what}")));
    }
    if let Some(command) = &report.command {
        lines.push(line("command", command.clone()));
    }
    if let Some(child) = report.child_pid.filter(|_| !is_dead) {
        let since = command_age(report).map(|age| format!(", {}", output::since(&age)));
        let since = since.unwrap_or_default();
        let again = report.restarts.filter(|count| *count > 0).map(restarted);
        let again = again.map(|again| format!(", {again}")).unwrap_or_default();
        lines.push(line("child", format!("pid {child}{since}{again}")));
    }
    lines.extend(said(report));
    if !is_dead {
        lines.extend(shown(&report.locks, |lock| {
            line("lock", format!("{}, fence {}", lock.name, lock.fence))
        }));
        lines.extend(shown(&report.markers, |marker| {
            let asked_at = ago(marker.written_at_ms);
            line("asked", format!("{} by {}, {asked_at}", marker.name, marker.by))
        }));
    }
    lines.extend(shown(&report.waiters, |waiter| {
        let pid = waiter.pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"));
        let lock = waiter.lock.as_ref().map(|lock| format!(" for {lock}")).unwrap_or_default();
        line("waiting", format!("{pid}{lock}, {}", output::since(&ago(waiter.since_ms))))
    }));
    if let Some(supervisor) = report.supervisor.as_deref().filter(|word| *word != "none") {
        lines.push(line("supervisor", supervisor.to_owned()));
    }
    if let Some(version) = &report.version {
        lines.push(line("version", version.clone()));
    }
    if let Some(desired) = report.desired {
        lines.push(line("desired", desired.to_string()));
    }
    if let Some(budget) = report.stop_budget.filter(|_| report.running) {
        lines.push(line("may take", format!("{} to stop", span(budget))));
    }
    if let Some(end) = &report.last_end {
        let seen_ms = report.heartbeat_at_ms.filter(|_| is_dead);
        if !is_dead || !after_end::tells_end(report) {
            lines.push(line("last end", after_end::ended(end, seen_ms)));
        }
        let more = after_end::more(end, answer).filter(|_| is_dead);
        lines.extend(more.map(|more| line("detail", more)));
    }
    lines
}

fn shortened(value: &str) -> String {
    if value.len() <= VALUE_LENGTH_MAX {
        return value.to_owned();
    }
    format!("{}...", &value[..value.floor_char_boundary(VALUE_LENGTH_MAX)])
}
