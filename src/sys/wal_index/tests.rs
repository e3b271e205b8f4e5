//! Two connections of ours, and one with the methods of SQLite itself.

use rusqlite::Connection;

use super::descriptors::Parked;
use super::index::bits;
use super::*;

/// A database in WAL mode with one row, of length 0.
fn database(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("a.db");
    let made = Connection::open(&path).unwrap();
    made.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (0)")
        .unwrap();
    path
}

fn guarded_connection(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    guard(&connection).unwrap();
    connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    connection
}

/// With SQLite's own methods: to ours it is as one of another process.
fn foreign_connection(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    connection
}

fn close_something(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        drop(File::open(name).unwrap());
    }
}

fn sum(connection: &Connection) -> i64 {
    connection.query_row("SELECT sum(n) FROM t", [], |row| row.get(0)).unwrap()
}

fn is_busy(done: rusqlite::Result<()>) -> bool {
    match done {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
            true
        }
    }
}

#[test]
fn of_two_connections_of_one_process_one_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = database(directory.path());
    let (one, two) = (guarded_connection(&path), guarded_connection(&path));
    let foreign = foreign_connection(&path);
    assert_eq!((sum(&one), sum(&two), sum(&foreign)), (0, 0, 0));
    one.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    close_something(&path);
    for other in [&two, &foreign] {
        assert!(is_busy(other.execute_batch("INSERT INTO t VALUES (10)")));
        assert_eq!(sum(other), 0);
    }
    one.execute_batch("COMMIT").unwrap();
    for other in [&two, &foreign] {
        other.execute_batch("INSERT INTO t VALUES (100)").unwrap();
    }
    assert_eq!((sum(&one), sum(&two), sum(&foreign)), (201, 201, 201));
}

/// A close cancelled the lock of a reader; the next checkpoint began the WAL anew, and writers
/// wrote over what he was reading.
#[test]
fn what_a_reader_sees_outlives_a_close_and_a_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = database(directory.path());
    let (reader, foreign) = (guarded_connection(&path), foreign_connection(&path));
    foreign.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(sum(&reader), 1);
    close_something(&path);
    for how in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        foreign.execute_batch("UPDATE t SET n = n + 5").unwrap();
        let moved: rusqlite::Result<(i64, i64)> =
            foreign.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
                Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            });
        assert!(moved.as_ref().is_ok_and(|(frames, moved)| moved < frames), "{how}: {moved:?}");
        assert_eq!(sum(&reader), 1, "{how}");
    }
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(sum(&reader), 41);
}

#[test]
fn an_index_in_use_is_not_begun_anew_and_a_database_in_use_is_not_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = database(directory.path());
    let ours = guarded_connection(&path);
    assert_eq!(sum(&ours), 0);
    close_something(&path);
    let shm = directory.path().join("a.db-shm");
    let shm = path_of(&shm).unwrap();
    let other = open(&shm, libc::O_RDWR, 0, Key::of(&shm).unwrap()).unwrap();
    assert_eq!(set(&other, libc::F_WRLCK, IN_USE, 1), Err(ffi::SQLITE_BUSY));
    assert!(lock_alone(&path).unwrap().is_none());
    drop(ours);
    assert_eq!(set(&other, libc::F_WRLCK, IN_USE, 1), Ok(()));
    assert!(lock_alone(&path).unwrap().is_some());
}

/// What others may not do to us: a connection with SQLite's own methods in this process lost its
/// locks when the last one of ours was closed.
#[test]
fn a_connection_beside_ours_keeps_its_locks() {
    let directory = tempfile::tempdir().unwrap();
    let path = database(directory.path());
    let beside = foreign_connection(&path);
    beside.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    for _ in 0..3 {
        let (one, two) = (guarded_connection(&path), guarded_connection(&path));
        assert_eq!((sum(&one), sum(&two)), (0, 0));
    }
    let later = guarded_connection(&path);
    assert!(is_busy(later.execute_batch("INSERT INTO t VALUES (10)")));
    beside.execute_batch("COMMIT").unwrap();
    later.execute_batch("INSERT INTO t VALUES (100)").unwrap();
    assert_eq!((sum(&beside), sum(&later)), (101, 101));
    drop(later);
    let key = Key::of(&path_of(&path).unwrap()).unwrap();
    let is_of_it = |parked: &&Parked| parked.database == key;
    let open = || CHILDREN.with(|shared| shared.parked.iter().filter(is_of_it).count());
    let parked = open();
    drop(guarded_connection(&path));
    assert_eq!(open(), parked, "descriptors are used again");
}

#[test]
fn a_lock_is_a_bit_for_each_byte() {
    for (first, count, expected) in
        [(0, 1, 1), (1, 1, 2), (3, 5, 0b1111_1000), (0, 8, 0xff), (7, 1, 0x80)]
    {
        assert_eq!(bits(first, count), expected, "{first}, {count}");
    }
}

/// As `os_unix.c` does it: what is held is not raised, what is not held is unlocked without a word.
#[test]
fn locks_of_one_connection_and_of_two() {
    const SHARED: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_SHARED;
    const EXCLUSIVE: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE;
    const UNLOCK: c_int = ffi::SQLITE_SHM_UNLOCK;
    let directory = tempfile::tempdir().unwrap();
    let path = database(directory.path());
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    let key = Key::of(&name).unwrap();
    let index = || match OpenIndex::open(&name, key) {
        Ok(index) => index,
        Err(NotOpened::Left | NotOpened::Code(_)) => panic!("it cannot be opened"),
    };
    let (mut one, mut two) = (index(), index());
    for (step, (who, first, count, flags, expected)) in [
        (1, 0, 1, EXCLUSIVE, ffi::SQLITE_OK),
        (2, 0, 1, EXCLUSIVE, ffi::SQLITE_BUSY),
        (2, 0, 1, SHARED, ffi::SQLITE_BUSY),
        // Of somebody else's.
        (2, 0, 1, UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE, ffi::SQLITE_OK),
        (2, 0, 1, EXCLUSIVE, ffi::SQLITE_BUSY),
        (1, 0, 1, UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE, ffi::SQLITE_OK),
        (2, 0, 1, EXCLUSIVE, ffi::SQLITE_OK),
        (1, 4, 1, SHARED, ffi::SQLITE_OK),
        (1, 4, 1, SHARED, ffi::SQLITE_OK),
        (2, 4, 1, SHARED, ffi::SQLITE_OK),
        (1, 4, 1, EXCLUSIVE, ffi::SQLITE_BUSY),
        (2, 3, 5, EXCLUSIVE, ffi::SQLITE_BUSY),
        (1, 4, 1, UNLOCK | ffi::SQLITE_SHM_SHARED, ffi::SQLITE_OK),
        (2, 4, 1, UNLOCK | ffi::SQLITE_SHM_SHARED, ffi::SQLITE_OK),
        (2, 3, 5, EXCLUSIVE, ffi::SQLITE_OK),
        (1, 7, 1, SHARED, ffi::SQLITE_BUSY),
    ]
    .into_iter()
    .enumerate()
    {
        let index = if who == 1 { &mut one } else { &mut two };
        assert_eq!(index.lock(first, count, flags), expected, "step {step}");
    }
    assert_eq!((one.shared, one.exclusive, two.shared, two.exclusive), (0, 0, 0, 0b1111_1001));
}

/// FIELD-BUGS row 106: root wrote the log of a user's store to whatever the user had put a link to
/// in its place.
#[test]
fn no_link_in_the_place_of_a_wal_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = database(directory.path());
    let (wal, secret) = (directory.path().join("a.db-wal"), directory.path().join("secret"));
    prepare();
    let _ = std::fs::remove_file(&wal);
    for is_there in [true, false] {
        if is_there {
            std::fs::write(&secret, "root's").unwrap();
        } else {
            std::fs::remove_file(&secret).unwrap();
        }
        let _ = std::fs::remove_file(&wal);
        std::os::unix::fs::symlink(&secret, &wal).unwrap();
        let connection = guarded_connection(&path);
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
        drop(connection);
        assert_eq!(std::fs::read(&secret).ok(), is_there.then(|| b"root's".to_vec()));
    }
}
