"""Services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Literal

from .. import specs
from .._calls import Steps
from .._commands import (
    frame_of,
)
from .._operations import Operations, logs
from .._transport import AsyncTransport
from .._wait import INTERVAL_S, TIMEOUT_S
from ..models import (
    LogLine,
    Page,
    Service,
    decode,
)
from .listing import AsyncListing

Activation = Literal["ready", "healthy"]
Until = Literal["ready", "healthy", "stopped"]


class AsyncServices:
    """The services of a tenant: stable names for what runs behind them."""

    def __init__(self, transport: AsyncTransport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    async def create(
        self,
        name: str,
        backend: specs.ServiceBackend,
        *,
        labels: Mapping[str, str] | None = None,
        tenant_id: str | None = None,
    ) -> Service:
        """Defines a service; nothing is started."""
        return await self._transport.run(self._operations.service_create(name, backend, labels, tenant_id))

    async def get(self, name: str, *, tenant_id: str | None = None) -> Service:
        return await self._transport.run(self._operations.service_get(name, tenant_id))

    def list(
        self,
        *,
        limit: int | None = None,
        page_token: str | None = None,
        label_key: str | None = None,
        label_value: str | None = None,
        tenant_id: str | None = None,
    ) -> AsyncListing[Service]:
        def ask(token: str | None) -> Steps[Page[Service]]:
            query = {"limit": limit, "pageToken": token, "labelKey": label_key, "labelValue": label_value}
            return self._operations.service_list(query, tenant_id)

        return AsyncListing(self._transport, ask, page_token)

    async def update(
        self,
        name: str,
        backend: specs.ServiceBackend,
        *,
        if_match_generation: int,
        labels: Mapping[str, str] | None = None,
        tenant_id: str | None = None,
    ) -> Service:
        """Replaces the backend if the generation is still the one given. Without `labels` the labels stay."""
        return await self._transport.run(
            self._operations.service_update(name, backend, if_match_generation, labels, tenant_id)
        )

    async def delete(
        self, name: str, *, if_match_generation: int, force: bool = False, tenant_id: str | None = None
    ) -> None:
        """Removes the definition if the generation is still the one given."""
        await self._transport.run(self._operations.service_delete(name, if_match_generation, force, tenant_id))

    async def start(
        self,
        name: str,
        *,
        wait_until: Activation | None = None,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> Service:
        """Starts what is behind the service; answers at once unless `wait_until` is given."""
        return await self._transport.run(
            self._operations.service_act("start", name, wait_until, timeout, interval, tenant_id)
        )

    async def restart(
        self,
        name: str,
        *,
        wait_until: Activation | None = None,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> Service:
        """Stops what runs and starts anew."""
        return await self._transport.run(
            self._operations.service_act("restart", name, wait_until, timeout, interval, tenant_id)
        )

    async def stop(
        self,
        name: str,
        *,
        wait_until: Literal["stopped"] | None = None,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> Service:
        return await self._transport.run(
            self._operations.service_act("stop", name, wait_until, timeout, interval, tenant_id)
        )

    async def wait(
        self,
        name: str,
        until: Until,
        *,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> Service:
        """Looks until the condition holds."""
        return await self._transport.run(
            self._operations.service_wait(name, until, timeout, interval, tenant_id)
        )

    async def logs(
        self,
        name: str,
        *,
        tail: int | None = None,
        since: str | None = None,
        follow: bool = False,
        tenant_id: str | None = None,
    ) -> AsyncIterator[LogLine]:
        """What the service wrote; with `follow` also what it will write."""
        call = logs(self._operations.service_path(name, tenant_id), tail, since, follow)
        async with await self._transport.open(call) as connection:
            async for line in connection.lines():
                yield decode(LogLine, frame_of(line))
