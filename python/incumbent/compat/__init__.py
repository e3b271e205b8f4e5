"""In place of the modules of a gateway that keeps its state in files.

`incumbent.compat.status` and `incumbent.compat.shutdown_forensics` have the functions of the
modules that they replace, with the same names, arguments and answers, on the store. A gateway
changes its imports. `docs/python-compat.md` lists what differs on purpose.
"""

from __future__ import annotations

from ._gateway import configure

__all__ = ["configure"]
