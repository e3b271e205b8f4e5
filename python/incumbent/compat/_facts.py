"""Paths and facts of processes, for `incumbent.compat.status`."""

from __future__ import annotations

import hashlib
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

from .. import process
from .._errors import NotRunning
from . import _gateway


def _get_pid_path() -> Path:
    """Where programs that read files look for the pid. The engine itself never reads it."""
    return _gateway.home() / "gateway.pid"


def _get_gateway_lock_path(pid_path: Path | None = None) -> Path:
    return (pid_path or _get_pid_path()).with_name("gateway.lock")


def _get_runtime_status_path() -> Path:
    return _get_pid_path().with_name("gateway_state.json")


def _get_lock_dir() -> Path:
    of_environment = os.environ.get("HERMES_GATEWAY_LOCK_DIR")
    if of_environment:
        return Path(of_environment)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "hermes" / "gateway-locks"


def _scope_hash(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _get_scope_lock_path(scope: str, identity: str) -> Path:
    return _get_lock_dir() / f"{scope}-{_scope_hash(identity)}.lock"


def _utc_now_iso() -> str:
    return datetime.now(timezone.utc).isoformat()


# Facts of processes.


def _pid_exists(pid: int) -> bool:
    """Whether a process lives. No signal is sent, on any system.

    A process that cannot be looked at counts as alive. A zombie does not live; the older
    function said that it does.
    """
    if pid <= 0:
        return False
    return process.exists(pid) is not False


def get_process_start_time(pid: int) -> int | None:
    """When a process started, in the unit of this system; known on macOS and Windows as well."""
    if pid <= 0:
        return None
    started = process.start_time(pid)
    return None if started is None else started.value


_get_process_start_time = get_process_start_time


def _read_process_cmdline(pid: int) -> str | None:
    words = process.command_line(pid) if pid > 0 else None
    return " ".join(words) if words else None


_FORMS = (
    "hermes_cli.main gateway",
    "hermes_cli/main.py gateway",
    "hermes gateway",
    "hermes-gateway",
    "gateway/run.py",
)


def _looks_like_gateway_process(pid: int) -> bool:
    """For people. The engine knows its holders by a kernel lock, and asks no command line."""
    words = _read_process_cmdline(pid)
    return words is not None and any(form in words for form in _FORMS)


def terminate_pid(pid: int, *, force: bool = False) -> None:
    """Asks a process to end; `force` ends it, on Windows with its descendants. Does not wait.

    It is signalled through a handle that was proven to be that process. A process that is gone is a
    `ProcessLookupError`, as before; this process and its ancestors are `incumbent.InvalidInput`.
    """
    try:
        identity = process.identify(pid)
    except NotRunning as error:
        raise ProcessLookupError(str(error)) from error
    tree = force and sys.platform == "win32"
    if process.terminate(identity, 0.0, kill=force, tree=tree) == "was_gone":
        raise ProcessLookupError(f"pid {pid} is gone")
