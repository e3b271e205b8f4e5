"""Frozen dataclasses, as those of `_reports`, for what is asked more seldom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ._reports import Report, Slot, _of, _reads, _time, _tuple


@dataclass(frozen=True)
class HandedOver(Report):
    """What became of a handover: `outcome` is `taken`, `ended`, `timed_out` or `asked_to_end`."""

    outcome: str = ""
    #: Of the successor.
    pid: int | None = None
    instance: int | None = None
    #: Why it has not taken over, for people.
    why: str | None = None
    #: Of a program that ended in place of taking over.
    exit_code: int | None = None

    @property
    def taken(self) -> bool:
        """Whether the successor has the office."""
        return self.outcome == "taken"


@dataclass(frozen=True)
class EndCount(Report):
    """How often a gateway ended in one way."""

    reason: str = ""
    exit_code: int | None = None
    count: int = 0


@dataclass(frozen=True)
class Counters(Report):
    """How often the gateway of an office was started, refused, ended; the counts never fall."""

    profile: str = ""
    kind: str = ""
    starts: int = 0
    refusals: int = 0
    #: Of its command, by the `run` that it is.
    restarts: int = 0
    takeovers: int = 0
    ends: tuple[EndCount, ...] = _tuple(_of(lambda: EndCount))


@dataclass(frozen=True)
class FileReport(Report):
    """What was done with one file of an older gateway.

    `verdict` is `imported`, `live`, `stale`, `corrupt`, `missing` or `unknown` of an import,
    `written` or `left` of an export.
    """

    file: str = ""
    verdict: str = ""
    reason: str | None = None
    pid: int | None = None
    detail: str | None = None


@dataclass(frozen=True)
class KeptLock(Report):
    """A lock of a process that does not link the engine."""

    scope: str = ""
    identity_hash: str = ""
    instance: int = 0
    fence: int = 0
    slot: Slot | None = _reads(_of(lambda: Slot))


@dataclass(frozen=True)
class KeptRecord(Report):
    """What a process that does not link the engine has on record."""

    instance: int = 0
    profile: str | None = None
    kind: str | None = None
    since: datetime | None = _time()
    #: Of the keeper, None where there is none.
    keeper_pid: int | None = None
