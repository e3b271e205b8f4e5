"""How a tenure ends, as the history tells it."""

from __future__ import annotations

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


@pytest.mark.parametrize(("call", "code"), [("3", 3), ("", 0), ("'words'", 1)])
def test_sys_exit_is_an_exit_code(store: Store, start: Start, call: str, code: int) -> None:
    exit_code, end = end_of(store, start, f"with store.office('work'):\n    sys.exit({call})")
    assert exit_code == code
    assert (end.end_reason, end.exit_code) == ("exited", code)


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
