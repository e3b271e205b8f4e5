"""A loop that is never blocked."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

import pytest
from conftest import PATIENCE, Start, until

import incumbent
from incumbent import Held, Lost, Store

HOLDS = """
t = store.office("work").claim()
l = t.lock("k", "a")
say("holds")
listen()
"""


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, PATIENCE))


def test_a_wait_is_awaited_while_the_loop_goes_on(store: Store, start: Start) -> None:
    child = start(HOLDS)
    child.line()

    async def main() -> None:
        claim = asyncio.create_task(store.office("work").aclaim())
        turns = 0
        while not store.office("work").status().waiters:
            turns += 1
            await asyncio.sleep(0.002)
        assert turns > 0 and not claim.done()
        child.process.kill()
        async with await claim as tenure:
            tenure.verify()
        assert not store.office("work").is_running()

    run(main())


def test_a_cancelled_task_waits_no_longer(store: Store, start: Start) -> None:
    child = start(HOLDS)
    child.line()

    async def main() -> None:
        for call in (store.office("work").aclaim(), store.alock("k", "a")):
            task = asyncio.create_task(call)
            while not (store.office("work").status().waiters or store.locks()[0].waiters):
                await asyncio.sleep(0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while store.office("work").status().waiters or store.locks()[0].waiters:
                await asyncio.sleep(0.002)

    run(main())
    child.kill()
    # Nobody has it in secret.
    store.office("work").claim().release()


def test_what_is_granted_while_it_is_cancelled_is_given_back(store: Store) -> None:
    async def main() -> None:
        for turn in range(40):
            task = asyncio.create_task(store.office("work").aclaim())
            await asyncio.sleep(0.0001 * turn)
            task.cancel()
            try:
                (await task).release()
            except asyncio.CancelledError:
                pass

    run(main())
    until(lambda: not store.office("work").is_running())


def test_a_refusal_is_raised(store: Store, start: Start) -> None:
    child = start(HOLDS)
    child.line()

    async def main() -> None:
        with pytest.raises(Held):
            await store.office("work").aclaim(wait=0.01)
        with pytest.raises(Held):
            async with store.office("work"):
                pass

    run(main())


def test_events_come_while_the_loop_goes_on(store: Store, start: Start) -> None:
    async def main() -> None:
        seen: list[str] = []
        with store.events("work") as events:
            child = start(HOLDS)
            async for event in events:
                seen.append(event.event)
                if event.event == "lock_acquired":
                    break
            assert event.pid == child.pid
        assert seen

    run(main())


def test_a_loss_is_awaited(store: Store) -> None:
    async def main() -> None:
        tenure = store.office("work").claim()
        loss = asyncio.create_task(tenure.until_lost())
        await asyncio.sleep(0)
        store.office("work").evict(force=True)
        lost = await loss
        assert isinstance(lost, Lost) and lost.reason == "evicted"
        tenure.release()

    run(main())


def test_the_loop_beats(store: Store) -> None:
    async def main() -> None:
        async with store.office("work") as tenure:
            tenure.beat_on_loop(every=0.2)
            tenure.update(state="running")
            first = None
            while True:
                now = store.office("work").status().heartbeat_at
                if first is None:
                    first = now
                elif now != first:
                    break
                await asyncio.sleep(0.005)

    run(main())


def test_a_shutdown_is_awaited(store: Store, start: Start) -> None:
    child = start(
        """
        import asyncio
        async def main():
            async with store.office("work") as tenure:
                with tenure.on_shutdown("none") as shutdowns:
                    say("ready")
                    async for shutdown in shutdowns:
                        say(shutdown.cause, shutdown.exit_code)
                        return
        asyncio.run(main())
        """
    )
    assert child.line() == "ready"
    os.kill(child.pid, signal.SIGTERM)
    # We are its parent: what starts it also stops it.
    assert child.line() == "supervisor_stop 143"
    assert child.wait() == 0


def test_signals_that_the_loop_catches_are_fed(start: Start) -> None:
    child = start(
        """
        import asyncio
        async def main():
            async with store.office("work") as tenure:
                with tenure.shutdown_feed("none") as shutdowns:
                    shutdowns.feed_on(asyncio.get_running_loop())
                    say("ready")
                    say((await shutdowns.next()).cause)
        asyncio.run(main())
        """
    )
    assert child.line() == "ready"
    os.kill(child.pid, signal.SIGTERM)
    assert child.line() == "signalled"
    assert child.wait() == 0


def test_readiness_is_awaited(store: Store) -> None:
    async def main() -> None:
        office = store.office("work")
        ready = asyncio.create_task(office.await_ready())
        await asyncio.sleep(0)
        async with office as tenure:
            tenure.update(state=incumbent.State.RUNNING)
            assert (await ready).ready

    run(main())
