"""Signals that ask this process to end: by whom, why, and what to exit with."""

from __future__ import annotations

import asyncio
import select
import signal as signals
from collections.abc import AsyncIterator
from types import FrameType, TracebackType

from . import _native
from ._reports import Shutdown, parse
from ._waits import Seconds, optional_seconds


class Shutdowns:
    """The shutdowns of a tenure, one for each signal.

    `fileno()` is readable while there is one: for `select`, for `loop.add_reader`. Nothing ends by
    itself: drain, leave the `with` block, exit with `exit_code`.
    """

    def __init__(self, native: _native.Shutdowns) -> None:
        self._native = native

    def __enter__(self) -> Shutdowns:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """A descriptor to wait for. Never read from it."""
        return self._native.fileno()

    def take(self) -> Shutdown | None:
        """The next one, if one has come. Waits for nothing."""
        text = self._native.take()
        return None if text is None else parse(Shutdown, text)

    def wait(self, timeout: Seconds | None = None) -> Shutdown | None:
        """Waits for the next one, up to `timeout` seconds; None where none has come."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        limit = optional_seconds(timeout)
        poll.poll(None if limit is None else max(0, int(limit * 1000)))
        return self.take()

    async def next(self) -> Shutdown:
        """Awaits the next one, on the loop: no thread waits."""
        loop = asyncio.get_running_loop()
        while True:
            shutdown = self.take()
            if shutdown is not None:
                return shutdown
            ready: asyncio.Future[None] = loop.create_future()
            descriptor = self.fileno()

            def is_readable(ready: asyncio.Future[None] = ready) -> None:
                if not ready.done():
                    ready.set_result(None)

            loop.add_reader(descriptor, is_readable)
            try:
                await ready
            finally:
                loop.remove_reader(descriptor)

    async def __aiter__(self) -> AsyncIterator[Shutdown]:
        while True:
            yield await self.next()

    def feed(self, signum: int, frame: FrameType | None = None) -> None:
        """For a handler of the host: `signal.signal(SIGTERM, shutdowns.feed)`.

        Of `tenure.shutdown_feed()`; it does nothing on what `tenure.on_shutdown()` returned.
        """
        self._native.feed(int(signum), None)

    def feed_on(self, loop: asyncio.AbstractEventLoop, *signums: int) -> None:
        """Has `loop` feed these signals, SIGTERM and SIGINT where none is named."""
        for signum in signums or (signals.SIGTERM, signals.SIGINT):
            loop.add_signal_handler(signum, self.feed, signum)

    @property
    def is_in_place(self) -> bool:
        """Whether signals still reach this.

        False where `signal.signal` or `loop.add_signal_handler` was called for one of them since:
        they replace the handler. Catch first with them, or use `tenure.shutdown_feed()`.
        """
        return self._native.is_in_place()

    def close(self) -> None:
        """Catches no more."""
        self._native.close()
