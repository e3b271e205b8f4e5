"""What blocks a start or lets two gateways run, and what can be repaired safely."""

from __future__ import annotations

from dataclasses import dataclass

from . import _native
from ._reports import Report, parse_all
from ._store import PathLike, open_options


@dataclass(frozen=True)
class Finding(Report):
    """What was looked at. `severity` is `ok`, `info`, `unknown`, `warning` or `error`."""

    id: str = ""
    severity: str = "ok"
    evidence: str = ""
    #: What to do about it.
    remedy: str | None = None

    @property
    def is_problem(self) -> bool:
        """Whether somebody has to do something now."""
        return self.severity in ("warning", "error")


@dataclass(frozen=True)
class Act(Report):
    """What was repaired, or would be."""

    check: str = ""
    act: str = ""
    #: `would`, `done` or `failed`.
    outcome: str = ""


def examine(path: PathLike | None = None) -> list[Finding]:
    """Looks at the store at `path`, or the user's own, and at all that surrounds it. No writes."""
    return parse_all(Finding, _native.examine(open_options(path, None, False, ())))


def repair(
    path: PathLike | None = None, *, dry_run: bool = False, by: str = "python"
) -> list[Act]:
    """Does what is safe to do, and records it; with `dry_run` only says what that is."""
    return parse_all(Act, _native.repair(open_options(path, None, False, ()), by, dry_run))
