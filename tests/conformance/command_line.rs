//! Actors of the command line: a process that does nothing, for which a script would claim.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Map, Value, json};

use crate::Actor;

struct Scripted {
    db: PathBuf,
    child: Child,
}

pub fn start(db: &Path) -> Box<dyn Actor> {
    let child = Command::new("sleep").arg("86400").stdin(Stdio::null()).spawn().unwrap();
    Box::new(Scripted { db: db.to_owned(), child })
}

impl Actor for Scripted {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ask(&mut self, step: &Map<String, Value>, target: Option<u32>) -> Value {
        let step = &Value::from(step.clone());
        let words = self.words(step, target);
        let answer = self.call(&words);
        if let Some(error) = answer.get("error") {
            return json!({"error": error["kind"]});
        }
        translated(step["do"].as_str().unwrap(), answer)
    }

    fn die(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scripted {
    fn call(&self, words: &[String]) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_incumbent"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .arg("--db")
            .arg(&self.db)
            .arg("--json")
            .args(words)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{words:?}: {error}: {output:?}"))
    }

    /// The words of a step on the command line.
    fn words(&self, step: &Value, target: Option<u32>) -> Vec<String> {
        let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
        let mut words = Vec::new();
        let mut push = |more: &[&str]| words.extend(more.iter().map(|it| (*it).to_owned()));
        if let Some(profile) = step["profile"].as_str() {
            push(&[&format!("--profile={profile}")]);
        }
        let own = self.pid().to_string();
        let of_target = target.unwrap_or(0).to_string();
        let (scope, identity, name) = (text("scope"), text("identity"), text("name"));
        match text("do").as_str() {
            "lock" => push(&["lock", "acquire", &scope, &identity, "--pid", &own]),
            "lock_status" => push(&["locks", &scope, &identity]),
            "lock_verify" => push(&["lock", "verify", &scope, &identity, "--pid", &own]),
            "lock_renew" => push(&["lock", "renew", &scope, &identity, "--pid", &own]),
            "lock_release" => push(&["lock", "release", &scope, &identity, "--pid", &own]),
            "marker_write" => push(&["marker", "write", &name, "--pid", &of_target]),
            "marker_clear" => push(&["marker", "clear", &name, "--pid", &of_target]),
            "marker_peek" => push(&["marker", "peek", &name, "--pid", &own]),
            "marker_consume" => push(&["marker", "consume", &name, "--pid", &own]),
            "say" => push(&["status-set", "--pid", &own]),
            "desired" => push(&["desired", step["set"].as_str().unwrap_or("")]),
            verb @ ("claim" | "release") => push(&[verb, "--pid", &own]),
            verb @ ("status" | "evict" | "history" | "events") => push(&[verb]),
            other => panic!("unknown: {other}"),
        }
        if step["force"] == true {
            push(&["--force"]);
        }
        if let Some(seconds) = step["ttl_s"].as_u64() {
            push(&["--ttl", &format!("{seconds}s")]);
        }
        if !step["metadata"].is_null() {
            push(&["--metadata", &step["metadata"].to_string()]);
        }
        if let Some(count) = step["active_agents"].as_u64() {
            push(&["--active-agents", &count.to_string()]);
        }
        let options = [
            ("reason", "--reason"),
            ("state", "--state"),
            ("platform", "--platform"),
            ("platform_state", "--platform-state"),
        ];
        for (field, option) in options {
            if let Some(value) = step[field].as_str() {
                push(&[option, value]);
            }
        }
        words.retain(|word| !word.is_empty() || text("do").starts_with("lock"));
        words
    }
}

/// The answer in the words of `operations.json`.
fn translated(operation: &str, answer: Value) -> Value {
    let field = |name: &str| answer[name].clone();
    match operation {
        "claim" | "lock" => {
            let holder = field("holder");
            json!({
                "granted": field("granted"),
                "reacquired": field("reacquired"),
                "fence": field("fence"),
                "holder": holder["pid"],
                "verdict": holder["verdict"],
                "reason": holder["reason"],
                "metadata": holder["metadata"],
            })
        }
        "status" => {
            let platforms: Map<String, Value> = answer["platforms"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, said)| (name.clone(), said["state"].clone()))
                .collect();
            let mut status = answer.clone();
            status["active_agents"] = answer["runtime"]["active_agents"].clone();
            status["platforms"] = Value::Object(platforms);
            status
        }
        "lock_status" => match answer.as_array().and_then(|it| it.first()) {
            Some(lock) => {
                json!({"held": true, "holder": lock["pid"], "metadata": lock["metadata"]})
            }
            None => json!({"held": false}),
        },
        "lock_renew" => json!({"held": field("renewed")}),
        "evict" => {
            json!({"evicted": answer["evicted"]["pid"], "holder": answer["holder"]["pid"]})
        }
        "history" => json!({"ends": of_each(&answer, "end_reason")}),
        "events" => json!({"events": of_each(&answer, "event")}),
        _ => answer,
    }
}

fn of_each(rows: &Value, field: &str) -> Vec<Value> {
    rows.as_array().unwrap().iter().map(|row| row[field].clone()).collect()
}
