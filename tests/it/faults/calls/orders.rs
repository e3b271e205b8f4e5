//! A process that links the library and does what it is told, and what it can be told.

use std::sync::mpsc::channel;

use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::{
    Acquire, Claim, LockRequest, Profile, Released, ScopedLock, Standing, StatusUpdate, Store,
    Tenure,
};

use crate::support::{Process, Sandbox, plays, role_db, test_name};

/// Something that an owner does with the library.
pub struct Order {
    pub words: &'static str,
    /// What is to be done before it.
    pub before: &'static [&'static str],
    /// What it comes to without a fault.
    pub answer: &'static str,
}

const fn order(
    words: &'static str,
    before: &'static [&'static str],
    answer: &'static str,
) -> Order {
    Order { words, before, answer }
}

pub const ORDERS: &[Order] = &[
    order("claim", &["release"], "Granted"),
    order("verify", &["claim"], "Held"),
    order("status", &["claim"], "alive"),
    order("update", &["claim"], "Done"),
    order("lock", &["claim", "release-lock"], "Granted"),
    order("verify-lock", &["claim", "lock"], "Held"),
    order("renew", &["claim", "lock"], "Held"),
    order("mark", &["claim"], "Done"),
    order("consume", &["claim", "mark"], "Consumed"),
    order("release-lock", &["claim", "lock"], "Free"),
    order("release", &["claim"], "Free"),
];

const ROLE_TEST: &str = test_name!(role_that_obeys);
const OBEYING: &str = "obeying";

/// Starts one, in the sandbox' store.
pub fn start(sandbox: &Sandbox) -> Process {
    let mut process = sandbox.role(ROLE_TEST, OBEYING);
    process.err_line_with("=> ready");
    process
}

/// Does what it is told, until its standard input is closed.
#[test]
fn role_that_obeys() {
    if !plays(OBEYING) {
        return;
    }
    // Orders come by another thread than the one whose calls fail.
    let (orders, received) = channel::<String>();
    let owner = std::thread::spawn(move || {
        let mut mine = Mine::new();
        eprintln!("=> ready");
        while let Ok(order) = received.recv() {
            match mine.obey(&order) {
                Ok(answer) => eprintln!("=> {answer}"),
                Err(error) => eprintln!(
                    "=> Err({}): {error} {:?} {:?}",
                    error.kind(),
                    error.path(),
                    error.hint()
                ),
            }
        }
    });
    let mut line = String::new();
    // A read that fails says nothing about the next one.
    while !matches!(std::io::stdin().read_line(&mut line), Ok(0)) {
        if line.ends_with('\n') {
            orders.send(std::mem::take(&mut line).trim().to_owned()).unwrap();
        }
    }
    drop(orders);
    owner.join().unwrap();
}

/// What it holds.
struct Mine {
    store: Store,
    profile: Profile,
    tenure: Option<Tenure>,
    lock: Option<ScopedLock>,
}

impl Mine {
    fn new() -> Self {
        let store = Store::open(role_db()).unwrap();
        let profile = store.profile("default").unwrap();
        Self { store, profile, tenure: None, lock: None }
    }

    fn tenure(&self) -> &Tenure {
        self.tenure.as_ref().expect("claimed before")
    }

    fn lock(&self) -> &ScopedLock {
        self.lock.as_ref().expect("locked before")
    }

    /// `update 7` says that 7 agents are at work; the others are one word.
    fn obey(&mut self, order: &str) -> incumbent::Result<String> {
        let (what, number) = order.split_once(' ').unwrap_or((order, "0"));
        let word = MarkerName::new("word")?;
        let answer = match what {
            "claim" => match self.profile.claim()? {
                Claim::Granted(tenure) => {
                    self.tenure = Some(tenure);
                    "Granted".to_owned()
                }
                Claim::Held(holder) => format!("Held by {holder}"),
            },
            "verify" => standing(&self.tenure().verify()?),
            "status" => self.profile.status()?.verdict.to_string(),
            "update" => {
                let agents: u64 = number.parse().unwrap();
                self.tenure().update_status(&StatusUpdate::new().active_agents(agents))?;
                "Done".to_owned()
            }
            "lock" => match self.tenure().try_acquire(&LockRequest::new("k", "k")?)? {
                Acquire::Granted(lock) => {
                    self.lock = Some(lock);
                    "Granted".to_owned()
                }
                Acquire::Held(holder) => format!("Held by {holder}"),
            },
            "verify-lock" => standing(&self.lock().verify()?),
            "renew" => standing(&self.lock().renew()?),
            "mark" => {
                self.store.write_marker(self.tenure().instance(), &MarkerRequest::new(word))?;
                "Done".to_owned()
            }
            "consume" => match self.tenure().consume_marker(Some(&word))? {
                Some(consumed) if consumed.recorded => "Consumed".to_owned(),
                Some(_) => "Seen".to_owned(),
                None => "None".to_owned(),
            },
            "release-lock" => match self.lock.take() {
                Some(lock) => released(&lock.release()?),
                None => "None".to_owned(),
            },
            "release" => {
                self.lock = None;
                match self.tenure.take() {
                    Some(tenure) => released(&tenure.release()?),
                    None => "None".to_owned(),
                }
            }
            _ => panic!("{order}"),
        };
        Ok(answer)
    }
}

fn standing(standing: &Standing) -> String {
    match standing {
        Standing::Held => "Held".to_owned(),
        Standing::Lost(lost) => format!("Lost: {lost}"),
    }
}

fn released(released: &Released) -> String {
    match released {
        Released::Free => "Free".to_owned(),
        Released::StillShared => "StillShared".to_owned(),
        Released::WasLost => "WasLost".to_owned(),
        Released::Pending(error) => format!("Pending: {error}, {:?}", error.path()),
    }
}
