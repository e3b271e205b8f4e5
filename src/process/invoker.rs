//! Who runs this program: what the history says of a person, or of a script, that asked for
//! something.

use crate::process::command_line;
use crate::process::command_line::mask::Raw;
use crate::sys::{details, jobs};
use crate::{environment, sys};

/// A longer command line is cut: it is for recognising a script.
const COMMAND_LENGTH_MAX: usize = 120;

/// Who sudo and doas say that they act for.
const ACT_FOR: [(&str, &str); 2] = [("sudo", "SUDO_USER"), ("doas", "DOAS_USER")];

/// Who runs this process, in words for the history: its parent with that one's command line, the
/// user behind `sudo`, its terminal, its systemd service. What is not known is left out, and what
/// looks like a secret is redacted. For the `by` of a call that a person or a script asks for:
///
/// ```
/// let by = match incumbent::process::invoked_by() {
///     Some(who) => format!("my-tool ({who})"),
///     None => "my-tool".to_owned(),
/// };
/// // my-tool (from pid 77: bash deploy.sh, sudo by alice, on /dev/pts/3)
/// assert!(by.starts_with("my-tool"));
/// ```
///
/// A parent that has ended by now is unknown. It is for people, and no proof: a process can give
/// itself any environment and any command line.
#[must_use]
pub fn invoked_by() -> Option<String> {
    let pid = std::process::id();
    let known: Vec<String> =
        [parent(), privileges(), jobs::terminal().map(|name| format!("on {name}")), service(pid)]
            .into_iter()
            .flatten()
            .collect();
    (!known.is_empty()).then(|| known.join(", "))
}

/// Not pid 1, which adopts orphans, nor a parent outside of our pid namespace.
fn parent() -> Option<String> {
    let pid = details::own_parent().ok().filter(|pid| *pid > 1)?;
    let arguments = sys::command_line(pid).filter(|arguments| !arguments.is_empty());
    let command = arguments
        .map(|arguments| command_line::display(&Raw::new(arguments).redacted(&[])))
        .or_else(|| sys::program_name(pid));
    Some(match command {
        Some(command) => format!("from pid {pid}: {}", cut(&command)),
        None => format!("from pid {pid}"),
    })
}

fn cut(command: &str) -> String {
    if command.len() <= COMMAND_LENGTH_MAX {
        return command.to_owned();
    }
    format!("{}...", &command[..command.floor_char_boundary(COMMAND_LENGTH_MAX)])
}

fn privileges() -> Option<String> {
    ACT_FOR.iter().find_map(|(program, variable)| {
        let user = environment::text(variable)?;
        Some(format!("{program} by {}", cut(&user)))
    })
}

fn service(pid: sys::Pid) -> Option<String> {
    sys::supervision(pid).systemd_service.map(|unit| format!("in {unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_line_is_cut_between_two_characters() {
        assert_eq!(cut("bash deploy.sh"), "bash deploy.sh");
        let long = "\u{e4}".repeat(COMMAND_LENGTH_MAX);
        let shown = cut(&long);
        assert!(shown.len() <= COMMAND_LENGTH_MAX + 3 && shown.ends_with("..."), "{shown}");
    }
}
