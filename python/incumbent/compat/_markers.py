"""Why a process is being ended: markers, for `incumbent.compat.status`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from .._errors import Error
from . import _gateway
from ._facts import _utc_now_iso, get_process_start_time

_TAKEOVER = "takeover"
_PLANNED_STOP = "planned_stop"
#: Seconds for which an announcement counts.
_TTL_S = 60


def _write_marker(name: str, target_pid: int) -> bool:
    try:
        marker = _gateway.store().write_marker(name, pid=target_pid, ttl=_TTL_S)
    except Error:
        return False
    # On record or not: an older gateway reads a file alone. A newer one reads both, and would find
    # the file after it has consumed the marker.
    if marker.instance is None or _is_older(target_pid):
        _write_marker_file(name, target_pid)
    return True


def _is_older(pid: int) -> bool:
    """Whether this home is, by its files, of that process, and that one does not use the store."""
    try:
        record = json.loads((_gateway.home() / "gateway.pid").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("pid") == pid and "incumbent" not in record


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
