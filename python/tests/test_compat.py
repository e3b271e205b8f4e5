"""The drop-in modules: what a gateway that kept its state in files relies on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Start, until

import incumbent
from incumbent.compat import _gateway, configure, shutdown_forensics, status

#: A gateway that changed one import.
GATEWAY = """
from pathlib import Path
from incumbent.compat import configure, shutdown_forensics, status
configure(store=sys.argv[1], home=sys.argv[2])
"""


@pytest.fixture
def home(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("INCUMBENT_PROFILE", raising=False)
    home = tmp_path / "home"
    configure(store=path, home=home)
    yield home
    status.release_all_scoped_locks(owner_pid=os.getpid())
    status.remove_pid_file()
    status.release_gateway_runtime_lock()
    _gateway.held().unsaid.clear()
    _gateway.held().unsaid_platforms.clear()
    configure()


def test_one_gateway_has_the_runtime_lock(home: Path, start: Start) -> None:
    child = start(GATEWAY + "say(status.acquire_gateway_runtime_lock())\nlisten()", str(home))
    assert child.line() == "True"
    assert status.is_gateway_runtime_lock_active()
    assert status.is_gateway_runtime_lock_active(home / "gateway.lock")
    assert not status.acquire_gateway_runtime_lock()
    assert status.get_running_pid() == child.pid
    assert status.get_running_pid(home / "gateway.pid", cleanup_stale=False) == child.pid
    assert status.is_gateway_running()
    with pytest.raises(FileExistsError):
        status.write_pid_file()
    child.kill()
    assert status.get_running_pid() is None
    status.write_pid_file()
    assert status.acquire_gateway_runtime_lock()
    assert status.get_running_pid() == os.getpid()


def test_the_office_is_held_for_as_long_as_one_of_the_two_is_wanted(home: Path) -> None:
    assert status.acquire_gateway_runtime_lock()
    assert status.acquire_gateway_runtime_lock()
    status.write_pid_file()
    status.remove_pid_file()
    assert status.is_gateway_running()
    status.release_gateway_runtime_lock()
    assert not status.is_gateway_running()
    status.release_gateway_runtime_lock()
    status.remove_pid_file()


def test_homes_are_gateways_of_their_own(home: Path, tmp_path: Path) -> None:
    assert status.acquire_gateway_runtime_lock()
    other = tmp_path / "other"
    assert status.get_running_pid(other / "gateway.pid") is None
    assert not status.is_gateway_runtime_lock_active(other / "gateway.lock")


def test_a_question_makes_no_store_and_no_file(tmp_path: Path) -> None:
    configure(store=tmp_path / "none.db", home=tmp_path / "home")
    try:
        assert status.get_running_pid() is None
        assert status.read_runtime_status() is None
        assert not status.is_gateway_runtime_lock_active()
        assert status.release_all_scoped_locks() == 0
        status.clear_takeover_marker()
        assert list(tmp_path.iterdir()) == []
    finally:
        configure()


def test_status_is_merged_and_has_the_older_shape(home: Path) -> None:
    # Said before there is an office: published with it.
    status.write_runtime_status(gateway_state="starting", active_agents=-3)
    assert status.read_runtime_status() is None
    assert status.acquire_gateway_runtime_lock()
    status.write_runtime_status(
        platform="telegram", platform_state="connected", error_code="e", error_message="m"
    )
    status.write_runtime_status(gateway_state="running", restart_requested=1, active_agents="2")
    status.write_runtime_status(platform="telegram", error_code=None, error_message=None)
    said = status.read_runtime_status()
    assert said is not None
    assert list(said) == [
        "pid",
        "kind",
        "argv",
        "start_time",
        "gateway_state",
        "exit_reason",
        "restart_requested",
        "active_agents",
        "platforms",
        "updated_at",
    ]
    assert said["pid"] == os.getpid() and said["kind"] == "hermes-gateway"
    assert said["start_time"] == status.get_process_start_time(os.getpid())
    assert (said["gateway_state"], said["exit_reason"]) == ("running", None)
    assert (said["restart_requested"], said["active_agents"]) == (True, 2)
    telegram = said["platforms"]["telegram"]
    assert sorted(telegram) == ["error_code", "error_message", "state", "updated_at"]
    assert telegram["state"] == "connected" and telegram["error_code"] is None
    # Programs that read the file see the same.
    shown = json.loads((home / "gateway_state.json").read_text())
    assert {**shown, "updated_at": None} == {**said, "updated_at": None}


def test_the_dead_are_not_shown_running(home: Path, start: Start) -> None:
    code = """
status.acquire_gateway_runtime_lock()
status.write_runtime_status(gateway_state=sys.argv[3])
say("said")
listen()
"""
    for said, shown in (("running", "stopped"), ("startup_failed", "startup_failed")):
        child = start(GATEWAY + code, str(home), said)
        child.line()
        child.kill()
        document = status.read_runtime_status()
        assert document is not None and document["gateway_state"] == shown


def test_scoped_locks_answer_as_before(home: Path, start: Start) -> None:
    code = "say(status.acquire_scoped_lock('token', 'a:b', {'platform': 'x'}))\nlisten()"
    child = start(GATEWAY + code, str(home))
    assert child.line() == "(True, None)"
    granted, record = status.acquire_scoped_lock("token", "a:b")
    assert not granted and record is not None
    assert record["pid"] == child.pid and record["metadata"] == {"platform": "x"}
    assert record["scope"] == "token"
    assert record["identity_hash"] == hashlib.sha256(b"a:b").hexdigest()[:16]
    assert record["start_time"] == status.get_process_start_time(child.pid)
    # What another has is not given back from here, nor removed while it lives.
    status.release_scoped_lock("token", "a:b")
    assert status.release_all_scoped_locks(owner_pid=child.pid) == 0
    assert status.release_all_scoped_locks() == 0
    assert not status.acquire_scoped_lock("token", "a:b")[0]
    child.kill()
    assert status.release_all_scoped_locks(owner_pid=child.pid) == 1
    assert status.acquire_scoped_lock("token", "a:b", {"n": 1}) == (True, None)
    again, had = status.acquire_scoped_lock("token", "a:b", {"n": 2})
    assert again and had is not None and had["pid"] == os.getpid() and had["metadata"] == {"n": 1}
    assert status.release_all_scoped_locks(owner_pid=os.getpid(), owner_start_time=1) == 0
    assert status.release_all_scoped_locks(owner_pid=os.getpid()) == 1
    status.release_scoped_lock("token", "a:b")


def test_a_stopped_holder_keeps_its_lock_unless_that_was_asked_for(
    home: Path, path: Path, start: Start
) -> None:
    child = start(GATEWAY + "say(status.acquire_scoped_lock('token', 'a'))\nlisten()", str(home))
    child.line()
    child.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert not status.acquire_scoped_lock("token", "a")[0]
    configure(store=path, home=home, evict_stopped=True)
    assert status.acquire_scoped_lock("token", "a")[0]


@pytest.mark.parametrize("name", ["takeover", "planned_stop"])
def test_a_marker_reaches_the_process_that_it_names_once(
    home: Path, start: Start, name: str
) -> None:
    code = f"""
say(status.acquire_gateway_runtime_lock())
listen()
say(status.consume_{name}_marker_for_self(), status.consume_{name}_marker_for_self())
listen()
say(status.consume_{name}_marker_for_self())
"""
    child = start(GATEWAY + code, str(home))
    child.line()
    write = getattr(status, f"write_{name}_marker")
    assert write(child.pid)
    # It is not for us, and stays.
    assert not getattr(status, f"consume_{name}_marker_for_self")()
    child.tell()
    assert child.line() == "True False"
    assert write(child.pid)
    getattr(status, f"clear_{name}_marker")()
    child.tell()
    assert child.line() == "False"


def test_processes_are_told_apart(home: Path, start: Start) -> None:
    child = start("say('lives')\nlisten()")
    child.line()
    assert status._pid_exists(child.pid) and status._pid_exists(1)
    assert not status._pid_exists(0) and not status._pid_exists(-1)
    assert status.get_process_start_time(child.pid) == status._get_process_start_time(child.pid)
    stat = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
    assert status.get_process_start_time(child.pid) == int(stat[19])
    words = status._read_process_cmdline(child.pid)
    assert words is not None and words.startswith(sys.executable)
    assert not status._looks_like_gateway_process(child.pid)
    status.terminate_pid(child.pid)
    assert child.wait() == -signal.SIGTERM
    assert not status._pid_exists(child.pid)
    with pytest.raises(ProcessLookupError):
        status.terminate_pid(child.pid)


def test_force_ends_a_process_that_ignores_the_question(home: Path, start: Start) -> None:
    child = start("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('lives')\nlisten()")
    child.line()
    status.terminate_pid(child.pid)
    child.tell()
    assert child.wait() == 0
    child = start("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('lives')\ntime.sleep(600)")
    child.line()
    status.terminate_pid(child.pid, force=True)
    assert child.wait() == -signal.SIGKILL
    with pytest.raises(incumbent.Error):
        status.terminate_pid(os.getpid())


def test_a_context_is_taken_and_printed(home: Path) -> None:
    context = shutdown_forensics.snapshot_shutdown_context(signal.SIGTERM)
    assert (context["signal"], context["signal_num"]) == ("SIGTERM", 15)
    assert context["self"]["pid"] == os.getpid() and context["ppid"] == os.getppid()
    assert context["parent"]["uid"] == str(os.getuid())
    assert isinstance(context["under_systemd"], bool)
    assert "takeover_marker" not in context
    line = shutdown_forensics.format_context_for_log(context)
    assert line.startswith("signal=SIGTERM under_systemd=")
    assert f" parent_pid={os.getppid()} parent_name=" in line and "parent_cmdline='" in line
    assert json.loads(shutdown_forensics.context_as_json(context))["pid"] == os.getpid()
    assert shutdown_forensics.context_as_json({"a": {1: 1, "b": 2}}) == "{}"
    assert shutdown_forensics.snapshot_shutdown_context()["signal"] == "UNKNOWN"
    assert shutdown_forensics.snapshot_shutdown_context("odd")["signal"] == "odd"
    assert shutdown_forensics.snapshot_shutdown_context(77)["signal"] == "signal#77"


def test_a_context_names_the_markers_of_this_process(home: Path) -> None:
    assert status.acquire_gateway_runtime_lock()
    assert status.write_takeover_marker(os.getpid())
    context = shutdown_forensics.snapshot_shutdown_context(15)
    assert context["takeover_marker_for_self"] is True
    assert "takeover_marker_present=self" in shutdown_forensics.format_context_for_log(context)


def test_a_diagnostic_is_detached(home: Path, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "diagnostic.log"
    pid = shutdown_forensics.spawn_async_diagnostic(log, "SIGTERM", timeout_seconds=20)
    assert pid is not None and pid != os.getpid()
    until(lambda: log.exists() and "end" in log.read_text().lower())
    assert log.stat().st_mode & 0o077 == 0


def test_timing_is_checked_below_a_service_alone(home: Path) -> None:
    answer = shutdown_forensics.check_systemd_timing_alignment(60.0)
    assert answer is None or answer["expected_min"] == 90.0
