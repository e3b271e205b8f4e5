"""Builds the wheel: maturin's backend, with the command line inside.

maturin puts one library into a wheel, and no program beside it. So this builds the program first,
from the same workspace, and leaves it where maturin takes the scripts of a wheel from.

`INCUMBENT_WHEEL_PROFILE` is the cargo profile, `release` if nobody says another.
`python backend.py` builds the program alone: for `maturin build`, which makes the wheels that are
published.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "data" / "scripts"


def profile() -> str:
    """The cargo profile."""
    return os.environ.get("INCUMBENT_WHEEL_PROFILE", "release")


def build_program() -> Path:
    """Builds the command line into `data/scripts`."""
    command = ["cargo", "build", "--locked", "--package", "incumbent", "--bin", "incumbent"]
    command += ["--profile", profile(), "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, check=True)
    programs = [
        Path(message["executable"])
        for message in map(json.loads, built.stdout.splitlines())
        if message.get("reason") == "compiler-artifact" and message.get("executable")
    ]
    if not programs:
        raise RuntimeError("cargo has built no program")
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    target = SCRIPTS / programs[-1].name
    # Never written over in place: it may be running.
    fresh = target.with_suffix(".new")
    shutil.copy2(programs[-1], fresh)
    strip = shutil.which("strip")
    if strip is not None:
        subprocess.run([strip, str(fresh)], check=True)
    fresh.replace(target)
    return target


def _arguments(settings: dict[str, Any] | None) -> dict[str, Any]:
    return {**(settings or {}), "build-args": f"--profile {profile()} --strip"}


def _licenses() -> None:
    for file in HERE.parent.glob("LICENSE*"):
        shutil.copy2(file, HERE / file.name)


def build_wheel(
    directory: str, settings: dict[str, Any] | None = None, metadata: str | None = None
) -> str:
    """A wheel for the interpreter that runs this: abi3, so for later ones as well."""
    import maturin

    _licenses()
    build_program()
    return str(maturin.build_wheel(directory, _arguments(settings), metadata))


def build_editable(
    directory: str, settings: dict[str, Any] | None = None, metadata: str | None = None
) -> str:
    """As `build_wheel`, for `pip install -e`."""
    import maturin

    _licenses()
    build_program()
    return str(maturin.build_editable(directory, _arguments(settings), metadata))


def build_sdist(directory: str, settings: dict[str, Any] | None = None) -> str:
    """Is refused: the program and the library are built from the repository."""
    raise RuntimeError("there are only wheels: build from a clone of the repository")


def get_requires_for_build_wheel(settings: dict[str, Any] | None = None) -> list[str]:
    """Nothing beside what pyproject.toml names."""
    return []


get_requires_for_build_editable = get_requires_for_build_wheel


if __name__ == "__main__":
    _licenses()
    print(build_program())
    sys.exit(0)
