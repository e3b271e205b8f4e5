//! Ends as `history`, `status` and the events tell them.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::gateway::{GATEWAY, ROLE_TEST};
use super::story_without_times;
use crate::support::{BINARY, LIMIT, Process, Sandbox, ask};

impl Sandbox {
    /// A gateway that holds nothing yet.
    pub fn newcomer(&self) -> Process {
        self.role(ROLE_TEST, GATEWAY)
    }

    /// A gateway that holds the default office, and has obeyed `orders`.
    #[track_caller]
    pub fn linked_gateway(&self, orders: &[&str]) -> Process {
        let mut gateway = self.newcomer();
        assert_eq!(ask(&mut gateway, "claim"), "granted");
        for order in orders {
            ask(&mut gateway, order);
        }
        gateway
    }

    /// The program under test, seeing `log` as the kernel's log if there is one.
    pub fn seeing_log(&self, log: Option<&Path>, verb: &[&str]) -> Command {
        const BIND: &str = "mount --bind \"$0\" /dev/kmsg && exec \"$@\"";
        let Some(log) = log else { return self.incumbent(verb) };
        let mut command = self.program("unshare");
        command.args(["-m", "/bin/sh", "-c", BIND]).arg(log).arg(BINARY).args(verb);
        command
    }

    #[track_caller]
    pub fn ask_seeing_log(&self, log: Option<&Path>, verb: &[&str]) -> String {
        let answer = Process::start(self.seeing_log(log, verb)).finish(LIMIT);
        assert!(matches!(answer.code(), 0 | 3), "{verb:?}: {answer:#?}");
        answer.out
    }

    /// How the newest incarnation but `nth` ended, as every surface tells it.
    #[track_caller]
    pub fn end_told(&self, log: Option<&Path>, nth: usize) -> Told {
        let parsed = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let history = parsed(self.ask_seeing_log(log, &["--json", "history"]));
        let text = self.ask_seeing_log(log, &["history"]);
        let status = parsed(self.ask_seeing_log(log, &["--json", "status"]));
        Told {
            end: history[nth].clone(),
            line: text.lines().nth(nth).unwrap().to_owned(),
            last_end: status["last_end"].clone(),
        }
    }

    /// The same for the only incarnation that matters.
    #[track_caller]
    pub fn end_now(&self) -> Told {
        self.end_told(None, 0)
    }

    /// What the event of the newest end says.
    pub fn end_event(&self) -> Value {
        let connection = rusqlite::Connection::open(self.db()).unwrap();
        let detail: String = connection
            .query_row(
                "SELECT detail FROM events WHERE event = 'office_ended' ORDER BY id DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .unwrap();
        serde_json::from_str(&detail).unwrap()
    }

    /// Settles what the dead could not write.
    #[track_caller]
    pub fn settle_end(&self) {
        self.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }

    /// How the only incarnation ended, after the next claim has settled it.
    #[track_caller]
    pub fn end_settled(&self) -> Told {
        self.settle_end();
        let told = self.end_told(None, 1);
        let own = "SELECT count(*) FROM instances WHERE ended_at_ms IS NULL AND kind NOT NULL";
        assert_eq!(self.number(own), 0);
        told
    }

    pub fn last_words(&self) -> i64 {
        self.number("SELECT count(*) FROM shutdowns")
    }
}

/// One end, by every surface.
#[derive(Clone, Debug)]
pub struct Told {
    pub end: Value,
    pub line: String,
    pub last_end: Value,
}

impl Told {
    #[track_caller]
    pub fn text(&self, field: &str) -> String {
        self.end[field].as_str().unwrap_or_default().to_owned()
    }

    pub fn detail(&self) -> String {
        self.text("detail")
    }

    /// Reason, who, exit code and signal; `by` is how it begins.
    #[track_caller]
    pub fn assert(
        &self,
        reason: &str,
        by: Option<&str>,
        code: Option<i64>,
        signal: Option<i64>,
    ) -> &Self {
        let end = &self.end;
        assert_eq!(end["end_reason"], reason, "{self:#?}");
        assert_eq!(end["exit_code"], json!(code), "{self:#?}");
        assert_eq!(end["signal"], json!(signal), "{self:#?}");
        match by {
            Some(by) => assert!(self.text("ended_by").starts_with(by), "not by {by}: {self:#?}"),
            None => assert!(end["ended_by"].is_null(), "{self:#?}"),
        }
        assert!(self.line.ends_with(&format!(" [{reason}]")), "{self:#?}");
        self
    }

    /// `status` says the same of the last end.
    #[track_caller]
    pub fn assert_last(&self) -> &Self {
        assert_eq!(self.last_end["reason"], self.end["end_reason"], "{self:#?}");
        assert_eq!(self.last_end["by"], self.end["ended_by"], "{self:#?}");
        assert_eq!(self.last_end["at"], self.end["ended_at"], "{self:#?}");
        self
    }

    #[track_caller]
    pub fn assert_detail(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.detail().contains(part), "no {part:?} in the detail: {self:#?}");
        }
        self
    }

    /// The sentence of `history`, without who it was, and for how long.
    pub fn story(&self) -> &str {
        let parts = self.line.split_once(" ago: ").or_else(|| self.line.split_once(" is dead: "));
        parts.unwrap_or_else(|| panic!("no story: {}", self.line)).1
    }

    /// `story` is the whole of it; `DETAIL` in it stands for the detail, `BY` for who it was.
    #[track_caller]
    pub fn assert_story(&self, story: &str) -> &Self {
        let story = story.replace("DETAIL", &self.detail()).replace("BY", &self.text("ended_by"));
        assert_eq!(story_without_times(self.story()), story_without_times(&story));
        self
    }
}
