"""The store itself, markers, events, the past, and what else opens the file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from conftest import Start, until

import incumbent
from incumbent import Lost, Store
from incumbent import doctor, forensics, process


def test_a_question_makes_no_store(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    assert Store.existing(path) is None
    assert list(tmp_path.iterdir()) == []
    Store(path)
    found = Store.existing(str(path))
    assert found is not None and found.path == path and len(found.uuid) > 8


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear Sir, " * 500)
    with pytest.raises(incumbent.NotOurs) as error:
        Store(path)
    assert error.value.path == path and error.value.kind == "not_ours"
    assert path.read_text().startswith("Dear Sir")


def test_markers_reach_one_incarnation_once(store: Store, start: Start) -> None:
    child = start(
        """
        with store.office("work") as tenure:
            say(tenure.instance)
            listen()
            marker = tenure.consume_marker("reload")
            say(marker.name, marker.reason, marker.recorded)
            say(tenure.consume_marker("reload"))
        """
    )
    instance = int(child.line())
    written = store.write_marker("reload", pid=child.pid, reason="new token", ttl=60)
    assert written.instance == instance and written.by_pid == os.getpid()
    assert store.peek_marker(child.pid, "reload") == written
    child.tell()
    assert child.line() == "reload new token True"
    assert child.line() == "None"
    assert store.peek_marker(child.pid) is None


def test_markers_are_taken_back(store: Store) -> None:
    with store.office("work") as tenure:
        store.write_marker("reload", instance=tenure.instance)
        assert store.clear_marker(os.getpid(), "reload") == 1
        assert tenure.peek_marker() is None
        with pytest.raises(incumbent.NotRunning):
            store.write_marker("reload", instance=1)


def test_events_are_followed_and_found_again(store: Store, start: Start) -> None:
    with store.events() as events:
        assert events.next() is None
        child = start("with store.office('work'):\n    pass")
        seen: list[str] = []
        while "office_ended" not in seen:
            event = events.next(wait=True)
            assert event is not None and event.pid == child.pid and event.profile == "work"
            seen.append(event.event)
        child.wait()
        position = events.position
    assert events.next() is None
    assert seen[0] == "office_claimed"
    assert position is not None
    again = [it.event for it in store.past_events(profile="work")]
    assert again == seen
    hour = timedelta(hours=1)
    now = datetime.now(timezone.utc)
    assert store.past_events(since=now + hour) == []
    assert len(store.history(since=now - hour, until=now + hour, limit=5)) == 1


def test_it_is_read_by_sql(store: Store) -> None:
    with store.office("work"):
        rows = store.query("SELECT profile, pid FROM instances WHERE pid = ?1", os.getpid())
        assert rows.columns == ("profile", "pid")
        assert rows.rows == [("work", os.getpid())]
    with pytest.raises(incumbent.Error):
        store.query("DELETE FROM instances")


def test_a_backup_is_a_store(store: Store, tmp_path: Path) -> None:
    store.office("work").claim().release()
    assert store.backup(tmp_path / "copy.db") > 0
    copy = Store.existing(tmp_path / "copy.db")
    assert copy is not None and len(copy.history()) == 1


def test_other_opens_of_the_file_lose_nothing(store: Store, start: Start) -> None:
    """POSIX drops all locks of a process with any close of a file: natural in Python."""
    with store.office("work") as tenure:
        lock = tenure.lock("k", "a")
        open(store.path, "rb").close()
        with sqlite3.connect(f"file:{store.path}?mode=ro", uri=True) as connection:
            connection.execute("SELECT count(*) FROM instances").fetchone()
        connection.close()
        tenure.update(state="running")
        tenure.verify()
        lock.verify()
        child = start("say(store.office('work').try_claim().pid)")
        assert int(child.line()) == os.getpid()


def test_a_store_that_is_deleted_is_noticed(store: Store) -> None:
    tenure = store.office("work").claim()
    os.unlink(store.path)
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{store.path}{suffix}")
    shutil.rmtree(f"{store.path}.anchors")

    def is_lost() -> bool:
        try:
            tenure.verify()
        except (Lost, incumbent.StoreReplaced):
            return True
        return False

    until(is_lost)
    tenure.release()


def test_two_stores_are_two(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one.db"), Store(tmp_path / "other.db")
    with one.office("work") as first, other.office("work") as second:
        assert not first.reacquired and not second.reacquired
        first.verify()
        second.verify()


def test_processes_are_looked_at_and_ended(start: Start) -> None:
    child = start("say('lives')\nlisten()")
    child.line()
    assert process.exists(child.pid) is True
    started = process.start_time(child.pid)
    assert started is not None and started.value > 0 and started.unit == "ticks"
    words = process.command_line(child.pid)
    assert words is not None and words[1] == "-c"
    identity = process.identify(child.pid)
    assert process.terminate(identity, 30) == "ended"
    child.wait()
    assert process.exists(child.pid) is False
    assert process.terminate(identity, 1) == "was_gone"


def test_the_doctor_finds_the_dead_and_repairs(store: Store, start: Start) -> None:
    child = start("tenure = store.office('work').claim()\nsay('holds')\nlisten()")
    child.line()
    child.kill()
    assert all(it.id and it.severity for it in doctor.examine(store.path))
    would = doctor.repair(store.path, dry_run=True)
    assert store.history()[0].ended_at is None or would == []
    done = doctor.repair(store.path)
    # What was of the record goes with it.
    assert {it.check for it in would} <= {it.check for it in done}
    assert doctor.repair(store.path, dry_run=True) == []


def test_a_snapshot_is_taken(store: Store, tmp_path: Path) -> None:
    snapshot = forensics.snapshot(15)
    assert snapshot.facts["signal"] == "SIGTERM" and snapshot.facts["pid"] == os.getpid()
    assert "signal=SIGTERM" in snapshot.log_line
    check = forensics.check_systemd(10)
    assert check["drain_timeout"] == 10
