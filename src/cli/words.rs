//! `help`: that of the program or of a verb, as `--help` prints it; and `help words`, the words
//! that are incumbent's own. README has the same lines.

use clap::{CommandFactory, Parser};

use crate::Error;
use crate::cli::args::Cli;
use crate::cli::output::{Answer, Outcome, exit};
use crate::cli::usage;

/// A word in each line.
const WORDS: &str = "\
office   a profile and a kind of gateway, as in work/gateway: one process at most holds it
holder   the process that holds an office or a lock
lock     a hold on a token, an account or a port: one holder on this machine
fence    a number that rises with every grant of a lock: a lower one is out of date
marker   a message to one process: stop, restart, make way for another one
store    the SQLite file in which all of this is recorded
";

pub(super) fn help(topic: &[String]) -> Outcome {
    if topic == ["words"] {
        return Ok(Answer::bytes(exit::OK, WORDS.as_bytes().to_vec()));
    }
    // What is asked has to be a verb: the words after `run` would be a command.
    let mut program = Cli::command();
    // What a verb has below it is made when it is met, or by this.
    program.build();
    let mut verb = &program;
    for word in topic {
        verb = verb.find_subcommand(word).ok_or_else(|| {
            Error::invalid(format!("{:?} is not a verb", topic.join(" "))).with_hint(
                "`incumbent help` lists the verbs; `incumbent help words` explains the special \
                 words",
            )
        })?;
    }
    let asked = ["incumbent"].into_iter().chain(topic.iter().map(String::as_str));
    match Cli::try_parse_from(asked.chain(["--help"])) {
        Err(help) => Ok(usage::help(&help)),
        Ok(_) => Err(Error::internal(format!("there is no help for {:?}", topic.join(" ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::WORDS;

    #[test]
    fn the_readme_explains_the_same_words() {
        assert!(include_str!("../../README.md").contains(WORDS));
    }
}
