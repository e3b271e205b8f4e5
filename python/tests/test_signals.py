"""Signals: Ctrl-C in a wait, and those that ask to end."""

from __future__ import annotations

import os
import signal
import time

from conftest import Start, until

from incumbent import Store

WAITS = """
say("waits")
began = time.monotonic()
try:
    {wait}
except KeyboardInterrupt:
    say("interrupted")
say("goes on")
"""


def interrupted(store: Store, start: Start, wait: str) -> None:
    holder = start("t = store.office('w').claim()\nl = t.lock('k', 'a')\nsay('holds')\nlisten()")
    holder.line()
    waiter = start(WAITS.format(wait=wait))
    assert waiter.line() == "waits"
    until(lambda: store.office("w").status().waiters or store.locks()[0].waiters)
    waiter.signal(signal.SIGINT)
    assert waiter.line() == "interrupted"
    assert waiter.line() == "goes on"
    assert waiter.wait() == 0
    assert store.office("w").running_pid() == holder.pid


def test_ctrl_c_ends_a_wait_for_a_lock(store: Store, start: Start) -> None:
    interrupted(store, start, 'store.lock("k", "a", wait=True)')


def test_ctrl_c_ends_a_wait_for_an_office(store: Store, start: Start) -> None:
    interrupted(store, start, 'store.office("w").claim(wait=3600)')


def test_ctrl_c_ends_a_wait_at_once(store: Store, start: Start) -> None:
    """Promised are 100 ms; what a busy machine adds is not in the quickest of several."""
    holder = start("l = store.lock('k', 'a')\nsay('holds')\nlisten()")
    holder.line()
    waiter = start(
        """
        while True:
            say("waits")
            try:
                store.lock("k", "a", wait=True)
            except KeyboardInterrupt:
                say(time.monotonic_ns())
        """
    )
    took_ms = []
    for _ in range(8):
        assert waiter.line() == "waits"
        until(lambda: store.locks()[0].waiters)
        sent = time.monotonic_ns()
        waiter.signal(signal.SIGINT)
        took_ms.append((int(waiter.line()) - sent) / 1e6)
    print("from the signal to the exception:", [f"{it:.1f} ms" for it in took_ms])
    # Not by a look once in a while that happened to come soon.
    assert min(took_ms) < 100 and sorted(took_ms)[len(took_ms) // 2] < 1_000


def test_a_handler_that_returns_ends_no_wait(store: Store, start: Start) -> None:
    holder = start("l = store.lock('k', 'a')\nsay('holds')\nlisten()")
    holder.line()
    waiter = start(
        """
        signal.signal(signal.SIGUSR1, lambda *_: say("handled"))
        say("waits")
        with store.lock("k", "a", wait=True):
            say("granted")
        """
    )
    waiter.line()
    until(lambda: store.locks()[0].waiters)
    waiter.signal(signal.SIGUSR1)
    assert waiter.line() == "handled"
    holder.kill()
    assert waiter.line() == "granted"


def test_who_sends_a_signal_is_known(store: Store, start: Start) -> None:
    child = start(
        """
        with store.office("work") as tenure, tenure.on_shutdown("none") as shutdowns:
            say("ready" if shutdowns.is_in_place else "replaced")
            shutdown = shutdowns.wait(60)
            sender = shutdown.snapshot["sender"]
            say(shutdown.cause, shutdown.exit_code, sender["pid"])
            say(shutdown.log_line)
        """
    )
    assert child.line() == "ready"
    child.signal(signal.SIGTERM)
    cause, code, sender = child.line().split()
    assert (cause, int(code), int(sender)) == ("supervisor_stop", 143, os.getpid())
    assert "signal=SIGTERM" in child.line()
    assert child.wait() == 0


def test_a_host_that_catches_signals_feeds_them(store: Store, start: Start) -> None:
    child = start(
        """
        with store.office("work") as tenure, tenure.shutdown_feed("none") as shutdowns:
            signal.signal(signal.SIGTERM, shutdowns.feed)
            say("ready")
            while (shutdown := shutdowns.wait(0.01)) is None:
                pass
            say(shutdown.cause, shutdown.exit_code)
        """
    )
    assert child.line() == "ready"
    child.signal(signal.SIGTERM)
    assert child.line() == "signalled 143"


def test_a_handler_that_comes_later_replaces_ours_and_that_is_seen(start: Start) -> None:
    child = start(
        """
        with store.office("work") as tenure:
            shutdowns = tenure.on_shutdown()
            say(shutdowns.is_in_place)
            signal.signal(signal.SIGTERM, lambda *_: None)
            say(shutdowns.is_in_place)
            shutdowns.close()
        """
    )
    assert child.line() == "True"
    assert child.line() == "False"
    assert child.wait() == 0


def test_a_handler_asks_why(store: Store, start: Start) -> None:
    child = start(
        """
        with store.office("work") as tenure:
            stopped = []
            signal.signal(signal.SIGTERM, lambda *_: stopped.append(tenure.why_stopped()))
            say("ready")
            while not stopped:
                time.sleep(0.01)
            say(stopped[0].cause)
        """
    )
    assert child.line() == "ready"
    assert store.office("work").stop(timeout=60).outcome == "stopped"
    assert child.line() == "planned_stop"
