"""The client."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from .._operations import Operations
from .._transport import AsyncTransport
from ..discovery import Credential
from .sandboxes import AsyncSandboxes
from .services import AsyncServices
from .sessions import AsyncSessions
from .tenants import AsyncSecrets, AsyncTenants, AsyncVolumes


class AsyncNimbus:
    """A client of a Nimbus server.

    What is left out is looked for in the environment and in the credential file, with the first request.
    Use it in a `with` block, or close it.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        tenant_id: str | None = None,
        token: str | None = None,
        api_key: str | None = None,
        credential: Credential | None = None,
        headers: Mapping[str, str] | None = None,
        max_retries: int | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self.tenant_id = tenant_id
        self._transport = AsyncTransport(
            http,
            endpoint=endpoint,
            token=token,
            api_key=api_key,
            credential=credential,
            headers=headers,
            max_retries=max_retries,
        )
        operations = Operations(tenant_id, self._transport.max_retries)
        self.tenants = AsyncTenants(self._transport, operations)
        self.services = AsyncServices(self._transport, operations)
        self.sandboxes = AsyncSandboxes(self._transport, operations)
        self.sessions = AsyncSessions(self._transport, operations)
        self.secrets = AsyncSecrets(self._transport, operations)
        self.volumes = AsyncVolumes(self._transport, operations)

    @classmethod
    def default_client(cls, **options: Any) -> Self:
        """A client whose endpoint and credential have been found already; raises when one is missing."""
        client = cls(**options)
        client._transport.target()
        return client

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
