"""The interpreter: its end, its threads, its memory, other ones in the same process."""

from __future__ import annotations

import gc
import os
import threading

import pytest
from conftest import Start

import incumbent
from incumbent import Store


def test_it_ends_while_threads_wait(store: Store, start: Start) -> None:
    """A daemon thread that came back into an interpreter that was gone aborted the process."""
    holder = start("l = store.lock('k', 'a')\nsay('holds')\nlisten()")
    holder.line()
    child = start(
        """
        def wait():
            while True:
                try:
                    store.lock("k", "a", wait=True)
                except incumbent.Held:
                    pass
        def ask():
            while True:
                store.locks()
        def events():
            for event in store.events():
                pass
        for target in (wait, wait, ask, events):
            threading.Thread(target=target, daemon=True).start()
        tenure = store.office("work").claim()
        watch = tenure._native.watch()
        heart = tenure.heartbeat(5)
        shutdowns = tenure.on_shutdown()
        while not store.locks()[0].waiters:
            time.sleep(0.005)
        say("ends")
        """
    )
    assert child.line() == "ends"
    code, complaint = child.wait(), child.complaint()
    assert (code, complaint) == (0, "")
    assert store.office("work").history()[0].end_reason == "released"


def test_other_interpreters_of_the_process_are_refused(start: Start) -> None:
    child = start(
        """
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters
        id = interpreters.create()
        code = [
            f"import sys; sys.path[:] = {sys.path!r}",
            "try: import incumbent; answer = 'imported'",
            "except ImportError: answer = 'refused'",
            "print(answer, flush=True)",
        ]
        interpreters.run_string(id, chr(10).join(code))
        interpreters.destroy(id)
        with store.office("work") as tenure:
            tenure.verify()
        say("goes on")
        """
    )
    assert child.line() == "refused"
    assert child.line() == "goes on"
    assert child.wait() == 0, child.complaint()


def test_garbage_is_collected_in_any_order(store: Store) -> None:
    for turn in range(6):
        tenure = store.office("work").claim()
        lock = tenure.lock("k", "a")
        watch = tenure._native.watch()
        events = store.events()
        things: list[object] = [tenure, lock, watch, events, store.office("work")]
        # A circle, so that the collector alone can end it.
        things.append(things)
        del tenure, lock, watch, events
        things[:] = things[turn % 6 :] + things[: turn % 6]
        del things
        gc.collect()
    assert not store.office("work").is_running()
    assert store.locks() == []


def cycle(store: Store) -> None:
    with store.office("work") as tenure:
        with tenure.lock("k", "a") as lock:
            lock.verify()
            tenure.update(state="running", active_agents=1)
            store.office("work").status()
            with pytest.raises(incumbent.InvalidInput):
                tenure.lock("", "a")


def resident_kib() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def test_cycles_leave_nothing_behind(store: Store) -> None:
    rounds = int(os.environ.get("INCUMBENT_PYTHON_CYCLES", "300"))
    for _ in range(100):
        cycle(store)
    gc.collect()
    before = (len(os.listdir("/proc/self/fd")), threading.active_count(), resident_kib())
    tasks = len(os.listdir("/proc/self/task"))
    for _ in range(rounds):
        cycle(store)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before[0]
    assert threading.active_count() == before[1]
    assert len(os.listdir("/proc/self/task")) <= tasks
    # SQLite's cache and the allocator's arenas settle: a leak of 100 bytes a call would not.
    assert resident_kib() - before[2] < 4096


def test_threads_of_one_process_share_a_store(store: Store, path: object) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            own = Store(store.path)
            for turn in range(10):
                with own.lock("k", f"{number}-{turn}") as lock:
                    lock.verify()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(it,)) for it in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert store.locks() == []
