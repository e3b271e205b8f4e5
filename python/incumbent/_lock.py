"""Scoped locks: one bot token, one account, one port."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Union

from . import _native
from ._errors import Held, Lost
from ._reports import Evicted, Holder, Slot, record
from ._waits import Seconds, Wait, optional_seconds, options, wait_fields

#: What is locked. Only its hash is stored.
Identity = Union[str, bytes, int]


def identity_bytes(identity: Identity) -> bytes:
    """An identity as the engine hashes it: text in UTF-8, a number in decimal."""
    if isinstance(identity, bytes):
        return identity
    return str(identity).encode()


@dataclass(frozen=True)
class LockRequest:
    """A lock that is claimed together with an office: all or none.

    `ttl` is a lease: who does not `renew()` in time loses the lock, and only then. `slots` is how
    many may hold it at once. `exclusive` keeps other guards of this very process out, too.
    `metadata` is shown to others, and stored in clear: never a secret.
    """

    scope: str
    identity: Identity
    exclusive: bool = False
    slots: int | None = None
    ttl: Seconds | None = None
    metadata: Any = None

    def __repr__(self) -> str:
        return f"LockRequest(scope={self.scope!r}, identity=...)"

    def _fields(self) -> dict[str, Any]:
        fields = {
            "scope": self.scope,
            "exclusive": self.exclusive,
            "slots": self.slots,
            "ttl": optional_seconds(self.ttl),
            "metadata": self.metadata,
        }
        return {name: value for name, value in fields.items() if value is not None}


def acquire_options(wait: Wait, evict_stopped: bool) -> str:
    """How to acquire, for the native half."""
    return options({**wait_fields(wait), "evict_stopped": evict_stopped})


def lost_of(text: str) -> Lost:
    """The exception that stands for a loss."""
    answer = json.loads(text)
    return Lost(answer["message"], answer["reason"], answer["by"])


def granted_or_holder(answer: _native.Lock | str) -> Lock | Holder:
    """A lock, or who has it."""
    if isinstance(answer, str):
        return Holder.from_answer(json.loads(answer))
    return Lock(answer)


def granted(answer: _native.Lock | str) -> Lock:
    """A lock, or `Held`."""
    lock = granted_or_holder(answer)
    if isinstance(lock, Holder):
        raise Held(lock)
    return lock


def all_granted(answer: list[_native.Lock] | str) -> list[Lock]:
    """Locks, or `Held`."""
    if isinstance(answer, str):
        raise Held(Holder.from_answer(json.loads(answer)))
    return [Lock(it) for it in answer]


def lock_list(requests: Sequence[LockRequest]) -> tuple[str, list[bytes]]:
    """Requests for the native half, with their identities apart."""
    fields = json.dumps([it._fields() for it in requests])
    return fields, [identity_bytes(it.identity) for it in requests]


class Lock:
    """A lock that is held: by a `with` block, by `release()`, or until the process ends.

    Safe to use from many threads. Dropping the last reference releases it.
    """

    def __init__(self, native: _native.Lock) -> None:
        self._native = native
        self._pid = os.getpid()
        facts = json.loads(native.facts())
        self.scope: str = facts["scope"]
        self.identity_hash: str = facts["identity_hash"]
        #: Rises with every change of holder: a resource can refuse a lower one.
        self.fence: int = facts["fence"]
        self.instance: int = facts["instance"]
        #: Whether this process had it already.
        self.reacquired: bool = facts["reacquired"]
        slot, evicted = facts["slot"], facts["evicted"]
        self.slot: Slot | None = None if slot is None else record(Slot, slot)
        #: The dead holder whose record was ended for this.
        self.evicted: Evicted | None = None if evicted is None else record(Evicted, evicted)

    def __repr__(self) -> str:
        state = ", released" if self.is_released else ""
        return f"<incumbent.Lock {self.scope} {self.identity_hash} fence={self.fence}{state}>"

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A forked child that leaves the block has nothing to give back.
        if os.getpid() == self._pid:
            self.release()

    @property
    def is_released(self) -> bool:
        """Whether `release()` was called. It says nothing of a loss."""
        return self._native.is_released()

    def verify(self) -> None:
        """Asks whether it is held still; raises `Lost` where it is not.

        Before an act that two owners must not both do. A few microseconds.
        """
        lost = self._native.verify()
        if lost is not None:
            raise lost_of(lost)

    def lost(self) -> Lost | None:
        """As `verify()`, with the loss as a value."""
        lost = self._native.verify()
        return None if lost is None else lost_of(lost)

    def renew(self) -> None:
        """Makes its lease begin again; raises `Lost` where it is not held any more."""
        lost = self._native.renew()
        if lost is not None:
            raise lost_of(lost)

    def release(self) -> None:
        """Gives it back. A second call does nothing."""
        self._native.release()


__all__ = ["Identity", "Lock", "LockRequest"]
