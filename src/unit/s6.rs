//! A service directory for s6: how it is run, and what happens when it has ended.
//!
//! `s6-supervise` starts again whatever ends, unless `finish` exits with 125. Whom it has asked to
//! stop it never kills, unless `timeout-kill` says after how many milliseconds.

use std::ffi::OsStr;

use crate::unit::plan::{PLAIN_MODE, Unit, UnitFile};

const SCRIPT_MODE: u32 = 0o755;

pub(super) fn files(unit: &Unit) -> Vec<UnitFile> {
    let file = |name: &str, mode: u32, contents: Vec<u8>| UnitFile {
        name: format!("{}/{name}", unit.name),
        mode,
        contents,
    };
    vec![
        file("run", SCRIPT_MODE, run(unit)),
        file("finish", SCRIPT_MODE, FINISH.as_bytes().to_vec()),
        file("timeout-kill", PLAIN_MODE, format!("{}\n", unit.budget.as_millis()).into_bytes()),
    ]
}

fn run(unit: &Unit) -> Vec<u8> {
    let mut script = b"#!/bin/sh\nexec".to_vec();
    for word in unit.command_line() {
        script.push(b' ');
        script.extend(in_shell(&word));
    }
    script.push(b'\n');
    script
}

/// `forensics/starts_again.rs` knows it by the line of 125.
const FINISH: &str = "#!/bin/sh
# ./run has ended with the exit code $1 (256: by signal $2).
case $1 in
    # 0: a requested end, or the gateway was done. 78: a mistake in the configuration,
    # which only a person can repair. To s6-supervise 125 means: not again, before `s6-svc -u`.
    0 | 78) exit 125 ;;
esac
# All others are followed by a start, 75 (somebody else holds the office) too, and 143: `s6-svc -r`.
exit 0
";

/// A word as every POSIX shell takes it, byte for byte: `$'...'` is not known to all.
fn in_shell(word: &OsStr) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(byte);
    let bytes = word.as_encoded_bytes();
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return bytes.to_vec();
    }
    let mut quoted = vec![b'\''];
    for byte in bytes {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::exit_code::Supervisor;

    #[test]
    fn a_word_is_quoted_for_any_shell() {
        for (word, expected) in [
            ("/opt/a-1.0", "/opt/a-1.0"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$(x) `y` $z", "'$(x) `y` $z'"),
            ("a\nb\\", "'a\nb\\'"),
            ("~", "'~'"),
            ("*", "'*'"),
        ] {
            assert_eq!(in_shell(OsStr::new(word)), expected.as_bytes());
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_stay_as_they_are() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(in_shell(OsStr::from_bytes(b"a\xff'")), b"'a\xff'\\'''");
    }

    #[test]
    fn a_service_directory() {
        let unit = Unit::new(Supervisor::S6, "work", ["/opt/gateway", "a b"])
            .program("/opt/incumbent")
            .stop_budget(Duration::from_millis(33_001));
        let files = unit.files().unwrap();
        let of = |nth: usize| {
            let UnitFile { name, mode, contents } = &files[nth];
            (name.as_str(), *mode, str::from_utf8(contents).unwrap())
        };
        let run = "#!/bin/sh\nexec /opt/incumbent run --supervisor s6 --exit-code \
                   supervisor_stop=143 --stop-budget 33001ms --respect-desired -- /opt/gateway \
                   'a b'\n";
        assert_eq!(of(0), ("work/run", 0o755, run));
        let (name, mode, finish) = of(1);
        assert_eq!((name, mode), ("work/finish", 0o755));
        assert!(finish.contains("\n    0 | 78) exit 125 ;;\n"), "{finish}");
        assert_eq!(of(2), ("work/timeout-kill", 0o644, "33001\n"));
        assert_eq!(files.len(), 3);
    }
}
