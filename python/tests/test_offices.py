"""Offices between real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from conftest import Start, until

import incumbent
from incumbent import Held, Holder, Lost, NotOwner, Store, Tenure, Verdict

HOLDS = """
with store.office("work") as tenure:
    say(tenure.instance)
    listen()
say("released")
"""


def test_a_second_process_is_refused_and_told_who_holds_it(store: Store, start: Start) -> None:
    child = start(HOLDS)
    instance = int(child.line())
    with pytest.raises(Held) as refused:
        store.office("work").claim()
    holder = refused.value.holder
    assert (holder.pid, holder.instance) == (child.pid, instance)
    assert (holder.verdict, refused.value.reason) == (Verdict.ALIVE, "anchor_held")
    assert str(child.pid) in str(refused.value)
    assert holder.profile == "work" and holder.since is not None
    assert refused.value.is_temporary

    answer = store.office("work").try_claim()
    assert isinstance(answer, Holder) and answer.pid == child.pid
    assert store.office("work").running_pid() == child.pid

    child.tell()
    assert child.line() == "released"
    with store.office("work") as tenure:
        assert tenure.instance > instance
        assert tenure.evicted is None


def test_the_office_of_a_killed_process_is_free_at_once(store: Store, start: Start) -> None:
    child = start(HOLDS)
    child.line()
    child.kill()
    assert not store.office("work").is_running()
    with store.office("work") as tenure:
        assert tenure.evicted is not None
        assert tenure.evicted.pid == child.pid
        assert tenure.evicted.reason == "anchor_released"


def test_a_wait_is_granted_when_the_holder_ends(store: Store, start: Start) -> None:
    holder = start(HOLDS)
    holder.line()
    waiter = start(
        """
        say("waits")
        with store.office("work").claim(wait=True) as tenure:
            say(tenure.instance)
            listen()
        """
    )
    assert waiter.line() == "waits"
    until(lambda: store.office("work").status().waiters)
    holder.kill()
    assert int(waiter.line()) > 0
    assert store.office("work").running_pid() == waiter.pid


def test_a_wait_of_some_time_ends_with_a_refusal(store: Store, start: Start) -> None:
    child = start(HOLDS)
    child.line()
    with pytest.raises(Held):
        store.office("work").claim(wait=0.05)


def test_office_and_locks_are_claimed_together_or_not_at_all(store: Store, start: Start) -> None:
    child = start("with store.lock('token', 'b'):\n    say('holds')\n    listen()")
    child.line()
    wanted = [incumbent.LockRequest("token", "a"), incumbent.LockRequest("token", "b")]
    answer = store.office("work").try_claim(locks=wanted)
    assert isinstance(answer, Holder) and answer.pid == child.pid
    assert not store.office("work").is_running()
    assert store.lock_status("token", "a") is None
    child.kill()
    with store.office("work").claim(locks=wanted) as tenure:
        assert [it["scope"] for it in tenure.locks] == ["token", "token"]
        assert len(store.office("work").status().locks) == 2


def test_what_was_evicted_is_told_that_it_lost(store: Store) -> None:
    tenure = store.office("work").claim()
    tenure.verify()
    assert tenure.lost() is None
    assert store.office("work").evict().outcome == "refused"
    assert store.office("work").evict(force=True, by="a test").outcome == "done"
    with pytest.raises(Lost) as lost:
        tenure.verify()
    assert lost.value.reason == "evicted" and lost.value.by is not None
    assert "a test" in lost.value.by
    tenure.release()


def test_a_released_tenure_refuses_every_call(store: Store) -> None:
    tenure = store.office().claim()
    tenure.release()
    tenure.release()
    assert tenure.is_released
    for call in (
        tenure.verify,
        tenure.lost,
        tenure.peek_marker,
        tenure.why_stopped,
        lambda: tenure.update(state="running"),
        lambda: tenure.lock("a", "b"),
    ):
        with pytest.raises(NotOwner):
            call()


def test_a_holder_is_replaced_after_it_was_asked(store: Store, start: Start) -> None:
    child = start(
        """
        import select
        with store.office("work").claim(stop_budget=30) as tenure:
            with tenure.on_shutdown() as shutdowns:
                say("holds")
                shutdown = shutdowns.wait(60)
                say(shutdown.cause, shutdown.stop.marker.reason or "-", shutdown.exit_code)
        """
    )
    child.line()
    with store.office("work").claim(replace=True, by="a test") as tenure:
        assert tenure.replaced is not None
        assert tenure.replaced["pid"] == child.pid and not tenure.replaced["killed"]
    assert child.line().split()[0] == "taken_over"
    assert child.wait() == 0
    # The newest first: ours has no end yet when it is read inside of it.
    ends = [it.end_reason for it in store.history(profile="work")]
    assert ends == ["released", "taken_over"]


def test_stop_asks_and_waits(store: Store, start: Start) -> None:
    assert store.office("work").stop().outcome == "not_running"
    child = start(
        """
        with store.office("work") as tenure, tenure.on_shutdown() as shutdowns:
            say("holds")
            shutdown = shutdowns.wait(60)
            say(shutdown.cause, shutdown.stop.cause, shutdown.stop.marker.reason)
        sys.exit(shutdown.exit_code)
        """
    )
    child.line()
    stopped = store.office("work").stop(timeout=60, reason="an upgrade", by="a test")
    assert (stopped.outcome, stopped.pid, stopped.killed) == ("stopped", child.pid, False)
    assert child.line() == "planned_stop planned_stop an upgrade"
    assert child.wait() == 0
    assert store.office("work").history()[0].end_reason == "planned_stop"


def test_a_signal_that_asks_for_no_end_reaches_the_holder(store: Store, start: Start) -> None:
    child = start(
        """
        signal.signal(signal.SIGUSR1, lambda *_: say("usr1"))
        with store.office("work"):
            say("holds")
            while True:
                time.sleep(0.01)
        """
    )
    child.line()
    assert store.office("work").signal(signal.SIGUSR1).outcome == "sent"
    assert child.line() == "usr1"
    with pytest.raises(incumbent.InvalidInput):
        store.office("work").signal(signal.SIGTERM)


def test_status_is_read_with_evidence_and_by_names(store: Store) -> None:
    office = store.office("work")
    before = office.status()
    assert (before.running, before.verdict, before.reason) == (
        False,
        Verdict.DEAD,
        "never_claimed",
    )
    assert office.runtime() is None
    with office as tenure:
        tenure.update(state=incumbent.State.RUNNING, active_agents=2, extra={"queue": 7})
        tenure.update(exit_reason="none")
        tenure.update_platform("telegram", state="connected", error_code=None)
        status = office.status()
        assert status.running and status.pid == os.getpid() and status.busy
        assert status.evidence.anchor == "held"
        assert status.runtime is not None and status.runtime.extra == {"queue": 7}
        assert status.runtime.active_agents == 2 and status.runtime.state == "running"
        assert status.platforms["telegram"].state == "connected"
        tenure.update(extra=None)
        runtime = office.runtime()
        assert runtime is not None and runtime.extra is None and runtime.active_agents == 2
        assert runtime.updated_at is not None and runtime.updated_at.tzinfo is not None
        assert [it.profile for it in store.statuses()] == ["work"]
        assert office.wait_ready(wait=5).ready
    assert office.status().last_end is not None


def test_desired_is_set_and_read(store: Store) -> None:
    office = store.office("work")
    assert office.desired is None
    office.set_desired("stopped")
    assert office.desired is incumbent.Desired.STOPPED
    with pytest.raises(ValueError):
        office.set_desired("perhaps")


def test_a_profile_is_bound_to_its_home(store: Store, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    with store.office("work", home=one):
        pass
    with pytest.raises(incumbent.ProfileBelongsTo):
        store.office("work", home=other).claim()


def test_an_instance_is_asked_by_its_number(store: Store, start: Start) -> None:
    child = start(HOLDS)
    number = int(child.line())
    alive = store.instance(number)
    assert alive is not None and not alive.has_ended and alive.pid == child.pid
    child.kill()
    ended = store.instance(number)
    assert ended is not None and ended.has_ended
    assert store.instance(1) is None


def test_a_second_claim_of_one_process_shares_the_first(store: Store) -> None:
    first: Tenure = store.office("work").claim()
    second = store.office("work").claim()
    assert second.reacquired and second.instance == first.instance
    second.release()
    first.verify()
    first.release()
