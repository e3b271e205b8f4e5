"""How a tenure ends, as the history tells it."""

from __future__ import annotations

import signal

import pytest
from conftest import Start

from incumbent import Incarnation, Store


def end_of(store: Store, start: Start, code: str) -> tuple[int, Incarnation]:
    child = start(code)
    exit_code = child.wait()
    return exit_code, store.office("work").history()[0]


def test_an_exception_in_the_body_is_a_crash(store: Store, start: Start) -> None:
    code = "with store.office('work'):\n    raise RuntimeError('no   such\\nchannel')"
    exit_code, end = end_of(store, start, code)
    assert exit_code == 1
    assert end.end_reason == "crashed"
    assert end.detail == "RuntimeError: no such channel"


def test_so_is_one_that_nobody_catches_outside_of_a_with_block(store: Store, start: Start) -> None:
    _, end = end_of(store, start, "tenure = store.office('work').claim()\nraise KeyError('x')")
    assert (end.end_reason, end.detail) == ("crashed", "KeyError: 'x'")


@pytest.mark.parametrize(
    ("call", "code"), [("3", 3), ("", 0), ("'words'", 1), ("256 + 7", 7), ("-1", 255)]
)
def test_sys_exit_is_an_exit_code(store: Store, start: Start, call: str, code: int) -> None:
    exit_code, end = end_of(store, start, f"with store.office('work'):\n    sys.exit({call})")
    assert exit_code == code
    assert (end.end_reason, end.exit_code) == ("exited", code)


CLAIM = "tenure = store.office('work').claim()\n"


@pytest.mark.parametrize(("call", "code"), [("3", 3), ("'words'", 1), ("256 + 7", 7)])
def test_sys_exit_outside_of_a_block_is_one_too(
    store: Store, start: Start, call: str, code: int
) -> None:
    """Python tells nobody of it: the C library does, when the interpreter is gone."""
    exit_code, end = end_of(store, start, f"{CLAIM}def leave(): sys.exit({call})\nleave()")
    assert exit_code == code
    assert (end.end_reason, end.exit_code) == ("exited", code)


def test_a_program_that_came_to_its_end_has_released(store: Store, start: Start) -> None:
    for rest in ("", "sys.exit()", "tenure = None"):
        exit_code, end = end_of(store, start, CLAIM + rest)
        assert (exit_code, end.end_reason) == (0, "released"), rest


def test_what_a_thread_raises_ends_no_process(store: Store, start: Start) -> None:
    code = f"{CLAIM}t = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()"
    exit_code, end = end_of(store, start, code)
    assert (exit_code, end.end_reason) == (0, "released")


def test_an_exception_that_ends_a_loop_is_a_crash(store: Store, start: Start) -> None:
    code = f"{CLAIM}import asyncio\nasync def main(): raise OSError(5, 'gone')\n"
    exit_code, end = end_of(store, start, code + "asyncio.run(main())")
    assert exit_code == 1
    assert (end.end_reason, end.detail) == ("crashed", "OSError: [Errno 5] gone")


def test_ctrl_c_outside_of_a_block_is_no_crash(store: Store, start: Start) -> None:
    code = f"{CLAIM}os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"
    exit_code, end = end_of(store, start, code)
    assert exit_code == -signal.SIGINT
    assert (end.end_reason, end.exit_code, end.detail) == ("exited", 130, "KeyboardInterrupt")


def test_after_os_exit_outside_of_a_block_the_kernel_releases(store: Store, start: Start) -> None:
    child = start(f"{CLAIM}os._exit(7)")
    assert child.wait() == 7
    assert not store.office("work").is_running()
    with store.office("work") as tenure:
        assert tenure.evicted is not None and tenure.evicted.pid == child.pid
    end = store.office("work").history()[1]
    # Nobody said how it ended; the kernel may have.
    assert end.ended_at is not None and end.exit_seen_at is not None
    assert end.end_reason != "released"


def test_after_os_exit_the_kernel_releases(store: Store, start: Start) -> None:
    child = start("with store.office('work'):\n    os._exit(7)")
    assert child.wait() == 7
    assert not store.office("work").is_running()
    with store.office("work") as tenure:
        assert tenure.evicted is not None and tenure.evicted.pid == child.pid


def test_a_program_that_ends_with_everything_open_has_released(store: Store, start: Start) -> None:
    code = "t = store.office('work').claim()\nl = t.lock('k', 'a')\ne = store.events()"
    exit_code, end = end_of(store, start, code)
    assert (exit_code, end.end_reason) == (0, "released")
    assert store.locks() == []


def test_an_exception_that_is_caught_inside_is_no_crash(store: Store) -> None:
    with store.office("work"):
        try:
            raise RuntimeError
        except RuntimeError:
            pass
    assert store.office("work").history()[0].end_reason == "released"


def test_an_end_is_said_by_hand(store: Store) -> None:
    store.office("work").claim().end(4, "no network")
    end = store.office("work").history()[0]
    assert (end.end_reason, end.exit_code, end.detail) == ("exited", 4, "no network")
    store.office("work").claim().crash(ValueError("bad"))
    assert store.office("work").history()[0].detail == "ValueError: bad"
