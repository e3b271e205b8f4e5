//! The files of the older gateway beside a run: other names of its lock, markers by another clock,
//! and a directory that cannot be written any more.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use crate::support::older::Older;
use crate::support::{LIMIT, NOBODY, Process, Run, Sandbox, eventually, is_root, kill, skipped};

fn start_beside_older(older: &Older<'_>) -> crate::support::Answer {
    older.sandbox.cli(["run", "--no-backoff", "--legacy-home", older.home(), "--", "true"])
}

/// Gives the lock a second name, as a start has that is killed while it makes the lock.
fn second_name(older: &Older<'_>, name: &str) -> PathBuf {
    let path = older.file(name);
    std::fs::hard_link(older.file("gateway.lock"), &path).unwrap();
    path
}

/// Symptom: a start that was killed in the two milliseconds in which it gives the new lock a second
/// name left that behind, and every later start of root's in that directory was refused for good.
/// It holds because the second name is known by its form, and removed by whoever has locked the
/// file; and links are looked at only where somebody else may have put the file there.
#[test]
fn a_start_killed_while_it_makes_the_lock_blocks_no_later_one() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    start_beside_older(&older).assert_code(0);
    for round in 0..2 {
        let other = second_name(&older, ".incumbent-Ab12Cd");
        start_beside_older(&older).assert_code(0);
        assert!(!other.exists(), "round {round}");
        if round > 0 || !is_root() {
            break;
        }
        // The directory of a user, for whom root starts.
        for path in [older.home.clone(), older.file("gateway.lock")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    // While somebody holds it, it is held, and no more.
    let run = older.hold();
    let other = second_name(&older, ".incumbent-Ab12Cd");
    start_beside_older(&older).assert_code(75);
    assert!(other.exists());
    run.end().assert_code(0);
}

/// Another name of the lock, which no start of ours has given it: harmless in a directory of root's
/// own and for a user's own file; not for a file of root's in a user's directory, or where anybody
/// may have linked it.
#[test]
fn a_lock_with_another_name_is_refused_only_where_a_stranger_may_have_made_that() {
    if !is_root() {
        return skipped("needs root");
    }
    let cases =
        [(0, 0, 0o755, 0), (NOBODY, NOBODY, 0o755, 0), (NOBODY, 0, 0o755, 78), (0, 0, 0o1777, 78)];
    for (of_directory, of_file, mode, code) in cases {
        let Some(sandbox) = Sandbox::with_python() else { return };
        let older = Older::new(&sandbox);
        start_beside_older(&older).assert_code(0);
        second_name(&older, "other");
        chown(older.file("gateway.lock"), Some(of_file), None).unwrap();
        chown(&older.home, Some(of_directory), None).unwrap();
        std::fs::set_permissions(&older.home, PermissionsExt::from_mode(mode)).unwrap();
        let answer = start_beside_older(&older);
        assert_eq!(answer.code(), code, "{of_directory} {of_file} {mode:o}: {answer:#?}");
        if code == 78 {
            answer.assert_complains(&["gateway.lock", "more than one name", "move it away"]);
        }
        assert_eq!(std::fs::metadata(older.file("other")).unwrap().nlink(), 2);
    }
}

/// Symptom: an older program announced a stop, the clock was set back (or the run had read it
/// before), and the marker, one of the future, was removed unread: the stop looked like a crash. It
/// holds because the older program counts such a marker as fresh, within its minute so do we, and
/// only what is over is removed.
#[test]
fn a_stop_is_planned_also_by_a_clock_that_is_ahead() {
    for (ahead_ms, code, reason) in
        [(300, 0, "planned_stop"), (55_000, 0, "planned_stop"), (3_600_000, 143, "signalled")]
    {
        let Some(sandbox) = Sandbox::with_python() else { return };
        let older = Older::new(&sandbox);
        let mut run = older.hold();
        let script = "
import json, os, sys
from datetime import datetime, timedelta, timezone
record = json.load(open(sys.argv[1] + '/gateway.pid'))
at = datetime.now(timezone.utc) + timedelta(milliseconds=int(sys.argv[2]))
marker = {'target_pid': record['pid'], 'target_start_time': record['start_time'],
          'stopper_pid': os.getpid(), 'written_at': at.isoformat()}
path = sys.argv[1] + '/.gateway-planned-stop.json'
with open(path + '.tmp', 'w') as file:
    json.dump(marker, file)
os.rename(path + '.tmp', path)
";
        let mut write = sandbox.program("python3");
        write.args(["-c", script, older.home(), &ahead_ms.to_string()]);
        Process::start(write).finish(LIMIT).assert_code(0);
        kill(run.pid(), rustix::process::Signal::TERM);
        assert_eq!(crate::support::exit_code(run.process.wait(LIMIT)), code, "{ahead_ms}");
        assert_eq!(sandbox.history()[0]["end_reason"], reason, "{ahead_ms}");
        // What cannot be ours to judge stays.
        assert_eq!(older.file(".gateway-planned-stop.json").exists(), code != 0, "{ahead_ms}");
    }
}

/// Symptom: with gateway.pid gone from a directory that could not be written any more, the run
/// filled the journal with a line each second, about the lock, which was well, and a scratch file.
/// It holds because a look that fails is told once, until one succeeds.
#[test]
fn files_that_cannot_be_put_back_are_told_once() {
    let Some(words) = crate::support::another_user() else {
        return skipped("needs root");
    };
    for gone in [&["gateway.pid"][..], &["gateway.lock", "gateway.pid"]] {
        let Some(sandbox) = Sandbox::with_python() else { return };
        let older = Older::new(&sandbox);
        let binary = sandbox.open_to_nobody();
        std::fs::create_dir(sandbox.file("store")).unwrap();
        for path in [sandbox.path(), &sandbox.file("store"), &older.home] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut command = sandbox.within(words);
        command.arg(binary).args(["run", "--no-backoff"]);
        command.args(["--legacy-home", older.home()]).args(crate::support::HOLDING);
        let mut run = Run::start(command);
        eventually("the record is there", LIMIT, || {
            older.file("gateway.pid").exists().then_some(())
        });
        std::fs::set_permissions(&older.home, PermissionsExt::from_mode(0o555)).unwrap();
        for name in gone {
            std::fs::remove_file(older.file(name)).unwrap();
        }
        let told = run.process.err_line();
        assert!(told.contains("older gateways may not see this run"), "{told}");
        assert!(told.contains(gone[0]), "{told}");
        assert!(told.contains("cannot ") && !told.contains(".incumbent-"), "{told}");
        // It looks at least once a second: that many looks later nothing more was said.
        crate::support::wait_for_looks(&[run.pid()], 4);
        std::fs::set_permissions(&older.home, PermissionsExt::from_mode(0o755)).unwrap();
        eventually("the files are back", LIMIT, || {
            (older.file("gateway.pid").exists() && older.file("gateway.lock").exists())
                .then_some(())
        });
        run.process.close_stdin();
        let ended = run.process.finish_with_stdin_open(LIMIT).assert_code(0);
        assert_eq!(ended.err.matches("cannot").count(), 1, "{ended:#?}");
    }
}
