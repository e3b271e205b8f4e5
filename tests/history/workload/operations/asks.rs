//! Questions, and what is said in passing.

use fastrand::Rng;

use super::{any_how, any_office};
use crate::log::{Answer, Call, Thing};
use crate::workload::caller::{Caller, How};
use crate::workload::draw::{chance, one_of};
use crate::workload::roles::new_word;
use crate::workload::world::{MAIN, office};

pub fn one(caller: Caller<'_>, rng: &mut Rng) {
    let office = any_office(rng);
    let how = any_how(caller.world, rng);
    match rng.u32(..12) {
        0..7 => {
            let call = Call::Status { thing: office.clone() };
            let asked = caller.ask_as(&how, call, &office, &["status"]);
            if let Some(Answer::Running { incarnation: Some(id), .. }) = asked.answer
                && chance(rng, 3)
            {
                forge(caller, rng, &office, id);
            }
        }
        7 => remains(caller),
        _ => something_else(caller, rng, &office, &how),
    }
}

/// Its number is no secret, and its token is not known to us.
fn forge(caller: Caller<'_>, rng: &mut Rng, office: &Thing, incarnation: i64) {
    let token = format!("{:032x}", rng.u128(..));
    let proof = [("INCUMBENT_INSTANCE", incarnation.to_string()), ("INCUMBENT_TOKEN", token)];
    let environment = proof.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let how = How { environment, ..How::default() };
    let word = new_word(rng);
    let call = Call::Forge { thing: office.clone(), incarnation, word: word.clone() };
    caller.ask_as(&how, call, office, &["status-set", "--state", &word]);
}

/// Whose locks are on record although they have ended. At any time there are none.
pub fn remains(caller: Caller<'_>) {
    const REMAINS: &str = "SELECT DISTINCT i.id AS id
        FROM scoped_locks AS l JOIN instances AS i ON i.id = l.instance_id
        WHERE i.ended_at_ms IS NOT NULL";
    let call = Call::Remains { store: MAIN.to_owned() };
    caller.ask(call, &office(0), &["sql", REMAINS]);
}

fn something_else(caller: Caller<'_>, rng: &mut Rng, office: &Thing, how: &How) {
    let verbs: [&[&str]; 9] = [
        &["locks"],
        &["history"],
        &["events"],
        &["status", "--all"],
        &["doctor"],
        &["sql", "SELECT count(*) FROM instances"],
        &["desired"],
        &["desired", "running"],
        &["path"],
    ];
    let verb = *one_of(rng, &verbs);
    let call = Call::Other { verb: verb.join(" ") };
    caller.ask_as(how, call, office, verb);
}
