//! Every verb once in every poor condition that a process can be started in: a table of exit codes,
//! in which nothing may be a panic, a death by a signal or a lie. FIELD-BUGS row 102.
//!
//! A table that is wrong is printed as it was found, ready to be looked at and pasted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::every_verb;
use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, exit_code, is_root, kill, skipped, wait_ended, works,
};

/// A user of this test alone, without an entry in the list of users: how many processes it may have
/// is counted for the whole machine.
const USER: &str = "61234";

/// What the conditions are: a name for the table, the shell that makes it of `exec "$@"`, who made
/// the store, and as whom the verb runs.
struct Condition {
    name: &'static str,
    shell: &'static str,
    owner: User,
    asker: User,
    /// Words before the verb.
    words: &'static [&'static str],
    /// Without `--profile`, so that the environment is asked.
    unnamed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    Us,
    Another,
}

const PLAIN: Condition = Condition {
    name: "plain",
    shell: r#"exec "$@""#,
    owner: User::Us,
    asker: User::Us,
    words: &[],
    unnamed: false,
};

const fn of_ours(name: &'static str, shell: &'static str) -> Condition {
    Condition { name, shell, ..PLAIN }
}

const fn in_json(name: &'static str, shell: &'static str) -> Condition {
    Condition { words: &["--json"], ..of_ours(name, shell) }
}

/// No condition changes the machine: `/dev/full` is a full disk, and descriptor 9 a pipe that
/// nobody reads.
const CONDITIONS: &[Condition] = &[
    PLAIN,
    of_ours("closed", r#"exec "$@" >&-"#),
    of_ours("unread", r#"exec "$@" >&9"#),
    of_ours("full", r#"exec "$@" >/dev/full"#),
    in_json("closed/j", r#"exec "$@" >&-"#),
    in_json("unread/j", r#"exec "$@" >&9"#),
    in_json("full/j", r#"exec "$@" >/dev/full"#),
    in_json("2full/j", r#"exec "$@" 2>/dev/full"#),
    in_json("both/j", r#"exec "$@" >/dev/full 2>/dev/full"#),
    of_ours("2closed", r#"exec "$@" 2>&-"#),
    of_ours("2unread", r#"exec "$@" 2>&9"#),
    of_ours("2full", r#"exec "$@" 2>/dev/full"#),
    of_ours("closed2", r#"exec "$@" >&- 2>&-"#),
    of_ours("full2", r#"exec "$@" >/dev/full 2>/dev/full"#),
    of_ours("0closed", r#"exec "$@" <&-"#),
    of_ours("allclosed", r#"exec "$@" <&- >&- 2>&-"#),
    Condition {
        unnamed: true,
        ..of_ours(
            "garbage",
            r#"for name in DB PROFILE HOME KIND INSTANCE TOKEN PARTY PROGRAM; do
                   export "INCUMBENT_$name=$(printf '/g\033[2J\n%s/' $name)"
               done; exec "$@""#,
        )
    },
    // With a store and a profile that are named, and so without them.
    of_ours(
        "rubbish",
        r#"for name in HOME KIND INSTANCE TOKEN PARTY PROGRAM; do
               export "INCUMBENT_$name=$(printf '/g\033[2J\n%s/' $name)"
           done; exec "$@""#,
    ),
    of_ours("files10", r#"exec 9>&-; ulimit -n 10; exec "$@""#),
    of_ours("size1", r#"ulimit -f 1; exec "$@""#),
    of_ours("nocwd", r#"mkdir gone && cd gone && rmdir ../gone && exec "$@""#),
    of_ours("umask", r#"umask 0777; exec "$@""#),
    Condition {
        owner: User::Another,
        asker: User::Another,
        ..of_ours("nohome", r#"unset HOME; exec "$@""#)
    },
    // Nor an entry in the list of users, nor a store that is named.
    Condition {
        owner: User::Another,
        asker: User::Another,
        ..of_ours("noplace", r#"unset HOME INCUMBENT_DB; exec "$@""#)
    },
    Condition {
        owner: User::Another,
        asker: User::Another,
        ..of_ours("procs1", r#"exec prlimit --nproc=1 -- "$@""#)
    },
    Condition { asker: User::Another, ..of_ours("foreign", r#"exec "$@""#) },
    Condition { owner: User::Another, ..of_ours("asroot", r#"exec "$@""#) },
];

/// The verbs, in the order in which they are tried: `@T` is a process of the owner's, `@U` another
/// one, which has no keeper before, and `@D` a directory that every condition has for itself. Where
/// no `--pid` is given it is about what `INCUMBENT_INSTANCE` names, else about this very test,
/// which is on record nowhere.
const TABLE: &str = "
                                                      | plain closed unread full closed/j unread/j full/j 2full/j both/j 2closed 2unread 2full closed2 full2 0closed allclosed garbage rubbish files10 size1 nocwd umask nohome noplace procs1 foreign asroot
run -- true                                           |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       2      75    70     0     0      0       2     75      78      0
--profile held run -- true                            |    75     75     75   75       75       75     75      75     75      75      75    75      75    75      75        75       2       2      75    75    75    75     75       2     75      78     75
--db @D/new/state.db run -- true                      |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       2      75    70     0     0      0       0     75       0      0
--db @D/new/state.db --profile n run -- @D/none       |   127    127    127  127      127      127    127     127    127     127     127   127     127   127     127       127       2       2      75    70   127   127    127     127     75     127    127
--profile held status                                 |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       2       0      75     0     0     0      0       2      0      78      0
--profile nobody status                               |     3      3      3    3        3        3      3       3      3       3       3     3       3     3       3         3       2       3      75     3     3     3      3       2      3      78      3
--profile held wait --timeout 0                       |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       2       0      75     0     0     0      0       2      0      78      0
--profile nobody wait --timeout 0                     |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       2       1      75     1     1     1      1       2      1      78      1
status --all                                          |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0      75     0     0     0      0       2      0      78      0
status --metrics                                      |     0      0      0   70        2        2      2       2      2       0       0     0       0    70       0         0       0       0      75    70     0     0      0       2      0      78      0
--profile claimed status-set --pid @T --state running |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       2      75    70     0     0      0       2      0      78      0
--profile held status-set --pid @T --state running    |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       2       2      75     1     1     1      1       2      1      78      1
--profile claimed status-set --state running          |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       2       2      75     1     1     1      1       2      1      78      1
--profile new claim --pid @T                          |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       2      75    70     0     0      0       2      0      78      0
--profile held claim --pid @T                         |    75     75     75   75       75       75     75      75     75      75      75    75      75    75      75        75       2       2      75    75    75    75     75       2     75      78     75
--profile fresh claim --pid @U                        |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       2      75    70     0     0      0       2     75      78      0
--profile new release --pid @T                        |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       1      75     1     0     0      0       2      0      78      0
--profile held release --pid @T                       |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       2       1      75     1     1     1      1       2      1      78      1
--profile claimed release                             |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       2       2      75     1     1     1      1       2      1      78      1
--profile held evict                                  |    75     75     75   75       75       75     75      75     75      75      75    75      75    75      75        75       2      75      75    75    75    75     75       2     75      78     75
--profile nobody evict                                |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       0      75     0     0     0      0       2      0      78      0
--profile held restart                                |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       2      75    70     0     0      0       2      0      78      0
--profile nobody restart                              |     3      3      3    3        3        3      3       3      3       3       3     3       3     3       3         3       2       2      75     3     3     3      3       2      3      78      3
--profile nobody restart --all                        |     3      3      3    3        3        3      3       3      3       3       3     3       3     3       3         3       3       3       3     3     3     3      3       2      3      78      3
--profile held signal WINCH                           |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       2      75     0     0     0      0       2      0      78      0
--profile nobody signal HUP                           |     3      3      3    3        3        3      3       3      3       3       3     3       3     3       3         3       2       2       3     3     3     3      3       2      3      78      3
--profile stopping stop                               |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       2      75     0     0     0      0       2      0      78      0
--profile nobody stop                                 |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       2      75     0     0     0      0       2      0      78      0
--profile nobody stop --all                           |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       0       0       0     0     0     0      0       2      0      78      0
desired                                               |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       2       0       0     0     0     0      0       2      0      78      0
desired running                                       |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       0      75    70     0     0      0       2      0      78      0
marker write word --pid @T                            |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       0      75    70     0     0      0       2      0      78      0
marker peek peeked --pid @T                           |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       1       0      75     0     0     0      0       2      0      78      0
marker peek nothing --pid @T                          |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       1       1      75     1     1     1      1       2      1      78      1
marker peek peeked                                    |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       1       2      75     1     1     1      1       2      1      78      1
marker consume consumed --pid @T                      |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       1       0      75     0     0     0      0       2      0      78      0
marker consume nothing --pid @T                       |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       1       1      75     1     1     1      1       2      1      78      1
marker clear cleared --pid @T                         |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       1       0      75    70     0     0      0       2      0      78      0
marker clear nothing --pid @T                         |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       1       1      75     1     1     1      1       2      1      78      1
lock acquire t new --pid @T                           |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       0      75    70     0     0      0       2      0      78      0
lock acquire t own --pid @T --no-keeper               |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       0      75    70     0     0      0       2      0      78      0
lock acquire t fresh --pid @U                         |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       0      75    70     0     0      0       2     75      78      0
lock renew t kept --pid @T                            |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       1       0      75    70     0     0      0       2      0      78      0
lock verify t kept --pid @T                           |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       1       0      75     0     0     0      0       2      0      78      0
lock verify t nothing --pid @T                        |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       1       1      75     1     1     1      1       2      1      78      1
lock verify t kept                                    |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       1       2      75     1     1     1      1       2      1      78      1
lock verify t - --pid @T                              |     2      2      2    2        2        2      2       2      2       2       2     2       2     2       2         2       2       2       2     2     2     2      2       2      2       2      2
lock release t gone --pid @T                          |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       1       0      75    70     0     0      0       2      0      78      0
lock release t nothing --pid @T                       |     1      1      1    1        1        1      1       1      1       1       1     1       1     1       1         1       1       1      75     1     1     1      1       2      1      78      1
locks                                                 |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0      75     0     0     0      0       2      0      78      0
unlock t kept                                         |    75     75     75   75       75       75     75      75     75      75      75    75      75    75      75        75       0      75      75    75    75    75     75       2     75      78     75
unlock --stale                                        |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       0       0      75     0     0     0      0       2      0      78      0
lock release --all --pid @T                           |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       0       0      75    70     0     0      0       2      0      78      0
--profile held history                                |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       2       0      75     0     0     0      0       2      0      78      0
events                                                |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0       0    70     0     0      0       2      0      78      0
unit systemd -- true                                  |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       2       0       0    70     0     0      0       0      0       0      0
forensics snapshot --signal TERM                      |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       2       0       0     0     0     0      0       0      0       0      0
forensics systemd --unit incumbent-it.service         |     4      4      4    4        4        4      4       4      4       4       4     4       4     4       4         4       2       4      75     4     4     4      4       2      4      78      4
forensics diagnose --log @D/log --timeout 1s --pid @T |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       0       0       0     0     0     0      0       0     75       0      0
doctor                                                |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0      75     0     0     0      0       1      0       1      0
doctor --fix --dry-run                                |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0      75     0     0     0      0       1      0       1      0
doctor --fix                                          |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       0       0      75     1     0     0      0       1      0       1      0
import @D/old                                         |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       0      75    70     0     0      0       2      0      78      0
--profile held export @D/exported                     |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       2       0      75     0     0     0      0       2      0      78      0
backup @D/copy.db                                     |     0      0      0    0        0        0      0       0      0       0       0     0       0     0       0         0       2       0      75    70     0     0      0       2      0      78      0
path                                                  |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0       0     0     0     0      0       2      0       0      0
sql SELECT/**/*/**/FROM/**/meta                       |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       2       0      75    70     0     0      0       2      0      78      0
sql SELECT/**/1 --csv                                 |     0      0      0   70        2        2      2       2      2       0       0     0       0    70       0         0       2       0      75     0     0     0      0       2      0      78      0
completions bash                                      |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0       0    70     0     0      0       0      0       0      0
man                                                   |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0       0    70     0     0      0       0      0       0      0
help words                                            |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0       0     0     0     0      0       0      0       0      0
--help                                                |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0       0    70     0     0      0       0      0       0      0
--version                                             |     0      0      0   70        0        0     70       0     70       0       0     0       0    70       0         0       0       0       0     0     0     0      0       0      0       0      0
lock release                                          |     2      2      2    2        2        2      2       2      2       2       2     2       2     2       2         2       2       2       2     2     2     2      2       2      2       2      2
nonsense                                              |     2      2      2    2        2        2      2       2      2       2       2     2       2     2       2         2       2       2       2     2     2     2      2       2      2       2      2
";

#[test]
fn every_verb_in_every_condition() {
    let (header, rows) = table();
    let mut columns = BTreeMap::new();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (next, rows) = (&next, &rows);
        let worker = move || {
            let mut found = Vec::new();
            while let Some(condition) =
                CONDITIONS.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                found.push((condition.name, column(condition, rows)));
            }
            found
        };
        // A few at once: each waits for the disk, too.
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        columns.extend(workers.into_iter().flat_map(|worker| worker.join().unwrap()));
    });
    let mut found = String::new();
    let names: Vec<&str> = CONDITIONS.iter().map(|it| it.name).collect();
    let _ = writeln!(found, "{:54}| {}", "", names.join(" "));
    let mut wrong = Vec::new();
    for (nth, (verb, expected)) in rows.iter().enumerate() {
        let _ = write!(found, "{verb:54}|");
        for name in &names {
            let cell = columns[name].get(nth);
            let shown = cell.map_or_else(|| "-".to_owned(), |cell| cell.code.to_string());
            let _ = write!(found, " {shown:>width$}", width = name.len());
            let Some(cell) = cell else { continue };
            let at = header.iter().position(|it| it == name);
            let wanted = at.and_then(|at| expected.get(at)).map(String::as_str);
            if wanted != Some(shown.as_str()) || cell.is_scandal() {
                let wanted = wanted.unwrap_or("nothing");
                wrong.push(format!("{verb} in {name}: {wanted} expected, {cell:?}"));
            }
        }
        found.push('\n');
    }
    assert!(wrong.is_empty(), "{}\n{found}", wrong.join("\n"));
}

/// A verb that is not in the table was never tried.
#[test]
fn every_verb_is_in_the_table() {
    let sandbox = Sandbox::new();
    let (_, rows) = table();
    let verbs = every_verb(&sandbox);
    let has_verbs_below =
        |verb: &Vec<String>| verbs.iter().any(|it| it.len() > verb.len() && it.starts_with(verb));
    let missing: Vec<&Vec<String>> = verbs
        .iter()
        .filter(|verb| !has_verbs_below(verb))
        .filter(|verb| {
            let is_of_it = |row: &str| {
                let mut words = row.split(' ').peekable();
                // Options that every verb has come first, each with its value.
                while words.next_if(|word| word.starts_with("--")).is_some() {
                    words.next();
                }
                verb.iter().all(|word| words.next() == Some(word))
            };
            !rows.iter().any(|(row, _)| is_of_it(row))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The names of the conditions, and for each verb what it is expected to exit with.
fn table() -> (Vec<String>, Vec<(String, Vec<String>)>) {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let mut rows = TABLE.lines().filter_map(|line| line.rsplit_once('|'));
    let header = rows.next().map(|(_, names)| words(names)).unwrap_or_default();
    (header, rows.map(|(verb, codes)| (verb.trim().to_owned(), words(codes))).collect())
}

#[derive(Debug)]
struct Cell {
    code: i32,
    err: String,
    /// Whether it had a standard error, and nothing else to say it on.
    is_heard: bool,
}

impl Cell {
    /// Whatever the table says of it: a panic, a death by a signal, a failure without a word where
    /// there was somebody to hear it, or words that a terminal would obey.
    fn is_scandal(&self) -> bool {
        let is_mute = matches!(self.code, 2 | 70 | 75 | 78) && self.err.is_empty() && self.is_heard;
        self.code == 101
            || self.code >= 128
            || is_mute
            || self.err.contains("panicked")
            || self.err.contains(|c: char| c.is_control() && c != '\n')
    }
}

/// What each verb exits with in `condition`; nothing where we cannot be that user.
fn column(condition: &Condition, rows: &[(String, Vec<String>)]) -> Vec<Cell> {
    let needs_root = [condition.owner, condition.asker].contains(&User::Another);
    if needs_root && !(is_root() && works(&as_user(User::Another))) {
        skipped(&format!("{}: needs root and setpriv", condition.name));
        return Vec::new();
    }
    let stage = Stage::new(condition);
    rows.iter().map(|(verb, _)| stage.run(condition, verb)).collect()
}

fn as_user(user: User) -> Vec<&'static str> {
    match user {
        User::Us => Vec::new(),
        User::Another => {
            vec!["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--"]
        }
    }
}

/// Where the verbs have something to say.
struct Stage {
    target: Process,
    /// Without a keeper.
    untouched: Process,
    /// Gateways that run.
    _runs: Vec<Run>,
    program: PathBuf,
    /// Last: it ends what is left.
    sandbox: Sandbox,
}

impl Stage {
    fn new(condition: &Condition) -> Self {
        let sandbox = Sandbox::new();
        let words = as_user(condition.owner);
        let is_ours = condition.owner == User::Us && condition.asker == User::Us;
        let program = if is_ours { PathBuf::from(BINARY) } else { program_for_all(&sandbox) };
        if condition.owner == User::Another {
            let id = USER.parse().unwrap();
            for path in [sandbox.path().to_owned(), sandbox.file("home")] {
                std::os::unix::fs::chown(path, Some(id), Some(id)).unwrap();
            }
        } else if condition.asker == User::Another {
            open_to_all(sandbox.path());
        }
        let as_owner = |arguments: &[&str]| {
            let all: Vec<&str> = words.iter().copied().chain(arguments.iter().copied()).collect();
            let mut command = sandbox.program(all[0]);
            command.args(&all[1..]);
            command
        };
        let [target, untouched] = [(); 2].map(|()| Process::start(as_owner(&["cat"])));
        let hold = |profile: &str| {
            let program = program.to_str().unwrap();
            let start = [program, "--profile", profile, "run", "--no-backoff", "--"];
            Run::start(as_owner(&[&start[..], &["/bin/sh", "-c", "echo $$; exec cat"]].concat()))
        };
        let runs = vec![hold("held"), hold("stopping")];
        let prepare = format!(
            "set -e; I={}; T={}; mkdir old; echo '{{\"pid\": 1}}' > old/gateway.pid
            $I --profile claimed claim --pid $T
            for id in kept gone; do $I lock acquire t $id --pid $T; done
            for name in peeked consumed cleared; do $I marker write $name --pid $T --ttl 1h; done",
            program.display(),
            target.pid()
        );
        Process::start(as_owner(&["/bin/sh", "-c", &prepare])).finish(LIMIT).assert_code(0);
        Self { target, untouched, _runs: runs, program, sandbox }
    }

    fn run(&self, condition: &Condition, verb: &str) -> Cell {
        let (reader, unread) = std::io::pipe().unwrap();
        drop(reader);
        let err = self.sandbox.file("err");
        let shell = format!("exec 9>&1 >out; {}", condition.shell);
        let mut words = as_user(condition.asker);
        words.extend(["/bin/sh", "-c", shell.as_str(), "sh", self.program.to_str().unwrap()]);
        let mut command = self.sandbox.within(&words);
        command.args(condition.words);
        let [target, untouched] = [&self.target, &self.untouched].map(|it| it.pid().to_string());
        let directory = self.sandbox.path();
        let mut left = verb.split(' ').peekable();
        while let Some(word) = left.next() {
            if condition.unnamed && word == "--profile" {
                left.next();
                continue;
            }
            let word = word.replace("@T", &target).replace("@U", &untouched);
            command.arg(word.replace("@D", directory.to_str().unwrap()));
        }
        // A pipe that the shell gets as its standard output, and passes on as descriptor 9.
        let mut child = command
            .stdin(Stdio::null())
            .stdout(unread)
            .stderr(std::fs::File::create(&err).unwrap())
            .spawn()
            .unwrap();
        if !wait_ended(child.id(), LIMIT) {
            kill(child.id(), Signal::KILL);
        }
        let code = exit_code(child.wait().unwrap());
        let err = String::from_utf8_lossy(&std::fs::read(&err).unwrap()).into_owned();
        // A document whose place was closed is nowhere to be heard.
        let has_place = condition.words.is_empty() || !condition.shell.contains(">&-");
        let is_heard = has_place && !condition.shell.contains("2>");
        Cell { code, err, is_heard }
    }
}

/// The build directory may be closed to others.
fn program_for_all(sandbox: &Sandbox) -> PathBuf {
    let words = [as_user(User::Another).as_slice(), &[BINARY, "--version"]].concat();
    let started = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).status();
    if started.is_ok_and(|status| status.success()) {
        return PathBuf::from(BINARY);
    }
    sandbox.copy_program("incumbent")
}

fn open_to_all(directory: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory, mode).unwrap();
}

/// Symptom: a store file became descriptor 1 of a process that was started without one, and what it
/// printed went into the store. The runtime opens `/dev/null` in their place before anything else.
#[test]
fn no_file_of_the_store_takes_the_place_of_a_closed_descriptor() {
    let sandbox = Sandbox::new();
    let script = r#"cd "$1"; shift
        for process in run:$PPID command:$$; do
            for fd in 0 1 2; do
                printf '%s %s %s\n' $process $fd "$(readlink /proc/${process#*:}/fd/$fd)" >> seen
            done
        done"#;
    let start = format!(
        "incumbent run -- /bin/sh -c '{}' sh {} <&- >&- 2>&-",
        script.replace('\'', r"'\''"),
        sandbox.path().display()
    );
    Process::start(sandbox.shell(&start)).finish(LIMIT).assert_code(0);
    let mut target = Process::start(sandbox.program("cat"));
    let claim = format!("incumbent claim --pid {} <&- >&- 2>&-", target.pid());
    Process::start(sandbox.shell(&claim)).finish(LIMIT).assert_code(0);
    let seen = std::fs::read_to_string(sandbox.file("seen")).unwrap();
    let mut places: Vec<String> =
        seen.lines().filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect();
    assert_eq!(places.len(), 6, "{seen}");
    for keeper in [sandbox.keepers(), sandbox.second_keepers()].concat() {
        let fd = |fd: u32| std::fs::read_link(format!("/proc/{keeper}/fd/{fd}")).unwrap();
        places.extend((0..3).map(|number| fd(number).to_str().unwrap().to_owned()));
    }
    assert_eq!(places.len(), 12, "{places:?}");
    assert!(places.iter().all(|place| place == "/dev/null"), "{places:?}");
    target.close_stdin();
}
