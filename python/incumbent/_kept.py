"""Records and locks for processes that do not link the engine."""

from __future__ import annotations

import json
from typing import Any

from . import _native
from ._answers import KeptLock, KeptRecord
from ._errors import Held, Lost
from ._lock import Identity, LockRequest, acquire_options, identity_bytes
from ._reports import Holder, Marker, Outcome, parse, record
from ._says import Speaker
from ._waits import Wait, options


class KeptOffice(Speaker):
    """An office of such a process: claimed, spoken for and released on its behalf."""

    def __init__(
        self, native: _native.Kept, store: _native.Store, profile: str, kind: str
    ) -> None:
        self._native = native
        self._store = store
        self.profile = profile
        self.kind = kind

    def __repr__(self) -> str:
        return f"<incumbent.KeptOffice {self.profile}/{self.kind}>"

    def claim(self) -> int:
        """Claims it, once; the number of the incarnation. Raises `Held`.

        Where the process has it already, that is the number of the one that it has.
        """
        answer = json.loads(self._native.claim(self._store, self.profile, self.kind))
        if answer["outcome"] == "held":
            raise Held(Holder.from_answer(answer["holder"]))
        number: int = answer["instance"]
        return number

    def release(self) -> Outcome:
        """Ends its record. `outcome` is `released`, or `not_held` with `why`."""
        return parse(Outcome, self._native.release(self.profile, self.kind))

    def _say(self, update: str) -> None:
        self._native.say(self.profile, self.kind, update)


class KeptProcess:
    """A process that does not link the engine: a script, a program in another language.

    A keeper, which is a process of its own, holds the kernel's lock for it and releases all of it
    when the process ends. It outlives this one. Safe to use from many threads.
    """

    def __init__(self, store: _native.Store, pid: int, keeper: bool, by: str) -> None:
        self._store = store
        self._native = _native.Kept(store, pid, keeper, by)
        self.pid = pid

    def __repr__(self) -> str:
        return f"<incumbent.KeptProcess pid={self.pid}>"

    def office(self, profile: str = "default", kind: str = "gateway") -> KeptOffice:
        """An office, to be claimed or spoken for on its behalf. Asks nobody yet."""
        return KeptOffice(self._native, self._store, profile, kind)

    def records(self) -> list[KeptRecord]:
        """What it has on record."""
        rows = json.loads(self._native.records())
        return [record(KeptRecord, {**it, **(it["office"] or {})}) for it in rows]

    def lock(
        self,
        profile: str,
        scope: str,
        identity: Identity,
        *,
        wait: Wait = False,
        evict_stopped: bool = False,
        **arguments: Any,
    ) -> KeptLock:
        """A lock for it; raises `Held`. The other arguments are those of `LockRequest`."""
        request = LockRequest(scope, identity, **arguments)
        answer = json.loads(
            self._native.acquire(
                profile,
                options(request._fields()),
                identity_bytes(identity),
                acquire_options(wait, evict_stopped),
                None,
            )
        )
        if answer["outcome"] == "refused":
            raise Held(Holder.from_answer(answer["holder"]))
        return record(KeptLock, answer["lock"])

    def _lock(self, what: str, scope: str, identity: Identity, fence: int | None) -> KeptLock:
        answer = json.loads(self._native.lock(what, scope, identity_bytes(identity), fence))
        if answer["outcome"] != "held":
            raise Lost(answer.get("why", "not held"), "not_held", None)
        return record(KeptLock, answer["lock"])

    def verify_lock(
        self, scope: str, identity: Identity, *, fence: int | None = None
    ) -> KeptLock:
        """Asks whether it holds the lock, of that fence; raises `Lost` where it does not."""
        return self._lock("verify", scope, identity, fence)

    def renew_lock(
        self, scope: str, identity: Identity, *, fence: int | None = None
    ) -> KeptLock:
        """Makes its lease begin again; raises `Lost` where it does not hold it any more."""
        return self._lock("renew", scope, identity, fence)

    def release_lock(
        self, scope: str, identity: Identity, *, fence: int | None = None
    ) -> KeptLock:
        """Gives the lock back; raises `Lost` where it does not hold it."""
        return self._lock("release", scope, identity, fence)

    def release_locks(self) -> int:
        """Gives all of its locks back; how many."""
        return self._native.release_locks()

    def peek_marker(self, name: str | None = None) -> Marker | None:
        """The open marker of this name for it, or of any name."""
        text = self._native.peek_marker(name)
        return None if text is None else parse(Marker, text)

    def consume_marker(self, name: str | None = None) -> Marker | None:
        """As `peek_marker()`, and nobody gets it again."""
        answer = self._native.consume_marker(name)
        if answer is None:
            return None
        return record(Marker, {**json.loads(answer[0]), "recorded": answer[1]})
