"""Waits: how they are written, and how a loop awaits them while a thread waits.

A wait of the engine blocks its thread. In a loop it runs in a thread of its own, so that neither
the loop nor its pool of threads is ever taken up by it. A cancelled task ends the wait within 100
ms; what the wait was granted in that moment is released, and the cancellation goes on.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, Union

from . import _native

T = TypeVar("T")

#: A length: seconds, or a `timedelta`.
Seconds = Union[float, int, timedelta]

#: `False`: one try. `True`: until it is free. A length: up to this long.
Wait = Union[bool, float, int, timedelta, None]


def seconds(length: Seconds) -> float:
    """A length in seconds."""
    return length.total_seconds() if isinstance(length, timedelta) else float(length)


def optional_seconds(length: Seconds | None) -> float | None:
    """A length in seconds, if there is one."""
    return None if length is None else seconds(length)


def wait_fields(wait: Wait) -> dict[str, Any]:
    """`wait` as the native half reads it."""
    if wait is True or (isinstance(wait, float) and wait == float("inf")):
        return {"forever": True}
    if wait is None or wait is False:
        return {}
    return {"wait": seconds(wait)}


def options(fields: Mapping[str, Any]) -> str:
    """Options for the native half: those that were given."""
    return json.dumps({name: value for name, value in fields.items() if value is not None})


async def in_thread(
    call: Callable[[_native.Canceller], T], undo: Callable[[T], None] | None = None
) -> T:
    """Awaits `call`, which waits, in a thread of its own; `undo` gives back what nobody wants."""
    loop = asyncio.get_running_loop()
    canceller = _native.Canceller()
    done: asyncio.Future[T] = loop.create_future()
    lock = threading.Lock()
    abandoned = False

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = call(canceller)
        except BaseException as raised:
            error = raised
        with lock:
            unwanted = abandoned
            if not unwanted:
                try:
                    loop.call_soon_threadsafe(settle, result, error)
                except RuntimeError:
                    # The loop has ended without us.
                    unwanted = True
        if unwanted and error is None and undo is not None:
            undo(result)  # type: ignore[arg-type]

    # A daemon: a wait does not keep a program alive. The end of the interpreter ends it.
    threading.Thread(target=work, name="incumbent-wait", daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        canceller.cancel()
        with lock:
            abandoned = True
            granted = done.done() and not done.cancelled() and done.exception() is None
        if granted and undo is not None:
            await quietly(undo, done.result())
        elif not done.done():
            # The thread may have handed it over just now: then it is ours to give back.
            done.add_done_callback(lambda it: _give_back(it, undo))
        raise


def _give_back(done: asyncio.Future[T], undo: Callable[[T], None] | None) -> None:
    if done.cancelled() or done.exception() is not None or undo is None:
        return
    threading.Thread(target=undo, args=(done.result(),), daemon=True).start()


async def quietly(work: Callable[[T], None], argument: T) -> None:
    """Does a short piece of work off the loop, and is not cut short by a cancellation."""
    loop = asyncio.get_running_loop()
    task = loop.run_in_executor(None, work, argument)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
