"""What incumbent replaces, written as such scripts are: a directory of JSON files.

A gateway holds an flock on gateway.lock and says who it is in gateway.pid, which it makes with
O_EXCL. A lock is a file that is made with O_EXCL; one whose process is gone may be removed. A status
and a marker are files that are replaced by an atomic rename. Nothing is synced.

    file_scheme.py serve DIRECTORY     does "OPERATION COUNT" per line, and prints nanoseconds
    file_scheme.py status DIRECTORY    answers once, as a process
    file_scheme.py contend DIRECTORY NAME PAUSE_MS SECONDS
                                       takes one filelock in turn with others, prints microseconds
"""

import errno
import fcntl
import json
import os
import sys
import time


def start_time(pid):
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def write_json(path, value):
    new = f"{path}.{os.getpid()}.tmp"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(new, path)


def create_json(path, value):
    """Whether it was not there yet."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file)
    return True


def is_alive(record):
    try:
        os.kill(record["pid"], 0)
        return start_time(record["pid"]) == record["start_time"]
    except OSError:
        return False


class FileScheme:
    def __init__(self, directory):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        self.me = {
            "pid": os.getpid(),
            "kind": "gateway",
            "argv": sys.argv,
            "start_time": start_time(os.getpid()),
        }
        self.count = 0

    def path(self, name):
        return os.path.join(self.directory, name)

    def hold_office(self):
        lock = os.open(self.path("gateway.lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
        record = read_json(self.path("gateway.pid"))
        if record is not None:
            os.unlink(self.path("gateway.pid"))
        assert create_json(self.path("gateway.pid"), self.me)
        return lock

    def claim(self):
        """Takes the office and gives it back."""
        lock = self.hold_office()
        assert lock is not None
        record = read_json(self.path("gateway.pid"))
        if record["pid"] == self.me["pid"]:
            os.unlink(self.path("gateway.pid"))
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)

    def running(self):
        """The pid of the gateway that runs here."""
        record = read_json(self.path("gateway.pid"))
        lock = os.open(self.path("gateway.lock"), os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return record["pid"] if is_alive(record) else None
        finally:
            os.close(lock)

    def lock(self):
        """Takes a scoped lock and gives it back."""
        path = self.path("bot-token-0123456789abcdef.lock")
        existing = read_json(path)
        if existing is not None and not is_alive(existing):
            os.unlink(path)
        record = dict(self.me, scope="bot-token", acquired_at=time.time())
        assert create_json(path, record)
        if read_json(path)["pid"] == self.me["pid"]:
            os.unlink(path)

    def refused(self):
        existing = read_json(self.path("held.lock"))
        assert existing is not None and is_alive(existing)

    def write_status(self):
        path = self.path("gateway_state.json")
        state = read_json(path) or {"platforms": {}}
        self.count += 1
        state.update(self.me, active_agents=self.count, updated_at=time.time())
        state["platforms"]["telegram"] = {
            "state": "connected" if self.count % 2 else "retrying",
            "updated_at": time.time(),
        }
        write_json(path, state)

    def read_status(self):
        assert read_json(self.path("gateway_state.json")) is not None

    def marker(self):
        """Leaves a marker for this process, and takes it."""
        path = self.path(".note.json")
        write_json(path, dict(self.me, target=self.me["pid"], written_at=time.time()))
        found = read_json(path)
        if found["target"] == self.me["pid"]:
            os.unlink(path)

    def peek_marker(self):
        assert read_json(self.path(".there.json")) is not None

    def prepare(self):
        """What others hold, and what is there."""
        self.held = self.hold_office()
        create_json(self.path("held.lock"), self.me)
        self.write_status()
        write_json(self.path(".there.json"), dict(self.me, target=self.me["pid"]))


def file_lock_of(directory):
    from filelock import FileLock

    lock = FileLock(os.path.join(directory, "filelock.lock"))

    def once():
        lock.acquire()
        lock.release()

    return once


def serve(directory):
    scheme = FileScheme(directory)
    scheme.prepare()
    # The office that is taken and given back is another one.
    other = FileScheme(os.path.join(directory, "other"))
    operations = {"claim": other.claim}
    for name in "running lock refused write_status read_status marker peek_marker".split():
        operations[name] = getattr(scheme, name)
    try:
        operations["filelock"] = file_lock_of(directory)
    except ImportError:
        pass
    print("ready", *operations, flush=True)
    for line in sys.stdin:
        name, count = line.split()
        operation = operations[name]
        start = time.perf_counter_ns()
        for _ in range(int(count)):
            operation()
        print(time.perf_counter_ns() - start, flush=True)


def status(directory):
    scheme = FileScheme(directory)
    pid = scheme.running()
    print(f"gateway: running, pid {pid}" if pid else "gateway: not running")
    print(json.dumps(read_json(scheme.path("gateway_state.json"))))


def contend(directory, _name, pause_ms, seconds):
    once = file_lock_of(directory)
    sys.stdin.read()
    end = time.monotonic() + float(seconds)
    took = []
    while time.monotonic() < end:
        start = time.perf_counter_ns()
        once()
        took.append((time.perf_counter_ns() - start) // 1000)
        if int(pause_ms):
            time.sleep(int(pause_ms) / 1000)
    print(*took, sep="\n")


if __name__ == "__main__":
    {"serve": serve, "status": status, "contend": contend}[sys.argv[1]](*sys.argv[2:])
