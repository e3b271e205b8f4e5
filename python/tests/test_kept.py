"""Processes that do not link the engine; counts; the files of an older gateway."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import until

import incumbent
from incumbent import LockRequest, Store


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A program that knows nothing of all this."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("keeper", [True, False])
def test_what_is_recorded_for_a_process_ends_with_it(
    store: Store, other: subprocess.Popen[bytes], keeper: bool
) -> None:
    kept = store.process(other.pid, keeper=keeper, by="a test")
    work = kept.office("work")
    number = work.claim()
    assert work.claim() == number
    work.update(state="running", active_agents=2)
    work.update_platform("telegram", state="connected")
    status = store.office("work").status()
    assert (status.running, status.pid, status.state) == (True, other.pid, "running")
    assert status.platforms["telegram"].state == "connected"
    (known,) = kept.records()
    assert (known.instance, known.profile, known.kind) == (number, "work", "gateway")
    assert (known.keeper_pid is not None) == keeper and known.since is not None
    with pytest.raises(incumbent.Held) as held:
        store.office("work").claim()
    assert held.value.holder.pid == other.pid

    lock = kept.lock("work", "token", "a", ttl=600)
    assert kept.verify_lock("token", "a", fence=lock.fence).instance == lock.instance
    kept.renew_lock("token", "a")
    with pytest.raises(incumbent.Lost):
        kept.verify_lock("token", "a", fence=lock.fence + 1)
    with pytest.raises(incumbent.Held):
        store.lock("token", "a")
    kept.release_lock("token", "a")
    with pytest.raises(incumbent.Lost):
        kept.release_lock("token", "a")
    kept.lock("work", "token", "a")
    assert kept.release_locks() == 1

    store.write_marker("reload", pid=other.pid, reason="new keys")
    assert kept.peek_marker("reload") is not None
    marker = kept.consume_marker()
    assert marker is not None and marker.reason == "new keys"
    assert kept.consume_marker() is None

    other.kill()
    other.wait()
    until(lambda: not store.office("work").is_running())
    assert kept.office("none").release().outcome == "not_held"


def test_a_record_is_released(store: Store, other: subprocess.Popen[bytes]) -> None:
    work = store.process(other.pid).office("work")
    number = work.claim()
    released = work.release()
    assert (released.outcome, released.instance) == ("released", number)
    assert not store.office("work").is_running()
    with pytest.raises(incumbent.Error):
        work.update(state="running")


def test_a_process_that_is_not_there_gets_nothing(store: Store) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(incumbent.Error):
        store.process(gone.pid).office("work").claim()


def test_starts_refusals_and_ends_are_counted(store: Store) -> None:
    assert store.counters() == []
    with store.office("work") as tenure:
        tenure.end(4)
    with store.office("work").claim(locks=[LockRequest("k", "a")]):
        pass
    (work,) = store.counters() or []
    assert (work.profile, work.kind, work.starts, work.refusals) == ("work", "gateway", 2, 0)
    assert (work.restarts, work.takeovers) == (0, 0)
    assert {(it.reason, it.exit_code, it.count) for it in work.ends} == {
        ("exited", 4, 1),
        ("released", None, 1),
    }


def test_files_of_an_older_gateway_are_read_and_written(store: Store, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with store.office("work") as tenure:
        tenure.update(state="degraded", exit_reason="no network")
        written = {Path(it.file).name: it for it in store.export_files(home, "work")}
        assert written["gateway_state.json"].verdict == "written"
    said = json.loads((home / "gateway_state.json").read_text())
    assert (said["pid"], said["gateway_state"]) == (os.getpid(), "degraded")
    # A dead one's, into another store.
    said.update({"pid": 999_999_999, "start_time": 1})
    (home / "gateway_state.json").write_text(json.dumps(said))
    into = Store(tmp_path / "other.db")
    rows = {Path(it.file).name: it for it in into.import_files(home, "work")}
    assert rows["gateway_state.json"].verdict in ("imported", "stale")
    assert rows["gateway_state.json"].reason
    before = (home / "gateway_state.json").read_text()
    assert before == json.dumps(said)
