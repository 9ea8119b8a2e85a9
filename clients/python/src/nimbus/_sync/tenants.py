# Made of `_async/` by `python -m nimbus._unasync`: edit that folder.
"""Tenants and what they keep."""

from __future__ import annotations

from collections.abc import Sequence

from .._operations import Operations
from .._transport import Transport
from ..models import (
    Secret,
    Tenant,
    Volume,
)


class Tenants:
    """The tenants that the caller may reach."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    def create(self, tenant_id: str) -> Tenant:
        return self._transport.run(self._operations.tenant_create(tenant_id))

    def get(self, tenant_id: str) -> Tenant:
        return self._transport.run(self._operations.tenant_get(tenant_id))

    def delete(self, tenant_id: str) -> None:
        """Removes a tenant with everything in it."""
        self._transport.run(self._operations.tenant_delete(tenant_id))

    def ids(self) -> Sequence[str]:
        """All of them, sorted."""
        return self._transport.run(self._operations.tenant_list())


class Secrets:
    """The secrets of a tenant. Sandboxes name them in `process.secrets`; a value is never given back."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    def all(self, *, tenant_id: str | None = None) -> Sequence[Secret]:
        return self._transport.run(self._operations.named_list(Secret, "secrets", tenant_id))

    def put(self, name: str, value: str, *, tenant_id: str | None = None) -> Secret:
        """Sandboxes that are created from now on get this value."""
        return self._transport.run(
            self._operations.named_put(Secret, "secrets", name, {"value": value}, tenant_id)
        )

    def delete(self, name: str, *, tenant_id: str | None = None) -> None:
        self._transport.run(self._operations.named_delete("secrets", name, tenant_id))


class Volumes:
    """The volumes of a tenant: storage that outlives sandboxes, which name them in `mounts`."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    def all(self, *, tenant_id: str | None = None) -> Sequence[Volume]:
        return self._transport.run(self._operations.named_list(Volume, "volumes", tenant_id))

    def ensure(self, name: str, *, tenant_id: str | None = None) -> Volume:
        """Makes a volume, or answers the one of that name."""
        return self._transport.run(self._operations.named_put(Volume, "volumes", name, None, tenant_id))

    def delete(self, name: str, *, tenant_id: str | None = None) -> None:
        """Removes it with its data; refused while a sandbox mounts it."""
        self._transport.run(self._operations.named_delete("volumes", name, tenant_id))
