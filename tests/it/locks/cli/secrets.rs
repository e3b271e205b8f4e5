//! An identity is a secret: it is hashed before anything else is done with it, and neither the
//! store nor a word that the program says ever holds it (invariant 8).
//!
//! Where the caller itself puts it on a command line, `ps` shows it; that is why there is
//! `--lock-env`, `--identity-env` and `-`.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{
    Answer, LIMIT, Process, STAY, Sandbox, eventually, kill, tagged, wait_ended, wait_stopped,
};

/// A scope that does not announce a secret, as `telegram-bot-token` would: a command line is
/// redacted by such names as well, and that alone must not be what keeps the identity out.
const SCOPE: &str = "account";

/// Of several shapes: a bot's token, a word that looks like nothing, and one that no tool splits as
/// another does.
const TOKENS: [&str; 4] = [PLAIN[0], PLAIN[1], QUOTED[0], QUOTED[1]];

const PLAIN: [&str; 2] = ["123456:AAbb-cc_dd", "hunter2x"];

/// A shell needs quotes around these, and no split into words finds them in one piece.
const QUOTED: [&str; 2] = ["two a=b \"quoted\" words", "dollar$and\\slash;semi"];

/// A token, and what was said while it was in use.
struct Watched<'a> {
    sandbox: &'a Sandbox,
    token: &'a str,
    /// The lock that `run` is given.
    lock: String,
}

impl<'a> Watched<'a> {
    fn new(sandbox: &'a Sandbox, token: &'a str) -> Self {
        Self { sandbox, token, lock: format!("{SCOPE}={token}") }
    }

    /// The program, with the token where `TOKEN` stands, and in the variable `IT_BOT_TOKEN`.
    fn command(&self, arguments: &[&str]) -> Command {
        let arguments = arguments.iter().map(|word| word.replace("TOKEN", self.token));
        let mut command = self.sandbox.incumbent(arguments.collect::<Vec<_>>());
        command.env("IT_BOT", self.token);
        command
    }

    /// A script on whose command line the token stands, quoted, where `TOKEN` does.
    fn script(&self, script: &str) -> Command {
        assert!(!self.token.contains('\''), "a shell would need more than quotes");
        let quoted = format!("'{}'", self.token);
        let mut command = self.sandbox.shell(&script.replace("TOKEN", &quoted));
        command.env("IT_BOT", self.token);
        command
    }

    /// Runs to the end, and looks at what was said.
    #[track_caller]
    fn finish(&self, command: Command, code: i32) -> Answer {
        let answer = Process::start(command).finish(LIMIT).assert_code(code);
        self.assert_not_said(&answer);
        answer
    }

    #[track_caller]
    fn assert_not_said(&self, answer: &Answer) {
        for said in [&answer.out, &answer.err] {
            assert!(!holds(said.as_bytes(), self.token), "{:?} is said: {said}", self.token);
        }
    }

    /// Looks at everything that can be asked, and at every byte that is stored.
    #[track_caller]
    fn assert_kept(&self) {
        for verb in [
            &["status"][..],
            &["locks"],
            &["history"],
            &["events"],
            &["sql", "SELECT * FROM instances"],
            &["sql", "SELECT * FROM lock_holders"],
            &["sql", "SELECT * FROM scoped_locks"],
        ] {
            for json in [&[][..], &["--json"]] {
                let command = self.sandbox.incumbent([verb, json].concat());
                self.assert_not_said(&Process::start(command).finish(LIMIT));
            }
        }
        self.assert_not_stored(&self.sandbox.file("store"));
    }

    #[track_caller]
    fn assert_not_stored(&self, directory: &Path) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_str().unwrap();
            assert!(!holds(name.as_bytes(), self.token), "{name} names it");
            if path.is_dir() {
                self.assert_not_stored(&path);
            } else if let Ok(contents) = std::fs::read(&path) {
                let at = find_token(&contents, self.token);
                let around = at.map(|at| {
                    let (from, to) = (at.saturating_sub(200), (at + 100).min(contents.len()));
                    String::from_utf8_lossy(&contents[from..to]).into_owned()
                });
                assert!(around.is_none(), "{:?} is in {name}: {around:?}", self.token);
            }
        }
    }

    /// Looks at the command line of every process of the sandbox, keepers and trampolines included.
    #[track_caller]
    fn assert_not_in_ps(&self) {
        for pid in tagged("IT_SANDBOX", self.sandbox.path()) {
            let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let text = String::from_utf8_lossy(&line);
            assert!(!holds(&line, self.token), "pid {pid} shows {:?}: {text:?}", self.token);
        }
    }
}

/// Where the token is, as it is or as JSON writes it, once or twice.
fn find_token(bytes: &[u8], token: &str) -> Option<usize> {
    let quoted = serde_json::to_string(token).unwrap();
    // As text shows a word within a command line, which may be quoted once more.
    let twice = serde_json::to_string(&quoted[1..quoted.len() - 1]).unwrap();
    [token, &quoted[1..quoted.len() - 1], &twice[1..twice.len() - 1]]
        .iter()
        .filter_map(|word| bytes.windows(word.len()).position(|it| it == word.as_bytes()))
        .min()
}

fn holds(bytes: &[u8], token: &str) -> bool {
    find_token(bytes, token).is_some()
}

/// With `--lock-env` nobody sees it, nowhere, ever: holder, contenders and waiters, refused, killed
/// and stopped.
#[test]
fn a_run_with_its_token_in_the_environment_shows_it_nowhere() {
    for token in TOKENS {
        let sandbox = Sandbox::new();
        let watched = Watched::new(&sandbox, token);
        let lock = format!("--lock-env={SCOPE}=IT_BOT");
        let start = |options: &[&str], command: &[&str]| {
            watched.command(&[&["run", "--no-backoff", &lock], options, &["--"], command].concat())
        };
        let mut run = Process::start(start(&[], &["/bin/sh", "-c", STAY]));
        run.line();
        watched.assert_not_in_ps();
        watched.finish(start(&["--profile", "work"], &["true"]), 75);
        watched.finish(start(&["--profile", "work", "--json"], &["true"]), 75);
        watched.finish(start(&["--profile", "work", "--wait=50ms"], &["true"]), 75);
        let waiter = Process::start(start(&["--profile", "work", "--wait"], &["true"]));
        sandbox.wait_for_waiters(1);
        watched.assert_not_in_ps();
        watched.assert_kept();
        // Lost by force: it says what, and ends its command.
        let hash = sandbox.json(["locks"]).1[0]["identity_hash"].as_str().unwrap().to_owned();
        watched.finish(watched.command(&["unlock", SCOPE, "--hash", &hash, "--force"]), 0);
        watched.assert_not_said(&run.finish_with_stdin_open(LIMIT).assert_code(75));
        watched.assert_not_said(&waiter.finish(LIMIT).assert_code(0));
        watched.assert_kept();
    }
}

/// By argument: the caller shows it in `ps`; the store and the program do not.
#[test]
fn a_run_with_its_token_as_an_argument_stores_and_says_it_nowhere() {
    for token in TOKENS {
        let sandbox = Sandbox::new();
        let watched = Watched::new(&sandbox, token);
        let lock = watched.lock.clone();
        // The command has it as well.
        let command = ["/bin/sh", "-c", STAY, "sh", token];
        let start = |options: &[&str]| {
            let all = [&["run", "--no-backoff", "--lock", &lock], options, &["--"], &command[..]];
            watched.command(&all.concat())
        };
        let mut run = Process::start(start(&[]));
        run.line();
        for options in [
            &["--profile", "work"][..],
            &["--profile", "work", "--json"],
            &["--profile", "work", "--wait=50ms"],
        ] {
            watched.finish(start(options), 75);
        }
        // Of the same office: refused for that, before the lock is looked at.
        watched.finish(start(&[]), 75);
        let waiter = Process::start(start(&["--profile", "work", "--wait"]));
        sandbox.wait_for_waiters(1);
        watched.assert_kept();
        run.kill();
        watched.assert_not_said(&waiter.finish(LIMIT).assert_code(0));
        watched.assert_kept();
        // Waiting for the office, with a lock that is named on the command line.
        let run = Process::start(watched.command(&["run", "--no-backoff", "--", "cat"]));
        eventually("the office is held", LIMIT, || (sandbox.status().0 == 0).then_some(()));
        let waiter = Process::start(start(&["--wait"]));
        sandbox.wait_for_waiters(1);
        watched.assert_kept();
        watched.assert_not_said(&run.finish(LIMIT));
        watched.assert_not_said(&waiter.finish(LIMIT).assert_code(0));
        watched.assert_kept();
    }
}

/// The `lock` verbs, in all the ways in which they are given the token.
#[test]
fn the_lock_verbs_store_and_say_it_nowhere() {
    for token in TOKENS {
        for way in [&[SCOPE, "TOKEN"][..], &[SCOPE, "-"], &[SCOPE, "--identity-env", "IT_BOT"]] {
            let sandbox = Sandbox::new();
            let watched = Watched::new(&sandbox, token);
            let start = |verb: &str, process: &Process, options: &[&str]| {
                let pid = process.pid().to_string();
                let all = [&["lock", verb, "--pid", &pid], way, options].concat();
                let mut asking = Process::start(watched.command(&all));
                if way[1] == "-" {
                    asking.say(token);
                    asking.close_stdin();
                }
                asking
            };
            let ask = |verb: &str, process: &Process, options: &[&str], code: i32| {
                for json in [&[][..], &["--json"]] {
                    let answer = start(verb, process, &[options, json].concat()).finish(LIMIT);
                    watched.assert_not_said(&answer);
                    assert_eq!(answer.code(), code, "{verb} {way:?}: {answer:#?}");
                }
            };
            let stay = || {
                let mut process = Process::start(sandbox.shell(STAY));
                process.line();
                process
            };
            let (mut script, other) = (stay(), stay());
            ask("acquire", &script, &[], 0);
            ask("acquire", &other, &[], 75);
            ask("acquire", &other, &["--wait=20ms"], 75);
            ask("verify", &script, &[], 0);
            ask("verify", &script, &["--fence", "1"], 1);
            ask("renew", &other, &[], 1);
            ask("release", &other, &[], 1);
            let waiter = start("acquire", &other, &["--wait"]);
            sandbox.wait_for_waiters(1);
            if way[1] != "TOKEN" {
                watched.assert_not_in_ps();
            }
            watched.assert_kept();
            kill(script.pid(), Signal::STOP);
            wait_stopped(script.pid());
            script.kill();
            watched.assert_not_said(&waiter.finish(LIMIT).assert_code(0));
            if way[1] != "TOKEN" {
                watched.assert_not_in_ps();
            }
            let unlock = |options: &[&str]| {
                let mut asking =
                    Process::start(watched.command(&[&["unlock"], way, options].concat()));
                if way[1] == "-" {
                    asking.say(token);
                }
                asking.finish(LIMIT)
            };
            watched.assert_not_said(&unlock(&[]).assert_code(75));
            watched.assert_not_said(&unlock(&["--force"]).assert_code(0));
            watched.assert_kept();
            ask("acquire", &other, &["--no-keeper"], 0);
            watched.assert_kept();
            ask("release", &other, &["--fence", "1"], 1);
            ask("verify", &other, &[], 0);
        }
    }
}

#[track_caller]
fn assert_scripts_are_recorded_without(token: &str) {
    for acquire in [
        "incumbent lock acquire account TOKEN",
        "incumbent lock acquire account TOKEN --no-keeper",
        "incumbent lock acquire account TOKEN --wait",
        "printf %s TOKEN | incumbent lock acquire account - --pid $$",
        "T=TOKEN; export T; incumbent lock acquire account --identity-env T",
    ] {
        let sandbox = Sandbox::new();
        let watched = Watched::new(&sandbox, token);
        let script = format!("{acquire} > said.txt 2>&1; echo \"acquire $?\"; {STAY}");
        let mut holder = Process::start(watched.script(&script));
        assert_eq!(holder.line(), "acquire 0", "{token:?} {acquire}");
        holder.line();
        let said = std::fs::read(sandbox.file("said.txt")).unwrap();
        assert!(!holds(&said, token), "{}", String::from_utf8_lossy(&said));
        watched.assert_kept();
        let refused = acquire.replace(" --wait", "") + " --profile work --wait=20ms";
        watched.finish(watched.script(&refused), 75);
        watched.assert_kept();
        holder.kill();
        watched.assert_kept();
    }
    // The same with a whole gateway under it.
    let sandbox = Sandbox::new();
    let watched = Watched::new(&sandbox, token);
    let script = "T=TOKEN; export T
        incumbent run --no-backoff --lock-env account=T -- sh -c 'echo $$; cat' TOKEN";
    let mut run = Process::start(watched.script(script));
    run.line();
    watched.assert_kept();
    let other = script.replace("--no-backoff", "--no-backoff --profile work");
    watched.finish(watched.script(&other), 75);
    watched.assert_kept();
    watched.assert_not_said(&run.finish(LIMIT).assert_code(0));
    watched.assert_kept();
}

/// A script that has the token on its own command line is recorded without it.
#[test]
fn a_script_with_the_token_on_its_command_line_is_recorded_without_it() {
    for token in PLAIN {
        assert_scripts_are_recorded_without(token);
    }
}

/// The same where the token is no word of the command line, but several, in quotes.
#[test]
fn a_script_with_a_quoted_token_on_its_command_line_is_recorded_without_it() {
    for token in QUOTED {
        assert_scripts_are_recorded_without(token);
    }
}

/// A script that holds two tokens: one row, in which neither may show.
#[test]
fn a_script_with_two_tokens_is_recorded_without_either() {
    let sandbox = Sandbox::new();
    let script = format!(
        "incumbent lock acquire a hunter2x > /dev/null; echo $?
         incumbent lock acquire b swordf1sh > /dev/null; echo $?
         {STAY}"
    );
    let mut holder = Process::start(sandbox.shell(&script));
    assert_eq!((holder.line(), holder.line()), ("0".to_owned(), "0".to_owned()));
    holder.line();
    for token in ["hunter2x", "swordf1sh"] {
        Watched::new(&sandbox, token).assert_kept();
    }
}

/// The row that an office was claimed with, before the lock: its command line was recorded when
/// nobody knew that one of its words is a secret.
#[test]
fn a_token_is_removed_from_the_record_that_an_office_left() {
    let sandbox = Sandbox::new();
    let watched = Watched::new(&sandbox, "hunter2x");
    let script = format!(
        "incumbent claim > /dev/null; echo $?
         incumbent lock acquire {SCOPE} TOKEN > /dev/null; echo $?; {STAY}"
    );
    let mut holder = Process::start(watched.script(&script));
    assert_eq!((holder.line(), holder.line()), ("0".to_owned(), "0".to_owned()));
    holder.line();
    watched.assert_kept();
}

/// The same for a run whose command acquires a lock by itself.
#[test]
fn a_token_is_removed_from_the_record_of_the_run_around_it() {
    let sandbox = Sandbox::new();
    let watched = Watched::new(&sandbox, "hunter2x");
    let script = format!("incumbent lock acquire {SCOPE} hunter2x > /dev/null; echo $?; {STAY}");
    let command = ["run", "--no-backoff", "--", "/bin/sh", "-c", &script];
    let mut run = Process::start(watched.command(&command));
    assert_eq!(run.line(), "0");
    run.line();
    watched.assert_kept();
}

/// Who ended a run is recorded with its command line; that of the script that had started it holds
/// the token.
#[test]
fn whoever_ends_a_run_is_recorded_without_the_token() {
    let sandbox = Sandbox::new();
    let watched = Watched::new(&sandbox, "hunter2x");
    let script = format!(
        "incumbent run --no-backoff --lock {SCOPE}=TOKEN -- sh -c 'echo $$; exec cat' < pipe &
         exec 3> pipe; read -r go; kill -TERM $!; wait $!; echo \"code $?\""
    );
    Process::start(sandbox.shell("mkfifo pipe")).finish(LIMIT).assert_code(0);
    let mut shell = Process::start(watched.script(&script));
    shell.line();
    shell.say("go");
    assert_eq!(shell.line(), "code 143");
    watched.assert_not_said(&shell.finish(LIMIT));
    watched.assert_kept();
}

/// The token in the wrong place: the complaint does not repeat it.
#[test]
fn a_wrong_usage_does_not_repeat_the_token() {
    for token in TOKENS {
        let sandbox = Sandbox::new();
        let watched = Watched::new(&sandbox, token);
        let mut process = Process::start(sandbox.shell(STAY));
        process.line();
        let pid = process.pid().to_string();
        let run = |words: &[&'static str]| [&["run"], words, &["--", "true"]].concat();
        let mut cases: Vec<Vec<&str>> = vec![
            // In the scope's place.
            vec!["lock", "acquire", "TOKEN TOKEN", "x"],
            vec!["lock", "acquire", "TOKEN", "", "--pid", &pid],
            vec!["lock", "acquire", "TOKEN"],
            vec!["lock", "acquire", "TOKEN=x", SCOPE],
            vec!["lock", "release", "TOKEN/x", SCOPE],
            vec!["unlock", "TOKEN/x", SCOPE],
            run(&["--lock", "TOKEN/x=telegram"]),
            // With what does not go with it.
            vec!["lock", "acquire", SCOPE, "TOKEN", "--identity-env", "IT_BOT"],
            vec!["lock", "acquire", SCOPE, "TOKEN", "--pid", "0"],
            vec!["lock", "acquire", SCOPE, "TOKEN", "--metadata", "{"],
            vec!["lock", "acquire", SCOPE, "TOKEN", "--ttl", "soon"],
            vec!["lock", "acquire", SCOPE, "TOKEN", "--wat"],
            vec!["lock", "release", "--all", SCOPE, "TOKEN"],
            vec!["unlock", "--stale", SCOPE, "TOKEN"],
            vec!["unlock", SCOPE, "--hash", "TOKEN"],
            vec!["unlock", SCOPE, "TOKEN", "--hash", "0123456789abcdef"],
            run(&["--lock", "s=TOKEN", "--lock", "s=TOKEN"]),
            run(&["--lock", "s=TOKEN", "--metadata", "{"]),
        ];
        if !token.contains('=') {
            cases.push(run(&["--lock", "TOKEN"]));
            cases.push(run(&["--lock-env", "TOKEN"]));
        }
        let is_variable = token.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_variable {
            cases.push(run(&["--lock-env", "s=TOKEN"]));
            cases.push(vec!["lock", "acquire", SCOPE, "--identity-env", "TOKEN"]);
        }
        for case in cases {
            for json in [&[][..], &["--json"]] {
                let command = watched.command(&[json, &case].concat());
                let answer = Process::start(command).finish(LIMIT);
                assert_eq!(answer.code(), 2, "{case:?}: {answer:#?}");
                watched.assert_not_said(&answer);
            }
        }
        assert!(!sandbox.file("store").exists());
    }
}

/// A token that could be the name of a variable, where that name is asked for.
#[test]
fn a_token_in_the_place_of_a_variables_name_is_not_repeated() {
    let sandbox = Sandbox::new();
    let watched = Watched::new(&sandbox, "hunter2x");
    for case in [
        &["run", "--lock-env", "s=TOKEN", "--", "true"][..],
        &["lock", "acquire", SCOPE, "--identity-env", "TOKEN"],
    ] {
        for json in [&[][..], &["--json"]] {
            watched.finish(watched.command(&[json, case].concat()), 2);
        }
    }
}

/// Who waits and is killed leaves its record until the next grant: without the token.
#[test]
fn a_killed_waiter_leaves_no_token_behind() {
    let sandbox = Sandbox::new();
    let watched = Watched::new(&sandbox, "hunter2x");
    let mut holder = Process::start(
        sandbox.shell(&format!("incumbent lock acquire {SCOPE} hunter2x > /dev/null; {STAY}")),
    );
    holder.line();
    let arguments = ["lock", "acquire", SCOPE, "TOKEN", "--wait"];
    let mut waiter = Process::start(watched.command(&arguments));
    sandbox.wait_for_waiters(1);
    waiter.kill();
    watched.assert_kept();
    kill(holder.pid(), Signal::KILL);
    assert!(wait_ended(holder.pid(), LIMIT));
    watched.assert_kept();
    let next = watched.command(&["run", "--no-backoff", "--lock", &watched.lock, "--", "true"]);
    Process::start(next).finish(LIMIT).assert_code(0);
    watched.assert_kept();
}
