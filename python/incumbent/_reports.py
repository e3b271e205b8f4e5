"""What the engine answers, as frozen dataclasses.

The fields have the names of the command line's `--json` (`docs/schema/` in the repository): what is
read there in a script is called the same here. Times are aware `datetime` objects in UTC. A name
that ends in `_ms` is a number of milliseconds. `None` means that nothing is known or nothing was
said. A field that a later version adds is in `document`, which is the whole answer.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar

T = TypeVar("T")

Document = Mapping[str, Any]


class Verdict(str, enum.Enum):
    """What follows from the evidence. Unknown is never dead."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


class State(str, enum.Enum):
    """The states that the engine knows; a gateway may say any other word."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    DEGRADED = "degraded"
    STOPPED = "stopped"
    STARTUP_FAILED = "startup_failed"

    def __str__(self) -> str:
        return self.value


class Desired(str, enum.Enum):
    """What a profile is set to."""

    RUNNING = "running"
    STOPPED = "stopped"

    def __str__(self) -> str:
        return self.value


def parse_time(text: str) -> datetime:
    """A time of the engine: RFC 3339 in UTC, with milliseconds."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def time_of_ms(at_ms: int) -> datetime:
    """Milliseconds since 1970 as a time."""
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc)


def _reads(convert: Callable[[Any], Any], default: Any = None) -> Any:
    return field(default=default, metadata={"read": convert})


def _time() -> Any:
    return _reads(parse_time)


def _tuple(convert: Callable[[Any], Any] | None = None) -> Any:
    def read(values: list[Any]) -> tuple[Any, ...]:
        return tuple(values) if convert is None else tuple(convert(it) for it in values)

    return _reads(read, ())


def _of(cls: Callable[[], type[Any]]) -> Callable[[Any], Any]:
    return lambda document: record(cls(), document)


_FIELDS: dict[type[Any], list[tuple[str, Callable[[Any], Any] | None]]] = {}


def record(cls: type[T], document: Document) -> T:
    """The report that `document` is. What it does not have keeps its default."""
    fields = _FIELDS.get(cls)
    if fields is None:
        listed = dataclasses.fields(cls)  # type: ignore[arg-type]
        fields = [(it.name, it.metadata.get("read")) for it in listed if it.name != "document"]
        _FIELDS[cls] = fields
    values: dict[str, Any] = {"document": document}
    for name, read in fields:
        value = document.get(name)
        if value is not None:
            values[name] = value if read is None else read(value)
    return cls(**values)


def parse(cls: type[T], text: str) -> T:
    """A report from its JSON."""
    return record(cls, json.loads(text))


def parse_all(cls: type[T], text: str) -> list[T]:
    """Reports from a JSON array."""
    return [record(cls, it) for it in json.loads(text)]


@dataclass(frozen=True)
class Report:
    """What all answers have in common: `document` is the JSON that one was made of."""

    document: Document = field(default_factory=dict, repr=False, compare=False, kw_only=True)


@dataclass(frozen=True)
class Slot(Report):
    """One place of a lock that `of` holders may have."""

    number: int = 0
    of: int = 0


@dataclass(frozen=True)
class Holder(Report):
    """Who has what was asked for, and why that one counts as alive."""

    message: str = ""
    advice: str = ""
    wanted: str = ""
    profile: str | None = None
    kind: str | None = None
    pid: int | None = None
    child_pid: int | None = None
    instance: int | None = None
    since: datetime | None = _time()
    verdict: Verdict = _reads(Verdict, Verdict.UNKNOWN)
    reason: str = ""
    flags: tuple[str, ...] = _tuple()
    command: str | None = None
    supervisor: str | None = None
    metadata: Any = None
    state: str | None = None
    unresponsive_ms: int | None = None
    slot: Slot | None = _reads(_of(lambda: Slot))
    argv: tuple[str, ...] = _tuple()
    home: str | None = None
    is_this_process: bool = False
    #: Seconds after which to try again.
    retry_after: float | None = None

    @staticmethod
    def from_answer(document: Document) -> Holder:
        """A refusal, as the native half hands it over."""
        return record(Holder, {**document["holder"], **document})

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Evidence(Report):
    """What was seen of an owner."""

    anchor: str = "none"
    boot: str = "unknown"
    host: str = "unknown"
    namespace: str = "unknown"
    table: str = "not_visible"
    process: str = "unknown"
    start_time: str = "unknown"
    process_id: str = "unknown"
    process_state: str = "unknown"
    command_line: str = "not_read"
    child: str = "none"
    command_lock: str = "none"
    keeper: str = "none"
    anchor_holders: tuple[int, ...] = _tuple()


@dataclass(frozen=True)
class Runtime(Report):
    """What a gateway says about itself."""

    state: str | None = None
    last_state: str | None = None
    state_since: datetime | None = _time()
    exit_reason: str | None = None
    restart_requested: bool | None = None
    active_agents: int | None = None
    extra: Any = None
    writer: str | None = None
    writer_pid: int | None = None
    updated_at: datetime | None = _time()
    memory_bytes: int | None = None
    damaged: tuple[str, ...] = _tuple()


@dataclass(frozen=True)
class Platform(Report):
    """What a gateway says of one platform."""

    state: str | None = None
    last_state: str | None = None
    state_since: datetime | None = _time()
    error_code: str | None = None
    error_message: str | None = None
    needs_attention: bool | None = None
    retrying_since: datetime | None = _time()
    extra: Any = None
    writer: str | None = None
    writer_pid: int | None = None
    updated_at: datetime | None = _time()
    damaged: tuple[str, ...] = _tuple()


@dataclass(frozen=True)
class HeldLock(Report):
    """A lock of the office that a status is about."""

    scope: str = ""
    identity_hash: str = ""
    slot: Slot | None = _reads(_of(lambda: Slot))
    fence: int = 0
    acquired_at: datetime | None = _time()
    lease_remaining_ms: int | None = None
    metadata: Any = None


@dataclass(frozen=True)
class Marker(Report):
    """A one-shot message to one incarnation."""

    id: int = 0
    name: str = ""
    instance: int | None = None
    pid: int | None = None
    by: str = ""
    by_pid: int | None = None
    by_uid: int | None = None
    reason: str | None = None
    written_at: datetime | None = _time()
    expires_at: datetime | None = _time()
    #: Of a consumed one: whether that is on record, so that no other reader sees it again.
    recorded: bool = True


@dataclass(frozen=True)
class LastEnd(Report):
    """How the incarnation before ended."""

    reason: str = ""
    by: str | None = None
    at: datetime | None = _time()
    #: When somebody else first saw that it had ended. It ended some time before.
    exit_seen_at: datetime | None = _time()
    exit_code: int | None = None
    signal: int | None = None
    detail: str | None = None
    summary: str = ""
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Conflict(Report):
    """Who was refused, and how often."""

    profile: str | None = None
    pid: int | None = None
    first_at: datetime | None = _time()
    last_at: datetime | None = _time()
    count: int = 0


@dataclass(frozen=True)
class Waiter(Report):
    """Who waits for an office or a lock."""

    profile: str | None = None
    pid: int | None = None
    instance: int = 0
    since: datetime | None = _time()
    #: Of an office: the lock without which it is not wanted, where that is what it waits for.
    lock: Document | None = None


def _platforms(values: Mapping[str, Document]) -> dict[str, Platform]:
    return {name: record(Platform, it) for name, it in values.items()}


@dataclass(frozen=True)
class Status(Report):
    """What is true of an office, and what its gateway says."""

    profile: str = ""
    kind: str = ""
    running: bool = False
    verdict: Verdict = _reads(Verdict, Verdict.UNKNOWN)
    reason: str = ""
    flags: tuple[str, ...] = _tuple()
    pid: int | None = None
    child_pid: int | None = None
    instance: int | None = None
    since: datetime | None = _time()
    state: str | None = None
    desired: Desired | None = _reads(Desired)
    evidence: Evidence = _reads(_of(lambda: Evidence), Evidence())
    ready: bool = False
    not_ready: str | None = None
    busy: bool = False
    drainable: bool = False
    stale: bool = False
    unresponsive_ms: int | None = None
    heartbeat_at: datetime | None = _time()
    runtime: Runtime | None = _reads(_of(lambda: Runtime))
    platforms: Mapping[str, Platform] = field(
        default_factory=dict, metadata={"read": _platforms}
    )
    serves: tuple[str, ...] = _tuple()
    locks: tuple[HeldLock, ...] = _tuple(_of(lambda: HeldLock))
    markers: tuple[Marker, ...] = _tuple(_of(lambda: Marker))
    last_end: LastEnd | None = _reads(_of(lambda: LastEnd))
    command: str | None = None
    version: str | None = None
    supervisor: str | None = None
    party: str | None = None
    stop_budget_ms: int | None = None
    conflicts: tuple[Conflict, ...] = _tuple(_of(lambda: Conflict))
    restarts: int | None = None
    command_since: datetime | None = _time()
    waiters: tuple[Waiter, ...] = _tuple(_of(lambda: Waiter))
    #: Nobody holds it, but the holder of that office serves its profile: this is about that one.
    served_by: Document | None = None
    #: Nobody holds it: the last start, if somebody refused it who still lives.
    refused: Document | None = None


@dataclass(frozen=True)
class LockStatus(Report):
    """A lock on record, with the verdict on its holder."""

    scope: str = ""
    identity_hash: str = ""
    slot: Slot | None = _reads(_of(lambda: Slot))
    profile: str | None = None
    kind: str | None = None
    pid: int | None = None
    child_pid: int | None = None
    instance: int = 0
    fence: int = 0
    verdict: Verdict = _reads(Verdict, Verdict.UNKNOWN)
    reason: str = ""
    flags: tuple[str, ...] = _tuple()
    acquired_at: datetime | None = _time()
    lease_remaining_ms: int | None = None
    metadata: Any = None
    command: str | None = None
    waiters: tuple[Waiter, ...] = _tuple(_of(lambda: Waiter))
    conflicts: tuple[Conflict, ...] = _tuple(_of(lambda: Conflict))


@dataclass(frozen=True)
class Incarnation(Report):
    """Who held an office from when to when, and how that ended."""

    instance: int = 0
    profile: str = ""
    kind: str = ""
    pid: int | None = None
    started_at: datetime | None = _time()
    ended_at: datetime | None = _time()
    #: When somebody else first saw that it had ended. It ended some time before.
    exit_seen_at: datetime | None = _time()
    end_reason: str | None = None
    ended_by: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str | None = None
    summary: str | None = None
    restarts: int | None = None
    command_since: datetime | None = _time()
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Event(Report):
    """A committed change."""

    id: int = 0
    at: datetime | None = _time()
    event: str = ""
    profile: str | None = None
    kind: str | None = None
    instance: int | None = None
    pid: int | None = None
    detail: Any = None


@dataclass(frozen=True)
class Evicted(Report):
    """The dead owner whose record a claim has ended."""

    pid: int | None = None
    profile: str | None = None
    reason: str = ""
    ended: tuple[int, ...] = _tuple()
    left_alone: tuple[int, ...] = _tuple()


@dataclass(frozen=True)
class Outcome(Report):
    """What came of a request. `outcome` is a word; the method that returned it lists them."""

    outcome: str = ""
    instance: int | None = None
    pid: int | None = None
    killed: bool = False
    why: str | None = None
    holder: Holder | None = _reads(Holder.from_answer)


@dataclass(frozen=True)
class StopReason(Report):
    """Why this process is being stopped: `taken_over`, `planned_stop`, `unplanned` or `unknown`."""

    cause: str = "unknown"
    marker: Marker | None = _reads(_of(lambda: Marker))
    recorded: bool = False


@dataclass(frozen=True)
class Shutdown(Report):
    """Somebody asks this process to end."""

    cause: str = ""
    #: What to exit with, so that the supervisor does the right thing.
    exit_code: int = 0
    stop: StopReason = _reads(_of(lambda: StopReason), StopReason())
    #: Whether the signal may ask to read the configuration again (SIGHUP).
    may_mean_reload: bool = False
    #: One line for a log.
    log_line: str = ""
    #: The snapshot: a mapping with the keys of `incumbent forensics snapshot --json`.
    snapshot: Document = field(default_factory=dict)


@dataclass(frozen=True)
class InstanceReport(Report):
    """One incarnation, by its number."""

    instance: int = 0
    office: Document | None = None
    pid: int | None = None
    child_pid: int | None = None
    started_at_ms: int = 0
    has_ended: bool = False
    end_reason: str | None = None
    ended_at_ms: int | None = None
    ended_by: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Rows:
    """The answer of a query."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
