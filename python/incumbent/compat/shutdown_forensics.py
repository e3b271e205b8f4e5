"""In place of `gateway.shutdown_forensics`: the same functions, on the engine.

The keys of a context are those of the older module. A fact that cannot be found out is left out,
as before.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import _native, forensics
from .._errors import Error
from . import _gateway

_OPTIONAL = (
    "systemd_invocation_id",
    "systemd_journal_stream",
    "loadavg_1m",
    "tracer_pid",
    "tracer",
)


def _signal_name(sig: Any) -> str:
    if sig is None:
        return "UNKNOWN"
    try:
        number = int(sig)
    except (TypeError, ValueError):
        return str(sig)
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal#{number}"


def _is_known(fact: Any) -> bool:
    return fact is not None and not (isinstance(fact, Mapping) and "unavailable" in fact)


def _summary(facts: Any, pid: int | None) -> dict[str, Any]:
    if not isinstance(facts, Mapping) or "unavailable" in facts:
        return {} if pid is None else {"pid": pid}
    summary = {name: it for name, it in facts.items() if _is_known(it)}
    if "uid" in summary:
        # The older module read it from text.
        summary["uid"] = str(summary["uid"])
    return summary


def _marker_text(marker: Any) -> str:
    return json.dumps(marker)[:300]


def snapshot_shutdown_context(received_signal: Any = None) -> dict[str, Any]:
    """Who and what surrounds this process while it is asked to end. Some milliseconds; never fails.

    `under_systemd` is true below a systemd service alone: a terminal of a desktop has an
    INVOCATION_ID too. The markers are those of the store. `sender`, `unit`, `cgroup`, `memory` and
    `boot_id` are new.
    """
    try:
        number = None if received_signal is None else int(received_signal)
    except (TypeError, ValueError):
        number = None
    tenure = _gateway.held().tenure
    try:
        if tenure is not None and not tenure.is_released:
            facts = json.loads(tenure._native.snapshot(number)[0])
        else:
            facts = forensics.snapshot(number).facts
    except Error:
        facts = forensics.snapshot(number).facts
    ppid = facts["ppid"] if _is_known(facts["ppid"]) else None
    context: dict[str, Any] = {
        "ts": facts["ts"],
        "ts_monotonic": facts["ts_monotonic"],
        "signal": _signal_name(received_signal),
        "signal_num": number,
        "pid": facts["pid"],
        "ppid": ppid,
        "parent": _summary(facts["parent"], ppid),
        "self": _summary(facts["self"], facts["pid"]),
        "under_systemd": facts["under_systemd"] is True,
    }
    for name in _OPTIONAL:
        if _is_known(facts.get(name)):
            context[name] = facts[name]
    for name in ("takeover_marker", "planned_stop_marker"):
        if _is_known(facts.get(name)):
            context[name] = _marker_text(facts[name])
    if "takeover_marker" in context:
        context["takeover_marker_for_self"] = facts.get("takeover_marker_for_self") is True
    for name in ("sender", "unit", "cgroup", "memory", "boot_id"):
        if _is_known(facts.get(name)):
            context[name] = facts[name]
    return context


def spawn_async_diagnostic(
    log_path: Path, signal_name: str, *, timeout_seconds: float = 5.0
) -> int | None:
    """Starts a detached diagnostic that appends to `log_path`; its pid, None where that failed.

    No shell, `ps` or `timeout` has to be installed; the log is 0600, bounded, and without secrets.
    """
    number = getattr(signal, signal_name, None) if signal_name.startswith("SIG") else None
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        return forensics.diagnose(
            log_path,
            signum=None if number is None else int(number),
            timeout=timeout_seconds,
            store=_gateway.settings.store,
        )
    except (Error, OSError):
        return None


def format_context_for_log(ctx: Mapping[str, Any]) -> str:
    """One line for a log, with its fields in a fixed order."""
    parent = ctx.get("parent") or {}
    load = ctx.get("loadavg_1m")
    fields = [
        ("signal", ctx.get("signal", "?")),
        ("under_systemd", "yes" if ctx.get("under_systemd") else "no"),
        ("parent_pid", parent.get("pid") or "?"),
        ("parent_name", parent.get("name") or "?"),
        ("loadavg_1m", f"{load:.2f}" if isinstance(load, (int, float)) else "?"),
    ]
    if ctx.get("takeover_marker") is not None:
        whose = "self" if ctx.get("takeover_marker_for_self") else "other"
        fields.append(("takeover_marker_present", whose))
    if ctx.get("planned_stop_marker") is not None:
        fields.append(("planned_stop_marker_present", "yes"))
    if ctx.get("tracer_pid"):
        fields.append(("tracer_pid", ctx["tracer_pid"]))
    fields.append(("parent_cmdline", repr(parent.get("cmdline", "(unknown)"))))
    return " ".join(f"{name}={value}" for name, value in fields)


def context_as_json(ctx: Mapping[str, Any]) -> str:
    """The context as JSON, with sorted keys. Never fails."""
    try:
        return json.dumps(ctx, default=str, sort_keys=True)
    except (TypeError, ValueError):
        return "{}"


def check_systemd_timing_alignment(drain_timeout: float) -> dict[str, Any] | None:
    """Whether systemd gives this process the time to drain; None where that cannot be told.

    `unit`, `timeout_stop_sec`, `drain_timeout`, `expected_min` (30 s more) and `mismatch`. A unit
    that has all the time there is (`infinity`) is aligned, with `timeout_stop_sec` infinite.
    """
    try:
        check = json.loads(_native.systemd(float(drain_timeout), None))["check"]
    except (Error, ValueError):
        return None
    stop = check.get("timeout_stop_sec")
    if not isinstance(check.get("unit"), str) or not isinstance(check.get("mismatch"), bool):
        return None
    return {
        "unit": check["unit"],
        "timeout_stop_sec": float("inf") if stop == "infinity" else float(stop),
        "drain_timeout": check["drain_timeout"],
        "expected_min": check["expected_min"],
        "mismatch": check["mismatch"],
    }
