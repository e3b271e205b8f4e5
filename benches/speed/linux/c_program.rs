//! The C program that answers `status` with the SQLite that we have inside.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// As libsqlite3-sys compiles it: neither has a feature that the other one does not pay for.
const FLAGS: [&str; 18] = [
    "-DSQLITE_CORE",
    "-DSQLITE_DEFAULT_FOREIGN_KEYS=1",
    "-DSQLITE_ENABLE_API_ARMOR",
    "-DSQLITE_ENABLE_COLUMN_METADATA",
    "-DSQLITE_ENABLE_DBSTAT_VTAB",
    "-DSQLITE_ENABLE_FTS3",
    "-DSQLITE_ENABLE_FTS3_PARENTHESIS",
    "-DSQLITE_ENABLE_FTS5",
    "-DSQLITE_ENABLE_JSON1",
    "-DSQLITE_ENABLE_LOAD_EXTENSION=1",
    "-DSQLITE_ENABLE_MEMORY_MANAGEMENT",
    "-DSQLITE_ENABLE_RTREE",
    "-DSQLITE_ENABLE_STAT4",
    "-DSQLITE_SOUNDEX",
    "-DSQLITE_THREADSAFE=1",
    "-DSQLITE_USE_URI",
    "-DHAVE_USLEEP=1",
    "-DHAVE_ISNAN",
];

const C_LIBRARY: &str = if cfg!(target_env = "musl") { "musl" } else { "gnu" };

/// Built once for each version of its source, SQLite and flags; `None`, said on standard error,
/// where that cannot be done.
pub fn build() -> Option<PathBuf> {
    let sqlite = match sqlite_source() {
        Ok(sqlite) => sqlite,
        Err(why) => {
            eprintln!("SKIPPED: the C program: {why}");
            return None;
        }
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/speed/linux/status.c");
    let object = kept(&[&sqlite.join("sqlite3.c")], "sqlite3", ".o");
    let program = kept(&[&sqlite.join("sqlite3.c"), &source], "status", "");
    let cc = |arguments: &mut Command| {
        let run = arguments.stdin(Stdio::null()).output();
        run.is_ok_and(|output| output.status.success())
    };
    if !object.exists()
        && !cc(Command::new("cc")
            .args(["-O3", "-w", "-c"])
            .args(FLAGS)
            .arg(sqlite.join("sqlite3.c"))
            .arg("-o")
            .arg(&object))
    {
        eprintln!("SKIPPED: the C program: cc is missing or cannot compile SQLite");
        return None;
    }
    if !program.exists() {
        let link = |how: &[&str]| {
            cc(Command::new("cc")
                .args(["-O3", "-w", "-I"])
                .arg(&sqlite)
                .arg(&source)
                .arg(&object)
                .args(how)
                .args(["-lm", "-lpthread", "-ldl", "-o"])
                .arg(&program))
        };
        if !link(&["-static"]) {
            eprintln!("the C program cannot be linked statically here: dynamically");
            if !link(&[]) {
                eprintln!("SKIPPED: the C program: cc cannot link it");
                return None;
            }
        }
    }
    Some(program)
}

/// Where it is kept between runs, by what its sources are now.
fn kept(sources: &[&Path], name: &str, ending: &str) -> PathBuf {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    FLAGS.hash(&mut hasher);
    for source in sources {
        std::fs::read(source).expect("a source").hash(&mut hasher);
    }
    let file = format!("speed-{name}-{:016x}{ending}", hasher.finish());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(file)
}

/// The directory of `sqlite3.c`, as cargo knows it.
fn sqlite_source() -> Result<PathBuf, String> {
    // What other platforms need is not there without a network.
    let host = format!("{}-unknown-linux-{}", std::env::consts::ARCH, C_LIBRARY);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(["--filter-platform", &host, "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .map_err(|error| format!("no cargo ({error})"))?;
    let all: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)))?;
    let packages = all["packages"].as_array().cloned().unwrap_or_default();
    let manifest = packages
        .iter()
        .find(|package| package["name"] == "libsqlite3-sys")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo does not know where SQLite is")?;
    Ok(Path::new(manifest).with_file_name("sqlite3"))
}
