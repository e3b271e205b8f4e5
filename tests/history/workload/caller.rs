//! Asks the program under test, and writes down what was asked and what came back.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::answers;
use super::reaper::{Reaper, Sort, exit_code};
use super::world::{World, place_options};
use crate::log::{Answer, Call, Death, Op, Origin, Thing, What};
use crate::support::LIMIT;

/// How a program is started: with what before it, in which surroundings.
#[derive(Clone, Debug, Default)]
pub struct How {
    pub words: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Where it comes from, if that is not where we are.
    pub from: Option<Origin>,
}

/// A process that asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub world: &'a World,
    pub reaper: &'a Reaper,
}

/// What was asked and what came back; without an answer it was killed.
#[derive(Debug)]
pub struct Asked {
    pub op: Op,
    pub answer: Option<Answer>,
}

impl Asked {
    /// As which incarnation something was granted.
    pub fn granted(&self) -> Option<i64> {
        match self.answer {
            Some(Answer::Granted { incarnation, .. }) => Some(incarnation),
            _ => None,
        }
    }

    pub fn is_yes(&self) -> bool {
        self.answer == Some(Answer::Yes)
    }
}

impl Caller<'_> {
    /// One verb about `thing`, from its beginning to its end.
    pub fn ask(&self, call: Call, thing: &Thing, verb: &[&str]) -> Asked {
        self.ask_as(&How::default(), call, thing, verb)
    }

    pub fn ask_as(&self, how: &How, call: Call, thing: &Thing, verb: &[&str]) -> Asked {
        let mut arguments = vec!["--json".to_owned()];
        arguments.extend(place_options(self.world, thing));
        arguments.extend(verb.iter().map(|word| (*word).to_owned()));
        let program = self.world.file("incumbent");
        let words: Vec<&str> = how.words.iter().map(String::as_str).collect();
        let mut command = self.world.under(&words, program);
        command.args(arguments);
        command.envs(how.environment.iter().map(|(name, value)| (name, value)));
        let from = how.from.as_ref().unwrap_or(&self.world.from);
        self.go(command, call, from, Sort::Verb)
    }

    /// A program that is not the product's, about which nothing but its end is known.
    pub fn tool(&self, what: &str, command: Command) -> Asked {
        let call = Call::Other { verb: what.to_owned() };
        self.go(command, call, &self.world.from, Sort::Tool)
    }

    pub fn go(&self, mut command: Command, call: Call, from: &Origin, sort: Sort) -> Asked {
        let question = call.clone();
        let op = self.world.log.begin(from, call);
        self.go_as(op, &mut command, &question, sort)
    }

    /// The same of a call that was begun, because what is started has to know which.
    pub fn go_as(&self, op: Op, command: &mut Command, call: &Call, sort: Sort) -> Asked {
        let mut spoken = Spoken::new(self.world, op);
        let started = spoken.catch(command).and_then(|()| self.reaper.spawn(command, sort));
        let pid = match started {
            Ok(pid) => pid,
            Err(error) => {
                let answer =
                    Answer::Error { kind: "not_started".to_owned(), text: error.to_string() };
                self.world.log.end(op, answer.clone());
                return Asked { op, answer: Some(answer) };
            }
        };
        // A number of another pid namespace is somebody else's here.
        if self.world.sees_pids() {
            self.world.log.say(What::Started { op, pid });
        }
        let how = self.reaper.wait(pid, LIMIT, &format!("{call:?}"));
        let is_run = matches!(call, Call::Run { .. });
        let answer = match how {
            Death::Exit { code } => {
                Some(answers::of_verb(call, code, &spoken.document(), &spoken.complaint()))
            }
            how if is_run => Some(Answer::Exit { code: exit_code(how) }),
            Death::Signal { .. } | Death::Gone => None,
        };
        if let Some(answer) = &answer {
            self.world.log.end(op, answer.clone());
        }
        Asked { op, answer }
    }
}

/// What a program says: into files, which nobody has to read meanwhile. They stay open, because
/// whoever asks may have run out of descriptors when the answer is there.
struct Spoken {
    out: Said,
    err: Said,
}

struct Said {
    path: PathBuf,
    file: Option<File>,
}

impl Spoken {
    fn new(world: &World, op: Op) -> Self {
        let at = |end: &str| {
            let path = world.file("said").join(format!("{op}.{end}"));
            Said { path, file: None }
        };
        Self { out: at("out"), err: at("err") }
    }

    fn catch(&mut self, command: &mut Command) -> std::io::Result<()> {
        command.stdout(self.out.open()?).stderr(self.err.open()?);
        Ok(())
    }

    /// One JSON document; null where it said none.
    fn document(&self) -> Value {
        serde_json::from_slice(&self.out.read()).unwrap_or_default()
    }

    fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.err.read()).into_owned()
    }
}

impl Said {
    fn open(&mut self) -> std::io::Result<File> {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&self.path)?;
        self.file = Some(file.try_clone()?);
        Ok(file)
    }

    fn read(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Some(mut file) = self.file.as_ref() {
            // The program wrote through the same open file, and left its position at the end.
            file.rewind().and_then(|()| file.read_to_end(&mut text)).unwrap();
        }
        text
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
