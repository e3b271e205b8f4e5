//! Real supervisors: is `run` started again after a crash, is it left alone after a stop, does its
//! command hear of a stop once, and does each read what `unit` prints for it?
//!
//! A supervisor that is not installed, or cannot be started here, is skipped, and says so.
//! `.ci/run` installs them.

mod inits;
mod notify;
mod pm2;
mod printed;
mod runit;
mod s6;
mod supervisord;
mod systemd;

use serde_json::Value;

use crate::support::{LIMIT, Sandbox, eventually};

/// A gateway that writes down what happens to it, in the file that its first argument names. Once
/// it was asked to stop it goes on (a second signal is written down, too) until there is a file
/// with `.end` after that name.
const GATEWAY: &str = r#"
    trap 'echo TERM >> "$1"; asked=1' TERM
    trap 'echo INT >> "$1"; asked=1' INT
    echo "up $$" >> "$1"
    until [ -n "$asked" ] && [ -e "$1.end" ]; do sleep 0.05; done
    echo down >> "$1"
"#;

impl Sandbox {
    /// The words that start the gateway.
    fn gateway_words(&self) -> [String; 3] {
        std::fs::write(self.file("gateway.sh"), GATEWAY).unwrap();
        let path = |name: &str| self.file(name).to_str().unwrap().to_owned();
        ["/bin/sh".to_owned(), path("gateway.sh"), path("said")]
    }

    /// What the gateways have written down, one after the other.
    fn said(&self) -> Vec<String> {
        let said = std::fs::read_to_string(self.file("said")).unwrap_or_default();
        said.lines().map(str::to_owned).collect()
    }

    /// Waits until so many gateways have started; the pid of the last one.
    #[track_caller]
    fn wait_for_starts(&self, count: usize) -> u32 {
        let pid = eventually(&format!("start {count}"), LIMIT, || {
            let said = self.said();
            let mut pids = said.iter().filter_map(|line| line.strip_prefix("up "));
            pids.nth(count - 1).map(str::to_owned)
        });
        pid.parse().unwrap()
    }

    /// Waits until the last gateway has written that down.
    #[track_caller]
    fn wait_for_word(&self, word: &str) {
        eventually(word, LIMIT, || (self.said().last()? == word).then_some(()));
    }

    /// Whoever is asked to stop from now on, or was before, does so.
    fn let_gateways_end(&self) {
        std::fs::write(self.file("said.end"), "").unwrap();
    }

    /// Whoever is asked to stop from now on goes on.
    fn let_gateways_drain(&self) {
        std::fs::remove_file(self.file("said.end")).unwrap();
    }

    /// What the last gateway has written down between its start and its end.
    fn heard(&self) -> Vec<String> {
        let said = self.said();
        let start = said.iter().rposition(|line| line.starts_with("up ")).unwrap();
        let heard = &said[start + 1..];
        heard.iter().filter(|line| *line != "down").cloned().collect()
    }

    /// The files of a unit, by their names.
    #[track_caller]
    fn unit(&self, words: &[&str]) -> Vec<(String, Vec<u8>)> {
        let (code, document) = self.json([&["unit"][..], words].concat());
        assert_eq!(code, 0, "{document:#}");
        files_of(&document)
    }
}

/// The names and the contents of what `unit --json` prints.
fn files_of(document: &Value) -> Vec<(String, Vec<u8>)> {
    let contents = |file: &Value| match file["text_bytes"].as_str() {
        Some(hex) => bytes(hex),
        None => file["text"].as_str().unwrap().as_bytes().to_vec(),
    };
    let files = document["files"].as_array().unwrap().iter();
    files.map(|file| (file["name"].as_str().unwrap().to_owned(), contents(file))).collect()
}

/// From hex.
fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}
