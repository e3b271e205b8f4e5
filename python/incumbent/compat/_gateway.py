"""The office that stands for a home directory, and what this process holds of it."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._lock import Lock
from .._office import Office
from .._reports import Holder
from .._store import PathLike, Store
from .._tenure import Tenure

#: What a profile may be named: what cannot is named by a hash.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass
class Settings:
    """How the compatibility modules use the engine."""

    store: PathLike | None = None
    home: Path | None = None
    profile: str | None = None
    files: bool = True
    evict_stopped: bool = False


@dataclass
class Held:
    """What this process holds. All of it is under `lock`."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    pid: int = 0
    tenure: Tenure | None = None
    #: Who asked for the office: it is held for as long as one of the two wants it.
    runtime_lock: bool = False
    pid_file: bool = False
    locks: dict[tuple[str, str], tuple[Lock, dict[str, Any]]] = field(default_factory=dict)
    #: What was said before there was an office to say it of.
    unsaid: dict[str, Any] = field(default_factory=dict)
    unsaid_platforms: dict[str, dict[str, Any]] = field(default_factory=dict)


settings = Settings()
_held = Held()


def configure(
    *,
    store: PathLike | None = None,
    home: PathLike | None = None,
    profile: str | None = None,
    files: bool = True,
    evict_stopped: bool = False,
) -> None:
    """Chooses the store, the home directory and the profile, in place of what is found out.

    `files` keeps `gateway.lock`, `gateway.pid` and `gateway_state.json` in the home up to date for
    programs that read them, and keeps older gateways out. `evict_stopped` takes a scoped lock from
    a holder that is stopped, as the older module did. Call it before anything else; what is held
    already stays as it is.
    """
    settings.store = store
    settings.home = None if home is None else Path(home)
    settings.profile = profile
    settings.files = files
    settings.evict_stopped = evict_stopped


def home() -> Path:
    """The home directory: that of `configure`, HERMES_HOME, or `~/.hermes`."""
    if settings.home is not None:
        return settings.home
    of_environment = os.environ.get("HERMES_HOME", "").strip()
    return Path(of_environment).expanduser() if of_environment else Path.home() / ".hermes"


def store() -> Store:
    """The store, made where there is none."""
    return Store(settings.store)


def existing_store() -> Store | None:
    """The store, if there is one: questions make none."""
    return Store.existing(settings.store)


def profile_of(directory: Path) -> str:
    """The profile of a home: each directory has one, and the usual one has the usual name."""
    if settings.profile is not None and directory == home():
        return settings.profile
    of_environment = os.environ.get("INCUMBENT_PROFILE")
    if of_environment and directory == home():
        return of_environment
    if directory == Path.home() / ".hermes":
        return "default"
    resolved = directory.resolve()
    name = resolved.name
    if resolved.parent.name == "profiles" and _NAME.fullmatch(name) and name != "default":
        return name
    digest = hashlib.sha256(os.fsencode(resolved)).hexdigest()[:12]
    return f"home-{digest}"


def office(of: Store, directory: Path | None = None) -> Office:
    """The office of a home directory."""
    directory = home() if directory is None else directory
    return of.office(profile_of(directory))


def held() -> Held:
    """What this very process holds: a forked child holds nothing."""
    global _held
    if _held.pid != os.getpid():
        _held = Held(pid=os.getpid())
    return _held


def claim() -> Tenure | Holder:
    """The office of the home, for this process."""
    mine = held()
    if mine.tenure is not None and not mine.tenure.is_released:
        return mine.tenure
    directory = home()
    if settings.files:
        directory.mkdir(parents=True, exist_ok=True)
    answer = office(store()).try_claim(legacy_home=directory if settings.files else None)
    if isinstance(answer, Tenure):
        mine.tenure = answer
    return answer


def let_go() -> None:
    """Releases the office, unless somebody in this process still wants it."""
    mine = held()
    if mine.runtime_lock or mine.pid_file or mine.tenure is None:
        return
    tenure, mine.tenure = mine.tenure, None
    tenure.release()


def pid_record(holder: Mapping[str, Any]) -> dict[str, Any]:
    """A process as the older files name it."""
    return {
        "pid": holder.get("pid"),
        "kind": "hermes-gateway",
        "argv": list(holder.get("argv") or ()),
        "start_time": holder.get("start_time"),
    }
