//! One fault: which call of which kind fails, and how; and the calls that there are to choose from.

use std::collections::{BTreeMap, BTreeSet};

use super::errnos;
use super::errnos::Meaning;
use crate::support::Random;

/// Each of the first calls of a kind, and some of the later ones.
const CALLS_EACH: usize = 20;
const CALLS_BEYOND: usize = 4;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum How {
    Fails(&'static str),
    /// The process is killed before the call is made.
    Kills,
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub call: String,
    pub how: How,
    /// Of all calls of this kind that the thread makes, also those of the dynamic loader.
    pub when: usize,
}

impl Fault {
    /// For strace's `inject=`. It counts the calls of each thread.
    pub fn injection(&self) -> String {
        let Self { call, when, .. } = self;
        match self.how {
            How::Fails(errno) => format!("inject={call}:error={errno}:when={when}"),
            How::Kills => format!("inject={call}:signal=SIGKILL:when={when}"),
        }
    }

    /// What it says to the one who meets it; `None` of whoever is killed.
    pub fn meaning(&self) -> Option<Meaning> {
        match self.how {
            How::Fails(errno) => Some(errnos::meaning(&self.call, errno)),
            How::Kills => None,
        }
    }

    pub fn is_shortage(&self) -> bool {
        self.meaning() == Some(Meaning::Shortage)
    }

    pub fn is_answer(&self) -> bool {
        self.meaning() == Some(Meaning::Answer)
    }

    pub fn kills(&self) -> bool {
        self.how == How::Kills
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { call, when, how } = self;
        match how {
            How::Fails(errno) => write!(f, "{call} {when} {errno}"),
            How::Kills => write!(f, "{call} {when} SIGKILL"),
        }
    }
}

/// A call that was made once, without a fault.
#[derive(Debug)]
pub struct Site {
    pub call: String,
    pub arguments: String,
    /// See [`Fault::when`].
    pub when: usize,
    /// The same without the calls of the loader, and of other programs.
    pub n: usize,
}

/// Every fault that can be met where these calls are made, and the calls that the table of errors
/// does not have.
pub fn possible(sites: &[Site], random: &mut Random) -> (Vec<Fault>, BTreeSet<String>) {
    let mut beyond: BTreeMap<&str, Vec<&Site>> = BTreeMap::new();
    let mut wanted: Vec<&Site> = Vec::new();
    for site in sites {
        if site.n <= CALLS_EACH {
            wanted.push(site);
        } else {
            beyond.entry(site.call.as_str()).or_default().push(site);
        }
    }
    for mut rest in beyond.into_values() {
        for _ in 0..CALLS_BEYOND.min(rest.len()) {
            wanted.push(rest.swap_remove(random.index(rest.len())));
        }
    }
    // Two processes may make calls of the same number.
    let mut hows: BTreeMap<(&str, usize), BTreeSet<How>> = BTreeMap::new();
    let mut unlisted = BTreeSet::new();
    for Site { call, arguments, when, .. } in wanted {
        let (errnos, is_listed) = errnos::of(call, arguments);
        if !is_listed {
            unlisted.insert(call.clone());
        }
        let hows = hows.entry((call.as_str(), *when)).or_default();
        hows.extend(errnos.map(How::Fails).chain([How::Kills]));
    }
    let faults = hows.into_iter().flat_map(|((call, when), hows)| {
        hows.into_iter().map(move |how| Fault { call: call.to_owned(), how, when })
    });
    (faults.collect(), unlisted)
}
