"""An office goes on in another program; locks are taken from others of the profile."""

from __future__ import annotations

from conftest import Start

from incumbent import Store

#: Adopts what it was given, and lives until it is told.
SUCCESSOR = """
successor = (
    "import os, sys, incumbent\\n"
    "tenure = incumbent.Store(sys.argv[1]).inherited()\\n"
    "tenure.verify()\\n"
    "os.write(1, f'{os.getpid()} {tenure.instance}{chr(10)}'.encode())\\n"
    "sys.stdin.readline()\\n"
    "sys.exit(3)\\n"
)
"""


def test_a_program_becomes_another_and_keeps_its_office(store: Store, start: Start) -> None:
    child = start(
        SUCCESSOR
        + """
tenure = store.office("work").claim()
tenure.update(state="running")
try:
    tenure.exec(["/nonexistent/program"])
except incumbent.InvalidInput as error:
    tenure.verify()
    say("goes on", tenure.instance)
print("not flushed", end=" ")
tenure.exec([sys.executable, "-c", successor, sys.argv[1]], env={**os.environ, "MORE": "1"})
"""
    )
    first = int(child.line().removeprefix("goes on "))
    pid, second = child.line().removeprefix("not flushed ").split()
    assert (int(pid), int(second) > first) == (child.pid, True)
    assert store.office("work").running_pid() == child.pid
    child.tell()
    assert child.wait() == 3, child.complaint()
    past = store.office("work").history()
    assert [it.instance for it in past] == [int(second), first]
    assert (past[0].end_reason, past[0].exit_code) == ("exited", 3)


def test_a_successor_gets_the_office_or_nothing_has_changed(store: Store, start: Start) -> None:
    child = start(
        SUCCESSOR
        + """
tenure = store.office("work").claim()
refused = tenure.hand_over(["sh", "-c", "exit 7"], 60)
say(refused.outcome, refused.exit_code, refused.taken)
tenure.verify()
late = tenure.hand_over(["sleep", "600"], 0.05)
say(late.outcome, late.why is not None)
tenure.verify()
taken = tenure.hand_over([sys.executable, "-c", successor, sys.argv[1]], 60)
say(taken.outcome, taken.pid, taken.instance)
say(tenure.is_released)
"""
    )
    assert child.line() == "ended 7 False"
    assert child.line() == "timed_out True"
    lines = {child.line(), child.line(), child.line()}
    assert child.wait() == 0, child.complaint()
    pid = store.office("work").running_pid()
    assert pid is not None and pid != child.pid
    number = store.office("work").status().instance
    assert lines == {f"{pid} {number}", f"taken {pid} {number}", "True"}
    child.tell()


def test_locks_are_taken_from_others_of_the_profile(store: Store, start: Start) -> None:
    other = start(
        """
        tenure = store.office("work", "worker").claim()
        lock = tenure.lock("token", "a")
        def leave(*_):
            say(tenure.why_stopped().cause)
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        say("holds")
        while True:
            time.sleep(60)
        """
    )
    other.line()
    child = start(
        """
        requests = [incumbent.LockRequest("token", "a")]
        with store.office("work") as tenure:
            say(type(tenure.try_lock("token", "a")).__name__)
            locks = tenure.take_over(requests, by="a test")
            say(len(locks), locks[0].instance == tenure.instance)
        """
    )
    assert child.line() == "Holder"
    assert child.line() == "1 True"
    assert (other.line(), other.wait()) == ("taken_over", 0)
    assert store.office("work", "worker").history()[0].ended_at is not None
    # A holder of another profile is left alone.
    holder = start("with store.office('b') as t, t.lock('token', 'a'):\n  say('holds')\n  listen()")
    holder.line()
    child = start(
        """
        requests = [incumbent.LockRequest("token", "a")]
        with store.office("work") as tenure:
            try:
                tenure.take_over(requests)
            except incumbent.Held as held:
                say(held.holder.pid)
        """
    )
    assert child.line() == str(holder.pid)
