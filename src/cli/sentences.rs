//! What people are told of each verdict, each end, and each error that no verb can meet, made by
//! the functions that tell it: parts of `tests/fixtures/messages.txt`. Values are made up; what the
//! real program says is there as well.

#[path = "../../tests/golden/mod.rs"]
mod golden;

mod tests {
    use super::golden;
    use crate::cli::advice::Invocation;
    use crate::cli::after_end::Place;
    use crate::cli::{answer::Complaint, history, output, status};
    use crate::status::summary::summary;
    use crate::status::{Incarnation, LastEnd};
    use crate::{
        Error, InstanceId, Kind, Office, ProfileName, Reason, Report, Verdict, environment,
    };

    /// The verdicts that have this reason. One that is missing does not compile.
    fn verdicts(reason: &Reason) -> &'static [Verdict] {
        match reason {
            Reason::AnchorHeld
            | Reason::StartTimeMatches
            | Reason::CommandLineMatches
            | Reason::ChildLives
            | Reason::Reserved
            | Reason::Superseded
            | Reason::CannotSignal
            | Reason::TimedOut
            | Reason::OlderGateway
            | Reason::LegacyHomeInUse
            | Reason::OrphanedAnchor => &[Verdict::Alive],
            Reason::ForeignNamespace | Reason::NotVerifiable => &[Verdict::Unknown],
            Reason::NeverClaimed
            | Reason::AnchorReleased
            | Reason::Rebooted
            | Reason::NoSuchProcess
            | Reason::Zombie
            | Reason::PidReused
            | Reason::IdentityMismatch
            | Reason::LeaseExpired
            | Reason::Released
            | Reason::Exited
            | Reason::Signalled
            | Reason::Crashed
            | Reason::Panicked
            | Reason::OomSuspected
            | Reason::PlannedStop
            | Reason::TakenOver
            | Reason::Evicted
            | Reason::ReExecuted
            | Reason::HandedOver
            | Reason::StoreReplaced
            | Reason::Other(_) => &[Verdict::Dead],
        }
    }

    fn reasons() -> Vec<Reason> {
        let later = Reason::from("of_a_later_version".to_owned());
        Reason::ALL.iter().cloned().chain([later]).collect()
    }

    fn report(reason: &Reason, verdict: Verdict) -> Report {
        let office = Office { profile: ProfileName::default(), kind: Kind::default() };
        let is_alive = verdict == Verdict::Alive;
        let pid = (*reason != Reason::NeverClaimed).then_some(4711);
        // Of a live one it would be told how long ago that was.
        let since_ms = pid.filter(|_| verdict == Verdict::Dead).map(|_| 1_796_000_000_000);
        let report = Report::never_claimed(office);
        Report { running: is_alive, verdict, reason: reason.clone(), pid, since_ms, ..report }
    }

    fn said(report: &Report) -> String {
        status::text(report, &Invocation::default(), &Place::Usual)
    }

    fn of_verdicts() -> String {
        let mut examples = Vec::new();
        for reason in reasons() {
            for verdict in verdicts(&reason) {
                let said = said(&report(&reason, *verdict));
                examples.push((format!("{verdict}, {reason}"), said.trim_end().to_owned()));
            }
        }
        golden::written(&examples)
    }

    /// With each class of codes and signals; those that are told alike stand together.
    fn of_ends() -> String {
        const SOME: &[(Option<i32>, Option<i32>)] =
            &[(None, None), (Some(1), None), (None, Some(9))];
        const ALL: &[(Option<i32>, Option<i32>)] = &[
            (None, None),
            (Some(0), None),
            (Some(1), None),
            (Some(127), None),
            (Some(137), None),
            (None, Some(9)),
            (None, Some(11)),
            (None, Some(15)),
        ];
        let mut examples = Vec::new();
        let is_end = |reason: &Reason| {
            verdicts(reason) == [Verdict::Dead]
                && !matches!(reason, Reason::NeverClaimed | Reason::LeaseExpired)
        };
        for reason in reasons().into_iter().filter(is_end) {
            let mut told: Vec<(String, Vec<String>)> = Vec::new();
            // Where neither a code nor a signal tells how it is to be taken, a few will do.
            let hows = match reason {
                Reason::AnchorReleased | Reason::Exited | Reason::Signalled | Reason::Crashed => {
                    ALL
                }
                _ => SOME,
            };
            for (exit_code, signal) in hows.iter().copied() {
                let how = match (exit_code, signal) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, Some(signal)) => crate::sys::signal_name(signal),
                    (None, None) => "nothing known".to_owned(),
                };
                let text = of_end(&reason, exit_code, signal);
                match told.iter_mut().find(|it| it.0 == text) {
                    Some((_, alike)) => alike.push(how),
                    None => told.push((text, vec![how])),
                }
            }
            let text = told.iter().map(|(text, hows)| format!("{}:\n{text}", hows.join(", ")));
            examples.push((reason.to_string(), text.collect()));
        }
        golden::written(&examples)
    }

    fn of_end(reason: &Reason, exit_code: Option<i32>, signal: Option<i32>) -> String {
        let summary = summary(reason, exit_code, signal);
        let mut report = report(reason, Verdict::Dead);
        report.last_end = Some(LastEnd {
            reason: reason.clone(),
            by: None,
            at_ms: None,
            exit_seen_at_ms: None,
            exit_code,
            signal,
            detail: None,
            summary: summary.clone(),
            memory_bytes: None,
        });
        let incarnation = Incarnation {
            instance: InstanceId(1),
            office: report.office.clone(),
            pid: report.pid,
            started_at_ms: 0,
            ended_at_ms: None,
            exit_seen_at_ms: None,
            end_reason: Some(reason.clone()),
            ended_by: None,
            exit_code,
            signal,
            detail: None,
            summary: Some(summary),
            restarts: None,
            command_since_ms: None,
            memory_bytes: None,
            heartbeat_at_ms: None,
        };
        let said = said(&report);
        let first_two: Vec<&str> = said.lines().take(2).collect();
        let story = history::story(&incarnation, reason);
        format!("  {}\n    history    {story}\n", first_two.join("\n  "))
    }

    /// Of the kinds that the program itself cannot be brought to in a test: `tests/texts.rs` asks
    /// for each kind, here or among the errors of the program.
    fn of_errors() -> String {
        let file = std::path::Path::new("/home/me/.local/state/incumbent/state.db");
        let errors = [
            crate::store::forked(file),
            crate::process::cannot_tell("VALUE".to_owned()),
            Error::lost_owner(Some(4711), file),
            Error::internal("VALUE"),
        ];
        let example = |error: &Error| {
            let said = Complaint::of(error).text(&Invocation::default(), "VERB");
            let code = output::exit_code(error);
            (format!("{}, exit code {code}", error.kind()), said.trim_end().to_owned())
        };
        golden::written(&errors.iter().map(example).collect::<Vec<_>>())
    }

    #[test]
    fn every_sentence_is_the_one_that_is_kept() {
        let update = environment::text(golden::UPDATE).as_deref() == Some("1");
        golden::check(
            update,
            &[
                (golden::ERRORS_OF_PROGRAMS, of_errors()),
                (golden::VERDICTS, of_verdicts()),
                (golden::ENDS, of_ends()),
            ],
        );
    }
}
