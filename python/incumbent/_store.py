"""A store: one SQLite file that many profiles and processes share."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Union

from . import _native
from ._answers import Counters, FileReport
from ._errors import Busy
from ._events import Events
from ._kept import KeptProcess
from ._lock import (
    Identity,
    Lock,
    LockRequest,
    acquire_options,
    all_granted,
    granted,
    granted_or_holder,
    identity_bytes,
    lock_list,
)
from ._office import Office
from ._reports import (
    Event,
    Holder,
    Incarnation,
    InstanceReport,
    LockStatus,
    Marker,
    Outcome,
    Rows,
    Status,
    parse,
    parse_all,
)
from ._tenure import Tenure
from ._waits import Seconds, Wait, in_thread, optional_seconds, options

#: A path as Python writes one.
PathLike = Union[str, "os.PathLike[str]"]

#: What `by` is where nobody says who acts.
BY = "python"


def open_options(
    path: PathLike | None,
    busy_budget: Seconds | None,
    durable: bool,
    allow_filesystem: Sequence[str],
) -> str:
    return options(
        {
            "path": None if path is None else os.fspath(path),
            "busy_budget": optional_seconds(busy_budget),
            "full_durability": durable,
            "allow_filesystem": list(allow_filesystem),
        }
    )


def _ms(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1000)


class Store:
    """Opens the store at `path`, and makes it where there is none; without a path the user's own
    (`incumbent path`, `INCUMBENT_DB`).

    `busy_budget` is how long a call waits for the store's own locks (seconds; 5 without it).
    `durable` makes each commit survive a power cut. Safe to use from many threads, and cheap to
    open twice: one process has one handle of a file.
    """

    def __init__(
        self,
        path: PathLike | None = None,
        *,
        busy_budget: Seconds | None = None,
        durable: bool = False,
        allow_filesystem: Sequence[str] = (),
    ) -> None:
        arguments = open_options(path, busy_budget, durable, allow_filesystem)
        self._native = _native.Store.open(arguments)

    @classmethod
    def existing(cls, path: PathLike | None = None) -> Store | None:
        """The store at `path`, None where there is none: asks, and makes nothing."""
        native = _native.Store.open_existing(open_options(path, None, False, ()))
        if native is None:
            return None
        store = cls.__new__(cls)
        store._native = native
        return store

    @staticmethod
    def default_path() -> Path:
        """Where `Store()` is, whether or not there is one."""
        return _native.Store.resolved_path("{}")

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._native.path()

    @property
    def uuid(self) -> str:
        """The store's own id."""
        return self._native.uuid()

    @property
    def pending_releases(self) -> int:
        """Releases that could not be written yet, and go with the next change."""
        return self._native.pending_releases()

    def __repr__(self) -> str:
        return f"incumbent.Store({str(self.path)!r})"

    # Offices.

    def office(
        self, profile: str = "default", kind: str = "gateway", *, home: PathLike | None = None
    ) -> Office:
        """The office of a profile. Asks nobody yet. `home` binds the profile to a directory."""
        return Office(self._native, profile, kind, None if home is None else Path(home))

    def statuses(self, profile: str | None = None, kind: str | None = None) -> list[Status]:
        """The status of each office, or of those of a profile or kind."""
        return parse_all(Status, self._native.status_of_all(profile, kind))

    def status_of_process(self, pid: int) -> list[Status]:
        """The offices of a process, of the `run` that it is the command of, too."""
        return parse_all(Status, self._native.status_of_process(pid))

    def inherited(self) -> Tenure | None:
        """The office of the `incumbent run`, or of the predecessor, that this process is in.

        None where it is in none; `inherited_because()` says why.
        """
        native, _ = self._native.inherited()
        return None if native is None else Tenure(native)

    def inherited_because(self) -> str:
        """`run` or `predecessor`, else why nothing is inherited: `not_given`, `lost`, ..."""
        return self._native.inherited()[1]

    # Locks.

    def _acquire(
        self,
        request: LockRequest,
        wait: Wait,
        evict_stopped: bool,
        canceller: _native.Canceller | None = None,
    ) -> _native.Lock | str:
        return self._native.acquire(
            options(request._fields()),
            identity_bytes(request.identity),
            acquire_options(wait, evict_stopped),
            canceller,
        )

    def lock(
        self,
        scope: str,
        identity: Identity,
        *,
        wait: Wait = False,
        exclusive: bool = False,
        slots: int | None = None,
        ttl: Seconds | None = None,
        metadata: Any = None,
        evict_stopped: bool = False,
    ) -> Lock:
        """A lock without an office; raises `Held`. The arguments are those of `Tenure.lock()`."""
        request = LockRequest(scope, identity, exclusive, slots, ttl, metadata)
        return granted(self._acquire(request, wait, evict_stopped))

    def try_lock(self, scope: str, identity: Identity, **arguments: Any) -> Lock | Holder:
        """As `lock()`, with a refusal as a value: the `Holder`."""
        wait, evict_stopped = arguments.pop("wait", False), arguments.pop("evict_stopped", False)
        request = LockRequest(scope, identity, **arguments)
        return granted_or_holder(self._acquire(request, wait, evict_stopped))

    async def alock(
        self, scope: str, identity: Identity, *, wait: Wait = True, **arguments: Any
    ) -> Lock:
        """As `lock()`, awaited: the loop goes on, and a cancelled task waits no longer."""
        evict_stopped = arguments.pop("evict_stopped", False)
        request = LockRequest(scope, identity, **arguments)
        return await in_thread(
            lambda canceller: granted(self._acquire(request, wait, evict_stopped, canceller)),
            undo=Lock.release,
        )

    def lock_all(
        self,
        requests: Sequence[LockRequest],
        *,
        wait: Wait = False,
        evict_stopped: bool = False,
    ) -> list[Lock]:
        """All of these locks or none; raises `Held`, with the holder that is in the way."""
        locks, identities = lock_list(requests)
        asked = acquire_options(wait, evict_stopped)
        return all_granted(self._native.acquire_all(locks, identities, asked, None))

    def locks(self) -> list[LockStatus]:
        """The locks on record, with verdicts on their holders."""
        return parse_all(LockStatus, self._native.locks())

    def lock_status(self, scope: str, identity: Identity) -> LockStatus | None:
        """One of them, None where nobody has it on record."""
        text = self._native.lock(scope, identity_bytes(identity))
        return None if text is None else parse(LockStatus, text)

    def unlock(
        self, scope: str, identity: Identity, *, force: bool = False, by: str = BY
    ) -> Outcome:
        """Removes the lock of a dead holder; `force` also that of a live one.

        `outcome` is `nothing`, `done`, `orphans_removed` or `refused` (with `holder`).
        """
        identity = identity_bytes(identity)
        return parse(Outcome, self._native.unlock(scope, identity, force, by))

    def unlock_hash(
        self, scope: str, identity_hash: str, *, force: bool = False, by: str = BY
    ) -> Outcome:
        """As `unlock()`, by the hash that `locks()` shows: where the identity is not known."""
        return parse(Outcome, self._native.unlock_hash(scope, identity_hash, force, by))

    def unlock_stale(self, *, by: str = BY) -> int:
        """Removes the locks of all dead holders; how many."""
        return len(json.loads(self._native.unlock_stale(by)))

    def release_all(self, instance: int) -> int:
        """Releases the locks of one incarnation of this process; how many."""
        return self._native.release_all(instance)

    # Markers.

    def write_marker(
        self,
        name: str,
        *,
        pid: int | None = None,
        instance: int | None = None,
        ttl: Seconds | None = None,
        reason: str | None = None,
        by: str = BY,
    ) -> Marker:
        """Leaves a one-shot message for one incarnation, named by its number or by its pid."""
        fields = {
            "name": name,
            "pid": pid,
            "instance": instance,
            "ttl": optional_seconds(ttl),
            "reason": reason,
            "by": by,
        }
        return parse(Marker, self._native.write_marker(options(fields)))

    def peek_marker(self, pid: int, name: str | None = None) -> Marker | None:
        """The open marker for a process, None where there is none."""
        text = self._native.peek_marker(pid, name)
        return None if text is None else parse(Marker, text)

    def clear_marker(self, pid: int, name: str, *, by: str = BY) -> int:
        """Takes markers back; how many there were."""
        return self._native.clear_marker(pid, name, by)

    # The past, and what happens.

    def events(self, profile: str | None = None, *, after: int | None = None) -> Events:
        """The stream of changes from now on, or after the event with the id `after`."""
        return Events(self._native.events(profile, after))

    def past_events(
        self,
        *,
        profile: str | None = None,
        kind: str | None = None,
        event: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Changes that are on record, the oldest first."""
        fields = {
            "profile": profile,
            "kind": kind,
            "event": event,
            "since_ms": _ms(since),
            "limit": limit,
        }
        return parse_all(Event, self._native.past_events(options(fields)))

    def history(
        self,
        *,
        profile: str | None = None,
        kind: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Incarnation]:
        """Who held an office, the newest first."""
        fields = {
            "profile": profile,
            "kind": kind,
            "since_ms": _ms(since),
            "until_ms": _ms(until),
            "limit": limit,
        }
        return parse_all(Incarnation, self._native.history(options(fields)))

    def instance(self, number: int) -> InstanceReport | None:
        """One incarnation: is the owner of that row of mine alive?"""
        text = self._native.instance(number)
        return None if text is None else parse(InstanceReport, text)

    def query(self, sql: str, *values: str | int | float | None) -> Rows:
        """Reads with SQL of your own; it can change nothing. Values fill `?1`, `?2`, ..."""
        answer = json.loads(self._native.query(sql, json.dumps(list(values))))
        return Rows(tuple(answer["columns"]), [tuple(row) for row in answer["rows"]])

    def backup(self, file: PathLike) -> int:
        """A consistent copy, also while gateways run; its size in bytes."""
        return self._native.backup(Path(file))

    def counters(self) -> list[Counters] | None:
        """How often each gateway was started, refused and ended, since the store was made.

        None in a store of a version that did not count, until a claim brings it up to date.
        """
        text = _native.counters(self._native)
        return None if text is None else parse_all(Counters, text)

    # Others.

    def process(self, pid: int, *, keeper: bool = True, by: str = BY) -> KeptProcess:
        """Records and locks for a process that does not link the engine. Asks nobody yet.

        Without `keeper` no process holds a lock of the kernel's for it: then its pid and its start
        time count.
        """
        return KeptProcess(self._native, pid, keeper, by)

    def import_files(
        self,
        directory: PathLike,
        profile: str = "default",
        kind: str = "gateway",
        *,
        lock_dir: PathLike | None = None,
    ) -> list[FileReport]:
        """Imports the files of an older gateway, once; none of them is changed.

        From then on the profile stands for that directory. `lock_dir` has the files of its locks.
        """
        locks = None if lock_dir is None else Path(lock_dir)
        answer = _native.import_files(self._native, profile, kind, Path(directory), locks)
        return parse_all(FileReport, answer)

    def export_files(
        self,
        directory: PathLike,
        profile: str = "default",
        kind: str = "gateway",
        *,
        lock_dir: PathLike | None = None,
    ) -> list[FileReport]:
        """Writes what is on record as files of an older gateway, once.

        `Busy` where a live process that is not the holder uses those files: nothing was written.
        """
        locks = None if lock_dir is None else Path(lock_dir)
        answer, in_use = _native.export(self._native, profile, kind, Path(directory), locks)
        if in_use is not None:
            raise Busy(in_use, path=Path(directory))
        return parse_all(FileReport, answer)
