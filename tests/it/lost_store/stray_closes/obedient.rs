//! An owner that does one thing at a time, as it is told.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use incumbent::clock::{Clock, SystemClock};
use incumbent::{Claim, OpenOptions, StatusUpdate};
use serde_json::json;

use super::open_and_close;
use crate::support::{beside, order, role_db};

/// A clock that is asked in the middle of a change: what is to happen there, once.
#[derive(Default)]
struct Meanwhile(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Clock for Meanwhile {
    fn wall_us(&self) -> i64 {
        let act = self.0.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
        SystemClock.wall_us()
    }

    fn boot_ms(&self) -> i64 {
        SystemClock.boot_ms()
    }
}

/// `close FILE`, `status`, or `meanwhile SUFFIX STATEMENT`: what the next change has in its middle,
/// a stray close and then somebody else.
pub fn obedient() {
    let database = role_db();
    let meanwhile = Arc::new(Meanwhile::default());
    let options =
        OpenOptions::new().path(&database).clock(Arc::clone(&meanwhile) as Arc<dyn Clock>);
    let store = options.open().unwrap();
    let profile = store.profile("owner-0").unwrap();
    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("it is nobody else's") };
    let acknowledged = File::create("acknowledged-0").unwrap();
    let mut number = 0_u64;
    eprintln!("=> there");
    while let Some(order) = order() {
        match order.split_once(' ') {
            Some(("close", which)) => {
                open_and_close(&beside(&database, which.trim_start_matches("state.db")));
            }
            Some(("meanwhile", words)) => {
                let (suffix, statement) = words.split_once(' ').unwrap();
                let (path, statement) = (beside(&database, suffix), statement.to_owned());
                let database = database.clone();
                let act = move || {
                    open_and_close(&path);
                    let mut shell = Command::new("sqlite3");
                    let answer = shell.arg(database).arg(&statement).output().unwrap();
                    let code = answer.status;
                    eprintln!("=> meanwhile: {code} {}", String::from_utf8_lossy(&answer.stderr));
                };
                *meanwhile.0.lock().unwrap() = Some(Box::new(act));
            }
            _ => {
                number += 1;
                let update = StatusUpdate::new().extra(json!({ "number": number }));
                match tenure.update_status(&update) {
                    Ok(()) => {
                        acknowledged.write_all_at(&number.to_le_bytes(), 0).unwrap();
                        eprintln!("=> acknowledged");
                    }
                    Err(error) => eprintln!("=> {:?}: {error}", error.kind()),
                }
                continue;
            }
        }
        eprintln!("=> done");
    }
}
