"""Whether a process lives, when it started, and ending it, if it is proven to be that process."""

from __future__ import annotations

from dataclasses import dataclass

from . import _native
from ._waits import Seconds, seconds


@dataclass(frozen=True)
class StartTime:
    """When a process started, in the unit that the system counts in."""

    value: int
    #: `ticks` since boot (Linux), `microseconds` since 1970 (macOS), `filetime` (Windows).
    unit: str


def exists(pid: int) -> bool | None:
    """Whether a process of this pid lives; None where that cannot be told. Signals nothing.

    A zombie does not live.
    """
    return {"present": True, "gone": False}.get(_native.exists(pid))


def start_time(pid: int) -> StartTime | None:
    """Its start time; None where it is gone or cannot be looked at."""
    answer = _native.start_time(pid)
    return None if answer is None else StartTime(*answer)


def command_line(pid: int) -> list[str] | None:
    """Its command line; None where it is gone or cannot be looked at."""
    return _native.command_line(pid)


def identify(pid: int) -> str:
    """A text that means this very process, and no later one of the same pid: for `terminate()`."""
    return _native.identify(pid)


def terminate(
    process: int | str, budget: Seconds = 10.0, *, kill: bool = False, tree: bool = False
) -> str:
    """Asks a process to end, waits up to `budget` seconds, with `kill` ends it then.

    `process` is a pid, or better what `identify()` said when it was known. `tree` includes its
    descendants. The answer is `was_gone`, `ended`, `killed` or `still_runs`.
    """
    identity = _native.identify(process) if isinstance(process, int) else process
    return _native.terminate(identity, seconds(budget), kill, tree)
