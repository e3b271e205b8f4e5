"""An older gateway and a newer one in the same home, for a while: both start, look, stop each other
and end, as chance has it. `INCUMBENT_PYTHON_SOAK_S=60` is a longer while.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from conftest import PATIENCE, Start
from test_compat_beside import NEWER, OLDER

#: What both have: a witness of their own, and words for what must not be.
LIFE = """
import fcntl, random
chance = random.Random(sys.argv[5])
until = time.monotonic() + float(sys.argv[4])
witness = open(sys.argv[3], "a+")
holds = False
held = planned = unplanned = 0

def wrong(what):
    say("WRONG:", what)
    os._exit(3)

def on_stop(*_):
    global holds, planned, unplanned
    if holds:
        holds = False
        if is_planned():
            planned += 1
        else:
            unplanned += 1

def hold():
    global holds, held
    try:
        fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wrong("two gateways")
    held += 1
    holds = True
    end = time.monotonic() + chance.uniform(0, 0.1)
    while holds and time.monotonic() < end:
        time.sleep(0.002)
    holds = False
    said = json.loads((home / "gateway.pid").read_text())
    if said["pid"] != os.getpid():
        wrong(f"gateway.pid is of {said['pid']}")
    fcntl.flock(witness, fcntl.LOCK_UN)

signal.signal(signal.SIGTERM, on_stop)
say("lives")
"""

OLDER_LIFE = """
marker = home / ".gateway-planned-stop.json"
def is_planned():
    try:
        said = json.loads(marker.read_text())
    except (FileNotFoundError, ValueError):
        return False
    marker.unlink(missing_ok=True)
    mine = record()
    return (said["target_pid"], said["target_start_time"]) == (mine["pid"], mine["start_time"])

while time.monotonic() < until:
    file = try_start()
    if file is not None:
        hold()
        (home / "gateway.pid").unlink()
        fcntl.flock(file, fcntl.LOCK_UN)
        file.close()
    else:
        try:
            target = running()
        except (FileNotFoundError, ValueError):
            target = None
        if target is not None and target["pid"] == int(sys.argv[6]) and chance.random() < 0.3:
            announce("planned-stop", target)
            os.kill(target["pid"], signal.SIGTERM)
    time.sleep(chance.uniform(0, 0.02))
say(held, planned, unplanned)
listen()
"""

NEWER_LIFE = """
is_planned = status.consume_planned_stop_marker_for_self
while time.monotonic() < until:
    if status.acquire_gateway_runtime_lock():
        hold()
        status.release_gateway_runtime_lock()
    else:
        target = status.get_running_pid()
        if target is not None and chance.random() < 0.3:
            status.write_planned_stop_marker(target)
            try:
                status.terminate_pid(target)
            except ProcessLookupError:
                pass
    time.sleep(chance.uniform(0, 0.02))
say(held, planned, unplanned)
listen()
"""


def test_an_older_and_a_newer_gateway_live_together(tmp_path: Path, start: Start) -> None:
    home, witness = tmp_path / "home", tmp_path / "witness"
    home.mkdir()
    seconds = os.environ.get("INCUMBENT_PYTHON_SOAK_S", "4")
    seed = os.environ.get("INCUMBENT_PYTHON_SEED", str(random.randrange(1 << 32)))
    print("seed", seed)
    life = f"{NEWER}\nimport json\nfrom pathlib import Path\nhome = Path(sys.argv[2])\n{LIFE}"
    newer = start(life + NEWER_LIFE, str(home), str(witness), seconds, seed)
    assert newer.line() == "lives"
    arguments = (str(home), str(witness), seconds, f"{seed} older", str(newer.pid))
    older = start(OLDER + LIFE + OLDER_LIFE, *arguments)
    assert older.line() == "lives"
    # The sums come when both are at their end.
    sums = []
    for child in (newer, older):
        line = child.line(float(seconds) + PATIENCE)
        assert not line.startswith("WRONG"), f"seed {seed}: {line}"
        sums.append([int(it) for it in line.split()])
    print("held, planned, unplanned:", sums)
    for held, planned, unplanned in sums:
        assert held > 0 and planned > 0, f"seed {seed}: {sums}"
        # One marker file serves both ways: a second message may take the place of the first.
        assert unplanned * 10 <= planned, f"seed {seed}: {sums}"
