//! `help words`: the words that are incumbent's own. README has the same lines.

use crate::cli::output::{Answer, exit};

/// A word in each line.
const WORDS: &str = "\
office   a profile and a kind of gateway, as in work/gateway: one process at most holds it
holder   the process that holds an office or a lock
lock     a hold on a token, an account or a port: one holder on this machine
fence    a number that rises with every grant of a lock: a lower one is out of date
marker   a message to one process: stop, restart, make way for another one
store    the SQLite file in which all of this is recorded
";

pub(super) fn words() -> Answer {
    Answer::bytes(exit::OK, WORDS.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::WORDS;

    #[test]
    fn the_readme_explains_the_same_words() {
        assert!(include_str!("../../README.md").contains(WORDS));
    }
}
