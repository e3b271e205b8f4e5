//! Writers, readers and followers: nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use incumbent::Wait;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::numbers::{Said, update};
use super::replica::{Follower, Replica};
use super::{ROLE_TEST, claim_patiently, open, patiently, tell};
use crate::support::{
    LIMIT, Process, Random, Sandbox, ask_json, eventually, kill, order, rounds, told_json,
};

/// Updates in bursts, so that they meet: about 25 a second.
pub fn write_until_killed() {
    let order = order().unwrap();
    let (profile, seed) = order.split_once(' ').unwrap();
    let mut dice = Random::new(seed.parse().unwrap());
    let tenure = claim_patiently(&open(), profile);
    let instance = tenure.instance().as_i64();
    tell(&format!("{instance} 0"));
    for number in 1.. {
        patiently(|| tenure.update_status(&update(number)));
        tell(&format!("{instance} {number}"));
        if dice.below(8) == 0 {
            std::thread::sleep(Duration::from_millis(100 + dice.below(440)));
        }
    }
}

/// What was acknowledged last: the instance, and its number.
type Acknowledged = Arc<Mutex<(i64, u64)>>;

/// A writer, and what it has acknowledged so far.
struct Writer {
    child: Child,
    listening: Option<JoinHandle<Vec<String>>>,
    acknowledged: Acknowledged,
}

impl Writer {
    fn start(sandbox: &Sandbox, profile: &str, seed: u64) -> Self {
        let mut child = sandbox
            .role_command(ROLE_TEST, "writer")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{profile} {seed}").unwrap();
        let acknowledged = Acknowledged::default();
        let heard = Arc::clone(&acknowledged);
        let pipe = BufReader::new(child.stderr.take().unwrap());
        let listening = std::thread::spawn(move || {
            let mut complaints = Vec::new();
            for line in pipe.lines().map_while(Result::ok) {
                match line.strip_prefix("=> ").and_then(|words| words.split_once(' ')) {
                    Some((instance, number)) => {
                        *heard.lock().unwrap() =
                            (instance.parse().unwrap(), number.parse().unwrap());
                    }
                    None => complaints.push(line),
                }
            }
            complaints
        });
        Self { child, listening: Some(listening), acknowledged }
    }

    fn acknowledged(&self) -> (i64, u64) {
        *self.acknowledged.lock().unwrap()
    }

    /// `kill -9`, collected; returns what it had acknowledged by then.
    #[track_caller]
    fn kill(&mut self) -> (i64, u64) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let complaints = self.listening.take().unwrap().join().unwrap();
        assert!(complaints.is_empty(), "a writer failed: {complaints:#?}");
        self.acknowledged()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.listening.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads all profiles again and again, and one whenever it is asked to.
pub fn read_until_told() {
    let store = open();
    let is_over = Arc::new(AtomicBool::new(false));
    let thread = {
        let (store, is_over) = (store.clone(), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let mut wrong: Vec<String> = Vec::new();
            let mut newest: BTreeMap<i64, u64> = BTreeMap::new();
            let mut looks = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                for report in store.status_of_all().unwrap() {
                    looks += 1;
                    let Some(instance) = report.instance else { continue };
                    match Said::of_report(&report).number(report.office.profile.as_str()) {
                        Ok(number) => {
                            let before = newest.insert(instance.as_i64(), number).unwrap_or(0);
                            if number < before {
                                wrong.push(format!("{instance} fell from {before} to {number}"));
                            }
                        }
                        Err(half) => wrong.push(half),
                    }
                    // A dead one is never shown running, whatever its row says.
                    if !report.running && report.state.is_some() {
                        wrong.push(format!("{} is dead, and {:?}", instance, report.state));
                    }
                }
                // Two cores are not for readers alone.
                std::thread::sleep(Duration::from_millis(5));
            }
            wrong.truncate(5);
            json!({"looks": looks, "wrong": wrong})
        })
    };
    tell("\"ready\"");
    while let Some(order) = order() {
        let Some(profile) = order.strip_prefix("read ") else { break };
        let report = store.profile(profile).unwrap().status().unwrap();
        let number = Said::of_report(&report).number(profile);
        tell(&match number {
            Ok(number) => {
                json!([report.instance.map(incumbent::InstanceId::as_i64), number]).to_string()
            }
            Err(half) => json!(half).to_string(),
        });
    }
    is_over.store(true, Ordering::Relaxed);
    tell(&thread.join().unwrap().to_string());
}

/// Follows the events in a thread; on the order `until ID` it says what it has made of them.
pub fn follow_until_told() {
    let store = open();
    let mut events = store.events().unwrap();
    let until = Arc::new(AtomicI64::new(i64::MAX));
    let thread = {
        let until = Arc::clone(&until);
        std::thread::spawn(move || {
            let mut follower = Follower::default();
            while follower.last < until.load(Ordering::Relaxed) {
                let wait = Wait::UpTo(Duration::from_millis(50));
                if let Some(event) = events.next_event(wait).unwrap() {
                    follower.note(&json!(event));
                }
            }
            follower
        })
    };
    tell("\"ready\"");
    let order = order().unwrap();
    until.store(order.strip_prefix("until ").unwrap().parse().unwrap(), Ordering::Relaxed);
    let follower = thread.join().unwrap();
    let mut wrong = follower.wrong;
    wrong.truncate(5);
    let answer =
        json!({"seen": follower.seen, "wrong": wrong, "replica": follower.replica.to_json()});
    tell(&answer.to_string());
}

/// The first "must be seen" of runtime status. FIELD-BUGS rows 58, 59, 60 and 64.
///
/// Symptom: status entries disappeared, were half of one write and half of another, or were torn by
/// a crash and never healed. Cause: one JSON file for all, read, changed and written by everybody.
/// It holds because each (instance, profile, platform) is a row of its own, an update is one
/// transaction, and its events are written in the same one: whoever replays them gets the same
/// state.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_half_written_is_seen_though_writers_are_killed() {
    const WRITERS: u64 = 16;
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    eprintln!("seed: {seed}");
    let mut dice = Random::new(u64::from(seed));
    let duration = Duration::from_secs(rounds(5, 30).try_into().unwrap());

    let sandbox = Sandbox::new();
    // So that there is a store for the followers.
    Process::start(sandbox.incumbent(["desired", "running"])).finish(LIMIT).assert_code(0);
    let mut followers: Vec<Process> = (0..2).map(|_| sandbox.role(ROLE_TEST, "follower")).collect();
    let mut reader = sandbox.role(ROLE_TEST, "reader");
    for party in followers.iter_mut().chain([&mut reader]) {
        assert_eq!(told_json(party), "ready");
    }
    let printing: Vec<Listener> = (0..2).map(|_| Listener::start(&sandbox)).collect();

    let profiles: Vec<String> = (0..WRITERS).map(|number| format!("p{number}")).collect();
    let mut writers: Vec<Writer> = profiles
        .iter()
        .map(|profile| Writer::start(&sandbox, profile, dice.below(1 << 30)))
        .collect();
    let mut acknowledged: BTreeMap<i64, u64> = BTreeMap::new();
    let mut kills = 0;
    let started = Instant::now();
    while started.elapsed() < duration {
        std::thread::sleep(Duration::from_millis(20 + dice.below(160)));
        let at = usize::try_from(dice.below(WRITERS)).unwrap();
        let (profile, writer) = (&profiles[at], &mut writers[at]);
        // Whoever asks after the acknowledgement sees what was acknowledged.
        let (instance, number) = writer.acknowledged();
        let answer = ask_json(&mut reader, &format!("read {profile}"));
        if instance != 0 {
            assert_eq!(answer[0], instance, "{profile}: {answer}");
            assert!(answer[1].as_u64() >= Some(number), "{profile}: {number} was lost: {answer}");
        }
        let (instance, number) = writer.kill();
        *writer = Writer::start(&sandbox, profile, dice.below(1 << 30));
        if instance != 0 {
            acknowledged.insert(instance, number);
            kills += 1;
            let stored = format!(
                "SELECT coalesce((SELECT active_agents FROM runtime_status
                                  WHERE instance_id = {instance}), 0)"
            );
            let stored = sandbox.number(&stored).unsigned_abs();
            // The one on its way when the signal came may have been committed, or not.
            let in_flight = [number, number + 1];
            assert!(in_flight.contains(&stored), "{profile}: {number}, stored {stored}");
        }
    }
    for (mut writer, profile) in writers.into_iter().zip(&profiles) {
        eventually(&format!("a first update of {profile}"), LIMIT, || {
            // One that has failed is asked why, below.
            let has_ended = writer.child.try_wait().unwrap().is_some();
            (has_ended || writer.acknowledged().1 > 0).then_some(())
        });
        let (instance, number) = writer.kill();
        acknowledged.insert(instance, number);
    }
    let updates: u64 = acknowledged.values().sum();
    eprintln!("{kills} kills, {updates} updates acknowledged");
    assert!(kills > 0, "nobody was killed");

    reader.say("done");
    let looked = told_json(&mut reader);
    eprintln!("reader: {looked}");
    assert_eq!(looked["wrong"], json!([]), "{looked:#}");
    assert!(looked["looks"].as_u64() > Some(0));

    let tables = Replica::of_tables(&sandbox);
    for (instance, number) in &acknowledged {
        let said = tables.said.get(instance).cloned().unwrap_or_default();
        let profile = said.platforms.keys().next().map_or("", |(profile, _)| profile.as_str());
        let stored = said.number(profile).unwrap();
        assert!((*number..=number + 1).contains(&stored), "{instance}: {number}, stored {stored}");
    }
    let newest = sandbox.number("SELECT max(id) FROM events");
    for (mut follower, number) in followers.into_iter().zip(1..) {
        let heard = ask_json(&mut follower, &format!("until {newest}"));
        assert_eq!(heard["wrong"], json!([]), "follower {number}");
        assert!(heard["seen"].as_u64() >= Some(updates), "follower {number}: {}", heard["seen"]);
        assert_eq!(heard["replica"], tables.to_json(), "follower {number}");
    }
    for (listener, number) in printing.into_iter().zip(1..) {
        let follower = listener.finish(newest);
        assert!(follower.wrong.is_empty(), "printer {number}: {:#?}", follower.wrong);
        assert_eq!(follower.replica.to_json(), tables.to_json(), "printer {number}");
    }
}

/// `incumbent events --follow --json`, and what its lines make.
struct Listener {
    process: Child,
    follower: Arc<Mutex<Follower>>,
    listening: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(sandbox: &Sandbox) -> Self {
        let mut process = sandbox
            .incumbent(["events", "--follow", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let follower = Arc::new(Mutex::new(Follower::default()));
        let heard = Arc::clone(&follower);
        let pipe = BufReader::new(process.stdout.take().unwrap());
        let listening = std::thread::spawn(move || {
            for line in pipe.lines() {
                let line = line.unwrap();
                let event: Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
                heard.lock().unwrap().note(&event);
            }
        });
        let listener = Self { process, follower, listening: Some(listening) };
        // It begins with the last ones that there were.
        listener.wait_for(sandbox.number("SELECT max(id) FROM events"));
        listener
    }

    #[track_caller]
    fn wait_for(&self, id: i64) {
        let has_come = || (self.follower.lock().unwrap().last >= id).then_some(());
        eventually(&format!("event {id} in the output"), LIMIT, has_come);
    }

    #[track_caller]
    fn finish(mut self, newest: i64) -> Follower {
        self.wait_for(newest);
        kill(self.process.id(), Signal::TERM);
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
        self.listening.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.follower.lock().unwrap())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
