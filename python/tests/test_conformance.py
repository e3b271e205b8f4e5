"""What the library, the command line and this package answer alike: `tests/conformance/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Child, Start

FILE = Path(__file__).resolve().parents[2] / "tests/conformance/operations.json"
SCENARIOS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["scenarios"]

#: An actor: a step on each line, and a line in answer.
ACTOR = """
import json
tenures, locks = {}, {}

def refusal(holder):
    return {"granted": False, "holder": holder.pid, "verdict": str(holder.verdict),
            "reason": holder.reason, "metadata": holder.metadata}

def found(marker):
    if marker is None:
        return {"found": False}
    return {"found": True, "name": marker.name, "pid": marker.pid, "reason": marker.reason}

def standing(lock, method):
    if lock is None:
        return {"held": False}
    try:
        getattr(lock, method)()
        return {"held": True}
    except (incumbent.Lost, incumbent.NotOwner):
        return {"held": False}

def released(guard):
    if guard is None:
        return {"released": False}
    guard.release()
    return {"released": True}

def step(it):
    office = store.office(it.get("profile", "default"))
    key = (it.get("scope"), it.get("identity"))
    what = it["do"]
    if what == "claim":
        answer = office.try_claim()
        if isinstance(answer, incumbent.Holder):
            return refusal(answer)
        tenures[office.profile] = answer
        return {"granted": True, "reacquired": answer.reacquired, "fence": answer.instance}
    if what == "release":
        return released(tenures.pop(office.profile, None))
    if what == "status":
        status = office.status()
        runtime = status.runtime
        return {
            "running": status.running, "verdict": str(status.verdict), "reason": status.reason,
            "pid": status.pid, "state": status.state, "busy": status.busy, "ready": status.ready,
            "active_agents": runtime and runtime.active_agents,
            "desired": status.desired and str(status.desired),
            "platforms": {name: it.state for name, it in status.platforms.items()},
        }
    if what == "say":
        tenure = tenures.get(office.profile)
        if tenure is None:
            return {"error": "not_owner"}
        tenure.update(**{k: it[k] for k in ("state", "active_agents") if k in it})
        if "platform" in it:
            tenure.update_platform(it["platform"], state=it["platform_state"])
        return {"written": True}
    if what == "lock":
        source = tenures.get(office.profile, store) if "profile" in it else store
        answer = source.try_lock(*key, ttl=it.get("ttl_s"), metadata=it.get("metadata"))
        if isinstance(answer, incumbent.Holder):
            return refusal(answer)
        locks[key] = answer
        return {"granted": True, "reacquired": answer.reacquired, "fence": answer.fence}
    if what in ("lock_verify", "lock_renew"):
        return standing(locks.get(key), what[5:])
    if what == "lock_release":
        return released(locks.pop(key, None))
    if what == "lock_status":
        lock = store.lock_status(*key)
        if lock is None:
            return {"held": False}
        return {"held": True, "holder": lock.pid, "metadata": lock.metadata}
    if what == "marker_write":
        return found(store.write_marker(it["name"], pid=it["target"], reason=it.get("reason")))
    if what == "marker_peek":
        return found(store.peek_marker(os.getpid(), it["name"]))
    if what == "marker_consume":
        return found(next(iter(tenures.values())).consume_marker(it["name"]))
    if what == "marker_clear":
        return {"cleared": store.clear_marker(it["target"], it["name"])}
    if what == "evict":
        outcome = office.evict(force=it.get("force", False))
        if outcome.outcome == "done":
            return {"evicted": outcome.pid}
        return {"holder": outcome.holder and outcome.holder.pid}
    if what == "desired":
        if "set" in it:
            office.set_desired(it["set"])
        return {"desired": office.desired and str(office.desired)}
    if what == "history":
        return {"ends": [it.end_reason for it in office.history()]}
    if what == "events":
        return {"events": [it.event for it in store.past_events(profile=office.profile)]}
    raise AssertionError(what)

while line := listen():
    try:
        answer = step(json.loads(line))
    except incumbent.Error as error:
        answer = {"error": error.kind}
    say(json.dumps(answer))
"""


class Scenario:
    """The actors of a scenario, and what was seen."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.actors: dict[str, Child] = {}
        self.pids: dict[str, int] = {}
        self.fences: list[int] = []

    def actor(self, name: str) -> Child:
        if name not in self.actors:
            self.actors[name] = self.start(ACTOR)
            self.pids[name] = self.actors[name].pid
        return self.actors[name]

    def step(self, step: dict[str, Any]) -> None:
        actor = self.actor(step["actor"])
        if step["do"] == "die":
            actor.kill()
            del self.actors[step["actor"]]
            return
        target = self.actor(step["to"]).pid if "to" in step else None
        actor.tell(json.dumps({**step, "target": target}))
        answer = json.loads(actor.line())
        for field, expected in step["expect"].items():
            found = answer.get(field)
            assert self.fits(field, expected, found), f"{step}: {field} is {found}: {answer}"

    def fits(self, field: str, expected: Any, found: Any) -> bool:
        if field == "fence":
            before, last = list(self.fences), self.fences[-1:]
            self.fences.append(found)
            return all(found > it for it in before) if expected == "rises" else last == [found]
        if isinstance(expected, str) and expected.startswith("@"):
            return bool(found == self.pids[expected[1:]])
        if isinstance(expected, list):
            rest = iter(found)
            return all(any(it == one for it in rest) for one in expected)
        return bool(expected == found)


@pytest.mark.parametrize("described", SCENARIOS, ids=lambda it: it["name"].replace(" ", "_"))
def test_it_answers_as_the_others_do(described: dict[str, Any], start: Start) -> None:
    scenario = Scenario(start)
    for step in described["steps"]:
        scenario.step(step)
