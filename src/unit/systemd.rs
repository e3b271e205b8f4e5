//! A service for systemd, and the sockets that it is handed.
//!
//! The grammar of a command line is that of systemd.service(5), "Command lines": words are quoted
//! as in C, `%` begins a specifier and `$` a variable in any of them, quoted or not, and a `;` that
//! stands alone and unquoted ends the command.

use std::time::Duration;

use crate::office::storm;
use crate::path_text::is_unprintable;
use crate::unit::plan::{Unit, UnitFile, text};
use crate::{Error, Result, stop_budget};

/// How long a start may take without the backoff before it: systemd's own default.
const START_WITHIN: Duration = Duration::from_secs(90);

pub(super) fn files(unit: &Unit) -> Result<Vec<UnitFile>> {
    let mut files = vec![service(unit)?];
    if !unit.sockets.is_empty() {
        files.push(socket(unit)?);
    }
    Ok(files)
}

fn service(unit: &Unit) -> Result<UnitFile> {
    let name = &unit.name;
    let has_sockets = !unit.sockets.is_empty();
    let mut text = format!(
        "# {name}.service: put it into ~/.config/systemd/user/, then\n\
         #   systemctl --user daemon-reload && systemctl --user enable --now {name}.service\n\
         # or, with User= below, into /etc/systemd/system/ (and without --user).\n\
         \n\
         [Unit]\n\
         Description=Gateway {name} (incumbent)\n"
    );
    if has_sockets {
        text += &format!("Requires={name}.socket\nAfter={name}.socket\n");
    }
    text += PACED;
    text += if unit.says_ready { READY } else { "Type=simple\n" };
    if unit.says_ready {
        let backoff = Duration::from_millis(storm::BACKOFF_MAX_MS.unsigned_abs());
        text += &format!("TimeoutStartSec={}s\n", (backoff + START_WITHIN).as_secs());
    }
    text += &format!("ExecStart={}\n", command_line(unit)?);
    text += ENDS;
    if unit.is_executed() {
        text += EXECUTED_ENDS;
    }
    text += &format!(
        "# The stop budget that the gateway publishes (see `incumbent forensics systemd`).\n{}\n",
        stop_budget::unit_line(unit.budget)
    );
    text += if unit.is_executed() { EXECUTED_KILL } else { KILL };
    text += "\n[Install]\nWantedBy=default.target\n";
    if has_sockets {
        text += &format!("Also={name}.socket\n");
    }
    Ok(UnitFile::of_text(format!("{name}.service"), text))
}

const PACED: &str = "\
# After starts that failed `incumbent run` waits before the next one (5 s, then twice as long, up
# to 5 min): systemd does not have to give up.
StartLimitIntervalSec=0

[Service]
";

const READY: &str = "\
# The gateway says READY=1 itself: `run --exec` becomes the gateway. A start may come after the
# longest backoff, hence the time.
Type=notify
NotifyAccess=main
";

const ENDS: &str = "\
# 0 is a requested end. All others are followed by a start, 75 (somebody else holds
# the office) too, but not 78: that is a mistake which only a person can repair.
Restart=on-failure
RestartSec=1s
RestartPreventExitStatus=78
";

/// systemd counts a death by SIGTERM as clean, but not the code of a shell or of Java for it.
const EXECUTED_ENDS: &str = "\
# What many programs end with after SIGTERM: a stop has not failed. Add the code of yours.
SuccessExitStatus=143
";

const KILL: &str = "\
# SIGTERM for `incumbent run` alone, which passes it on once. What is left at the end is killed.
KillMode=mixed
";

/// With `mixed` the keepers would be killed as soon as the gateway has ended, before they have
/// recorded its end. They do not hold up a stop.
const EXECUTED_KILL: &str = "\
# Each process gets SIGTERM once. Not `mixed`: how the gateway ended is recorded after its end.
KillMode=control-group
";

fn socket(unit: &Unit) -> Result<UnitFile> {
    let name = &unit.name;
    let mut text = format!(
        "# {name}.socket: what {name}.service is handed (sd_listen_fds(3)).\n\
         \n\
         [Unit]\n\
         Description=Sockets of {name} (incumbent)\n\
         \n\
         [Socket]\n"
    );
    for address in &unit.sockets {
        text += &format!("ListenStream={}\n", listen_address(address)?);
    }
    text += "\n[Install]\nWantedBy=sockets.target\n";
    Ok(UnitFile::of_text(format!("{name}.socket"), text))
}

/// It is not unquoted; a backslash at its end would join the next line to it.
fn listen_address(address: &str) -> Result<String> {
    let is_taken = |c: char| c.is_ascii_graphic() && c != '\\';
    if address.is_empty() || !address.chars().all(is_taken) {
        return Err(Error::invalid(format!("{address:?} is not the address of a socket"))
            .with_hint("name a port, an address with one (`127.0.0.1:8080`), or a path"));
    }
    Ok(address.replace('%', "%%"))
}

fn command_line(unit: &Unit) -> Result<String> {
    let mut line = String::new();
    for (nth, argument) in unit.command_line().iter().enumerate() {
        let argument = text(argument, "a systemd unit")?;
        if nth == 0 {
            line += &program(argument)?;
        } else {
            line.push(' ');
            line += &word(argument);
        }
    }
    Ok(line)
}

/// The program: no variable is put into it, and systemd refuses quotes, backslashes and control
/// characters. A name would have to begin with none of the characters that mean something there.
fn program(path: &str) -> Result<String> {
    let is_name = !path.contains('/') && path.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_refused = |c: char| c.is_control() || "\"'\\".contains(c);
    if !(path.starts_with('/') || is_name) || path.contains(is_refused) {
        return Err(Error::invalid(format!("systemd does not start {path:?}")).with_hint(
            "give the absolute path of the program, without quotes and backslashes in it",
        ));
    }
    let path = path.replace('%', "%%");
    Ok(if is_plain(&path.replace('%', "")) { path } else { format!("\"{path}\"") })
}

/// One argument.
fn word(argument: &str) -> String {
    if is_plain(argument) {
        return argument.to_owned();
    }
    let mut word = String::from("\"");
    for c in argument.chars() {
        match c {
            '"' | '\\' => word.extend(['\\', c]),
            // Also within quotes.
            '%' | '$' => word.extend([c, c]),
            '\n' => word += "\\n",
            '\t' => word += "\\t",
            c if is_unprintable(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    word += &format!("\\x{byte:02x}");
                }
            }
            c => word.push(c),
        }
    }
    word.push('"');
    word
}

fn is_plain(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@,=".contains(&byte);
    !word.is_empty() && word.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::exit_code::Supervisor;

    #[test]
    fn a_word_is_quoted_for_systemd() {
        for (argument, expected) in [
            ("plain-1.0/@a:b,c=d+", "plain-1.0/@a:b,c=d+"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("100%", r#""100%%""#),
            ("$HOME ${HOME} $$", r#""$$HOME $${HOME} $$$$""#),
            (r#"a"b\c'd"#, r#""a\"b\\c'd""#),
            ("a\nb\tc\rd\u{7f}", r#""a\nb\tc\x0dd\x7f""#),
            (";", r#"";""#),
            ("#x", r##""#x""##),
            ("\\", r#""\\""#),
            ("\u{e4}\u{202e}\u{85}", "\"\u{e4}\\xe2\\x80\\xae\\xc2\\x85\""),
        ] {
            assert_eq!(word(argument), expected);
        }
    }

    #[test]
    fn the_program_is_named_as_systemd_takes_it() {
        for (path, expected) in [
            ("/usr/bin/incumbent", "/usr/bin/incumbent"),
            ("incumbent", "incumbent"),
            ("/opt/a b/incumbent", "\"/opt/a b/incumbent\""),
            ("/opt/100%/incumbent", "/opt/100%%/incumbent"),
            ("/opt/a$b/incumbent", "\"/opt/a$b/incumbent\""),
        ] {
            assert_eq!(program(path).unwrap(), expected);
        }
        for path in ["", "./incumbent", "-incumbent", "@x", "/a\"b", "/a'b", "/a\\b", "/a\nb"] {
            assert!(program(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn an_address_is_one_line() {
        for (address, expected) in [
            ("8080", "8080"),
            ("[::1]:80", "[::1]:80"),
            ("@name", "@name"),
            ("/run/100%.sock", "/run/100%%.sock"),
        ] {
            assert_eq!(listen_address(address).unwrap(), expected);
        }
        for address in ["", " 80", "80\n[Service]", "/a\\", "/\u{e4}"] {
            assert!(listen_address(address).is_err(), "{address:?}");
        }
    }

    fn lines(unit: &Unit) -> Vec<String> {
        let files = unit.files().unwrap();
        let text = String::from_utf8(files[0].contents.clone()).unwrap();
        let is_setting = |line: &&str| line.contains('=') && !line.starts_with('#');
        text.lines().filter(is_setting).map(str::to_owned).collect()
    }

    /// FIELD-BUGS rows 46, 85 and 115: the whole of what systemd is told.
    #[test]
    fn a_service_that_is_wrapped() {
        let unit = Unit::new(Supervisor::Systemd, "work", ["/opt/gateway", "--serve"]);
        assert_eq!(
            lines(&unit),
            [
                "Description=Gateway work (incumbent)",
                "StartLimitIntervalSec=0",
                "Type=simple",
                "ExecStart=incumbent run --supervisor systemd --stop-budget 90s --respect-desired \
                 -- /opt/gateway --serve",
                "Restart=on-failure",
                "RestartSec=1s",
                "RestartPreventExitStatus=78",
                "TimeoutStopSec=90s",
                "KillMode=mixed",
                "WantedBy=default.target",
            ]
        );
    }

    /// FIELD-BUGS rows 113 and 114: whoever says READY, or is handed sockets, is started without a
    /// wrapper.
    #[test]
    fn a_service_that_is_executed() {
        let unit = Unit::new(Supervisor::Systemd, "work", ["/opt/gateway"])
            .stop_budget(Duration::from_millis(33_001))
            .says_ready()
            .socket("127.0.0.1:8080")
            .socket("/run/work.sock");
        assert_eq!(
            lines(&unit),
            [
                "Description=Gateway work (incumbent)",
                "Requires=work.socket",
                "After=work.socket",
                "StartLimitIntervalSec=0",
                "Type=notify",
                "NotifyAccess=main",
                "TimeoutStartSec=390s",
                "ExecStart=incumbent run --exec --stop-budget 33001ms --respect-desired -- \
                 /opt/gateway",
                "Restart=on-failure",
                "RestartSec=1s",
                "RestartPreventExitStatus=78",
                "SuccessExitStatus=143",
                "TimeoutStopSec=34s",
                "KillMode=control-group",
                "WantedBy=default.target",
                "Also=work.socket",
            ]
        );
        let files = unit.files().unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(files[1].name, "work.socket");
        let text = str::from_utf8(&files[1].contents).unwrap();
        let listens = "[Socket]\nListenStream=127.0.0.1:8080\nListenStream=/run/work.sock\n";
        assert!(text.contains(listens), "{text}");
    }

    /// One word that systemd cannot hold, and it would be another command.
    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let word = std::ffi::OsString::from_vec(b"a\xff".to_vec());
        let unit = Unit::new(Supervisor::Systemd, "work", ["/opt/gateway".into(), word]);
        let error = unit.files().unwrap_err();
        assert!(error.to_string().contains("not UTF-8"), "{error}");
    }
}
