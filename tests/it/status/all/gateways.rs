//! The gateways of these tests: they say how they are, and obey.

use serde_json::{Value, json};

use super::metrics::Metrics;
use super::{Gateway, OBEY, by, first_line};
use crate::support::{LIMIT, Process, Run, Sandbox};

impl Sandbox {
    pub fn obeying_gateway(&self, profile: &str) -> Gateway {
        self.obeying_gateway_with(profile, &[])
    }

    /// A gateway that holds the office of `profile`.
    #[track_caller]
    pub fn obeying_gateway_with(&self, profile: &str, options: &[&str]) -> Gateway {
        let words = [&["run", "--no-backoff", "--profile", profile], options, OBEY].concat();
        Gateway::start(self.incumbent(words))
    }

    #[track_caller]
    pub fn hold_profile_named(&self, profile: &str) -> Run {
        self.hold(&["--profile", profile])
    }

    pub fn report_of_profile(&self, profile: &str) -> (i32, Value) {
        self.json(["status", "--profile", profile])
    }

    /// `status --json` of a profile; asserts its exit code and its reason.
    #[track_caller]
    pub fn assert_report_of(&self, profile: &str, code: i32, reason: &str) -> Value {
        let (got, document) = self.report_of_profile(profile);
        assert_eq!(
            (got, document["reason"].as_str()),
            (code, Some(reason)),
            "{profile}: {document:#}"
        );
        document
    }

    /// Asserts that `profile` is answered through `server`.
    #[track_caller]
    pub fn assert_served(&self, profile: &str, server: &str) -> Value {
        let document = self.assert_report_of(profile, 0, "anchor_held");
        assert_eq!(document["served_by"], by(server), "{document:#}");
        assert_eq!(document["profile"], profile, "{document:#}");
        document
    }

    /// Asserts that nobody runs for `profile`, and that nothing is shown of who once served it.
    #[track_caller]
    pub fn assert_nobodys(&self, profile: &str) {
        let document = self.assert_report_of(profile, 3, "never_claimed");
        for (key, nothing) in [
            ("running", json!(false)),
            ("pid", Value::Null),
            ("instance", Value::Null),
            ("state", Value::Null),
            ("runtime", Value::Null),
            ("platforms", json!({})),
            ("serves", json!([])),
            ("served_by", Value::Null),
        ] {
            assert_eq!(document[key], nothing, "{profile}: {key}: {document:#}");
        }
        let text = self.cli(["status", "--profile", profile]).assert_code(3).out;
        let told = format!("{profile}/gateway: not running (nobody has claimed it yet)");
        assert_eq!(first_line(&text), told);
    }

    /// `status --all --json`.
    #[track_caller]
    pub fn reports_of_all(&self, filters: &[&str]) -> Vec<Value> {
        let (code, document) = self.json([&["status", "--all"], filters].concat());
        assert_eq!(code, 0, "{document:#}");
        document.as_array().expect("an array").clone()
    }

    /// `status --all --metrics`, read strictly.
    #[track_caller]
    pub fn metrics_of_all(&self, filters: &[&str]) -> Metrics {
        let answer = self.cli([&["status", "--all", "--metrics"], filters].concat());
        let answer = answer.assert_code(0);
        assert_eq!(answer.err, "");
        Metrics::parse(&answer.out)
    }

    /// A process that is on record nowhere, and lives until its standard input is closed.
    #[track_caller]
    pub fn unrecorded_process(&self) -> Process {
        let mut process = Process::start(self.shell("echo $$; exec cat"));
        process.line();
        process
    }

    /// A gateway of which nothing can be said: recorded without an anchor, in a pid namespace that
    /// is not ours. Says first what `says` says.
    #[track_caller]
    pub fn gateway_of_nowhere(&self, profile: &str, says: &[&[&str]]) -> Process {
        let process = self.unrecorded_process();
        let pid = process.pid().to_string();
        let at = ["--profile", profile, "--pid", &pid];
        self.cli([&["claim", "--no-keeper"], &at[..]].concat()).assert_code(0);
        for arguments in says {
            self.cli([&["status-set"], &at[..], arguments].concat()).assert_code(0);
        }
        let forged = self.forge(&format!(
            "UPDATE instances SET anchor = NULL, pid_ns = 'pid:[1]'
             WHERE profile = '{profile}' AND ended_at_ms IS NULL"
        ));
        assert_eq!(forged, 1);
        process
    }

    /// Changes the store as no program of ours would: no rule of the schema stands in the way.
    #[track_caller]
    pub fn forge_freely(&self, script: &str) {
        let connection = rusqlite::Connection::open(self.db()).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        let rules = "PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF;";
        connection
            .execute_batch(&format!("{rules} {script}"))
            .unwrap_or_else(|error| panic!("{script}: {error}"));
    }

    /// What the store has of platforms: instance, profile, platform, state.
    pub fn platform_rows(&self) -> Vec<(i64, String, String, Option<String>)> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = rusqlite::Connection::open_with_flags(self.db(), flags).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        let mut query = connection
            .prepare(
                "SELECT instance_id, profile, platform, state FROM platform_status
                 ORDER BY instance_id, profile, platform",
            )
            .unwrap();
        query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }
}
