"""Whatever this package raises. `code` is stable, the message is for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["fatal", "error", "warning"]

# Statuses that pass by themselves, also when a proxy in between sent them.
_TRANSIENT = frozenset({408, 429, 502, 503, 504})

_CODES = {
    400: "op.invalid_input",
    401: "auth.unauthorized",
    403: "auth.forbidden",
    404: "op.not_found",
    405: "op.method_not_allowed",
    409: "op.conflict",
    412: "op.precondition_failed",
    413: "op.payload_too_large",
    429: "rate.limited",
    502: "service.unavailable",
    503: "service.unavailable",
    504: "service.unavailable",
}


@dataclass(frozen=True, slots=True)
class Remediation:
    """What can be done about a failure: `action` for programs, `message` for people."""

    action: str
    message: str


class NimbusError(Exception):
    """The root of all errors of this package."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int = 0,
        request_id: str | None = None,
        severity: Severity = "error",
        retryable: bool = False,
        detail: Mapping[str, Any] | None = None,
        remediation: Remediation | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        #: HTTP status, 0 when there was no answer.
        self.status = status
        #: To find the request in the server's log.
        self.request_id = request_id
        self.severity = severity
        #: Whether the same request can succeed later.
        self.retryable = retryable
        self.detail = detail
        self.remediation = remediation
        #: Seconds the server asked to wait.
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class NimbusInputError(NimbusError, ValueError):
    """An input that no request was made for: `client.invalid_input`."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="client.invalid_input", severity="warning")


class NimbusDiscoveryError(NimbusError):
    """Endpoint or credential could not be found: `client.discovery`."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="client.discovery")


class NimbusTransportError(NimbusError):
    """The server could not be reached, or the connection broke: `client.transport`. What it did is not known."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="client.transport", retryable=True)


class NimbusWaitTimeoutError(NimbusError, TimeoutError):
    """A wait reached its deadline: `client.wait_timeout`. `last` is what was seen last."""

    def __init__(self, message: str, last: object) -> None:
        super().__init__(message, code="client.wait_timeout", retryable=True)
        self.last = last


class NimbusWaitFailedError(NimbusError):
    """A wait for something that cannot happen any more: `client.wait_failed`."""

    def __init__(self, message: str, last: object) -> None:
        super().__init__(message, code="client.wait_failed")
        self.last = last


class NimbusApiError(NimbusError):
    """A failure that the server reported."""


class NimbusAuthError(NimbusApiError):
    """401 and 403: no valid credential, or one that may not do this."""


class NimbusNotFoundError(NimbusApiError):
    """404: there is no such thing, or it is not yours."""


class NimbusPreconditionFailedError(NimbusApiError):
    """412: the resource has changed since it was read."""


class NimbusConflictError(NimbusApiError):
    """`op.conflict`: the state of the resource does not allow this now."""


class NimbusOutOfRetentionError(NimbusApiError):
    """`op.out_of_retention`: what was asked for is not kept any more."""


class NimbusRateLimitedError(NimbusApiError):
    """429: a limit or a quota is reached."""


def api_error(
    body: object,
    *,
    status: int,
    message: str | None = None,
    request_id: str | None = None,
    retry_after: float | None = None,
) -> NimbusApiError:
    """Makes the error of an answer; what the body lacks is taken from the arguments. Never raises."""
    outer = body if isinstance(body, dict) else {}
    # The routes of machines name the same object `fault`.
    inner = next((found for name in ("error", "fault") if isinstance(found := outer.get(name), dict)), {})
    code = _text(inner.get("code")) or _CODES.get(status, "service.internal" if status >= 500 else "op.invalid_input")
    detail = inner.get("detail") if isinstance(inner.get("detail"), dict) else None
    remedy = inner.get("remediation")
    severity = inner.get("severity")
    retryable = inner.get("retryable")
    after = (detail or {}).get("retryAfterMs")
    return _class_of(code, status)(
        _text(inner.get("message")) or _text(outer.get("error")) or message or f"the server answered with status {status}",
        code=code,
        status=status,
        request_id=_text(inner.get("requestId")) or request_id,
        severity=severity if severity in ("fatal", "warning") else "error",
        retryable=retryable if isinstance(retryable, bool) else status in _TRANSIENT,
        detail=detail,
        remediation=Remediation(str(remedy.get("action", "")), str(remedy.get("message", ""))) if isinstance(remedy, dict) else None,
        retry_after=retry_after if retry_after is not None else (after / 1000 if isinstance(after, int | float) else None),
    )


def is_transient(error: NimbusError) -> bool:
    """Whether the same request may pass in a moment. A quota that is used up stays so for longer than that."""
    if isinstance(error, NimbusTransportError):
        return True
    passing = error.status == 429 or error.status >= 500
    return isinstance(error, NimbusApiError) and error.retryable and passing and error.code != "rate.resource_exhausted"


def _class_of(code: str, status: int) -> type[NimbusApiError]:
    match code, status:
        case "op.conflict", _:
            return NimbusConflictError
        case "op.out_of_retention", _:
            return NimbusOutOfRetentionError
        case _, 401 | 403:
            return NimbusAuthError
        case _, 404:
            return NimbusNotFoundError
        case _, 412:
            return NimbusPreconditionFailedError
        case _, 429:
            return NimbusRateLimitedError
        case _:
            return NimbusApiError


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
