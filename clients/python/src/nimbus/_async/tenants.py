"""Tenants and what they keep."""

from __future__ import annotations

from collections.abc import Sequence

from .._operations import Operations
from .._transport import AsyncTransport
from ..models import (
    Secret,
    Tenant,
    Volume,
)


class AsyncTenants:
    """The tenants that the caller may reach."""

    def __init__(self, transport: AsyncTransport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    async def create(self, tenant_id: str) -> Tenant:
        return await self._transport.run(self._operations.tenant_create(tenant_id))

    async def get(self, tenant_id: str) -> Tenant:
        return await self._transport.run(self._operations.tenant_get(tenant_id))

    async def delete(self, tenant_id: str) -> None:
        """Removes a tenant with everything in it."""
        await self._transport.run(self._operations.tenant_delete(tenant_id))

    async def ids(self) -> Sequence[str]:
        """All of them, sorted."""
        return await self._transport.run(self._operations.tenant_list())


class AsyncSecrets:
    """The secrets of a tenant. Sandboxes name them in `process.secrets`; a value is never given back."""

    def __init__(self, transport: AsyncTransport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    async def all(self, *, tenant_id: str | None = None) -> Sequence[Secret]:
        return await self._transport.run(self._operations.named_list(Secret, "secrets", tenant_id))

    async def put(self, name: str, value: str, *, tenant_id: str | None = None) -> Secret:
        """Sandboxes that are created from now on get this value."""
        return await self._transport.run(
            self._operations.named_put(Secret, "secrets", name, {"value": value}, tenant_id)
        )

    async def delete(self, name: str, *, tenant_id: str | None = None) -> None:
        await self._transport.run(self._operations.named_delete("secrets", name, tenant_id))


class AsyncVolumes:
    """The volumes of a tenant: storage that outlives sandboxes, which name them in `mounts`."""

    def __init__(self, transport: AsyncTransport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    async def all(self, *, tenant_id: str | None = None) -> Sequence[Volume]:
        return await self._transport.run(self._operations.named_list(Volume, "volumes", tenant_id))

    async def ensure(self, name: str, *, tenant_id: str | None = None) -> Volume:
        """Makes a volume, or answers the one of that name."""
        return await self._transport.run(self._operations.named_put(Volume, "volumes", name, None, tenant_id))

    async def delete(self, name: str, *, tenant_id: str | None = None) -> None:
        """Removes it with its data; refused while a sandbox mounts it."""
        await self._transport.run(self._operations.named_delete("volumes", name, tenant_id))
