"""Beside an older program, which keeps its state in files: neither starts a second gateway, neither
removes the other's files, and a stop by one is a planned stop for the other.

The older program is written here, in the shapes that it has in the field: an exclusive `flock` on
`gateway.lock` with a record in it, the same record in `gateway.pid`, `gateway_state.json`, and a
marker file before a signal.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import Start

from incumbent import Store

#: `sys.argv[2]` is the home.
OLDER = """
import fcntl, json
from pathlib import Path
home = Path(sys.argv[2])
home.mkdir(exist_ok=True)
def record():
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    argv = ["hermes", "gateway", "run"]
    return {"pid": os.getpid(), "kind": "hermes-gateway", "argv": argv, "start_time": ticks}
def try_start():
    file = open(home / "gateway.lock", "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.seek(0)
    file.truncate()
    json.dump(record(), file)
    file.flush()
    (home / "gateway.pid").write_text(json.dumps(record()))
    return file
def running():
    with open(home / "gateway.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return json.loads((home / "gateway.pid").read_text())
def announce(name, target):
    writer = "replacer_pid" if name == "takeover" else "stopper_pid"
    from datetime import datetime, timezone
    (home / f".gateway-{name}.json").write_text(json.dumps({
        "target_pid": target["pid"], "target_start_time": target["start_time"],
        writer: os.getpid(), "written_at": datetime.now(timezone.utc).isoformat(),
    }))
"""

NEWER = """
from incumbent.compat import configure, status
configure(store=sys.argv[1], home=sys.argv[2])
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_an_older_gateway_is_kept_out_by_a_newer_one(home: Path, start: Start) -> None:
    newer = start(NEWER + "say(status.acquire_gateway_runtime_lock())\nlisten()", str(home))
    assert newer.line() == "True"
    older = start(
        OLDER + "say(try_start() is None, running()['pid'], running()['kind'])", str(home)
    )
    assert older.line() == f"True {newer.pid} hermes-gateway"
    older.wait()
    # The files are what the older program expects, and those of the one that has it.
    said = json.loads((home / "gateway.pid").read_text())
    assert said["pid"] == newer.pid and isinstance(said["start_time"], int)
    newer.kill()
    again = start(OLDER + "say(try_start() is not None)\nlisten()", str(home))
    assert again.line() == "True"


def test_a_newer_gateway_is_kept_out_by_an_older_one(home: Path, start: Start) -> None:
    older = start(OLDER + "file = try_start()\nsay(file is not None)\nlisten()", str(home))
    assert older.line() == "True"
    newer = start(
        NEWER
        + """
say(status.acquire_gateway_runtime_lock(), status.get_running_pid())
listen()
say(status.acquire_gateway_runtime_lock(), status.get_running_pid() == os.getpid())
listen()
""",
        str(home),
    )
    assert newer.line().split()[0] == "False"
    assert json.loads((home / "gateway.pid").read_text())["pid"] == older.pid
    older.kill()
    newer.tell()
    assert newer.line() == "True True"


def test_files_that_an_older_program_removes_are_put_back(home: Path, start: Start) -> None:
    newer = start(NEWER + "say(status.acquire_gateway_runtime_lock())\nlisten()", str(home))
    newer.line()
    for name in ("gateway.pid", "gateway.lock"):
        os.unlink(home / name)
        remover = start(
            """
            while not os.path.exists(sys.argv[2]):
                time.sleep(0.005)
            say("is there")
            """,
            str(home / name),
        )
        assert remover.line() == "is there"
    older = start(OLDER + "say(try_start() is None)", str(home))
    assert older.line() == "True"


def test_a_stop_by_an_older_program_is_a_planned_stop(
    home: Path, store: Store, start: Start
) -> None:
    newer = start(
        NEWER
        + """
stopped = []
def on_stop(*_):
    stopped.append(status.consume_planned_stop_marker_for_self())
signal.signal(signal.SIGTERM, on_stop)
say(status.acquire_gateway_runtime_lock())
while not stopped:
    time.sleep(0.01)
say(stopped[0])
status.release_gateway_runtime_lock()
""",
        str(home),
    )
    newer.line()
    older = start(
        OLDER
        + """
target = running()
announce("planned-stop", target)
os.kill(target["pid"], signal.SIGTERM)
say("stopped it")
""",
        str(home),
    )
    older.line()
    assert newer.line() == "True"
    assert newer.wait() == 0
    assert not (home / ".gateway-planned-stop.json").exists()
    assert store.history()[0].end_reason == "planned_stop"


def test_a_takeover_of_an_older_gateway_is_announced_to_it(home: Path, start: Start) -> None:
    older = start(
        OLDER
        + """
signal.signal(signal.SIGTERM, lambda *_: None)
file = try_start()
say(file is not None)
listen()
marker = json.loads((home / ".gateway-takeover.json").read_text())
say((marker["target_pid"], marker["target_start_time"]) == (os.getpid(), record()["start_time"]))
""",
        str(home),
    )
    older.line()
    code = NEWER + "say(status.write_takeover_marker(int(sys.argv[3])))"
    newer = start(code, str(home), str(older.pid))
    assert newer.line() == "True"
    older.tell()
    assert older.line() == "True"


def test_statuses_are_read_by_older_programs(home: Path, start: Start) -> None:
    newer = start(
        NEWER
        + """
status.acquire_gateway_runtime_lock()
status.write_runtime_status(gateway_state="running", platform="telegram", platform_state="ok")
say("said")
listen()
status.write_runtime_status(gateway_state="stopped", exit_reason="done")
status.release_gateway_runtime_lock()
say("gone")
""",
        str(home),
    )
    newer.line()
    said = json.loads((home / "gateway_state.json").read_text())
    assert said["gateway_state"] == "running" and said["platforms"]["telegram"]["state"] == "ok"
    assert said["pid"] == newer.pid
    newer.tell()
    newer.line()
    assert json.loads((home / "gateway_state.json").read_text())["gateway_state"] == "stopped"
    assert not (home / "gateway.pid").exists()


def test_signals_are_not_swallowed(home: Path, start: Start) -> None:
    newer = start(NEWER + "say(status.acquire_gateway_runtime_lock())\nlisten()", str(home))
    newer.line()
    newer.signal(signal.SIGTERM)
    assert newer.wait() == -signal.SIGTERM
