//! What a `run` is asked to do by markers.
//!
//! A `run` reads its markers where it looks whether it still holds, and ends its command for a
//! marker whose writer waits (`writer_id`, alive). That is how a stop reaches another container,
//! and how a command can stop or replace its own `run`. The signal that comes as well is passed on
//! only if the marker was not seen first, so that the command is asked once. A marker that a person
//! wrote announces a signal and asks for nothing; `restart` always asks.

use crate::clock::Deadline;
use crate::names::MarkerName;
use crate::owner::request::{Request, request_to};
use crate::records::markers::Marker;
use crate::run::notice::Notice;
use crate::run::supervised::{Ending, Supervised, Why};
use crate::sys;

impl Supervised<'_> {
    /// A request to end, or to start anew, reaches us by its marker as well: whoever asks may be in
    /// another container, or a child of our command.
    pub(super) fn look_for_requests(&mut self) {
        let Some(child) = self.child() else { return };
        let request = match request_to(&self.store.inner, self.tenure.instance()) {
            Ok(request) => request,
            Err(error) => return self.doubt(&format!("cannot look for requests: {error}")),
        };
        let known = match &self.ending {
            Some(Ending { why: Why::End(marker) | Why::Restart(marker), .. }) => Some(marker.id),
            Some(_) | None => None,
        };
        if !matches!(request, Some(Request::End(_))) {
            self.forget_request_to_end();
        }
        let kill_at = Deadline::after(self.run.claim.stop_budget);
        match request {
            Some(Request::End(marker)) if known == Some(marker.id) => {}
            Some(Request::End(marker)) => {
                // A stop kills only if a person says so; that one does it itself.
                let is_takeover = marker.name.as_str() == MarkerName::TAKEOVER;
                let kill_at = if is_takeover { kill_at } else { Deadline::never() };
                self.end_command(Why::End(marker), kill_at);
            }
            Some(Request::Restart(marker)) => match &self.ending {
                Some(Ending { why: Why::Restart(_), .. }) => {}
                // Whoever wanted an end has ended, or has given up.
                _ if !self.is_asked_to_end() => {
                    self.tell(&Notice::Restarting {
                        office: self.tenure.office(),
                        pid: child.0.pid,
                        by: &marker.by,
                    });
                    self.end_command(Why::Restart(marker), kill_at);
                }
                _ => {}
            },
            None => {}
        }
    }

    /// Whoever asked for an end has ended, or has given up: it is nobody's wish any more, and the
    /// command is not killed for it. It may still follow; the marker says why until it expires.
    fn forget_request_to_end(&mut self) {
        let is_end = |ending: &mut Ending| matches!(ending.why, Why::End(_));
        if let Some(Ending { why: Why::End(marker), .. }) = self.ending.take_if(is_end)
            && let Some(asked) = &mut self.asked
            && is_by(&marker, asked.signal.sender)
        {
            asked.is_withdrawn = true;
        }
    }
}

/// Whether a signal and a marker are of one request. Whoever cannot be seen from here does not
/// signal us, because it cannot see us either.
pub(super) fn is_by(marker: &Marker, sender: Option<sys::Pid>) -> bool {
    sender.is_some() && sender == marker.by_pid
}
