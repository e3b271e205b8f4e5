//! The end of a Dockerfile: what starts in the container, and what whoever starts that has to say.
//!
//! An entrypoint in the form of a JSON array is executed as it is: no shell, no variables. How long
//! a stop may take and what is started again are no part of an image.

use crate::Result;
use crate::path_text::is_unprintable;
use crate::stop_budget;
use crate::unit::plan::{Unit, UnitFile, text};

pub(super) fn files(unit: &Unit) -> Result<Vec<UnitFile>> {
    let mut words = Vec::new();
    for word in unit.command_line() {
        words.push(json(text(&word, "a Dockerfile")?));
    }
    let (words, budget_s) = (words.join(", "), stop_budget::whole_seconds(unit.budget));
    let text = format!(
        "# The end of a Dockerfile; the image has both programs on its path. incumbent passes\n\
         # signals on and collects orphans: there is no need for an init before it.\n\
         STOPSIGNAL SIGTERM\n\
         ENTRYPOINT [{words}]\n\
         \n\
         # The command that starts the container says how long a stop may take, and what is\n\
         # started again:\n\
         # 0 is a requested end, all others are not.\n\
         #   docker run --stop-timeout {budget_s} --restart on-failure ...\n\
         #   compose:    stop_grace_period: {budget_s}s, restart: on-failure\n\
         #   Kubernetes: terminationGracePeriodSeconds: {budget_s}\n\
         # The store belongs on a volume (INCUMBENT_DB names its file): there it outlives the\n\
         # container, and containers that share it see each other.\n"
    );
    Ok(vec![UnitFile::of_text("Dockerfile".to_owned(), text)])
}

/// A string that shows what is in it.
fn json(word: &str) -> String {
    let quoted = serde_json::Value::from(word).to_string();
    let mut shown = String::new();
    for c in quoted.chars() {
        if is_unprintable(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown += &format!("\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::exit_code::Supervisor;

    #[test]
    fn a_word_is_a_string_of_json() {
        for (word, expected) in [
            ("", r#""""#),
            ("$HOME 'a' \\", r#""$HOME 'a' \\""#),
            ("a\"b\nc\u{1}", r#""a\"b\nc\u0001""#),
            ("\u{e4}\u{7f}\u{202e}", "\"\u{e4}\\u007f\\u202e\""),
        ] {
            assert_eq!(json(word), expected);
            assert_eq!(serde_json::from_str::<String>(&json(word)).unwrap(), word);
        }
    }

    #[test]
    fn the_end_of_a_dockerfile() {
        let unit = Unit::new(Supervisor::Docker, "work", ["gateway", "a b"])
            .stop_budget(Duration::from_millis(33_001));
        let files = unit.files().unwrap();
        assert_eq!((files.len(), files[0].name.as_str()), (1, "Dockerfile"));
        let text = str::from_utf8(&files[0].contents).unwrap();
        for line in [
            "STOPSIGNAL SIGTERM",
            "ENTRYPOINT [\"incumbent\", \"run\", \"--supervisor\", \"docker\", \"--stop-budget\", \
             \"33001ms\", \"--respect-desired\", \"--\", \"gateway\", \"a b\"]",
            "#   docker run --stop-timeout 34 --restart on-failure ...",
            "#   compose:    stop_grace_period: 34s, restart: on-failure",
            "#   Kubernetes: terminationGracePeriodSeconds: 34",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in {text}");
        }
        let begins = ["#", "STOPSIGNAL ", "ENTRYPOINT "];
        let is_known = |line: &str| begins.iter().any(|it| line.starts_with(it));
        assert!(text.lines().all(|line| line.is_empty() || is_known(line)), "{text}");
    }
}
