"""Does what `_calls` describes, blocking or async, over httpx."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import httpx

from ._calls import MAX_RETRIES, Answer, Call, Exchange, Pause, Steps, failure
from .discovery import Credential, Target, discover
from .errors import NimbusError, NimbusTransportError

T = TypeVar("T")

VERSION = "0.1.0"
_CREDENTIALS = ("authorization", "x-nimbus-api-key", "x-nimbus-admin-token", "cookie")
_CONNECT_S = 10.0
_ANSWER_S = 60.0
# Servers send an empty line every 15 s; three of them missing, the connection is dead.
_STREAM = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S, read=45.0)


class Base:
    """Endpoint, credential and headers, found with the first request. A failed search is not remembered."""

    def __init__(
        self,
        *,
        endpoint: str | None,
        token: str | None,
        api_key: str | None,
        credential: Credential | None,
        headers: Mapping[str, str] | None,
        max_retries: int | None,
    ) -> None:
        self._search: dict[str, Any] = {"endpoint": endpoint, "token": token, "api_key": api_key, "credential": credential}
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._target: Target | None = None
        self.max_retries = MAX_RETRIES if max_retries is None else max_retries

    def target(self) -> Target:
        if self._target is None:
            # Who brings a header that authorises needs no other credential.
            anonymous = any(name in self._headers for name in _CREDENTIALS)
            self._target = discover(anonymous=anonymous, **self._search)
        return self._target

    def _arguments(self, call: Call) -> dict[str, Any]:
        target = self.target()
        authorization = target.authorization()
        return {
            "method": call.method,
            "url": f"{target.endpoint}{call.path}",
            "params": call.params(),
            "content": call.body(),
            "headers": {
                "user-agent": f"nimbus-python/{VERSION}",
                **call.request_headers(),
                **({} if authorization is None else dict([authorization])),
                **self._headers,
            },
        }


def broken(call: Call, error: Exception) -> NimbusTransportError:
    return NimbusTransportError(f"{call.method} {call.path} failed: {error or type(error).__name__}")


class Lines:
    """Cuts bytes into lines at \\n only: JSON may hold characters that other line readers cut at."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, piece: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [line for line in lines if line.strip()]

    def end(self) -> list[bytes]:
        return [self._rest] if self._rest.strip() else []


class Connection:
    """An answer that is read as it comes."""

    def __init__(self, call: Call, response: httpx.Response) -> None:
        self._call = call
        self._response = response

    def pieces(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_bytes()
        except (httpx.TransportError, httpx.StreamError) as error:
            raise broken(self._call, error) from error

    def lines(self) -> Iterator[bytes]:
        lines = Lines()
        for piece in self.pieces():
            yield from lines.take(piece)
        yield from lines.end()

    def close(self) -> None:
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Transport(Base):
    """The blocking one."""

    def __init__(self, client: httpx.Client | None, **options: Any) -> None:
        super().__init__(**options)
        self._owned = client is None
        self._client = client or httpx.Client(timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S))

    def run(self, steps: Steps[T]) -> T:
        try:
            effect = next(steps)
            while True:
                try:
                    result = self._perform(effect)
                except NimbusError as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as end:
            value: T = end.value
            return value

    def _perform(self, effect: Exchange | Pause) -> Answer | None:
        if isinstance(effect, Pause):
            self.pause(effect.seconds)
            return None
        try:
            response = self._client.request(**self._arguments(effect.call))
        except httpx.TransportError as error:
            raise broken(effect.call, error) from error
        return Answer(response.status_code, response.headers, response.content)

    def open(self, call: Call) -> Connection:
        """Sends once; the body of a success is left to be read."""
        request = self._client.build_request(**self._arguments(call), timeout=_STREAM)
        try:
            response = self._client.send(request, stream=True)
            if response.status_code >= 400:
                body = response.read()
                response.close()
                raise failure(call, Answer(response.status_code, response.headers, body))
        except httpx.TransportError as error:
            raise broken(call, error) from error
        return Connection(call, response)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        if self._owned:
            self._client.close()


class AsyncConnection:
    """An answer that is read as it comes."""

    def __init__(self, call: Call, response: httpx.Response) -> None:
        self._call = call
        self._response = response

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.aiter_bytes():
                yield piece
        except (httpx.TransportError, httpx.StreamError) as error:
            raise broken(self._call, error) from error

    async def lines(self) -> AsyncIterator[bytes]:
        lines = Lines()
        async for piece in self.pieces():
            for line in lines.take(piece):
                yield line
        for line in lines.end():
            yield line

    async def close(self) -> None:
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncTransport(Base):
    """The async one, for asyncio and trio."""

    def __init__(self, client: httpx.AsyncClient | None, **options: Any) -> None:
        super().__init__(**options)
        self._owned = client is None
        self._client = client or httpx.AsyncClient(timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S))

    async def run(self, steps: Steps[T]) -> T:
        try:
            effect = next(steps)
            while True:
                try:
                    result = await self._perform(effect)
                except NimbusError as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as end:
            value: T = end.value
            return value

    async def _perform(self, effect: Exchange | Pause) -> Answer | None:
        if isinstance(effect, Pause):
            await self.pause(effect.seconds)
            return None
        try:
            response = await self._client.request(**self._arguments(effect.call))
        except httpx.TransportError as error:
            raise broken(effect.call, error) from error
        return Answer(response.status_code, response.headers, response.content)

    async def open(self, call: Call) -> AsyncConnection:
        """Sends once; the body of a success is left to be read."""
        request = self._client.build_request(**self._arguments(call), timeout=_STREAM)
        try:
            response = await self._client.send(request, stream=True)
            if response.status_code >= 400:
                body = await response.aread()
                await response.aclose()
                raise failure(call, Answer(response.status_code, response.headers, body))
        except httpx.TransportError as error:
            raise broken(call, error) from error
        return AsyncConnection(call, response)

    async def pause(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def close(self) -> None:
        if self._owned:
            await self._client.aclose()
