"""A bot beside a second one, under random kills, with a witness that is none of ours."""

from __future__ import annotations

import os
import random
from pathlib import Path

from conftest import Child, Start, until

from incumbent import Store

#: It polls with a token, which two processes must not do. The witness is a lock of its own.
BOT = """
import fcntl
from pathlib import Path
witness = open(sys.argv[2], "a+")
turns = 0
while True:
    try:
        with store.office("bot").claim(wait=True) as tenure, tenure.lock("token", "1"):
            tenure.update(state="running")
            fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                for _ in range(20):
                    tenure.verify()
                    turns += 1
                    if turns % 20 == 1:
                        say("polls", turns)
            finally:
                fcntl.flock(witness, fcntl.LOCK_UN)
    except BlockingIOError:
        say("TWO OWNERS")
        os._exit(3)
"""


def test_there_are_never_two_owners_under_random_kills(
    store: Store, start: Start, tmp_path: Path
) -> None:
    kills = int(os.environ.get("INCUMBENT_PYTHON_KILLS", "12"))
    seed = int(os.environ.get("INCUMBENT_PYTHON_SEED", str(random.randrange(1 << 32))))
    print("seed", seed)
    chance = random.Random(seed)
    witness = str(tmp_path / "witness")
    bots: list[Child] = [start(BOT, witness) for _ in range(2)]
    for _ in range(kills):
        # Some turns: what is killed may hold, wait, or be on its way.
        until(lambda: store.office("bot").is_running())
        for _ in range(chance.randrange(3)):
            pid = store.office("bot").running_pid()
            holder = next((it for it in bots if it.pid == pid), None)
            if holder is not None:
                line = holder.line()
                assert line.startswith("polls"), f"seed {seed}: {line}"
        victim = chance.randrange(2)
        assert bots[victim].process.poll() is None, f"seed {seed}: {bots[victim].complaint()}"
        bots[victim].close()
        bots[victim] = start(BOT, witness)
    for bot in bots:
        assert bot.line().startswith("polls"), f"seed {seed}"
        assert bot.process.poll() is None
