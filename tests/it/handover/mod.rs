//! Does an office go from one process to the next without a gap? By an exec, to a child, and from a
//! `run` to its command.

mod chain;
#[cfg(target_os = "linux")]
mod chain_in_run;
mod child;
mod example;
mod exec;
mod gateway;
mod in_run;
mod strain;

use incumbent::lock::IdentityHash;
use serde_json::Value;

use crate::support::Sandbox;

/// What a gateway said that it owns: how it came to it, which generation, which process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owns {
    how: String,
    instance: i64,
    pid: u32,
}

impl Owns {
    /// Of `owns HOW INSTANCE PID`.
    #[track_caller]
    fn parse(said: &str) -> Self {
        match said.split(' ').collect::<Vec<_>>()[..] {
            ["owns", how, instance, pid] => Self {
                how: how.to_owned(),
                instance: instance.parse().unwrap(),
                pid: pid.parse().unwrap(),
            },
            _ => panic!("{said:?}"),
        }
    }
}

impl Sandbox {
    /// Asserts who holds the default office, and that a contender is refused.
    #[track_caller]
    fn assert_held_by(&self, owns: &Owns) -> Value {
        let status = self.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["instance"], owns.instance, "{status:#}");
        assert_eq!(status["pid"], owns.pid, "{status:#}");
        self.cli(crate::support::START).assert_code(75);
        status
    }

    /// Which incarnation has the lock of this token.
    #[track_caller]
    fn holder_of(&self, identity: &str) -> Option<i64> {
        let (code, locks) = self.json(["locks"]);
        assert_eq!(code, 0, "{locks:#}");
        let hash = IdentityHash::of(identity).unwrap();
        let locks = locks.as_array().unwrap();
        let lock = locks.iter().find(|lock| lock["identity_hash"] == hash.as_str());
        lock.map(|lock| lock["instance"].as_i64().unwrap())
    }

    /// How the incarnation ended.
    #[track_caller]
    fn end_of(&self, instance: i64) -> Value {
        let history = self.history();
        let found = history.iter().find(|it| it["instance"] == instance);
        found.unwrap_or_else(|| panic!("{instance}: {history:#?}")).clone()
    }
}
