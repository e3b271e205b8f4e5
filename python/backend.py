"""Builds the package: maturin's backend, with the command line inside.

maturin puts one library into a wheel, and no program beside it. So this builds the program first,
from the same workspace, and leaves it where maturin takes the scripts of a wheel from. What is
unpacked from a source distribution is laid out as the repository is.

`INCUMBENT_WHEEL_PROFILE` is the cargo profile, `release` if nobody says another.
`INCUMBENT_WHEEL_GLIBC` is the glibc that the program is for, such as `2.17`, with zig as the linker
(`pip install ziglang cargo-zigbuild`); else it is that of this machine.
`python backend.py` builds the program alone: for `maturin build --release`, which makes the wheels
that are published. `python backend.py sdist DIRECTORY` makes the source distribution.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SCRIPTS = HERE / "data" / "scripts"

#: What else a build reads. Cargo names each benchmark.
ALSO_PACKED = ("benches",)

#: What pyproject.toml says here, and at the top of a source distribution.
MOVED = {
    'backend-path = ["."]': 'backend-path = ["python"]',
    'readme = "README.md"': 'readme = "python/README.md"',
    'data = "data"': 'data = "python/data"',
    "[tool.maturin]": (
        '[tool.maturin]\nmanifest-path = "python/Cargo.toml"\npython-source = "python"'
    ),
}

#: Of files in an archive, where nobody says another: the first one that a wheel can have.
EPOCH = 315_532_800


def profile() -> str:
    """The cargo profile."""
    return os.environ.get("INCUMBENT_WHEEL_PROFILE", "release")


def _host() -> str:
    told = subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return next(it.removeprefix("host: ") for it in told.splitlines() if it.startswith("host: "))


def build_program() -> Path:
    """Builds the command line into `data/scripts`."""
    command = ["cargo", "build", "--locked", "--package", "incumbent", "--bin", "incumbent"]
    command += ["--profile", profile(), "--message-format", "json-render-diagnostics"]
    glibc = os.environ.get("INCUMBENT_WHEEL_GLIBC")
    if glibc:
        command[1] = "zigbuild"
        command += ["--target", f"{_host()}.{glibc}"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
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
    for file in ROOT.glob("LICENSE*"):
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


def _packed() -> Iterator[Path]:
    """What belongs into a source distribution: what cargo packs, and the package."""
    command = ["cargo", "package", "--list", "--allow-dirty", "--package", "incumbent"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    # Cargo also lists what it makes itself.
    yield from (ROOT / it for it in listed.stdout.splitlines() if (ROOT / it).is_file())
    for directory in ALSO_PACKED:
        yield from (it for it in (ROOT / directory).rglob("*") if it.is_file())
    ours = ("src", "incumbent", "tests", "benches")
    for directory in ours:
        found = (HERE / directory).rglob("*")
        yield from (it for it in found if it.suffix in (".rs", ".py", ".pyi", ".typed"))
    for name in ("Cargo.toml", "README.md", "CHANGELOG.md", "backend.py", "stubtest.allow"):
        yield HERE / name


def _metadata(settings: dict[str, Any] | None) -> bytes:
    import maturin

    SCRIPTS.mkdir(parents=True, exist_ok=True)
    _licenses()
    with tempfile.TemporaryDirectory() as scratch:
        name: str = maturin.prepare_metadata_for_build_wheel(scratch, settings)
        return (Path(scratch) / name / "METADATA").read_bytes()


def _project() -> bytes:
    text = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    for here, there in MOVED.items():
        if text.count(here) != 1:
            raise RuntimeError(f"pyproject.toml says {here!r} {text.count(here)} times")
        text = text.replace(here, there)
    return text.encode()


def build_sdist(directory: str, settings: dict[str, Any] | None = None) -> str:
    """The sources of library and program; the same files make the same archive."""
    if not (HERE / "pyproject.toml").exists():
        raise RuntimeError("this is a source distribution: build another from the repository")
    metadata = _metadata(settings)
    version = next(
        line.removeprefix(b"Version: ").decode()
        for line in metadata.splitlines()
        if line.startswith(b"Version: ")
    )
    top = f"incumbent-{version}"
    files = {str(it.relative_to(ROOT)): it.read_bytes() for it in _packed()}
    files.update({"pyproject.toml": _project(), "PKG-INFO": metadata})
    target = Path(directory) / f"{top}.tar.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    modified = int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))
    with open(target, "wb") as out, gzip.GzipFile("", "wb", 9, out, modified) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in sorted(files.items()):
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mtime, entry.mode = len(content), modified, 0o644
                archive.addfile(entry, io.BytesIO(content))
    return target.name


def get_requires_for_build_wheel(settings: dict[str, Any] | None = None) -> list[str]:
    """Nothing beside what pyproject.toml names."""
    return []


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel


if __name__ == "__main__":
    if sys.argv[1:2] == ["sdist"]:
        place = Path(sys.argv[2]).resolve()
        # As for a build front end: maturin reads pyproject.toml where it is.
        os.chdir(HERE)
        print(place / build_sdist(str(place)))
    else:
        _licenses()
        print(build_program())
