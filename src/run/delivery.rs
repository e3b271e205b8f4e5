//! Whether a signal that reached the run has reached its command as well.
//!
//! A program that is asked to end twice may take that for "at once", and drop its work (FIELD-BUGS
//! row 115). One that is not asked at all is killed in the middle of it. So what was sent to both
//! is not passed on, and everything else is: a witness sees what is sent to our process group and
//! to all processes of a systemd service, and pm2 is known by its name.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::clock::Deadline;
use crate::environment;
use crate::forensics::unit_kill::UnitKill;
use crate::process::exit_code::Supervisor;
use crate::process::helper::HelperProgram;
use crate::run::forward::Forward;
use crate::sys::witness::Witness;
use crate::sys::{self, Caught, Pid, SignalOrigin, details, jobs, signals, supervise};

/// How long a signal of systemd waits for what that says of our service, where no witness answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// systemd signals the main process first, and all others right after it. One that has been idle
/// for so many looks has signalled nobody else: it may sleep in between only to write to its log,
/// which takes it 10 ms at most.
const IDLE_LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One that is at work for longer is not waited for.
const SIGNALS_ALL_WITHIN: Duration = Duration::from_secs(1);

/// See above.
#[derive(Debug)]
pub(super) struct Delivery {
    forward: Forward,
    /// Where others may be signalled with us.
    witness: Option<Witness>,
    /// How systemd stops our service, where no witness answers, as far as it has said so; what it
    /// says is still to come.
    unit: Option<UnitKill>,
    asked: Option<Receiver<Option<UnitKill>>>,
}

impl Delivery {
    /// Of a process that also does other work beside the run.
    pub(super) fn of_part(forward: Forward) -> Self {
        Self { forward, witness: None, unit: None, asked: None }
    }

    /// Of one that has none. Call it in the thread that stays with the command.
    pub(super) fn of_whole(forward: Forward) -> Self {
        let mut delivery = Self::of_part(forward);
        // Without a terminal the command is in a session of its own, and its group is not ours.
        if forward == Forward::Auto && (supervise::has_terminal() || is_in_service()) {
            delivery.watch();
        }
        delivery
    }

    fn watch(&mut self) {
        let helper = HelperProgram::find().map_err(|error| error.to_string());
        let started = helper
            .and_then(|helper| Witness::start(helper.command()).map_err(|error| error.to_string()));
        match started {
            Ok(witness) => self.witness = Some(witness),
            Err(why) => {
                tracing::debug!(%why, "no witness of what is sent to others as well");
                self.ask_systemd();
            }
        }
    }

    /// Aside, because it may take seconds.
    fn ask_systemd(&mut self) {
        if !is_in_service() {
            return;
        }
        let (tell, asked) = mpsc::channel();
        let ask = move || {
            // Nobody listens any more: nobody needs it.
            let _ = tell.send(UnitKill::of_own_unit());
        };
        match std::thread::Builder::new().name("incumbent-unit".into()).spawn(ask) {
            Ok(_) => self.asked = Some(asked),
            Err(error) => tracing::debug!(%error, "systemd was not asked whom it signals"),
        }
    }

    /// How systemd stops our service; `None` where it does not say.
    fn unit(&mut self) -> Option<UnitKill> {
        if let Some(asked) = &self.asked {
            match asked.recv_timeout(ANSWERS_WITHIN) {
                Ok(unit) => {
                    self.unit = unit;
                    self.asked = None;
                }
                Err(RecvTimeoutError::Disconnected) => self.asked = None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.unit
    }

    /// Whether `caught` is not to be passed on to the process `command`: it has it.
    pub(super) fn has_reached(&mut self, command: Pid, caught: &Caught) -> bool {
        match self.forward {
            Forward::Always => false,
            Forward::Never => true,
            Forward::Auto => {
                let in_our_group = jobs::shares_our_group(command);
                let sender = sender_of(caught);
                let manager = sender.filter(|sender| is_service_manager(*sender));
                // In any case, so that the witness is not asked for an old one next time.
                let seen = self.witnessed(caught, manager);
                (in_our_group && was_sent_to_group(caught, seen))
                    || (manager.is_some() && self.was_sent_to_unit(command, caught, seen))
                    || sender.is_some_and(|sender| was_sent_to_tree(sender, caught))
            }
        }
    }

    /// Whether the witness got it as well; `None` without one. That may take some time for what the
    /// service `manager` sent.
    fn witnessed(&mut self, caught: &Caught, manager: Option<Pid>) -> Option<bool> {
        let witness = self.witness.as_mut()?;
        let until = Deadline::after(SIGNALS_ALL_WITHIN);
        let mut idle_looks = 0;
        loop {
            // Before the look, which is the last one then.
            let is_over = manager.is_none() || idle_looks >= IDLE_LOOKS || until.has_passed();
            match witness.saw(caught.number, sender_of(caught)) {
                Some(false) if !is_over => {}
                Some(saw) => return Some(saw),
                None => break,
            }
            idle_looks = if manager.is_some_and(is_at_work) { 0 } else { idle_looks + 1 };
            std::thread::sleep(LOOK_EVERY);
        }
        self.witness = None;
        self.ask_systemd();
        None
    }

    /// Where nobody says so it was not: a command that is asked twice is better off than one that
    /// is not asked.
    fn was_sent_to_unit(&mut self, command: Pid, caught: &Caught, seen: Option<bool>) -> bool {
        let to_all =
            seen.unwrap_or_else(|| self.unit().is_some_and(|unit| unit.signals_all(caught.number)));
        to_all && shares_our_unit(command)
    }
}

fn sender_of(caught: &Caught) -> Option<Pid> {
    match caught.origin {
        SignalOrigin::Process { pid, .. } => Some(pid),
        SignalOrigin::Elsewhere { .. } | SignalOrigin::Kernel | SignalOrigin::Unknown => None,
    }
}

/// `seen`: by a witness in our group.
fn was_sent_to_group(caught: &Caught, seen: Option<bool>) -> bool {
    let hung_up = || caught.origin == SignalOrigin::Kernel && !jobs::leads_session();
    // Of two keys in a row the witness has one: what is pending is pending once.
    caught.from_terminal || seen.unwrap_or_else(hung_up)
}

/// By pm2, which does so when it ends one that it has started.
fn was_sent_to_tree(sender: Pid, caught: &Caught) -> bool {
    signals::asks_to_end(caught.number)
        && details::own_parent() == Ok(sender)
        && is_pm2(sender)
        && signals_tree()
}

/// Whether this process is in a service of systemd, be it its main one or below that.
fn is_in_service() -> bool {
    environment::value("INVOCATION_ID").is_some()
        && sys::supervision(std::process::id()).systemd_service.is_some()
}

/// Whether `sender` is the systemd whose service we are in. It is our parent, unless a script of
/// the service started us.
fn is_service_manager(sender: Pid) -> bool {
    let started_us = || {
        details::own_parent() == Ok(sender) && Supervisor::of_this_process() == Supervisor::Systemd
    };
    let is_above = || {
        sys::program_name(sender).is_some_and(|name| name == "systemd")
            && sys::is_below(|pid| pid == sender)
    };
    is_in_service() && (started_us() || is_above())
}

/// Whether it can be seen that `pid` does not sleep.
fn is_at_work(pid: Pid) -> bool {
    let state = details::details(pid).ok().and_then(|it| it.state);
    state.is_some_and(|state| !state.starts_with('S'))
}

/// Whether systemd counts `command` among the processes of our service.
fn shares_our_unit(command: Pid) -> bool {
    let unit_of = |pid| details::cgroup(pid).ok().and_then(|(_, unit)| unit);
    let ours = unit_of(std::process::id());
    ours.is_some() && unit_of(command) == ours
}

/// By its name: the daemon calls itself `PM2 v6.0.8: God Daemon (/root/.pm2)`, and in a container
/// it is the command `pm2-runtime`.
fn is_pm2(pid: Pid) -> bool {
    let calls_itself = sys::program_name(pid).is_some_and(|name| name.starts_with("PM2 v"));
    let is_started_as = || {
        let arguments = sys::command_line(pid).unwrap_or_default();
        arguments.iter().any(|word| word.ends_with("pm2-runtime") || word.ends_with("pm2-docker"))
    };
    calls_itself || is_started_as()
}

/// Whether pm2 ends all that a process has started with it: it says so to each of them.
fn signals_tree() -> bool {
    environment::text("treekill").is_none_or(|word| word != "false")
}

/// Whether this process was started by somebody who is known to start it again, and to stop it.
pub(super) fn is_supervised() -> bool {
    const BY_NAME: [&str; 3] = ["runsv", "supervise", "supervisord"];
    let Ok(parent) = details::own_parent() else { return false };
    let is_named = || sys::program_name(parent).is_some_and(|name| BY_NAME.contains(&&*name));
    Supervisor::of_this_process() != Supervisor::None || is_named() || is_pm2(parent)
}
