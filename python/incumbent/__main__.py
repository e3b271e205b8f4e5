"""`python -m incumbent`: the command line that came with the package."""

from __future__ import annotations

import os
import subprocess
import sys

from ._lifecycle import find_program


def main() -> int:
    """Becomes the command line; its exit code where a system cannot do that."""
    program = find_program()
    if program is None:
        print("incumbent: the program `incumbent` is not installed", file=sys.stderr)
        return 127
    arguments = [str(program), *sys.argv[1:]]
    if os.name == "posix":
        os.execv(program, arguments)
    return subprocess.call(arguments)


if __name__ == "__main__":
    sys.exit(main())
