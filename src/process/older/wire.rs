//! What stands in the files of the older program: bytes in, values out.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::process::older::KIND;
use crate::process::subject;
use crate::sys;
use crate::sys::{Existence, StartTime, StartTimeUnit};

/// Its files have some hundred bytes; whatever is longer than this is none of them.
const LENGTH_MAX: u64 = 1 << 20;

/// One of these has to stand in a command line, for the older program to take it for its own. It
/// looks into the command line of the process as well, and there knows one form more. Later
/// versions (July 2026) work on words, want the verb `run`, and believe the live command line
/// first.
const FORMS: [&str; 4] =
    ["hermes_cli.main gateway", "hermes_cli/main.py gateway", "hermes gateway", "gateway/run.py"];

/// What is put in front of a command line that has none of them.
const FORM: [&str; 3] = ["hermes", "gateway", "run"];

/// What every version knows in the command line of a process: its own program for nothing but that,
/// and, for programs of ours that read a command line, the verb.
const PROGRAM: [&str; 2] = ["hermes-gateway", "run"];

/// A process as `gateway.pid` and `gateway.lock` name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PidRecord {
    pub(crate) pid: sys::Pid,
    /// In ticks, as `/proc/<pid>/stat` shows it; never known elsewhere than on Linux.
    pub(crate) start_time: Option<i64>,
    pub(crate) argv: Vec<String>,
    /// Where a `run` of ours that wrote it is on record; the older program has no such thing, and
    /// passes over it.
    pub(crate) owner: Option<HoldingRun>,
}

/// A `run` of ours, for programs of ours that look into another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HoldingRun {
    /// The id of its store.
    pub(crate) store: String,
    /// The path of that.
    pub(crate) db: String,
    pub(crate) profile: String,
}

impl HoldingRun {
    const KEY: &str = "incumbent";

    fn of(object: &Map<String, Value>) -> Option<Self> {
        let own = object.get(Self::KEY)?;
        let text = |key: &str| own.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self { store: text("store")?, db: text("db")?, profile: text("profile")? })
    }

    fn to_json(&self) -> Value {
        json!({"store": self.store, "db": self.db, "profile": self.profile})
    }
}

/// Why a file says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    Missing,
    /// What is wrong with its contents.
    Corrupt(String),
    /// It could not be read.
    Unreadable(String),
}

/// The whole of a file, unless that is absurd. No symbolic link is followed, and no FIFO waited
/// for.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    let opened = sys::open_anchor_file(path).and_then(|file| read_open(&file));
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Missing,
        io::ErrorKind::FileTooLarge => Unusable::Corrupt(error.to_string()),
        _ => Unusable::Unreadable(error.to_string()),
    })
}

fn read_open(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LENGTH_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LENGTH_MAX {
        let why = format!("more than {LENGTH_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// The JSON in a file, with or without a byte order mark.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Unusable> {
    let corrupt = |why: &str| Unusable::Corrupt(why.to_owned());
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = str::from_utf8(bytes).map_err(|_| corrupt("it is not UTF-8"))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(corrupt("it is empty"));
    }
    serde_json::from_str(text).map_err(|error| {
        if error.is_eof() { corrupt("its JSON is cut short") } else { corrupt("it is not JSON") }
    })
}

/// The JSON object in a file.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, Unusable> {
    match parse(&read(path)?)? {
        Value::Object(object) => Ok(object),
        _ => Err(Unusable::Corrupt("it is not a JSON object".to_owned())),
    }
}

impl PidRecord {
    /// By a descriptor, from where that stands.
    pub(crate) fn read_open(file: &File) -> Result<Self, Unusable> {
        let bytes = read_open(file).map_err(|error| Unusable::Unreadable(error.to_string()))?;
        Self::parse(&bytes)
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Unusable> {
        Self::parse(&read(path)?)
    }

    /// A JSON object, or a bare number.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Unusable> {
        match parse(bytes)? {
            Value::Object(object) => Self::of(&object),
            number @ Value::Number(_) => Ok(Self {
                pid: pid(Some(&number))?,
                start_time: None,
                argv: Vec::new(),
                owner: None,
            }),
            _ => Err(Unusable::Corrupt("it is neither a JSON object nor a number".to_owned())),
        }
    }

    /// What an object says of its writer. A start time or a command line of another type counts as
    /// none.
    pub(crate) fn of(object: &Map<String, Value>) -> Result<Self, Unusable> {
        let argv = object.get("argv").and_then(Value::as_array);
        let words = argv.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        Ok(Self {
            pid: pid(object.get("pid"))?,
            start_time: start_time(object.get("start_time")),
            argv: words.collect(),
            owner: HoldingRun::of(object),
        })
    }

    pub(crate) fn start_time(&self) -> Option<StartTime> {
        self.start_time.map(|value| StartTime { value, unit: StartTimeUnit::Ticks })
    }

    /// Whether the process that is meant is known to have ended: nothing, or another one, has its
    /// pid.
    pub(crate) fn is_of_the_dead(&self) -> bool {
        let facts = sys::process_facts(self.pid);
        let start_times = self.start_time().zip(facts.start_time);
        facts.existence == Existence::Gone || start_times.is_some_and(|(said, now)| said != now)
    }

    /// The record as the older program writes it.
    pub(crate) fn to_json(&self) -> Value {
        let mut document = json!({
            "pid": self.pid,
            "kind": KIND,
            "argv": self.argv,
            "start_time": self.start_time,
        });
        if let Some(owner) = &self.owner {
            document[HoldingRun::KEY] = owner.to_json();
        }
        document
    }
}

/// A pid that a kernel could have given out, as a number or in digits.
pub(crate) fn pid(value: Option<&Value>) -> Result<sys::Pid, Unusable> {
    let number = match value {
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(digits)) => digits.trim().parse().ok(),
        None | Some(Value::Null) => return Err(Unusable::Corrupt("it names no pid".to_owned())),
        Some(_) => None,
    };
    number
        .and_then(subject::valid_pid)
        .ok_or_else(|| Unusable::Corrupt("its pid is not a valid pid".to_owned()))
}

pub(crate) fn start_time(value: Option<&Value>) -> Option<i64> {
    value.and_then(Value::as_i64).filter(|ticks| *ticks > 0)
}

/// A time as Python's `isoformat` writes it with a zone, in Unix milliseconds. Without a zone it is
/// nobody knows when.
pub(crate) fn time_ms(value: &Value) -> Option<i64> {
    let time = chrono::DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
    Some(time.timestamp_millis())
}

/// As Python's `isoformat` writes a time in UTC.
pub(crate) fn python_time(wall_ms: i64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_millis(wall_ms)?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::Micros, false))
}

/// A command line that the older program, of whatever version, takes for one of its own.
pub(crate) fn recognised(argv: Vec<String>) -> Vec<String> {
    let line = argv.join(" ");
    if FORMS.iter().any(|form| line.contains(form)) && runs_gateway(&argv) {
        return argv;
    }
    FORM.into_iter().map(str::to_owned).chain(argv).collect()
}

/// Whether every version knows the process with this command line for its own.
pub(crate) fn is_known_line(words: &[OsString]) -> bool {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = words.join(" ");
    let mut forms = FORMS.iter().chain(&PROGRAM[..1]);
    forms.any(|form| line.contains(form)) && runs_gateway(&words)
}

/// The words that make a command line one of these. In the directory of a named profile
/// (`<root>/profiles/<name>`) later versions want to see that as well.
pub(crate) fn known_words(home: &Path) -> Vec<OsString> {
    let mut words = PROGRAM.map(OsString::from).to_vec();
    if home.parent().and_then(Path::file_name).is_some_and(|name| name == "profiles") {
        let mut assignment = OsString::from("HERMES_HOME=");
        assignment.push(home);
        words.push(assignment);
    }
    words
}

/// Whether the words are those of a gateway at work, as later versions read them: a program for
/// that alone, or `gateway run` behind one with more verbs. The blanks within words divide them.
fn runs_gateway(words: &[String]) -> bool {
    let line = words.join(" ").replace('\\', "/").to_lowercase();
    let tokens: Vec<&str> =
        line.split_whitespace().map(|it| it.trim_matches(['"', '\''])).collect();
    // A script, whatever stands behind it.
    let is_inline = tokens.first().is_some_and(|program| base_name(program).starts_with("python"))
        && tokens.contains(&"-c");
    if is_inline {
        return false;
    }
    let is_dedicated = |token: &&str| {
        matches!(base_name(token), "hermes-gateway" | "hermes-gateway.exe")
            || *token == "gateway/run.py"
            || token.ends_with("/gateway/run.py")
    };
    if tokens.iter().any(is_dedicated) {
        return true;
    }
    let has_verbs = |token: &&str| {
        matches!(base_name(token), "hermes" | "hermes.exe")
            || token.contains("hermes_cli.main")
            || token.contains("hermes_cli/main.py")
    };
    let mut tokens = tokens.iter().skip_while(|token| !has_verbs(token)).skip(1);
    let mut skips_next = false;
    let mut verbs = tokens.by_ref().filter(|token| {
        let is_value = std::mem::replace(&mut skips_next, matches!(**token, "-p" | "--profile"));
        !is_value && !skips_next && !token.starts_with("--profile=") && !token.starts_with("-p=")
    });
    verbs.find(|token| **token == "gateway").is_some()
        && verbs.next().is_none_or(|verb| *verb == "run")
}

fn base_name(token: &str) -> &str {
    token.rsplit('/').next().unwrap_or(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files_of_every_shape() {
        let good = |bytes: &[u8]| PidRecord::parse(bytes).unwrap();
        let full = br#"{"pid": 42, "kind": "hermes-gateway", "argv": ["a", "b"], "start_time": 7}"#;
        assert_eq!(
            good(full),
            PidRecord {
                pid: 42,
                start_time: Some(7),
                argv: vec!["a".into(), "b".into()],
                owner: None
            }
        );
        for (bytes, pid, start_time) in [
            (&b"42"[..], 42, None),
            (b" 42\n", 42, None),
            (b"\xef\xbb\xbf{\"pid\": \"42\"}", 42, None),
            (br#"{"pid": 42, "start_time": null, "argv": 7}"#, 42, None),
            (br#"{"pid": 42, "start_time": -1}"#, 42, None),
            (br#"{"pid": 42, "start_time": "7"}"#, 42, None),
        ] {
            let expected = PidRecord { pid, start_time, argv: Vec::new(), owner: None };
            assert_eq!(good(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn files_that_say_nothing() {
        for (bytes, why) in [
            (&b""[..], "empty"),
            (b"\xef\xbb\xbf \n", "empty"),
            (b"{\"pid\": 4", "cut short"),
            (b"\x00\xff\xfe", "UTF-8"),
            (b"\x00\x01", "not JSON"),
            (b"[42]", "neither"),
            (b"{}", "no pid"),
            (br#"{"pid": null}"#, "no pid"),
            (br#"{"pid": true}"#, "not a valid pid"),
            (br#"{"pid": -4}"#, "not a valid pid"),
            (b"0", "not a valid pid"),
            (b"4294967297", "not a valid pid"),
            (b"4.2", "not a valid pid"),
        ] {
            match PidRecord::parse(bytes) {
                Err(Unusable::Corrupt(said)) => assert!(said.contains(why), "{said}"),
                other => panic!("{}: {other:?}", String::from_utf8_lossy(bytes)),
            }
        }
    }

    #[test]
    fn what_is_no_file_of_its_own_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.pid");
        assert_eq!(read(&path), Err(Unusable::Missing));
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(read(&path), Err(Unusable::Unreadable(_))));
        let long = directory.path().join("long");
        std::fs::write(&long, vec![b' '; 2 << 20]).unwrap();
        assert!(matches!(read(&long), Err(Unusable::Corrupt(_))));
    }

    #[test]
    fn a_command_line_is_one_that_the_older_program_knows() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for known in [
            "python -m hermes_cli.main gateway run",
            "x/gateway/run.py",
            "hermes gateway",
            "hermes --profile work gateway run",
        ] {
            let is_old_form = FORMS.iter().any(|form| known.contains(form));
            assert!(runs_gateway(&words(known)), "{known}");
            assert_eq!(recognised(words(known)) == words(known), is_old_form, "{known}");
        }
        for other in [
            "my-bot --serve",
            "hermes-gateway",
            "hermes chat",
            "hermes gateway status",
            "python -c x hermes gateway run",
            "hermes -p gateway dashboard",
        ] {
            assert_eq!(recognised(words(other)), words(&format!("hermes gateway run {other}")));
        }
    }

    #[test]
    fn a_run_is_known_by_its_words() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for unknown in ["incumbent run --legacy-home /home/me/.hermes -- my-bot", ""] {
            assert!(!is_known_line(&words(unknown)), "{unknown}");
        }
        for known in [
            "incumbent run --known-as hermes-gateway run -- my-bot",
            "incumbent run --legacy-home /home/me/.hermes -- hermes gateway run",
        ] {
            assert!(is_known_line(&words(known)), "{known}");
        }
        assert_eq!(known_words(Path::new("/home/me/.hermes")), words("hermes-gateway run"));
        assert_eq!(
            known_words(Path::new("/r/profiles/ops")),
            words("hermes-gateway run HERMES_HOME=/r/profiles/ops")
        );
    }
}
