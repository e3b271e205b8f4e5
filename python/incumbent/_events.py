"""The stream of committed changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import TracebackType

from . import _native
from ._reports import Event, parse
from ._waits import Wait, in_thread, wait_fields


class Events:
    """Changes of all processes, as they are committed, from the moment on that this was made.

    `for event in events` waits without an end; `async for` does so on a loop, which it never
    blocks. `next(wait=...)` returns None where none came in time.
    """

    def __init__(self, native: _native.Events) -> None:
        self._native = native

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def position(self) -> int | None:
        """The id of the last event that was handed out: for `store.events(after=...)`."""
        return self._native.position()

    def next(self, wait: Wait = False) -> Event | None:
        """The next event, or None where there is none in time."""
        return self._next(wait, None)

    def _next(self, wait: Wait, canceller: _native.Canceller | None) -> Event | None:
        fields = wait_fields(wait)
        text = self._native.next(fields.get("wait"), "forever" in fields, canceller)
        return None if text is None else parse(Event, text)

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.next(wait=True)
            if event is None:
                return
            yield event

    async def anext(self) -> Event | None:
        """Awaits the next event; None once it is closed."""
        return await in_thread(lambda canceller: self._next(True, canceller))

    async def __aiter__(self) -> AsyncIterator[Event]:
        loop = asyncio.get_running_loop()
        descriptor = self._native.fileno()
        while True:
            # Reads without waiting, off the loop: a store may be slow.
            event = await loop.run_in_executor(None, self._next, False, None)
            if event is not None:
                yield event
                continue
            ready: asyncio.Future[None] = loop.create_future()

            def is_readable(ready: asyncio.Future[None] = ready) -> None:
                if not ready.done():
                    ready.set_result(None)

            loop.add_reader(descriptor, is_readable)
            try:
                await ready
            finally:
                loop.remove_reader(descriptor)

    def fileno(self) -> int:
        """Readable while there may be something new. Never read from it."""
        return self._native.fileno()

    def close(self) -> None:
        """Ends the stream."""
        self._native.close()
