"""What is asked of the server, without doing it: everything here serves the blocking and the async client alike.

An operation is a generator: it yields an `Exchange` or a `Pause`, is sent what came of it, and returns its result.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import AsyncIterable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from .errors import NimbusApiError, NimbusError, api_error, is_transient

T = TypeVar("T")

MAX_RETRIES = 3
_BACKOFF_S = 0.1
_BACKOFF_CAP_S = 2.0
# A server that asks for more patience than this is not asked again; the error says how long it wanted.
_RETRY_AFTER_CAP_S = 10.0

Content: TypeAlias = "bytes | Iterable[bytes] | AsyncIterable[bytes]"


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    #: Sent as JSON, without the fields that are None.
    json: Mapping[str, Any] | None = None
    #: Sent as it is.
    content: Content | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Creates something: carries an Idempotency-Key, and may be repeated for that reason.
    creates: bool = False
    #: Safe to repeat for another reason. GET always is.
    repeatable: bool = False

    def params(self) -> dict[str, str]:
        return {name: _query_text(value) for name, value in self.query.items() if value is not None}

    def body(self) -> Content | None:
        return self.content if self.json is None else json.dumps(_without_none(self.json)).encode()

    def request_headers(self) -> dict[str, str]:
        typed = {} if self.json is None else {"content-type": "application/json"}
        return {"accept": "application/json", **typed, **self.headers}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send a call and bring its answer. A broken connection is thrown into the generator."""

    call: Call


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


Steps: TypeAlias = Generator[Exchange | Pause, Any, T]


def path(*segments: str) -> str:
    """A path of segments, each taken as it is."""
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)


def backoff(attempt: int) -> float:
    """How long to wait before the next try: doubling, capped, and spread, so that clients do not come back together."""
    ceiling = min(_BACKOFF_CAP_S, _BACKOFF_S * 2.0**attempt)
    return ceiling / 2 + random.random() * (ceiling / 2)


def send(call: Call, max_retries: int) -> Steps[Answer]:
    """Sends a call, and again where that is safe; raises what the server reports."""
    repeatable = call.method == "GET" or call.repeatable or call.creates
    if call.creates:
        call = keyed(call)
    attempt = 0
    while True:
        try:
            answer: Answer = yield Exchange(call)
            if answer.status >= 400:
                raise failure(call, answer)
            return answer
        except NimbusError as error:
            wait = error.retry_after or backoff(attempt)
            if not repeatable or attempt >= max_retries or not is_transient(error) or wait > _RETRY_AFTER_CAP_S:
                raise
        yield Pause(wait)
        attempt += 1


def keyed(call: Call) -> Call:
    """The call with an Idempotency-Key of its own."""
    return Call(
        call.method,
        call.path,
        call.query,
        call.json,
        call.content,
        {**call.headers, "idempotency-key": secrets.token_hex(16)},
    )


def fetch(call: Call, max_retries: int) -> Steps[Any]:
    """The JSON of the answer."""
    answer = yield from send(call, max_retries)
    try:
        return json.loads(answer.body)
    except ValueError:
        raise NimbusApiError(
            f"{call.method} {call.path}: the answer is not JSON; is the endpoint a Nimbus server?",
            code="client.protocol",
            status=answer.status,
            request_id=answer.headers.get("x-request-id"),
        ) from None


def failure(call: Call, answer: Answer) -> NimbusApiError:
    """The error that an answer reports."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    after = answer.headers.get("retry-after", "")
    return api_error(
        body,
        status=answer.status,
        message=f"{call.method} {call.path} was answered with {answer.status}",
        request_id=answer.headers.get("x-request-id"),
        retry_after=float(after) if after.isdigit() else None,
    )


def _query_text(value: str | int | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None
    }
