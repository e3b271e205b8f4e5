//! `run`, with every kind of command.

use fastrand::Rng;

use super::{any_lock, any_office, any_wait, lock_words, ms};
use crate::log::{Call, Wait};
use crate::support::another_user;
use crate::workload::caller::Caller;
use crate::workload::draw::{chance, millis, one_of};
use crate::workload::reaper::Sort;
use crate::workload::roles;
use crate::workload::world::{Part, World, place_options};

/// A start script that does not execute its command: it passes on what it is sent, and waits. A
/// shell is woken by each signal, so it waits until the command has gone.
const SCRIPT: &str = "trap 'kill -TERM $p 2> /dev/null' TERM INT HUP
    \"$@\" & p=$!
    wait $p; code=$?
    while kill -0 $p 2> /dev/null; do wait $p; code=$?; done
    exit $code";

/// One run, until it has ended.
pub fn one(caller: Caller<'_>, rng: &mut Rng) {
    let office = any_office(rng);
    let mut things = vec![office.clone()];
    if chance(rng, 2) {
        things.push(any_lock(rng));
    }
    if chance(rng, 6) {
        let another = any_lock(rng);
        if !things.contains(&another) {
            things.push(another);
        }
    }
    let replace = chance(rng, 4);
    // A takeover takes its own time.
    let (wait, wait_option) = if replace { (Wait::Once, None) } else { any_wait(rng) };
    let call = Call::Run { thing: office.clone(), locks: things[1..].to_vec(), wait, replace };
    let conduct = any_conduct(caller.world, rng);
    let op = caller.world.log.begin(&caller.world.from, call.clone());
    let part = Part {
        seed: rng.u64(..),
        life_ms: ms(millis(rng, 20, 2_500)),
        things: things.clone(),
        op: Some(op),
        conduct: conduct.to_owned(),
        ..Part::default()
    };
    // What is behind a script is asked to end by it, and must have time for that.
    let budget = if conduct == roles::command::BEHIND_A_SCRIPT { "30s" } else { "1500ms" };
    let mut command = caller.world.program(caller.world.file("incumbent"));
    command.args(place_options(caller.world, &office));
    command.args(["run", "--no-backoff", "--stop-budget", budget]);
    command.args(wait_option);
    if replace {
        command.arg("--replace");
        if chance(rng, 4) {
            command.arg("--force");
        }
    }
    for lock in &things[1..] {
        command.args(["--lock", &lock_words(lock).join("=")]);
    }
    command.arg("--").args(words(caller.world, conduct));
    part.give(&mut command, roles::COMMAND);
    command.env("INCUMBENT_PARTY", format!("party-{}", rng.u32(..3)));
    let _ = caller.go_as(op, &mut command, &call, Sort::Run);
}

/// In a pid namespace none of another user: where its run is killed, a claimant outside cannot find
/// that one (`lib.rs`, what it does not guarantee).
fn any_conduct(world: &World, rng: &mut Rng) -> &'static str {
    let conduct = *one_of(rng, &roles::command::CONDUCTS);
    let is_of_another = conduct == roles::command::OF_ANOTHER_USER;
    if is_of_another && !world.sees_pids() { roles::command::PLAIN } else { conduct }
}

/// How the command is started.
fn words(world: &World, conduct: &str) -> Vec<String> {
    let program = world.words_of_this_program();
    let before: Vec<String> = match conduct {
        roles::command::OF_ANOTHER_USER => {
            another_user().unwrap_or_default().iter().map(|word| (*word).to_owned()).collect()
        }
        roles::command::BEHIND_A_SCRIPT => {
            ["/bin/sh", "-c", SCRIPT, "sh"].map(str::to_owned).to_vec()
        }
        _ => Vec::new(),
    };
    before.into_iter().chain(program).collect()
}
