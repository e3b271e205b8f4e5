//! When all is over: everything can be had once more, and what the store says then goes into the
//! log.

use std::process::Stdio;

use incumbent::lock::IdentityHash;
use serde_json::Value;

use super::actors::Stage;
use super::caller::{Asked, Caller};
use super::operations::asks::remains;
use super::operations::lock_words;
use super::operations::stores::repair;
use super::reaper::Sort;
use super::world::{LOCKS, LockKind, MAIN, OFFICES, World, log_of, office, place_options};
use crate::log::{
    self, Answer, Call, EndedRow, Final, Hurt, LiveRow, MarkerRow, Thing, Wait, What,
};

/// That of a hang.
const WITHIN_MS: u64 = 120_000;

/// What was not granted.
pub fn look(stage: &Stage) -> Vec<Thing> {
    let caller = stage.caller();
    // A copy that was written over a store in use may have left one that has to be repaired.
    repair(caller, &office(0));
    remains(caller);
    let was_lost = was_lost(&stage.world);
    let mut refused = Vec::new();
    for thing in (0..OFFICES.len()).map(office) {
        if was_lost {
            end_what_nobody_can_see(caller, &thing);
        }
        if !claim(caller, &thing) {
            refused.push(thing);
        }
    }
    for thing in LOCKS.into_iter().map(LockKind::thing) {
        if was_lost {
            end_what_nobody_can_see(caller, &thing);
        }
        if !lock(caller, &thing) {
            refused.push(thing);
        }
    }
    let told = tell(&stage.world, caller);
    stage.world.log.say(What::Final(Box::new(told)));
    refused
}

/// Whether something of the store was lost, and the end of an owner may have been.
fn was_lost(world: &World) -> bool {
    log::read(&log_of(&world.place)).records.iter().any(|record| {
        let What::Fault { hurt, .. } = &record.what else { return false };
        matches!(hurt, Hurt::StoreLost { .. } | Hurt::WalLost { .. })
    })
}

/// An owner in another pid namespace whose end was lost, and whose anchor went with that end, is
/// unknown to everybody: a person has to end it, and there is a verb for that. Nothing else is
/// ended here: what is said to live, or is unknown for another reason, stays and is refused.
fn end_what_nobody_can_see(caller: Caller<'_>, thing: &Thing) {
    let (asked, mut verb) = match thing {
        Thing::Office { .. } => {
            let status = Call::Status { thing: thing.clone() };
            (caller.ask(status, thing, &["status"]), vec!["evict"])
        }
        Thing::Lock { .. } => (acquire(caller, thing, 0), unlock(thing)),
    };
    let is_unseen = match &asked.answer {
        Some(Answer::Unknown { reason }) => reason == "foreign_namespace",
        Some(Answer::Held { verdict, reason, .. }) => {
            verdict == "unknown" && reason == "foreign_namespace"
        }
        _ => false,
    };
    if is_unseen {
        verb.push("--force");
        caller.ask(Call::Evict { thing: thing.clone(), force: true }, thing, &verb);
    }
}

fn unlock(lock: &Thing) -> Vec<&str> {
    [&["unlock"], &lock_words(lock)[..]].concat()
}

/// Whether a start of it succeeds.
fn claim(caller: Caller<'_>, thing: &Thing) -> bool {
    let wait = Wait::AtMost { ms: WITHIN_MS };
    let call = Call::Run { thing: thing.clone(), locks: Vec::new(), wait, replace: false };
    let mut command = caller.world.program(caller.world.file("incumbent"));
    command.args(place_options(caller.world, thing));
    command.args(["run", "--no-backoff", &format!("--wait={WITHIN_MS}ms"), "--", "true"]);
    let asked = caller.go(command, call, &caller.world.from, Sort::Run);
    asked.answer == Some(Answer::Exit { code: 0 })
}

/// Whether this process can have it.
fn lock(caller: Caller<'_>, thing: &Thing) -> bool {
    let Some(incarnation) = acquire(caller, thing, WITHIN_MS).granted() else { return false };
    let pid = std::process::id().to_string();
    let call = Call::Release { thing: thing.clone(), incarnation };
    let verb = [&["lock", "release"], &lock_words(thing)[..], &["--pid", &pid]].concat();
    caller.ask(call, thing, &verb).is_yes()
}

/// For this process.
fn acquire(caller: Caller<'_>, thing: &Thing, ms: u64) -> Asked {
    let me = std::process::id();
    let pid = me.to_string();
    let wait = format!("--wait={ms}ms");
    let call = Call::Acquire {
        thing: thing.clone(),
        wait: Wait::AtMost { ms },
        ttl_ms: None,
        evict_stopped: false,
        replace: false,
        pid: Some(me),
    };
    let verb = [&["lock", "acquire"], &lock_words(thing)[..], &["--pid", &pid, &wait]].concat();
    caller.ask(call, thing, &verb)
}

/// A document of the program; it is no call of the workload any more.
fn document(world: &World, caller: Caller<'_>, verb: &[&str]) -> Vec<Value> {
    let said = world.file("said").join("last");
    let mut command = world.program(world.file("incumbent"));
    command.arg("--json").arg("--db").arg(world.db(MAIN)).args(verb);
    let file = std::fs::File::create(&said).unwrap();
    command.stdout(file).stderr(Stdio::inherit());
    let pid = caller.reaper.spawn(&mut command, Sort::Verb).unwrap();
    caller.reaper.wait(pid, crate::support::LIMIT, "the last look");
    let text = std::fs::read_to_string(said).unwrap();
    let document: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{verb:?}: {error}: {text:?}"));
    document.as_array().unwrap_or_else(|| panic!("{verb:?}: {document:#}")).clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn office_of(row: &Value) -> Option<Thing> {
    let profile = row["profile"].as_str()?.to_owned();
    let kind = row["kind"].as_str()?.to_owned();
    Some(Thing::Office { store: MAIN.to_owned(), profile, kind })
}

fn tell(world: &World, caller: Caller<'_>) -> Final {
    const LIVE: &str = "SELECT id FROM instances WHERE ended_at_ms IS NULL";
    const ENDED: &str = "SELECT id, profile, kind, end_reason, exit_code, signal
        FROM instances WHERE ended_at_ms IS NOT NULL ORDER BY id DESC LIMIT 9000";
    const MARKERS: &str = "SELECT name, instance, reason FROM open_markers";
    let ask = |verb: &[&str]| document(world, caller, verb);
    let live: Vec<i64> = ask(&["sql", LIVE]).iter().map(|row| number(&row["id"])).collect();
    let of_status = |report: &Value| {
        let incarnation = report["instance"].as_i64().filter(|id| live.contains(id))?;
        Some(LiveRow {
            thing: office_of(report)?,
            incarnation,
            fence: incarnation,
            verdict: text(&report["verdict"]),
            reason: text(&report["reason"]),
        })
    };
    let of_lock = |lock: &Value| LiveRow {
        thing: lock_named(&text(&lock["scope"]), &text(&lock["identity_hash"])),
        incarnation: number(&lock["instance"]),
        fence: number(&lock["fence"]),
        verdict: text(&lock["verdict"]),
        reason: text(&lock["reason"]),
    };
    let of_marker = |row: &Value| {
        let to = row["instance"].as_i64()?;
        let token = row["reason"].as_str().map(str::to_owned);
        Some(MarkerRow { name: text(&row["name"]), to, token })
    };
    let small = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok());
    let of_ended = |row: &Value| EndedRow {
        thing: office_of(row),
        incarnation: number(&row["id"]),
        reason: text(&row["end_reason"]),
        exit_code: small(&row["exit_code"]),
        signal: small(&row["signal"]),
    };
    Final {
        store: MAIN.to_owned(),
        live: ask(&["status", "--all"]).iter().filter_map(of_status).collect(),
        locks: ask(&["locks"]).iter().map(of_lock).collect(),
        markers: ask(&["sql", MARKERS]).iter().filter_map(of_marker).collect(),
        history: ask(&["sql", ENDED]).iter().map(of_ended).collect(),
    }
}

/// By its hash; one that nobody of ours has asked for keeps that.
fn lock_named(scope: &str, hash: &str) -> Thing {
    let is_it = |kind: &&LockKind| {
        kind.scope == scope
            && IdentityHash::of(kind.identity).is_ok_and(|other| other.as_str() == hash)
    };
    LOCKS.iter().find(is_it).copied().map_or_else(
        || Thing::Lock {
            store: MAIN.to_owned(),
            scope: scope.to_owned(),
            identity: hash.to_owned(),
            slots: 1,
        },
        LockKind::thing,
    )
}
