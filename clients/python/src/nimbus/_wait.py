"""Waiting for a state by looking again and again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from ._calls import Pause, Steps
from .errors import NimbusError, NimbusInputError, NimbusWaitFailedError, NimbusWaitTimeoutError, is_transient

T = TypeVar("T")

Until = Literal["ready", "healthy", "stopped"]

TIMEOUT_S = 30.0
INTERVAL_S = 0.25


def one_of(field: str, allowed: tuple[str, ...], value: str) -> None:
    """Refuses a condition that this call cannot wait for."""
    if value not in allowed:
        raise NimbusInputError(f"`{field}` is {value!r}; it can be {' or '.join(allowed)}")


def check(timeout: float, interval: float) -> None:
    """Refuses limits that make no sense."""
    for name, value in (("timeout", timeout), ("interval", interval)):
        if not (math.isfinite(value) and value > 0):
            raise NimbusInputError(f"`{name}` is {value}; it must be a positive number of seconds")


def wait_for(
    kind: Literal["service", "sandbox"],
    name: str,
    until: str,
    look: Callable[[], Steps[T]],
    timeout: float,
    interval: float,
) -> Steps[T]:
    """Looks until `until` holds; limits have been checked."""
    deadline = time.monotonic() + timeout
    last: T | None = None
    while True:
        trouble: NimbusError | None = None
        try:
            last = yield from look()
        except NimbusError as error:
            if not is_transient(error):
                raise
            trouble = error
        if last is not None and trouble is None:
            status: Any = getattr(last, "status")  # noqa: B009
            if _holds(status, until):
                return last
            if (hopeless := _cannot_hold(kind, status, until)) is not None:
                raise NimbusWaitFailedError(f"{kind} {name} {hopeless}; it will not get {until}. {_describe(status)}", last)
        left = deadline - time.monotonic()
        if left <= 0:
            seen = "it was never seen" if last is None else _describe(getattr(last, "status"))  # noqa: B009
            because = "" if trouble is None else f"; the last look failed: {trouble}"
            raise NimbusWaitTimeoutError(
                f"{kind} {name} was not {until} within {timeout * 1000:g} ms; {seen}{because}", last
            ) from trouble
        yield Pause(min(interval, left))


def _holds(status: Any, until: str) -> bool:
    match until:
        case "ready":
            return "ready" in (status.readiness.lower(), status.lifecycle_state.lower())
        case "healthy":
            return bool(status.health.lower() == "healthy")
        case _:
            return "stopped" in (status.readiness.lower(), status.lifecycle_state.lower())


def _cannot_hold(kind: str, status: Any, until: str) -> str | None:
    """Why a state is final, when it is."""
    state = status.lifecycle_state.lower()
    # A sandbox that has ended never runs again; a service may be started, or stopped after it failed.
    if state == "failed" and (kind == "sandbox" or until != "stopped"):
        return "has failed"
    if until == "stopped":
        return None
    if state == "stopped" and kind == "sandbox":
        return "has stopped"
    # Somebody else runs an external service; its health is looked at all the same.
    if state == "declared" and status.backend != "external":
        return "is only declared, nothing runs for it"
    return None


def _describe(status: Any) -> str:
    state = f"lifecycleState {status.lifecycle_state}, readiness {status.readiness}, health {status.health}"
    if getattr(status, "exit_code", None) is not None:
        state += f", exitCode {status.exit_code}"
    # The condition that is not fulfilled says most.
    telling = [
        f"{one.type}={one.status} {one.reason}{f': {one.message}' if one.message else ''}"
        for one in status.conditions
        if one.status != "True" or one.type == "Progressing"
    ]
    return f"last seen: {state}" + (f" ({'; '.join(telling)})" if telling else "")
