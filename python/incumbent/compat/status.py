"""In place of `gateway.status`: the same functions, on the store.

What differs on purpose stands in the docstring of each function, and in `docs/python-compat.md`.
Nothing is decided by a file: a record of a dead process is never in the way, and nothing has to be
cleaned up. Where the store cannot be read or written, that is an `incumbent.Error`, and never
"not running".
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import process
from .._errors import Error, NotRunning
from .._reports import Holder, Status, Verdict
from .._tenure import Tenure
from . import _gateway

_GATEWAY_KIND = "hermes-gateway"
_UNSET: Any = object()
_TAKEOVER = "takeover"
_PLANNED_STOP = "planned_stop"
_TTL_S = 60


# Places, for whoever shows them.


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

    One that cannot be looked at counts as alive. A zombie does not live; the older function said
    that it does.
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

    It is signalled through a handle that was proven to be that process. One that is gone is a
    `ProcessLookupError`, as before; this process and its ancestors are `incumbent.InvalidInput`.
    """
    try:
        identity = process.identify(pid)
    except NotRunning as error:
        raise ProcessLookupError(str(error)) from error
    tree = force and sys.platform == "win32"
    if process.terminate(identity, 0.0, kill=force, tree=tree) == "was_gone":
        raise ProcessLookupError(f"pid {pid} is gone")


# The office: the runtime lock and the pid file of the older module are one thing here.


def acquire_gateway_runtime_lock() -> bool:
    """Claims the office of this home; False where another process has it, dead ones never do."""
    mine = _gateway.held()
    with mine.lock:
        if isinstance(_gateway.claim(), Holder):
            return False
        mine.runtime_lock = True
    _flush()
    return True


def release_gateway_runtime_lock() -> None:
    """Gives the office back, if `write_pid_file` does not hold it as well."""
    mine = _gateway.held()
    with mine.lock:
        mine.runtime_lock = False
        _gateway.let_go()


def is_gateway_runtime_lock_active(lock_path: Path | None = None) -> bool:
    """Whether a live process holds the office of this home, or of the one that `lock_path` is in.

    Asks and writes nothing; the older function opened, and so made, the file.
    """
    return _status(lock_path).running


def write_pid_file() -> None:
    """Claims the office of this home; `FileExistsError` where another live process has it.

    A stale file is no obstacle, and a second call of the holder is no error.
    """
    mine = _gateway.held()
    with mine.lock:
        answer = _gateway.claim()
        if isinstance(answer, Holder):
            raise FileExistsError(17, str(answer), str(_get_pid_path()))
        mine.pid_file = True
    _flush()


def remove_pid_file() -> None:
    """Gives the office back, if `acquire_gateway_runtime_lock` does not hold it as well.

    What another process holds is never touched. Never raises.
    """
    mine = _gateway.held()
    try:
        with mine.lock:
            mine.pid_file = False
            _gateway.let_go()
    except Error:
        pass


def get_running_pid(pid_path: Path | None = None, *, cleanup_stale: bool = True) -> int | None:
    """The pid of the live holder of this home's office, or of the one that `pid_path` is in.

    `cleanup_stale` does nothing: a stale record is in nobody's way.
    """
    store = _gateway.existing_store()
    if store is None:
        return None
    return _gateway.office(store, None if pid_path is None else pid_path.parent).running_pid()


def is_gateway_running(pid_path: Path | None = None, *, cleanup_stale: bool = True) -> bool:
    """Whether `get_running_pid` finds one."""
    return get_running_pid(pid_path, cleanup_stale=cleanup_stale) is not None


def _status(of: Path | None = None) -> Status:
    store = _gateway.existing_store()
    if store is None:
        return Status()
    return _gateway.office(store, None if of is None else of.parent).status()


# What the gateway says of itself.


def write_runtime_status(
    *,
    gateway_state: Any = _UNSET,
    exit_reason: Any = _UNSET,
    restart_requested: Any = _UNSET,
    active_agents: Any = _UNSET,
    platform: Any = _UNSET,
    platform_state: Any = _UNSET,
    error_code: Any = _UNSET,
    error_message: Any = _UNSET,
) -> None:
    """Publishes what the gateway says; what is left out stays.

    The holder of the office alone can say something. What is said before that is kept, and
    published when the office is claimed: no process writes over what another one says.
    """
    mine = _gateway.held()
    given = {
        "state": gateway_state,
        "exit_reason": exit_reason,
        "restart_requested": restart_requested,
        "active_agents": active_agents,
    }
    with mine.lock:
        mine.unsaid.update({name: it for name, it in given.items() if it is not _UNSET})
        if platform is not _UNSET:
            of_platform = {
                "state": platform_state,
                "error_code": error_code,
                "error_message": error_message,
            }
            said = mine.unsaid_platforms.setdefault(str(platform), {})
            said.update({name: it for name, it in of_platform.items() if it is not _UNSET})
    _flush()


def _flush() -> None:
    """Says what is not said yet, and shows it to programs that read files."""
    mine = _gateway.held()
    with mine.lock:
        if mine.tenure is None or mine.tenure.is_released:
            return
        said, platforms = mine.unsaid, mine.unsaid_platforms
        if not said and not platforms:
            return
        fields = dict(said)
        if "restart_requested" in fields:
            fields["restart_requested"] = bool(fields["restart_requested"])
        if "active_agents" in fields:
            fields["active_agents"] = max(0, int(fields["active_agents"]))
        if fields:
            mine.tenure.update(**fields)
        for name, of_platform in platforms.items():
            mine.tenure.update_platform(name, **of_platform)
        # Forgotten only now: what could not be said is said the next time.
        mine.unsaid, mine.unsaid_platforms = {}, {}
        if _gateway.settings.files:
            _show_status()


def _show_status() -> None:
    """`gateway_state.json`, whole or not at all. It is for others: a failure stops no gateway."""
    document = read_runtime_status()
    if document is None:
        return
    path = _get_runtime_status_path()
    try:
        descriptor, name = tempfile.mkstemp(prefix=".gateway_state-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, separators=(",", ":"))
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError:
        pass


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def read_runtime_status() -> dict[str, Any] | None:
    """What the gateway of this home said last, in the shape of `gateway_state.json`.

    None where nothing is on record. Of a holder that has ended, `gateway_state` is what it said
    last if that was an end (`stopped`, `startup_failed`), else `stopped`: the dead are never shown
    running.
    """
    status = _status()
    if status.instance is None and status.last_end is None:
        return None
    runtime = status.runtime
    state = status.state or (runtime.last_state if runtime is not None else None)
    if not status.running and state != "startup_failed":
        state = "stopped"
    platforms = {
        name: {
            "state": it.state or it.last_state,
            "error_code": it.error_code,
            "error_message": it.error_message,
            "updated_at": _iso(it.updated_at),
        }
        for name, it in status.platforms.items()
    }
    updated = (runtime.updated_at if runtime is not None else None) or status.since
    return {
        "pid": status.pid,
        "kind": _GATEWAY_KIND,
        "argv": list(status.document.get("argv") or (status.command or "").split()),
        "start_time": None if status.pid is None else get_process_start_time(status.pid),
        "gateway_state": state or "starting",
        "exit_reason": None if runtime is None else runtime.exit_reason,
        "restart_requested": bool(runtime is not None and runtime.restart_requested),
        "active_agents": (runtime.active_agents or 0) if runtime is not None else 0,
        "platforms": platforms,
        "updated_at": _iso(updated) or _utc_now_iso(),
    }


# Locks on an identity.


def _own_record(scope: str, identity: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "kind": _GATEWAY_KIND,
        "argv": list(sys.argv),
        "start_time": get_process_start_time(os.getpid()),
        "scope": scope,
        "identity_hash": _scope_hash(identity),
        "metadata": metadata,
        "updated_at": _utc_now_iso(),
    }


def _record_of(holder: Holder, scope: str, identity: str) -> dict[str, Any]:
    return {
        "pid": holder.pid,
        "kind": _GATEWAY_KIND,
        "argv": list(holder.argv),
        "start_time": None if holder.pid is None else get_process_start_time(holder.pid),
        "scope": scope,
        "identity_hash": _scope_hash(identity),
        "metadata": holder.metadata or {},
        "updated_at": _iso(holder.since) or _utc_now_iso(),
    }


def acquire_scoped_lock(
    scope: str, identity: str, metadata: dict[str, Any] | None = None
) -> tuple[bool, dict[str, Any] | None]:
    """Takes the lock: `(True, None)`, or `(True, record)` where this process had it already.

    `(False, record)` where another live process has it, with who that is. A lock of a dead process
    is taken. A stopped process lives: its lock is taken only after `configure(evict_stopped=True)`.
    """
    mine = _gateway.held()
    key = (scope, identity)
    with mine.lock:
        had = mine.locks.get(key)
        source: Any = mine.tenure if isinstance(mine.tenure, Tenure) else _gateway.store()
        answer = source.try_lock(
            scope,
            identity,
            metadata=metadata or {},
            evict_stopped=_gateway.settings.evict_stopped,
        )
        if isinstance(answer, Holder):
            return False, _record_of(answer, scope, identity)
        record = _own_record(scope, identity, metadata or {})
        mine.locks[key] = (answer, record)
        if had is None:
            return True, None
        had[0].release()
        return True, had[1]


def release_scoped_lock(scope: str, identity: str) -> None:
    """Gives the lock back, if it is this process that has it."""
    mine = _gateway.held()
    with mine.lock:
        had = mine.locks.pop((scope, identity), None)
        if had is not None:
            had[0].release()


def release_all_scoped_locks(
    *, owner_pid: int | None = None, owner_start_time: int | None = None
) -> int:
    """Gives back the locks of this process, and removes those of dead ones; how many.

    With `owner_pid` those of that process alone, and none where it started at another time than
    `owner_start_time`. A lock of a live process is never removed: the older function did that,
    whoever called it.
    """
    mine = _gateway.held()
    count = 0
    with mine.lock:
        is_own = owner_pid in (None, os.getpid())
        if is_own and owner_start_time in (None, get_process_start_time(os.getpid())):
            count += len(mine.locks)
            for lock, _ in mine.locks.values():
                lock.release()
            mine.locks.clear()
    store = _gateway.existing_store()
    if store is None or owner_pid == os.getpid():
        return count
    if owner_pid is None:
        return count + store.unlock_stale()
    for status in store.locks():
        if status.pid == owner_pid and status.verdict is Verdict.DEAD:
            outcome = store.unlock_hash(status.scope, status.identity_hash).outcome
            count += outcome == "done"
    return count


# Markers: why a process is being ended.


def _write_marker(name: str, target_pid: int) -> bool:
    try:
        marker = _gateway.store().write_marker(name, pid=target_pid, ttl=_TTL_S)
    except Error:
        return False
    # Not on record here: it may be an older gateway, which reads a file.
    if marker.instance is None:
        _write_marker_file(name, target_pid)
    return True


def _marker_path(name: str) -> Path:
    file = ".gateway-takeover.json" if name == _TAKEOVER else ".gateway-planned-stop.json"
    return _gateway.home() / file


def _write_marker_file(name: str, target_pid: int) -> None:
    if not _gateway.settings.files:
        return
    writer = "replacer_pid" if name == _TAKEOVER else "stopper_pid"
    document = {
        "target_pid": target_pid,
        "target_start_time": get_process_start_time(target_pid),
        writer: os.getpid(),
        "written_at": _utc_now_iso(),
    }
    path = _marker_path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(prefix=".gateway-marker-", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(scratch, path)
    except OSError:
        # The marker is a courtesy: the signal that follows is not kept back for it.
        pass


def _consume_marker(name: str) -> bool:
    mine = _gateway.held()
    with mine.lock:
        if mine.tenure is None or mine.tenure.is_released:
            return False
        try:
            return mine.tenure.consume_marker(name) is not None
        except Error:
            return False


def _clear_marker(name: str) -> None:
    try:
        store = _gateway.existing_store()
        pid = None if store is None else _gateway.office(store).running_pid()
        if store is not None and pid is not None:
            store.clear_marker(pid, name)
    except Error:
        pass
    if _gateway.settings.files:
        try:
            _marker_path(name).unlink(missing_ok=True)
        except OSError:
            pass


def write_takeover_marker(target_pid: int) -> bool:
    """Says that `target_pid` is being replaced by this process; False where that failed.

    It is for that incarnation alone, so a recycled pid gets no marker of another, and it counts for
    a minute.
    """
    return _write_marker(_TAKEOVER, target_pid)


def consume_takeover_marker_for_self() -> bool:
    """Whether a takeover of this very process was announced. The marker is gone then.

    Markers for others stay theirs: the older function removed them.
    """
    return _consume_marker(_TAKEOVER)


def clear_takeover_marker() -> None:
    """Takes the announcement back."""
    _clear_marker(_TAKEOVER)


def write_planned_stop_marker(target_pid: int) -> bool:
    """Says that `target_pid` is being stopped on purpose; False where that failed."""
    return _write_marker(_PLANNED_STOP, target_pid)


def consume_planned_stop_marker_for_self() -> bool:
    """Whether a stop of this very process was announced. The marker is gone then."""
    return _consume_marker(_PLANNED_STOP)


def clear_planned_stop_marker() -> None:
    """Takes the announcement back."""
    _clear_marker(_PLANNED_STOP)
