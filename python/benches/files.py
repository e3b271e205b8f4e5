"""The package against a gateway that keeps its state in files: `python benches/files.py`.

The file scheme is written here as such gateways have it: a lock file that is locked with `flock`,
a PID file that is made with O_EXCL, lock files with JSON, markers and a status that are written
beside their place, synced and renamed. Each row is the median time of one operation in
microseconds, and how often the package does it in the time of the files: above 1 it is quicker. The
column `unsynced` is the files without fsync. Both sides do their work in the same directory, in
turns. A row that does not reach what it should says so, with the reason.

`.ci/python --release` prints it for the wheel as it is published. A debug build says nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

import incumbent
from incumbent import forensics


def start_time(pid: int) -> int:
    """Field 22 of the process, as those gateways read it."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[21])


def field_of(pid: int, key: str) -> str | None:
    """A line of /proc/PID/status; the file is read for each."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith(key + ":"):
                return line.split(":", 1)[1].strip()
    return None


def now() -> str:
    """The time as it stands in the files."""
    return datetime.now(timezone.utc).isoformat()


class Files:
    """State in files, in the usual way."""

    def __init__(self, home: Path, synced: bool) -> None:
        self.home = home
        self.synced = synced
        home.mkdir()
        # Of a gateway that runs: what the questions are about.
        self.running: TextIO = self._lock("running.lock")
        self._make("running.pid", self._record())

    def _record(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "kind": "gateway",
            "argv": list(sys.argv),
            "start_time": start_time(os.getpid()),
        }

    def _sync(self, file: TextIO) -> None:
        file.flush()
        if self.synced:
            os.fsync(file.fileno())

    def _write(self, name: str, document: dict[str, Any]) -> None:
        descriptor, scratch = tempfile.mkstemp(dir=self.home)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, separators=(",", ":"))
            self._sync(file)
        os.replace(scratch, self.home / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.home / name
        if not path.exists():
            return None
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").strip())
        return document

    def _make(self, name: str, document: dict[str, Any]) -> None:
        descriptor = os.open(self.home / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file)

    def _lock(self, name: str) -> TextIO:
        file = open(self.home / name, "a+", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(0)
        file.truncate()
        json.dump(self._record(), file)
        self._sync(file)
        return file

    def _is_ours(self, record: dict[str, Any] | None) -> bool:
        pid = os.getpid()
        return record is not None and (
            record["pid"] == pid and record["start_time"] == start_time(pid)
        )

    def claim_release(self) -> None:
        """The lock of the gateway and its PID file, and back."""
        lock = self._lock("gateway.lock")
        self._make("gateway.pid", self._record())
        record = self._read("gateway.pid")
        assert record is not None and record["pid"] == os.getpid()
        (self.home / "gateway.pid").unlink()
        fcntl.flock(lock, fcntl.LOCK_UN)
        lock.close()

    def acquire_release(self) -> None:
        """A lock on a token, and back."""
        name = "token-1.lock"
        record = {**self._record(), "scope": "token", "metadata": {}, "updated_at": now()}
        assert self._read(name) is None and not (self.home / name).exists()
        self._make(name, record)
        assert self._is_ours(self._read(name))
        (self.home / name).unlink()

    def write_status(self) -> None:
        """One change of what the gateway says."""
        document = self._read("state.json") or self._record()
        document.update(pid=os.getpid(), start_time=start_time(os.getpid()))
        document.update(updated_at=now(), gateway_state="running")
        self._write("state.json", document)

    def read_status(self) -> None:
        """What the gateway says."""
        assert self._read("state.json") is not None

    def marker(self) -> None:
        """A message to one process, and its reception."""
        pid = os.getpid()
        message = {"target_pid": pid, "target_start_time": start_time(pid), "written_at": now()}
        self._write("marker.json", message)
        record = self._read("marker.json")
        assert record is not None
        age = datetime.now(timezone.utc) - datetime.fromisoformat(record["written_at"])
        assert age.total_seconds() < 60 and record["target_start_time"] == start_time(pid)
        (self.home / "marker.json").unlink()

    def probe_marker(self) -> None:
        """Whether there is a message: there is none."""
        assert self._read("marker.json") is None

    def running_pid(self) -> None:
        """Who runs: the lock, the record, the process."""
        with open(self.home / "running.lock", "a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                raise AssertionError("it is held")
            except BlockingIOError:
                pass
        record = self._read("running.pid")
        assert record is not None
        os.kill(record["pid"], 0)
        assert record["start_time"] == start_time(record["pid"])
        assert Path(f"/proc/{record['pid']}/cmdline").read_bytes()

    def snapshot(self) -> None:
        """Who asks us to end, for the log."""
        context: dict[str, Any] = {"ts": time.time(), "loadavg_1m": os.getloadavg()[0]}
        for name, pid in (("parent", os.getppid()), ("self", os.getpid())):
            facts = {key: field_of(pid, key) for key in ("Name", "State", "PPid", "Uid")}
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().replace(b"\x00", b" ").decode("utf-8", "replace")
            context[name] = {**facts, "cmdline": words.strip()[:300]}
        context["tracer_pid"] = field_of(os.getpid(), "TracerPid")
        for marker in ("takeover.json", "planned-stop.json"):
            assert not (self.home / marker).exists()
        assert json.dumps(context)


@dataclass
class Row:
    """One operation on both sides."""

    name: str
    files: Callable[[Files], None]
    ours: Callable[[], object]
    #: How much quicker it should be.
    wanted: float
    #: Why it is as slow as it is.
    reason: str


def medians_us(works: list[Callable[[], object]], rounds: int) -> list[float]:
    """The medians of single calls, in microseconds; one of each in turns."""
    times: list[list[int]] = [[] for _ in works]
    for turn in range(rounds + rounds // 10):
        for work, taken in zip(works, times):
            began = time.perf_counter_ns()
            work()
            took = time.perf_counter_ns() - began
            if turn >= rounds // 10:
                taken.append(took)
    return [statistics.median(it) / 1000 for it in times]


def main() -> None:
    """Prints the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        synced, unsynced = Files(home / "synced", True), Files(home / "unsynced", False)
        store = incumbent.Store(home / "state.db")
        office, other = store.office("bench"), store.office("other")
        tenure = office.claim()
        tenure.update(state="starting")
        for files in (synced, unsynced):
            files.write_status()

        def marker() -> None:
            store.write_marker("reload", instance=tenure.instance)
            assert tenure.consume_marker("reload") is not None

        rows = [
            Row(
                "claim + release",
                Files.claim_release,
                lambda: other.claim().release(),
                3,
                "two transactions, a new file that the kernel locks, events and history",
            ),
            Row(
                "acquire + release",
                Files.acquire_release,
                lambda: tenure.lock("token", "1").release(),
                1,
                "two transactions with a fence and two events; the files have neither",
            ),
            Row(
                "status write",
                Files.write_status,
                lambda: tenure.update(state="running"),
                3,
                "a transaction with an event",
            ),
            Row(
                "status read",
                Files.read_status,
                office.runtime,
                1,
                "a read transaction, and JSON from Rust to Python",
            ),
            Row(
                "marker write + consume",
                Files.marker,
                marker,
                3,
                "two transactions with an event each, and proof that the target lives",
            ),
            Row(
                "marker probe",
                Files.probe_marker,
                tenure.peek_marker,
                1,
                "a read transaction, where files look whether a path exists",
            ),
            Row(
                "running pid",
                Files.running_pid,
                office.running_pid,
                1,
                "the holder's lock is asked of the kernel, and its process is looked at",
            ),
            Row(
                "snapshot",
                Files.snapshot,
                lambda: forensics.snapshot(signal.SIGTERM),
                1,
                "it also has the sender, the unit, the cgroup's memory and the open markers",
            ),
        ]
        print(f"incumbent {incumbent.__version__}, Python {sys.version.split()[0]}, microseconds")
        head = f"{'operation':<24}{'files':>10}{'unsynced':>10}{'incumbent':>11}{'ratio':>8}"
        print(f"{head}{'unsynced':>10}{'wanted':>8}")
        said = []
        for row in rows:

            def of(files: Files, row: Row = row) -> Callable[[], object]:
                return lambda: row.files(files)

            old, quick, new = medians_us([of(synced), of(unsynced), row.ours], rounds)
            figures = f"{row.name:<24}{old:>10.1f}{quick:>10.1f}{new:>11.1f}{old / new:>8.2f}"
            print(f"{figures}{quick / new:>10.2f}{row.wanted:>8.1f}")
            if old / new < row.wanted:
                what = "is slower than files" if old < new else "wins by less than it should"
                said.append(f"{row.name} {what} ({old / new:.2f}): {row.reason}")
            elif quick < new:
                said.append(f"{row.name} is slower than files without fsync: {row.reason}")
        for line in said:
            print(line)
        tenure.release()


if __name__ == "__main__":
    main()
