//! Errors and refusals: the command, what the program said to standard error, and its exit code.

use super::plain;
use crate::support::{LIMIT, Process, Sandbox, sleeper};

/// What a refusal, which is no error, is called here; and arguments that are wrong.
const NO_KIND: [&str; 2] = ["refused", "usage"];

/// A kind, the exit code, a shell script that makes the situation (`$HOLDER` is a process that
/// lives), and the command. In a store of its own each.
struct Case(&'static str, i32, &'static str, &'static str);

/// Nothing has to be made.
const PLAIN: &str = "";
/// Somebody holds the default office.
const HELD: &str = "incumbent claim --pid $HOLDER";
/// Somebody holds a lock.
const LOCKED: &str = "incumbent lock acquire bot-token me --pid $HOLDER";
/// A store, and nobody holds anything.
const USED: &str = "incumbent run --no-backoff -- true";
const DAMAGED: &str = "incumbent run --no-backoff -- true;
    sqlite3 store/state.db 'PRAGMA wal_checkpoint(TRUNCATE)';
    dd if=/dev/zero of=store/state.db bs=1 seek=100 count=900 conv=notrunc";
const SCHEMA_5: &str = "mkdir -m 700 store; cp \"$FIXTURES/schema/v5.db\" store/state.db;
    chmod 600 store/state.db";

const CASES: &[Case] = &[
    Case("usage", 2, PLAIN, "incumbent dance"),
    Case("usage", 2, PLAIN, "incumbent status --nonsense"),
    Case("usage", 2, PLAIN, "incumbent run"),
    Case("usage", 2, PLAIN, "incumbent claim --pid many"),
    Case("usage", 2, PLAIN, "incumbent completions tcl"),
    Case("usage", 2, PLAIN, "incumbent sql"),
    Case("usage", 2, PLAIN, "incumbent sql --file questions.sql 'SELECT 1'"),
    Case("usage", 2, PLAIN, "incumbent events --since soon"),
    Case("usage", 2, PLAIN, "incumbent run --stop-budget soon -- true"),
    Case("usage", 2, PLAIN, "incumbent lock acquire bot-token one two"),
    Case("invalid_input", 2, PLAIN, "incumbent --profile '../x' status"),
    Case("invalid_input", 2, PLAIN, "incumbent --kind 'a/b' status"),
    Case("invalid_input", 2, PLAIN, "incumbent --home /nowhere run -- true"),
    Case("invalid_input", 2, PLAIN, "incumbent run --stop-budget 2h -- true"),
    Case("invalid_input", 2, PLAIN, "incumbent run -- ''"),
    Case("invalid_input", 2, PLAIN, "incumbent help nonsense"),
    Case("invalid_input", 2, PLAIN, "incumbent signal KILL"),
    Case("invalid_input", 2, PLAIN, "incumbent import nowhere"),
    Case("invalid_input", 2, PLAIN, "incumbent sql 'SELECT 1'"),
    Case("invalid_input", 2, "mkdir store", "incumbent --db store status"),
    Case("invalid_input", 2, USED, "incumbent sql 'SELECT * FROM nowhere'"),
    Case("invalid_input", 2, USED, "incumbent sql 'SELECT nothing FROM events'"),
    Case("invalid_input", 2, USED, "incumbent sql 'DELETE FROM events'"),
    Case("invalid_input", 2, USED, "incumbent sql 'SELECT 1; SELECT 2' --csv"),
    Case("invalid_input", 2, USED, "incumbent sql --file nowhere.sql"),
    Case("invalid_input", 2, USED, "incumbent backup store/state.db"),
    Case("invalid_input", 2, USED, "incumbent backup nowhere/copy.db"),
    Case("invalid_input", 2, LOCKED, "incumbent unlock bot-token --hash me"),
    Case("invalid_input", 2, PLAIN, "INCUMBENT_PROFILE=../x incumbent status"),
    Case("not_running", 3, PLAIN, "incumbent claim --pid 4194304"),
    Case("not_running", 3, USED, "incumbent status --pid $HOLDER"),
    Case("not_owner", 1, USED, "incumbent status-set --state running"),
    Case("not_owner", 1, HELD, "incumbent status-set --state running"),
    Case("cannot_read", 78, "ln -s loop loop", "incumbent --db loop/state.db status"),
    Case("busy", 75, USED, "sh -c 'ulimit -n 10; exec incumbent status'"),
    Case("cannot_write", 70, USED, "sh -c 'ulimit -f 1; exec incumbent desired running'"),
    Case("permission", 78, "mkdir store; chmod 777 store", "incumbent run -- true"),
    Case("filesystem", 78, PLAIN, "incumbent --db $(printf 'x%.0s' $(seq 300)) run -- true"),
    Case("not_ours", 78, "echo milk > list.txt", "incumbent --db list.txt status"),
    Case(
        "profile_belongs_to",
        78,
        "mkdir a b; incumbent --home a run --no-backoff -- true",
        "incumbent --home b run -- true",
    ),
    Case(
        "too_new",
        78,
        "incumbent run --no-backoff -- true; sqlite3 store/state.db \
        \"UPDATE meta SET value = 99 WHERE key = 'min_writer'; PRAGMA user_version = 99\"",
        "incumbent run -- true",
    ),
    Case("too_old", 78, SCHEMA_5, "incumbent marker write note --pid 1"),
    Case("corrupt", 70, DAMAGED, "incumbent run -- true"),
    Case("refused", 75, HELD, "incumbent run -- my-gateway --serve"),
    Case("refused", 75, HELD, "incumbent claim"),
    Case("refused", 75, HELD, "incumbent evict"),
    Case("refused", 1, HELD, "incumbent release"),
    Case("refused", 1, USED, "incumbent release"),
    Case("refused", 1, HELD, "incumbent status-set --state running --pid $$"),
    Case("refused", 75, LOCKED, "incumbent run --lock bot-token=me -- my-gateway"),
    Case("refused", 75, LOCKED, "incumbent lock acquire bot-token me --pid $$"),
    Case("refused", 75, LOCKED, "incumbent unlock bot-token me"),
    Case("refused", 1, LOCKED, "incumbent lock verify bot-token me --pid $$"),
    Case("refused", 1, USED, "incumbent wait --timeout 0"),
    Case("refused", 3, PLAIN, "incumbent --db nowhere/state.db status"),
    Case("refused", 3, "incumbent run --no-backoff -- sh -c 'exit 1'", "incumbent status"),
    Case("refused", 3, "incumbent desired stopped", "incumbent restart"),
    Case(
        "refused",
        75,
        "incumbent desired stopped",
        "incumbent run --respect-desired -- my-gateway",
    ),
];

fn shell(sandbox: &Sandbox, holder: u32, script: &str) -> (i32, String, String) {
    let mut command = sandbox.shell(&format!("{script}\nexit $?"));
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    command.env("HOLDER", holder.to_string()).env("FIXTURES", fixtures).env("COLUMNS", "100");
    let answer = Process::start(command).finish(LIMIT);
    (answer.code(), answer.out, answer.err)
}

/// The examples, by kind and exit code.
pub fn said() -> Vec<(String, String)> {
    let mut said: Vec<(String, String)> = Vec::new();
    let mut wrong = Vec::new();
    for Case(kind, expected, make, ask) in CASES {
        let sandbox = Sandbox::new();
        let holder = sleeper(&sandbox);
        if !make.is_empty() {
            shell(&sandbox, holder.pid(), make);
        }
        if !NO_KIND.contains(kind) {
            let in_json = ask.replacen("incumbent ", "incumbent --json ", 1);
            let (_, document, err) = shell(&sandbox, holder.pid(), &in_json);
            if !document.contains(&format!("\"kind\": \"{kind}\"")) {
                wrong.push(format!("{ask}: no {kind} in {document}{err}"));
            }
        }
        let (code, out, err) = shell(&sandbox, holder.pid(), ask);
        if code != *expected {
            wrong.push(format!("{ask}: {code} and not {expected}: {out}{err}"));
        }
        let text = plain(&sandbox, &format!("{out}{err}")).replace(&"x".repeat(300), "xxx...");
        let make = make.split_whitespace().collect::<Vec<_>>().join(" ");
        let make = if make.is_empty() { make } else { format!("$ {make}\n") };
        let text = format!("{make}$ {ask}\n{text}");
        let name = format!("{kind}, exit code {code}");
        match said.iter_mut().find(|it| it.0 == name) {
            Some((_, texts)) => *texts += &format!("\n\n{text}"),
            None => said.push((name, text)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    said
}
