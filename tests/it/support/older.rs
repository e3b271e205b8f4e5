//! An older gateway program for tests: what it does with its files, in Python, which is what it is
//! written in.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{LIMIT, Process, Run, Sandbox, has, skipped};

/// Does with the files what the older program does: `gateway` takes the lock (or says `refused`),
/// writes its two records and lives until its standard input is closed or it is asked to end, and
/// says by which file it was told before that this is no crash;
/// `running` looks for a running one and cleans up after a dead one; `attempts` looks whether the
/// lock is held again and again, until its standard input is closed, and counts how often it seemed
/// to be. `gateway --leak` starts something that keeps the lock, and says its pid as well; `polls`
/// looks as a later version does, which removes the files of a live process whose command line it
/// does not know, a hundred times, and says how often it found nobody; `stops` and `replaces`
/// announce what they do by a file, and send SIGTERM; `probes` looks without a pause, and `cleans`
/// does what `running` does, over and over.
pub const OLDER: &str = r#"
import fcntl, json, os, signal, sys, threading, time
from datetime import datetime, timedelta, timezone

def start_time(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().split()[21])
    except OSError:
        return None

def record(argv):
    pid = os.getpid()
    return {"pid": pid, "kind": "hermes-gateway", "argv": argv, "start_time": start_time(pid)}

def try_lock(path):
    handle = open(path, "a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except OSError:
        handle.close()
        return None

def is_locked(path):
    if not os.path.exists(path):
        return False
    handle = try_lock(path)
    if handle is None:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    handle.close()
    return False

def read_record(path):
    try:
        with open(path) as file:
            found = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return {"pid": found} if isinstance(found, int) else found

FORMS = ("hermes_cli.main gateway", "hermes_cli/main.py gateway", "hermes gateway", "gateway/run.py")

def looks_like_one(found):
    try:
        with open(f"/proc/{found['pid']}/cmdline", "rb") as file:
            line = file.read().replace(b"\0", b" ").decode(errors="ignore")
    except OSError:
        line = ""
    if any(form in line for form in FORMS + ("hermes-gateway",)):
        return True
    words = " ".join(found.get("argv") or [])
    return found.get("kind") == "hermes-gateway" and any(form in words for form in FORMS)

def clean_up(home):
    for name in ("gateway.pid", "gateway.lock"):
        try:
            os.unlink(os.path.join(home, name))
        except FileNotFoundError:
            pass

def running(home):
    pid_file, lock_file = (os.path.join(home, name) for name in ("gateway.pid", "gateway.lock"))
    if is_locked(lock_file):
        for found in (read_record(pid_file), read_record(lock_file)):
            if not found or not os.path.exists(f"/proc/{found['pid']}"):
                continue
            recorded, now = found.get("start_time"), start_time(found["pid"])
            if recorded is not None and now is not None and recorded != now:
                continue
            if looks_like_one(found):
                return found["pid"]
    clean_up(home)
    return None

def gateway(home, argv):
    handle = try_lock(os.path.join(home, "gateway.lock"))
    if handle is None:
        print("refused", flush=True)
        sys.exit(1)
    handle.seek(0)
    handle.truncate()
    json.dump(record(argv), handle)
    handle.flush()
    pid_file = os.path.join(home, "gateway.pid")
    descriptor = os.open(pid_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(descriptor, json.dumps(record(argv)).encode())
    os.close(descriptor)
    def leave(asked=None, *_):
        for name in (".gateway-takeover.json", ".gateway-planned-stop.json") if asked else ():
            found = read_record(os.path.join(home, name))
            target = found and (found["target_pid"], found["target_start_time"])
            if target == (os.getpid(), start_time(os.getpid())):
                os.unlink(os.path.join(home, name))
                print("was told by", name, flush=True)
        os.unlink(pid_file)
        os._exit(0)
    signal.signal(signal.SIGTERM, leave)
    print(os.getpid(), flush=True)
    if "--leak" in argv:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(600)
            os._exit(0)
        print(child, flush=True)
    sys.stdin.read()
    leave()

def verb_of(line):
    tokens = [token.strip("\"'").replace("\\\\", "/").lower() for token in line.split()]
    names = [token.rsplit("/", 1)[-1] for token in tokens]
    if names and names[0].startswith("python") and "-c" in tokens:
        return None
    if any(token == "gateway/run.py" or token.endswith("/gateway/run.py") for token in tokens):
        return "run"
    if "hermes-gateway" in names:
        return "run"
    if "hermes" not in names and not any("hermes_cli" in token for token in tokens):
        return None
    left, skip = [], False
    for token in tokens:
        if skip:
            skip = False
        elif token in ("-p", "--profile"):
            skip = True
        elif not token.startswith(("-p=", "--profile=")):
            left.append(token)
    if "gateway" not in left:
        return None
    at = left.index("gateway")
    return left[at + 1] if at + 1 < len(left) else "run"

def is_later_one(found, home):
    with open(f"/proc/{found['pid']}/cmdline", "rb") as file:
        line = file.read().replace(b"\0", b" ").decode(errors="ignore").strip()
    if not line:
        line = " ".join(found.get("argv") or [])
    if verb_of(line) not in ("run", "restart"):
        return False
    if home is None or os.path.basename(os.path.dirname(home)) != "profiles":
        return True
    words = line.lower().split()
    named = [after for before, after in zip(words, words[1:]) if before in ("-p", "--profile")]
    return os.path.basename(home) in named or f"hermes_home={home.lower()}" in words

def poll(home, scope):
    pid_file, lock_file = (os.path.join(home, name) for name in ("gateway.pid", "gateway.lock"))
    if is_locked(lock_file):
        for found in (read_record(pid_file), read_record(lock_file)):
            if not found or not os.path.exists(f"/proc/{found['pid']}"):
                continue
            if found.get("start_time") != start_time(found["pid"]):
                continue
            if is_later_one(found, scope):
                return found["pid"]
    clean_up(home)
    return None

verb, home, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
if verb == "gateway":
    gateway(home, ["hermes", "gateway", "run", "--token", "s3cret-of-the-bot"] + rest)
elif verb == "running":
    print(running(home), flush=True)
elif verb == "write":
    # write FILE SHAPE PID: a file as the older program leaves it, or as it was found damaged.
    shape, pid = rest[0], int(rest[1])
    now = datetime.now(timezone.utc)
    base = {"pid": pid, "kind": "hermes-gateway", "argv": ["hermes", "gateway", "run"],
            "start_time": start_time(pid)}
    status = dict(base, gateway_state="running", exit_reason=None, restart_requested=False,
                  active_agents=2, updated_at=now.isoformat(), platforms={
                      "telegram": {"state": "fatal", "error_code": "409",
                                   "error_message": "conflict for bot token=123456:AAEhBP0av28xKq91mZ7t",
                                   "updated_at": now.isoformat()},
                      "slack": {"state": 7, "error_code": None}, "": {"state": "lost"}, "odd": []})
    lock = dict(base, scope="telegram-bot-token", identity_hash=(rest[2:] or ["210fd51512083fab"])[0],
                metadata={"platform": "telegram"}, updated_at=now.isoformat())
    marker = {"target_pid": pid, "target_start_time": start_time(pid), "replacer_pid": os.getpid()}
    text = {
        "json": json.dumps(base), "bare": str(pid), "bom": "\ufeff" + json.dumps(base),
        "null": json.dumps(dict(base, start_time=None)), "empty": "",
        "recycled": json.dumps(dict(base, start_time=1)),
        "wordless": json.dumps(dict(base, start_time=None, argv=[])),
        "bom-null": "\ufeff" + json.dumps(dict(base, start_time=None)),
        "status-null": json.dumps(dict(status, start_time=None)),
        "lock-null": json.dumps(dict(lock, start_time=None)),
        "fresh-null": json.dumps(dict(marker, target_start_time=None, written_at=now.isoformat())),
        "truncated": json.dumps(base)[:25], "list": json.dumps([pid]),
        "status": json.dumps(status, separators=(",", ":")), "lock": json.dumps(lock),
        "bad-scope": json.dumps(dict(lock, scope="../x")),
        "fresh": json.dumps(dict(marker, written_at=now.isoformat())),
        "old": json.dumps(dict(marker, written_at=(now - timedelta(seconds=61)).isoformat())),
        "future": json.dumps(dict(marker, written_at=(now + timedelta(hours=1)).isoformat())),
        "timeless": json.dumps(dict(marker, written_at="yesterday")),
    }.get(shape)
    data = b"\x00\xff\xfe\x01 garbage" if text is None else text.encode()
    with open(home, "wb") as file:
        file.write(data)
elif verb == "polls":
    answers = [poll(home, scope) for _ in range(100) for scope in (None, home)]
    record = read_record(os.path.join(home, "gateway.pid"))
    print(answers.count(None), verb_of(" ".join(record["argv"])) if record else None, flush=True)
elif verb in ("stops", "replaces"):
    pid = int(rest[0])
    name, by = ((".gateway-planned-stop.json", "stopper_pid") if verb == "stops" else
                (".gateway-takeover.json", "replacer_pid"))
    record = {"target_pid": pid, "target_start_time": start_time(pid), by: os.getpid(),
              "written_at": datetime.now(timezone.utc).isoformat()}
    with open(os.path.join(home, name + ".tmp"), "w") as file:
        json.dump(record, file)
    os.rename(os.path.join(home, name + ".tmp"), os.path.join(home, name))
    os.kill(pid, signal.SIGTERM)
    print(os.getpid(), flush=True)
elif verb in ("probes", "cleans"):
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set())).start()
    print("ready", flush=True)
    while not done.is_set():
        is_locked(os.path.join(home, "gateway.lock")) if verb == "probes" else running(home)
elif verb == "attempts":
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set())).start()
    path, count, refused = os.path.join(home, "gateway.lock"), 0, 0
    print("ready", flush=True)
    while not done.is_set() or count < 100:
        count, refused = count + 1, refused + is_locked(path)
        time.sleep(0.0005)
    print(refused, flush=True)
"#;

/// The directory of the older program in a sandbox.
pub struct Older<'a> {
    pub sandbox: &'a Sandbox,
    pub home: PathBuf,
}

impl<'a> Older<'a> {
    pub fn new(sandbox: &'a Sandbox) -> Self {
        let home = sandbox.file("hermes");
        std::fs::create_dir(&home).unwrap();
        std::fs::write(sandbox.file("older.py"), OLDER).unwrap();
        Self { sandbox, home }
    }

    pub fn home(&self) -> &str {
        self.home.to_str().unwrap()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Which file it is.
    pub fn id(&self, name: &str) -> u64 {
        std::fs::metadata(self.file(name)).unwrap().ino()
    }

    pub fn read(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.file(name)).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
    }

    pub fn start(&self, verb: &str) -> Process {
        let mut command = self.sandbox.program("python3");
        command.arg("older.py").args([verb, self.home()]);
        Process::start(command)
    }

    /// An older gateway that has the lock.
    pub fn gateway(&self) -> Process {
        let mut gateway = self.start("gateway");
        assert_eq!(gateway.line(), gateway.pid().to_string());
        gateway
    }

    /// One that has started something which keeps its lock, whose pid comes with it.
    pub fn leaking_gateway(&self) -> (Process, u32) {
        let mut command = self.sandbox.program("python3");
        command.arg("older.py").args(["gateway", self.home(), "--leak"]);
        let mut gateway = Process::start(command);
        assert_eq!(gateway.line(), gateway.pid().to_string());
        let child = gateway.line().parse().unwrap();
        (gateway, child)
    }

    /// A program that the older one knows by its command line.
    pub fn named(&self) -> Process {
        let mut named = self.sandbox.program("/bin/sh");
        named.args(["-c", "read x", "hermes", "gateway", "run"]);
        Process::start(named)
    }

    /// What the older program says of a running gateway; it removes what it takes for a dead one's.
    pub fn running(&self) -> String {
        self.start("running").finish(LIMIT).assert_code(0).out.trim().to_owned()
    }

    /// Leaves a file of this shape about the process `pid`.
    pub fn write(&self, name: &str, shape: &str, pid: u32) {
        self.write_at(&self.file(name), &[shape, &pid.to_string()]);
    }

    pub fn write_at(&self, path: &Path, arguments: &[&str]) {
        let mut command = self.sandbox.program("python3");
        command.args(["older.py", "write"]).arg(path).args(arguments);
        Process::start(command).finish(LIMIT).assert_code(0);
    }

    pub fn locks(&self) -> PathBuf {
        self.sandbox.file("locks")
    }

    pub fn import_with_code(&self, code: i32) -> Vec<String> {
        let locks = self.locks();
        std::fs::create_dir_all(&locks).unwrap();
        let arguments = ["import", self.home(), "--lock-dir", locks.to_str().unwrap()];
        let (got, document) = self.sandbox.json(arguments);
        assert_eq!(got, code, "{document:#}");
        let rows = document.as_array().unwrap_or_else(|| panic!("{document:#}"));
        let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let name =
            |file: String| Path::new(&file).file_name().unwrap().to_string_lossy().into_owned();
        let line = |row: &Value| {
            format!("{} {} {}", name(word(row, "file")), word(row, "verdict"), word(row, "reason"))
        };
        rows.iter().map(line).collect()
    }

    /// Each file with its verdict and why; a second import says the same and changes nothing.
    #[track_caller]
    pub fn assert_import(&self, code: i32, expected: &[&str]) {
        assert_eq!(self.import_with_code(code), expected);
        let events = "SELECT coalesce(max(id), 0) FROM events";
        let before = self.sandbox.number(events);
        assert_eq!(self.import_with_code(code), expected, "the second time");
        assert_eq!(self.sandbox.number(events), before, "the second import changed something");
    }

    pub fn hold(&self) -> Run {
        self.sandbox.hold(&["--legacy-home", self.home()])
    }

    pub fn refused(&self) -> Value {
        let arguments = ["run", "--no-backoff", "--legacy-home", self.home(), "--", "true"];
        let (code, document) = self.sandbox.json(arguments);
        assert_eq!(code, 75, "{document:#}");
        document["holder"].clone()
    }
}

impl Sandbox {
    /// Where there is Python, which the older program is written in.
    pub fn with_python() -> Option<Self> {
        let sandbox = has("python3").then(Self::new);
        if sandbox.is_none() {
            skipped("needs python3");
        }
        sandbox
    }
}
