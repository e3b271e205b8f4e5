"""A held office: what its gateway says about itself, what it is told, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Union

from . import _lifecycle, _native
from ._answers import HandedOver
from ._errors import Lost
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
    lost_of,
)
from ._reports import Evicted, Holder, Marker, StopReason, parse, record
from ._says import Speaker
from ._signals import Shutdowns
from ._waits import Seconds, Wait, in_thread, options, seconds


#: A word of a command line, or a path.
Argument = Union[str, "os.PathLike[str]"]


def program(
    argv: Sequence[Argument], env: Mapping[str, str] | None, cwd: Argument | None
) -> dict[str, Any]:
    """A command, for the native half."""
    return {
        "argv": [os.fspath(it) for it in argv],
        "env": None if env is None else dict(env),
        "cwd": None if cwd is None else os.fspath(cwd),
    }


class Heartbeat:
    """Proves that a loop turns: `beat()` each time round, or `tenure.beat_on_loop()`."""

    def __init__(self, native: _native.Heart) -> None:
        self._native = native
        self._timer: asyncio.TimerHandle | None = None

    def beat(self) -> None:
        """Sets a flag, which a thread of the engine writes down. Well under a microsecond."""
        self._native.beat()

    def _beat_on(self, loop: asyncio.AbstractEventLoop, pause: float) -> None:
        self.beat()
        self._timer = loop.call_later(pause, self._beat_on, loop, pause)

    def stop(self) -> None:
        """Ends the heartbeat: from here on silence is not a sign of trouble."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._native.stop()


class Tenure(Speaker):
    """A held office: by a `with` block, by `release()`, or until the process ends.

    A `with` block that ends by an exception records a crash with its type and message, a block that
    ends by `sys.exit(n)` the exit code. Safe to use from many threads.
    """

    def __init__(self, native: _native.Tenure) -> None:
        self._native = native
        self._pid = os.getpid()
        facts = json.loads(native.facts())
        self.profile: str = facts["profile"]
        self.kind: str = facts["kind"]
        #: The number of this incarnation: it is never used again, and it is the office's fence.
        self.instance: int = facts["instance"]
        #: Whether this process held the office already.
        self.reacquired: bool = facts["reacquired"]
        evicted = facts["evicted"]
        #: The dead holder whose record was ended for this.
        self.evicted: Evicted | None = None if evicted is None else record(Evicted, evicted)
        #: The holder that was replaced, with `pid`, `instance`, `killed` and `left_over`.
        self.replaced: Mapping[str, Any] | None = facts["replaced"]
        #: The locks that were claimed with it: `scope`, `identity_hash`, `fence` and more of each.
        self.locks: tuple[Mapping[str, Any], ...] = tuple(facts["locks"])
        self._heart: Heartbeat | None = None
        _lifecycle.remember(self)

    def __repr__(self) -> str:
        state = ", released" if self.is_released else ""
        return f"<incumbent.Tenure {self.profile}/{self.kind} instance={self.instance}{state}>"

    def __enter__(self) -> Tenure:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A forked child that leaves the block has nothing to give back.
        if os.getpid() == self._pid:
            self._end(None if error is None else _lifecycle.end_of(error))

    async def __aenter__(self) -> Tenure:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return
        end = None if error is None else _lifecycle.end_of(error)
        await asyncio.get_running_loop().run_in_executor(None, self._end, end)

    def _end(self, end: Mapping[str, object] | None) -> str:
        if self._heart is not None:
            self._heart.stop()
        answer = self._native.release(options(end) if end else None)
        if answer is None:
            return "released_before"
        word: str = json.loads(answer)["released"]
        return word

    def _leave_to_exit(self) -> None:
        if self._heart is not None:
            self._heart.stop()
        self._native.leave_to_exit()

    # Is it still ours?

    @property
    def is_released(self) -> bool:
        """Whether it was released here. It says nothing of a loss."""
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

    async def until_lost(self) -> Lost:
        """Awaits the loss of it, on the loop: no thread waits. Seen within a second."""
        loop = asyncio.get_running_loop()
        watch = self._native.watch()
        ready: asyncio.Future[None] = loop.create_future()

        def is_readable() -> None:
            if not ready.done():
                ready.set_result(None)

        descriptor = watch.fileno()
        loop.add_reader(descriptor, is_readable)
        try:
            while True:
                await ready
                text = watch.lost()
                if text is not None:
                    return lost_of(text)
                ready = loop.create_future()
        finally:
            loop.remove_reader(descriptor)
            watch.close()

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
        """A lock of this office; raises `Held` where another process has it.

        It ends with the office at the latest. `wait` is False, True or seconds; Ctrl-C ends a wait
        within 100 ms. The other arguments are those of `LockRequest`; `evict_stopped` takes the
        lock from a holder that is stopped (Ctrl-Z), seen twice, 200 ms apart.
        """
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

    def take_over(
        self,
        requests: Sequence[LockRequest],
        *,
        force: bool = False,
        reap: bool = False,
        across_homes: bool = False,
        evict_stopped: bool = False,
        by: str | None = None,
    ) -> list[Lock]:
        """All of these locks or none, also from live holders of this profile.

        Each is asked to stop, has its own stop budget for that, and is killed after it; the call
        takes as long, and Ctrl-C ends it within 100 ms. Raises `Held` where a holder is of another
        profile, or cannot be signalled. `force`, `reap` and `across_homes` are those of a claim.
        """
        locks, identities = lock_list(requests)
        replace = {"by": by, "force": force, "reap": reap, "across_homes": across_homes}
        asked = acquire_options(False, evict_stopped)
        return all_granted(
            self._native.take_over(locks, identities, asked, options(replace), None)
        )

    # Another program goes on.

    def exec(
        self,
        argv: Sequence[Argument],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Argument | None = None,
    ) -> NoReturn:
        """Becomes another program, which goes on with this office: the same process and pid.

        That one adopts it with `store.inherited()`, or claims as usual. The office is never free.
        It ends this interpreter without its `atexit` and `finally`; standard output is flushed.
        Comes back by an exception alone: then this program holds the office as before. This
        office, with its locks, must be all that the process holds.
        """
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._native.exec(program(argv, env, cwd))
        raise AssertionError("a program that was executed has come back")

    def hand_over(
        self,
        argv: Sequence[Argument],
        within: Seconds = 30.0,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Argument | None = None,
    ) -> HandedOver:
        """Starts a program that adopts this office with `store.inherited()`; never free meanwhile.

        `taken` says whether it has, in `within` seconds. Then this process has no office any more
        and should end. Where it has not, it has ended, and all is as before. A supervisor sees this
        process end: under systemd and the like use `exec()`. It cannot be given up half way: Ctrl-C
        is seen when it comes back. In a loop: `asyncio.to_thread`.
        """
        answer = self._native.hand_over(program(argv, env, cwd), seconds(within))
        handed_over = parse(HandedOver, answer)
        if handed_over.taken and self._heart is not None:
            self._heart.stop()
        return handed_over

    # What it says about itself: `update()` and `update_platform()`.

    def _say(self, update: str) -> None:
        self._native.update_status(update)

    def heartbeat(self, every: Seconds) -> Heartbeat:
        """Promises a `beat()` each `every` seconds; without one the office is `unresponsive`."""
        self._heart = Heartbeat(self._native.heartbeat(seconds(every)))
        return self._heart

    def beat_on_loop(
        self, every: Seconds = 5.0, loop: asyncio.AbstractEventLoop | None = None
    ) -> Heartbeat:
        """Has the loop itself beat: a loop that hangs is seen by others as unresponsive."""
        heart = self.heartbeat(every)
        heart._beat_on(loop or asyncio.get_running_loop(), seconds(every) / 2)
        return heart

    # What it is told.

    def peek_marker(self, name: str | None = None) -> Marker | None:
        """The open marker of this name for this incarnation, or of any name."""
        text = self._native.peek_marker(name)
        return None if text is None else parse(Marker, text)

    def consume_marker(self, name: str | None = None) -> Marker | None:
        """As `peek_marker()`, and nobody gets it again."""
        answer = self._native.consume_marker(name)
        if answer is None:
            return None
        return record(Marker, {**json.loads(answer[0]), "recorded": answer[1]})

    def why_stopped(self) -> StopReason:
        """Why this process is being stopped, for the handler of a signal. Consumes the marker."""
        return parse(StopReason, self._native.why_stopped())

    def on_shutdown(self, supervisor: str | None = None) -> Shutdowns:
        """Catches SIGTERM, SIGINT and SIGHUP; each becomes a `Shutdown`, with its sender.

        `supervisor` (`systemd`, `launchd`, `s6`, `docker`, `none`) picks the exit codes; None finds
        out. Call it after `signal.signal` and `loop.add_signal_handler`: the later one wins, and
        what they had installed is called as well. Or leave the signals to them: `shutdown_feed()`.
        """
        return Shutdowns(self._native.on_shutdown(supervisor))

    def shutdown_feed(self, supervisor: str | None = None) -> Shutdowns:
        """As `on_shutdown()`, for signals that the host catches and feeds:

        `loop.add_signal_handler(SIGTERM, shutdowns.feed, SIGTERM)`, or `shutdowns.feed_on(loop)`.
        """
        return Shutdowns(self._native.shutdown_feed(supervisor))

    # The end.

    def release(self) -> None:
        """Gives it back; the locks that belong to it end with it. A second call does nothing."""
        self._end(None)

    def end(self, exit_code: int | None = None, detail: str | None = None) -> None:
        """As `release()`, with the exit code that the process ends with."""
        self._end({"exit_code": exit_code, "detail": detail})

    def crash(self, error: BaseException | str) -> None:
        """As `release()`, as a crash with the words of `error`."""
        detail = error if isinstance(error, str) else _lifecycle.describe(error)
        self._end({"crashed": True, "detail": detail})
