//! Who runs this program: what the history says of a person, or of a script, that asked for
//! something.

use std::path::Path;

use crate::process::launchers::launches;
use crate::sys::{details, jobs};
use crate::{environment, sys};

/// What is longer is cut: it is for recognising a script.
const COMMAND_LENGTH_MAX: usize = 120;

/// Who sudo and doas say that they act for.
const ACT_FOR: [(&str, &str); 2] = [("sudo", "SUDO_USER"), ("doas", "DOAS_USER")];

/// Who runs this process, in words for the history: its parent (not `sudo`, `timeout` and the like,
/// but who started those) with the program and the script of that, the user behind `sudo`, its
/// terminal, its systemd service. What is not known is left out. No argument is shown: one may be a
/// secret. For the `by` of a call that a person or a script asks for:
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

/// Not pid 1, which adopts orphans, nor a parent outside of our pid namespace. Behind launchers
/// (`timeout`, `sudo`) it is whoever started the first of them.
fn parent() -> Option<String> {
    /// More than anybody puts before one command.
    const LAUNCHERS_MAX: usize = 16;
    let parent = details::own_parent().ok().filter(|pid| *pid > 1)?;
    let above = std::iter::successors(Some(parent), |pid| sys::process_facts(*pid).parent);
    let mut above = above.take_while(|pid| *pid > 1).take(LAUNCHERS_MAX);
    let pid = above.find(|pid| !launches(*pid)).unwrap_or(parent);
    let is_file = |word: &str| Path::new(word).is_file();
    let told = sys::command_line(pid).and_then(|arguments| told(&arguments, is_file));
    Some(match told.or_else(|| sys::program_name(pid)) {
        Some(told) => format!("from pid {pid}: {}", cut(&told)),
        None => format!("from pid {pid}"),
    })
}

/// A program and its script. Nothing else of a command line: whoever calls us may have the identity
/// of a lock in it, in whatever quotes.
fn told(arguments: &[String], is_file: impl Fn(&str) -> bool) -> Option<String> {
    let (program, rest) = arguments.split_first()?;
    if program.is_empty() || program.contains(char::is_whitespace) {
        return None;
    }
    let script = rest.iter().find(|word| !word.starts_with('-')).filter(|word| is_file(word));
    let is_all = arguments.len() == 1 + usize::from(script.is_some());
    let words = [Some(program.as_str()), script.map(String::as_str), (!is_all).then_some("...")];
    Some(words.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

fn cut(text: &str) -> String {
    if text.len() <= COMMAND_LENGTH_MAX {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(COMMAND_LENGTH_MAX)])
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
    fn of_a_command_line_the_script_is_told_and_no_argument() {
        let is_file = |word: &str| word == "deploy.sh";
        for (line, expected) in [
            (&["bash", "deploy.sh"][..], Some("bash deploy.sh")),
            (&["bash", "-eu", "deploy.sh", "secret"], Some("bash deploy.sh ...")),
            (&["sh", "-c", "incumbent unlock account secret"], Some("sh ...")),
            (&["tool", "secret", "deploy.sh"], Some("tool ...")),
            (&["-bash"], Some("-bash")),
            (&["sshd: alice@pts/3"], None),
            (&[""], None),
            (&[], None),
        ] {
            let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(told(&line, is_file).as_deref(), expected, "{line:?}");
        }
    }

    #[test]
    fn a_long_command_line_is_cut_between_two_characters() {
        assert_eq!(cut("bash deploy.sh"), "bash deploy.sh");
        let long = "\u{e4}".repeat(COMMAND_LENGTH_MAX);
        let shown = cut(&long);
        assert!(shown.len() <= COMMAND_LENGTH_MAX + 3 && shown.ends_with("..."), "{shown}");
    }
}
