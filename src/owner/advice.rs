//! What a person can do about a holder that is in the way.

use crate::owner::frozen;
use crate::owner::holder::{Holder, OlderLock};
use crate::path_text::quoted;
use crate::{LockName, Office, ProfileName, Reason, Verdict, Wanted, environment, sys};

/// Who is told what to do: each goes on in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// A program, or `run`, which starts one.
    Start,
    /// Whoever claims for a process that runs already.
    Claim,
    /// Whoever would take a lock from its holder.
    Unlock,
}

impl Holder {
    /// What a person can do about it, with the verbs of the command line `incumbent`: one sentence
    /// without a full stop. For a program that acts itself there are [`stop`](crate::stop) and
    /// [`Wait`](crate::Wait).
    #[must_use]
    pub fn advice(&self) -> String {
        self.advice_to(Asker::Start)
    }

    /// The same for whoever claims for a process that runs already: `claim`.
    #[must_use]
    pub fn advice_to_claimant(&self) -> String {
        self.advice_to(Asker::Claim)
    }

    /// The same for whoever would take a lock from its holder: `unlock`.
    #[must_use]
    pub fn advice_to_unlocker(&self) -> String {
        self.advice_to(Asker::Unlock)
    }

    #[allow(clippy::too_many_lines, reason = "a list of situations")]
    fn advice_to(&self, asker: Asker) -> String {
        if self.is_this_process {
            return "release it where this process holds it, or wait until that is done".to_owned();
        }
        let pid = self.pid.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
        if self.flags.frozen {
            return self.advice_on_frozen();
        }
        let evict = match &self.wanted {
            Wanted::Office(office) => format!("incumbent {}", office.verb("evict --force")),
            Wanted::Lock(LockName { scope, identity_hash }) => {
                format!("incumbent unlock {scope} --hash {identity_hash} --force")
            }
        };
        let wait = match (asker, &self.wanted) {
            (Asker::Start, Wanted::Office(office)) => {
                format!("wait for it with `incumbent run{} --wait -- CMD`", arguments(office))
            }
            (Asker::Start, Wanted::Lock(_)) => {
                "use another identity, or wait for it with `incumbent run --wait -- CMD`".to_owned()
            }
            (Asker::Claim, _) => "claim it again when that is over".to_owned(),
            (Asker::Unlock, _) => "wait until its holder releases it".to_owned(),
        };
        if let Some(path) = &self.left {
            let keepers = sys::processes_with_open_file(path);
            let keepers: Vec<String> = keepers.iter().map(|pid| format!("pid {pid}")).collect();
            let (who, whom) = match keepers.as_slice() {
                [] => ("some process that cannot be seen from here".to_owned(), "it"),
                [one] => (one.clone(), "it"),
                [..] => (keepers.join(", "), "them"),
            };
            let keep = if keepers.len() > 1 { "keep" } else { "keeps" };
            return format!(
                "{who} {keep} {0}: end {whom}, or, if no gateway is running, remove {0}",
                path.display()
            );
        }
        if let Some(lock) =
            self.older_lock.as_ref().filter(|_| self.reason == Reason::LegacyHomeInUse)
        {
            return self.advice_on_older_lock(lock, asker);
        }
        match &self.reason {
            Reason::OlderGateway => format!(
                "two gateways are running: stop pid {pid}, or the holder on record (`incumbent \
                 stop`), first"
            ),
            Reason::Reserved => {
                format!("pid {pid} is about to take it, or to stop its holder: {wait}")
            }
            Reason::Superseded => {
                "no action needed if that gateway is the right one; otherwise take its place \
                 (`incumbent run --replace --force -- CMD`), and let only one supervisor start it"
                    .to_owned()
            }
            Reason::CannotSignal if self.is_our_ancestor => format!(
                "run this outside of it (another terminal, its supervisor), or have pid {pid} end \
                 itself, as the marker asks it to"
            ),
            Reason::CannotSignal => format!(
                "stop pid {pid} where and as whom it runs (another container or pid namespace, \
                 another user), then start again"
            ),
            Reason::TimedOut => self.advice_on_late_end(&pid),
            Reason::OrphanedAnchor => format!(
                "end the process that recorded itself as pid {pid} (in its own pid namespace), or \
                 wait until it notices that its store is gone; if you know that it is harmless, \
                 `{evict}`"
            ),
            Reason::ChildLives => {
                let child = self.child_pid.map_or_else(|| pid, |pid| pid.to_string());
                match self.office() {
                    Some(office) => format!(
                        "end what it left behind (`incumbent {}`, or `kill -KILL {child}`), then \
                         start again",
                        office.verb("stop")
                    ),
                    None => format!("end pid {child} (`kill -KILL {child}`), then start again"),
                }
            }
            // To stop it, or to take its place, ends whoever asks; to wait for it never ends.
            _ if self.is_our_run => {
                "start the program itself, without another `run`: this process is already inside \
                 one"
                .to_owned()
            }
            _ if self.verdict == Verdict::Unknown => {
                format!("check whether it still runs; if you know that it does not, `{evict}`")
            }
            _ if self.flags.elsewhere => format!(
                "stop it where it runs, in another container, pid namespace or machine; or {wait}"
            ),
            _ if self.flags.stopped => {
                let end = match self.office() {
                    Some(office) => {
                        format!("`incumbent {}`", office.verb("stop --force --timeout 10s"))
                    }
                    None => format!("`kill -KILL {pid}`"),
                };
                format!(
                    "it is suspended by a signal (SIGSTOP): continue it with `kill -CONT {pid}`, \
                     or end it with {end}"
                )
            }
            _ => match &self.wanted {
                // What claims is running already: a start would make another gateway.
                Wanted::Office(office) if asker == Asker::Claim => format!(
                    "stop that one (`incumbent stop{}`), and claim again",
                    arguments(office)
                ),
                Wanted::Office(office) => format!(
                    "stop it first (`incumbent stop{0}`), take its place (`incumbent run{0} \
                     --replace -- CMD`), or {wait}",
                    arguments(office)
                ),
                Wanted::Lock(_) => {
                    let stop = match self.office() {
                        Some(office) => format!("incumbent {}", office.verb("stop")),
                        None => format!("kill {pid}"),
                    };
                    format!("stop it first (`{stop}`), or {wait}")
                }
            },
        }
    }

    /// Which office the holder is in.
    fn office(&self) -> Option<Office> {
        Some(Office { profile: self.profile.clone()?, kind: self.kind.clone()? })
    }

    fn advice_on_frozen(&self) -> String {
        // Elsewhere its numbers are those of strangers.
        let pids = [self.child_pid, self.pid].map(|pid| pid.filter(|_| !self.flags.elsewhere));
        format!(
            "it is frozen, and answers only after it is thawed: {}",
            frozen::how_to_thaw(pids, self.supervisor.as_deref())
        )
    }

    fn advice_on_late_end(&self, pid: &str) -> String {
        if self.pid == Some(1) && !self.flags.elsewhere {
            return "the first process of a container gets only signals that it has a handler for: \
                    have it handle SIGTERM, or stop the container from outside"
                .to_owned();
        }
        format!(
            "look at what pid {pid} does: a process that SIGKILL does not end hangs in the kernel, \
             or does not hold the lock"
        )
    }

    fn advice_on_older_lock(&self, lock: &OlderLock, asker: Asker) -> String {
        let profile = self.profile.as_ref().map_or("default", ProfileName::as_str);
        let wanted = match &self.wanted {
            Wanted::Office(office) => arguments(office),
            Wanted::Lock(_) => String::new(),
        };
        match &lock.db {
            Some(db) => format!(
                "stop it there (`incumbent --db {} --profile {profile} stop`), or use one store \
                 for both",
                quoted(db)
            ),
            None if self.instance.is_none() => {
                "wait until it has ended: it has lost its office, and ends its command".to_owned()
            }
            None if asker == Asker::Claim => {
                format!("stop that one (`incumbent --profile {profile} stop`), and claim again")
            }
            None => {
                // Without the directory it would start beside that one.
                let home = lock.path.parent().map(quoted).unwrap_or_default();
                let run = |how: &str| {
                    format!("`incumbent{wanted} run {how} --legacy-home {home} -- CMD`")
                };
                format!(
                    "stop that one first (`incumbent --profile {profile} stop`), take its place \
                     ({}), or wait for it with {}",
                    run("--replace"),
                    run("--wait")
                )
            }
        }
    }
}

/// How the command line names an office, where it is not the one that is meant anyway.
fn arguments(office: &Office) -> String {
    let usual = Office::default();
    let mut arguments = String::new();
    // The environment may mean another profile than the default.
    if office.profile != usual.profile || environment::value(environment::PROFILE).is_some() {
        arguments += &format!(" --profile {}", office.profile);
    }
    if office.kind != usual.kind {
        arguments += &format!(" --kind {}", office.kind);
    }
    arguments
}
