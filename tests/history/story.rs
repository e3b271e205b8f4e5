//! A log as a story: by time, with names, and what is wrong in one sentence.

use std::collections::HashMap;
use std::fmt::Write;

use crate::check::Violation;
use crate::log::{
    Answer, Call, Death, Hurt, Killer, Ns, Op, Phase, Pid, Record, Step, Thing, Wait, What,
};

/// As much as a person reads.
const LINES: usize = 120;

/// Of a longer one, what is this near to what is accused.
const AROUND: usize = 12;

/// Tells it: what is wrong, then what happened.
pub fn tell(records: &[Record], violation: &Violation) -> String {
    let begin = records.first().map_or(0, |record| record.at);
    let mut names = Names::default();
    let mut text = format!("{:?}: {}\n", violation.rule, violation.what);
    let is_long = records.len() > LINES;
    let mut hidden = 0;
    for (index, record) in records.iter().enumerate() {
        // Also for those that are not told: the numbers of the calls stay.
        let line = names.line(record);
        let is_near = violation.lines.iter().any(|it| it.abs_diff(index) <= AROUND);
        if is_long && !is_near {
            hidden += 1;
            continue;
        }
        let mark = if violation.lines.contains(&index) { '>' } else { ' ' };
        let who = record.by.map_or_else(String::new, |pid| format!(" [{pid}]"));
        let _ = writeln!(text, "{mark} {}{who}  {line}", since(begin, record.at));
    }
    if hidden > 0 {
        let _ = writeln!(text, "  (and {hidden} more)");
    }
    text
}

/// `+1.204 s`.
fn since(begin: Ns, at: Ns) -> String {
    let ms = at.saturating_sub(begin) / 1_000_000;
    format!("+{}.{:03} s", ms / 1_000, ms % 1_000)
}

/// Short names for calls: `run #17 (default/gateway)`.
#[derive(Default)]
struct Names {
    known: HashMap<Op, String>,
}

impl Names {
    fn line(&mut self, record: &Record) -> String {
        match &record.what {
            What::Start { seed, text } => format!("the soak begins, seed {seed} {text}"),
            What::Begin { op, call, from } => {
                let number = self.known.len() + 1;
                let (verb, more) = words(call);
                let thing = call.thing().map_or_else(String::new, |it| format!(" ({it})"));
                let name = format!("{verb} #{number}{thing}");
                self.known.insert(*op, name.clone());
                let inside = from.namespace.as_ref();
                let inside =
                    inside.map_or_else(String::new, |it| format!(", in the pid namespace {it}"));
                format!("{name} begins{more}{inside}")
            }
            What::Started { op, pid } => format!("{} is pid {pid}", self.of(*op)),
            What::End { op, answer } => format!("{} {}", self.of(*op), of_answer(answer)),
            What::Witness { thing, incarnation, op, step } => {
                let whose = incarnation.map_or_else(String::new, |id| format!(" of {id}"));
                let call = op.map_or_else(String::new, |op| format!(", {}", self.of(op)));
                let step = match step {
                    Step::In => "comes in".to_owned(),
                    Step::Out => "goes out".to_owned(),
                    Step::Refused { holder, exiting } => {
                        let by = holder.map_or_else(String::new, |pid| format!(": pid {pid}"));
                        let exiting = if *exiting { ", which is exiting" } else { "" };
                        format!("finds somebody else there{by}{exiting}")
                    }
                };
                format!("witness{whose} {step}: {thing}{call}")
            }
            What::Fault { fault, phase, hurt } => {
                let phase = match phase {
                    Phase::Begin => "begins",
                    Phase::End => "is over",
                };
                format!("nemesis !{fault} {phase}: {}", of_hurt(hurt))
            }
            What::Died { pid, incarnation, how, by } => {
                let whose = incarnation.map_or_else(String::new, |id| format!(" ({id})"));
                format!("pid {pid}{whose} is dead: {}{}", of_death(*how), of_killer(*by))
            }
            What::Final(last) => format!(
                "at the end of {}: {} live, {} locks, {} markers, {} ended",
                last.store,
                last.live.len(),
                last.locks.len(),
                last.markers.len(),
                last.history.len()
            ),
            What::Note { text } => text.clone(),
        }
    }

    fn of(&self, op: Op) -> String {
        self.known.get(&op).cloned().unwrap_or_else(|| format!("call {op:x}"))
    }
}

/// The verb, and what else is worth a word.
fn words(call: &Call) -> (&'static str, String) {
    match call {
        Call::Claim { locks, wait, replace, pid, .. } => {
            let rest = format!("{}{}{}", of_wait(*wait), takes(*replace), of_pid(*pid));
            ("claim", format!("{}{rest}", of_locks(locks)))
        }
        Call::Run { locks, wait, replace, .. } => {
            ("run", format!("{}{}{}", of_locks(locks), of_wait(*wait), takes(*replace)))
        }
        Call::Acquire { wait, ttl_ms, evict_stopped, replace, pid, .. } => {
            let ttl = ttl_ms.map_or_else(String::new, |ms| format!(", ttl {ms} ms"));
            let evicts = if *evict_stopped { ", evicts who is stopped" } else { "" };
            let rest = format!("{}{}{}", of_wait(*wait), takes(*replace), of_pid(*pid));
            ("acquire", format!("{ttl}{evicts}{rest}"))
        }
        Call::Adopt { .. } => ("adopt", String::new()),
        Call::Verify { incarnation, .. } => ("verify", format!(" for {incarnation}")),
        Call::Renew { incarnation, .. } => ("renew", format!(" for {incarnation}")),
        Call::Lease { .. } => ("lease", String::new()),
        Call::Release { incarnation, .. } => ("release", format!(" for {incarnation}")),
        Call::HandOver { incarnation, exec, .. } => {
            let how = if *exec { "by exec" } else { "to a child" };
            ("handover", format!(" of {incarnation} {how}"))
        }
        Call::ReExec { incarnation, .. } => ("exec", format!(" of {incarnation}")),
        Call::Stop { wait, force, .. } => ("stop", format!("{}{}", of_wait(*wait), by(*force))),
        Call::Restart { wait, .. } => ("restart", of_wait(*wait)),
        Call::Evict { force, .. } => ("evict", by(*force).to_owned()),
        Call::Status { .. } => ("status", String::new()),
        Call::Say { incarnation, word, .. } => ("say", format!(" {word:?} for {incarnation}")),
        Call::Forge { incarnation, word, .. } => {
            ("say", format!(" {word:?} as {incarnation}, without its token"))
        }
        Call::MarkerWrite { name, to, token, .. } => {
            ("marker write", format!(" {name} {token:?} to {to}"))
        }
        Call::MarkerPeek { me, .. } => ("marker peek", format!(" for {me}")),
        Call::MarkerConsume { me, .. } => ("marker consume", format!(" for {me}")),
        Call::MarkerClear { name, to } => ("marker clear", format!(" {name} to {to}")),
        Call::Repair { .. } => ("repair", String::new()),
        Call::Remains { .. } => ("locks of the ended", String::new()),
        Call::Other { verb } => ("call", format!(": {verb}")),
    }
}

fn of_locks(locks: &[Thing]) -> String {
    locks.iter().map(|lock| format!(" with {lock}")).collect::<Vec<_>>().concat()
}

fn of_wait(wait: Wait) -> String {
    match wait {
        Wait::Once => String::new(),
        Wait::AtMost { ms } => format!(", waits for {ms} ms"),
        Wait::Forever => ", waits".to_owned(),
    }
}

fn takes(replaces: bool) -> &'static str {
    if replaces { ", replaces" } else { "" }
}

fn by(force: bool) -> &'static str {
    if force { " by force" } else { "" }
}

fn of_pid(pid: Option<Pid>) -> String {
    pid.map_or_else(String::new, |pid| format!(", for pid {pid}"))
}

fn of_answer(answer: &Answer) -> String {
    match answer {
        Answer::Granted { incarnation, fence, reacquired, heir_of, locks } => {
            let again = if *reacquired { ", again" } else { "" };
            let heir = heir_of.map_or_else(String::new, |of| format!(", heir of {of}"));
            let more = locks.iter().map(|(lock, fence)| format!(", {lock} with fence {fence}"));
            let more = more.collect::<Vec<_>>().concat();
            format!("granted, incarnation {incarnation}, fence {fence}{again}{heir}{more}")
        }
        Answer::Held { by, verdict, reason } => {
            let by = by.map_or_else(|| "somebody".to_owned(), |by| by.to_string());
            format!("refused: {by} is {verdict} ({reason})")
        }
        Answer::Yes => "yes".to_owned(),
        Answer::No => "no".to_owned(),
        Answer::Lost { reason } => {
            format!("lost ({})", reason.as_deref().unwrap_or("no reason given"))
        }
        Answer::Running { incarnation, reason, word } => {
            let who = incarnation.map_or_else(|| "somebody".to_owned(), |id| id.to_string());
            let word = word.as_ref().map_or_else(String::new, |word| format!(", says {word:?}"));
            format!("running: {who} ({reason}){word}")
        }
        Answer::NotRunning { reason } => format!("not running ({reason})"),
        Answer::Unknown { reason } => format!("unknown ({reason})"),
        Answer::Marker { name, token, recorded } => {
            let token = token.as_deref().unwrap_or("no token");
            let recorded = if *recorded { "" } else { ", not recorded" };
            format!("marker {name} ({token}){recorded}")
        }
        Answer::NoMarker => "no marker".to_owned(),
        Answer::Leased { incarnation, fence, remaining_ms } => {
            let left = remaining_ms.map_or_else(|| "no lease".to_owned(), |ms| format!("{ms} ms"));
            format!("{left}, of {incarnation} with fence {fence}")
        }
        Answer::Remains { of } => format!("of {of:?}"),
        Answer::Done => "done".to_owned(),
        Answer::Exit { code } => format!("exits with {code}"),
        Answer::Error { kind, text } => format!("error {kind}: {text}"),
    }
}

fn of_hurt(hurt: &Hurt) -> String {
    let whom = |pid: Option<Pid>| pid.map_or_else(|| "all".to_owned(), |pid| format!("pid {pid}"));
    match hurt {
        Hurt::Signal { pid, signal } => format!("signal {signal} to pid {pid}"),
        Hurt::Stop { pids } => format!("stops pids {pids:?}"),
        Hurt::StoreLost { store, how } => format!("the store {store} is lost: {how}"),
        Hurt::WalLost { store } => format!("the -wal of {store} is lost"),
        Hurt::DiskFull { store } => format!("the disk of {store} is full"),
        Hurt::Shortage { pid, of } => format!("{} runs short of {of}", whom(*pid)),
        Hurt::ClockStep { pid, by_ms } => format!("the clock of {} steps {by_ms} ms", whom(*pid)),
        Hurt::Foreign { store, how } => format!("a foreign program in {store}: {how}"),
        Hurt::Mischief { pid, how } => format!("{} does: {how}", whom(*pid)),
        Hurt::Keepers { of } => format!("the keepers of {} are killed", whom(*of)),
    }
}

fn of_death(how: Death) -> String {
    match how {
        Death::Exit { code } => format!("exit {code}"),
        Death::Signal { signal } => format!("signal {signal}"),
        Death::Gone => "gone".to_owned(),
    }
}

fn of_killer(by: Killer) -> String {
    match by {
        Killer::Itself => ", by itself".to_owned(),
        Killer::Nemesis { fault } => format!(", by nemesis !{fault}"),
        Killer::Product => ", ended by others of its kind".to_owned(),
        Killer::Unknown => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, scene::Scene};

    #[test]
    fn a_story_has_names_times_and_what_is_wrong() {
        let mut scene = Scene::new();
        scene.at(0).seed(7);
        let run = scene.at(200).run("office", 17);
        scene.at(1_404).witness_in(run, "office", 1_700);
        let other = scene.at(1_500).run("office", 18);
        scene.at(1_600).refused(other, "office", 1_800, 1_017);
        let records = scene.records();
        let violations = check(&records);
        assert_eq!(violations.len(), 1, "{violations:#?}");
        let story = tell(&records, &violations[0]);
        for words in [
            "OneOwner: two owners of office/gateway",
            "seed 7",
            "+0.200 s [1]  run #1 (office/gateway) begins",
            "+1.404 s [1017]  witness of 1700 comes in: office/gateway, run #1",
            "finds somebody else there: pid 1017",
        ] {
            assert!(story.contains(words), "no {words:?} in:\n{story}");
        }
        let accused = story.lines().filter(|line| line.starts_with('>')).count();
        assert!(accused >= 2, "{story}");
    }
}
