"""Real processes: each child is a Python program of its own, which says what it has done."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import incumbent

#: A busy machine is slow. What takes longer than this has stopped.
PATIENCE = 60.0

HEADER = """
import os, signal, sys, threading, time
import incumbent
# A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
store = incumbent.Store(sys.argv[1])
def say(*words):
    # In one piece: another process may write to the same pipe.
    sys.stdout.flush()
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def listen():
    return sys.stdin.readline().strip()
"""


class Child:
    """A program that speaks by lines."""

    def __init__(self, code: str, path: Path, *arguments: str) -> None:
        program = HEADER + textwrap.dedent(code)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._rest = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, patience: float = PATIENCE) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        until = time.monotonic() + patience
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            assert sys.platform != "win32"
            readable = select.poll()
            readable.register(self.process.stdout, select.POLLIN)
            ready = readable.poll(max(0, int(left * 1000)))
            assert ready, f"the child said nothing more: {self._rest!r}"
            more = os.read(self.process.stdout.fileno(), 4096)
            if not more:
                self.process.wait(PATIENCE)
                raise AssertionError(f"the child has ended: {self.complaint()}")
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode().strip()

    def tell(self, word: str = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def complaint(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


Start = Callable[..., Child]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store of its own is."""
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> incumbent.Store:
    return incumbent.Store(path)


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Starts children, and ends what is left of them."""
    children: list[Child] = []

    def begin(code: str, *arguments: str) -> Child:
        children.append(Child(code, path, *arguments))
        return children[-1]

    yield begin
    for child in children:
        child.close()


def until(question: Callable[[], object]) -> None:
    """Waits for what becomes true, and for no time."""
    end = time.monotonic() + PATIENCE
    while not question():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.005)
