"""Who ends a gateway, seen as it happens."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _native
from ._store import PathLike
from ._waits import Seconds, optional_seconds, seconds


@dataclass(frozen=True)
class Snapshot:
    """What surrounds this process now. Each fact is a value, or `{"unavailable": why}`."""

    facts: Mapping[str, Any]
    #: One line for a log.
    log_line: str


def snapshot(signum: int | None = None) -> Snapshot:
    """Takes one, in some milliseconds at most: no subprocess, never fails."""
    text, line = _native.snapshot(None if signum is None else int(signum))
    return Snapshot(json.loads(text), line)


def check_systemd(drain: Seconds, unit: str | None = None) -> Mapping[str, Any]:
    """Whether systemd leaves this process, or `unit`, the time to drain (seconds).

    `unit`, `timeout_stop_sec`, `drain_timeout`, `expected_min` and `mismatch`, each null where it
    cannot be told; `reason` and `advice` in words.
    """
    answer = json.loads(_native.systemd(seconds(drain), unit))
    return {**answer["check"], "reason": answer["reason"], "advice": answer["advice"]}


def diagnose(
    log: PathLike,
    *,
    signum: int | None = None,
    timeout: Seconds | None = None,
    store: PathLike | None = None,
) -> int:
    """Starts a detached diagnostic, which appends to `log`; its pid."""
    return _native.diagnose(
        Path(log),
        None if signum is None else int(signum),
        optional_seconds(timeout),
        None if store is None else Path(os.fspath(store)),
    )
