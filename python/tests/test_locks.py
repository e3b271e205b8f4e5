"""Locks between real processes."""

from __future__ import annotations

import os
import threading

import pytest
from conftest import Start, until

import incumbent
from incumbent import Held, Holder, Lock, NotOwner, Store


def test_an_identity_has_one_holder(store: Store, start: Start) -> None:
    child = start(
        """
        with store.office("bot") as tenure:
            with tenure.lock("token", "123:secret", metadata={"bot": "blue"}) as lock:
                say(lock.fence)
                listen()
        """
    )
    fence = int(child.line())
    with pytest.raises(Held) as refused:
        store.lock("token", "123:secret")
    assert refused.value.holder.metadata == {"bot": "blue"}
    assert refused.value.holder.profile == "bot"
    assert "secret" not in str(refused.value)
    answer = store.try_lock("token", b"123:secret")
    assert isinstance(answer, Holder) and answer.pid == child.pid
    status = store.lock_status("token", "123:secret")
    assert status is not None and status.fence == fence and status.conflicts
    assert store.lock_status("token", "another") is None
    child.kill()
    with store.lock("token", "123:secret") as lock:
        assert lock.fence > fence
        assert lock.evicted is not None and lock.evicted.pid == child.pid


def test_a_lock_ends_with_its_office(store: Store) -> None:
    with store.office("work") as tenure:
        lock = tenure.lock("token", "a")
        lock.verify()
    assert lock.lost() is not None
    with pytest.raises(incumbent.Lost):
        lock.verify()


def test_threads_wait_for_an_exclusive_lock(store: Store) -> None:
    inside: list[int] = []
    most = 0

    def work(number: int) -> None:
        nonlocal most
        with store.lock("port", 8080, exclusive=True, wait=True):
            inside.append(number)
            most = max(most, len(inside))
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(it,)) for it in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most == 1


def test_locks_are_acquired_together(store: Store, start: Start) -> None:
    child = start("lock = store.lock('token', 'b')\nsay('holds')\nlisten()")
    child.line()
    wanted = [incumbent.LockRequest("token", it) for it in "abc"]
    with pytest.raises(Held) as refused:
        store.lock_all(wanted)
    assert refused.value.holder.pid == child.pid
    assert [it.pid for it in store.locks()] == [child.pid]
    child.kill()
    with store.office("work") as tenure:
        locks = tenure.lock_all(wanted, wait=True)
        assert len({it.fence for it in locks}) >= 1 and len(locks) == 3
        assert [it.profile for it in store.status_of_process(os.getpid())] == ["work"]
    assert store.locks() == []


def test_slots_are_counted(store: Store, start: Start) -> None:
    lock = store.lock("gpu", "0", slots=2)
    assert lock.slot is not None and lock.slot.of == 2
    child = start(
        """
        held = [store.lock("gpu", "0", slots=2)]
        say(held[0].slot.number)
        listen()
        """
    )
    assert int(child.line()) != lock.slot.number
    third = start("say(type(store.try_lock('gpu', '0', slots=2)).__name__)")
    assert third.line() == "Holder"
    child.kill()
    fourth = start("say(type(store.try_lock('gpu', '0', slots=2)).__name__)")
    assert fourth.line() == "Lock"


def test_a_lease_is_renewed(store: Store) -> None:
    lock = store.lock("token", "a", ttl=300)
    lock.renew()
    status = store.lock_status("token", "a")
    assert status is not None and status.lease_remaining_ms is not None
    assert status.lease_remaining_ms > 200_000
    lock.release()


def test_unlock_takes_from_the_living_by_force_alone(store: Store, start: Start) -> None:
    child = start("lock = store.lock('token', 'a')\nsay('holds')\nlisten()")
    child.line()
    refused = store.unlock("token", "a")
    assert refused.outcome == "refused" and refused.holder is not None
    assert refused.holder.pid == child.pid
    assert store.unlock("token", "a", force=True).outcome == "done"
    assert store.unlock("token", "a").outcome == "nothing"


def test_stale_locks_are_removed(store: Store, start: Start) -> None:
    child = start("locks = [store.lock('token', it) for it in 'abc']\nsay('holds')\nlisten()")
    child.line()
    child.kill()
    assert store.unlock_stale() == 3
    assert store.locks() == []


def test_dropping_the_last_reference_releases(store: Store) -> None:
    lock: Lock | None = store.lock("token", "a")
    assert store.lock_status("token", "a") is not None
    del lock
    until(lambda: store.lock_status("token", "a") is None)


def test_a_released_lock_refuses_every_call(store: Store) -> None:
    lock = store.lock("token", "a")
    lock.release()
    lock.release()
    for call in (lock.verify, lock.renew, lock.lost):
        with pytest.raises(NotOwner):
            call()


def test_wrong_arguments_are_named(store: Store) -> None:
    with pytest.raises(incumbent.InvalidInput) as error:
        store.lock("", "a")
    assert isinstance(error.value, ValueError) and error.value.kind == "invalid_input"
    with pytest.raises(incumbent.InvalidInput):
        store.lock("token", "a", slots=0)
    assert "secret" not in repr(incumbent.LockRequest("token", "secret"))
