//! Bytes that are flipped, cut off or garbage.

use super::{PAGE, Sample, asides, assert_typed};
use crate::support::{Random, Sandbox, rounds};

fn flipped(database: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = database.to_vec();
    let count = [1, 1, 4, 16, 64, 256][random.index(6)];
    for _ in 0..count {
        // The header and the schema get their share.
        let among = if random.below(10) < 3 { PAGE } else { bytes.len() };
        let at = random.index(among);
        bytes[at] ^= u8::try_from(1 + random.below(255)).unwrap();
    }
    bytes
}

/// Half of the seeds each, so that two cores have something to do.
fn survives_flipped_bytes(half: usize) {
    let sample = Sample::new();
    for seed in (0..rounds(100, 2_000)).filter(|seed| seed % 2 == half) {
        sample.put(&flipped(&sample.database, seed as u64), &[]);
        sample.assert_survived(&format!("seed {seed}"));
    }
}

/// FIELD-BUGS rows 72 to 74: a database that something else wrote to. Symptom elsewhere: a crash
/// loop, or "not running" while it runs. It holds because every error of SQLite becomes a kind that
/// says so, and because no trust is put in what a damaged schema says.
#[test]
fn random_bytes_flipped_even_seeds() {
    survives_flipped_bytes(0);
}

#[test]
fn random_bytes_flipped_odd_seeds() {
    survives_flipped_bytes(1);
}

/// A full disk, a copy that was interrupted: the end of the file is missing.
#[test]
fn truncated_at_every_page_boundary() {
    let sample = Sample::new();
    for pages in 1..sample.database.len() / PAGE {
        sample.put(&sample.database[..pages * PAGE], &[]);
        sample.assert_survived(&format!("{pages} pages"));
    }
    // An empty file is a store that nobody has begun.
    sample.put(&[], &[]);
    sample.sandbox.assert_status(3, "dead", "never_claimed");
    sample.assert_works("no page");
}

/// A `-wal` of garbage, one that is cut off, one with flipped bytes, one with a good header: SQLite
/// takes what its checksums vouch for, and nothing of ours must stumble over what is missing then.
#[test]
fn a_garbage_wal() {
    let sample = Sample::new();
    for seed in 0..rounds(40, 400) {
        let mut random = Random::new(seed as u64);
        let mut wal = sample.wal.clone();
        match seed % 4 {
            0 => {
                let length = 1 + random.index(200_000);
                wal = random.bytes(length);
            }
            1 => {
                for _ in 0..[1, 8, 64][random.index(3)] {
                    let at = random.index(wal.len());
                    wal[at] ^= u8::try_from(1 + random.below(255)).unwrap();
                }
            }
            2 => wal.truncate(random.index(sample.wal.len())),
            _ => {
                let rest = random.bytes(wal.len() - 32);
                wal[32..].copy_from_slice(&rest);
            }
        }
        sample.put(&sample.database, &wal);
        sample.assert_survived(&format!("seed {seed}"));
    }
}

/// A path that was mistyped: `--db ~/photo.jpg doctor --fix`.
#[test]
fn a_file_that_was_never_a_store_is_left_alone() {
    let sandbox = Sandbox::new();
    let directory = sandbox.file("store");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(sandbox.db(), vec![7; 10_000]).unwrap();
    let before = sandbox.picture();
    let answer = sandbox.cli(["doctor", "--fix"]);
    assert_ne!(answer.code(), 0, "{answer:#?}");
    assert_eq!(sandbox.picture(), before);
    std::fs::remove_file(sandbox.db()).unwrap();
    let other = rusqlite::Connection::open(sandbox.db()).unwrap();
    other.execute_batch("CREATE TABLE songs (name TEXT); PRAGMA user_version = 3").unwrap();
    drop(other);
    let before = sandbox.picture();
    let answer = sandbox.cli(["doctor", "--fix"]);
    assert_ne!(answer.code(), 0, "{answer:#?}");
    assert_eq!(sandbox.picture(), before);
}

/// Values in `meta` that no program of ours writes, each of which kept everybody out for ever: a
/// version that nobody has, a counter at its end, an id that would lead out of the directory.
#[test]
fn impossible_words_about_the_store_itself_are_repaired() {
    for (key, value) in [
        ("min_writer", "4611686018427387905"),
        ("min_writer", "'seven'"),
        ("last_id", "9223372036854775807"),
        ("last_id", "-5"),
        ("store_uuid", "'zz/../../x'"),
        ("store_uuid", "''"),
    ] {
        let what = format!("{key} = {value}");
        let sandbox = Sandbox::new();
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        sandbox.forge(&format!("UPDATE meta SET value = {value} WHERE key = '{key}'"));
        let run = ["run", "--no-backoff", "--", "true"];
        if key == "last_id" {
            // Ids rise with the clock: that one is no obstacle.
            sandbox.cli(run).assert_code(0);
            continue;
        }
        assert_typed(&sandbox.cli(run), &what);
        sandbox.cli(["doctor"]).assert_code(1);
        let repaired = sandbox.cli(["doctor", "--fix"]);
        assert_eq!(asides(&sandbox).len(), 1, "{what}: {repaired:#?}");
        sandbox.cli(run).assert_code(0);
        assert_eq!(sandbox.number("SELECT count(*) FROM instances"), 2, "{what}");
    }
}
