//! A gateway of another home is replaced only where that is asked for.

use rustix::process::Signal;
use serde_json::json;

use super::{
    assert_holder, assert_nothing_is_left, draining, takeovers_begun, taking_over, try_to_take,
};
use crate::stop::terms;
use crate::support::{LIMIT, Sandbox};

/// FIELD-BUGS rows 43 and 44.
///
/// Symptom: two configurations that resolved to one profile ended each other's gateway, 97 times in
/// 15 minutes. It holds because a profile is bound to its home, and taken over from another one
/// only if somebody says so.
#[test]
fn a_gateway_of_another_home_is_not_replaced_unless_asked_for() {
    let sandbox = Sandbox::new();
    for home in ["one", "two"] {
        std::fs::create_dir(sandbox.file(home)).unwrap();
    }
    let mut first = draining(&sandbox, "a", &["--home", "one"]);
    let neighbour = draining(&sandbox, "n", &["--profile", "neighbour", "--home", "two"]);
    for options in [&["--home", "two"][..], &["--home", "two", "--force"][..]] {
        let (code, answer) = try_to_take(&sandbox, "b", options);
        assert_eq!(
            (code, &answer["error"]["kind"]),
            (78, &json!("profile_belongs_to")),
            "{answer:#}"
        );
    }
    assert_eq!(takeovers_begun(&sandbox), 0);
    assert_holder(&sandbox, first.pid());

    let mut second = taking_over(&sandbox, "b", &["--home", "two", "--cross-home"]);
    assert_eq!(first.process.line(), "TERM");
    assert_eq!(terms(&first.end().assert_code(0)), 1);
    second.line();
    assert_holder(&sandbox, second.pid());
    // It belongs to the second home now, and stays there.
    let (code, answer) = try_to_take(&sandbox, "a", &["--home", "one", "--force"]);
    assert_eq!(code, 78, "{answer:#}");
    second.signal(Signal::TERM);
    second.finish_with_stdin_open(LIMIT);
    sandbox.cli(["run", "--no-backoff", "--home", "one", "--", "true"]).assert_code(78);
    sandbox.cli(["run", "--no-backoff", "--home", "two", "--", "true"]).assert_code(0);
    assert_eq!(terms(&neighbour.end().assert_code(7)), 0, "the neighbour was signalled");
    assert_nothing_is_left(&sandbox, "at the end");
}
