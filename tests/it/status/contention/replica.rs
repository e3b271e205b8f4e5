//! The state of the whole store, as somebody who follows the events makes it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::numbers::Said;
use crate::support::{LIMIT, Sandbox};

/// Everything that was said, by instance; and who is in office.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replica {
    pub said: BTreeMap<i64, Said>,
    live: BTreeSet<i64>,
}

/// A replica that is made of nothing but events.
#[derive(Debug, Default)]
pub struct Follower {
    pub replica: Replica,
    /// The id of the last event.
    pub last: i64,
    pub seen: u64,
    /// What ought not to have come.
    pub wrong: Vec<String>,
}

impl Follower {
    pub fn note(&mut self, event: &Value) {
        let wrong = |what: &str| format!("{what}: {event}");
        let id = event["id"].as_i64().unwrap();
        if id <= self.last {
            self.wrong.push(wrong(&format!("repeated or out of order, after {}", self.last)));
        }
        self.last = id;
        self.seen += 1;
        let name = event["event"].as_str().unwrap();
        // How the store was made: before anybody wrote a status.
        if matches!(name, "store_migrated" | "desired_changed") {
            return;
        }
        let Some(instance) = event["instance"].as_i64() else {
            self.wrong.push(wrong("of nobody"));
            return;
        };
        let detail = &event["detail"];
        let key = || {
            let platform = detail["platform"].as_str().unwrap().to_owned();
            (event["profile"].as_str().unwrap().to_owned(), platform)
        };
        match name {
            "office_claimed" => {
                self.replica.live.insert(instance);
            }
            "office_ended" => {
                self.replica.live.remove(&instance);
            }
            "status_changed" => {
                let said = self.replica.said.entry(instance).or_default();
                // Each update was seen: none is skipped, none comes twice.
                let number = |said: &Value| said["active_agents"].as_u64().unwrap();
                let before = said.runtime.as_ref().map_or(0, number);
                if number(detail) != before + 1 {
                    self.wrong.push(wrong(&format!("after update {before}")));
                }
                said.runtime = Some(detail.clone());
            }
            "platform_changed" => {
                let said = self.replica.said.entry(instance).or_default();
                said.platforms.insert(key(), detail.clone());
            }
            _ => self.wrong.push(wrong("an event that nobody caused")),
        }
    }
}

impl Replica {
    pub fn to_json(&self) -> Value {
        let said: Vec<Value> = self
            .said
            .iter()
            .map(|(instance, said)| {
                let platforms: Vec<_> = said.platforms.iter().collect();
                json!([instance, said.runtime, platforms])
            })
            .collect();
        json!({"said": said, "live": self.live})
    }

    /// What the tables hold, looked at from outside of the program.
    pub fn of_tables(sandbox: &Sandbox) -> Self {
        let mut replica = Self::default();
        let connection = tables(sandbox);
        let mut query = connection
            .prepare(
                "SELECT instance_id, state, exit_reason, restart_requested, active_agents, extra
                 FROM runtime_status",
            )
            .unwrap();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let said = replica.said.entry(row.get(0).unwrap()).or_default();
            said.runtime = Some(json!({
                "state": row.get::<_, Option<String>>(1).unwrap(),
                "exit_reason": row.get::<_, Option<String>>(2).unwrap(),
                "restart_requested": row.get::<_, Option<bool>>(3).unwrap(),
                "active_agents": row.get::<_, Option<i64>>(4).unwrap(),
                "extra": parsed(row.get(5).unwrap()),
            }));
        }
        let mut query = connection
            .prepare(
                "SELECT instance_id, profile, platform, state, error_code, error_message,
                    needs_attention, extra FROM platform_status",
            )
            .unwrap();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let said = replica.said.entry(row.get(0).unwrap()).or_default();
            let platform: String = row.get(2).unwrap();
            let value = json!({
                "platform": platform,
                "state": row.get::<_, Option<String>>(3).unwrap(),
                "error_code": row.get::<_, Option<String>>(4).unwrap(),
                "error_message": row.get::<_, Option<String>>(5).unwrap(),
                "needs_attention": row.get::<_, Option<bool>>(6).unwrap(),
                "retrying_since": Value::Null,
                "extra": parsed(row.get(7).unwrap()),
            });
            said.platforms.insert((row.get(1).unwrap(), platform), value);
        }
        let live = "SELECT id FROM instances WHERE ended_at_ms IS NULL";
        let mut query = connection.prepare(live).unwrap();
        replica.live =
            query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        replica
    }
}

fn parsed(text: Option<String>) -> Option<Value> {
    text.map(|text| serde_json::from_str(&text).unwrap())
}

pub fn tables(sandbox: &Sandbox) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(sandbox.db(), flags).unwrap();
    connection.busy_timeout(LIMIT).unwrap();
    connection
}
