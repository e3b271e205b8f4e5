"""The package against a gateway that keeps its state in files, in one run: `python benches/files.py`.

The file scheme is written here as such gateways have it: a PID file that is made with O_EXCL, lock
files with JSON, markers and a status that are renamed into place. Each row is the median time of
one operation in microseconds, and files / incumbent: above 1 the package is quicker. Both sides do
their work in the same directory. Build the package with `--release` before.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import incumbent


class Files:
    """State in files, in the usual way."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def _record(self) -> dict[str, Any]:
        stat = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
        return {
            "pid": os.getpid(),
            "kind": "gateway",
            "argv": list(sys.argv),
            "start_time": int(stat[19]),
        }

    def _write(self, name: str, document: dict[str, Any]) -> None:
        descriptor, scratch = tempfile.mkstemp(dir=self.home)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, self.home / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.home / name
        if not path.exists():
            return None
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    def _make(self, name: str, document: dict[str, Any]) -> None:
        descriptor = os.open(self.home / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file)

    def claim_release(self) -> None:
        self._make("gateway.pid", self._record())
        record = self._read("gateway.pid")
        assert record is not None and record["pid"] == os.getpid()
        (self.home / "gateway.pid").unlink()

    def acquire_release(self) -> None:
        name = "token-1.lock"
        assert self._read(name) is None
        self._make(name, {**self._record(), "updated_at": datetime.now(timezone.utc).isoformat()})
        record = self._read(name)
        assert record is not None and record["start_time"] == self._record()["start_time"]
        (self.home / name).unlink()

    def write_status(self) -> None:
        document = self._read("state.json") or self._record()
        document["gateway_state"] = "running"
        document["updated_at"] = datetime.now(timezone.utc).isoformat()
        self._write("state.json", document)

    def read_status(self) -> None:
        assert self._read("state.json") is not None

    def marker(self) -> None:
        self._write("marker.json", {"target_pid": os.getpid(), **self._record()})
        record = self._read("marker.json")
        assert record is not None and record["target_pid"] == os.getpid()
        (self.home / "marker.json").unlink()

    def probe_marker(self) -> None:
        assert self._read("marker.json") is None

    def running_pid(self) -> None:
        record = self._read("running.pid")
        assert record is not None
        os.kill(record["pid"], 0)
        assert Path(f"/proc/{record['pid']}/cmdline").read_bytes()
        assert self._record()["start_time"] == record["start_time"]


def median_us(work: Callable[[], object], rounds: int) -> float:
    """The median of single calls, in microseconds."""
    for _ in range(max(1, rounds // 10)):
        work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        work()
        times.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(times)


def main() -> None:
    """Prints the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        files = Files(home)
        files._make("running.pid", files._record())
        store = incumbent.Store(home / "state.db")
        office, other = store.office("bench"), store.office("other")
        tenure = office.claim()
        tenure.update(state="starting")
        files.write_status()

        def marker() -> None:
            store.write_marker("reload", instance=tenure.instance)
            assert tenure.consume_marker("reload") is not None

        rows: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
            ("claim + release", files.claim_release, lambda: other.claim().release()),
            (
                "acquire + release",
                files.acquire_release,
                lambda: tenure.lock("token", "1").release(),
            ),
            ("status write", files.write_status, lambda: tenure.update(state="running")),
            ("status read", files.read_status, office.runtime),
            ("marker write + consume", files.marker, marker),
            ("marker probe", files.probe_marker, tenure.peek_marker),
            ("running pid", files.running_pid, office.running_pid),
        ]
        print(f"{'operation':<24}{'files':>10}{'incumbent':>12}{'ratio':>8}")
        for name, old, new in rows:
            one, two = median_us(old, rounds), median_us(new, rounds)
            print(f"{name:<24}{one:>10.1f}{two:>12.1f}{one / two:>8.2f}")
        tenure.release()


if __name__ == "__main__":
    main()
