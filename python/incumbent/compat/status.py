"""In place of `gateway.status`: the same functions, on the store.

What differs on purpose stands in the docstring of each function, and in `docs/python-compat.md`.
Nothing is decided by a file: a record of a dead process is never in the way, and nothing has to be
cleaned up. Where the store cannot be read or written, that is an `incumbent.Error`, and never
"not running".
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .._errors import Error
from .._reports import Holder, Status, Verdict
from .._tenure import Tenure
from . import _gateway
from ._facts import (
    _get_gateway_lock_path as _get_gateway_lock_path,
    _get_lock_dir as _get_lock_dir,
    _get_pid_path as _get_pid_path,
    _get_process_start_time as _get_process_start_time,
    _get_runtime_status_path as _get_runtime_status_path,
    _get_scope_lock_path as _get_scope_lock_path,
    _looks_like_gateway_process as _looks_like_gateway_process,
    _pid_exists as _pid_exists,
    _read_process_cmdline as _read_process_cmdline,
    _scope_hash as _scope_hash,
    _utc_now_iso as _utc_now_iso,
    get_process_start_time as get_process_start_time,
    terminate_pid as terminate_pid,
)
from ._markers import (
    clear_planned_stop_marker as clear_planned_stop_marker,
    clear_takeover_marker as clear_takeover_marker,
    consume_planned_stop_marker_for_self as consume_planned_stop_marker_for_self,
    consume_takeover_marker_for_self as consume_takeover_marker_for_self,
    write_planned_stop_marker as write_planned_stop_marker,
    write_takeover_marker as write_takeover_marker,
)

_GATEWAY_KIND = "hermes-gateway"
_UNSET: Any = object()


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
    """Whether a live process holds the office of this home, or of the home that has `lock_path`.

    Asks and writes nothing; the older function opened, and so made, the file.
    """
    return _status(lock_path).running


def write_pid_file() -> None:
    """Claims the office of this home; `FileExistsError` where another live process has it.

    A stale file is not in the way, and a second call by the holder is not an error.
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
    """The pid of the live holder of this home's office, or of the home that has `pid_path`.

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
    for any caller.
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
