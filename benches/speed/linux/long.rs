//! What grows where nobody looks for months: a million of each, and ten thousand crashes.
//!
//! `long [COUNT]`: so many lock cycles and status updates (a million), and a hundredth of that of
//! crashes, of anchors without an owner, and a thousandth of waiters for one lock.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use incumbent::lock::AcquireOptions;
use incumbent::{Acquire, StatusUpdate, Wait};

use super::library::{acquire, claim_as, request, store};
use super::measure::{Spread, micros, now};
use super::roles::{IDENTITY, Role, text};
use super::stores::Places;
use super::table::{Row, Table, Target, spread, time};

const MILLION: u64 = 1_000_000;

/// How many operations one look at the time takes together.
const WINDOW: usize = 1_000;

/// Neither times nor files may be this many times what they were.
const GROWN_MAX: f64 = 1.3;

pub fn main(numbers: &[u64]) {
    let count = usize::try_from(numbers.first().copied().unwrap_or(MILLION)).expect("a count");
    let places = Places::new();
    let mut table = Table::default();
    rows(&mut table, &places, count);
    println!("{}\n{}\n{}", super::page::machine(), table.markdown(), table.summary());
}

/// With fewer of each they are rows of the whole table.
pub fn rows(table: &mut Table, places: &Places, count: usize) {
    type Work = fn(&mut Table, &Places, usize);
    let all: [(&str, usize, Work); 5] = [
        ("acquire + release a lock", count, many_locks),
        ("update a status", count, many_updates),
        ("crashes", count.div_ceil(100), crashes),
        ("anchors without an owner", count.div_ceil(100), orphans),
        ("waiters for one lock", count.div_ceil(1_000), waiters),
    ];
    for (name, count, work) in all {
        if table.wants(&format!("{count} x {name}")) {
            work(table, places, count);
        }
    }
}

/// KiB of the store's files together.
fn size_kib(path: &Path) -> f64 {
    let of = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).map_or(0, |facts| facts.len())
    };
    #[allow(clippy::cast_precision_loss, reason = "some megabytes")]
    let kib = (of("") + of("-wal")) as f64 / 1_024.0;
    kib
}

/// The mean of one in the first and in the last window, and the sizes when history is full and at
/// the end.
fn repeat(table: &mut Table, name: &str, path: &Path, count: usize, mut once: impl FnMut()) {
    // By then all that is kept is there: 10,000 events, 200 rows of history.
    let full_at = (count / 10).clamp(1, 20_000);
    let mut means = Vec::new();
    let (mut full_kib, mut largest_kib) = (0.0, 0.0_f64);
    let mut done = 0;
    while done < count {
        let start = now();
        for _ in 0..WINDOW {
            once();
        }
        #[allow(clippy::cast_precision_loss, reason = "a thousand")]
        means.push(micros(start.elapsed()) / WINDOW as f64);
        done += WINDOW;
        if done <= full_at + WINDOW {
            full_kib = size_kib(path).max(full_kib);
        } else {
            largest_kib = largest_kib.max(size_kib(path));
        }
    }
    // The first window is that of an empty store; the next ones tell more.
    let early = Spread::of(means.iter().copied().take(10).collect()).p50();
    let late = Spread::of(means.iter().rev().copied().take(10).collect()).p50();
    table.push(Row {
        name: format!("{done} x {name}"),
        ours: format!(
            "first thousands {}, last {}; files {full_kib:.0} KiB when full, then {largest_kib:.0}",
            time(early),
            time(late)
        ),
        targets: vec![
            Target::at_most("the first thousands", GROWN_MAX, Some(late / early), "x"),
            Target::at_most("the files when full", GROWN_MAX, Some(largest_kib / full_kib), "x"),
        ],
        ..Row::default()
    });
}

fn many_locks(table: &mut Table, places: &Places, count: usize) {
    let path = places.store("long locks");
    let store = store(&path);
    let _tenure = claim_as(&store, "default");
    let _another = acquire(&store, "another");
    repeat(table, "acquire + release a lock", &path, count, || {
        drop(acquire(&store, "cycled").release().expect("released"));
    });
}

fn many_updates(table: &mut Table, places: &Places, count: usize) {
    let path = places.store("long status");
    let tenure = claim_as(&store(&path), "default");
    let mut agents = 0_u64;
    repeat(table, "update a status", &path, count, || {
        agents += 1;
        tenure.update_status(&StatusUpdate::new().active_agents(agents)).expect("written");
    });
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

/// Owners that are killed, one after the other, beside one that lives.
fn crashes(table: &mut Table, places: &Places, count: usize) {
    let path = places.store("long crashes");
    let store = store(&path);
    let _tenure = claim_as(&store, "witness");
    let anchors = path.with_file_name("state.db.anchors");
    let descriptors = || entries(Path::new("/proc/self/fd"));
    let (mut anchors_at, mut descriptors_at) = (Vec::new(), Vec::new());
    for number in 0..count {
        drop(Role::holding(if number % 2 == 0 { "office" } else { "lock" }, &path));
        if number == count / 10 || number + 1 == count {
            anchors_at.push(entries(&anchors));
            descriptors_at.push(descriptors());
        }
    }
    let grown = |counts: &[usize]| {
        #[allow(clippy::cast_precision_loss, reason = "some")]
        let times = counts[counts.len() - 1] as f64 / counts[0].max(1) as f64;
        Some(times)
    };
    table.push(Row {
        name: format!("{count} x crashes"),
        ours: format!("anchors {anchors_at:?}, descriptors {descriptors_at:?} (early, late)"),
        targets: vec![
            Target::at_most("the anchors of a tenth", 2.0, grown(&anchors_at), "x"),
            Target::at_most("the descriptors of a tenth", 1.0, grown(&descriptors_at), "x"),
        ],
        ..Row::default()
    });
}

/// Anchors that nobody holds and no row names: no call that clears them takes long.
fn orphans(table: &mut Table, places: &Places, count: usize) {
    let path = places.store("long orphans");
    let store = store(&path);
    let profile = store.profile("default").expect("a profile");
    let anchors = path.with_file_name("state.db.anchors");
    std::fs::create_dir_all(&anchors).expect("a directory");
    let id = store.uuid().expect("an id");
    for number in 0..count {
        let name = format!("{id}-{}-{number:016x}.lock", 100_000 + number);
        std::fs::write(anchors.join(name), "").expect("an anchor");
    }
    let mut took = Vec::new();
    while took.len() < 20 || (entries(&anchors) > 10 && took.len() < count + 20) {
        let start = now();
        let claim = profile.claim().expect("an answer");
        drop(claim);
        took.push(micros(start.elapsed()));
    }
    let calls = took.len();
    let took = Spread::of(took);
    table.push(Row {
        name: format!("{count} x anchors without an owner"),
        ours: format!(
            "cleared to {} by {calls} claims: {}, worst {}",
            entries(&anchors),
            spread(&took),
            time(took.worst())
        ),
        targets: vec![Target::at_most("for any claim", 50.0, Some(took.worst() / 1e3), " ms")],
        ..Row::default()
    });
}

/// All wait for one lock, and each gives it to the next.
fn waiters(table: &mut Table, places: &Places, count: usize) {
    const BEGIN_WITHIN: Duration = Duration::from_mins(5);
    let path = places.store("long waiters");
    let holder = Role::holding("lock", &path);
    let (mut said, say) = std::io::pipe().expect("a pipe");
    let mut children: Vec<_> = (0..count)
        .map(|_| {
            Role::command(&["queue", text(&path)])
                .stdin(Stdio::null())
                .stdout(Stdio::from(say.try_clone().expect("a pipe")))
                .spawn()
                .expect("a waiter")
        })
        .collect();
    drop(say);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(&path, flags).expect("a reader");
    connection.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    let waiting = || {
        let count = connection.query_row("SELECT count(*) FROM waiters", [], |row| row.get(0));
        count.map_or(0, |count: i64| usize::try_from(count).unwrap_or(0))
    };
    let start = now();
    while waiting() < count && start.elapsed() < BEGIN_WITHIN {
        std::thread::sleep(Duration::from_millis(50));
    }
    let arrived = waiting();
    let start = now();
    drop(holder);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut said, &mut text).expect("their words");
    let all = start.elapsed();
    for child in &mut children {
        let _ = child.wait();
    }
    let served = text.lines().filter(|line| *line == "served").count();
    #[allow(clippy::cast_precision_loss, reason = "some")]
    let served_part = served as f64 / count as f64;
    #[allow(clippy::cast_precision_loss, reason = "some")]
    let each = micros(all) / count as f64;
    let mut ours = format!("{arrived} waited, {served} served in {}", time(micros(all)));
    let _ = write!(ours, ", {} each", time(each));
    table.push(Row {
        name: format!("{count} x waiters for one lock"),
        ours,
        targets: vec![Target::at_least("of them served", 1.0, Some(served_part), "x")],
        ..Row::default()
    });
}

/// One of the waiters.
pub fn queue(path: &Path) {
    let store = store(path);
    let options = AcquireOptions::new().wait(Wait::Forever);
    match store.acquire(&request(IDENTITY), &options).expect("an answer") {
        Acquire::Granted(lock) => drop(lock.release().expect("released")),
        Acquire::Held(holder) => panic!("{holder}"),
    }
    println!("served");
}
