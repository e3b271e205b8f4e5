"""What is installed: the command line, the documents' examples, the version."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, Start

import incumbent
from incumbent import Store, _lifecycle
from incumbent.compat import shutdown_forensics, status

ROOT = Path(__file__).resolve().parents[2]


def cli(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("incumbent")
    assert program is not None, "`incumbent` is not on PATH"
    return subprocess.run(
        [program, "--db", str(store.path), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_the_command_line_sees_what_the_package_holds(store: Store) -> None:
    with store.office("work"):
        answer = cli(store, "--profile", "work", "status", "--json")
        assert answer.returncode == 0
        assert f'"pid": {os.getpid()}' in answer.stdout.replace('":', '": ').replace("  ", " ")
        refused = cli(store, "--profile", "work", "run", "--", "true")
        assert refused.returncode == 75
    assert cli(store, "--profile", "work", "status").returncode == 3


def test_the_package_sees_what_the_command_line_holds(store: Store, start: Start) -> None:
    program = shutil.which("incumbent")
    assert program is not None
    code = (
        "import sys, incumbent\n"
        "tenure = incumbent.Store(sys.argv[1]).inherited()\n"
        "print(tenure.profile, tenure.instance)\n"
        "tenure.update(state='running')\n"
    )
    run = [program, "--db", str(store.path), "--profile", "work", "run", "--quiet", "--"]
    answer = subprocess.run(
        [*run, sys.executable, "-c", code, str(store.path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert answer.returncode == 0, answer.stderr
    profile, instance = answer.stdout.split()
    assert (profile, int(instance)) == ("work", store.history()[0].instance)
    # Outside of a run nothing is inherited.
    assert store.inherited() is None and store.inherited_because() == "not_given"


def test_python_m_is_the_command_line() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "incumbent", "--version"], capture_output=True, text=True
    )
    assert answer.stdout == f"incumbent {incumbent.__version__}\n"


def test_helpers_execute_the_program_that_came_along() -> None:
    program = _lifecycle.find_program()
    assert program is not None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True)
    assert answer.stdout == f"incumbent {incumbent.__version__}\n"


@pytest.mark.parametrize("document", ["README.md", "python/README.md", "docs/python.md"])
def test_the_first_example_runs(document: str, tmp_path: Path) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    example = found.group(1)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    environment = {**os.environ, "INCUMBENT_DB": str(tmp_path / "state.db")}
    answer = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE,
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "state.db").exists()


def properties(schema: object) -> Iterator[dict[str, object]]:
    """The properties of each object in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield schema["properties"]
        for inner in schema.values():
            yield from properties(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from properties(inner)


@pytest.mark.parametrize(
    ("verb", "report"),
    [
        ("status", incumbent.Status),
        ("history", incumbent.Incarnation),
        ("locks", incumbent.LockStatus),
        ("events", incumbent.Event),
    ],
)
def test_a_report_has_what_the_command_line_prints(verb: str, report: type[Any]) -> None:
    schema = json.loads((ROOT / f"docs/schema/{verb}.json").read_text(encoding="utf-8"))
    printed = max(properties(schema), key=len)
    parts: dict[str, type[Any]] = {
        "last_end": incumbent.LastEnd,
        "runtime": incumbent.Runtime,
        "evidence": incumbent.Evidence,
        "markers": incumbent.Marker,
        "waiters": incumbent.Waiter,
        "conflicts": incumbent.Conflict,
    }
    if verb == "status":
        parts["locks"] = incumbent.HeldLock
    wanted = [(report, printed)]
    wanted += [(parts[name], next(properties(printed[name]))) for name in parts if name in printed]
    assert verb != "status" or len(wanted) == 8
    for cls, names in wanted:
        known = {it.name for it in dataclasses.fields(cls)}
        assert set(names) - {"format"} <= known, cls


def test_the_page_of_the_drop_ins_lists_their_functions() -> None:
    page = (ROOT / "docs/python-compat.md").read_text(encoding="utf-8")
    for module in (status, shutdown_forensics):
        for name, thing in vars(module).items():
            own = getattr(thing, "__module__", "").startswith("incumbent.compat")
            if callable(thing) and own and not name.startswith("_"):
                general = re.sub(r"(takeover|planned_stop)(?=_marker_for_self)", "...", name)
                assert f"`{name}`" in page or f"`{general}`" in page, name


def test_every_name_of_the_package_has_words() -> None:
    for name in incumbent.__all__:
        thing = getattr(incumbent, name)
        if isinstance(thing, type):
            assert thing.__doc__, name
            for attribute, method in vars(thing).items():
                if callable(method) and not attribute.startswith("_"):
                    assert method.__doc__, f"{name}.{attribute}"
