"""What a gateway says about itself, by its own tenure or by whoever speaks for it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Union


class Keep:
    """The default of a field of an update: it stays as it is. `None` clears one."""

    def __repr__(self) -> str:
        return "KEEP"


KEEP = Keep()

Text = Union[str, None, Keep]


class Speaker:
    """What has something to say about a gateway."""

    def _say(self, update: str) -> None:
        raise NotImplementedError

    def update(
        self,
        *,
        state: Text = KEEP,
        exit_reason: Text = KEEP,
        restart_requested: bool | None | Keep = KEEP,
        active_agents: int | None | Keep = KEEP,
        extra: Any = KEEP,
        serves: list[str] | None | Keep = KEEP,
        heartbeat: bool = False,
    ) -> None:
        """Publishes what the gateway says about itself: what is left out stays, `None` clears."""
        fields: dict[str, Any] = {
            "state": state if isinstance(state, Keep) or state is None else str(state),
            "exit_reason": exit_reason,
            "restart_requested": restart_requested,
            "active_agents": active_agents,
            "extra": extra,
            "serves": serves,
        }
        given = {name: value for name, value in fields.items() if value is not KEEP}
        if heartbeat:
            given["heartbeat"] = True
        self._say(json.dumps(given))

    def update_platform(
        self,
        platform: str,
        *,
        state: Text = KEEP,
        error_code: Text = KEEP,
        error_message: Text = KEEP,
        needs_attention: bool | None | Keep = KEEP,
        retrying_since: datetime | None | Keep = KEEP,
        extra: Any = KEEP,
        profile: str | None = None,
        remove: bool = False,
    ) -> None:
        """Publishes what the gateway says of one platform; `remove` forgets it."""
        since = retrying_since
        fields: dict[str, Any] = {
            "state": state,
            "error_code": error_code,
            "error_message": error_message,
            "needs_attention": needs_attention,
            "retrying_since_ms": (
                int(since.timestamp() * 1000) if isinstance(since, datetime) else since
            ),
            "extra": extra,
        }
        given = {name: value for name, value in fields.items() if value is not KEEP}
        given.update({"platform": platform, "remove": remove})
        if profile is not None:
            given["profile"] = profile
        self._say(json.dumps({"platforms": [given]}))
