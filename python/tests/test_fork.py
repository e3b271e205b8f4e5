"""Forks, and multiprocessing in all its ways."""

from __future__ import annotations

import pytest
from conftest import Start

from incumbent import Store


def test_a_forked_child_holds_nothing_and_takes_nothing(store: Store, start: Start) -> None:
    child = start(
        """
        with store.office("work") as tenure:
            lock = tenure.lock("k", "a")
            pid = os.fork()
            if pid == 0:
                told = []
                for call in (tenure.verify, lock.verify, store.locks, tenure.release):
                    try:
                        call()
                        told.append("answered")
                    except incumbent.Forked:
                        told.append("forked")
                del lock, tenure
                say(*told)
                sys.exit(0)
            os.waitpid(pid, 0)
            tenure.verify()
            lock.verify()
            say("still held")
            listen()
        """
    )
    assert child.line() == "forked forked forked forked"
    assert child.line() == "still held"
    assert store.office("work").running_pid() == child.pid


def test_a_child_that_ends_ends_nothing_of_its_parent(store: Store, start: Start) -> None:
    """Without a block: what is released at the end of a process is released by its own."""
    child = start(
        """
        tenure = store.office("work").claim()
        for leave in (lambda: sys.exit(5), lambda: os._exit(6), lambda: 1 / 0):
            pid = os.fork()
            if pid == 0:
                os.close(2)
                leave()
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            tenure.verify()
            say(code)
        listen()
        sys.exit(4)
        """
    )
    assert [child.line() for _ in range(3)] == ["5", "6", "1"]
    assert store.office("work").running_pid() == child.pid
    child.tell()
    assert child.wait() == 4, child.complaint()
    end = store.office("work").history()[0]
    assert (end.end_reason, end.exit_code) == ("exited", 4)
    assert len(store.office("work").history()) == 1


def test_a_child_may_leave_the_block_of_its_parent(store: Store, start: Start) -> None:
    """Symptom: `Forked` in place of what the child ended with, because the block gave back."""
    child = start(
        """
        with store.office("work") as tenure, tenure.lock("k", "a") as lock:
            pid = os.fork()
            if pid == 0:
                sys.exit(5)
            say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            tenure.verify()
            lock.verify()
            sys.exit(4)
        """
    )
    assert child.line() == "5"
    assert child.wait() == 4
    assert child.complaint() == ""
    (end,) = store.office("work").history()
    assert (end.end_reason, end.exit_code) == ("exited", 4)


def test_a_child_opens_the_store_again_where_forks_are_allowed(store: Store, start: Start) -> None:
    child = start(
        """
        incumbent.allow_fork()
        with store.office("work") as tenure:
            pid = os.fork()
            if pid == 0:
                with incumbent.Store(sys.argv[1]).office("child"):
                    say("child", incumbent.Store(sys.argv[1]).office("work").running_pid())
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            tenure.verify()
            say("parent", os.getpid())
        """
    )
    assert child.line() == f"child {child.pid}"
    assert child.line() == f"parent {child.pid}"
    assert child.wait() == 0


def test_without_that_the_child_is_told_what_to_do(start: Start) -> None:
    child = start(
        """
        pid = os.fork()
        if pid == 0:
            try:
                incumbent.Store(sys.argv[1]).locks()
            except incumbent.Error as error:
                say(type(error).__name__)
            os._exit(0)
        os.waitpid(pid, 0)
        """
    )
    assert child.line() == "Forked"
    assert child.wait() == 0


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_multiprocessing(path: object, start: Start, method: str, tmp_path: object) -> None:
    # A module, because a child of `spawn` imports what it runs.
    program = f"""
import multiprocessing, os, sys
import incumbent

def work(path, queue):
    with incumbent.Store(path).office("child") as tenure:
        queue.put((os.getpid(), tenure.kind))

if __name__ == "__main__":
    incumbent.allow_fork()
    with incumbent.Store(sys.argv[1]).office("work") as tenure:
        context = multiprocessing.get_context({method!r})
        queue = context.Queue()
        child = context.Process(target=work, args=(sys.argv[1], queue))
        child.start()
        pid, kind = queue.get(timeout=60)
        child.join(60)
        tenure.verify()
        print(pid != os.getpid(), kind, child.exitcode, flush=True)
"""
    file = f"{tmp_path}/program.py"
    with open(file, "w", encoding="utf-8") as out:
        out.write(program)
    child = start(
        """
        import subprocess
        done = subprocess.run(
            [sys.executable, sys.argv[2], sys.argv[1]], capture_output=True, text=True, timeout=120
        )
        say(done.stdout.strip() or done.stderr[-500:].replace(chr(10), " | "))
        """,
        file,
    )
    assert child.line() == "True gateway 0"
