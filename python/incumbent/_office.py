"""An office: asked about, claimed, stopped, replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from . import _native
from ._errors import Held
from ._lock import LockRequest, identity_bytes
from ._reports import (
    Desired,
    Holder,
    Incarnation,
    Outcome,
    Runtime,
    Status,
    parse,
    parse_all,
    record,
    time_of_ms,
)
from ._tenure import Tenure
from ._waits import Seconds, Wait, in_thread, optional_seconds, options, wait_fields


class Office:
    """A profile and a kind: at most one live process holds it.

    `with store.office("work") as tenure:` claims it once, and raises `Held` where somebody else has
    it; `claim()` has the options. Safe to use from many threads.
    """

    def __init__(
        self, store: _native.Store, profile: str, kind: str, home: Path | None = None
    ) -> None:
        self._native = store
        self.profile = profile
        self.kind = kind
        self.home = home
        self._entered: list[Tenure] = []

    def __repr__(self) -> str:
        return f"<incumbent.Office {self.profile}/{self.kind}>"

    def __enter__(self) -> Tenure:
        tenure = self.claim()
        self._entered.append(tenure)
        return tenure

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)

    async def __aenter__(self) -> Tenure:
        tenure = await self.aclaim(wait=False)
        self._entered.append(tenure)
        return tenure

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._entered.pop().__aexit__(kind, error, trace)

    # Claims.

    def _claim(
        self, canceller: _native.Canceller | None, wait: Wait = False, **asked: Any
    ) -> Tenure | Holder:
        locks: Sequence[LockRequest] = asked.pop("locks", ())
        legacy_home = asked.pop("legacy_home", None)
        for name in ("stop_budget", "heartbeat_every"):
            asked[name] = optional_seconds(asked.get(name))
        fields = {
            **asked,
            **wait_fields(wait),
            "kind": self.kind,
            "legacy_home": None if legacy_home is None else str(legacy_home),
            "locks": [it._fields() for it in locks],
        }
        identities = [identity_bytes(it.identity) for it in locks]
        answer = self._native.claim(
            self.profile, self.home, options(fields), identities, canceller
        )
        if isinstance(answer, str):
            return Holder.from_answer(json.loads(answer))
        return Tenure(answer)

    def try_claim(
        self,
        *,
        wait: Wait = False,
        locks: Sequence[LockRequest] = (),
        replace: bool = False,
        force: bool = False,
        reap: bool = False,
        across_homes: bool = False,
        by: str | None = None,
        version: str | None = None,
        stop_budget: Seconds | None = None,
        heartbeat_every: Seconds | None = None,
        legacy_home: Path | str | None = None,
    ) -> Tenure | Holder:
        """Claims it: the tenure, or the `Holder`, who explains itself.

        `wait` is False, True or seconds; Ctrl-C ends a wait within 100 ms. `locks` are claimed with
        it, all or none. `replace` asks the holder to stop and takes its place; `force` also where
        that one does not follow, `reap` ends what it leaves behind, `across_homes` where it uses
        another home, and `by` says who asks. `stop_budget` is how long this gateway may take to
        stop, `heartbeat_every` how often it promises a heartbeat (seconds). `legacy_home` is the
        directory of an older program, whose lock is held as well.
        """
        return self._claim(
            None,
            wait,
            locks=locks,
            replace=replace,
            force=force,
            reap=reap,
            across_homes=across_homes,
            by=by,
            version=version,
            stop_budget=stop_budget,
            heartbeat_every=heartbeat_every,
            legacy_home=legacy_home,
        )

    def claim(self, *, wait: Wait = False, **arguments: Any) -> Tenure:
        """As `try_claim()`, with a refusal as `Held`."""
        answer = self.try_claim(wait=wait, **arguments)
        if isinstance(answer, Holder):
            raise Held(answer)
        return answer

    async def aclaim(self, *, wait: Wait = True, **arguments: Any) -> Tenure:
        """As `claim()`, awaited: the loop goes on, and a cancelled task waits no longer."""

        def call(canceller: _native.Canceller) -> Tenure:
            answer = self._claim(canceller, wait, **arguments)
            if isinstance(answer, Holder):
                raise Held(answer)
            return answer

        return await in_thread(call, undo=Tenure.release)

    # Questions. They change nothing.

    def status(self) -> Status:
        """What is true of it, with the evidence, and what its gateway says."""
        return parse(Status, self._native.status(self.profile, self.kind))

    def running_pid(self) -> int | None:
        """The pid of its live holder. Quicker than `status()`."""
        return self._native.running_pid(self.profile, self.kind)

    def is_running(self) -> bool:
        """Whether it has a live holder."""
        return self.running_pid() is not None

    def runtime(self) -> Runtime | None:
        """What its gateway said about itself, alone. Quicker than `status()`."""
        text = self._native.runtime(self.profile, self.kind)
        if text is None:
            return None
        answer = json.loads(text)
        runtime = record(Runtime, answer)
        for name in ("state_since", "updated_at"):
            at_ms = answer[f"{name}_ms"]
            if at_ms is not None:
                object.__setattr__(runtime, name, time_of_ms(at_ms))
        return runtime

    def history(self, limit: int | None = None) -> list[Incarnation]:
        """Who held it, the newest first."""
        fields = {"profile": self.profile, "kind": self.kind, "limit": limit}
        return parse_all(Incarnation, self._native.history(options(fields)))

    @property
    def desired(self) -> Desired | None:
        """What the profile is set to, None where nobody has set it."""
        word = self._native.desired(self.profile)
        return None if word is None else Desired(word)

    def set_desired(self, desired: Desired | str, *, by: str = "python") -> None:
        """Sets the profile to running or stopped: `run --respect-desired` obeys."""
        running = Desired(desired) is Desired.RUNNING
        self._native.set_desired(self.profile, running, by)

    def wait_ready(self, *, wait: Wait = True, state: str | None = None) -> Status:
        """Waits until it is ready, or says `state`.

        The status at the end of the wait: where it was not in time or the holder has ended, `ready`
        is False.
        """
        return self._wait_ready(None, wait, state)

    async def await_ready(self, *, wait: Wait = True, state: str | None = None) -> Status:
        """As `wait_ready()`, awaited."""
        return await in_thread(lambda canceller: self._wait_ready(canceller, wait, state))

    def _wait_ready(
        self, canceller: _native.Canceller | None, wait: Wait, state: str | None
    ) -> Status:
        fields = {"forever": False, **wait_fields(wait), "state": state}
        _, text = self._native.wait_ready(self.profile, self.kind, options(fields), canceller)
        return parse(Status, text)

    # Requests to its holder.

    def stop(
        self,
        *,
        timeout: Seconds | None = None,
        kill: bool = False,
        desired_stopped: bool = False,
        reap: bool = False,
        reason: str | None = None,
        by: str = "python",
    ) -> Outcome:
        """Asks the holder to stop, and waits for that: its own stop budget, or `timeout` seconds.

        `kill` ends a holder that does not follow. `outcome` is `stopped`, `not_running`,
        `still_running`, `in_progress`, `served` or `of_another`.
        """
        return self._stop(
            None,
            timeout=optional_seconds(timeout),
            kill=kill,
            desired_stopped=desired_stopped,
            reap=reap,
            reason=reason,
            by=by,
        )

    def _stop(self, canceller: _native.Canceller | None, **asked: Any) -> Outcome:
        return parse(
            Outcome, self._native.stop(self.profile, self.kind, options(asked), canceller)
        )

    def restart(
        self, *, timeout: Seconds | None = None, reason: str | None = None, by: str = "python"
    ) -> Outcome:
        """Asks the holder to start again. `outcome` is `done`, `not_running`, `not_served`, ..."""
        fields = {"timeout": optional_seconds(timeout), "reason": reason, "by": by}
        answer = self._native.restart(self.profile, self.kind, options(fields), None)
        return parse(Outcome, answer)

    def signal(self, signum: int, *, by: str = "python") -> Outcome:
        """Sends HUP, USR1, USR2 and the like to the holder, proven to be it.

        `outcome` is `sent`, `not_running`, `served` or `not_sent`. A signal that asks to end is
        `InvalidInput`: that is `stop()`.
        """
        return parse(Outcome, self._native.signal(self.profile, self.kind, int(signum), by))

    def evict(self, *, force: bool = False, by: str = "python") -> Outcome:
        """Ends the record of a dead holder; `force` also that of a live one. Signals nothing.

        `outcome` is `nothing`, `done`, `refused` (with `holder`), `orphans_removed` or
        `legacy_home_forgotten`.
        """
        return parse(Outcome, self._native.evict(self.profile, self.kind, force, by))
