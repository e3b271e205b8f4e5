//! `doctor`: what is wrong, and what can be done about it.

use serde_json::{Value, json};

use crate::cli::advice::Invocation;
use crate::cli::args::Global;
use crate::cli::context::by_us;
use crate::cli::output::{Answer, Complaint, Outcome, Style, exit, one_line};
use crate::cli::waiting::with_size;
use crate::cli::{args, output};
use crate::doctor::{Act, Finding, Repair, Severity};
use crate::{Kind, OpenOptions, ProfileName, Result, doctor};

pub(super) fn doctor(global: &Global, arguments: &args::Doctor) -> Outcome {
    let invocation = Invocation::of(global);
    let extent = if arguments.verbose { Extent::Everything } else { Extent::ToDo };
    let examine = || -> Result<Vec<Finding>> {
        let profile = global.profile.clone().map(ProfileName::new).transpose()?;
        let kind = global.kind.clone().map(Kind::new).transpose()?;
        let mut findings = doctor::examine_only(&global.options(), profile.as_ref(), kind.as_ref());
        for finding in &mut findings {
            finding.remedy = finding.remedy.take().map(|remedy| invocation.complete(&remedy));
        }
        Ok(findings)
    };
    let size = with_size(&global.options());
    let looking = || global.doing("doctor", format!("looking at {size}"), None);
    let progress = looking();
    let before = examine()?;
    drop(progress);
    let acts = match (arguments.fix, arguments.dry_run) {
        (false, _) => {
            let (code, complaint) = outcome(&[], &before);
            let answer = Answer::new(code, text(&[], &before, extent), found(&before));
            return Ok(answer.complaining(complaint));
        }
        (true, true) => doctor::repair(&global.options(), &by_us("doctor"), Repair::DryRun),
        (true, false) => {
            let _progress = global.doing("doctor", format!("repairing {size}"), None);
            fix(&global.options())
        }
    };
    let progress = looking();
    let after = examine()?;
    drop(progress);
    let (code, complaint) = outcome(&acts, &after);
    let document = repaired(&before, &acts, &after);
    Ok(Answer::new(code, text(&acts, &after, extent), document).complaining(complaint))
}

/// Repairs; before a store is moved aside, whoever still works with it is named.
fn fix(options: &OpenOptions) -> Vec<Act> {
    let by = by_us("doctor");
    for act in doctor::repair(options, &by, Repair::DryRun) {
        if ["open", "schema", "integrity"].contains(&act.check) {
            output::tell(&format!("incumbent: doctor: about to {}\n", one_line(&act.act)));
        }
    }
    doctor::repair(options, &by, Repair::Do)
}

/// What could not be repaired is a problem, whatever is found afterwards: an information may have
/// been the reason to try. And where this process ran short of something, nothing was found out.
fn outcome(acts: &[Act], findings: &[Finding]) -> (i32, Option<Complaint>) {
    let is_problem = findings.iter().any(|finding| finding.severity.is_problem());
    let has_failed = acts.iter().any(|act| matches!(act.outcome, doctor::Outcome::Failed(_)));
    match findings.iter().find(|finding| finding.ran_short) {
        Some(short) if !is_problem => {
            let complaint =
                Complaint::new(format!("not everything could be checked: {}", short.evidence));
            let complaint = match &short.remedy {
                Some(remedy) => complaint.advising(remedy),
                None => complaint,
            };
            (exit::NOT_NOW, Some(complaint))
        }
        _ => (if is_problem || has_failed { exit::NO } else { exit::OK }, None),
    }
}

fn found(findings: &[Finding]) -> Value {
    json!(findings)
}

/// What was found before, what was done about it, and whether it is left; then what is new since.
fn repaired(before: &[Finding], acts: &[Act], after: &[Finding]) -> Value {
    // What is in order is said with numbers that change all the time.
    let is_same = |one: &Finding, other: &Finding| {
        (one.id, one.severity) == (other.id, other.severity)
            && (one.severity == Severity::Ok || one.evidence == other.evidence)
    };
    let is_in = |finding: &Finding, all: &[Finding]| all.iter().any(|it| is_same(it, finding));
    let with_acts = |finding: &Finding| {
        let about = acts.iter().filter(|act| act.check == finding.id);
        let about: Vec<&Act> = about.collect();
        let told: Vec<String> = about.iter().map(ToString::to_string).collect();
        let mut document = json!(finding);
        document["act"] = if told.is_empty() { Value::Null } else { json!(told.join("; ")) };
        document["acts"] = json!(about);
        document["left"] = json!(is_in(finding, after));
        document
    };
    let new = after.iter().filter(|finding| !is_in(finding, before));
    before.iter().chain(new).map(with_acts).collect()
}

/// How much a person is told. A document has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// What has to be done, and what could not be looked at.
    ToDo,
    Everything,
}

fn text(acts: &[Act], findings: &[Finding], extent: Extent) -> String {
    let style = Style::of_stdout();
    let mut text = String::new();
    for act in acts {
        text += &format!("{}: {}\n", act.check, one_line(&act.to_string()));
    }
    let mut shown: Vec<&Finding> =
        findings.iter().filter(|finding| finding.severity > Severity::Info).collect();
    shown.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    // Of a damaged store many things cannot be looked at, all for one reason.
    for alike in shown.chunk_by(|a, b| a.severity == b.severity && a.evidence == b.evidence) {
        let finding = alike[0];
        let ids: Vec<&str> = alike.iter().map(|finding| finding.id).collect();
        let severity = match finding.severity {
            Severity::Error => style.bad(finding.severity.as_str()),
            _ => style.doubtful(finding.severity.as_str()),
        };
        text += &format!("{severity} {}: {}\n", ids.join(", "), one_line(&finding.evidence));
        text += &try_line(finding);
    }
    if extent == Extent::Everything {
        text += &needs_nothing(findings);
    }
    text += &summary(findings);
    text.push('\n');
    text
}

fn try_line(finding: &Finding) -> String {
    let remedy = finding.remedy.as_deref();
    remedy.map_or_else(String::new, |remedy| format!("  try:   {}\n", one_line(remedy)))
}

/// What is worth knowing, and what is in order.
fn needs_nothing(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Info) {
        text += &format!("info {}: {}\n", finding.id, one_line(&finding.evidence));
        text += &try_line(finding);
    }
    let ok: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Ok)
        .map(|finding| finding.id)
        .collect();
    text + &Style::of_stdout().faint(&format!("ok: {}", ok.join(", "))) + "\n"
}

/// `2 problems: 1 error, 1 warning`.
fn summary(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
    let counted = |count: usize, word: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {word}{plural}")
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let unknown = match count(Severity::Unknown) {
        0 => String::new(),
        unknown => format!("; {} could not be checked", counted(unknown, "thing")),
    };
    if errors + warnings == 0 {
        return format!("no problems{unknown}");
    }
    let kinds: Vec<String> = [(errors, "error"), (warnings, "warning")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| counted(count, word))
        .collect();
    format!("{}: {}{unknown}", counted(errors + warnings, "problem"), kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symptom: `doctor --fix` could not do what it had set out to, and said so with exit code 0.
    #[test]
    fn what_could_not_be_repaired_is_a_problem() {
        let finding = |severity| Finding {
            id: "orphan_anchors",
            severity,
            evidence: String::new(),
            remedy: None,
            ran_short: false,
        };
        let act = |outcome| Act::new("orphan_anchors", String::new(), outcome);
        let failed = || doctor::Outcome::Failed("the store is busy".to_owned());
        for (severity, outcomes, expected) in [
            (Severity::Ok, vec![], 0),
            (Severity::Info, vec![doctor::Outcome::Done], 0),
            (Severity::Info, vec![doctor::Outcome::Would], 0),
            (Severity::Error, vec![doctor::Outcome::Done], 1),
            (Severity::Ok, vec![failed()], 1),
            (Severity::Info, vec![doctor::Outcome::Done, failed()], 1),
            (Severity::Unknown, vec![failed()], 1),
        ] {
            let acts: Vec<Act> = outcomes.into_iter().map(act).collect();
            assert_eq!(outcome(&acts, &[finding(severity)]).0, expected, "{severity} {acts:?}");
        }
        let short = Finding { ran_short: true, ..finding(Severity::Unknown) };
        assert_eq!(outcome(&[], &[finding(Severity::Info), short.clone()]).0, 75);
        assert_eq!(outcome(&[act(failed())], std::slice::from_ref(&short)).0, 75);
        assert_eq!(outcome(&[], &[finding(Severity::Warning), short]).0, 1);
    }

    #[test]
    fn the_last_line() {
        use crate::doctor::Severity::Error;
        use crate::doctor::Severity::Info;
        use crate::doctor::Severity::Ok;
        use crate::doctor::Severity::Unknown;
        use crate::doctor::Severity::Warning;
        let findings = |severities: &[Severity]| -> Vec<Finding> {
            let finding = |severity: &Severity| Finding {
                id: "x",
                severity: *severity,
                evidence: String::new(),
                remedy: None,
                ran_short: false,
            };
            severities.iter().map(finding).collect()
        };
        for (severities, expected) in [
            (&[Ok, Info][..], "no problems"),
            (&[Error][..], "1 problem: 1 error"),
            (&[Error, Warning][..], "2 problems: 1 error, 1 warning"),
            (&[Warning, Warning, Ok][..], "2 problems: 2 warnings"),
            (&[Unknown][..], "no problems; 1 thing could not be checked"),
            (&[Unknown, Unknown, Error][..], "1 problem: 1 error; 2 things could not be checked"),
        ] {
            assert_eq!(summary(&findings(severities)), expected);
        }
    }
}
