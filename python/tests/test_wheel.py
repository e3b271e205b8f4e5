"""The wheel in a venv of its own, where nothing else of the package is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

#: `.ci/python` builds one, and says where.
WHEEL = os.environ.get("INCUMBENT_WHEEL", "")

pytestmark = pytest.mark.skipif(not WHEEL, reason="no wheel: `.ci/python` builds one")


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its directory, the wheel installed as `pip install dist/*.whl` does."""
    place = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    install = [str(place / "bin/pip"), "install", "-q", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*install, WHEEL], check=True)
    return place


def ask(venv: Path, directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the venv, as a shell finds it there."""
    environment = {
        "PATH": f"{venv / 'bin'}:/usr/bin:/bin",
        "HOME": str(directory),
        "INCUMBENT_DB": str(directory / "state.db"),
    }
    return subprocess.run(
        ["/usr/bin/env", *command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_the_quick_start_of_the_page_runs_there(venv: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    program = tmp_path / "gateway.py"
    program.write_text(found.group(1), encoding="utf-8")
    answer = ask(venv, tmp_path, "python", str(program))
    assert answer.returncode == 0, answer.stderr
    pid, end = answer.stdout.split()
    assert int(pid) > 0 and end == "released"


def test_the_command_line_is_on_path(venv: Path, tmp_path: Path) -> None:
    found = ask(venv, tmp_path, "sh", "-c", "command -v incumbent").stdout.strip()
    assert found == str(venv / "bin/incumbent")
    code = "import incumbent; incumbent.Store().office('work').claim().end(4)"
    assert ask(venv, tmp_path, "python", "-c", code).returncode == 0
    answer = ask(venv, tmp_path, "incumbent", "status", "--profile", "work", "--json")
    status = json.loads(answer.stdout)
    assert (answer.returncode, status["last_end"]["exit_code"]) == (3, 4)


def test_it_runs_with_the_glibc_that_its_name_says() -> None:
    """maturin looks at the library; the program next to it is ours to look at."""
    tag = re.search(r"[-.]manylinux_2_(\d+)_", Path(WHEEL).name)
    if tag is None:
        pytest.skip("a wheel for this machine alone")
    with zipfile.ZipFile(WHEEL) as wheel:
        files = ("_native.abi3.so", "data/scripts/incumbent")
        for name in (it for it in wheel.namelist() if it.endswith(files)):
            wanted = re.findall(rb"\0GLIBC_2\.(\d+)", wheel.read(name))
            assert wanted and max(int(it) for it in wanted) <= int(tag[1]), name


def test_what_is_in_it() -> None:
    assert "-cp310-abi3-" in Path(WHEEL).name
    with zipfile.ZipFile(WHEEL) as wheel:
        names = wheel.namelist()
        (metadata,) = (wheel.read(it).decode() for it in names if it.endswith("METADATA"))
    for end in ("incumbent/py.typed", "incumbent/_native.pyi", "incumbent/_native.abi3.so"):
        assert end in names
    assert any(it.endswith("data/scripts/incumbent") for it in names)
    assert {Path(it).name for it in names if "/licenses/" in it} >= {
        "LICENSE-APACHE",
        "LICENSE-MIT",
    }
    assert not [it for it in names if "test" in it.lower()]
    # The page of the package, not that of the crate.
    assert "pip install incumbent" in metadata and "cargo install" not in metadata
