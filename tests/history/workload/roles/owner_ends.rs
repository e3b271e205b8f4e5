//! How an owner lets its office go: it releases it, hands it over, executes another program, or
//! just ends.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;
use incumbent::handover::HandedOver;

use super::OWNER;
use super::owner::{CLAIMS, Granted, Owner};
use crate::log::{Answer, Call};
use crate::workload::answers;
use crate::workload::world::Part;

/// Whether this process has something left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoesOn,
    Ends,
}

/// A successor has to come up on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// No witness is in by now.
pub fn end(owner: &Owner, granted: Granted, rng: &mut Rng) -> Next {
    if owner.is_lost() || owner.is_over() {
        return release(owner, granted);
    }
    match rng.u32(..10) {
        0..2 => hand_over(owner, granted, rng),
        2 => execute_successor(owner, granted, rng),
        3 => execute_again(owner, granted, rng),
        // Without a word: the kernel releases.
        4 => std::process::exit(0),
        _ => release(owner, granted),
    }
}

fn release(owner: &Owner, granted: Granted) -> Next {
    let (thing, incarnation) = (owner.office.clone(), granted.tenure.instance().as_i64());
    let op = owner.begin(Call::Release { thing, incarnation });
    let released = granted.tenure.release();
    owner.end(op, answers::of_release(&released));
    Next::GoesOn
}

/// This program again, as the successor of an incarnation.
fn successor(owner: &Owner, incarnation: i64, conduct: &str, rng: &mut Rng) -> Command {
    let part = Part {
        seed: rng.u64(..),
        life_ms: rng.u64(200..2_500),
        things: vec![owner.office.clone()],
        conduct: conduct.to_owned(),
        heir_of: Some(incarnation),
        ..Part::default()
    };
    owner.world.role(OWNER, &part)
}

fn hand_over(owner: &Owner, granted: Granted, rng: &mut Rng) -> Next {
    let (thing, incarnation) = (owner.office.clone(), granted.tenure.instance().as_i64());
    let command = successor(owner, incarnation, "", rng);
    let op = owner.begin(Call::HandOver { thing, incarnation, exec: false });
    match granted.tenure.hand_over(command, STARTS_WITHIN) {
        Ok(HandedOver::Yes(successor)) => {
            owner.end(op, Answer::Done);
            // It goes on alone; whoever collects orphans collects it.
            drop(successor);
            return Next::Ends;
        }
        Ok(_) => owner.end(op, Answer::No),
        Err(error) => owner.end(op, answers::of_error(&error)),
    }
    release(owner, granted)
}

fn execute_successor(owner: &Owner, granted: Granted, rng: &mut Rng) -> Next {
    let (thing, incarnation) = (owner.office.clone(), granted.tenure.instance().as_i64());
    let command = successor(owner, incarnation, "", rng);
    let op = owner.begin(Call::HandOver { thing, incarnation, exec: true });
    // It returns only where it failed.
    let error = granted.tenure.exec(command);
    owner.end(op, answers::of_error(&error));
    release(owner, granted)
}

/// Without a handover: the office is free until the new program claims it, or somebody else.
fn execute_again(owner: &Owner, granted: Granted, rng: &mut Rng) -> Next {
    let (thing, incarnation) = (owner.office.clone(), granted.tenure.instance().as_i64());
    let mut command = successor(owner, incarnation, CLAIMS, rng);
    let op = owner.begin(Call::ReExec { thing, incarnation });
    let error = command.exec();
    owner.end(op, Answer::Error { kind: "exec".to_owned(), text: error.to_string() });
    release(owner, granted)
}
