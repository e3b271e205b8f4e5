//! Whether a signal that reached the run has reached its command as well.
//!
//! A program that is asked to end twice may take that for "at once", and drop its work (FIELD-BUGS
//! row 115). So what was sent to both is not passed on: to our process group, which a witness in it
//! sees, to all processes of a systemd service, or to our whole tree by pm2.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::environment;
use crate::forensics::unit_kill::UnitKill;
use crate::process::exit_code::Supervisor;
use crate::process::helper::HelperProgram;
use crate::run::forward::Forward;
use crate::sys::witness::Witness;
use crate::sys::{self, Caught, Pid, SignalOrigin, details, jobs, signals, supervise};

/// How long a signal of systemd waits for what that says of our service: asked at the start, it has
/// answered long before, unless it stops us at once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// See above.
#[derive(Debug)]
pub(super) struct Delivery {
    forward: Forward,
    /// Where our group may be signalled as one.
    witness: Option<Witness>,
    /// How systemd stops our service, as far as it has said so; what it says is still to come.
    unit: Option<UnitKill>,
    asked: Option<Receiver<Option<UnitKill>>>,
}

impl Delivery {
    /// Of a process that has a life of its own beside the run.
    pub(super) fn of_part(forward: Forward) -> Self {
        Self { forward, witness: None, unit: None, asked: None }
    }

    /// Of one that has none. Call it in the thread that stays with the command.
    pub(super) fn of_whole(forward: Forward) -> Self {
        let mut delivery = Self::of_part(forward);
        if forward == Forward::Auto {
            // Without a terminal the command is in a session of its own.
            if supervise::has_terminal() {
                delivery.watch_group();
            }
            delivery.ask_systemd();
        }
        delivery
    }

    fn watch_group(&mut self) {
        let helper = HelperProgram::find().map_err(|error| error.to_string());
        let started = helper
            .and_then(|helper| Witness::start(helper.command()).map_err(|error| error.to_string()));
        match started {
            Ok(witness) => self.witness = Some(witness),
            Err(why) => tracing::debug!(%why, "no witness of the process group"),
        }
    }

    /// Aside, because it may take seconds.
    fn ask_systemd(&mut self) {
        if environment::value("INVOCATION_ID").is_none() {
            return;
        }
        let (tell, asked) = mpsc::channel();
        let ask = move || {
            if Supervisor::of_this_process() == Supervisor::Systemd {
                let _ = tell.send(UnitKill::of_own_unit());
            }
        };
        match std::thread::Builder::new().name("incumbent-unit".into()).spawn(ask) {
            Ok(_) => self.asked = Some(asked),
            Err(error) => tracing::debug!(%error, "systemd was not asked whom it signals"),
        }
    }

    /// How systemd stops our service; as it stops any, where it does not say.
    fn unit(&mut self) -> UnitKill {
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
        self.unit.unwrap_or_default()
    }

    /// Whether `caught` is not to be passed on to the process `command`: it has it.
    pub(super) fn has_reached(&mut self, command: Pid, caught: &Caught) -> bool {
        match self.forward {
            Forward::Always => false,
            Forward::Never => true,
            Forward::Auto => {
                let in_our_group = jobs::shares_our_group(command);
                // In any case, so that the witness is not asked for an old one next time.
                let to_group = self.was_sent_to_group(caught);
                (in_our_group && to_group) || self.was_sent_to_all(command, caught)
            }
        }
    }

    fn was_sent_to_group(&mut self, caught: &Caught) -> bool {
        let sender = match caught.origin {
            SignalOrigin::Process { pid, .. } => Some(pid),
            _ => None,
        };
        if let Some(witness) = &mut self.witness {
            match witness.saw(caught.number, sender) {
                Some(saw) => return saw,
                None => self.witness = None,
            }
        }
        let hung_up = caught.origin == SignalOrigin::Kernel && !jobs::leads_session();
        caught.from_terminal || hung_up
    }

    /// By whoever started us.
    fn was_sent_to_all(&mut self, command: Pid, caught: &Caught) -> bool {
        let SignalOrigin::Process { pid: sender, .. } = caught.origin else { return false };
        if details::own_parent() != Ok(sender) {
            return false;
        }
        match Supervisor::of_this_process() {
            Supervisor::Systemd => {
                self.unit().signals_all(caught.number) && shares_our_unit(command)
            }
            _ => signals::asks_to_end(caught.number) && is_pm2(sender) && signals_tree(),
        }
    }
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
