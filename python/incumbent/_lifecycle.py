"""The process around the engine: its end, its forks, the program of its helpers.

Offices that are still held when the interpreter ends are released here, with the reason: an
uncaught exception is a crash with its type and message. An exit code is known only when the
interpreter is gone: what is not a crash is left to the native half, which sees that. What the
kernel ends first needs none of this: ownership ends with the process.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import sysconfig
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from . import _native

if TYPE_CHECKING:
    from ._tenure import Tenure

_held: weakref.WeakSet[Tenure] = weakref.WeakSet()

_of_pid = os.getpid()

#: A detail of an end is cut here.
_DETAIL_LENGTH_MAX = 500


def remember(tenure: Tenure) -> None:
    """It is released when the interpreter ends, at the latest."""
    _held.add(tenure)


def describe(error: BaseException) -> str:
    """Type and message of an exception, on one line."""
    name = type(error).__qualname__
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = ""
    return f"{name}: {message}"[:_DETAIL_LENGTH_MAX] if message else name


def exit_code_of(error: SystemExit) -> int:
    """The exit code that `sys.exit` leads to."""
    code = error.code
    if code is None:
        return 0
    if not isinstance(code, int):
        return 1
    # What a parent sees of it.
    return code & 0xFF if os.name == "posix" else code


def end_of(error: BaseException) -> dict[str, object]:
    """How a tenure ends whose body `error` has left."""
    if isinstance(error, SystemExit):
        return {"exit_code": exit_code_of(error)}
    if isinstance(error, KeyboardInterrupt):
        return {"exit_code": 130, "detail": "KeyboardInterrupt"}
    if type(error).__name__ == "CancelledError" or isinstance(error, GeneratorExit):
        return {}
    return {"crashed": True, "detail": describe(error)}


def _uncaught() -> BaseException | None:
    if hasattr(sys, "ps1"):
        # A person tries things out: the last one that went wrong did not end the session.
        return None
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


def _process_is_ours() -> bool:
    """Whether the process ends with the interpreter: a program with Python in it may go on."""
    try:
        return os.path.samefile(sys.executable, "/proc/self/exe")
    except (OSError, TypeError):
        return False


def _at_exit() -> None:
    if os.getpid() != _of_pid:
        return
    _native.prepare_exit()
    error, is_own = _uncaught(), _process_is_ours()
    for tenure in list(_held):
        try:
            if error is not None:
                tenure._end(end_of(error))
            elif is_own:
                tenure._leave_to_exit()
            else:
                tenure._end(None)
        except Exception:
            # The kernel's turn: it releases when the process is gone.
            pass


def _after_fork_in_child() -> None:
    global _of_pid
    _native.after_fork_in_child()
    _of_pid = os.getpid()
    _held.clear()


def find_program() -> Path | None:
    """The command line `incumbent` that came with this package; None where it did not."""
    name = "incumbent.exe" if sys.platform == "win32" else "incumbent"
    places = [sysconfig.get_path("scripts")]
    if sys.executable:
        places.append(str(Path(sys.executable).parent))
    # Of `pip install --user` and of `--target`.
    places.append(sysconfig.get_path("scripts", f"{os.name}_user"))
    places.append(str(Path(__file__).parent.parent / "bin"))
    for place in places:
        program = Path(place) / name
        if program.is_file():
            return program
    found = shutil.which(name)
    return None if found is None else Path(found).absolute()


_pause: _native.ForkPause | None = None


def _before_fork() -> None:
    global _pause
    _pause = _native.ForkPause()


def _after_fork() -> None:
    global _pause
    pause, _pause = _pause, None
    if pause is not None:
        pause.end()


_forks_are_allowed = False


def allow_fork() -> None:
    """Lets forked children open the stores that this process has open.

    Call it once, before the fork: for `os.fork`, for `multiprocessing` with `fork`, and for servers
    that fork before they serve. What the parent holds stays the parent's. A child opens the store
    again, and is a process of its own there. Without it, a call in the child is `Forked`. `spawn`
    and `subprocess` need nothing. Other threads of this process wait for the fork. If one of them
    does not come back from the store in time, the child is as without this call.
    """
    global _forks_are_allowed
    if _forks_are_allowed or not hasattr(os, "register_at_fork"):
        return
    _forks_are_allowed = True
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


def start() -> None:
    """Once, when the package is imported."""
    program = None if os.environ.get("INCUMBENT_PROGRAM") else find_program()
    if program is not None:
        _native.use_helper(program)
    atexit.register(_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork_in_child)
