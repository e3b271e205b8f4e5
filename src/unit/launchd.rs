//! A property list for launchd.

use crate::path_text::is_unprintable;
use crate::unit::plan::{Unit, UnitFile, text};
use crate::{Error, Result, stop_budget};

pub(super) fn files(unit: &Unit) -> Result<Vec<UnitFile>> {
    let mut arguments = String::new();
    for word in unit.command_line() {
        let word = element(text(&word, "a property list")?)?;
        arguments += &format!("\t\t<string>{word}</string>\n");
    }
    let (label, budget_s) = (element(&unit.name)?, stop_budget::whole_seconds(unit.budget));
    let text = format!(
        "{HEAD}\
         \t<key>Label</key>\n\
         \t<string>{label}</string>\n\
         \t<key>ProgramArguments</key>\n\
         \t<array>\n\
         {arguments}\
         \t</array>\n\
         \t<key>RunAtLoad</key>\n\
         \t<true/>\n\
         {ENDS}\
         \t<!-- The stop budget that the gateway publishes, in seconds. -->\n\
         \t<key>ExitTimeOut</key>\n\
         \t<integer>{budget_s}</integer>\n\
         </dict>\n\
         </plist>\n"
    );
    Ok(vec![UnitFile::of_text(format!("{}.plist", unit.name), text)])
}

/// Within a comment there may be no two dashes in a row, so no name stands there.
const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN"
    "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Put it into ~/Library/LaunchAgents/, then `launchctl bootstrap gui/$(id -u) FILE`. -->
<plist version="1.0">
<dict>
"#;

const ENDS: &str = "\
\t<!-- 0 is a requested end; all others are followed by a start. -->
\t<key>KeepAlive</key>
\t<dict>
\t\t<key>SuccessfulExit</key>
\t\t<false/>
\t</dict>
";

/// What stands in an element: `&`, `<` and `>` as entities, white space and what is not seen as
/// references. XML 1.0 has no way to write the other control characters, nor U+FFFE and U+FFFF.
fn element(text: &str) -> Result<String> {
    let mut element = String::new();
    for c in text.chars() {
        match c {
            '&' => element += "&amp;",
            '<' => element += "&lt;",
            '>' => element += "&gt;",
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                return Err(Error::invalid(format!(
                    "{text:?} has a character that a property list cannot hold ({c:?})"
                ))
                .with_hint("put it into a script, and name the script as the command"));
            }
            c if is_unprintable(c) => element += &format!("&#{};", u32::from(c)),
            c => element.push(c),
        }
    }
    Ok(element)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::exit_code::Supervisor;

    #[test]
    fn a_word_is_an_element() {
        for (word, expected) in [
            ("", ""),
            (" a  b ", " a  b "),
            ("<a href=\"x\">&amp;</a>", "&lt;a href=\"x\"&gt;&amp;amp;&lt;/a&gt;"),
            ("]]>", "]]&gt;"),
            ("a\r\n\tb", "a&#13;&#10;&#9;b"),
            ("$HOME %n", "$HOME %n"),
            ("\u{e4}\u{202e}\u{7f}", "\u{e4}&#8238;&#127;"),
        ] {
            assert_eq!(element(word).unwrap(), expected);
        }
        for word in ["\u{1}", "a\u{1b}[2J", "\u{ffff}"] {
            assert!(element(word).is_err(), "{word:?}");
        }
    }

    #[test]
    fn a_property_list() {
        let unit = Unit::new(Supervisor::Launchd, "com.example--work", ["/opt/gateway", "a & b"])
            .program("/opt/incumbent")
            .stop_budget(Duration::from_millis(33_001));
        let files = unit.files().unwrap();
        assert_eq!((files.len(), files[0].name.as_str()), (1, "com.example--work.plist"));
        let text = str::from_utf8(&files[0].contents).unwrap();
        for part in [
            "<key>Label</key>\n\t<string>com.example--work</string>\n",
            "<string>/opt/incumbent</string>\n\t\t<string>run</string>\n",
            "<string>--</string>\n\t\t<string>/opt/gateway</string>\n",
            "\t\t<string>a &amp; b</string>\n\t</array>\n",
            "<key>SuccessfulExit</key>\n\t\t<false/>\n",
            "<key>ExitTimeOut</key>\n\t<integer>34</integer>\n",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}
