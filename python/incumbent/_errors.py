"""The exceptions of the package, one for each kind of error of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._reports import Holder


class Error(Exception):
    """It could not be found out, or could not be done. A refusal is `Held`.

    `kind` is the word that the command line prints in `{"error": {"kind": ...}}`. `hint` names an
    act that helps, `path` the file that it is about, `retry_after` the seconds after which to try
    again; each may be None.
    """

    kind: str = "internal"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        path: Path | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.path = path
        self.retry_after = retry_after

    @property
    def is_temporary(self) -> bool:
        """Whether the same call may succeed later, with nothing changed by a person."""
        return isinstance(self, Busy)

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; {self.hint}" if self.hint else message


class InvalidInput(Error, ValueError):
    """An argument is not valid."""

    kind = "invalid_input"


class Busy(Error):
    """Not now: the store is busy, or this process ran short of something."""

    kind = "busy"


class CannotRead(Error):
    """The store is there and cannot be read."""

    kind = "cannot_read"


class CannotWrite(Error):
    """The store cannot be written: a full disk, a read-only filesystem, an I/O error."""

    kind = "cannot_write"


class PermissionDenied(Error, PermissionError):
    """This user may not."""

    kind = "permission"


class Filesystem(Error):
    """The filesystem breaks the locks that the engine relies on."""

    kind = "filesystem"


class NotOurs(Error):
    """The file is not a store, or belongs to somebody else."""

    kind = "not_ours"


class TooNew(Error):
    """A newer version has written the store."""

    kind = "too_new"


class TooOld(Error):
    """The store is too old for this version."""

    kind = "too_old"


class Corrupt(Error):
    """The store is damaged."""

    kind = "corrupt"


class ProfileBelongsTo(Error):
    """The profile is bound to another home."""

    kind = "profile_belongs_to"


class StoreReplaced(Error):
    """The files of the store were deleted or replaced under this process."""

    kind = "store_replaced"


class NotOwner(Error):
    """What was to be changed is not held, or not held any more."""

    kind = "not_owner"


class NotRunning(Error):
    """There is no such owner."""

    kind = "not_running"


class Forked(Error):
    """A handle of the parent was used in a forked child.

    The child holds nothing. Open the store again in it, after `incumbent.allow_fork()` in the
    parent, or start the child with `multiprocessing`'s `spawn`.
    """

    kind = "forked"


class Unsupported(Error):
    """This platform cannot do that."""

    kind = "unsupported"


class Internal(Error):
    """A failure that has no kind of its own."""

    kind = "internal"


class Held(Error):
    """Somebody else has it. `holder` says who, `reason` why that one counts as alive."""

    kind = "held"

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder.message, hint=holder.advice, retry_after=holder.retry_after)
        self.holder = holder

    @property
    def reason(self) -> str:
        """The word that the command line prints in `holder.reason`."""
        return self.holder.reason

    @property
    def is_temporary(self) -> bool:
        return True


class Lost(Error):
    """What was held is lost. `reason` is the word of the command line, `by` who took it."""

    kind = "lost"

    def __init__(self, message: str, reason: str, by: str | None) -> None:
        super().__init__(message)
        self.reason = reason
        self.by = by


_KINDS: dict[str, type[Error]] = {
    it.kind: it
    for it in (
        InvalidInput,
        Busy,
        CannotRead,
        CannotWrite,
        PermissionDenied,
        Filesystem,
        NotOurs,
        TooNew,
        TooOld,
        Corrupt,
        ProfileBelongsTo,
        StoreReplaced,
        NotOwner,
        NotRunning,
        Forked,
        Unsupported,
    )
}


def make(
    kind: str,
    message: str,
    hint: str | None,
    path: Path | None,
    retry_after: float | None,
) -> Error:
    """The exception for an error of the engine. The native half calls it."""
    error = _KINDS.get(kind, Internal)(message, hint=hint, path=path, retry_after=retry_after)
    if error.kind != kind:
        error.kind = kind
    return error
