//! Actors that link the library: this test program, executed again, which reads a step from each
//! line and answers with a line.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use incumbent::lock::AcquireOptions;
use incumbent::marker::{Marker, MarkerName, MarkerRequest};
use incumbent::status::{EventOptions, HistoryOptions, PlatformUpdate};
use incumbent::stop::{Eviction, Force};
use incumbent::{
    Acquire, Claim, Error, ErrorKind, Holder, Kind, LockName, LockRequest, ProfileName, ScopedLock,
    Standing, StatusUpdate, Store, Tenure,
};
use serde_json::{Map, Value, json};

use crate::Actor;

/// The store of an actor, in its environment.
pub const ROLE: &str = "CONFORMANCE_ACTOR";

/// What an answer begins with: the harness prints lines of its own.
const MARK: &str = "answer ";

struct Process {
    child: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
}

pub fn start(db: &Path) -> Box<dyn Actor> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "actor", "--nocapture", "--test-threads=1"])
        .env(ROLE, db)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let say = child.stdin.take().unwrap();
    let hear = BufReader::new(child.stdout.take().unwrap());
    Box::new(Process { child, say, hear })
}

impl Actor for Process {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ask(&mut self, step: &Map<String, Value>, target: Option<u32>) -> Value {
        let mut step = step.clone();
        step.insert("target".to_owned(), json!(target));
        writeln!(self.say, "{}", Value::Object(step)).unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(self.hear.read_line(&mut line).unwrap(), 0, "the actor has ended");
            // The name of the test may stand in front of the first one.
            if let Some((_, answer)) = line.split_once(MARK) {
                return serde_json::from_str(answer).unwrap();
            }
        }
    }

    fn die(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an actor holds.
struct Holdings {
    store: Store,
    offices: BTreeMap<String, Tenure>,
    locks: BTreeMap<(String, String), ScopedLock>,
}

/// The life of an actor.
pub fn serve(db: &Path) {
    let store = Store::open(db).unwrap();
    let mut mine = Holdings { store, offices: BTreeMap::new(), locks: BTreeMap::new() };
    for line in std::io::stdin().lines() {
        let step: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answer =
            mine.step(&step).unwrap_or_else(|error| json!({"error": error.kind().as_str()}));
        println!("{MARK}{answer}");
    }
}

fn refusal(holder: &Holder) -> Value {
    json!({
        "granted": false,
        "holder": holder.pid,
        "verdict": holder.verdict,
        "reason": holder.reason,
        "metadata": holder.metadata,
    })
}

fn found(marker: Option<&Marker>) -> Value {
    match marker {
        Some(marker) => json!({
            "found": true,
            "name": marker.name,
            "pid": marker.pid,
            "reason": marker.reason,
        }),
        None => json!({"found": false}),
    }
}

impl Holdings {
    fn step(&mut self, step: &Value) -> Result<Value, Error> {
        let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
        let profile = text("profile");
        let (scope, identity) = (text("scope"), text("identity"));
        let key = (scope.clone(), identity.clone());
        let kind = Kind::default();
        Ok(match text("do").as_str() {
            "claim" => match self.store.profile(profile.as_str())?.claim()? {
                Claim::Granted(tenure) => {
                    let answer = json!({
                        "granted": true,
                        "reacquired": tenure.reacquired(),
                        "fence": tenure.instance(),
                    });
                    self.offices.insert(profile, tenure);
                    answer
                }
                Claim::Held(holder) => refusal(&holder),
            },
            "release" => match self.offices.remove(&profile) {
                Some(tenure) => tenure.release().map(|_| json!({"released": true}))?,
                None => json!({"released": false}),
            },
            "status" => self.status(&profile)?,
            "say" => self.say(step, &profile)?,
            "lock" => self.lock(step, &profile, key)?,
            "lock_verify" => match self.locks.get(&key) {
                Some(lock) => json!({"held": lock.verify()? == Standing::Held}),
                None => json!({"held": false}),
            },
            "lock_renew" => match self.locks.get(&key) {
                Some(lock) => json!({"held": lock.renew()? == Standing::Held}),
                None => json!({"held": false}),
            },
            "lock_release" => match self.locks.remove(&key) {
                Some(lock) => lock.release().map(|_| json!({"released": true}))?,
                None => json!({"released": false}),
            },
            "lock_status" => match self.store.lock(&LockName::new(&scope, &identity)?)? {
                Some(lock) => json!({
                    "held": true, "holder": lock.pid, "metadata": lock.metadata,
                }),
                None => json!({"held": false}),
            },
            "marker_write" => {
                let mut request = MarkerRequest::new(MarkerName::new(text("name"))?);
                if let Some(reason) = step["reason"].as_str() {
                    request = request.reason(reason);
                }
                found(Some(&self.store.write_marker(target(step), &request)?.marker))
            }
            "marker_peek" => {
                let name = MarkerName::new(text("name"))?;
                found(self.store.peek_marker(std::process::id(), Some(&name))?.as_ref())
            }
            "marker_consume" => {
                let name = MarkerName::new(text("name"))?;
                let consumed = self.any_office().map(|it| it.consume_marker(Some(&name)));
                found(consumed.transpose()?.flatten().map(|it| it.marker).as_ref())
            }
            "marker_clear" => {
                let name = MarkerName::new(text("name"))?;
                json!({"cleared": self.store.clear_marker(target(step), &name, "a test")?})
            }
            "evict" => {
                let force = if step["force"] == true { Force::Yes } else { Force::No };
                match self.store.profile(profile.as_str())?.evict(&kind, force, "a test")? {
                    Eviction::Done { pid, .. } => json!({"evicted": pid}),
                    Eviction::Refused(holder) => json!({"holder": holder.pid}),
                    _ => json!({}),
                }
            }
            "desired" => {
                let profile = self.store.profile(profile.as_str())?;
                if let Some(word) = step["set"].as_str() {
                    profile.set_desired(word.parse()?, "a test")?;
                }
                json!({"desired": profile.desired()?})
            }
            "history" => {
                let options = HistoryOptions::new().profile(ProfileName::new(profile)?);
                let past = self.store.history(&options)?;
                json!({"ends": past.iter().map(|it| &it.end_reason).collect::<Vec<_>>()})
            }
            "events" => {
                let options = EventOptions::new().profile(ProfileName::new(profile)?);
                let events = self.store.past_events(&options)?;
                json!({"events": events.iter().map(|it| &it.event).collect::<Vec<_>>()})
            }
            other => panic!("unknown: {other}"),
        })
    }

    fn any_office(&self) -> Option<&Tenure> {
        self.offices.values().next()
    }

    fn status(&self, profile: &str) -> Result<Value, Error> {
        let report = self.store.profile(profile)?.status()?;
        let platforms: BTreeMap<_, _> =
            report.platforms.iter().map(|it| (it.platform.clone(), it.state.clone())).collect();
        Ok(json!({
            "running": report.running,
            "verdict": report.verdict,
            "reason": report.reason,
            "pid": report.pid,
            "state": report.state,
            "active_agents": report.runtime.as_ref().and_then(|it| it.active_agents),
            "busy": report.busy(),
            "ready": report.running && report.not_ready().is_none(),
            "desired": report.desired,
            "platforms": platforms,
        }))
    }

    fn say(&self, step: &Value, profile: &str) -> Result<Value, Error> {
        let Some(tenure) = self.offices.get(profile) else {
            return Ok(json!({"error": ErrorKind::NotOwner.as_str()}));
        };
        let mut update = StatusUpdate::new();
        if let Some(state) = step["state"].as_str() {
            update = update.state(state);
        }
        if let Some(count) = step["active_agents"].as_u64() {
            update = update.active_agents(count);
        }
        if let Some(platform) = step["platform"].as_str() {
            let state = step["platform_state"].as_str().unwrap();
            update = update.platform(PlatformUpdate::new(platform).state(state));
        }
        tenure.update_status(&update)?;
        Ok(json!({"written": true}))
    }

    fn lock(&mut self, step: &Value, profile: &str, key: (String, String)) -> Result<Value, Error> {
        let mut request = LockRequest::new(&key.0, &key.1)?;
        if let Some(seconds) = step["ttl_s"].as_u64() {
            request = request.ttl(Duration::from_secs(seconds))?;
        }
        if !step["metadata"].is_null() {
            request = request.metadata(step["metadata"].clone())?;
        }
        let options = AcquireOptions::new();
        let acquired = match self.offices.get(profile) {
            Some(tenure) => tenure.acquire(&request, &options)?,
            None => self.store.acquire(&request, &options)?,
        };
        Ok(match acquired {
            Acquire::Granted(lock) => {
                let answer = json!({
                    "granted": true, "reacquired": lock.reacquired(), "fence": lock.fence(),
                });
                self.locks.insert(key, lock);
                answer
            }
            Acquire::Held(holder) => refusal(&holder),
        })
    }
}

fn target(step: &Value) -> u32 {
    u32::try_from(step["target"].as_u64().unwrap()).unwrap()
}
