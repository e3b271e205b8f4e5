"""One live owner for each gateway and for each token of the machine, decided by the kernel.

    import incumbent

    store = incumbent.Store()
    with store.office("work") as tenure:
        with tenure.lock("telegram-bot-token", token):
            serve()

An office that somebody else holds is `Held`, an exception that says who and why; `try_claim()`
returns that as a value. Ownership ends with the process, whatever ends it: nothing has to be
cleaned up after a crash.
"""

from __future__ import annotations

from . import _lifecycle
from ._answers import Counters, EndCount, FileReport, HandedOver, KeptLock, KeptRecord
from ._errors import (
    Busy,
    CannotRead,
    CannotWrite,
    Corrupt,
    Error,
    Filesystem,
    Forked,
    Held,
    Internal,
    InvalidInput,
    Lost,
    NotOurs,
    NotOwner,
    NotRunning,
    PermissionDenied,
    ProfileBelongsTo,
    StoreReplaced,
    TooNew,
    TooOld,
    Unsupported,
)
from ._events import Events
from ._kept import KeptOffice, KeptProcess
from ._lifecycle import allow_fork
from ._lock import Lock, LockRequest
from ._native import __version__
from ._office import Office
from ._reports import (
    Conflict,
    Desired,
    Event,
    Evicted,
    Evidence,
    HeldLock,
    Holder,
    Incarnation,
    InstanceReport,
    LastEnd,
    LockStatus,
    Marker,
    Outcome,
    Platform,
    Rows,
    Runtime,
    Shutdown,
    Slot,
    State,
    Status,
    StopReason,
    Verdict,
    Waiter,
)
from ._says import KEEP
from ._signals import Shutdowns
from ._store import Store
from ._tenure import Heartbeat, Tenure

_lifecycle.start()

__all__ = [
    "KEEP",
    "Busy",
    "CannotRead",
    "CannotWrite",
    "Conflict",
    "Corrupt",
    "Counters",
    "Desired",
    "EndCount",
    "Error",
    "Event",
    "Events",
    "Evicted",
    "Evidence",
    "FileReport",
    "Filesystem",
    "Forked",
    "HandedOver",
    "Heartbeat",
    "Held",
    "HeldLock",
    "Holder",
    "Incarnation",
    "InstanceReport",
    "Internal",
    "InvalidInput",
    "KeptLock",
    "KeptOffice",
    "KeptProcess",
    "KeptRecord",
    "LastEnd",
    "Lock",
    "LockRequest",
    "LockStatus",
    "Lost",
    "Marker",
    "NotOurs",
    "NotOwner",
    "NotRunning",
    "Office",
    "Outcome",
    "PermissionDenied",
    "Platform",
    "ProfileBelongsTo",
    "Rows",
    "Runtime",
    "Shutdown",
    "Shutdowns",
    "Slot",
    "State",
    "Status",
    "StopReason",
    "Store",
    "StoreReplaced",
    "Tenure",
    "TooNew",
    "TooOld",
    "Unsupported",
    "Verdict",
    "Waiter",
    "__version__",
    "allow_fork",
]
